"""Train a language model to answer with empathy by GRPO, and measure honestly whether it does."""

import logging

# On processors with AVX512-BF16 it warns, as it is imported, that it lacks kernels to multiply 4-bit weights. Nothing here
# uses them: on a processor the weights are dequantised once, as they are loaded.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
