"""Say what this machine has and what each profile needs; stop a run that cannot succeed before its long work."""

import argparse

from gpro_empathy import files, hub_access, installed, machine, params, preflight
from gpro_empathy.files import UserError


def look(config: params.Params, here: machine.Machine) -> preflight.Found:
    """Look at packages, and at the hub if the run reads from it."""
    wanted = installed.pinned(files.read_text(installed.lock_in_use()))
    return preflight.Found(
        differences=installed.differences(wanted, installed.present()),
        driver_needed=installed.driver_needed() if here.gpus else "0",
        hub=hub_access.look_up(hub_access.needed(config)),
    )


def table(here: machine.Machine) -> str:
    """Return what this machine has, as a table."""
    gpus = ", ".join(f"{gpu.name}, {gpu.memory:.0f} GiB, driver {gpu.driver}" for gpu in here.gpus)
    rows = [
        ("Python", here.python),
        ("Processor cores", str(here.cores)),
        ("Free memory", f"{here.memory:.1f} GiB"),
        ("Free disk", f"{here.disk:.1f} GiB"),
        ("TeX", here.latexmk or "missing (make reproduce installs it where apt-get can be run)"),
        ("GPU", gpus or "none"),
    ]
    return "\n".join(f"  {name:<16} {value}" for name, value in rows)


def check_lines(checks: list[preflight.Check]) -> str:
    """Return the checks, one a line, with what to do below those that fail."""
    lines = []
    for check in checks:
        lines.append(f"  {'ok' if check.way_out is None else 'FAIL':<5} {check.name:<30} {check.found}")
        if check.way_out is not None:
            lines.append(f"  {'':<5} {'':<30} -> {check.way_out}")
    return "\n".join(lines)


def profile_lines(config: params.Params) -> list[str]:
    """Return one line per profile with what it needs, after one for params.yaml as it is."""
    from gpro_empathy import profiles

    lines = [_line("(params.yaml)", preflight.need(config))]
    for path in sorted(profiles.PROFILES.glob("*.yaml")):
        lines.append(_line(path.stem, preflight.need(profiles.preview(path.stem))))
    return lines


def main() -> None:
    """Print the tables, or with --quiet only what is wrong; exit with 1 if the run cannot succeed."""
    parser = argparse.ArgumentParser(description="Say what this machine has, and what each profile needs.")
    parser.add_argument(
        "--quiet", action="store_true", help="print nothing unless the run of params.yaml cannot succeed"
    )
    quiet = parser.parse_args().quiet
    here, config = machine.inspect(), params.load_all()
    found = look(config, here)
    wrong = preflight.problems(here, config, found)
    if quiet and wrong:
        raise UserError("; ".join(wrong))
    if not quiet:
        print(f"This machine:\n{table(here)}\n\nA run needs:\n" + "\n".join(profile_lines(config)))
        print("\nThe run of params.yaml as it is now " + ("cannot succeed:" if wrong else "can start:"))
        print(check_lines(preflight.checks(here, config, found)))


def _line(name: str, wanted: preflight.Need) -> str:
    gpu = "no GPU"
    if wanted.gpu or wanted.gpu_memory:
        gpu = f"a GPU of {wanted.gpu_memory.total:.0f} GiB" if wanted.gpu_memory else "a GPU"
    hub = "the network or a filled cache, a hub token for gated models" if wanted.hub else "no network after set-up"
    line = f"  {name:<24} {wanted.disk:.0f} GiB of disk, {wanted.memory:.0f} GiB of memory, {gpu}, {hub}"
    return line + (f"\n  {'':<24} GPU memory: {wanted.gpu_memory.text()}" if wanted.gpu_memory else "")


if __name__ == "__main__":
    files.run_stage(main)
