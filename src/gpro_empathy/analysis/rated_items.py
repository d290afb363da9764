"""What is rated of a run: the first answer of the starting policy and of the tuned one, by prompt.

One answer a prompt and policy, so that no answer is chosen for what it says, and so that a rater is
through in an evening. Of several trainings, the tuned policy is that of the first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpro_empathy.analysis import metric_names
from gpro_empathy.data import ratings


@dataclass(frozen=True)
class Item:
    """An answer to a message, with the hash that names both in data/ratings.

    A malformed reply has no answer of its own and is rated whole. A rater must not see `policy`.
    """

    message: str
    answer: str
    hash: str
    policy: str
    prompt_id: str
    story: str


@dataclass(frozen=True)
class Pair:
    """What both policies answered to one message."""

    start: Item
    tuned: Item


def items(rows: Iterable[Mapping]) -> list[Item]:
    """Return what is rated of a run, in the order of its rows.

    Two items have the same hash where both policies gave one answer to one message; `distinct`
    leaves one of them.

    Args:
        rows: Rollout rows, one a response: data/rollouts/rollouts.jsonl.

    Raises:
        ValueError: If there is no response of a tuned policy, or of one that it could start from.
    """
    rows = list(rows)
    policies = (start_of(rows), "tuned")
    seeds = [row["seed"] for row in rows if row["model"] == "tuned"]
    return [
        _item(row)
        for row in rows
        if row["sample"] == 0
        and row["model"] in policies
        # The rows have the seeds in the order of the settings.
        and (row["model"] != "tuned" or row["seed"] == seeds[0])
    ]


def start_of(rows: Iterable[Mapping]) -> str:
    """Return the policy that GRPO started from.

    Raises:
        ValueError: As `items`.
    """
    given = {row["model"] for row in rows}
    present = [policy for policy in metric_names.POLICIES if policy in given]
    if len(present) < 2 or present[-1] != "tuned":
        raise ValueError(
            f"nothing to compare: the rollouts hold responses of {', '.join(present) or 'no policy'}, and it takes the "
            "tuned policy and the one that it started from"
        )
    return present[-2]


def distinct(found: Iterable[Item]) -> list[Item]:
    """Return the items with each text once, the first of those that have it."""
    by_hash: dict[str, Item] = {}
    for item in found:
        by_hash.setdefault(item.hash, item)
    return list(by_hash.values())


def pairs(found: Sequence[Item]) -> list[Pair]:
    """Return starting and tuned policy's answers, by prompt, in order; where they differ.

    A pair that occurs twice, as two prompts may have the same message, is returned once.
    """
    tuned = {item.prompt_id: item for item in found if item.policy == "tuned"}
    both: dict[tuple[str, str], Pair] = {}
    for start in found:
        other = tuned.get(start.prompt_id)
        if start.policy != "tuned" and other and other.hash != start.hash:
            both.setdefault((start.hash, other.hash), Pair(start, other))
    return list(both.values())


def _item(row: Mapping) -> Item:
    message, answer = row["prompt"], row["answer"]
    return Item(
        message=message,
        answer=answer,
        hash=ratings.text_hash(message, answer),
        policy=row["model"],
        prompt_id=str(row["prompt_id"]),
        story=str(row["story"]),
    )
