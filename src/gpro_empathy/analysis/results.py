"""The form of the results: what the analysis returns and reports/*.json hold, for the report.

A value is None where it is not defined: without spread, with too few stories, or of nothing.
"""

from typing import TypedDict


class Estimate(TypedDict):
    """A value with the ends of its interval."""

    estimate: float | None
    low: float | None
    high: float | None


# Of reports/reward_analysis.json


class Comparison(TypedDict):
    """One metric, the tuned policy less the starting one: `paired_comparison.compare`.

    Means are by policy, `by_seed` by training seed, as text. The interval from `low` to `high` is
    for the weights at hand, or, where there are several trainings, for the mean over trainings;
    that from `new_low` to `new_high` is for a new training. The latter is None where the spread
    between trainings, `between_training_sd`, is not known.
    """

    prompts: int
    means: dict[str, float]
    interquartile_means: dict[str, float]
    difference: float
    low: float
    high: float
    new_low: float | None
    new_high: float | None
    between_training_sd: float | None
    standard_error: float
    by_seed: dict[str, float]
    p_sign_flip: float
    p_wilcoxon: float
    p_holm: float
    sd_of_differences: float
    d_z: float | None
    cliffs_delta: float
    probability_of_improvement: float
    interquartile_mean_difference: float
    smallest_detectable: float
    smallest_detectable_adjusted: float
    verdict: str


class Noninferiority(TypedDict):
    """Whether a loss of the margin is excluded: `paired_comparison.similarity_noninferiority`."""

    margin: float
    p: float
    verdict: str


class StatedAgreement(TypedDict):
    """How a policy's stated intensities agree with the labels: `by_intensity.stated_agreement`.

    `n` responses state one, `missing` do not.
    """

    n: int
    missing: int
    exact: float | None
    within_one: float | None


class Level(TypedDict):
    """How many prompts have an intensity level."""

    level: int
    prompts: int
    conversations: int
    stories: int


class LevelMean(TypedDict):
    """The mean of a metric at one level."""

    mean: float
    low: float | None
    high: float | None


class Trend(TypedDict):
    """Correlation with the level."""

    spearman: float | None
    p: float


class ByLevel(TypedDict):
    """A metric over the levels, in their order."""

    levels: list[LevelMean]
    trend: Trend


class ByIntensity(TypedDict):
    """The metrics by intensity: `by_intensity.by_intensity`.

    `values` are by metric, and then by policy or `change`.
    """

    levels: list[Level]
    values: dict[str, dict[str, ByLevel]]
    unlabelled_prompts: int


class Gap(TypedDict):
    """The gain on the reward's scorer less that on the held-out one, as in `Comparison`."""

    difference: float
    low: float
    high: float
    new_low: float | None
    new_high: float | None
    between_training_sd: float | None
    by_seed: dict[str, float]
    p_sign_flip: float


class StatedSpread(TypedDict):
    """How stated intensities spread over the levels: `stated_levels.spread`.

    Of several training seeds, means, so that `levels` is no whole number there; `commonest` is None
    where it is not the same in all.
    """

    levels: float | None
    bits: float | None
    commonest: float | None
    largest_share: float | None
    spearman: float | None


class ApproachSpread(TypedDict):
    """How the approaches that responses state spread: `templates.approaches`."""

    bits: float | None
    largest_share: float | None


class TemplateMeasures(TypedDict):
    """How varied a policy's answers are over all prompts: `templates.measure`."""

    distinct_1: float | None
    distinct_2: float | None
    opening_bits: float
    self_bleu: float | None
    modal_advice: float
    stated: StatedSpread
    approaches: ApproachSpread


class Explained(TypedDict):
    """The part of a change that covariates explain: `explained_gain.explained`."""

    difference: float
    adjusted: float | None
    share: float | None


class ExplainedGain(Explained):
    """The same over all training seeds, with the share of each, as text."""

    share_by_seed: dict[str, float | None]


class TemplateCriteria(TypedDict):
    """What counts as a sign of a template: `templates.CRITERIA`."""

    largest_level_share: float
    opening_bits_fall: float
    modal_advice_rise: float
    self_bleu: float


class Templates(TypedDict):
    """What `templates.audit` returns; signs are names of criteria."""

    answers: int
    most_bits: float
    self_bleu_answers: int
    policies: dict[str, TemplateMeasures]
    by_seed: dict[str, TemplateMeasures]
    explained: dict[str, ExplainedGain]
    criteria: TemplateCriteria
    signs: list[str]
    starting_signs: list[str]
    signs_by_seed: dict[str, list[str]]
    verdict: str


class RewardAudit(TypedDict):
    """What `reward_hacking.audit` returns.

    Both scorers' agreement over responses is by policy, their standard deviation by metric; phrases
    have their rate by policy, prompts their change by metric.
    """

    metrics: dict[str, Comparison]
    gap: Gap
    prompt_correlation: float | None
    response_agreement: dict[str, float | None]
    start_sd: dict[str, float]
    stock_phrases: dict[str, dict[str, float]]
    best_prompts: list[dict[str, float | str]]
    worst_prompts: list[dict[str, float | str]]
    drifts: list[str]
    asked_changes: list[str]
    verdict: str


class Audit(RewardAudit):
    """The same with the audit for templates."""

    templates: Templates


class AtTemperature(TypedDict):
    """What one temperature changes against the configured one."""

    temperature: float
    correlation: float | None
    reversed_pairs: float | None
    group_sd: float


class TemperatureEffect(TypedDict):
    """What `temperature_effect.effect` returns; modes are its MODES."""

    configured: float
    calibration: str
    modes: dict[str, list[AtTemperature]]
    batch_reference_correlation: float | None
    samples: int
    groups: int


class Conditions(TypedDict):
    """What trainings must share to be of one kind: `trainings.conditions`.

    `settings` are those of params.yaml that a training and its rollouts depend on, by section and
    key, as JSON.
    """

    settings: dict[str, str]
    prompts_sha256: str


class SpreadSource(TypedDict):
    """Where the spread between trainings is from: `trainings.source`.

    `study` says whether a study of several trainings, another run, is at hand; `trainings` is the
    number of its trainings, or of this run's own, 0 where there is but one; `other_conditions`
    names what was otherwise in that study. If anything was, its spread is not used.
    """

    study: bool
    trainings: int
    other_conditions: list[str]


class RolloutAnalysis(TypedDict):
    """What is known from the rollouts."""

    prompts: int
    conversations: int
    stories: int
    responses: int
    training_seeds: list[int]
    policies: list[str]
    starting_policy: str
    confidence: float
    n_resamples: int
    metric_order: list[str]
    metrics: dict[str, Comparison]
    similarity_noninferiority: Noninferiority
    intensity_agreement: dict[str, StatedAgreement]
    by_intensity: ByIntensity
    audit: Audit


class Analysis(RolloutAnalysis):
    """All of reports/reward_analysis.json, and of the file in reports/seeds, of several trainings.

    `between_trainings` says where the spread between trainings is from.
    """

    conditions: Conditions
    between_trainings: SpreadSource
    temperature: TemperatureEffect


class StudyRow(TypedDict):
    """A metric over the trainings of a study: `trainings.rows`.

    `mean` is the change, tuned less starting policy, over all trainings; its intervals are for the
    mean over trainings and for a new training; `lowest` and `highest` are those of one training;
    p, of the trainings at hand, and verdict are as in `Comparison`.
    """

    metric: str
    mean: float
    low: float
    high: float
    new_low: float
    new_high: float
    lowest: float
    highest: float
    p_holm: float
    verdict: str


# Of reports/scorer.json


class ReliabilityBin(TypedDict):
    """Turns of like predictions: their mean prediction and label."""

    turns: int
    predicted: float
    labelled: Estimate


class GroupError(TypedDict):
    """Bias (prediction less label) and mean absolute error of a group of turns."""

    group: str
    turns: int
    bias: Estimate
    mae: float


class Reliability(TypedDict):
    """How a scorer's predictions lie to the labels: `scorer_reliability.calibration`."""

    slope: Estimate
    reliability: list[ReliabilityBin]
    by_label: list[GroupError]
    by_words: list[GroupError]
    by_polarity: list[GroupError]


class Agreement(TypedDict):
    """How far the two scorers agree: `scorer_accuracy.agreement`."""

    pearson_empathy: float | None
    mean_absolute_difference: float
    mean_difference: float
    limit_low: float
    limit_high: float


class EndingChange(TypedDict):
    """Change in empathy by an appended phrase, by its control, and their difference."""

    change: Estimate
    control_change: Estimate
    difference: Estimate


class PhraseChange(EndingChange):
    """The changes by one stock phrase."""

    phrase: str
    control: str


class PhraseReaction(TypedDict):
    """How a scorer reacts to stock phrases: `stock_phrases.reaction`."""

    phrases: list[PhraseChange]
    mean: EndingChange


class LeakCorrelations(TypedDict):
    """Correlations with a label by a grouped split and by a split by turn."""

    grouped: float | None
    by_turn: float | None
    difference: Estimate


class LeakComparison(TypedDict):
    """What a split by turn adds: `split_leak.compare`."""

    labels: dict[str, LeakCorrelations]
    mean: LeakCorrelations


class Leak(LeakComparison):
    """The same with the sizes of the comparison: `split_leak.report`."""

    train_turns: int
    held_out_turns: int
    held_out_conversations: int
    held_out_stories: int


# Of reports/ratings.json


class RatingFile(TypedDict):
    """A file of data/ratings: its ratings, and how many of them are of this run's responses."""

    file: str
    ratings: int
    fitting: int


class Rater(TypedDict):
    """Who rated this run's responses: person or model, single answers and pairs."""

    rater: str
    kind: str
    singles: int
    pairs: int


class Alpha(TypedDict):
    """Krippendorff's alpha over `items` that were rated twice or more; or why there is none."""

    items: int
    alpha: float | None
    reason: str | None


class AgreementByGroup(TypedDict):
    """Agreement among persons, among models, and of models with persons."""

    persons: Alpha
    models: Alpha
    models_with_persons: Alpha


class RaterAgreement(TypedDict):
    """Agreement on sense and empathy of single answers, and on the choices between two."""

    sense: AgreementByGroup
    empathy: AgreementByGroup
    choice: AgreementByGroup


class PolicyRatings(TypedDict):
    """What raters found in single answers of a policy: `ratings_of_run`.

    `shares` are those of sensible, off, nonsense, sensible_by_every_rater and empathetic answers.
    """

    answers: int
    stories: int
    ratings: int
    raters: int
    shares: dict[str, Estimate]
    empathy: Estimate


class RatedDifference(TypedDict):
    """Tuned less starting policy, over `prompts` of which one rater rated both answers.

    The smallest detectable difference is that in the share of sensible answers.
    """

    prompts: int
    stories: int
    raters: int
    sensible: Estimate
    empathetic: Estimate
    empathy: Estimate
    smallest_detectable: float | None


class RatedPairs(TypedDict):
    """Choices between the starting and the tuned policy's answers: `ratings_of_run`.

    Of `prompts` that both policies answered, `alike` have one first answer by both, and so no pair.
    `wins` are choices of the tuned one. `left` is the share of the left answer among the `decided`
    choices. `pairs_needed` are for the planned win rate, at the ties and the design effect found.
    """

    prompts: int
    alike: int
    pairs: int
    stories: int
    raters: int
    choices: int
    decided: int
    wins: int
    losses: int
    both: int
    neither: int
    win_rate: Estimate
    left: Estimate
    smallest_win_rate: float | None
    pairs_needed: int | None
    verdict: str


class ValidityEstimate(Estimate):
    """An estimate and, where it or its interval is missing, why."""

    reason: str | None


class ScoreValidity(TypedDict):
    """How a score of the responses goes with what raters found: `score_validity`.

    `ordered` is the share of the decided pairs that the score orders as the raters do.
    """

    answers: int
    sense: ValidityEstimate
    empathy: ValidityEstimate
    sensible: ValidityEstimate
    empathetic: ValidityEstimate
    ordered: ValidityEstimate


class KindRatings(TypedDict):
    """All that raters of one kind found, persons or models.

    `difference` and `pairs` are None where there are none; `validity` is by column.
    """

    policies: dict[str, PolicyRatings]
    difference: RatedDifference | None
    pairs: RatedPairs | None
    validity: dict[str, ScoreValidity]


class Leading(TypedDict):
    """The kind of raters that the report leads with, on single answers and on pairs."""

    single: str | None
    pair: str | None


class RunRatings(TypedDict):
    """All of reports/ratings.json: `ratings_of_run.summary`.

    `by_kind` has the kinds of raters that rated this run. `power` is that of the smallest effects,
    `planned_win_rate` the one whose number of pairs is given.
    """

    confidence: float
    power: float
    planned_win_rate: float
    starting_policy: str
    files: list[RatingFile]
    ratings: int
    of_another_run: int
    raters: list[Rater]
    leading: Leading
    by_kind: dict[str, KindRatings]
    agreement: RaterAgreement
