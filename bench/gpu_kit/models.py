"""Build a rehearsal's models in FOLDER, those of language rounded to NF4: `python bench/gpu_kit/models.py FOLDER GIB`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1].absolute()))
import gpu_decode
from gpro_empathy import rehearse

folder, card = Path(sys.argv[1]).absolute(), float(sys.argv[2])


def build() -> None:
    """Lay the rehearsal out at the lengths of the profile, with vLLM's share that of a card of GIB, and build."""
    import torch

    from gpro_empathy import rehearsal_models

    folder.mkdir(parents=True, exist_ok=True)
    reduced = not torch.cuda.is_available()
    part = 1.0 if reduced else card * 2**30 / torch.cuda.get_device_properties(0).total_memory
    plan = rehearse.lay_out("llama-3.1-8b", folder, reduced, part)
    gpu_decode.round_as_saved()
    rehearsal_models.build(plan.config, plan.models, folder)
    (folder / "built").write_text("yes\n")


os.chdir(Path(__file__).parents[2])
build()
