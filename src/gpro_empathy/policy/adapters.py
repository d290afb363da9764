"""LoRA adapters on disk: as safetensors, without the path of the machine that wrote them.

Which base an adapter belongs to is noted beside it, and checked before anything is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import safe_open

from gpro_empathy import files, params
from gpro_empathy.files import UserError

NAME = "default"
# Beside a converted policy, and beside an adapter: which base it is, {"name", "model", "revision"}.
SOURCE = "source.json"
CONFIGURATION, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Where the stages leave the converted policy, the tuned adapters, and the settings that these were
# trained with.
POLICY = Path("models/policy")
TUNED = Path("models/tuned")
SETTINGS = Path("reports/training/settings.json")
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Tuned:
    """A tuned policy: its training seed, its base, and the folder and LoRA rank of its adapter.

    `hub_model` and `revision` are None where the weights of the base lie in models/policy.
    """

    seed: int
    adapter: Path
    rank: int
    base: str
    hub_model: str | None
    revision: str | None


def save(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write the adapter's matrices and configuration to `folder`; equal adapters give equal bytes.

    Args:
        weights: The whole model's weights by name, where `model` itself holds but a shard of them.
    """
    # The one adapter: not TRL's copy for the KL divergence.
    model.save_pretrained(folder, selected_adapters=[NAME], state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)
    config = folder / CONFIGURATION
    settings = files.read_json(config)
    # The folder from which the base was loaded is this machine's own; target modules are a set, in
    # chance order.
    settings |= {"base_model_name_or_path": None, "target_modules": sorted(settings["target_modules"])}
    files.write_json(config, settings)


def save_with_card(
    model: PeftModel,
    folder: Path,
    card: str,
    weights: dict[str, torch.Tensor] | None = None,
    *,
    base: Path | None = None,
) -> None:
    """Save an adapter as `save` does, with a model card, atomically.

    Args:
        base: Folder of the converted policy that the adapter belongs to; which it is, is noted
            beside the matrices.
    """
    with files.atomic_path(folder) as temporary:
        save(model, temporary, weights)
        files.write_text(temporary / "README.md", card)
        if base is not None:
            files.write_json(temporary / SOURCE, files.read_json(base / SOURCE))


def adapter_in(folder: Path) -> Path | None:
    """Return `folder` if it holds an adapter, or None if the stage that writes it was off."""
    return folder if (folder / CONFIGURATION).is_file() else None


def restore(model: PeftModel, folder: Path) -> None:
    """Give the model's adapter the matrices that a checkpoint holds."""
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device=str(model.device)), adapter_name=NAME)


def check_base(adapter: Path, policy: Path) -> None:
    """Check that an adapter belongs to a converted policy.

    By name, and by shapes where the folder has weights.

    Raises:
        UserError: If it does not, naming both.
    """
    base = files.read_json(policy / SOURCE)
    hint = "run `dvc repro`, which trains it anew, or set policy.model back"
    if (adapter / SOURCE).is_file():
        noted = files.read_json(adapter / SOURCE)
        if noted != base:
            raise UserError(f"{adapter}: an adapter of {_name(noted)}, and the policy is {_name(base)}; {hint}")
    weights = _shapes(policy)
    if weights:  # those of a hub model are not in the folder
        mismatch = _mismatch(_projections(adapter), weights, _name(base))
        if mismatch:
            raise UserError(f"{adapter}: an adapter of another base: {mismatch}; {hint}")


def check_adapters(folders: Sequence[Path], base: Path) -> None:
    """Check that the adapters among `folders` belong to the converted policy `base`.

    Raises:
        UserError: If one does not.
    """
    for folder in folders:
        if adapter_in(folder) is not None:
            check_base(folder, base)


def find_tuned(seed: int | None, config: params.Policy) -> Tuned:
    """Return the policy that was tuned from a training seed, the first trained one for None.

    Raises:
        UserError: If there is no such policy, or its adapter, models/policy and params.yaml are not
            of one run.
    """
    source, settings = files.read_json(POLICY / SOURCE), files.read_json(SETTINGS)
    if config.model != source["name"]:
        raise UserError(
            f"params.yaml: policy.model is {config.model}, but {POLICY} holds {source['name']}; run `make reproduce`, or "
            "undo the change with `git checkout params.yaml`"
        )
    seeds = settings["seeds"]
    if seed is not None and seed not in seeds:
        raise UserError(f"seed {seed}: no policy was trained from it; there are {', '.join(map(str, seeds))}")
    seed = seeds[0] if seed is None else seed
    adapter = TUNED / f"seed-{seed}"
    for name in (CONFIGURATION, WEIGHTS):
        if not (adapter / name).is_file():
            raise UserError(f"{adapter / name}: no such file; run `make reproduce`, which trains the policy")
    check_base(adapter, POLICY)
    rank = files.read_json(adapter / CONFIGURATION)["r"]
    return Tuned(seed, adapter, rank, source["name"], source["model"], source["revision"])


def _mismatch(projections: dict[str, tuple[int, int]], weights: dict[str, tuple[int, ...]], base: str) -> str | None:
    """Say where an adapter does not fit the weights of `base`.

    It lacks a projection, or one has another shape.
    """
    adapted = {name.split(".")[-2] for name in projections}
    bare = sorted(name for name in weights if name.split(".")[-2] in adapted and name not in projections)
    if bare:
        return f"it has no matrices for {bare[0]} of {base}"
    for name, (outputs, inputs) in projections.items():
        if weights.get(name) != (outputs, inputs):
            theirs = " x ".join(map(str, weights.get(name, ()))) or "missing"
            return f"its {name} is {outputs} x {inputs}, that of {base} {theirs}"
    return None


def _name(source: dict) -> str:
    return source["name"] + (f" at revision {source['revision']}" if source["revision"] else "")


def _projections(adapter: Path) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of the weights an adapter changes, by their names in the base."""
    shapes = _shapes(adapter)
    pairs = {}
    for key, (_, inputs) in shapes.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight") + ".weight"
            pairs[name] = (shapes[key.replace(".lora_A.", ".lora_B.")][0], inputs)
    return pairs


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  no mapping
    return shapes
