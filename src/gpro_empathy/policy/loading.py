"""The policy: a chat model in 4 bits with LoRA, on a GPU or exactly as right, if slower, on a CPU."""

from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gpro_empathy import distributed, files, packaged_models, params, response_format
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SOURCE = adapters.SOURCE
# Tokens that tokenizers without a padding token keep free, Llama 3.1's first.
SPARE_TOKENS = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|padding|>", "<|pad|>", "<pad>", "<unk>")
# The chat format of SmolLM2, without the default system prompt that its own template inserts.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def compute_dtype(config: params.Policy) -> torch.dtype:
    """Return the number format that policy.dtype stands for on this machine.

    `auto` is bfloat16 where the hardware multiplies it (a GPU, or a processor with AVX512-BF16 or AMX), else float32:
    without, products in bfloat16 are many times slower than in float32.
    """
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    if torch.cuda.is_available():
        return torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(model: torch.nn.Module) -> torch.autocast:
    """Return the context in which LoRA matrices, kept in float32, multiply in the format of the base weights."""
    dtype = model.get_input_embeddings().weight.dtype
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def convert(config: params.Policy, folder: Path) -> None:
    """Write the starting policy to `folder`, atomically: its tokenizer, and its weights unless they come from a hub.

    Raises:
        UserError: If a packaged file is missing or altered, or a hub model cannot be reached.
    """
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        if config.model in (packaged_models.SMOLLM2, "random"):
            known = config.model == packaged_models.SMOLLM2
            tokenizer = _smollm2_tokenizer() if known else small_tokenizer()
            model = _smollm2() if known else _random_llama(tokenizer)
            model.generation_config = GenerationConfig(
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
            )
            model.save_pretrained(temporary)
            source = {"model": None, "revision": None, "name": config.model}
        else:
            tokenizer = _from_hub(AutoTokenizer, config)
            source = {"model": config.model, "revision": _commit(config), "name": config.model}
        tokenizer.save_pretrained(temporary)
        files.write_json(temporary / SOURCE, source)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a converted policy, padding on the left.

    Llama's has no padding token. The end token is none: it ends every message of a prompt, and Unsloth tells padding from
    text by the id alone. It stands in only where the vocabulary has no spare token.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        known = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in SPARE_TOKENS if token in known), tokenizer.eos_token)
    return tokenizer


def load_base(config: params.Policy, folder: Path) -> PreTrainedModel:
    """Load the base model of a converted policy, quantised to NF4 where the configuration says so.

    On a CPU the quantised weights are dequantised at once, into ordinary layers that hold the 4-bit model's numbers:
    bitsandbytes repacks 4-bit weights at the first forward pass without gradients on some processors, and the
    backward pass through them is lost from then on.

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
            device_map=distributed.device_map(),
            quantization_config=quantisation if config.load_in_4bit else None,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"policy.model {source['name']!r}: cannot load it ({_first_words(error)})") from None
    if config.load_in_4bit and not cuda:
        model = model.dequantize().to(dtype)
    return model


def add_lora(model: PreTrainedModel, config: params.Policy, adapter: Path | None) -> PeftModel:
    """Wrap a base model with trainable LoRA matrices: those of `adapter`, or new ones that change nothing yet."""
    if adapter is not None:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, lora)


def adapter_in(folder: Path) -> Path | None:
    """Return `folder` if it holds an adapter, and None if the stage that writes it was turned off."""
    return folder if (folder / "adapter_config.json").is_file() else None


def check_adapters(folders: Sequence[Path], base: Path) -> None:
    """Check that the adapters among `folders` belong to the converted policy `base`.

    Raises:
        UserError: If one does not.
    """
    for folder in folders:
        if adapter_in(folder) is not None:
            adapters.check_base(folder, base)


def save_adapter(
    model: PeftModel,
    folder: Path,
    card: str,
    weights: dict[str, torch.Tensor] | None = None,
    *,
    base: Path | None = None,
) -> None:
    """Save the LoRA matrices, or those among `weights`, as safetensors, with a model card, atomically.

    Args:
        base: Folder of the converted policy that the adapter belongs to; which it is, is noted beside the matrices.
    """
    with files.atomic_path(folder) as temporary:
        adapters.save(model, temporary, weights)
        files.write_text(temporary / "README.md", card)
        if base is not None:
            files.write_json(temporary / SOURCE, files.read_json(base / SOURCE))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Return the token ids of a chat prompt, up to where the reply begins."""
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _smollm2() -> PreTrainedModel:
    gguf = packaged_models.find(packaged_models.SMOLLM2)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers marks a model read from GGUF as quantised, and refuses to save it as it is.
    model.config.quantization_config = None
    del model.config.quantization_config
    model.is_quantized = False
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    return model


def _smollm2_tokenizer() -> PreTrainedTokenizerBase:
    gguf = packaged_models.find(packaged_models.SMOLLM2)
    # AutoTokenizer would parse the whole file once more, for the model's configuration.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Read from GGUF it has no proper end token, and sampling would never stop.
    return for_chat(tokenizer)


def small_tokenizer() -> PreTrainedTokenizerBase:
    """Make a byte-level tokenizer on the spot: every text can be written in it, if in many tokens."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([response_format.SYSTEM_PROMPT], trainer)
    return for_chat(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def for_chat(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer the chat format of SmolLM2, with its end and padding tokens."""
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = CHATML
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _random_llama(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def _from_hub(loader: type, config: params.Policy):
    try:
        return loader.from_pretrained(config.model, revision=config.revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"policy.model {config.model!r}: cannot load it ({_first_words(error)}); check the name, the network, and "
            "for a gated model that HF_TOKEN belongs to an account with access"
        ) from None


def _commit(config: params.Policy) -> str | None:
    """Return the commit of a hub model whose tokenizer was just loaded, so that all stages take the same; None of a folder."""
    if Path(config.model).is_dir():
        return None
    found = try_to_load_from_cache(config.model, "tokenizer_config.json", revision=config.revision)
    return Path(found).parent.name if isinstance(found, str) else config.revision


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
