"""What the scorer's encoder reads: the tokens of a turn, alone or after the turns before it.

With context, the history is the first segment of a text pair and the turn the second. Every earlier turn stands behind a
marker of its speaker, counted back from the turn by turns of two people: the turn before it is the other's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from gpro_empathy import dialogue

# Names what `dialogue.normalise` does. A change there needs a new name, so that scorers trained before it are refused.
NORMALISATION = "nfkc-1"
# Words that encoders know, so that no embedding has to be added; [0] is the speaker of the turn.
SPEAKERS = ("self", "other")


@dataclass(frozen=True)
class Tokens:
    """The tokens of one encoder input, T each; the last two are None for a text without a pair.

    `pooled` is 0 where a token belongs to the history and 1 elsewhere: the history is read, but not rated.
    """

    ids: list[int]
    segments: list[int] | None = None
    pooled: list[int] | None = None


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
    """Return the tokens of normalised texts, each at most max_tokens long and cut at its end."""
    if not texts:
        return []
    normalised = [dialogue.normalise(text) for text in texts]
    return [Tokens(ids) for ids in tokenizer(normalised, truncation=True, max_length=max_tokens)["input_ids"]]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    contexts: Sequence[Sequence[str]],
    *,
    max_tokens: int,
    context_turns: int,
) -> list[Tokens]:
    """Return the tokens of normalised texts after the last context_turns of their contexts.

    Where both are longer than max_tokens the history loses its beginning; a turn that fills them alone has no history
    and loses its end. A turn without context is the second segment after an empty first one.

    Args:
        texts: The turns to rate, length B.
        contexts: For each of them the turns before it, oldest first, length B.

    Raises:
        ValueError: If texts and contexts are not equally many.
    """
    if len(texts) != len(contexts):
        raise ValueError(f"{len(texts)} texts and {len(contexts)} contexts")
    before, between, after = _special_tokens(tokenizer)
    room = max_tokens - len(before) - len(between) - len(after)
    turns = _ids(tokenizer, [dialogue.normalise(text) for text in texts])
    histories = _ids(tokenizer, [_with_speakers(context[-context_turns:]) for context in contexts])
    result = []
    for history, turn in zip(histories, turns, strict=True):
        turn = turn[:room]
        history = history[max(0, len(history) - (room - len(turn))) :]
        first, second = len(before) + len(history) + len(between), len(turn) + len(after)
        pooled = [1] * len(before) + [0] * len(history) + [1] * (len(between) + second)
        result.append(Tokens(before + history + between + turn + after, [0] * first + [1] * second, pooled))
    return result


def pad(encoded: Sequence[Tokens], tokenizer: PreTrainedTokenizerBase) -> tuple[torch.Tensor, ...]:
    """Return ids and mask of a batch, and segments and pooled positions if it has them, shape (B, T) each."""
    batch = tokenizer.pad({"input_ids": [tokens.ids for tokens in encoded]}, return_tensors="pt")
    ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
    if encoded[0].segments is None:
        return ids_BT, mask_BT
    side = tokenizer.padding_side
    rest = (
        pad_sequence([torch.tensor(getattr(tokens, name)) for tokens in encoded], batch_first=True, padding_side=side)
        for name in ("segments", "pooled")
    )
    return ids_BT, mask_BT, *rest


def _with_speakers(context: Sequence[str]) -> str:
    texts = [dialogue.normalise(text) for text in context]
    return " ".join(f"{SPEAKERS[(len(texts) - i) % 2]}: {text}" for i, text in enumerate(texts))


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    # Not verbose: a text longer than the encoder can read is cut afterwards.
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int]]:
    """Return the special tokens before, between and after the segments of a pair, as the tokenizer sets them."""
    probe = tokenizer("a", "a")
    ids, segment = probe["input_ids"], probe.sequence_ids(0)
    first, second = ([i for i, s in enumerate(segment) if s == number] for number in (0, 1))
    return ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :]
