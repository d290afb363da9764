"""Check the graph in dvc.yaml against the code.

DVC sees no imports, so what a stage does not declare goes stale unnoticed.
"""

import ast
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from pathlib import PurePosixPath

import pytest

from gpro_empathy import params
from gpro_empathy.tools import tree_copy
from stage_graph import (
    GRAPH,
    ROOT,
    SOURCE,
    STAGES,
    VERSIONS_CHECK,
    commands,
    covers,
    declared,
    declared_code,
    declared_sections,
    declared_versions,
    modules,
    reached,
    stage_file,
    versions_used,
)

PACKAGE = SOURCE / "gpro_empathy"
SECTIONS = {section.__name__: section.section_name() for section in params.Section.__subclasses__()}
FOLDERS = ("bench/", "data/", "models/", "reports/", "rewards/", "paper/")
# What stands below the folder of an artefact, built from scratch by its own stage and no artefact
# itself.
SCRATCH = {"paper/build"}
WITHOUT_TORCH = (
    "prepare",
    "analyse_rewards",
    "analyse_ratings",
    "compare_baseline",
    "draw_figures",
    "write_numbers",
    "paper",
)
# Hours on a GPU: a change of a module that they do not reach must not make them stale.
LONG = ("train_grpo", "rollout")


def sections_read(path):
    """Return the sections that a stage loads.

    Those are the ones it names outside of annotations, or all with `load_all`.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    annotations = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if (annotation := getattr(node, field, None)) is not None:
                annotations |= set(ast.walk(annotation))
    names = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "params"
        and node not in annotations
    }
    if "load_all" in names:
        return set(SECTIONS.values())
    return {SECTIONS[name] for name in names if name in SECTIONS}


def paths_named(path):
    """Return the paths of artefacts that stand in a stage's docstring and constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    words = [word for text in constants for word in re.split(r"[\s,;()]+", text)]
    paths = set()
    for word in words:
        if not word.startswith(FOLDERS):
            continue
        # A placeholder or a pattern stands for what is in the folder before it.
        parts = PurePosixPath(word).parts
        paths.add("/".join(itertools.takewhile(lambda part: not re.search(r"[<>*{}]", part), parts)).rstrip("."))
    return paths


def related(path, entry):
    """Is one of two paths the other, or in it?"""
    return covers(path, entry) or covers(entry, path)


def test_graph_has_the_stages_of_the_package():
    files = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__"} - (GRAPH.keys() - STAGES.keys())
    assert sorted(module for name in STAGES for module in modules(name)) == sorted(files)


@pytest.mark.parametrize("name", STAGES)
def test_stage_runs_its_module_last_and_says_what_it_does(name):
    assert modules(name)[-1] == name
    assert all(importlib.util.find_spec(f"gpro_empathy.stages.{module}") for module in modules(name))
    assert len(STAGES[name]["desc"].split()) >= 3


@pytest.mark.parametrize("name", STAGES)
def test_stage_reaches_no_module_that_it_does_not_declare(name):
    assert {path for path in reached(name) if not any(covers(entry, path) for entry in declared_code(name))} == set()


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_no_module_and_no_folder_that_it_does_not_reach(name):
    assert {entry for entry in declared_code(name) if not any(covers(entry, path) for path in reached(name))} == set()


@pytest.mark.parametrize("name", LONG)
def test_long_stage_declares_the_modules_that_it_reaches_and_no_folder(name):
    assert declared_code(name) == reached(name)


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_sections_that_it_loads_and_no_other(name):
    read = set().union(*(sections_read(stage_file(module)) for module in modules(name)))
    assert declared_sections(name) == read


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_versions_of_the_packages_that_it_uses_and_no_other(name):
    assert declared_versions(name) == versions_used(name)


@pytest.mark.parametrize("name", STAGES)
def test_stage_that_declares_versions_compares_them_with_the_installed_ones_first(name):
    assert (commands(name)[0] == VERSIONS_CHECK) == bool(declared_versions(name))


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_files_that_it_names(name):
    entries = declared(name, "deps") | declared(name, "outs")
    undeclared = {
        path
        for module in modules(name)
        for path in paths_named(stage_file(module)) - SCRATCH
        if not any(related(path, entry) for entry in entries) and not any(related(path, scratch) for scratch in SCRATCH)
    }
    assert undeclared == set()


@pytest.mark.parametrize("name", STAGES)
def test_stage_names_the_files_that_it_declares(name):
    """Find what is declared and not named.

    It is either stale, or hidden in a module that should be told the path.
    """
    named = set().union(*(paths_named(stage_file(module)) for module in modules(name)))
    entries = {entry for entry in declared(name, "deps") | declared(name, "outs") if not entry.startswith("src/")}
    # Settings name them: the source's folder, and inputs of the user's.
    entries = {entry for entry in entries if not entry.startswith(("data/embedded/", "data/inputs"))}
    unnamed = {entry for entry in entries if not any(related(path, entry) for path in named)}
    assert unnamed == set()


def test_every_file_is_written_by_one_stage_or_is_in_git():
    written = [out for name in STAGES for out in declared(name, "outs")]
    assert len(set(written)) == len(written)
    in_git = [str(path) for path in tree_copy.listed(ROOT)]
    for name in STAGES:
        for dep in declared(name, "deps"):
            kept = any(path == dep or path.startswith(f"{dep}/") for path in in_git)
            assert kept or any(related(dep, out) for out in written), f"{name}: {dep}"


def test_graph_has_no_cycle():
    after = {
        name: {
            other
            for other in STAGES
            if other != name
            and any(related(dep, out) for dep in declared(name, "deps") for out in declared(other, "outs"))
        }
        for name in STAGES
    }
    done = set()
    while ready := {name for name in STAGES if name not in done and after[name] <= done}:
        done |= ready
    assert done == set(STAGES)


def test_committed_results_are_not_in_the_cache_and_models_are():
    for name, stage in STAGES.items():
        for entry in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            path, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
            assert options.get("cache", True) == path.startswith(("data/", "models/")), f"{name}: {path}"


def test_deps_params_and_packages_are_in_order():
    for stage in STAGES.values():
        # The versions stand after the sections, whose file is the default.
        entries = stage.get("params", [])
        sections = [entry for entry in entries if isinstance(entry, str)]
        versions = [entry for entry in entries if isinstance(entry, dict)]
        assert entries == sorted(sections) + versions
        assert stage["deps"] == sorted(stage["deps"])
        for packages in (packages for entry in versions for packages in entry.values()):
            assert packages == sorted(packages)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_stage_that_needs_no_torch_does_not_import_it(name):
    code = f"import sys, gpro_empathy.stages.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_bars_that_libraries_draw_do_not_fill_a_log():
    bar = "import time, tqdm\nfor _ in tqdm.tqdm(range(30)): time.sleep(0.02)\n"
    # These tests have imported stages themselves.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    seen = []
    for first in ("", "import gpro_empathy.stages\n"):
        line = [sys.executable, "-c", first + bar]
        seen.append(subprocess.run(line, env=clean, capture_output=True, text=True, check=True).stderr.count("%|"))
    assert seen[0] > 2
    assert seen[1] == 2  # at its start and at its end


# The reading of the code itself, on code made up


def test_loaded_sections_are_seen_but_not_annotations(tmp_path):
    path = tmp_path / "stage.py"
    path.write_text(
        "ALL = (params.Policy, params.Rollout)\n"
        "def run(config: params.TrainGrpo, x: list[params.Prepare] = ()) -> params.WarmStart:\n"
        "    params.load(params.Rewards)\n"
    )
    assert sections_read(path) == {"policy", "rollout", "rewards"}
    path.write_text("config = params.load_all()\n")
    assert sections_read(path) == set(SECTIONS.values())
