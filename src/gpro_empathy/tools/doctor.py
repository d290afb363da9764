"""Say what this machine has and what each profile needs.

A run that cannot succeed is stopped before its long work.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

from gpro_empathy import entry_point, files, installed, machine, params, rewards
from gpro_empathy.files import UserError
from gpro_empathy.tools import hub_access, preflight
from gpro_empathy.training import launch


def examine(config: params.Params, this_machine: machine.Machine) -> preflight.Environment:
    """Look at all that a run finds beside the machine.

    That is the packages, what starts GRPO, the user's reward terms, and the hub if the run reads
    from it.
    """
    wanted, present = installed.pinned(files.read_text(installed.lock_in_use())), installed.present()
    repositories = hub_access.needed(config)
    return preflight.Environment(
        differences=installed.differences(wanted, present),
        unrecorded=installed.unrecorded(installed.recorded(), present),
        driver_needed=_driver_needed(this_machine),
        hub=hub_access.look_up(repositories),
        hub_disk=hub_access.separate_disk() if repositories else None,
        launch=_refusal(lambda: launch.check(config.train_grpo, config.policy, warm_started=config.warm_start.enabled)),
        rewards=_refusal(lambda: rewards.load_user_terms(config.rewards)),
        inputs=_refusal(lambda: params.check_inputs(config)),
    )


def with_usable_gpus(this_machine: machine.Machine, config: params.Params) -> machine.Machine:
    """Return the machine with only those GPUs that torch computes on, if the run asks for one."""
    if this_machine.gpus and preflight.asks_for_gpu(config):
        return replace(this_machine, gpus=machine.seen_by_torch(this_machine.gpus))
    return this_machine


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except UserError as error:
        return str(error)
    return None


def table(this_machine: machine.Machine) -> str:
    """Return what this machine has, as a table."""
    gpus = ", ".join(f"{gpu.name}, {gpu.memory:.0f} GiB, driver {gpu.driver}" for gpu in this_machine.gpus)
    rows = [
        ("Python", this_machine.python),
        ("Processor cores", str(this_machine.cores)),
        ("Free memory", f"{this_machine.memory:.1f} GiB"),
        ("Free disk", f"{this_machine.disk:.1f} GiB"),
        ("TeX", this_machine.latexmk or "missing (make reproduce installs it where apt-get can be run)"),
        ("GPU", gpus or "none"),
    ]
    return "\n".join(f"  {name:<16} {value}" for name, value in rows)


def check_lines(checks: list[preflight.Check]) -> str:
    """Return the checks, one a line, with what to do below those that fail."""
    lines = []
    for check in checks:
        lines.append(f"  {'ok' if check.hint is None else 'FAIL':<5} {check.name:<30} {check.state}")
        if check.hint is not None:
            lines.append(f"  {'':<5} {'':<30} -> {check.hint}")
    return "\n".join(lines)


def profile_lines(config: params.Params) -> list[str]:
    """Return one line per profile with what it needs, after one for params.yaml as it is."""
    from gpro_empathy.tools import profiles

    lines = [_line("(params.yaml)", preflight.need(config))]
    for path in sorted(profiles.PROFILES.glob("*.yaml")):
        lines.append(_line(path.stem, preflight.need(profiles.preview(path.stem))))
    return lines


def gpu_problems(this_machine: machine.Machine, config: params.Params) -> list[str]:
    """Return what keeps a run of these parameters from the GPUs of this machine, one line each."""
    return preflight.failing(preflight.gpu_checks(this_machine, config, _driver_needed(this_machine)))


def refuse(wrong: list[str]) -> None:
    """Stop where something is wrong.

    Raises:
        UserError: If there is anything.
    """
    if wrong:
        raise UserError("; ".join(wrong))


def main() -> None:
    """Print the tables, or with --quiet only what is wrong.

    Exit with 1 if the run cannot succeed.
    """
    parser = argparse.ArgumentParser(description="Say what this machine has, and what each profile needs.")
    parser.add_argument(
        "--quiet", action="store_true", help="print nothing unless the run of params.yaml cannot succeed"
    )
    parser.add_argument(
        "--gpus", action="store_true", help="check the GPUs alone and print nothing unless they do not do: for a stage"
    )
    arguments = parser.parse_args()
    whole_machine, config = machine.inspect(), params.load_all()
    this_machine = with_usable_gpus(whole_machine, config)
    if arguments.gpus:
        refuse(gpu_problems(this_machine, config))
        return
    environment = examine(config, this_machine)
    checks = preflight.checks(this_machine, config, environment)
    wrong = preflight.failing(checks)
    if arguments.quiet:
        refuse(wrong)
    else:
        print(f"This machine:\n{table(whole_machine)}\n\nA run needs:\n" + "\n".join(profile_lines(config)))
        print("\nThe run of params.yaml as it is now " + ("cannot succeed:" if wrong else "can start:"))
        print(check_lines(checks))


def _driver_needed(this_machine: machine.Machine) -> str:
    return installed.driver_needed() if this_machine.gpus else "0"


def _line(name: str, wanted: preflight.Need) -> str:
    gpu = "no GPU"
    if wanted.gpu or wanted.gpu_memory:
        shares = [f"{share.gpus} x {share.sum.total:.0f} GiB for {share.name}" for share in wanted.gpu_memory]
        gpu = "a GPU" + (f" ({', '.join(shares)})" if shares else "")
    hub = "the network or a filled cache, a hub token for gated models" if wanted.hub else "no network after set-up"
    disk = wanted.disk + sum(wanted.downloads.values())
    line = f"  {name:<24} {disk:.0f} GiB of disk, {wanted.memory:.0f} GiB of memory, {gpu}, {hub}"
    return line + "".join(f"\n  {'':<24} GPU memory, {share.name}: {share.sum.text()}" for share in wanted.gpu_memory)


if __name__ == "__main__":
    entry_point.run_stage(main)
