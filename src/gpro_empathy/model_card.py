"""What the model cards of scorers and policies share: their form, and what they say of limits."""

from collections.abc import Iterable, Sequence

SCORER_LIMITS = (
    "A score says how people who rated such turns would have rated this one. It is not empathy, and not for use with "
    "people in distress."
)
POLICY_LIMITS = "A research model: an automatic score is not empathy, and it is not for use with people in distress."


def render(title: str, *paragraphs: str) -> str:
    """Return a card as Markdown."""
    return "\n\n".join([f"# {title}", *paragraphs]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])
