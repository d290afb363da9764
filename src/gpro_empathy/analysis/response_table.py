"""From rollouts to one table of responses, and from it to one score a prompt and policy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpro_empathy.analysis import metric_names

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
# The one metric that compares a response with a label, which some prompts lack.
LABELLED_ONLY = "intensity_agreement"
# Stands for the training seed of responses that depend on none: those of the policies before GRPO.
NO_SEED = -1
_NEEDED = {
    "prompt_id",
    "story",
    "conversation",
    "model",
    "sample",
    "seed",
    "emotion",
    "answer",
    "stated_intensity",
    "stated_approach",
}


def responses(rows: Sequence[dict]) -> pd.DataFrame:
    """Make the tidy table, one response a row, with columns that are worked out here.

    `seed` is the training seed of a tuned response, and NO_SEED for the other policies, whose
    responses depend on none. `level` is the emotion label, rounded. `stock_phrase` is 1 if the
    answer holds one, else 0. `intensity_agreement` is 1 if the response states just that level; a
    response that states none counts as 0, since leaving the line out must not pay; it is missing
    where the label is.

    Raises:
        ValueError: If a column, a policy or a training seed is missing, or a response occurs twice.
    """
    if not rows:
        raise ValueError("no responses")
    table = pd.DataFrame(rows)
    if missing := sorted(_NEEDED - set(table.columns)):
        raise ValueError(f"column {missing[0]!r} is missing")
    present = set(table["model"].unique())
    if unknown := sorted(present - set(metric_names.POLICIES)):
        raise ValueError(f"unknown model {unknown[0]!r}, expected one of {', '.join(metric_names.POLICIES)}")
    for policy in ("base", "tuned"):
        if policy not in present:
            raise ValueError(f"no response of model {policy!r}")
    tuned = table["model"] == "tuned"
    if (lacking := tuned & table["seed"].isna()).any():
        raise ValueError(f"a response of model 'tuned' to prompt {table.loc[lacking, 'prompt_id'].iloc[0]} has no seed")
    table["seed"] = table["seed"].where(tuned, NO_SEED).astype(int)
    key = ["prompt_id", "model", "seed", "sample"]
    if table.duplicated(key).any():
        twice = table.loc[table.duplicated(key), key].iloc[0]
        raise ValueError(f"prompt {twice['prompt_id']}, model {twice['model']}, sample {twice['sample']} occurs twice")
    return _with_derived_columns(table)


def _with_derived_columns(table: pd.DataFrame) -> pd.DataFrame:
    for column in ("emotion", "stated_intensity"):
        table[column] = table[column].astype(float)
    # Half rounds up, as a reader would; numpy rounds half to even.
    table["level"] = np.floor(table["emotion"] + 0.5)
    agrees = (table["stated_intensity"] == table["level"]).astype(float)
    table["intensity_agreement"] = agrees.where(table["level"].notna())
    answers = lower_case(table["answer"])
    table["stock_phrase"] = [float(any(phrase in answer for phrase in STOCK_PHRASES)) for answer in answers]
    return table


def lower_case(answers: pd.Series) -> pd.Series:
    """Return the answers in the case and with the apostrophe in which STOCK_PHRASES are written."""
    return answers.str.lower().str.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def policies(table: pd.DataFrame) -> list[str]:
    """Return the policies in the table, from base to tuned."""
    present = set(table["model"].unique())
    return [policy for policy in metric_names.POLICIES if policy in present]


def starting_policy(table: pd.DataFrame) -> str:
    """Return the policy that GRPO started from."""
    return policies(table)[-2]


def training_seeds(table: pd.DataFrame) -> list[int]:
    """Return the training seeds of the tuned responses."""
    return sorted(int(seed) for seed in table["seed"].unique() if seed != NO_SEED)


def per_seed(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Average a metric over the samples of each prompt, by policy and training seed.

    There is one row a prompt, sorted, and one column a policy and seed. Columns are pairs of policy
    and training seed. Prompts without the label that `intensity_agreement` needs are left out of
    it.

    Raises:
        ValueError: If the metric is no column, a value is not finite, or a prompt lacks the
            response of a policy, or of the policy tuned with one of the seeds.
    """
    if metric not in table.columns:
        raise ValueError(f"column {metric!r} is missing")
    if metric == LABELLED_ONLY:
        table = table[table["level"].notna()]
    values = table[metric].astype(float)
    if not np.isfinite(values).all():
        row = table.loc[~np.isfinite(values)].iloc[0]
        raise ValueError(
            f"{metric} of prompt {row['prompt_id']}, model {row['model']}, sample {row['sample']} "
            f"is not finite, got {row[metric]}"
        )
    wide = values.groupby([table["prompt_id"], table["model"], table["seed"]]).mean()
    wide = wide.unstack(["model", "seed"])
    if wide.isna().any(axis=None):
        row, column = np.argwhere(wide.isna().to_numpy())[0]
        policy, seed = wide.columns[column]
        which = f"model {policy!r}" if seed == NO_SEED else f"model {policy!r}, training seed {seed}"
        raise ValueError(f"prompt {wide.index[row]} has no response of {which}")
    return wide


def per_prompt(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Average a metric over the samples of each prompt, and over training seeds.

    There is one row a prompt, and one column a policy.

    Raises:
        ValueError: As `per_seed`.
    """
    # Each seed counts once, however many samples it has.
    return per_seed(table, metric).T.groupby(level="model").mean().T[policies(table)]


def stories(table: pd.DataFrame, prompts: pd.Index) -> np.ndarray:
    """Return the story of each prompt, which is what is resampled."""
    return table.groupby("prompt_id")["story"].first().loc[prompts].to_numpy()
