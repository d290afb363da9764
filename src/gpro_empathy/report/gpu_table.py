"""What rehearsals measured on GPUs, and their table in the docs.

The numbers are in reports/gpu/<name of the GPU>.json, by profile.
"""

import re
from pathlib import Path

from gpro_empathy import files

FOLDER = Path("reports/gpu")
PAGE = Path("docs/measurements.md")
# The tasks of a rehearsal whose failure leaves the others' results.
AFTER_TRAINING = ("reload", "rollout", "scorer")
NOT_MEASURED = "No GPU has been measured yet."
BEGIN, END = "<!-- gpu report: made by `make rehearse` -->", "<!-- end of gpu report -->"
_COLUMNS = (
    "GPU",
    "profile",
    "s per step",
    "generation",
    "reward",
    "loss",
    "update",
    "s per step at real lengths",
    "tokens/s",
    "peak GiB",
    "versions",
)


def write(rehearsal: dict, folder: Path = FOLDER) -> Path:
    """Write what a rehearsal measured, under the names of its GPU and profile; return the path."""
    slug = re.sub(r"[^a-z0-9]+", "-", rehearsal["gpu"]["name"].lower()).strip("-")
    path = folder / f"{slug}.json"
    files.write_json(path, (files.read_json(path) if path.is_file() else {}) | {rehearsal["profile"]: rehearsal})
    return path


def read(folder: Path = FOLDER) -> list[dict]:
    """Return what rehearsals measured, by GPU and profile."""
    return [
        rehearsal for path in sorted(folder.glob("*.json")) for _, rehearsal in sorted(files.read_json(path).items())
    ]


def not_passed(rehearsal: dict) -> str:
    """Return in words which tasks after GRPO failed, and which were not run to an end.

    The text is empty if all passed.
    """
    failed = rehearsal["failed"]
    there = {
        "reload": rehearsal["adapter"],
        "rollout": rehearsal["peak_memory_gib"].get("rollout"),
        "scorer": rehearsal.get("scorer"),
    }
    missing = [name for name in AFTER_TRAINING if there[name] is None and name not in failed]
    groups = ((sorted(failed), "did not pass"), (missing, "gave no result"))
    return "; ".join(f"{' and '.join(names)} {what}" for names, what in groups if names)


def table(folder: Path = FOLDER) -> str:
    """Return all reports as a Markdown table, or that there are none."""
    rows = [_row(rehearsal) for rehearsal in read(folder)]
    if not rows:
        return NOT_MEASURED
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def block(folder: Path = FOLDER) -> str:
    """Return the part of the page that shows the reports."""
    return f"{BEGIN}\n{table(folder)}\n{END}"


def update(page: Path = PAGE, folder: Path = FOLDER) -> None:
    """Put the reports into their part of the page.

    Raises:
        UserError: If the page has no such part.
    """
    text = files.read_text(page)
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise files.UserError(f"{page}: the lines {BEGIN!r} and {END!r} are missing; put them where the table belongs")
    files.write_text(page, before + block(folder) + after)


def _row(rehearsal: dict) -> tuple[str, ...]:
    seconds, versions = rehearsal["seconds_per_step"], rehearsal["versions"]
    real = rehearsal.get("real_lengths")
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "trl", "unsloth", "vllm") if name in versions)
    return (
        rehearsal["gpu"]["name"], rehearsal["profile"],
        *(f"{seconds[name]:.2f}" for name in ("step", "generation", "reward", "loss", "update")),
        f"{real['seconds_per_step']['step']:.2f}" if real else "",
        f"{rehearsal['tokens_per_second']['step']:.0f}", f"{rehearsal['peak_memory_gib']['train']:.1f}", named,
    )  # fmt: skip
