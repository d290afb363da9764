"""What the scorer's encoder reads: turns alone, or whole stretches of a conversation at once.

A scorer with context reads a window of consecutive turns as one sequence and rates all of its turns
in one pass. Every token attends to its own turn and to the turns before it, never to later ones, so
that a turn is rated as if it were the last. The price of a window is that of its turns alone, where
a pair of (history, turn) for each turn reads the history again and again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from gpro_empathy.data import dialogue

# Names what `dialogue.normalise` does. A change there needs a new name, so that scorers trained
# before it are refused.
NORMALISATION = "nfkc-2"
# Tokens; less of an earlier turn than this (a word and the token that ends a turn) tells nothing.
SHORTEST_REMNANT = 2


@dataclass(frozen=True)
class Window:
    """Consecutive turns of one conversation that are read together.

    `turns` has the token ids of each turn, special tokens included; `rows` says which rows of the
    input the last len(rows) of them are. The turns before those are context: they are read, but not
    rated.
    """

    turns: tuple[Sequence[int], ...]
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Return how long the window is."""
        return sum(map(len, self.turns))


@dataclass(frozen=True)
class Batch:
    """Windows as the encoder takes them, padded on the right.

    `ids_BT` are token ids; `turn_BT` is the turn in the window that a token belongs to, -1 for
    padding; `weights_RN` averages the states of each of R rated turns over the batch's N = B * T
    tokens; `rows` are their rows of the input.
    """

    ids_BT: torch.Tensor
    turn_BT: torch.Tensor
    weights_RN: torch.Tensor
    rows: list[int]


def windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    contexts: Sequence[Sequence[str]],
    *,
    max_tokens: int,
    context_turns: int,
) -> list[Window]:
    """Return the windows in which normalised texts are read; each text is rated in one of them.

    With context_turns = 0 every text stands alone. Otherwise consecutive rows of one conversation
    share a window as long as it has room. A window begins with up to context_turns turns that are
    not rated in it, fewer where they leave too little room: the oldest give way, at last by losing
    their beginning. A rated turn loses its end past max_tokens.

    Args:
        texts: The turns to rate, length B.
        contexts: For each of them the turns before it, oldest first, length B. A row whose context
            is that of the row before and its text goes on with the same conversation.

    Raises:
        ValueError: If texts and contexts are not equally many.
    """
    if len(texts) != len(contexts):
        raise ValueError(f"{len(texts)} texts and {len(contexts)} contexts")
    contexts = [tuple(context[-context_turns:]) if context_turns else () for context in contexts]
    ids = _token_ids(tokenizer, {*texts, *(text for context in contexts for text in context)}, max_tokens)
    result: list[Window] = []
    for rows in _stretches(texts, contexts, context_turns):
        history = [ids[text] for text in contexts[rows[0]]]
        turns = history + [ids[texts[row]] for row in rows]
        result += _cut(turns, rows, max_tokens, context_turns)
    return result


def collate(batch: Sequence[Window], pad_id: int) -> Batch:
    """Return windows as one batch."""
    longest = max(window.tokens for window in batch)
    ids_BT = torch.full((len(batch), longest), pad_id)
    turn_BT = torch.full((len(batch), longest), -1)
    weights_RN = torch.zeros(sum(len(window.rows) for window in batch), len(batch) * longest)
    rated = 0
    for row, window in enumerate(batch):
        start, context = 0, len(window.turns) - len(window.rows)
        for number, turn in enumerate(window.turns):
            end = start + len(turn)
            ids_BT[row, start:end] = torch.tensor(turn)
            turn_BT[row, start:end] = number
            if number >= context:
                weights_RN[rated, row * longest + start : row * longest + end] = 1 / len(turn)
                rated += 1
            start = end
    return Batch(ids_BT, turn_BT, weights_RN, [row for window in batch for row in window.rows])


def attention_mask(turn_BT: torch.Tensor) -> torch.Tensor:
    """Return which tokens each token attends to, shape (B, 1, T, T).

    They are those of its own turn and of the turns before it.
    """
    query_BT1, key_B1T = turn_BT[:, :, None], turn_BT[:, None, :]
    mask_BTT = (key_B1T <= query_BT1) & (key_B1T >= 0)
    # Padding attends to itself: a softmax over nothing would give no number.
    return (mask_BTT | torch.eye(turn_BT.shape[1], dtype=torch.bool, device=turn_BT.device))[:, None]


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: set[str], max_tokens: int) -> dict[str, list[int]]:
    if not texts:
        return {}
    ordered = sorted(texts)
    normalised = [dialogue.normalise(text) for text in ordered]
    return dict(zip(ordered, tokenizer(normalised, truncation=True, max_length=max_tokens)["input_ids"], strict=True))


def _stretches(
    texts: Sequence[str], contexts: Sequence[tuple[str, ...]], context_turns: int
) -> Iterator[tuple[int, ...]]:
    """Yield runs of rows that follow each other in one conversation."""
    rows: list[int] = []
    for row, context in enumerate(contexts):
        continues = rows and context and context == (*contexts[row - 1], texts[row - 1])[-context_turns:]
        if rows and not continues:
            yield tuple(rows)
            rows = []
        rows.append(row)
    if rows:
        yield tuple(rows)


def _cut(turns: Sequence[Sequence[int]], rows: Sequence[int], max_tokens: int, context_turns: int) -> Iterator[Window]:
    """Yield the windows of a stretch, `turns` being its context and its rows."""
    first = offset = len(turns) - len(rows)
    while first < len(turns):
        before = _fitted(turns[max(0, first - context_turns) : first], max_tokens - len(turns[first]))
        size = sum(map(len, before)) + len(turns[first])
        end = first + 1
        while context_turns and end < len(turns) and size + len(turns[end]) <= max_tokens:
            size += len(turns[end])
            end += 1
        yield Window((*before, *turns[first:end]), tuple(rows[first - offset : end - offset]))
        first = end


def _fitted(turns: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """Return the last tokens of turns that fit.

    The oldest turns go, and what is left of the next loses its beginning.
    """
    kept: list[Sequence[int]] = []
    for turn in reversed(turns):
        if room < SHORTEST_REMNANT:
            break
        kept.insert(0, turn[-room:])
        room -= len(kept[0])
    return kept
