"""The encoder of the empathy scorer: its source, its trained weights, and how those are kept."""

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from gpro_empathy import packaged_models, params
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters

# What is adapted of a block: query, key, value and both dense layers, by the names of BERT and
# RoBERTa, and by those of MPNet.
LORA_TARGETS = ("query", "key", "value", "q", "k", "v", "o", "dense")
# What encoders from the hub may be: those whose layers, masks and names are BERT's or MPNet's.
KINDS = ("bert", "electra", "mpnet", "roberta", "xlm-roberta")
ATTENTION = "sdpa"  # torch's attention in one piece, which transformers takes by itself where an encoder can
# What configurations of encoders call the dropout of attention weights.
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
# What was trained, and the name of its folder; the name of the encoder's weights in it.
ADAPTER, ENCODER = "adapter", "encoder"
WEIGHTS = "model.safetensors"


def device() -> torch.device:
    """Return where scorers stand: on this process's GPU, else on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(
    name: str, revision: str | None, layers: int | None, attention_dropout: float = 0.0
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load an encoder and its tokenizer.

    The encoder is a packaged one, a small random BERT, or one from the hub.

    Args:
        layers: How many of its layers are kept, from the input on; None keeps all (two of the
            random one).

    Raises:
        UserError: If it cannot be loaded, is of another kind than KINDS, or has fewer layers.
    """
    if name == "random":
        tokenizer = AutoTokenizer.from_pretrained(packaged_models.find(packaged_models.MINILM).parent)
        tiny = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=layers or 2,
            num_attention_heads=2,
            intermediate_size=64,
            attention_probs_dropout_prob=attention_dropout,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)  # its random weights are not saved: every loading must draw the same ones
            return BertModel._from_config(tiny, attn_implementation=ATTENTION), tokenizer
    if name in packaged_models.ENCODERS:
        name, revision = packaged_models.find(name).parent, None
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
        for key in ATTENTION_DROPOUT:
            if hasattr(config, key):
                setattr(config, key, attention_dropout)
        encoder = AutoModel.from_pretrained(name, config=config, revision=revision, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"train_scorer.encoder {name!r}: cannot load it ({reason})") from None
    if config.model_type not in KINDS:
        raise UserError(
            f"train_scorer.encoder {name!r} is of the kind {config.model_type}; only {', '.join(KINDS)} are known here"
        )
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise UserError(
                f"train_scorer.layers is {layers}, but {name} has {config.num_hidden_layers}; null keeps all"
            )
        del encoder.encoder.layer[layers:]
        encoder.config.num_hidden_layers = layers
    return encoder, tokenizer


def mask(encoder: nn.Module, attends_B1TT: torch.Tensor) -> torch.Tensor:
    """Return which tokens attend to which, in the form that the encoder takes.

    An encoder without torch's attention, as MPNet, adds its mask to the scores, to which a boolean
    one would hide nothing.
    """
    if encoder.config._attn_implementation == ATTENTION:
        return attends_B1TT
    return torch.zeros(attends_B1TT.shape, device=attends_B1TT.device).masked_fill(~attends_B1TT, -torch.inf)


def longest_text(encoder: nn.Module) -> int:
    """Return how many tokens an encoder has positions for."""
    config = encoder.config
    # Encoders of RoBERTa's kind count positions from the one after the padding's.
    skipped = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    return config.max_position_embeddings - skipped


def trainable(encoder: nn.Module, config: params.TrainScorer) -> nn.Module:
    """Return the encoder with new LoRA matrices, or, at rank 0, with its own blocks to train."""
    if not config.lora_rank:
        # Most words are too rare to be learned anew: their embeddings stay.
        encoder.embeddings.requires_grad_(False)
        return encoder
    named = {name.rpartition(".")[2] for name, _ in encoder.named_modules()}
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=[target for target in LORA_TARGETS if target in named],
    )
    return get_peft_model(encoder, lora)


def save(encoder: nn.Module, folder: Path) -> str:
    """Write what was trained of an encoder to a subfolder, and return its name."""
    if isinstance(encoder, PeftModel):
        adapters.save(encoder, folder / ADAPTER)
        return ADAPTER
    (folder / ENCODER).mkdir()
    save_file(encoder.state_dict(), folder / ENCODER / WEIGHTS)
    return ENCODER


def restore(encoder: nn.Module, folder: Path, settings: Mapping, remedy: str) -> nn.Module:
    """Return the encoder with what `save` wrote of it.

    Raises:
        UserError: If its file is missing, damaged, or of another encoder, with the remedy.
    """
    refusal = UserError(f"{folder / settings['trained']}: does not fit the encoder {settings['encoder']}; {remedy}")
    if settings["trained"] == ENCODER:
        stored = tensors(folder / ENCODER / WEIGHTS, remedy)
        if shapes(stored) != shapes(encoder.state_dict()):
            raise refusal
        encoder.load_state_dict(stored)
        return encoder
    if not (folder / ADAPTER / "adapter_config.json").is_file():  # else PEFT would look for it on the hub
        raise UserError(f"{folder / ADAPTER / 'adapter_config.json'}: no such file; {remedy}")
    stored = tensors(folder / ADAPTER / "adapter_model.safetensors", remedy)
    try:
        model = PeftModel.from_pretrained(encoder, folder / ADAPTER)
    except (RuntimeError, ValueError):
        raise refusal from None
    if shapes(stored) != shapes(
        get_peft_model_state_dict(model)
    ):  # PEFT passes over matrices of layers that are not there
        raise refusal
    return model


def tensors(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file.

    Its absence or damage is a UserError that ends with the remedy.
    """
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        raise UserError(f"{path}: missing or damaged; {remedy}") from None


def shapes(named: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {name: tuple(value.shape) for name, value in named.items()}
