"""Sentences of the report that a setting or a result chooses: LaTeX text, true for whatever chose it."""

from collections.abc import Mapping

from gpro_empathy import latex, metric_names, params, stats

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
    "no gain to audit": "There is no gain on the reward's own scorer that a second scorer could confirm.",
    "not confirmed": "The second scorer, which training never saw, does not confirm the gain: it may be peculiar to the scorer that was optimised.",
    "partly confirmed": "The second scorer, which training never saw, confirms a gain, but a smaller one: part of the gain is peculiar to the "
    "scorer that was optimised.",
    "confirmed": "The second scorer, which training never saw, confirms the gain.",
}


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
    return f"{change} ({difference}, {latex.interval(found['low'], found['high'], 3)}); {bound}."


def trend(found: Mapping, confidence: float) -> str:
    """Say whether the tuned policy's empathy grows with the intensity of the turn."""
    if found["spearman"] is None or found["p"] >= stats.significance_level(confidence):
        return "There is no evidence that the tuned policy's empathy follows the intensity."
    direction = "grows" if found["spearman"] > 0 else "falls"
    return f"The tuned policy's empathy {direction} with the intensity."


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
