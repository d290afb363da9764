"""How good the two scorers are: against the labels, and against each other."""

from collections.abc import Mapping, Sequence

import numpy as np

from gpro_empathy import params
from gpro_empathy.analysis import scorer_reliability, stock_phrases
from gpro_empathy.data.dialogue import LABELS, Turn
from gpro_empathy.files import UserError
from gpro_empathy.scorer import empathy_scorer

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
    scorers: Mapping[str, empathy_scorer.Scorer],
    halves: Mapping[str, Sequence[Turn]],
    splits: Mapping[str, Sequence[Turn]],
    encoder: str,
    rng: np.random.Generator,
) -> tuple[dict, str]:
    """Return the report on both scorers, and their predictions on the test split as CSV text."""
    report: dict = {"encoder": encoder}
    scores_B3 = {role: score(model, splits["test"]) for role, model in scorers.items()}
    empathy_B = {role: role_B3[:, EMPATHY] for role, role_B3 in scores_B3.items()}
    for role, model in scorers.items():
        report[role] = {
            "train_turns": len(halves[role]),
            "train_conversations": len({turn.conversation for turn in halves[role]}),
            "validation": evaluate(splits["validation"], score(model, splits["validation"])),
            "test": evaluate(splits["test"], scores_B3[role]),
            "calibration": scorer_reliability.calibration(splits["test"], empathy_B[role], rng),
            "stock_phrases": stock_phrases.reaction(model, splits["test"], empathy_B[role], rng),
        }
    reward_B, audit_B = empathy_B["reward"], empathy_B["audit"]
    report["agreement"] = agreement(reward_B, audit_B)
    lines = ["conversation,turn,label_empathy,predicted_empathy,audit_empathy"]
    for turn, reward, audit in zip(splits["test"], reward_B, audit_B, strict=True):
        label = "" if turn.empathy is None else f"{turn.empathy:g}"
        lines.append(f"{turn.conversation},{turn.turn},{label},{reward:.6f},{audit:.6f}")
    return report, "\n".join(lines) + "\n"


def agreement(reward_B: np.ndarray, audit_B: np.ndarray) -> dict:
    """Return correlation, mean absolute difference and limits of agreement of two predictions of empathy.

    Between the limits, in label units, lie 95 % of the differences (reward's less audit's), if they are normal.

    Source:
        Bland & Altman (1986), Statistical methods for assessing agreement between two methods of clinical measurement.
    """
    difference_B = reward_B - audit_B
    reach = 1.96 * float(difference_B.std(ddof=1)) if len(difference_B) > 1 else 0.0
    return {
        "pearson_empathy": pearson(reward_B, audit_B),
        "mean_absolute_difference": float(np.abs(difference_B).mean()),
        "mean_difference": float(difference_B.mean()),
        "limit_low": float(difference_B.mean()) - reach,
        "limit_high": float(difference_B.mean()) + reach,
    }


def score(model: empathy_scorer.Scorer, turns: Sequence[Turn]) -> np.ndarray:
    """Return a scorer's labels of turns, each read with its context, shape (B, 3), label units."""
    return model.score([turn.text for turn in turns], [turn.context for turn in turns])


def evaluate(turns: Sequence[Turn], predicted_B3: np.ndarray) -> dict:
    """Return Pearson correlation and mean absolute error per label of predictions, and the mean correlation.

    A correlation is None where it is not defined: fewer than three labelled turns, or no spread.

    Args:
        predicted_B3: What a scorer says of the turns, shape (B, 3), label units.
    """
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
