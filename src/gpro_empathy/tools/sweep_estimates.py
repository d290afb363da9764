"""What the runs of a sweep say of its settings: changes by tuning, and how they differ.

Shapes: _S training seeds, _P prompts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gpro_empathy import params
from gpro_empathy.analysis import baseline_differences, bootstrap, effects, paired_statistics
from gpro_empathy.analysis.paired_statistics import Paired
from gpro_empathy.tools import sweep_folder, sweep_grid


def summary(
    sweep: sweep_folder.Sweep, ended: Mapping[str, dict], config: params.AnalyseRewards, metrics: Sequence[str]
) -> dict:
    """Return what is known of every setting, and its difference from one of them, the reference.

    The reference is what params.yaml held when the sweep was begun, if that is in the grid, and the
    first setting otherwise.
    For each metric and setting: `change` is the mean over prompts and trainings of the tuned
    policy's score less the starting one's, with its interval over stories and trainings, and that
    for a new training; `against` is the setting's change less the reference's, over the seeds that
    both have, paired by prompt and by seed, with an interval that holds for all settings of the
    sweep together (Bonferroni), and a verdict. The spread between trainings in it is that of all
    runs (`spread`). A metric that a key of the grid makes another measure, as another scorer does,
    has no `against` (`other_measures`).

    Args:
        ended: The rows of the runs that have ended, by their key.
    """
    settings = sweep_grid.settings(sweep.grid)
    rows = [[ended.get(sweep_folder.key(setting, seed)) for seed in sweep.seeds] for setting in settings]
    done = [[row for row in of_setting if row and row["failed"] is None] for of_setting in rows]
    first = next((k for k, one in enumerate(settings) if sweep_grid.applied(sweep.base, one) == sweep.base), 0)
    # Each metric has one comparison for each other setting.
    level = 1 - effects.significance_level(config.confidence) / max(len(settings) - 1, 1)
    between = {metric: spread(done, metric) for metric in metrics}
    others = {metric: baseline_differences.decided_by(metric, sweep.grid) for metric in metrics}
    arms = []
    for k, setting in enumerate(settings):
        found = {metric: change(done[k], metric, config) for metric in metrics}
        less = {
            metric: against(done[k], done[first], metric, config, level, between[metric])
            for metric in metrics
            if k != first and not others[metric]
        }
        arms.append(
            {
                "setting": setting,
                "label": sweep_grid.label(setting),
                "done": [row["seed"] for row in done[k]],
                "failed": {str(row["seed"]): row["failed"] for row in rows[k] if row and row["failed"] is not None},
                "missing": [seed for seed, row in zip(sweep.seeds, rows[k], strict=True) if row is None],
                "change": {metric: one for metric, one in found.items() if one is not None},
                "against": {metric: one for metric, one in less.items() if one is not None},
            }
        )
    stories = next((row["stories"] for of_setting in done for row in of_setting), {})
    return {
        "name": sweep.name,
        "keys": list(sweep.grid),
        "seeds": sweep.seeds,
        "reference": first,
        "confidence": config.confidence,
        "confidence_together": level,
        "prompts": len(stories),
        "stories": len(set(stories.values())),
        "other_measures": {metric: keys for metric, keys in others.items() if keys},
        "metric_order": [metric for metric in metrics if any(metric in arm["change"] for arm in arms)],
        "arms": arms,
    }


def change(rows: Sequence[Mapping], metric: str, config: params.AnalyseRewards) -> dict | None:
    """Estimate the change by tuning over the runs of one setting; None if no run has the metric."""
    rows = [row for row in rows if metric in row["metrics"]]
    if not rows:
        return None
    difference_SP, story_P = _by_prompt(rows, metric)
    estimate = _estimate(difference_SP, story_P, config)
    return {
        "start": float(np.mean([row["metrics"][metric]["start"] for row in rows])),
        "tuned": float(np.mean([row["metrics"][metric]["tuned"] for row in rows])),
        "by_seed": {str(row["seed"]): float(mean) for row, mean in zip(rows, difference_SP.mean(axis=1), strict=True)},
        "estimate": float(difference_SP.mean()),
        "low": _finite(estimate and estimate.low[0]),
        "high": _finite(estimate and estimate.high[0]),
        "new_low": _finite(estimate and estimate.new_low[0]),
        "new_high": _finite(estimate and estimate.new_high[0]),
        "between_training_sd": _finite(estimate and estimate.between_sd[0]),
    }


def spread(runs: Sequence[Sequence[Mapping]], metric: str) -> tuple[float, int] | None:
    """Estimate how far trainings lie apart, beside what setting and seed do to all of them.

    The mean changes of runs are fitted by an effect of the setting plus one of the seed, as in a
    design of blocks; what is left has one variance, assumed to be the same under every setting, and
    so many degrees of freedom as runs remain. Three trainings of a setting alone would tell it with
    two.

    Args:
        runs: The finished runs of each setting.

    Returns:
        Variance and degrees of freedom; None where none are left, as of one seed.

    Source:
        Fisher (1935), The Design of Experiments, chapter 4, on randomised blocks.
    """
    listed = [(k, row["seed"], row) for k, of_setting in enumerate(runs) for row in of_setting]
    listed = [(k, seed, row["metrics"][metric]["difference"]) for k, seed, row in listed if metric in row["metrics"]]
    settings, seeds = ({one[place] for one in listed} for place in (0, 1))
    design = np.array(
        [[k == one for one in sorted(settings)] + [seed == one for one in sorted(seeds)] for k, seed, _ in listed]
    ).astype(float)
    mean_R = np.array([np.mean(list(difference.values())) for *_, difference in listed])
    freedom = len(listed) - (np.linalg.matrix_rank(design) if listed else 0)
    if freedom < 1:
        return None
    fitted_R = design @ np.linalg.lstsq(design, mean_R, rcond=None)[0]
    return float(((mean_R - fitted_R) ** 2).sum() / freedom), int(freedom)


def against(
    rows: Sequence[Mapping],
    others: Sequence[Mapping],
    metric: str,
    config: params.AnalyseRewards,
    level: float,
    between: tuple[float, int] | None,
) -> dict | None:
    """Estimate how much more a setting changes than another; None if they share no seed or prompts.

    The interval over stories, of the mean over seeds, is widened by the variance of that mean over
    trainings, 2 / S of `between`. The verdict is `higher` or `lower` where it leaves out zero, `no
    evidence` where it holds it, and `not told` where the spread between trainings is not known.

    Args:
        between: What `spread` returns for the whole sweep.
    """
    ours, theirs = ({row["seed"]: row for row in side if metric in row["metrics"]} for side in (rows, others))
    seeds = [seed for seed in ours if seed in theirs]
    prompts = {tuple(sorted(row["metrics"][metric]["difference"])) for side in (ours, theirs) for row in side.values()}
    if not seeds or len(prompts) > 1:
        return None
    our_SP, story_P = _by_prompt([ours[seed] for seed in seeds], metric)
    their_SP, _ = _by_prompt([theirs[seed] for seed in seeds], metric)
    difference_SP = our_SP - their_SP
    found = {"estimate": float(difference_SP.mean()), "low": None, "high": None, "seeds": seeds, "verdict": "not told"}
    if between is None or len(np.unique(story_P)) < bootstrap.FEWEST_STORIES:
        return found
    data = bootstrap.clusters(difference_SP.mean(axis=0)[:, None], story_P)
    boot_R1 = bootstrap.bootstrap_means(data, config.n_resamples, np.random.default_rng(config.seed))
    variance_1 = np.array([2 * between[0] / len(seeds)])
    low_1, high_1 = bootstrap.widened(
        data, *bootstrap.bca_interval(data, boot_R1, level), variance_1, between[1], level
    )
    verdict = "higher" if low_1[0] > 0 else "lower" if high_1[0] < 0 else "no evidence"
    return found | {"low": float(low_1[0]), "high": float(high_1[0]), "verdict": verdict}


def _by_prompt(rows: Sequence[Mapping], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of each run, shape (S, P), and the story of each prompt."""
    prompts = sorted(rows[0]["metrics"][metric]["difference"])
    difference_SP = np.array([[row["metrics"][metric]["difference"][prompt] for prompt in prompts] for row in rows])
    return difference_SP, np.array([rows[0]["stories"][prompt] for prompt in prompts])


def _estimate(difference_SP: np.ndarray, story_P: np.ndarray, config: params.AnalyseRewards) -> Paired | None:
    """Estimate a mean over prompts and trainings; None with too few stories for an interval."""
    if len(np.unique(story_P)) < bootstrap.FEWEST_STORIES:
        return None
    seed_mean_SM = difference_SP.mean(axis=1)[:, None] if len(difference_SP) > 1 else None
    # The same resamples for every setting and metric: what differs is the data.
    rng = np.random.default_rng(config.seed)
    return paired_statistics.paired(
        difference_SP.mean(axis=0)[:, None], story_P, config.n_resamples, config.confidence, rng, seed_mean_SM
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
