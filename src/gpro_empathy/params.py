"""The settings of params.yaml as frozen, validated models: one class per section.

A mistyped key, a value out of range or a missing section stops the run with one line that names it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gpro_empathy import files

PARAMS = Path("params.yaml")

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
# Both stand in a command of dvc.yaml, the path in double quotes.
InputName = Annotated[str, Field(pattern=r"^\w+$")]
InputPath = Annotated[str, Field(pattern=r'^[^"$`\\]+$')]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A section of params.yaml, named like the class in snake case."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `yes` for a number, which pydantic would take for 1."""
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if cls.model_fields[info.field_name].annotation is not bool and any(isinstance(one, bool) for one in values):
            raise ValueError(f"true and false are no value of it, got {value!r}")
        return value

    @classmethod
    def section_name(cls) -> str:
        """Return the section's key in params.yaml, e.g. TrainGrpo -> train_grpo."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class Policy(Section):
    model: str = Field(min_length=1)
    revision: str | None
    backend: Literal["transformers", "unsloth"]
    load_in_4bit: bool
    dtype: Literal["auto", "float32", "bfloat16"]
    lora_rank: Count
    lora_alpha: Positive
    max_prompt_tokens: Count
    max_completion_tokens: Annotated[int, Field(ge=8)]


class Rewards(Section):
    weights: dict[str, Positive] = Field(min_length=1)
    similarity_model: str = Field(min_length=1)
    similarity_kind: Literal["bi_encoder", "cross_encoder"]
    similarity_revision: str | None
    calibration: Literal["batch", "reference"]
    calibration_temperature: Positive
    aggregation: Literal["sum_then_normalize", "normalize_then_sum"]
    free_words: Count
    limit_words: Count

    @field_validator("weights", mode="before")
    @classmethod
    def _nested_names_are_joined(cls, weights: object) -> object:
        """Return `{module: {function: weight}}` as `{"module:function": weight}`.

        `dvc exp run -S` can set the nested form.
        """
        if not isinstance(weights, dict):
            return weights
        joined = list(_joined(weights))
        names = [name for name, _ in joined]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{repeated[0]} has a weight twice, once in each form; keep one")
        return dict(joined)

    @model_validator(mode="after")
    def _length_limits_are_ordered(self) -> "Rewards":
        if self.free_words >= self.limit_words:
            raise ValueError(f"free_words must be below limit_words, got {self.free_words} and {self.limit_words}")
        return self


def _joined(weights: dict, modules: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    for name, value in weights.items():
        if isinstance(value, dict):
            yield from _joined(value, (*modules, str(name)))
        else:
            yield ":".join(part for part in (".".join(modules), str(name)) if part), value


class Prepare(Section):
    source: Literal["embedded", "hub", "wassa_csv"]
    embedded_folder: str
    hub_dataset: str
    hub_revision: str | None
    wassa_train_csv: Annotated[str, Field(min_length=1)] | None
    wassa_dev_csv: Annotated[str, Field(min_length=1)] | None
    escapes: Literal["auto", "backslash", "none"]
    split: Literal["by_story", "by_conversation", "by_turn"]
    validation_fraction: Fraction
    test_fraction: Fraction
    min_prompt_words: Count
    seed: Seed

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "Prepare":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                "validation_fraction + test_fraction must be below 1, got "
                f"{self.validation_fraction} + {self.test_fraction}"
            )
        return self


class TrainScorer(Section):
    encoder: str = Field(min_length=1)
    revision: str | None
    layers: Count | None
    audit_fraction: Fraction
    epochs: Count
    learning_rate: Positive
    head_learning_rate: Positive
    batch_size: Count
    max_tokens: Annotated[int, Field(ge=8)]
    context_turns: Annotated[int, Field(ge=0)]
    lora_rank: Annotated[int, Field(ge=0)]
    lora_alpha: Positive
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    attention_dropout: Annotated[float, Field(ge=0, lt=1)]
    huber_delta: Positive
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)]
    seed: Seed


class TrainReader(Section):
    epochs: Count
    batch_size: Count
    seed: Seed


class WarmStart(Section):
    enabled: bool
    kept: bool
    demonstrations: Count
    epochs: Count
    learning_rate: Positive
    batch_size: Count
    seed: Seed


class TrainGrpo(Section):
    steps: Count
    prompts_per_step: Count
    num_generations: Annotated[int, Field(ge=2)]
    trained_generations: Annotated[int, Field(ge=2)]
    advantage_on: Literal["response", "answer"]
    completions_per_forward: Count
    learning_rate: Positive
    lr_scheduler: Literal["constant", "linear", "cosine"]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    optimizer: Literal["adamw_torch", "paged_adamw_8bit"]
    adam_beta1: Annotated[float, Field(ge=0, lt=1)]
    adam_beta2: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    max_grad_norm: Positive
    kl_beta: NonNegative
    clip_epsilon: Positive
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"]
    scale_rewards: Literal["group", "batch", "none"]
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    save_steps: Count
    vllm_mode: Literal["none", "colocate", "server"]
    vllm_server_url: str = Field(pattern=r"^https?://[^/\s]+$")
    vllm_gpu_memory_utilization: Fraction
    launcher: str = Field(pattern=r"^\w+$")
    seeds: list[Seed] = Field(min_length=1)

    @model_validator(mode="after")
    def _seeds_differ(self) -> "TrainGrpo":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        return self

    @model_validator(mode="after")
    def _trained_responses_are_of_the_group(self) -> "TrainGrpo":
        if self.trained_generations > self.num_generations:
            raise ValueError(
                f"trained_generations must be at most num_generations = {self.num_generations}, "
                f"got {self.trained_generations}"
            )
        if self.trained_generations < self.num_generations and self.completions_per_forward % self.num_generations:
            raise ValueError(
                "completions_per_forward must be a multiple of num_generations where trained_generations is smaller, "
                f"got {self.completions_per_forward} and {self.num_generations}; the nearest that is: "
                f"{max(1, round(self.completions_per_forward / self.num_generations)) * self.num_generations}"
            )
        return self

    @model_validator(mode="after")
    def _forward_batches_fill_the_step(self) -> "TrainGrpo":
        completions = self.prompts_per_step * self.num_generations
        if completions % self.completions_per_forward:
            divisors = [d for d in range(1, completions + 1) if completions % d == 0]
            nearest = min(divisors, key=lambda d: abs(d - self.completions_per_forward))
            raise ValueError(
                f"completions_per_forward must divide prompts_per_step x num_generations = {completions}, "
                f"got {self.completions_per_forward}; the nearest that does is {nearest}"
            )
        return self

    def completions_in_effect(self, backend: str) -> int:
        """Return how many sampled completions are behind one forward pass.

        Unsloth takes whole groups, and turns a batch of 1 with 3 generations, the published one,
        into a batch of 3. So for it the setting is rounded up, to whole groups that divide the
        step.
        """
        if backend == "transformers":
            return self.completions_per_forward
        prompts = -(-self.completions_per_forward // self.num_generations)
        while self.prompts_per_step % prompts:
            prompts += 1
        return prompts * self.num_generations

    def can_take_fewer(self, backend: str) -> bool:
        """Return whether fewer sampled completions can be behind one forward pass.

        The fewest are a whole group, or one completion.
        """
        whole = backend == "unsloth" or self.trained_generations < self.num_generations
        return self.completions_in_effect(backend) > (self.num_generations if whole else 1)

    def accumulation_steps(self, processes: int) -> int:
        """Return how many forward passes each process makes for a step.

        The step's prompts are shared out among the processes evenly.

        Raises:
            UserError: If a step cannot be shared out so, naming the nearest value that can.
        """
        if self.prompts_per_step % processes:
            nearest = max(1, round(self.prompts_per_step / processes)) * processes
            raise files.UserError(
                f"train_grpo.prompts_per_step is {self.prompts_per_step}, which {processes} processes cannot share evenly; "
                f"the nearest that they can is {nearest}"
            )
        share = self.prompts_per_step * self.num_generations // processes
        if share % self.completions_per_forward:
            unit = self.num_generations if self.trained_generations < self.num_generations else 1
            fitting = [size for size in range(unit, share + 1, unit) if share % size == 0]
            nearest = min(fitting, key=lambda size: abs(size - self.completions_per_forward))
            raise files.UserError(
                f"train_grpo.completions_per_forward is {self.completions_per_forward}, which does not divide the {share} "
                f"completions of each of {processes} processes; the nearest that does is {nearest}"
            )
        return share // self.completions_per_forward


class Rollout(Section):
    engine: Literal["transformers", "vllm"]
    vllm_gpu_memory_utilization: Fraction
    vllm_gpus: Count
    prompts: Annotated[int, Field(ge=2)]
    samples_per_prompt: Count
    max_completion_tokens: Annotated[int, Field(ge=8)]
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    batch_size: Count
    seed: Seed

    def base_samples(self, warm_started: bool) -> int:
        """Return how many responses the base model gives to a prompt.

        One where it was warm-started: it is then described and not compared. Otherwise it is the
        starting policy.
        """
        return 1 if warm_started else self.samples_per_prompt


class AnalyseRewards(Section):
    metrics: list[str] = Field(min_length=1)
    confidence: Fraction
    n_resamples: Annotated[int, Field(ge=100)]
    similarity_margin: Positive
    seed: Seed


class DrawFigures(Section):
    width: Annotated[float, Field(ge=2, le=12)]
    font_size: Annotated[float, Field(ge=5, le=16)]
    palette: str


class Params(BaseModel):
    """All of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[InputName, InputPath] = Field(default_factory=dict)
    policy: Policy
    rewards: Rewards
    prepare: Prepare
    train_scorer: TrainScorer
    train_reader: TrainReader
    warm_start: WarmStart
    train_grpo: TrainGrpo
    rollout: Rollout
    analyse_rewards: AnalyseRewards
    draw_figures: DrawFigures


SectionT = TypeVar("SectionT", bound=Section)


class KeysOnce(yaml.SafeLoader):
    """PyYAML's safe loader, but that it refuses a key that stands twice, as DVC's loader does.

    PyYAML takes the last one without a word.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated[0]} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(section: type[SectionT], path: Path = PARAMS) -> SectionT:
    """Read one section of params.yaml, after checking the whole file.

    Raises:
        UserError: If the file is missing or not YAML, or a key is unknown, missing or out of range.
    """
    return getattr(load_all(path), section.section_name())


def load_all(path: Path = PARAMS) -> Params:
    """Read and check all of params.yaml.

    Raises:
        UserError: As `load`.
    """
    try:
        values = yaml.load(files.read_text(path, "`git checkout params.yaml` brings it back"), KeysOnce)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise files.UserError(f"{path}: not YAML: {problem}") from None
    return check(values, path)


def check(values: object, path: Path) -> Params:
    """Check the content of a params.yaml that was read from `path`.

    Raises:
        UserError: If a key is unknown, missing or out of range.
    """
    if not isinstance(values, dict):
        raise files.UserError(f"{path}: expected one section per stage, got {type(values).__name__}")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise files.UserError(f"{path}: " + "; ".join(_problem(item) for item in error.errors())) from None


def paths_named(config: Params) -> dict[str, str]:
    """Return the files and folders of the user's that settings name, by setting.

    The folder of the embedded corpus is not among them: dvc.yaml takes it from the settings itself.
    """
    prepare = config.prepare
    named = {}
    if prepare.source == "wassa_csv":
        csv = {"prepare.wassa_train_csv": prepare.wassa_train_csv, "prepare.wassa_dev_csv": prepare.wassa_dev_csv}
        named |= {setting: path for setting, path in csv.items() if path is not None}
    models = {
        "policy.model": config.policy.model,
        "train_scorer.encoder": config.train_scorer.encoder,
        "rewards.similarity_model": config.rewards.similarity_model,
    }
    # Any other is the id of a model on the hub, or the name of one of a package.
    return named | {
        setting: model for setting, model in models.items() if model.startswith(("/", ".")) or Path(model).exists()
    }


def check_inputs(config: Params) -> None:
    """Check that DVC watches every path that settings name, and that it is there.

    Raises:
        UserError: Naming the setting, and what to add to `inputs`.
    """
    watched = [Path(os.path.abspath(path)) for path in config.inputs.values()]
    for setting, path in paths_named(config).items():
        absolute = Path(os.path.abspath(path))
        if not any(absolute.is_relative_to(entry) for entry in watched):
            name = setting.replace(".", "_")
            raise files.UserError(
                f"{setting}: DVC does not watch {path}, so that a change of it would go unnoticed; add it to `inputs` in "
                f"params.yaml, as {name}: {path}"
            )
        if not absolute.exists():
            raise files.UserError(f"{setting}: there is no {path}; put it there, or correct the path")


def _problem(item: dict) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key} is no parameter; check its spelling"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}"
