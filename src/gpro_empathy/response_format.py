"""The chat prompt and the response format: what the policy is asked, and how its reply is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIELDS = ("User's main concern", "Emotional content", "Intensity level (0-5)", "Response approach")
MAX_SENTENCES = 2
ANSWER_TAG = "<answer>"

SYSTEM_PROMPT = (
    "Answer the user with empathy. First reason in this form:\n<reasoning>\n"
    + "".join(f"{field}: ...\n" for field in FIELDS)
    + "</reasoning>\nThen answer the user in at most two sentences:\n<answer>\n...\n</answer>"
)

_REASONING = re.compile(r"<reasoning>(.*?)</reasoning>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:reasoning|answer)>")
_FORMAT = re.compile(
    r"\s*<reasoning>\s*"
    + r"\s*\n\s*".join(rf"{re.escape(field)}:[ \t]*(\S[^\n]*)" for field in FIELDS)
    + r"\s*</reasoning>\s*<answer>\s*(\S.*?)\s*</answer>\s*",
    re.DOTALL,
)
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?:\s+|$)")


@dataclass(frozen=True)
class Response:
    """A reply taken apart.

    `answer` is the text that rewards score: the whole reply if it has no answer block.
    """

    text: str
    reasoning: str
    answer: str
    well_formed: bool
    stated_intensity: int | None
    stated_approach: str | None


def messages(utterance: str) -> list[dict[str, str]]:
    """Return the chat messages that ask for a response to the user's `utterance`."""
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": utterance}]


def format_response(demonstration: Mapping) -> str:
    """Return a demonstration in the response format.

    It has the keys concern, emotion, intensity, approach and answer.
    """
    values = (demonstration[key] for key in ("concern", "emotion", "intensity", "approach"))
    lines = "".join(f"{field}: {value}\n" for field, value in zip(FIELDS, values, strict=True))
    return f"<reasoning>\n{lines}</reasoning>\n<answer>\n{demonstration['answer']}\n</answer>"


def parse_response(text: str) -> Response:
    """Take a reply apart.

    Well-formed means: the reasoning block with its four lines in order, an intensity from 0 to 5,
    then one answer block of one or two sentences, and nothing else.
    """
    reasoning = _REASONING.search(text)
    answer = answer_block(text)
    match = _FORMAT.fullmatch(text)
    intensity = int(match[3]) if match and re.fullmatch(r"[0-5]", match[3].strip()) else None
    tags_once = len(_TAG.findall(text)) == 4  # none inside a line of the reasoning
    formed = answer is not None and tags_once and intensity is not None
    return Response(
        text=text,
        reasoning=reasoning[1].strip() if reasoning else "",
        answer=text.strip() if answer is None else answer,
        well_formed=formed and count_sentences(answer) <= MAX_SENTENCES,
        stated_intensity=intensity,
        stated_approach=match[4].strip() if match else None,
    )


def answer_block(text: str) -> str | None:
    """Return what the answer block holds; None unless there is one, closed and not empty."""
    answers = [block.strip() for block in _ANSWER.findall(text)]
    return answers[0] if len(answers) == 1 and answers[0] and not _TAG.search(answers[0]) else None


def count_sentences(text: str) -> int:
    """Count the sentences of `text`, a closing fragment without a full stop included."""
    ends = list(_SENTENCE_END.finditer(text.strip()))
    closed = bool(ends) and ends[-1].end() == len(text.strip())
    return len(ends) + (0 if closed or not text.strip() else 1)


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all prompts share, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)  # in sorted order, what these two share is shared by all
    longest = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(longest) if first[i] != last[i]), longest)
