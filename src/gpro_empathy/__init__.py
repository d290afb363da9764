"""Train a language model to answer with empathy by GRPO, and measure honestly whether it does."""

import logging
import os

# No part of the project reports its use anywhere. vLLM and Unsloth do, in whichever process, unless
# this stands in its environment before they are imported.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")

# On processors with AVX512-BF16 it warns, as it is imported, that it lacks kernels to multiply
# 4-bit weights. Nothing here uses them: on a processor the weights are dequantised once, as they
# are loaded.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
