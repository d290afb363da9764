"""The scorer's section of the report: its macros, sentences and tables.

It is LaTeX text that is true whatever was found.
"""

from collections.abc import Mapping
from statistics import fmean

from gpro_empathy import params
from gpro_empathy.analysis import estimates
from gpro_empathy.analysis.results import Estimate
from gpro_empathy.labels import LABELS
from gpro_empathy.report import latex

TITLES = {"reward": "the reward's scorer", "audit": "the held-out scorer"}
# By `estimates.side` of the slope and 1.
SLOPE = {
    None: "there are too few stories to judge it",
    -1: "below 1, so that its predictions are spread too far",
    0: "no evidence that it differs from 1",
    1: "above 1, so that its predictions are spread too little",
}
# By `estimates.side` of what seeing other turns on the tested stories adds, and 0.
LEAK = {
    None: "there are too few stories to judge it.",
    -1: "here, a split by turn makes the scorer look worse.",
    0: "no evidence, on these data, that a split by turn flatters the scorer.",
    1: "a split by turn makes the scorer look better than it is for new stories.",
}
NO_LEAK = (
    "What a split by turn would add to these correlations cannot be measured on these data: the tested stories have turns in "
    "training already, no second turn to learn from, or no turn that carries every label."
)

# By `estimates.side` of what the benchmark's recipe adds to the one it is compared with, and 0.
RECIPE = {
    None: "there are too few stories to judge it",
    -1: "it does worse",
    0: "no evidence of a difference",
    1: "it does better",
}
NO_DEV = r"The official development file has not been rated (\stage{make scorer-benchmark})."


def macros(scorer: Mapping, config: params.TrainScorer, bench: Mapping) -> dict[str, str]:
    """Return the section's macros, from reports/scorer.json and bench/scorer.json.

    The macro of the encoder's name is not among them.
    """
    turns, agreement = config.context_turns, scorer["agreement"]
    return {
        "RunScorerTrained": trained(config),
        "RunScorerReads": f"on turns after up to {latex.integer(turns)} earlier turns" if turns else "on single turns",
        "RunScorerConfidence": latex.percent(estimates.CONFIDENCE),
        "RunScorerResamples": latex.integer(estimates.N_RESAMPLES),
        "RunScorerAgreement": latex.number(agreement["pearson_empathy"], 2),
        "RunScorerDifference": latex.number(agreement["mean_absolute_difference"], 2),
        "RunScorerMeanDifference": latex.number(agreement["mean_difference"], 2, signed=True),
        "RunScorerLimits": latex.interval(agreement["limit_low"], agreement["limit_high"], 2),
        "RunScorerSlopeSentence": slopes(scorer),
        "RunScorerBiasSentence": biases(scorer["reward"]["calibration"]),
        "RunScorerStockSentence": stock_phrases(scorer),
        "RunScorerLeakSentence": leak(scorer["leak"]),
        "RunScorerBenchmarkSentence": benchmark(bench),
        "RunScorerBenchmarkUnit": benchmark_unit(bench["dev"]),
        "RunScorerDevSentence": dev_column(bench["dev"]),
    }


def trained(config: params.TrainScorer) -> str:
    """Return what is kept and trained of the encoder, as words that follow its name."""
    kept = f", of which the first {latex.integer(config.layers)} layers are kept," if config.layers else ""
    return kept + (" with low-rank adapters" if config.lora_rank else " with its layers trained further")


def slopes(scorer: Mapping) -> str:
    """Say how the label grows with the prediction."""
    parts = []
    for role, title in TITLES.items():
        slope = scorer[role]["calibration"]["slope"]
        parts.append(f"for {title} it is {latex.estimate(slope, signed=False)}: {SLOPE[estimates.side(slope, 1)]}")
    mean = [f"{_mean_bias(scorer[role]['calibration'])} for {title}" for role, title in TITLES.items()]
    return (
        f"The mean bias on the test split, prediction less label, is {' and '.join(mean)}, in label units. Whatever that is, the slope of the label on the "
        f"prediction is 1 for a scorer whose errors do not depend on its prediction; {'; '.join(parts)}."
    )


def _mean_bias(calibration: Mapping) -> str:
    """Return the mean of prediction less label; each labelled turn is in one group by length."""
    groups = calibration["by_words"]
    if not groups:
        return "not defined"
    total = sum(row["turns"] * row["bias"]["estimate"] for row in groups)
    return latex.number(total / sum(row["turns"] for row in groups), 2, signed=True)


def biases(calibration: Mapping) -> str:
    """Name the groups by length and polarity that the reward's scorer rates too high or too low."""
    groups = [(f"turns of {_words(row)}", row["bias"]) for row in calibration["by_words"]]
    groups += [(f"polarity {row['group']}", row["bias"]) for row in calibration["by_polarity"]]
    # Clear ones have an interval that leaves out 0.
    clear = [f"{name} ({latex.number(bias['estimate'], 2, signed=True)})" for name, bias in groups if _clear(bias)]
    if not clear:
        return "No group by length or polarity has a bias, on the reward's scorer, whose interval excludes zero."
    return f"By length and polarity, the reward's scorer has a bias, the mean one included, whose interval excludes zero for {', '.join(clear)}."


def stock_phrases(scorer: Mapping) -> str:
    """Say whether a stock phrase raises the score of any turn.

    It says too whether it does so by more than a neutral sentence does.
    """
    reward, held_out = (scorer[role]["stock_phrases"]["mean"] for role in TITLES)
    change, difference = estimates.side(reward["change"], 0), estimates.side(reward["difference"], 0)
    verdict = {
        None: "there are too few stories to judge it",
        -1: "it is worth less than the neutral sentence",
        0: "no evidence that it is worth more than the neutral sentence",
        1: "the reward can be had by a habit of speech, in part"
        if change == 1
        else "it is worth more than the neutral sentence, but is not shown to raise the score",
    }[difference]
    return (
        f"On average over phrases and turns, a stock phrase changes the score of {TITLES['reward']} by {latex.estimate(reward['change'])}, a "
        f"neutral sentence by {latex.estimate(reward['control_change'])}; the difference is {latex.estimate(reward['difference'])}: {verdict}. "
        f"On {TITLES['audit']} the difference is {latex.estimate(held_out['difference'])}."
    )


def leak(measured: Mapping | None) -> str:
    """Say what a split by turn adds to the correlations."""
    if measured is None:
        return NO_LEAK
    mean = measured["mean"]
    sizes = {name: latex.integer(measured[name]) for name in ("held_out_turns", "held_out_stories", "train_turns")}
    start = (
        f"On the test stories, {sizes['held_out_turns']} turns, about half of each story's, are rated by two scorers trained in the same way on "
        f"{sizes['train_turns']} turns: the reward's, which saw none of the {sizes['held_out_stories']} stories, "
        "and one that learned from the other halves"
    )
    if mean["difference"]["estimate"] is None:
        return f"{start}; their correlations are not defined."
    return (
        f"{start}. The mean correlation with the labels is {latex.number(mean['grouped'], 3)} and {latex.number(mean['by_turn'], 3)}, a "
        f"difference of {latex.estimate(mean['difference'], 3)}: {LEAK[estimates.side(mean['difference'], 0)]} Each is one training, and "
        "the interval holds nothing of the spread between trainings."
    )


def benchmark(results: Mapping) -> str:
    """Say how the benchmark's scorer does on the official data.

    Where both were cross-validated, its recipe is compared with the one that the cross-validation
    took for a baseline.
    """
    dev = results["dev"]
    if dev is None:
        return NO_DEV
    recipe = dev["recipe"]
    text = (
        rf"On the official development file of WASSA 2024 the repository's benchmark, the recipe \stage{{{recipe}}} of "
        r"\file{bench/scorer.yaml} trained on the official training file and no scorer of this run, reaches a mean correlation of "
        f"{latex.estimate(dev['pearson']['mean'], 3, signed=False)}"
    )
    compared = [(over, folds) for over, folds in sorted(results["folds"].items(), reverse=True) if recipe in folds]
    if not compared or compared[0][1][recipe]["less"] == recipe:
        return f"{text}. {_test_file(results)}"
    over, folds = compared[0]
    baseline = folds[recipe]["less"]
    of_recipe, of_baseline = (
        latex.estimate(folds[name]["pearson"]["mean"], 3, signed=False) for name in (recipe, baseline)
    )
    difference = folds[recipe]["difference"]["mean"]
    return (
        f"{text}; cross-validated over the {over} of the training file, it reaches {of_recipe} and the recipe "
        rf"\stage{{{baseline}}} {of_baseline}, a difference of {latex.estimate(difference, 3)}: "
        f"{RECIPE[estimates.side(difference, 0)]}. {_test_file(results)}"
    )


def benchmark_unit(dev: Mapping | None) -> str:
    """Say what the benchmark's intervals resample, where that is not stories; "" elsewhere."""
    return (
        "" if dev is None or dev["resampled"] == "stories" else f"; those of the benchmark resample {dev['resampled']}"
    )


def _test_file(results: Mapping) -> str:
    """Say what is known of the official test file, whose labels are not at hand."""
    rated = results["test"]
    if rated is None:
        return "Of the official test file nothing is known, as its labels are not public."
    there = fmean(rated["pearson"][name] for name in LABELS)
    lower = ", so that figures on the development file flatter" if there < rated["dev_mean"] else ""
    of_recipe = "it" if rated["recipe"] == results["dev"]["recipe"] else rf"the recipe \stage{{{rated['recipe']}}}"
    return (
        f"Rated by others on the official test file, whose labels are not public, {of_recipe} reaches a mean of {latex.number(there, 3)}, where "
        f"on the development file it has {latex.number(rated['dev_mean'], 3)}{lower}."
    )


def dev_column(dev: Mapping | None) -> str:
    """Say whose correlations on the official development set stand beside the leak."""
    if dev is None:
        return NO_DEV
    return (
        rf"Dev: no scorer of this run, but the benchmark's (recipe \stage{{{dev['recipe']}}}), trained on the official WASSA "
        r"training file, on the official development file (\linked{bench/scorer.json})."
    )


def leak_table(measured: Mapping | None, dev: Mapping | None = None) -> str:
    """Lay out the correlations of both ways to split, and those on the official dev file.

    The latter are those of the benchmark's scorer.

    Args:
        dev: The `dev` entry of bench/scorer.json, if the file was rated.
    """
    body = []
    for name in (*LABELS, "mean"):
        row = {} if measured is None else measured["mean"] if name == "mean" else measured["labels"][name]
        cells = [latex.number(row.get(key), 3) for key in ("grouped", "by_turn")]
        cells.append(latex.estimate(row["difference"], 3) if row else "--")
        body.append([name, *cells, *([latex.number(dev["pearson"][name]["estimate"], 3)] if dev else [])])
    header = ["", "new", "by turn", "difference", *(["dev"] if dev else [])]
    return latex.GENERATED + latex.tabular("@{}l" + "r" * (len(header) - 1) + "@{}", header, body)


def calibration_table(scorer: Mapping) -> str:
    """Lay out bias and error of both scorers by kind of turn.

    The kinds are the label's level, the turn's length and its polarity.
    """
    kinds = {
        "by_label": lambda row: f"empathy {row['group']}",
        "by_words": _words,
        "by_polarity": lambda row: f"polarity {row['group']}",
    }
    body = []
    for kind, name in kinds.items():
        for rows in zip(*(scorer[role]["calibration"][kind] for role in TITLES), strict=True):
            cells = [cell for row in rows for cell in (latex.estimate(row["bias"]), latex.number(row["mae"], 2))]
            body.append([name(rows[0]), latex.integer(rows[0]["turns"]), *cells])
    header = ["turns with", "number", "bias, reward's", "error", "bias, held-out", "error"]
    return latex.GENERATED + latex.tabular("@{}lrrrrr@{}", header, body)


def phrases_table(scorer: Mapping) -> str:
    """Lay out what each stock phrase does to the score of a turn."""
    body = []
    rows = zip(*(scorer[role]["stock_phrases"]["phrases"] for role in TITLES), strict=True)
    for reward, held_out in [*rows, tuple(scorer[role]["stock_phrases"]["mean"] for role in TITLES)]:
        changes = [latex.number(reward[key]["estimate"], 2, signed=True) for key in ("change", "control_change")]
        differences = [latex.estimate(row["difference"]) for row in (reward, held_out)]
        body.append([latex.escape(reward["phrase"]) if "phrase" in reward else "mean", *changes, *differences])
    header = ["appended phrase", "phrase", "neutral", "difference", "difference, held-out scorer"]
    return latex.GENERATED + latex.tabular("@{}lrrrr@{}", header, body)


def _words(row: Mapping) -> str:
    fewest, most = row["group"].split("-")
    return f"{fewest} words" if fewest == most else rf"{fewest}\textendash{{}}{most} words"


def _clear(estimate: Estimate) -> bool:
    return estimates.side(estimate, 0) in (-1, 1)
