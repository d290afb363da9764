"""The policy: a chat model in 4 bits with LoRA, on a GPU or a CPU.

On a CPU it is exactly as right, if slower.
"""

from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gpro_empathy import distributed, files, params, prompt_tokens
from gpro_empathy.files import UserError
from gpro_empathy.policy.adapters import SOURCE

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Tokens that tokenizers without a padding token keep free, Llama 3.1's first.
SPARE_TOKENS = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|padding|>", "<|pad|>", "<pad>", "<unk>")


def compute_dtype(config: params.Policy) -> torch.dtype:
    """Return the number format that policy.dtype stands for on this machine.

    `auto` is bfloat16 where the hardware multiplies it (a GPU, or a processor with AVX512-BF16 or
    AMX), else float32: without, products in bfloat16 are many times slower than in float32.
    """
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    if torch.cuda.is_available():
        return torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(model: torch.nn.Module) -> torch.autocast:
    """Return the context in which LoRA matrices multiply in the format of the base weights.

    The matrices are kept in float32.
    """
    dtype = model.get_input_embeddings().weight.dtype
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a converted policy, padding on the left.

    Llama's has no padding token. The end token is none: it ends every message of a prompt, and
    Unsloth tells padding from text by the id alone. It stands in only where the vocabulary has no
    spare token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        known = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in SPARE_TOKENS if token in known), tokenizer.eos_token)
    return tokenizer


def load_base(config: params.Policy, folder: Path, *, whole: bool = False) -> PreTrainedModel:
    """Load the base model of a converted policy, quantised to NF4 where the configuration says so.

    On a CPU the quantised weights are dequantised at once, into ordinary layers that hold the 4-bit
    model's numbers: bitsandbytes repacks 4-bit weights at the first forward pass without gradients
    on some processors, and the backward pass through them is lost from then on.

    Args:
        whole: As `distributed.device_map`.

    Raises:
        UserError: If the model cannot be loaded.
    """
    source = files.read_json(folder / SOURCE)
    cuda = torch.cuda.is_available()
    dtype = compute_dtype(config)
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source["model"] or folder,
            revision=source["revision"],
            dtype=dtype,
            attn_implementation="sdpa",  # whatever a model's own default is: packed_attention goes on from this one
            device_map=distributed.device_map(whole=whole),
            quantization_config=quantisation if config.load_in_4bit else None,
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"policy.model {source['name']!r}: cannot load it ({reason})") from None
    if config.load_in_4bit and not cuda:
        model = model.dequantize().to(dtype)
    return model


def add_lora(model: PreTrainedModel, config: params.Policy, adapter: Path | None) -> PeftModel:
    """Wrap a base model with trainable LoRA matrices.

    They are those of `adapter`, or new ones that change nothing yet.
    """
    if adapter is not None:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, lora)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Return the token ids of a chat prompt, up to where the reply begins.

    A user's text is text in it.

    Raises:
        UserError: If the tokenizer cannot but read a control token in a user's message.
    """
    render = partial(tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False)
    if prompt_tokens.spell_control_tokens(tokenizer.backend_tokenizer, messages):
        return prompt_tokens.ids_of_text(tokenizer.backend_tokenizer, render, messages)
    return tokenizer(render(messages), add_special_tokens=False)["input_ids"]
