"""How good the two scorers are: against the labels, and against each other."""

from collections.abc import Mapping, Sequence

import numpy as np

from gpro_empathy import params, scorer
from gpro_empathy.dialogue import LABELS, Turn
from gpro_empathy.files import UserError

EMPATHY = LABELS.index("empathy")


def disjoint_halves(turns: Sequence[Turn], config: params.TrainScorer) -> dict[str, list[Turn]]:
    """Divide training turns by conversation between the reward's scorer and the audit's.

    Raises:
        UserError: If there are fewer than two conversations.
    """
    conversations = sorted({turn.conversation for turn in turns})
    if len(conversations) < 2:
        raise UserError(
            f"train_scorer: need at least 2 training conversations for two scorers, got {len(conversations)}"
        )
    order = np.random.default_rng(config.seed).permutation(len(conversations))
    size = min(max(1, round(config.audit_fraction * len(conversations))), len(conversations) - 1)
    audit = {conversations[i] for i in order[:size]}
    return {
        "reward": [turn for turn in turns if turn.conversation not in audit],
        "audit": [turn for turn in turns if turn.conversation in audit],
    }


def compare(
    scorers: Mapping[str, scorer.Scorer],
    halves: Mapping[str, Sequence[Turn]],
    splits: Mapping[str, Sequence[Turn]],
    encoder: str,
) -> tuple[dict, str]:
    """Return the report on both scorers, and their predictions on the test split as CSV text."""
    report: dict = {"encoder": encoder}
    for role, model in scorers.items():
        report[role] = {
            "train_turns": len(halves[role]),
            "train_conversations": len({turn.conversation for turn in halves[role]}),
            "validation": scorer.evaluate(model, splits["validation"]),
            "test": scorer.evaluate(model, splits["test"]),
        }
    texts = [turn.text for turn in splits["test"]]
    reward_B, audit_B = (scorers[role].score(texts)[:, EMPATHY] for role in ("reward", "audit"))
    report["agreement"] = {
        "pearson_empathy": scorer.pearson(reward_B, audit_B),
        "mean_absolute_difference": float(np.abs(reward_B - audit_B).mean()),
    }
    lines = ["conversation,turn,label_empathy,predicted_empathy,audit_empathy"]
    for turn, reward, audit in zip(splits["test"], reward_B, audit_B, strict=True):
        label = "" if turn.empathy is None else f"{turn.empathy:g}"
        lines.append(f"{turn.conversation},{turn.turn},{label},{reward:.6f},{audit:.6f}")
    return report, "\n".join(lines) + "\n"
