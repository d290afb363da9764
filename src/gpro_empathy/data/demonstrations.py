"""The demonstrations of the embedded corpus, by which the warm start learns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpro_empathy import files, params, response_format
from gpro_empathy.data import corpus_turns
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError

# A demonstration answers a turn of the corpus, or a message that was written for it alone.
KEYS = {"concern", "emotion", "intensity", "approach", "answer"}
TURN_KEYS = {"conversation", "turn"}
TEXTS = KEYS - {"intensity"} | {"text"}


def load(config: params.Prepare, splits: Mapping[str, Sequence[Turn]]) -> dict[str, list[dict]]:
    """Return the demonstrations of train and validation: {"utterance", "response"} each.

    With the embedded source they are those that answer the turns of the split, so that by story or
    by conversation none is about a turn of another; those that answer a message of their own, which
    is about no story, train. Any other source shares no turn with the corpus: all of them train,
    and none is left to measure the loss on.

    Raises:
        UserError: If the file is malformed, a demonstration does not fit the response format, or a
            turn or message has two; names the line.
    """
    of_turns, of_messages = _read(Path(config.embedded_folder))
    if config.source != "embedded":
        return {"train": [*of_turns.values(), *of_messages], "validation": []}
    keys = {name: {turn.key for turn in splits[name]} for name in ("train", "validation")}
    found = {name: [row for key, row in of_turns.items() if key in of_split] for name, of_split in keys.items()}
    return found | {"train": found["train"] + of_messages}


def _read(folder: Path) -> tuple[dict[str, dict], list[dict]]:
    """Return the demonstrations by the turn that they answer, and those of other messages."""
    path = folder / "demonstrations.jsonl"
    texts = corpus_turns.texts(folder)
    of_turns, of_messages = {}, {}
    for number, row in enumerate(files.read_jsonl(path), start=1):
        place = f"{path}, line {number}"
        own = {"text"} if "text" in row else TURN_KEYS
        if set(row) != KEYS | own:
            odd = sorted(set(row) ^ (KEYS | own))
            raise UserError(f"{place}: keys {', '.join(odd)} are missing or unknown")
        for text in sorted(set(row) & TEXTS):
            if not isinstance(row[text], str):
                raise UserError(f"{place}: {text} is {row[text]!r}; it must be a text")
        response = response_format.format_response(row)
        if not response_format.parse_response(response).well_formed:
            raise UserError(f"{place}: not in the response format: {response!r}")
        if "text" in row:
            if row["text"] in of_messages:
                raise UserError(f"{place}: this text has a demonstration in an earlier line; keep one")
            of_messages[row["text"]] = {"utterance": row["text"], "response": response}
            continue
        key = corpus_turns.answered(row, texts, place)
        if key in of_turns:
            raise UserError(f"{place}: turn {key} has a demonstration in an earlier line; keep one")
        of_turns[key] = {"utterance": texts[key], "response": response}
    return of_turns, list(of_messages.values())
