"""The tuned policy on disk: which training seeds there are, and whether adapter, base and settings belong together."""

from dataclasses import dataclass
from pathlib import Path

from gpro_empathy import files, params
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters

POLICY = Path("models/policy")
ADAPTERS = Path("models/tuned")
SETTINGS = Path("reports/training/settings.json")
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Tuned:
    """A tuned policy: its training seed, the folder of its adapter and that adapter's LoRA rank, and its base.

    `hub_model` and `revision` are None where the weights of the base lie in models/policy.
    """

    seed: int
    adapter: Path
    rank: int
    base: str
    hub_model: str | None
    revision: str | None


def find(seed: int | None, config: params.Policy) -> Tuned:
    """Return the policy that was tuned from a training seed, the first trained one for None.

    Raises:
        UserError: If there is no such policy, or its adapter, models/policy and params.yaml are not of one run.
    """
    source, settings = files.read_json(POLICY / "source.json"), files.read_json(SETTINGS)
    if config.model != source["name"]:
        raise UserError(
            f"params.yaml: policy.model is {config.model}, but {POLICY} holds {source['name']}; run `make reproduce`, or "
            "undo the change with `git checkout params.yaml`"
        )
    seeds = settings["seeds"]
    if seed is not None and seed not in seeds:
        raise UserError(f"seed {seed}: no policy was trained from it; there are {', '.join(map(str, seeds))}")
    seed = seeds[0] if seed is None else seed
    adapter = ADAPTERS / f"seed-{seed}"
    for name in ("adapter_config.json", WEIGHTS):
        if not (adapter / name).is_file():
            raise UserError(f"{adapter / name}: no such file; run `make reproduce`, which trains the policy")
    adapters.check_base(adapter, POLICY)
    rank = files.read_json(adapter / "adapter_config.json")["r"]
    return Tuned(seed, adapter, rank, source["name"], source["model"], source["revision"])
