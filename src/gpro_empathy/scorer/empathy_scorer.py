"""The empathy scorer: an encoder and a linear head that rate three labels.

The labels are Emotion, EmotionalPolarity and Empathy; those of the reader model, which is the same
model trained on readings of answers, are the marks of a reading.

After the published design: LoRA on query, key, value and both dense layers of every block, Huber
loss, text normalised; or, with rank 0, the blocks themselves are trained. The embedding of a turn
is the mean of its token states. A scorer with context_turns above 0 reads a turn after those before
it; see module `windows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from gpro_empathy import files, params
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import LABELS
from gpro_empathy.scorer import encoder as scorer_encoder
from gpro_empathy.scorer import windows as scorer_windows
from gpro_empathy.scorer.windows import Batch, Window

FORMAT = 5
SETTINGS, HEAD = "scorer.json", "head.safetensors"
# What a stored scorer must share with this code, and what else `load` needs of it: key, check, and
# the check in words.
EXPECTED = {"format": FORMAT, "normalisation": scorer_windows.NORMALISATION}
STATED = (
    ("encoder", lambda value: isinstance(value, str), "a name"),
    ("revision", lambda value: value is None or isinstance(value, str), "a commit or null"),
    ("layers", lambda value: type(value) is int and value >= 1, "a whole number from 1 up"),
    ("max_tokens", lambda value: type(value) is int and value >= 8, "a whole number from 8 up"),
    ("context_turns", lambda value: type(value) is int and value >= 0, "a whole number from 0 up"),
    ("trained", lambda value: value in (scorer_encoder.ADAPTER, scorer_encoder.ENCODER), "adapter or encoder"),
)
# Scoring batches hold at most this many tokens, padding included: keeps memory flat for texts of
# any length. On a CPU the numbers of a batch then fit into its caches.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 8192}


class Rater(Protocol):
    """What a scorer of any kind can do; see `Scorer`."""

    @property
    def context_turns(self) -> int: ...

    def score(self, texts: Sequence[str], contexts: Sequence[Sequence[str]] | None = None) -> np.ndarray: ...

    def merge_adapter(self) -> None: ...


class Scorer(nn.Module):
    """Rates texts. Labels are in label units; see `dialogue.RANGES`."""

    def __init__(
        self,
        encoder: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        context_turns: int,
        labels: Sequence[str] = LABELS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.context_turns = context_turns
        self.labels = tuple(labels)
        self.head = nn.Linear(encoder.config.hidden_size, len(labels))
        self.register_buffer("label_mean", torch.zeros(len(labels)))
        self.register_buffer("label_sd", torch.ones(len(labels)))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return standardised label predictions of the rated turns of a batch, shape (R, L)."""
        mask = scorer_encoder.mask(self.encoder, scorer_windows.attention_mask(batch.turn_BT))
        states_BTH = self.encoder(input_ids=batch.ids_BT, attention_mask=mask).last_hidden_state
        return self.head(batch.weights_RN @ states_BTH.flatten(0, 1))

    @torch.no_grad()
    def score(self, texts: Sequence[str], contexts: Sequence[Sequence[str]] | None = None) -> np.ndarray:
        """Return the labels of texts in the order of `labels`, shape (B, L), label units.

        Args:
            contexts: For each text the turns before it, oldest first; a scorer with context_turns =
                0 reads none.

        Raises:
            ValueError: If there are not as many contexts as texts.
        """
        self.eval()
        windows = self.encode(texts, contexts)
        scores_BL = np.zeros((len(texts), len(self.labels)))
        size = TOKENS_PER_BATCH[self.head.weight.device.type]
        for chosen in _batches_by_length([window.tokens for window in windows], size):
            batch = self.collate([windows[i] for i in chosen])
            scores_BL[batch.rows] = (self(batch) * self.label_sd + self.label_mean).double().cpu().numpy()
        return scores_BL

    def merge_adapter(self) -> None:
        """Fold the LoRA matrices, if there are any, into the encoder.

        Scores come faster and differ in their last digits; the scorer can no longer be trained or
        saved.
        """
        if isinstance(self.encoder, PeftModel):
            self.encoder = self.encoder.merge_and_unload()

    def encode(self, texts: Sequence[str], contexts: Sequence[Sequence[str]] | None = None) -> list[Window]:
        """Return the windows in which the texts are read, with contexts if the scorer reads any.

        Raises:
            ValueError: As `score`.
        """
        return scorer_windows.windows(
            self.tokenizer,
            texts,
            [()] * len(texts) if contexts is None else contexts,
            max_tokens=self.max_tokens,
            context_turns=self.context_turns,
        )

    def collate(self, windows: Sequence[Window]) -> Batch:
        """Return windows as a batch on the scorer's device."""
        batch, device = scorer_windows.collate(windows, self.tokenizer.pad_token_id), self.head.weight.device
        return Batch(batch.ids_BT.to(device), batch.turn_BT.to(device), batch.weights_RN.to(device), batch.rows)


class Ensemble:
    """Rates texts by the mean of several scorers."""

    def __init__(self, members: Sequence[Scorer]) -> None:
        self.members = list(members)

    @property
    def context_turns(self) -> int:
        """Return how many earlier turns `score` wants at most.

        A member that reads fewer drops the oldest.
        """
        return max(member.context_turns for member in self.members)

    def score(self, texts: Sequence[str], contexts: Sequence[Sequence[str]] | None = None) -> np.ndarray:
        """Return the labels of texts, as `Scorer.score`."""
        return np.mean([member.score(texts, contexts) for member in self.members], axis=0)

    def merge_adapter(self) -> None:
        """Make every member faster, as `Scorer.merge_adapter`."""
        for member in self.members:
            member.merge_adapter()


def score_turns(scorer: Rater, turns: Sequence[Turn], *, ending: str = "") -> np.ndarray:
    """Return a scorer's labels of turns, each read with its context, shape (B, 3), label units.

    Args:
        ending: Appended to the text of every turn.
    """
    return scorer.score([turn.text + ending for turn in turns], [turn.context for turn in turns])


def build(config: params.TrainScorer, labels: Sequence[str] = LABELS) -> Scorer:
    """Build an untrained scorer around the configured encoder, on the GPU if there is one.

    Raises:
        UserError: If the encoder cannot be loaded, or takes fewer tokens than config.max_tokens.
    """
    encoder, tokenizer = scorer_encoder.load(config.encoder, config.revision, config.layers, config.attention_dropout)
    if config.max_tokens > (longest := scorer_encoder.longest_text(encoder)):
        raise UserError(
            f"train_scorer.max_tokens is {config.max_tokens}, and {config.encoder} takes {longest}; lower it"
        )
    trainable = scorer_encoder.trainable(encoder, config)
    scorer = Scorer(trainable, tokenizer, config.max_tokens, config.context_turns, labels)
    return scorer.to(scorer_encoder.device())


def save(scorer: Scorer | Ensemble, folder: Path, settings: dict, card: str | None = None) -> None:
    """Save what was trained, settings and, if given, a model card to `folder`, atomically.

    Args:
        settings: "encoder", "revision", what it reads, and where it comes from. Of an ensemble:
            "members", such settings for each.
    """
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        if isinstance(scorer, Ensemble):
            names = [str(number) for number in range(len(scorer.members))]
            for name, member, member_settings in zip(names, scorer.members, settings["members"], strict=True):
                save(member, temporary / name, member_settings)
            files.write_json(temporary / SETTINGS, expected(scorer.members[0].labels) | {"members": names})
        else:
            trained = scorer_encoder.save(scorer.encoder, temporary)
            save_file({name: value.contiguous() for name, value in _head(scorer).items()}, temporary / HEAD)
            known = {
                "layers": scorer.encoder.config.num_hidden_layers,
                "max_tokens": scorer.max_tokens,
                "context_turns": scorer.context_turns,
                "trained": trained,
            }
            files.write_json(temporary / SETTINGS, expected(scorer.labels) | known | settings)
        if card is not None:
            files.write_text(temporary / "README.md", card)


def load(folder: Path, labels: Sequence[str] = LABELS) -> Scorer | Ensemble:
    """Load a scorer of these labels that `save` wrote, on the GPU if there is one.

    Raises:
        UserError: If the folder is no scorer of this format, naming what differs.
    """
    settings = _read_settings(folder / SETTINGS, labels)
    if "members" in settings:
        return Ensemble([load(folder / name, labels) for name in settings["members"]])
    encoder, tokenizer = scorer_encoder.load(settings["encoder"], settings["revision"], settings["layers"])
    remedy = f"delete {folder} and train it anew, the pipeline's with `dvc repro`"
    encoder = scorer_encoder.restore(encoder, folder, settings, remedy)
    scorer = Scorer(encoder, tokenizer, settings["max_tokens"], settings["context_turns"], labels)
    stored = scorer_encoder.tensors(folder / HEAD, remedy)
    if scorer_encoder.shapes(stored) != scorer_encoder.shapes(_head(scorer)):
        raise UserError(f"{folder / HEAD}: does not fit the scorer; {remedy}")
    scorer.load_state_dict(stored, strict=False)
    return scorer.eval().to(scorer_encoder.device())


def _head(scorer: Scorer) -> dict[str, torch.Tensor]:
    return {name: value for name, value in scorer.state_dict().items() if not name.startswith("encoder.")}


def check(path: Path, expected: Mapping) -> dict:
    """Return a stored scorer's settings, once they are found to be of a kind and format.

    Args:
        expected: What they must say.

    Raises:
        UserError: If they say something else, or are no settings, with the remedy.
    """
    settings = files.read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(settings).__name__}")
    for key, value in expected.items():
        if settings.get(key) != value:
            raise UserError(
                f"{path}: {key} is {settings.get(key)!r}, expected {value!r}; train the scorer anew, the pipeline's with `dvc repro`"
            )
    return settings


def expected(labels: Sequence[str]) -> dict:
    """Return what the settings of a stored scorer of these labels say."""
    return EXPECTED | {"labels": list(labels)}


def _read_settings(path: Path, labels: Sequence[str]) -> dict:
    settings = check(path, expected(labels))
    if "members" in settings:
        names = settings["members"]
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise UserError(f"{path}: members is {names!r}, expected names of folders")
        return settings
    for key, fits, wanted in STATED:
        if key not in settings or not fits(settings[key]):
            raise UserError(f"{path}: {key} is {settings.get(key, 'missing')!r}, expected {wanted}")
    return settings


def _batches_by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield row batches, longest first, of at most `tokens` tokens each with padding."""
    order = np.argsort(-np.array(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
