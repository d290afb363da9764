"""Bring the starting policy into the folder that every stage loads.

It comes from a package or a hub, or is made up.
"""

from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gpro_empathy import files, packaged_models, params
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, random_model

# The chat format of SmolLM2, without the default system prompt that its own template inserts.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def convert(config: params.Policy, folder: Path) -> None:
    """Write the starting policy to `folder`, atomically.

    That is its tokenizer, and its weights unless they come from a hub.

    Raises:
        UserError: If a packaged file is missing or altered, or a hub model cannot be reached.
    """
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        if config.model in (packaged_models.SMOLLM2, "random"):
            packaged = config.model == packaged_models.SMOLLM2
            tokenizer = for_chat(_smollm2_tokenizer() if packaged else random_model.tokenizer())
            model = _smollm2() if packaged else random_model.llama(tokenizer)
            model.generation_config = GenerationConfig(
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
            )
            model.save_pretrained(temporary)
            source = {"model": None, "revision": None, "name": config.model}
        else:
            tokenizer = _from_hub(AutoTokenizer, config)
            source = {"model": config.model, "revision": _commit(config), "name": config.model}
        tokenizer.save_pretrained(temporary)
        files.write_json(temporary / adapters.SOURCE, source)


def for_chat(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer the chat format of SmolLM2, with its end and padding tokens.

    Read from GGUF, that of SmolLM2 itself has no proper end token, and sampling would never stop.
    """
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = CHATML
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


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
    return PreTrainedTokenizerFast.from_pretrained(gguf.parent, gguf_file=gguf.name)


def _from_hub(loader: type, config: params.Policy):
    try:
        return loader.from_pretrained(config.model, revision=config.revision)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"policy.model {config.model!r}: cannot load it ({reason}); check the name, the network, and "
            "for a gated model that HF_TOKEN belongs to an account with access"
        ) from None


def _commit(config: params.Policy) -> str | None:
    """Return the commit of a hub model whose tokenizer was just loaded.

    All stages then take that same commit.

    It is None for a folder.
    """
    if Path(config.model).is_dir():
        return None
    cached = try_to_load_from_cache(config.model, "tokenizer_config.json", revision=config.revision)
    return Path(cached).parent.name if isinstance(cached, str) else config.revision
