"""LoRA adapters on disk: as safetensors, without the path of the machine that wrote them."""

from pathlib import Path

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

from gpro_empathy import files

NAME = "default"


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
