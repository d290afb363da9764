"""Sentences of the report that a setting or a result chooses: LaTeX, true for whatever chose it."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from gpro_empathy import calibration, params
from gpro_empathy.analysis import effects, estimates, trainings
from gpro_empathy.analysis.results import (
    Analysis,
    AtTemperature,
    Audit,
    Comparison,
    Estimate,
    Gap,
    RewardAudit,
    RunRatings,
    SpreadSource,
    StudyRow,
    Trend,
)
from gpro_empathy.report import gpu_table, latex, rating_verdicts, verdicts
from gpro_empathy.report.number_format import listed

NAMES = {
    "smollm2-135m-instruct": r"SmolLM2-135M-Instruct~\citep{allal2025smollm2}",
    "all-minilm-l6-v2": r"all-MiniLM-L6-v2~\citep{wang2020minilm,reimers2019sentence}",
    "random": "a small transformer with random weights, which tests the software and says nothing about language models",
}

DATA = {
    "embedded": "The data are the corpus of this repository: invented conversations of two people about {stories}invented news "
    "stories of somebody's trouble, in the schema of the WASSA conversation task. The corpus is synthetic: a large language "
    "model wrote and labelled it. No person was in distress, and none rated a turn.",
    "hub": r"The data are \stage{{{dataset}}} from the Hugging Face hub, in the schema of the WASSA conversation task.",
    "wassa_csv": "The data are the official files of the WASSA conversation task: two people talk about a news story of "
    r"somebody's trouble, and raters labelled each turn~\citep{{omitaomu2022empathic,giorgi2024wassa}}.",
}
# What the abstract says of the data.
ABSTRACT_DATA = {
    "embedded": "Conversations, labels and demonstrations are synthetic, by a large language model.",
    "hub": "",
    "wassa_csv": "",
}
DATA_STATEMENT = {
    "embedded": "A large language model of Anthropic's Claude family wrote the stories, the conversations and the demonstrations for this repository and labelled "
    r"every turn, in November 2026, by the rules in \file{{data/embedded/guidelines.md}}. No person spoke these words or labelled them, and nothing was copied "
    "from the WASSA data.",
    "hub": r"The turns and labels are those of \stage{{{dataset}}} on the Hugging Face hub, taken as they are.",
    "wassa_csv": r"The turns and labels are those of the official files, written and rated by people~\citep{{omitaomu2022empathic}}; they are not in "
    "the repository.",
}
DATA_LIMIT = {
    "embedded": "The conversations are synthetic and so are their labels: a language model wrote and rated them by written "
    "guidelines, so that the scorers have learned one model's view of these guidelines, and nothing here is evidence "
    "about what people would say or how they would rate it.",
    "hub": "The labels are those of the data set, taken as they are.",
    "wassa_csv": "The raters were crowd workers who judged short chats about news; their ratings are one view of empathy.",
}
# By what a split keeps together: of three parts, and of training and validation alone.
SPLIT = {
    "by_story": "Training, validation and test share no news story.",
    "by_conversation": "Training, validation and test share no conversation.",
    "by_turn": r"\textbf{The split is by turn}: turns of one conversation stand in training and in test, because the settings accept this leak. "
    "It inflates the scorer's quality, and the policy is tested on conversations that it has partly seen.",
}
SPLIT_BESIDE_TEST = {
    "by_story": "Training and validation share no story.",
    "by_conversation": "Training and validation share no conversation.",
    "by_turn": "Training and validation are split by turn and share conversations.",
}
TEST_SPLIT = {
    "marked": "The test stories were written for the test, and nothing about them is in training or validation.",
    "dev_file": "The test split is the official development file.",
}
# By what advantages of summed terms are divided by, and for terms standardised one by one.
AGGREGATION = {
    "group": "The terms are summed first and the sum is standardised within the group.",
    "batch": "The terms are summed first, and the sum is centred within the group and scaled over the step.",
    "none": "The terms are summed first and the sum is centred within the group.",
    "each term": "Each term is standardised within the group before the terms are summed, and their sum over the step, so that "
    r"$R$ in \autoref{eq:advantage} stands for one term at a time.",
}
# What becomes of a linear rescaling of the reward, in the same cases.
RESCALING = {
    "group": r"Advantages (\autoref{eq:advantage}) are standardised within the group, which undoes any linear rescaling of the reward.",
    "batch": r"Advantages (\autoref{eq:advantage}) are scaled over the step, which undoes any linear rescaling of the reward.",
    "none": r"Advantages (\autoref{eq:advantage}) are not scaled, so that a linear rescaling of the reward rescales them, which the "
    "correlations below do not see.",
    "each term": r"The scores of each term (\autoref{eq:advantage}) are standardised within the group, which undoes any linear rescaling "
    "of a term.",
}
_DIVIDED_WITHIN_GROUP = r"\frac{R_i-\mathrm{mean}(R_1,\dots,R_G)}{\mathrm{sd}(R_1,\dots,R_G)}"
ADVANTAGE_FORMULA = {
    "group": _DIVIDED_WITHIN_GROUP,
    "batch": r"\frac{R_i-\mathrm{mean}(R_1,\dots,R_G)}{\mathrm{sd}(\text{all }R\text{ of the step})}",
    "none": r"R_i-\mathrm{mean}(R_1,\dots,R_G)",
    "each term": _DIVIDED_WITHIN_GROUP,
}
LOSS = {
    "dapo": r"$N$ is the number of tokens, of reasoning and answer, in the kept responses of the step~\citep{yu2025dapo}.",
    "bnpo": "$N$ is the number of tokens in the kept responses of one forward batch.",
    "grpo": r"$1/N$ stands for the mean over the kept responses of the mean over each one's tokens, as by \citet{shao2024deepseekmath}.",
    "dr_grpo": r"$N$ is the number of kept responses times the longest length allowed, a constant~\citep{liu2025understanding}.",
}
# By the audit's verdict: without and with a confirmed drift of style.
HACKING = {
    "no gain to audit": (
        "There is no gain to explain by cheating the scorer, and no drift of style is confirmed.",
        "There is no gain to explain by cheating the scorer; yet the responses changed in style.",
    ),
    "not confirmed": (
        "A gain that the held-out scorer does not confirm may be reward hacking, though no drift of style is confirmed.",
        "A gain that the held-out scorer does not confirm may be reward hacking, and the style has drifted beside it.",
    ),
    "partly confirmed": (
        "The optimised scorer shows more of the gain, which may be reward hacking in that part, or that the scorers move by different amounts for one "
        "difference; no drift of style is confirmed.",
        "The optimised scorer shows more of the gain, which may be reward hacking in that part, or that the scorers move by different amounts for one "
        "difference; and the style has drifted.",
    ),
    "confirmed": (
        "No sign of reward hacking is found: both scorers see the gain, and no drift of style is confirmed.",
        "Both scorers see the gain, which speaks against reward hacking; but the style has drifted too, and both may like it.",
    ),
}
# What a change in score is, by the audit's verdict; and what raters add, by
# `rating_verdicts.sense_verdict`.
GAINS = {
    "no gain to audit": "No gain on the reward's scorer is established, so that there is none to interpret.",
    "not confirmed": "What rose is the score of the model that the reward uses. A model of another kind, which learned from other stories, does not confirm "
    "the gain, and we do not count it as one.",
    "partly confirmed": "Both scorers rate the tuned answers higher, the optimised one by more. What both see is a change of wording that two models "
    "of different kinds value; the rest may be peculiar to the optimised one, or be that the two move by different amounts.",
    "confirmed": "Both scorers rate the tuned answers higher. So the gain is not peculiar to the scorer that was optimised; but both learned from "
    "labels of one source, and neither from answers of the policy.",
}
GAINS_RATED = {
    "not rated": "No score here is evidence that an answer makes sense, and no ratings of single answers of this run are at hand.",
    "do not": "By the ratings most of the tuned answers do not make sense, and a higher score on such text is no better answer.",
    "open": "The ratings leave open whether most of the tuned answers make sense, and with it what a higher score on them is worth.",
    "do": "By the ratings more than half of the tuned answers make sense; whether they would help anybody was not asked.",
}
# Whether there are ratings of this run's answers: how answers are rated.
RATING_RULES = {
    True: "So answers were rated. A rater sees the user's message and the answer alone, shuffled over policies and prompts, and neither "
    r"policy nor score. A \emph{sensible} reply answers this message and can be followed, may be plain or a little odd in its wording, but "
    r"has no wrong person, no invention that matters and no contradiction; \emph{coherent but off} is one that can be followed but misses "
    r"the point, mixes up persons or facts, or invents; \emph{nonsense} cannot be followed, or has nothing to do with the message. "
    r"Empathy has marks from 1 to 5; \emph{empathetic} is an answer from 3 on, which shows that a feeling or a point of view was taken in, "
    "sensible or not. Rated are the first answers of both policies to every prompt; a rated answer counts for each policy that gave it in any sample, so that a "
    "policy may have more of them than there are prompts. Of pairs, a rater says which of both policies' answers is better, or that both are good or neither is. "
    r"The rules, and who rated, paid or not, are in \file{data/ratings/README.md}.",
    False: r"Raters can tell; the rules by which they rate are in \file{data/ratings/README.md}, and \stage{make rate} makes a page to rate on.",
}
# By what there are ratings of: what the tables hold.
RATING_TABLES = {
    "single": r"\autoref{tab:ratings} has the policies, \autoref{tab:validity} and \autoref{fig:validity} have every score.",
    "pair": r"\autoref{tab:validity} has how every score orders the pairs; \autoref{tab:ratings} and \autoref{fig:validity} take ratings of single "
    "answers.",
    None: r"\autoref{tab:ratings} would have the policies, \autoref{tab:validity} and \autoref{fig:validity} every score.",
}
# What the audit by scores cannot see, by `rating_verdicts.sense_verdict`.
UNSEEN = {
    "not rated": "Whether the answers make sense is beyond both scorers.",
    "do not": r"Neither scorer sees whether an answer makes sense, and by the ratings of \autoref{sec:sense} the answers do not, so that a higher score "
    "can be had without sense.",
    "open": r"Whether an answer makes sense is beyond both scorers, and the ratings of \autoref{sec:sense} leave open whether most of the answers do.",
    "do": r"Whether an answer makes sense is beyond both scorers; \autoref{sec:sense} has the ratings.",
}
# How far tuning kept the sense, by whether single answers were rated.
SENSE_KEPT = {
    True: r"what became of the sense of the answers is what \autoref{tab:ratings} shows",
    False: "what became of the sense of the answers cannot be told, as no ratings of single answers of this run are at hand",
}
# By `estimates.side` of an interval, and 0.
SIDE = {
    -1: "lies below zero",
    0: "includes zero",
    1: "lies above zero",
}
# What the calibrated terms of the reward are.
SCORED = {
    "semantic_similarity": "the semantic similarity of answer and utterance",
    "empathy": "the score of a learned empathy regressor",
    "reader_sense": "a prediction of the sense that a language model finds in the answer",
    "reader_empathy": "a prediction of whether a language model finds it empathetic",
    "approach_match": "whether message and answer are of one kind",
    "likelihood": "the likelihood of the answer under the policy that training starts from",
}
# The terms of the reward of the reported design.
REPORTED = {"semantic_similarity": "the semantic similarity", "empathy": "the learned score"}
SIMILARITY_UNPAID = "It is measured in every run and is no part of this reward."
# What the other terms ask for.
ASKS = {
    "well_formed": "the response format",
    "length": "short answers",
    "repetition": "word pairs that do not return",
    "overlap": "words other than the user's",
    "polarity_match": "the polarity of the user's message",
}
# How they are defined; more is better in each.
OTHER_TERMS = {
    "well_formed": "1 for a reply in the format and 0 for any other",
    "length": "1 up to {free} words in the answer and falling to 0 at {limit}",
    "repetition": "the share of distinct word bigrams of the answer",
    "overlap": "1 less the share of the answer's content words that stand in the utterance",
    "polarity_match": "how near the predicted polarities of answer and message are",
}
# By the verdict on the combined score.
COMBINED = {"improved": "rose", "worsened": "fell", "no evidence of a change": "is not shown to have changed"}
# Where no policies were trained at other temperatures; what terms add is then not told either.
NO_TEMPERATURES = r"No policy was trained at another $T$ to tell; \stage{make sweep} does it."
CALIBRATIONS = {
    "batch": "in batch calibration",
    "prompt": "calibrated over a single prompt's responses",
    "reference": "against the frozen reference",
}
SECOND = r"\second"
_NEW_TRAINING = (
    r"A further interval is for the gain of one more training, which is GRPO from another seed or on another processor and from the same warm start, with the same scorers and reader model: beside the variance of the stories it holds $s^2(1+1/n)$, where $s$ is the "
    r"standard deviation between trainings and $n$ the number of trainings behind the mean, as Student's prediction interval "
    r"does~\citep{hahn1991statistical}, with Satterthwaite's degrees of freedom."
)
_BY_THIS_INTERVAL = "Verdicts go by this interval."
_BY_THE_STUDY = (
    "Verdicts are those of the study, by its interval for a new training and its own tests, which take its trainings as they are: one training more says "
    "little beside it."
)
_OTHERWISE_DECLARED = "The study declares other metrics, another confidence or another margin, so that the verdicts are this run's and go by that interval."
_OVER_TRAININGS = (
    "A bootstrap of so few seeds never reaches beyond their range, and in simulation its intervals cover too rarely where trainings differ. So the seeds "
    "are not resampled: the variance of their mean is added to that of the stories, the degrees of freedom of the sum being Satterthwaite's"
)


def split(data: Mapping) -> str:
    """Say what training, validation and test share, and where the test split comes from."""
    # Data without stories count each conversation as one of its own.
    kept = "by_conversation" if data["split"] == "by_story" and data["stories"] is None else data["split"]
    shared = ""
    if data["shared_stories"]:
        counts = latex.integer(data["splits"]["test"]["stories"]), latex.integer(data["shared_stories"])
        shared = f" Of the {counts[0]} test stories, {counts[1]} are also in training or validation."
    if data["test_split"] == "drawn":
        return SPLIT[kept] + shared
    return f"{TEST_SPLIT[data['test_split']]} {SPLIT_BESIDE_TEST[kept]}{shared}"


def model_name(name: str) -> str:
    """Return a model's name in print, with its citation where the repository brings the model."""
    return NAMES.get(name, rf"\texttt{{{latex.escape(name)}}}")


def quantisation(policy: params.Policy, settings: Mapping) -> str:
    """Say in which number format the frozen weights are, and what is computed in."""
    if not policy.load_in_4bit:
        return f"The base weights are frozen and kept in {settings['dtype']}."
    place = (
        " and, on this machine without CUDA, dequantised once at loading, which keeps the numbers of the 4-bit model"
        if str(settings["device"]).startswith("cpu")
        else ""
    )
    return (
        rf"The base weights are frozen and quantised to 4-bit NF4~\citep{{dettmers2023qlora}}{place}; products are computed in "
        f"{settings['dtype']}."
    )


# By the guidelines of the corpus, whose demonstrations every source uses. The readings behind it
# are in docs/experiments.md.
PLAIN = (
    "The demonstrations take up the feeling or the point of a message in common words, copy next to nothing of it, and answer "
    "like messages alike; in readings of earlier warm starts, demonstrations that comment on what a message tells had taught wrong "
    r"comments (\file{docs/experiments.md})."
)


def warm_start(report: Mapping) -> str:
    """Say whether the policy learned the response format from demonstrations first."""
    if not report["enabled"]:
        return "There is no warm start: GRPO begins with the model as it is."
    moved = "fell" if report["loss_last"] < report["loss_first"] else "went"
    held_out = (
        f", and is {latex.number(report['loss_validation'], 2)} on demonstrations of other stories"
        if report["loss_validation"] is not None
        else ""
    )
    kept = (
        r" It was trained beforehand by the same settings and is kept in the repository (\file{data/embedded/warm_start})."
        if report["kept"]
        else ""
    )
    return (
        f"Before GRPO a warm start, supervised training of the same adapter on {latex.integer(report['demonstrations'])} "
        f"demonstrations, teaches format and plain replies; its loss per token {moved} from "
        f"{latex.number(report['loss_first'], 2)} to {latex.number(report['loss_last'], 2)} nats{held_out}.{kept} {PLAIN}"
    )


def scored_terms(weights: Mapping[str, float]) -> str:
    """Name the calibrated terms of the reward."""
    named = [what for term, what in SCORED.items() if term in weights]
    relative = [what for term, what in SCORED.items() if calibration.RELATIVE + term in weights]
    if not named and not relative:
        return "No term of the reward is a calibrated score."
    several = len(named) + len(relative) > 1
    verb, end = ("combines", "each calibrated") if several else ("holds", "calibrated")
    end += " to the unit interval with a temperature."
    if not relative:
        return f"The reward {verb} {listed(named)}, {end}"
    each = "each " if len(relative) > 1 else ""
    further = f", with {listed(named)}" if named else ""
    these = "each of these scores is" if several else "the score is"
    return (
        f"The reward {verb} {listed(relative)}, {each}less what is usual for the kind of answer{further}; {these} "
        f"{end.removeprefix('each ')}"
    )


def reward_departure(weights: Mapping[str, float]) -> str:
    """Say which terms the reward has in place of those of the reported design, or beside them."""
    relative = [what for term, what in REPORTED.items() if calibration.RELATIVE + term in weights]
    left_out = [what for term, what in REPORTED.items() if term not in weights and what not in relative]
    reported = {*REPORTED, *(calibration.RELATIVE + term for term in REPORTED)}
    added = [latex.escape(term.replace("_", " ")) for term in weights if term not in reported]
    changes = [f"leaves out {listed(left_out)}"] if left_out else []
    changes += [f"takes {listed(relative)} against what is usual for the kind of answer"] if relative else []
    changes += [f"adds {listed(added)}"] if added else []
    return f"The reward here {listed(changes)}." if changes else "The reward here has the same two terms."


def start_departure(report: Mapping) -> str:
    """Say what GRPO starts from, beside the reported design."""
    if not report["enabled"]:
        return "GRPO starts here from the model as it is."
    kept = ", which was trained beforehand and is kept in the repository" if report["kept"] else ""
    return f"GRPO starts here from a warm start on demonstrations{kept}."


def best_of(found: Mapping, sections: Mapping[str, params.Section], trained: Audit) -> str:
    """Say what choosing by the reward gives without training, if it was tried with these settings.

    Args:
        found: bench/best_of.json.
        trained: What the audit found of training.
    """
    tried = found.get("test")
    if tried is None or any(sections[name].model_dump(mode="json") != of for name, of in tried["settings"].items()):
        return ""
    names = ("empathy_raw", trainings.HELD_OUT)
    changes = [
        latex.LATEX.estimate({"estimate": one["difference"], "low": one["low"], "high": one["high"]})
        for one in (tried["measures"][name] for name in names)
    ]
    gained = [latex.number(trained["metrics"][name]["difference"], 2, signed=True) for name in names]
    return (
        f"A higher score can be had without training: keeping, of {latex.integer(tried['draws'])} answers of the starting policy to a test prompt, "
        f"the one that the reward puts highest changes empathy, against one draw, by {changes[0]} on the reward's scorer and by {changes[1]} on the "
        rf"held-out one (\linked{{bench/best_of.json}}), where training changed them by {gained[0]} and {gained[1]}. What tuning is worth is what it adds "
        "to that."
    )


def likelihood(weights: Mapping[str, float]) -> str:
    """Say what the likelihood is, where the reward has it."""
    if "likelihood" not in weights:
        return ""
    return (
        r"A further score, $r_{\mathrm{lik}}$, is the mean log-probability of the answer's tokens under the policy that GRPO starts from, "
        "given the message and the reasoning, in nats (a reply without an answer block is taken whole): an answer that wanders off falls in it."
    )


def further_terms(weights: Mapping[str, float]) -> str:
    """Say what the reward asks for beside the calibrated scores, if anything."""
    asked = [
        ASKS.get(term, latex.escape(term.replace("_", " "))) for term in weights if term not in calibration.CALIBRATED
    ]
    if not asked:
        return ""
    return f"Further terms of the reward ask for {listed(asked)}."


def standardisation(rewards: params.Rewards, grpo: params.TrainGrpo) -> str:
    """Return the settings' key of AGGREGATION, RESCALING and ADVANTAGE_FORMULA."""
    # Terms that are standardised one by one are so within the group, whatever scale_rewards says.
    return "each term" if rewards.aggregation == "normalize_then_sum" else grpo.scale_rewards


def trained_share(grpo: params.TrainGrpo) -> str:
    """Say which responses of a group are trained on, and on which of their tokens."""
    return " ".join(filter(None, [_kept_responses(grpo), _advantage_on(grpo)]))


def _advantage_on(grpo: params.TrainGrpo) -> str:
    if grpo.advantage_on == "response":
        return "$A_{i,t}=A_i$ on all tokens."
    held = ", held by the divergence below" if grpo.kl_beta else ""
    return (
        "$A_{i,t}$ is $A_i$ on the tokens of the answer (of a reply without one, on all) and 0 on the reasoning, which moves only by way of the "
        f"weights that both share{held}."
    )


def _kept_responses(grpo: params.TrainGrpo) -> str:
    if grpo.trained_generations == grpo.num_generations:
        return "All of them are kept for the update."
    return (
        f"Of each group, the {latex.integer(grpo.trained_generations)} responses whose advantages together have the largest variance are kept for the update, in the manner of "
        r"\citet{xu2026rollouts}; their advantages are those against the whole group."
    )


def similarity(study: Analysis | None, run: Analysis) -> str:
    """Say what became of semantic similarity, and whether a loss of the margin is excluded."""
    margin = latex.setting(run["similarity_noninferiority"]["margin"])
    said = verdicts.similarity(study, run, latex.LATEX, margin)
    test = latex.p_statement(run["similarity_noninferiority"]["p"])
    return f"{said}. In this run the change is {_in_run(run, 'semantic_similarity_raw')}, and the one-sided test of that loss has {test}."


def result_of_run(study: Analysis | None, run: Analysis) -> str:
    """Give the change of raw empathy in the run, with the verdict on it where it has its own."""
    empathy, count = run["metrics"]["empathy_raw"], len(run["training_seeds"])
    if count > 1:  # the study, and its intervals stand before
        return f"Over these trainings, {verdicts.headline(study, run)} (Holm-adjusted {latex.p_statement(empathy['p_holm'])})."
    change = latex.number(empathy["difference"], 2, signed=True)
    found = (
        f"{change} label units ({latex.percent(run['confidence'])} intervals: {intervals(empathy, 2, count)}; Holm-adjusted "
        f"{latex.p_statement(empathy['p_holm'])})"
    )
    on = f"on {latex.integer(run['prompts'])} test prompts about {latex.integer(run['stories'])} stories"
    if trainings.deciding(study, run) is not None:
        return f"In this report's run, one training, the change {on} is {found}."
    return f"In this report's run, {on}, {verdicts.headline(study, run)}: the mean change is {found}."


def base_model(run: Analysis) -> str:
    """Give the base model's scores, where a warm start stands between it and the tuned policy."""
    if run["starting_policy"] == "base":
        return ""
    known = run["audit"]["metrics"] | run["metrics"]
    reward, held_out = (
        [latex.number(known[metric]["means"][policy], 2) for policy in ("base", run["starting_policy"], "tuned")]
        for metric in ("empathy_raw", trainings.HELD_OUT)
    )
    return (
        f"The base model, which is not compared, scores {reward[0]} and {held_out[0]} on the reward's and the held-out scorer (warm start {reward[1]} and "
        f"{held_out[1]}, tuned {reward[2]} and {held_out[2]})."
    )


def reward_parts(responses: pd.DataFrame, weights: Mapping[str, float], start: str) -> str:
    """Split the change of the combined score in the run into the parts of its terms, largest first.

    Args:
        responses: One row a response, with each term's score.
        start: The policy that GRPO started from.
    """
    total, parts = sum(weights.values()), {}
    for term, weight in weights.items():
        column = f"{term}_reference" if f"{term}_reference" in responses else f"{term}_raw"
        if column not in responses:
            return ""
        # As everywhere, each prompt counts alike.
        mean = responses.groupby(["model", "prompt_id"])[column].mean().groupby("model").mean()
        parts[term.replace("_", " ")] = weight * (mean["tuned"] - mean[start]) / total
    ordered = sorted(parts, key=lambda name: -abs(parts[name]))
    said = [f"{latex.escape(name)} {latex.number(parts[name], 3, signed=True)}" for name in ordered]
    return f"By term, weighted as in the reward, this run's change of the combined score is {', '.join(said)}."


def combined(study: Analysis | None, run: Analysis) -> str:
    """Say what became of the reward itself, against the frozen reference, where it is declared."""
    found, is_study = verdicts.of_metric(study, run, "combined_reference")
    if "combined_reference" not in run["metrics"]:
        return ""
    where = " in the study" if is_study else ""
    return (
        f"The combined score, the reward itself against the frozen reference, {COMBINED[found['verdict']]}{where}; in this run the change is "
        f"{_in_run(run, 'combined_reference')}."
    )


def _in_run(run: Analysis, metric: str) -> str:
    comparison = run["metrics"][metric]
    difference = latex.number(comparison["difference"], 3, signed=True)
    return f"{difference} ({intervals(comparison, 3, len(run['training_seeds']))})"


def other_terms(rewards: params.Rewards) -> str:
    """Define the terms of the reward that are not calibrated."""
    limits = {"free": rewards.free_words, "limit": rewards.limit_words}
    defined = [
        rf"\emph{{{term.replace('_', ' ')}}}, {what.format(**limits)}"
        for term, what in OTHER_TERMS.items()
        if term in rewards.weights
    ]
    if not defined:
        return ""
    return f"Other terms lie in $[0,1]$ by their definition and enter as they are: {'; '.join(defined)}."


def seeds(run: Analysis, study: Analysis | None) -> str:
    """Say how many trainings the comparison rests on.

    It says too what that means for intervals, tests and verdicts.
    """
    numbers, source = run["training_seeds"], run["between_trainings"]
    if len(numbers) > 1:
        caution = "; over two seeds such intervals were too short in simulation" if len(numbers) == 2 else ""
        named = listed([str(number) for number in numbers])
        return (
            f"The policy was trained {len(numbers)} times, with the seeds {named}; the scores of a prompt are averaged over them. "
            f"{_OVER_TRAININGS}{caution}. That interval is for the mean over trainings. "
            f"{_NEW_TRAINING} {_BY_THIS_INTERVAL} The permutation tests are about these trainings."
        )
    once = (
        r"The comparison of \autoref{tab:results} is of one training. Its first interval and its tests say what these weights do on stories like these, not "
        "what training again would give, be it from the same seed on another processor, which rounds differently."
    )
    if not source["trainings"]:
        return (
            rf"{once} No study of several trainings is at hand (\stage{{make seeds}} makes one), so that the spread between trainings is "
            "unknown, and the verdicts too are about these weights."
        )
    of = rf"study of {latex.integer(source['trainings'])} trainings"
    if source["other_conditions"]:
        return (
            rf"{once} The {of} at hand (\autoref{{tab:study}}) was made under other conditions: {conditions(source)}. Its spread between "
            "trainings is not used, so that there is no interval for a new training of this run, and the verdicts too are about these weights."
        )
    by = _OTHERWISE_DECLARED if trainings.deciding(study, run) is None else _BY_THE_STUDY
    return rf"{once} The study's interval for the mean is over stories and trainings. {_OVER_TRAININGS}. {_NEW_TRAINING} Of this run $n=1$, and $s$ is from the {of} (\autoref{{tab:study}}). {by}"


def conditions(source: SpreadSource) -> str:
    """Name what was otherwise in the study at hand."""
    return verdicts.conditions(source, lambda name: rf"\file{{{name}}}" if "." in name else name)


def spread(audit: RewardAudit) -> str:
    """Give both scorers' changes in standard deviations of their scores, where these have any."""
    names = ("empathy_raw", "audit_empathy_raw")
    spreads = [audit["start_sd"][name] for name in names]
    if min(spreads) == 0:
        return ""
    changes = [audit["metrics"][name]["difference"] / sd for name, sd in zip(names, spreads, strict=True)]
    reward, held_out = (latex.number(change, 2, signed=True) for change in changes)
    sds = [latex.number(sd, 2) for sd in spreads]
    return (
        f"Over answers of the starting policy the two scores have standard deviations of {sds[0]} and {sds[1]}; in these units the changes are {reward} "
        f"and {held_out}."
    )


def intervals(comparison: Comparison | Gap, digits: int, trainings: int) -> str:
    """Give the intervals of a difference, each with what it is for."""
    of = "these weights" if trainings == 1 else "the mean over trainings"
    text = f"{latex.interval(comparison['low'], comparison['high'], digits)} for {of}"
    if comparison["new_low"] is None:
        return text
    alone = " by this run alone" if trainings == 1 else ""
    return f"{text}, {latex.interval(comparison['new_low'], comparison['new_high'], digits)} for a new training{alone}"


def study(found: Analysis | None, source: SpreadSource) -> str:
    """Say what the study of several trainings found, and where it differs from this run."""
    if found is None:
        return "One training was run, and no study of several is at hand."
    return verdicts.study(found, conditions(source), latex.LATEX)


def study_verdict(found: Analysis | None, source: SpreadSource) -> str:
    """Say whether the study settles the sign of the changes that a new training would give."""
    if found is None:
        return "One training cannot say what the next one would give."
    by_metric = {row["metric"]: row for row in trainings.rows(found)}
    made = ", made under other conditions" if source["other_conditions"] else ""
    said = []
    for metric, where in (("empathy_raw", "the reward's scorer"), (trainings.HELD_OUT, "the held-out one")):
        new, mean = (SIDE[estimates.side(of(by_metric[metric]), 0)] for of in (_new, _mean))
        said.append(
            f"on {where} the interval for a new training {new} and that for the mean {'does too' if mean == new else mean}"
        )
    return f"In the study of {len(found['training_seeds'])} trainings{made}, {'; '.join(said)}."


def _mean(row: StudyRow) -> Estimate:
    return {"estimate": row["mean"], "low": row["low"], "high": row["high"]}


def _new(row: StudyRow) -> Estimate:
    return {"estimate": row["mean"], "low": row["new_low"], "high": row["new_high"]}


def audit(study: Analysis | None, run: Analysis) -> str:
    """Say what the audit finds, and of several trainings how far both scorers lie apart."""
    several = trainings.deciding(study, run)
    said, drift = verdicts.audit(study, run), latex.escape(verdicts.drift(verdicts.carrier(study, run)["audit"]))
    if several is None:
        return f"{said} {drift}"
    gap = several["audit"]["gap"]
    apart = latex.number(gap["difference"], 2, signed=True)
    return f"{said} The reward's scorer less the held-out one changes by {apart} ({intervals(gap, 2, len(several['training_seeds']))}). {drift}"


def gains(analysis: Analysis, study: Analysis | None, ratings: RunRatings) -> str:
    """Say what the change in score is, and what it is not; by the study, if there is one."""
    audit = verdicts.carrier(study, analysis)["audit"]
    text = GAINS[audit["verdict"]]
    if audit["templates"]["signs"]:
        before = ", which the starting policy shows too" if audit["templates"]["starting_signs"] else ""
        text += f" The audit for templates finds a sign of one{before}, so that part of what the scorers see may be a manner that all answers share."
    rated = GAINS_RATED[rating_verdicts.sense_verdict(ratings)]
    return " ".join(filter(None, [text, _reward_and_ratings(analysis, study, ratings), rated]))


def _reward_and_ratings(analysis: Analysis, study: Analysis | None, ratings: RunRatings) -> str:
    """Set the change of the reward beside that of the ratings of the same prompts."""
    found = rating_verdicts.leading(ratings, "single")
    reward, is_study = verdicts.of_metric(study, analysis, "combined_reference")
    if reward is None or found is None or found["difference"] is None:
        return ""
    sensible, empathetic = (latex.LATEX.estimate(found["difference"][mark]) for mark in ("sensible", "empathetic"))
    where = "Over these trainings" if is_study else "In this run"
    return (
        f"{where} the reward itself {COMBINED[reward['verdict']]}, while by the ratings of this run's answers the share of sensible ones changed by "
        f"{sensible} and that of empathetic ones by {empathetic}."
    )


def study_seeds(found: Analysis | None, run: Analysis) -> str:
    """Name the seeds of the study and point to its table.

    Where the run is one of its trainings, it says so.
    """
    if found is None:
        return ""
    named = listed([str(number) for number in found["training_seeds"]])
    within = ""
    if _is_one_of(found, run):
        within = " The run of this report is one of these trainings, so that the two are no independent evidence."
    elif set(run["training_seeds"]) <= set(found["training_seeds"]) and len(run["training_seeds"]) == 1:
        within = (
            " The run of this report has the seed of one of them, and is another training by rounding, code or data."
        )
    return rf"\autoref{{tab:study}} has every metric of that study, whose training seeds are {named}.{within}"


def _is_one_of(found: Analysis, run: Analysis) -> bool:
    """Say whether a study holds the run's one training: that of its seed changed all metrics alike.

    An equal seed is not enough, as on another processor it makes another training.
    """
    if len(run["training_seeds"]) != 1:
        return False
    (seed,) = run["training_seeds"]
    return all(
        metric in found["metrics"]
        and math.isclose(found["metrics"][metric]["by_seed"].get(str(seed), math.nan), one["difference"], abs_tol=1e-9)
        for metric, one in run["metrics"].items()
    )


def seed_results(comparison: Comparison) -> str:
    """Give the change of each training seed, if there are several."""
    by_seed = comparison["by_seed"]
    if len(by_seed) == 1:
        return ""
    changes = [latex.number(by_seed[seed], 2, signed=True) for seed in sorted(by_seed, key=int)]
    return f"By training seed, the change is {listed(changes)}."


def trend(study: Analysis | None, run: Analysis) -> str:
    """Say whether the tuned policy's empathy grows with the intensity of the turn.

    It says too whether its gain does.
    """
    found = verdicts.carrier(study, run)
    values = found["by_intensity"]["values"]["empathy_raw"]
    sentences = []
    for subject, of in (("the tuned policy's raw empathy score", "tuned"), ("the change by tuning", "change")):
        correlation = values[of]["trend"]
        if _clear(correlation, found["confidence"]):
            sentences.append(f"{subject} {'grows' if correlation['spearman'] > 0 else 'falls'} with the intensity")
        else:
            sentences.append(f"there is no evidence that {subject} follows the intensity")
    text = "; ".join(sentences) + "."
    if found is not run:
        return f"In the study, {text}"
    return text[0].upper() + text[1:]


def stated_constant(responses: pd.DataFrame) -> str:
    """Say how often one level, stated to everybody, would agree with the label: the best one."""
    level_P = responses.groupby("prompt_id")["level"].first().dropna()
    if level_P.empty:
        return ""
    best = level_P.mode()[0]
    near = (level_P - best).abs() <= 1
    return (
        f"Always stating {int(best)} would agree for {latex.percent((level_P == best).mean())} of the prompts and be at most one level away for "
        f"{latex.percent(near.mean())}."
    )


def conclusion(study: Analysis | None, run: Analysis) -> str:
    """Give the main finding of the run where it has one of its own."""
    return "" if trainings.deciding(study, run) is not None else f"In this run, {verdicts.headline(study, run)}."


def _clear(correlation: Trend, confidence: float) -> bool:
    return correlation["spearman"] is not None and correlation["p"] < effects.significance_level(confidence)


def hacking(audit: Audit) -> str:
    """Say plainly whether the run looks like reward hacking.

    A sign of a template that the starting policy does not show is a drift too.
    """
    taken_up = set(audit["templates"]["signs"]) - set(audit["templates"]["starting_signs"])
    return HACKING[audit["verdict"]][bool(audit["drifts"] or taken_up)]


def temperature_effect(mode: str, rows: Sequence[AtTemperature], configured: float) -> str:
    """Give the smallest correlation of advantages over the grid, with its T, in one mode.

    The most reversed pairs are given too.
    """
    other_rows = _others(rows, configured)
    if not other_rows:
        return f"undefined {CALIBRATIONS[mode]}, where the rewards have no spread"
    farthest = min(other_rows, key=lambda row: row["correlation"])
    reversed_pairs = max(row["reversed_pairs"] for row in other_rows)
    return (
        rf"{latex.number(farthest['correlation'], 3)} (at $T={farthest['temperature']:g}$) and "
        f"{latex.percent(reversed_pairs, 1)} {CALIBRATIONS[mode]}"
    )


def _others(rows: Sequence[AtTemperature], configured: float) -> list[AtTemperature]:
    return [row for row in rows if row["temperature"] != configured and row["correlation"] is not None]


def rehearsals(gpus: Sequence[dict]) -> str:
    """Say what the steps of profiles took on GPUs, on random models of their architectures."""
    if not gpus:
        return r"No profile for a GPU has been rehearsed on one for this report; \stage{make rehearse} does."
    return (
        "Profiles for a GPU are rehearsed on random models of their architectures, with the longest prompts and responses that they "
        rf"allow: {'; '.join(map(_rehearsal, gpus))} (\file{{reports/gpu/}}, from \stage{{make rehearse}})."
    )


def _rehearsal(rehearsal: dict) -> str:
    seconds, versions = rehearsal["seconds_per_step"], rehearsal["versions"]
    named = [
        f"{name} {versions[name].partition('+')[0]}" for name in ("torch", "trl", "unsloth", "vllm") if name in versions
    ]
    unfinished = gpu_table.not_passed(rehearsal)
    failed = f" ({unfinished})" if unfinished else ""
    return (
        rf"on one {latex.escape(rehearsal['gpu']['name'])} a step of \file{{{latex.escape(rehearsal['profile'])}}} took "
        f"{latex.quantity(seconds['step'], SECOND)}, {latex.quantity(seconds['generation'], SECOND)} of it sampling, and "
        rf"{rehearsal['peak_memory_gib']['train']:.1f}\,GiB of memory, with {', '.join(named)}{failed}"
    )
