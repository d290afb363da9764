"""Sentences of the report that a setting or a result chooses: LaTeX text, true for whatever chose it."""

from collections.abc import Mapping, Sequence

from gpro_empathy import effects, latex, metric_names, params

NAMES = {
    "smollm2-135m-instruct": r"SmolLM2-135M-Instruct~\citep{allal2025smollm2}",
    "all-minilm-l6-v2": r"all-MiniLM-L6-v2~\citep{wang2020minilm,reimers2019sentence}",
    "random": "a small transformer with random weights, which tests the software and says nothing about language models",
}

DATA = {
    "embedded": "The data are the corpus of this repository: invented conversations of two people about {stories}invented news "
    "stories of somebody's trouble, in the schema of the WASSA conversation task. The corpus is synthetic. A large language "
    "model wrote the conversations and the demonstrations, and labelled each turn, by the written "
    r"guidelines in \file{{data/embedded/guidelines.md}}; no person was in distress, and none rated a turn.",
    "hub": r"The data are \stage{{{dataset}}} from the Hugging Face hub, in the schema of the WASSA conversation task.",
    "wassa_csv": "The data are the official files of the WASSA conversation task: two people talk about a news story of "
    r"somebody's trouble, and raters labelled each turn~\citep{{omitaomu2022empathic,giorgi2024wassa}}.",
}
DATA_LIMIT = {
    "embedded": "The conversations are synthetic and so are their labels: a language model wrote and rated them by written "
    "guidelines, so that the scorers have learned one model's view of these guidelines, and nothing here is evidence "
    "about what people would say or how they would rate it.",
    "hub": "The labels are those of the data set, taken as they are.",
    "wassa_csv": "The raters were crowd workers who judged short chats about news; their ratings are one view of empathy.",
}
SPLIT = {
    "by_conversation": "Training, validation and test share no conversation.",
    "by_turn": r"\textbf{The split is by turn}: turns of one conversation stand in training and in test, because the settings accept this leak. "
    "It inflates the scorer's quality, and the policy is tested on conversations that it has partly seen.",
}
AGGREGATION = {
    "sum_then_normalize": "The terms are summed first and the sum is standardised within the group. Terms that are shares by their "
    "definition, where the reward has any, enter without calibration.",
    "normalize_then_sum": "Each term is standardised within the group before the terms are summed, so that $R$ in "
    r"\autoref{eq:advantage} stands for one term at a time. Terms that are shares by their definition, where the "
    "reward has any, enter without calibration.",
}
LOSS = {
    "dapo": r"$N$ is the number of tokens in all responses of the step~\citep{yu2025dapo}.",
    "bnpo": "$N$ is the number of tokens in all responses of one forward batch.",
    "grpo": r"$1/N$ stands for the mean over responses of the mean over each one's tokens, as by \citet{shao2024deepseekmath}.",
    "dr_grpo": r"$N$ is the number of responses times the longest length allowed, a constant~\citep{liu2025understanding}.",
}
AUDIT = {
    "no gain to audit": "No gain on the reward's own scorer is established that a second scorer could confirm.",
    "not confirmed": "The second scorer, which training never saw, does not confirm the gain: it may be peculiar to the scorer that was optimised.",
    "partly confirmed": "The second scorer, which training never saw, confirms a gain, but a smaller one: part of the gain is peculiar to the "
    "scorer that was optimised.",
    "confirmed": "The second scorer, which training never saw, confirms the gain.",
}

# By the audit's verdict: without and with a confirmed drift of style.
HACKING = {
    "no gain to audit": (
        "No gain on the reward's scorer is established, so there is none to explain by cheating it, and no drift of style is confirmed.",
        "No gain on the reward's scorer is established, so there is none to explain by cheating it; yet the responses changed in style.",
    ),
    "not confirmed": (
        "A gain that only the optimised scorer sees is what reward hacking looks like, though no drift of style is confirmed.",
        "A gain that only the optimised scorer sees is what reward hacking looks like, and the style has drifted beside it.",
    ),
    "partly confirmed": (
        "The optimised scorer alone sees part of the gain, which is reward hacking in that part; no drift of style is confirmed.",
        "The optimised scorer alone sees part of the gain, which is reward hacking in that part, and the style has drifted.",
    ),
    "confirmed": (
        "No sign of reward hacking is found: both scorers see the gain, and no drift of style is confirmed.",
        "Both scorers see the gain, which speaks against reward hacking; but the style has drifted too, and both may like it.",
    ),
}
CALIBRATIONS = {
    "batch": "In batch calibration",
    "prompt": "calibrated over a single prompt's responses",
    "reference": "against the frozen reference",
}
# From which smallest correlation of advantages on T is said to matter so much.
MATTERS = ((0.99, "hardly matters"), (0.95, "matters little"), (-1.0, "matters"))


def model_name(name: str) -> str:
    """Return a model's name in print, with its citation where the repository brings the model."""
    return NAMES.get(name, rf"\texttt{{{latex.escape(name)}}}")


def quantisation(policy: params.Policy, settings: Mapping) -> str:
    """Say in which number format the frozen weights are."""
    if not policy.load_in_4bit:
        return f"The base weights are frozen and kept in {policy.dtype}."
    place = (
        " and, on this machine without CUDA, dequantised once at loading, which keeps the numbers of the 4-bit model"
        if str(settings["device"]).startswith("cpu")
        else ""
    )
    return rf"The base weights are frozen and quantised to 4-bit NF4~\citep{{dettmers2023qlora}}{place}."


def warm_start(report: Mapping) -> str:
    """Say whether the policy learned the response format from demonstrations first."""
    if not report["enabled"]:
        return "There is no warm start: GRPO begins with the model as it is."
    return (
        rf"Before GRPO a warm start, supervised training of the same adapter on \num{{{report['demonstrations']}}} "
        "demonstrations, teaches this format; its loss fell or rose from "
        f"{latex.number(report['loss_first'], 2)} to {latex.number(report['loss_last'], 2)}."
    ).replace("fell or rose", "fell" if report["loss_last"] < report["loss_first"] else "went")


def trained_share(grpo: params.TrainGrpo) -> str:
    """Say which responses of a group are trained on."""
    if grpo.trained_generations == grpo.num_generations:
        return ""
    return (
        rf"Of each group, the \num{{{grpo.trained_generations}}} responses whose advantages vary most are trained on, in the manner of "
        r"\citet{xu2026rollouts}; their advantages are those against the whole group."
    )


def headline(verdict: str) -> str:
    """Return the main finding as a clause."""
    return {
        "improved": "the tuned policy scores higher in raw empathy than the policy that it started from",
        "worsened": "the tuned policy scores lower in raw empathy than the policy that it started from",
        "no evidence of a change": "there is no evidence that tuning changed the raw empathy score",
    }[verdict]


def similarity(found: Mapping, noninferiority: Mapping) -> str:
    """Say what became of semantic similarity, and whether a loss of the margin is excluded."""
    change = {
        "improved": "Semantic similarity rose",
        "worsened": "Semantic similarity fell",
        "no evidence of a change": "There is no evidence of a change in semantic similarity",
    }[found["verdict"]]
    margin = rf"\num{{{noninferiority['margin']:g}}}"
    bound = {
        "not inferior": f"a loss of {margin} or more is excluded",
        "inferior": f"the loss is more than the margin of {margin}",
        "inconclusive": f"a loss of {margin} or more cannot be excluded",
    }[noninferiority["verdict"]]
    difference = latex.number(found["difference"], 3, signed=True)
    test = latex.p_statement(noninferiority["p"])
    return f"{change} ({difference}, {latex.interval(found['low'], found['high'], 3)}); {bound} (one-sided {test})."


def seeds(numbers: Sequence[int]) -> str:
    """Say how many trainings the comparison rests on, and what that means for intervals and tests."""
    if len(numbers) == 1:
        return (
            "One training seed was run, so the spread between trainings is unknown: intervals and tests say what these "
            "weights do on conversations like these, not what training again would give."
        )
    caution = "; with two seeds that differ much such intervals are too short" if len(numbers) == 2 else ""
    listed = ", ".join(str(number) for number in numbers[:-1]) + f" and {numbers[-1]}"
    return (
        f"The policy was trained {len(numbers)} times, with the seeds {listed}; the scores of a prompt are averaged over them. "
        "So few seeds cannot be resampled: the variance of their mean is added to that of the conversations, the degrees "
        f"of freedom of the sum being Satterthwaite's{caution}. The permutation tests are "
        "about these trainings."
    )


def seed_results(found: Mapping) -> str:
    """Give the change of each training seed, if there are several."""
    by_seed = found["by_seed"]
    if len(by_seed) == 1:
        return ""
    changes = [latex.number(by_seed[seed], 2, signed=True) for seed in sorted(by_seed, key=int)]
    return f"By training seed, the change is {', '.join(changes[:-1])} and {changes[-1]}."


def trend(tuned: Mapping, change: Mapping, confidence: float) -> str:
    """Say whether the tuned policy's empathy grows with the intensity of the turn, and whether its gain does."""
    sentences = []
    for subject, found in (("the tuned policy's empathy", tuned), ("the change by tuning", change)):
        if _clear(found, confidence):
            sentences.append(f"{subject} {'grows' if found['spearman'] > 0 else 'falls'} with the intensity")
        else:
            sentences.append(f"there is no evidence that {subject} follows the intensity")
    text = "; ".join(sentences) + "."
    return text[0].upper() + text[1:]


def _clear(found: Mapping, confidence: float) -> bool:
    return found["spearman"] is not None and found["p"] < effects.significance_level(confidence)


def drift(audit: Mapping) -> str:
    """Name the side effects that the adjusted tests confirm."""
    if not audit["drifts"]:
        return (
            "Answer length, overlap with the user's words, distinct bigrams and stock phrases show no confirmed drift."
        )
    parts = []
    for metric in audit["drifts"]:
        rose = audit["metrics"][metric]["difference"] > 0
        parts.append(f"{latex.escape(metric_names.label(metric))} ({'up' if rose else 'down'})")
    return f"Confirmed drift: {', '.join(parts)}."


def hacking(audit: Mapping) -> str:
    """Say plainly whether the run looks like reward hacking."""
    return HACKING[audit["verdict"]][bool(audit["drifts"])]


def temperature(mode: str, rows: Sequence[Mapping], configured: float) -> str:
    """Say how much T matters in one way of calibrating, by the value of the grid that changes the advantages most."""
    others = [row for row in rows if row["temperature"] != configured and row["correlation"] is not None]
    if not others:
        return f"{CALIBRATIONS[mode]} it cannot be said how much $T$ matters, since the rewards have no spread"
    farthest = min(others, key=lambda row: row["correlation"])
    word = next(word for bound, word in MATTERS if farthest["correlation"] >= bound)
    reversed_pairs = max(row["reversed_pairs"] for row in others)
    return (
        f"{CALIBRATIONS[mode]} $T$ {word} (correlation {latex.number(farthest['correlation'], 3)} at "
        rf"$T={farthest['temperature']:g}$, up to {latex.percent(reversed_pairs, 1)} of pairs)"
    )
