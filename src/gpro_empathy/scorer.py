"""The empathy scorer: an encoder with LoRA and a linear head that rates Emotion, EmotionalPolarity and Empathy.

After the published design: LoRA on query, key, value and both dense layers of every block, Huber loss, text
normalised. The embedding of a text is the mean of its token states.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from gpro_empathy import adapters, dialogue, files, packaged, params
from gpro_empathy.dialogue import LABELS, Turn
from gpro_empathy.files import UserError

FORMAT = 1
LORA_TARGETS = ["query", "key", "value", "dense"]
# Scoring batches hold at most this many tokens, padding included: keeps memory flat for texts of any length.
TOKENS_PER_BATCH = 8192


class Scorer(nn.Module):
    """Rates texts. Labels are in label units; see `dialogue.RANGES`."""

    def __init__(self, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.head = nn.Linear(encoder.config.hidden_size, len(LABELS))
        self.register_buffer("label_mean", torch.zeros(len(LABELS)))
        self.register_buffer("label_sd", torch.ones(len(LABELS)))

    def forward(self, input_ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Return standardised label predictions, shape (B, 3)."""
        states_BTH = self.encoder(input_ids=input_ids_BT, attention_mask=mask_BT).last_hidden_state
        weights_BT1 = mask_BT.unsqueeze(-1).to(states_BTH.dtype)
        mean_BH = (states_BTH * weights_BT1).sum(1) / weights_BT1.sum(1)
        return self.head(mean_BH)

    @torch.no_grad()
    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Return the labels (emotion, polarity, empathy) of texts, shape (B, 3), label units."""
        self.eval()
        encoded = self.encode(texts)
        scores_B3 = np.zeros((len(texts), len(LABELS)))
        for rows in _batches_by_length([len(ids) for ids in encoded], TOKENS_PER_BATCH):
            standardised = self(*self.collate([encoded[i] for i in rows]))
            scores_B3[rows] = (standardised * self.label_sd + self.label_mean).double().cpu().numpy()
        return scores_B3

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of normalised texts, each at most max_tokens long."""
        normalised = [dialogue.normalise(text) for text in texts]
        return self.tokenizer(normalised, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []

    def collate(self, encoded: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad token ids to one length and return them with their mask, both (B, T)."""
        batch = self.tokenizer.pad({"input_ids": list(encoded)}, return_tensors="pt")
        device = self.head.weight.device
        return batch["input_ids"].to(device), batch["attention_mask"].to(device)


def train(
    turns: Sequence[Turn], config: params.TrainScorer, *, seed: int, progress: Callable[[str], None] = print
) -> Scorer:
    """Train a scorer on turns that carry at least one label; missing labels do not count in the loss.

    Raises:
        UserError: If no turn carries a label, or a label has no spread.
    """
    turns = [turn for turn in turns if any(getattr(turn, name) is not None for name in LABELS)]
    if not turns:
        raise UserError("train_scorer: no training turn carries a label")
    torch.manual_seed(seed)
    scorer = build(config)
    targets_B3 = torch.tensor(
        [[np.nan if getattr(t, name) is None else getattr(t, name) for name in LABELS] for t in turns],
        dtype=torch.float32,
    )
    scorer.label_mean.copy_(targets_B3.nanmean(0))
    scorer.label_sd.copy_(((targets_B3 - scorer.label_mean) ** 2).nanmean(0).sqrt())
    if not bool((scorer.label_sd > 0).all()):
        raise UserError(f"train_scorer: a label is the same in all {len(turns)} turns; there is nothing to learn")
    _fit(scorer, turns, targets_B3, config, np.random.default_rng(seed), progress)
    return scorer


def _fit(scorer, turns, targets_B3, config, rng, progress) -> None:
    encoded = scorer.encode([turn.text for turn in turns])
    steps_per_epoch = -(-len(turns) // config.batch_size)
    total = config.epochs * steps_per_epoch
    warmup = max(1, round(config.warmup_fraction * total))
    optimizer = torch.optim.AdamW([p for p in scorer.parameters() if p.requires_grad], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (total - step) / max(1, total - warmup))
    )
    # Delta is stated in label units; targets are standardised.
    delta_3 = config.huber_delta / scorer.label_sd
    scorer.train()
    for epoch in range(config.epochs):
        losses = []
        for rows in _shuffled_batches([len(ids) for ids in encoded], config.batch_size, rng):
            target_B3 = (targets_B3[rows] - scorer.label_mean) / scorer.label_sd
            error_B3 = torch.where(
                target_B3.isnan(), 0.0, scorer(*scorer.collate([encoded[i] for i in rows])) - target_B3
            )
            size_B3 = error_B3.abs()
            loss = torch.where(size_B3 <= delta_3, 0.5 * error_B3**2, delta_3 * (size_B3 - 0.5 * delta_3)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        progress(f"scorer: epoch {epoch + 1} of {config.epochs}, loss {np.mean(losses):.4f}")


def build(config: params.TrainScorer) -> Scorer:
    """Build an untrained scorer around the configured encoder."""
    encoder, tokenizer = load_encoder(config.encoder, config.revision)
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=LORA_TARGETS
    )
    return Scorer(get_peft_model(encoder, lora), tokenizer, config.max_tokens)


def load_encoder(name: str, revision: str | None) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load an encoder and its tokenizer: the packaged MiniLM, a random two-layer BERT, or one from the hub.

    Raises:
        UserError: If it cannot be loaded.
    """
    minilm = packaged.find(packaged.MINILM).parent
    if name == "random":
        tokenizer = AutoTokenizer.from_pretrained(minilm)
        tiny = BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)  # its random weights are not saved: every loading must draw the same ones
            return BertModel(tiny), tokenizer
    if name == packaged.MINILM:
        return AutoModel.from_pretrained(minilm, dtype=torch.float32), AutoTokenizer.from_pretrained(minilm)
    try:
        encoder = AutoModel.from_pretrained(name, revision=revision, dtype=torch.float32)
        return encoder, AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"train_scorer.encoder {name!r}: cannot load it ({reason})") from None


def save(scorer: Scorer, folder: Path, settings: dict) -> None:
    """Save LoRA matrices, head and settings to `folder`, atomically."""
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        adapters.save(scorer.encoder, temporary / "adapter")
        head = {
            name: value.contiguous() for name, value in scorer.state_dict().items() if not name.startswith("encoder.")
        }
        save_file(head, temporary / "head.safetensors")
        files.write_json(temporary / "scorer.json", {"format": FORMAT, "labels": list(LABELS), **settings})


def load(folder: Path) -> Scorer:
    """Load a scorer that `save` wrote.

    Raises:
        UserError: If the folder is no scorer of this format, naming what differs.
    """
    settings = files.read_json(folder / "scorer.json")
    for key, expected in (("format", FORMAT), ("labels", list(LABELS))):
        if settings.get(key) != expected:
            raise UserError(f"{folder / 'scorer.json'}: {key} is {settings.get(key)!r}, expected {expected!r}")
    encoder, tokenizer = load_encoder(settings["encoder"], settings["revision"])
    scorer = Scorer(PeftModel.from_pretrained(encoder, folder / "adapter"), tokenizer, settings["max_tokens"])
    missing, unexpected = scorer.load_state_dict(load_file(folder / "head.safetensors"), strict=False)
    if unexpected or any(not name.startswith("encoder.") for name in missing):
        raise UserError(f"{folder / 'head.safetensors'}: does not fit the scorer; delete {folder} and run `dvc repro`")
    return scorer.eval()


def evaluate(scorer: Scorer, turns: Sequence[Turn]) -> dict:
    """Return Pearson correlation and mean absolute error per label on turns, and the mean correlation.

    A correlation is None where it is not defined: fewer than three labelled turns, or no spread.
    """
    predicted_B3 = scorer.score([turn.text for turn in turns])
    result: dict = {"turns": len(turns)}
    for column, name in enumerate(LABELS):
        known = [i for i, turn in enumerate(turns) if getattr(turn, name) is not None]
        label_B = np.array([getattr(turns[i], name) for i in known])
        result[name] = {
            "pearson": pearson(label_B, predicted_B3[known, column]),
            "mae": float(np.abs(label_B - predicted_B3[known, column]).mean()) if known else None,
        }
    correlations = [result[name]["pearson"] for name in LABELS]
    result["mean_pearson"] = None if None in correlations else float(np.mean(correlations))
    return result


def pearson(a_B: np.ndarray, b_B: np.ndarray) -> float | None:
    """Return the Pearson correlation of two arrays, or None where it is not defined."""
    if len(a_B) < 3 or np.std(a_B) == 0 or np.std(b_B) == 0:
        return None
    return float(np.corrcoef(a_B, b_B)[0, 1])


def _shuffled_batches(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield row batches in random order, of texts of similar length: padding to one length triples the time."""
    jittered = np.array(lengths) * rng.uniform(0.8, 1.2, len(lengths))
    order = np.argsort(jittered, kind="stable")
    batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _batches_by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield row batches, longest first, of at most `tokens` tokens each with padding."""
    order = np.argsort(-np.array(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
