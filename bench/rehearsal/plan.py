"""A profile's settings for a rehearsal: a few steps, at full size or, without a GPU, reduced."""

import multiprocessing
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.tools import gpu_memory, profiles
from rehearsal import tasks

STEPS = 5
ROLLOUT_PROMPTS = 8
SAYS_REDUCED = "NOT the profile's size: no GPU is found, so this rehearsal runs at a reduced size on the processor"
# On a processor: a width of 256, two layers, and what goes with it, so that the whole takes two
# minutes on two slow cores.
REDUCED_POLICY = {
    "hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 4096,
}  # fmt: skip
REDUCED_ENCODER = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 4096
}  # fmt: skip
REDUCED_SETTINGS = {
    "policy": {"backend": "transformers", "dtype": "float32", "max_completion_tokens": 24},
    "train_grpo": {
        "steps": 3,
        "save_steps": 3,
        "optimizer": "adamw_torch",
        "prompts_per_step": 1,
        "launcher": "none",
        "vllm_mode": "none",
    },
    "rollout": {"engine": "transformers", "prompts": 2, "samples_per_prompt": 2, "max_completion_tokens": 24},
}


def architectures(config: params.Params) -> dict[str, dict]:
    """Return the configurations of the profile's three models.

    Raises:
        UserError: If the repository keeps none of one of them.
    """
    names = {
        "policy": ("policy.model", config.policy.model),
        "similarity": ("rewards.similarity_model", config.rewards.similarity_model),
        "scorer": ("train_scorer.encoder", config.train_scorer.encoder),
    }
    configurations = {}
    for role, (setting, name) in names.items():
        configurations[role] = gpu_memory.architecture(name)
        if configurations[role] is None:
            known = ", ".join(sorted(path.stem for path in gpu_memory.ARCHITECTURES.glob("*.json")))
            raise UserError(
                f"{setting} {name!r}: {gpu_memory.ARCHITECTURES} keeps no configuration of it to rehearse with; put its "
                f"config.json there. There are {known}"
            )
    return configurations


def settings(values: dict, folder: Path, reduced: bool, part: float = 1.0) -> dict:
    """Return the content of params.yaml for the rehearsal: the profile's, for a few steps.

    Args:
        part: Of the GPU's memory, which the rehearsal is to use as if it were the whole.
    """
    rewards = {"similarity_model": str(folder / "similarity"), "similarity_revision": None}
    steps = {"steps": STEPS, "save_steps": STEPS, "seeds": values["train_grpo"]["seeds"][:1]}
    rollout = {"prompts": ROLLOUT_PROMPTS}
    for section, changed in (("train_grpo", steps), ("rollout", rollout)):
        changed["vllm_gpu_memory_utilization"] = round(part * values[section]["vllm_gpu_memory_utilization"], 4)
    changes: dict[str, dict] = {"rewards": rewards, "train_grpo": steps, "rollout": rollout}
    result = {section: dict(content) | changes.get(section, {}) for section, content in values.items()}
    if reduced:
        for section, content in REDUCED_SETTINGS.items():
            result[section] |= content
        group = result["train_grpo"]["num_generations"]
        result["train_grpo"]["completions_per_forward"] = group
    return result


@dataclass(frozen=True)
class Plan:
    """A rehearsal in a folder: its and the whole profile's parameters, and model configurations."""

    profile: str
    config: params.Params
    whole: params.Params
    models: dict[str, dict]
    folder: Path
    reduced: bool

    def with_settings(self, section: str, **changes) -> "Plan":
        """Return the same rehearsal with other settings, which its params.yaml then has too."""
        values = self.config.model_dump(mode="json")
        values[section] |= changes
        files.write_text(self.folder / "params.yaml", yaml.safe_dump(values, sort_keys=False))
        return replace(self, config=params.check(values, Path("params.yaml")))

    def run(self, *names: str) -> dict[str, dict]:
        """Run tasks one after the other, and return what each took.

        Each runs in a process of its own, as a stage does.

        Raises:
            UserError: If one fails; it has said why.
        """
        context = multiprocessing.get_context("forkserver")
        if self.reduced:  # with a GPU not, as Unsloth demands to be imported before them
            context.set_forkserver_preload(["gpro_empathy.training.grpo_run", "sentence_transformers"])
        return {name: self._in_child(context, name) for name in names}

    def _in_child(self, context, name: str) -> dict:
        print(f"rehearsal: {name}", flush=True)
        arguments = (self.models,) if name == "build" else ()
        process = context.Process(target=tasks.task, args=(name, arguments, self.folder))
        process.start()
        process.join()
        if process.exitcode == -signal.SIGKILL:  # by the kernel, which leaves no message
            raise UserError(
                f"rehearsal: {name} was killed (exit status {process.exitcode}), most likely because the machine's memory "
                "ran out; close other programs and try again"
            )
        if process.exitcode:
            raise UserError(f"rehearsal: {name} failed (exit status {process.exitcode}); its message stands above")
        return files.read_json(self.folder / "tasks" / f"{name}.json")


def lay_out(profile: str, folder: Path, reduced: bool, part: float = 1.0) -> Plan:
    """Write the rehearsal's params.yaml to `folder`; arguments as `settings`."""
    values = profiles.values(profile)
    whole = params.check(values, profiles.PROFILES / f"{profile}.yaml")
    models = architectures(whole)
    if reduced:
        smaller = {"policy": REDUCED_POLICY, "similarity": REDUCED_ENCODER, "scorer": REDUCED_ENCODER}
        models = {role: model | smaller[role] for role, model in models.items()}
    changed = settings(values, folder, reduced, part)
    config = params.check(changed, Path("params.yaml"))
    files.write_text(folder / "params.yaml", yaml.safe_dump(changed, sort_keys=False))
    return Plan(profile, config, whole, models, folder, reduced)
