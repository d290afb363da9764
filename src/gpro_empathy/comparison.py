"""From rollouts to the numbers of the report: policies compared, audit, intensity levels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpro_empathy import metric_names, params, stats

# Openings that fit any trouble, lower case; their rate shows whether the reward buys phrases.
STOCK_PHRASES = (
    "sorry to hear",
    "sorry for your",
    "i understand how",
    "i can understand",
    "i can imagine",
    "i can only imagine",
    "must be",
    "must have been",
    "it sounds like",
    "my heart goes out",
    "you are not alone",
    "you're not alone",
    "here for you",
    "it's okay to",
    "it's understandable",
    "it's completely understandable",
)
AUDITED = ("empathy_raw", "audit_empathy_raw", "answer_words", "overlap", "distinct_2", "stock_phrase", "well_formed")
HEADLINE = ("empathy_raw", "semantic_similarity_raw")


def responses(rows: Sequence[dict]) -> pd.DataFrame:
    """Make the tidy table, one response a row, with `level` (rounded emotion label) and `stock_phrase` (0 or 1).

    Raises:
        ValueError: If a column or a policy is missing, or a response occurs twice.
    """
    if not rows:
        raise ValueError("no responses")
    table = pd.DataFrame(rows)
    needed = {"prompt_id", "conversation", "model", "sample", "seed", "emotion", "answer", "stated_intensity"}
    if missing := sorted(needed - set(table.columns)):
        raise ValueError(f"column {missing[0]!r} is missing")
    if unknown := sorted(set(table["model"]) - set(metric_names.POLICIES)):
        raise ValueError(f"unknown model {unknown[0]!r}, expected one of {', '.join(metric_names.POLICIES)}")
    for policy in ("base", "tuned"):
        if policy not in set(table["model"]):
            raise ValueError(f"no response of model {policy!r}")
    key = ["prompt_id", "model", "seed", "sample"]
    if table.duplicated(key).any():
        twice = table.loc[table.duplicated(key), key].iloc[0]
        raise ValueError(f"prompt {twice['prompt_id']}, model {twice['model']}, sample {twice['sample']} occurs twice")
    for column in ("emotion", "stated_intensity"):
        table[column] = table[column].astype(float)
    # Half rounds up, as a reader would; numpy rounds half to even.
    table["level"] = np.floor(table["emotion"] + 0.5)
    answers = table["answer"].str.lower().str.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    table["stock_phrase"] = [float(any(phrase in answer for phrase in STOCK_PHRASES)) for answer in answers]
    return table


def policies(table: pd.DataFrame) -> list[str]:
    """Return the policies in the table, from base to tuned."""
    return [policy for policy in metric_names.POLICIES if policy in set(table["model"])]


def starting_policy(table: pd.DataFrame) -> str:
    """Return the policy that GRPO started from."""
    return policies(table)[-2]


def per_prompt(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Average a metric over the samples of each prompt: one row a prompt, sorted, one column a policy.

    Raises:
        ValueError: If the metric is no column, a value is not finite, or a prompt lacks a policy's response.
    """
    if metric not in table.columns:
        raise ValueError(f"column {metric!r} is missing")
    values = table[metric].astype(float)
    if not np.isfinite(values).all():
        row = table.loc[~np.isfinite(values)].iloc[0]
        raise ValueError(
            f"{metric} of prompt {row['prompt_id']}, model {row['model']}, sample {row['sample']} "
            f"is not finite, got {row[metric]}"
        )
    wide = values.groupby([table["prompt_id"], table["model"]]).mean().unstack("model")[policies(table)]
    if wide.isna().any(axis=None):
        prompt, policy = wide.isna().stack().idxmax()
        raise ValueError(f"prompt {prompt} has no response of model {policy!r}")
    return wide


def _conversations(table: pd.DataFrame) -> pd.Series:
    return table.groupby("prompt_id")["conversation"].first().sort_index()


def gains(
    table: pd.DataFrame, metrics: Sequence[str], config: params.AnalyseRewards, rng: np.random.Generator
) -> dict[str, dict]:
    """Compare the tuned policy with the starting policy on a family of metrics.

    Returns, for each metric: means of all policies, difference with its interval, standard error, sign-flip,
    Wilcoxon and Holm-adjusted p, d_z with the interval on its scale, probability of improvement, the smallest
    detectable difference and a verdict.

    Raises:
        ValueError: As `responses` and `per_prompt`; and if there are fewer than two conversations.
    """
    start = starting_policy(table)
    wide = {metric: per_prompt(table, metric) for metric in metrics}
    difference_PM = np.column_stack([(values["tuned"] - values[start]).to_numpy() for values in wide.values()])
    data = stats.clusters(difference_PM, _conversations(table).to_numpy())
    boot_RM = stats.bootstrap_means(data, config.n_resamples, rng)
    low_M, high_M = stats.bca_interval(data, boot_RM, config.confidence)
    error_M = boot_RM.std(axis=0)
    p_M = stats.sign_flip_p(data.sums, config.n_resamples, rng)
    holm_M = stats.holm(p_M)
    result = {}
    for m, metric in enumerate(metrics):
        difference_P, low, high = difference_PM[:, m], float(low_M[m]), float(high_M[m])
        sd = float(difference_P.std(ddof=1))
        result[metric] = {
            "means": {policy: float(wide[metric][policy].mean()) for policy in wide[metric]},
            "difference": float(data.means[m]),
            "low": low,
            "high": high,
            "standard_error": float(error_M[m]),
            "p_sign_flip": float(p_M[m]),
            "p_wilcoxon": stats.wilcoxon_p(data.sums[:, m] / data.counts),
            "p_holm": float(holm_M[m]),
            "sd_of_differences": sd,
            "d_z": stats.d_z(difference_P),
            "probability_of_improvement": stats.probability_of_improvement(difference_P),
            "smallest_detectable": stats.smallest_detectable(float(error_M[m]), config.confidence),
            "verdict": stats.verdict(
                low, high, float(holm_M[m]), config.confidence, metric_names.verdict_words(metric)
            ),
        }
    return result


def intensity_agreement(table: pd.DataFrame) -> dict[str, dict]:
    """Compare the intensity that each response states with the rounded emotion label of the user's turn.

    Responses without a stated intensity are counted as `missing`; shares are None if none is left.
    """
    result = {}
    labelled = table[table["level"].notna()]
    for policy in policies(table):
        rows = labelled[labelled["model"] == policy]
        stated = rows[rows["stated_intensity"].notna()]
        distance = (stated["stated_intensity"] - stated["level"]).abs()
        result[policy] = {
            "n": len(stated),
            "missing": len(rows) - len(stated),
            "exact": float((distance == 0).mean()) if len(stated) else None,
            "within_one": float((distance <= 1).mean()) if len(stated) else None,
        }
    return result


def empathy_by_intensity(table: pd.DataFrame, config: params.AnalyseRewards, rng: np.random.Generator) -> dict:
    """Average the raw empathy of the responses by the intensity of the user's turn, with a test of trend."""
    level = table.groupby("prompt_id")["level"].first().sort_index().dropna()
    wide = per_prompt(table, "empathy_raw").loc[level.index]
    conversation = _conversations(table).loc[level.index].to_numpy()
    levels = [
        {
            "level": int(value),
            "prompts": int((level == value).sum()),
            "means": {policy: float(wide.loc[level == value, policy].mean()) for policy in wide},
        }
        for value in sorted(level.unique())
    ]
    trends = {}
    for policy in wide:
        correlation, p = (None, 1.0)
        if len(np.unique(conversation)) >= 2:
            correlation, p = stats.trend(
                level.to_numpy(), wide[policy].to_numpy(), conversation, config.n_resamples, rng
            )
        trends[policy] = {"spearman": correlation, "p": p}
    return {"levels": levels, "trend": trends, "unlabelled_prompts": int(table["prompt_id"].nunique() - len(level))}


def audit(table: pd.DataFrame, config: params.AnalyseRewards, rng: np.random.Generator) -> dict:
    """Look for a reward that was earned without empathy: second scorer, length, copying, stock phrases.

    `gap` is the gain on the reward's scorer less that on the second one, per prompt.
    """
    table = table.assign(scorer_gap=table["empathy_raw"] - table["audit_empathy_raw"])
    found = gains(table, [*AUDITED, "scorer_gap"], config, rng)
    gap = found.pop("scorer_gap")
    rates = {
        phrase: {
            policy: float(
                table.loc[table["model"] == policy, "answer"].str.lower().str.contains(phrase, regex=False).mean()
            )
            for policy in policies(table)
        }
        for phrase in STOCK_PHRASES
    }
    return {
        "metrics": found,
        "gap": {key: gap[key] for key in ("difference", "low", "high", "p_sign_flip")},
        "stock_phrases": rates,
        "drifts": sorted(
            metric
            for metric in ("answer_words", "distinct_2", "overlap", "stock_phrase")
            if found[metric]["verdict"] != "no evidence of a change"
        ),
        "verdict": _audit_verdict(found["empathy_raw"]["verdict"], found["audit_empathy_raw"]["verdict"], gap),
    }


def _audit_verdict(reward: str, second: str, gap: dict) -> str:
    if reward != "improved":
        return "no gain to audit"
    if second != "improved":
        return "not confirmed"
    return "partly confirmed" if gap["low"] > 0 else "confirmed"
