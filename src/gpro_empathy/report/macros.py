r"""The macros of the report: each one's name, source and format, in one dictionary.

Sentences that depend on a result or a setting are macros too, chosen here, so that the text around
them stays true.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gpro_empathy import calibration, params
from gpro_empathy.analysis import bootstrap, effects, response_table, stated_levels, trainings
from gpro_empathy.analysis.results import Analysis, RunRatings, Templates, Trend
from gpro_empathy.report import (
    baseline_section,
    latex,
    protocol,
    rating_verdicts,
    reader_sentences,
    scorer_section,
    sentences,
    sweeps,
    verdicts,
)

# Steps at either end of training whose mean the text quotes, or a quarter of the run if that is
# less.
WINDOW = 5


@dataclass(frozen=True)
class Inputs:
    """What the report is written from.

    These are the parsed files of reports/, bench/scorer.json and bench/best_of.json, and the
    sections of params.yaml.
    `responses` are the run's, one row each, `study` is the analysis of several trainings, `gpus`
    are the rehearsals on GPUs, in reports/gpu, `protocol` is the record of what was fixed
    when, `baseline` the comparison with the baseline, `sweeps` the summary of each sweep.
    """

    data: dict
    scorer: dict
    reader: dict
    benchmark: dict
    best_of: dict
    warm_start: dict
    analysis: Analysis
    responses: pd.DataFrame
    ratings: RunRatings
    study: Analysis | None
    settings: dict
    log: pd.DataFrame
    timing: pd.DataFrame
    gpus: Sequence[dict]
    protocol: protocol.Protocol
    baseline: Mapping[str, Any]
    sweeps: list[dict]
    sections: Mapping[str, params.Section]


def macros(inputs: Inputs) -> dict[str, str]:
    """Return every macro's LaTeX text by its name, in the order of the report."""
    return {
        **_method(inputs),
        **_data(inputs),
        **scorer_section.macros(inputs.scorer, inputs.sections["train_scorer"], inputs.benchmark),
        **_training(inputs),
        **_results(inputs.analysis, inputs.study),
        **_study(inputs.analysis, inputs.study),
        **_intensity(inputs.analysis, inputs.study, inputs.responses),
        **_audit(inputs.analysis, inputs.study),
        **_temperature(inputs.analysis),
        "RunTemperatureStudy": sweeps.answer(inputs.sweeps, sweeps.TEMPERATURE, sentences.NO_TEMPERATURES),
        "RunTermsStudy": sweeps.answer(inputs.sweeps, sweeps.WEIGHTS, ""),
        **_ratings(inputs.ratings),
        **baseline_section.macros(inputs.baseline),
        "RunRewardParts": sentences.reward_parts(
            inputs.responses, inputs.sections["rewards"].weights, inputs.analysis["starting_policy"]
        ),
        "RunGainsSentence": sentences.gains(inputs.analysis, inputs.study, inputs.ratings),
        "RunBestOfSentence": sentences.best_of(
            inputs.best_of, inputs.sections, verdicts.carrier(inputs.study, inputs.analysis)["audit"]
        ),
        "RunProtocolSentence": protocol.sentence(inputs.protocol, inputs.sections),
        "RunGpuSentence": sentences.rehearsals(inputs.gpus),
    }


def _method(inputs: Inputs) -> dict[str, str]:
    policy, rewards = inputs.sections["policy"], inputs.sections["rewards"]
    grpo, config = inputs.sections["train_grpo"], inputs.sections["analyse_rewards"]
    cross = rewards.similarity_kind == "cross_encoder"
    return {
        "RunModelName": sentences.model_name(policy.model),
        "RunModelSentence": f"The policy is {sentences.model_name(policy.model)}.",
        "RunQuantisationSentence": sentences.quantisation(policy, inputs.settings),
        "RunLoraRank": latex.integer(policy.lora_rank),
        "RunLoraAlpha": f"{policy.lora_alpha:g}",
        "RunParametersTrained": latex.integer(inputs.settings["parameters_trained"]),
        "RunWarmStartSentence": sentences.warm_start(inputs.warm_start),
        "RunSimilarityFormula": r"\mathrm{clip}\bigl(f(u,a),0,1\bigr)"
        if cross
        else r"\max\bigl(0,\cos(e(u),e(a))\bigr)",
        "RunSimilarityModelSentence": (
            "where $f$ is the score of the pair by " if cross else "where $e$ is the embedding of "
        )
        + sentences.model_name(rewards.similarity_model)
        + ("." if "semantic_similarity" in rewards.weights else f". {sentences.SIMILARITY_UNPAID}"),
        "RunTemperature": f"{rewards.calibration_temperature:g}",
        "RunCalibration": rewards.calibration,
        "RunScoredTerms": sentences.scored_terms(rewards.weights),
        "RunReaderSentence": reader_sentences.definitions(rewards.weights),
        "RunReaderLearned": reader_sentences.learned(
            rewards.weights, inputs.reader, sentences.model_name(inputs.sections["train_scorer"].encoder)
        ),
        "RunSenseScored": reader_sentences.SCORED[reader_sentences.sees(rewards.weights)],
        "RunSenseSeen": reader_sentences.SEEN[reader_sentences.sees(rewards.weights)],
        "RunLikelihoodSentence": sentences.likelihood(rewards.weights),
        "RunFurtherTerms": sentences.further_terms(rewards.weights),
        "RunRewardDeparture": sentences.reward_departure(rewards.weights),
        "RunStartDeparture": sentences.start_departure(inputs.warm_start),
        "RunWeights": ", ".join(
            f"{latex.escape(term.replace('_', ' '))} {latex.setting(weight)}"
            for term, weight in rewards.weights.items()
        ),
        "RunAggregationSentence": sentences.AGGREGATION[sentences.standardisation(rewards, grpo)],
        "RunPromptsPerStep": latex.integer(grpo.prompts_per_step),
        "RunGroupSize": latex.integer(grpo.num_generations),
        "RunAdvantageFormula": sentences.ADVANTAGE_FORMULA[sentences.standardisation(rewards, grpo)],
        "RunRescalingSentence": sentences.RESCALING[sentences.standardisation(rewards, grpo)],
        "RunTrainedShareSentence": sentences.trained_share(grpo),
        "RunOtherTerms": sentences.other_terms(rewards),
        "RunReferenceResponses": latex.integer(calibration.REFERENCE_RESPONSES),
        "RunTrainingTemperature": f"{grpo.temperature:g}",
        "RunClipEpsilon": f"{grpo.clip_epsilon:g}",
        "RunKlBeta": f"{grpo.kl_beta:g}",
        "RunKlSentence": r"With $\beta=0$ this term is neither computed nor logged." if grpo.kl_beta == 0 else "",
        "RunLossSentence": sentences.LOSS[grpo.loss_type],
        "RunResamples": latex.integer(config.n_resamples),
        "RunMetricCount": latex.integer(len(config.metrics)),
        "RunAlpha": latex.setting(effects.significance_level(config.confidence)),
        "RunPower": latex.percent(effects.POWER),
        "RunMargin": f"{config.similarity_margin:g}",
        "RunConfidence": latex.percent(config.confidence),
        "RunMaxPromptTokens": latex.integer(policy.max_prompt_tokens),
        "RunMaxCompletionTokens": latex.integer(policy.max_completion_tokens),
    }


def _data(inputs: Inputs) -> dict[str, str]:
    data = inputs.data
    # Not every source knows its stories.
    stories = f"{latex.integer(data['stories'])} " if data.get("stories") else ""
    described = sentences.DATA[data["source"]].format(stories=stories, dataset=latex.escape(str(data["dataset"])))
    return {
        "RunAbstractData": sentences.ABSTRACT_DATA[data["source"]],
        "RunDataSentence": described,
        "RunSplitSentence": sentences.split(data),
        "RunDataStatement": sentences.DATA_STATEMENT[data["source"]].format(dataset=latex.escape(str(data["dataset"]))),
        "RunDataLimit": sentences.DATA_LIMIT[data["source"]],
        "RunMinWords": latex.integer(inputs.sections["prepare"].min_prompt_words),
        "RunLeftOutShort": latex.integer(data["left_out"]["short"]),
        "RunLeftOutLong": latex.integer(data["left_out"]["long"]),
        "RunScorerEncoder": sentences.model_name(inputs.sections["train_scorer"].encoder),
    }


def _training(inputs: Inputs) -> dict[str, str]:
    timing, grpo, rollout = inputs.timing, inputs.sections["train_grpo"], inputs.sections["rollout"]
    # With several training seeds, the mean over them of each step.
    log = inputs.log.groupby("step").mean(numeric_only=True)
    window = max(1, min(WINDOW, len(log) // 4))
    first, last = log.head(window).mean(), log.tail(window).mean()
    seconds = float(timing["step_s"].mean())
    completions = latex.integer(grpo.prompts_per_step * grpo.num_generations)
    n_seeds = len(inputs.analysis["training_seeds"])
    constant = grpo.lr_scheduler == "constant" and grpo.warmup_ratio == 0
    rate = "a constant learning rate" if constant else "a peak learning rate"
    again = f", anew for each of {latex.integer(n_seeds)} training seeds" if n_seeds > 1 else ""
    return {
        "RunTrainingSentence": f"GRPO runs for {latex.integer(len(log))} steps of {completions} responses each, with the optimizer "
        rf"\stage{{{grpo.optimizer}}} at {rate} of {latex.setting(grpo.learning_rate)}{again}.",
        "RunSamplesPerPrompt": latex.integer(rollout.samples_per_prompt),
        "RunBaseSamples": " (the base model, which is described and not compared, once)"
        if rollout.base_samples(inputs.warm_start["enabled"]) < rollout.samples_per_prompt
        else "",
        "RunSamplingTemperature": f"{rollout.temperature:g}",
        "RunSamplingMass": f"{rollout.top_p:g}",
        "RunSteps": latex.integer(len(log)),
        "RunWindow": latex.integer(window),
        "RunTrainEmpathyFirst": latex.number(first["empathy_raw"], 2),
        "RunTrainEmpathyLast": latex.number(last["empathy_raw"], 2),
        "RunTrainSimilarityFirst": latex.number(first["semantic_similarity_raw"], 3),
        "RunTrainSimilarityLast": latex.number(last["semantic_similarity_raw"], 3),
        "RunTrainTokensFirst": latex.number(first["completion_tokens"], 0),
        "RunTrainTokensLast": latex.number(last["completion_tokens"], 0),
        "RunDevice": latex.escape(str(inputs.settings["device"])),
        "RunBackend": latex.escape(str(inputs.settings["backend"])),
        "RunStepSeconds": latex.quantity(seconds, r"\second"),
        "RunGenerationShare": latex.percent(float(timing["generation_s"].sum() / timing["step_s"].sum())),
        "RunTrainingMinutes": latex.quantity(timing["step_s"].sum() / 60, r"\minute"),
    }


def _study(analysis: Analysis, study: Analysis | None) -> dict[str, str]:
    return {
        "RunStudySentence": sentences.study(study, analysis["between_trainings"]),
        "RunStudySeeds": sentences.study_seeds(study, analysis),
        "RunStudyConfidence": latex.percent((study or analysis)["confidence"]),
        # A run of several trainings is its own study.
        "RunStudyPath": "reports/seeds/reward_analysis.json"
        if len(analysis["training_seeds"]) == 1
        else "reports/reward_analysis.json",
        "RunStudyVerdict": sentences.study_verdict(study, analysis["between_trainings"]),
    }


def _results(analysis: Analysis, study: Analysis | None) -> dict[str, str]:
    start = analysis["starting_policy"]
    empathy = analysis["metrics"]["empathy_raw"]
    formed = analysis["audit"]["metrics"]["well_formed"]
    return {
        "RunPrompts": latex.integer(analysis["prompts"]),
        "RunConversations": latex.integer(analysis["conversations"]),
        "RunStories": latex.integer(analysis["stories"]),
        "RunResponses": latex.integer(analysis["responses"]),
        "RunStartingPolicy": verdicts.POLICIES[start],
        "RunResult": sentences.result_of_run(study, analysis),
        "RunBaseModel": sentences.base_model(analysis),
        "RunOutside": latex.escape(verdicts.outside(study, analysis)),
        "RunConclusion": sentences.conclusion(study, analysis),
        "RunEmpathyDifference": latex.number(empathy["difference"], 2, signed=True),
        "RunEmpathyStart": latex.number(empathy["means"][start], 2),
        "RunEmpathyTuned": latex.number(empathy["means"]["tuned"], 2),
        "RunEmpathyDetectable": latex.number(empathy["smallest_detectable"], 2),
        "RunEmpathyDetectableAdjusted": latex.number(empathy["smallest_detectable_adjusted"], 2),
        "RunSimilaritySentence": sentences.similarity(study, analysis),
        "RunCombinedSentence": sentences.combined(study, analysis),
        "RunVerdictDash": "" if trainings.deciding(study, analysis) else " A dash: no change is established.",
        "RunVerdictsOf": latex.escape(verdicts.decided(study, analysis)),
        "RunWellFormedStart": latex.percent(formed["means"][start]),
        "RunWellFormedTuned": latex.percent(formed["means"]["tuned"]),
        "RunSeedSentence": sentences.seeds(analysis, study),
        "RunSeedResults": sentences.seed_results(empathy),
    }


def _intensity(analysis: Analysis, study: Analysis | None, responses: pd.DataFrame) -> dict[str, str]:
    start, by_policy = analysis["starting_policy"], analysis["by_intensity"]["values"]["empathy_raw"]
    agreement = analysis["intensity_agreement"]
    return {
        "RunTrendStart": _correlation(by_policy[start]["trend"]),
        "RunTrendTuned": _correlation(by_policy["tuned"]["trend"]),
        "RunTrendSentence": sentences.trend(study, analysis),
        "RunStatedConstant": sentences.stated_constant(responses),
        "RunFewestStories": latex.integer(bootstrap.FEWEST_STORIES),
        "RunStatedExact": latex.percent(agreement["tuned"]["exact"]),
        "RunStatedWithinOne": latex.percent(agreement["tuned"]["within_one"]),
        "RunStatedCount": latex.integer(agreement["tuned"]["n"]),
        "RunStatedStartExact": latex.percent(agreement[start]["exact"]),
        "RunStatedStartWithinOne": latex.percent(agreement[start]["within_one"]),
        "RunStatedStartCount": latex.integer(agreement[start]["n"]),
    }


def _correlation(trend: Trend) -> str:
    if trend["spearman"] is None:
        return "undefined (no spread)"
    return f"{latex.number(trend['spearman'], 2)} ({latex.p_statement(trend['p'])})"


def _pearson(correlation: float | None) -> str:
    return "undefined (no spread)" if correlation is None else latex.number(correlation, 2)


def _audit(analysis: Analysis, study: Analysis | None) -> dict[str, str]:
    audit, count = analysis["audit"], len(analysis["training_seeds"])
    held_out, gap = audit["metrics"]["audit_empathy_raw"], audit["gap"]
    correlation = audit["prompt_correlation"]
    agreement, start = audit["response_agreement"], analysis["starting_policy"]
    return {
        "RunAudit": sentences.audit(study, analysis),
        "RunAuditVerdict": verdicts.audit(study, analysis),
        "RunHackingSentence": sentences.hacking(verdicts.carrier(study, analysis)["audit"]),
        "RunSecondDifference": latex.number(held_out["difference"], 2, signed=True),
        "RunSecondInterval": sentences.intervals(held_out, 2, count),
        "RunGapDifference": latex.number(gap["difference"], 2, signed=True),
        "RunGapInterval": sentences.intervals(gap, 2, count),
        "RunSpreadSentence": sentences.spread(verdicts.carrier(study, analysis)["audit"]),
        "RunPromptCorrelation": _pearson(correlation),
        "RunResponseAgreementStart": _pearson(agreement[start]),
        "RunResponseAgreementTuned": _pearson(agreement["tuned"]),
        "RunStockPhraseCount": latex.integer(len(response_table.STOCK_PHRASES)),
        **_templates(audit["templates"], verdicts.carrier(study, analysis)["audit"]["templates"]),
    }


def _templates(found: Templates, deciding: Templates) -> dict[str, str]:
    return {
        "RunTemplateAnswers": latex.integer(found["answers"]),
        "RunSelfBleuAnswers": latex.integer(found["self_bleu_answers"]),
        "RunLevelUsedFrom": latex.percent(stated_levels.USED_FROM),
        "RunTemplateCriteria": latex.escape(verdicts.template_criteria(found["criteria"])),
        "RunTemplateSentence": latex.escape(verdicts.templates(deciding)),
    }


def _ratings(found: RunRatings) -> dict[str, str]:
    rated, form = found["ratings"] > 0, latex.LATEX
    tables = next((kind for kind in ("single", "pair") if rating_verdicts.leading(found, kind)), None)
    return {
        "RunSenseSentence": rating_verdicts.sense(found, form),
        "RunSenseVerdict": latex.escape(rating_verdicts.SENSE[rating_verdicts.sense_verdict(found)]),
        "RunRatingRules": sentences.RATING_RULES[rated],
        "RunRatersSentence": latex.escape(rating_verdicts.raters(found)),
        "RunRatedDifference": rating_verdicts.difference(found, form),
        "RunPreferenceSentence": rating_verdicts.preference(found, form),
        "RunAgreementSentence": rating_verdicts.agreement(found, form),
        "RunValiditySentence": rating_verdicts.validity(found, form),
        "RunRatingPower": rating_verdicts.power(found, form),
        "RunRatingTables": sentences.RATING_TABLES[tables],
        "RunSenseKept": sentences.SENSE_KEPT[rating_verdicts.sense_verdict(found) != "not rated"],
        "RunUnseenSentence": sentences.UNSEEN[rating_verdicts.sense_verdict(found)],
    }


def _temperature(analysis: Analysis) -> dict[str, str]:
    temperature = analysis["temperature"]
    grid = [row["temperature"] for row in temperature["modes"]["batch"]]
    return {
        "RunTemperatureSamples": latex.integer(temperature["samples"]),
        "RunTemperatureLow": f"{min(grid):g}",
        "RunTemperatureHigh": f"{max(grid):g}",
        "RunTemperatureEffects": "; ".join(
            sentences.temperature_effect(mode, rows, temperature["configured"])
            for mode, rows in temperature["modes"].items()
        )
        + ".",
        "RunBatchReference": latex.number(temperature["batch_reference_correlation"], 3),
    }
