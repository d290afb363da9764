"""Rehearse a profile: its real stages, for a few steps, timed and weighed.

The models are random ones of the profile's architectures.

`python bench/rehearse.py PROFILE` runs GRPO and rollouts at the profile's full shapes, or without
a GPU at a reduced size, in a temporary folder; it reloads the adapter, and forecasts the whole run.
On a GPU it writes reports/gpu/<name>.json.
"""

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

from gpro_empathy import entry_point, machine
from gpro_empathy.files import UserError
from gpro_empathy.report import gpu_table
from gpro_empathy.tools import doctor, preflight, profiles
from rehearsal import machine_check, results
from rehearsal.plan import SAYS_REDUCED, Plan, lay_out

CARD = "GiB of a smaller GPU to rehearse for: vLLM gets its share of so much memory and not of this GPU's"


def measure(plan: Plan, this_machine: machine.Machine) -> dict:
    """Run the stages of a rehearsal whose models are built, and return what was measured.

    A task after GRPO that fails is named in the result, with what it said, and the others are kept:
    they took long.
    """
    tasks, failed = plan.run("train"), {}
    for name in gpu_table.AFTER_TRAINING:
        try:
            tasks |= plan.run(name)
        except UserError as error:
            failed[name] = str(error)
    return results.collect(plan, tasks, failed, this_machine)


def report(measured: dict) -> None:
    """Print what a rehearsal measured.

    On a GPU write it to reports/gpu, and its table to the docs too.

    Raises:
        UserError: If a task failed.
    """
    print("\n".join([*results.lines(measured), *_computed(measured["profile"])]))
    if measured["gpu"]:
        print(f"Written: {gpu_table.write(measured)}, and the table of {gpu_table.PAGE}")
        gpu_table.update()
    if measured["failed"]:
        raise UserError("; ".join(measured["failed"].values()))


def part_of_gpu(card: float | None, this_machine: machine.Machine) -> float:
    """Return the part of this machine's GPU that has the `card` GiB of another.

    The part is 1 where no `card` is given.

    Raises:
        UserError: If `card` is no size, there is no GPU, or it is smaller.
    """
    if card is None:
        return 1.0
    if not card > 0:  # nor is "nan"
        raise UserError(f"--card {card:g}: no GPU has so many GiB; give a number above 0, such as 24")
    if not this_machine.gpus:
        raise UserError(f"--card {card:g}: no GPU is found to rehearse on; leave it out")
    if card > this_machine.gpus[0].memory:
        raise UserError(f"--card {card:g}: the GPU here has {this_machine.gpus[0].memory:.0f} GiB; give at most that")
    return card / this_machine.gpus[0].memory


def main() -> None:
    """Rehearse the profile named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("profile", help="a file of profiles/, without .yaml")
    parser.add_argument("--card", type=float, metavar="GIB", help=CARD)
    arguments = parser.parse_args()
    profile = arguments.profile
    this_machine = doctor.with_usable_gpus(machine.inspect(), profiles.preview(profile))
    part = part_of_gpu(arguments.card, this_machine)
    banner = (
        f"{SAYS_REDUCED}."
        if not this_machine.gpus
        else f"Rehearsal of {profile} at full size on {this_machine.gpus[0].name}."
    )
    print(banner, flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        plan = lay_out(profile, Path(folder), not this_machine.gpus, part)
        if this_machine.gpus:
            machine_check.check(plan, this_machine, part)
        plan.run("build")
        measured = measure(plan, this_machine)
    report(measured)
    print(f"{math.ceil(time.perf_counter() - started)} s in all. {banner}")


def _computed(profile: str) -> list[str]:
    shares = preflight.need(profiles.preview(profile)).gpu_memory
    return [f"GPU memory at full size, computed, {share.name}: {share.sum.text()}" for share in shares]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    entry_point.run_stage(main)
