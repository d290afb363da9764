"""LoRA adapters on disk: as safetensors, without the path of the machine that wrote them."""

from pathlib import Path

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import safe_open

from gpro_empathy import files

NAME = "default"
# Beside a converted policy, and beside an adapter: which base it is, {"name", "model", "revision"}.
SOURCE = "source.json"
_PREFIX = "base_model.model."


def save(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write the adapter's matrices and configuration to `folder`; equal adapters give equal bytes.

    Args:
        weights: The whole model's weights by name, where `model` itself holds but a shard of them.
    """
    # The one adapter: not TRL's copy for the KL divergence.
    model.save_pretrained(folder, selected_adapters=[NAME], state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)
    config = folder / "adapter_config.json"
    settings = files.read_json(config)
    # The folder from which the base was loaded is this machine's own; target modules are a set, in chance order.
    settings |= {"base_model_name_or_path": None, "target_modules": sorted(settings["target_modules"])}
    files.write_json(config, settings)


def restore(model: PeftModel, folder: Path) -> None:
    """Give the model's adapter the matrices that a checkpoint holds."""
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device=str(model.device)), adapter_name=NAME)


def check_base(adapter: Path, policy: Path) -> None:
    """Check that an adapter belongs to the base in the folder of a converted policy: by name, and by shapes where it has any.

    Raises:
        UserError: If it does not, naming both.
    """
    base = files.read_json(policy / SOURCE)
    way_out = "run `dvc repro`, which trains it anew, or set policy.model back"
    if (adapter / SOURCE).is_file():
        own = files.read_json(adapter / SOURCE)
        if own != base:
            raise files.UserError(f"{adapter}: an adapter of {_name(own)}, and the policy is {_name(base)}; {way_out}")
    weights = _shapes(policy)
    if not weights:  # those of a hub model are not in the folder
        return
    projections = _projections(adapter)
    adapted = {name.split(".")[-2] for name in projections}
    bare = sorted(name for name in weights if name.split(".")[-2] in adapted and name not in projections)
    if bare:
        raise files.UserError(
            f"{adapter}: an adapter of another base: it has no matrices for {bare[0]} of {_name(base)}; {way_out}"
        )
    for name, (outputs, inputs) in projections.items():
        if weights.get(name) != (outputs, inputs):
            raise files.UserError(
                f"{adapter}: an adapter of another base: its {name} is {outputs} x {inputs}, that of {_name(base)} "
                f"{' x '.join(map(str, weights.get(name, ()))) or 'missing'}; {way_out}"
            )


def _name(source: dict) -> str:
    return source["name"] + (f" at revision {source['revision']}" if source["revision"] else "")


def _projections(adapter: Path) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of the weights that an adapter changes, by their names in the base."""
    shapes = _shapes(adapter)
    pairs = {}
    for key, (_, inputs) in shapes.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight") + ".weight"
            pairs[name] = (shapes[key.replace(".lora_A.", ".lora_B.")][0], inputs)
    return pairs


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  no mapping
    return found
