"""Imports go one way between the rooms of the package, in functions and TYPE_CHECKING too."""

import sys

import grimp
import pytest

from package_imports import IMPORTS

PACKAGE = "gpro_empathy"
ROOMS = ("data", "policy", "scorer", "training", "analysis", "report", "tools", "stages")
# What a room, or a module of the hall (the modules directly in the package), may import beside the
# hall and itself: rooms, or single modules of them.
MAY_IMPORT = {
    "data": (),
    "policy": (),
    "scorer": ("data", "policy.adapters"),
    "training": ("data", "policy", "scorer"),
    "analysis": ("data",),
    "report": ("analysis",),
    "tools": ("data", "policy", "scorer", "training", "analysis", "report"),
    "stages": ROOMS,
    "rewards": ("data", "policy", "scorer"),
    "__main__": ROOMS,
}
# They start in a moment, on a machine without the libraries that train.
LIGHT = ("analysis", "report")
HEAVY = ("peft", "sentence_transformers", "torch", "transformers", "trl")


def inner(module):
    """Return the name of a module within the package: policy.adapters; of the package: none."""
    return module.partition(".")[2]


def room(module):
    """Return the room of a module, or an empty name for the hall."""
    first = inner(module).partition(".")[0]
    return first if first in ROOMS else ""


def allowed(importer, imported):
    """May a module of the package import another one?"""
    if inner(imported) == "__main__":
        return False
    if room(imported) in ("", room(importer)):
        return True
    granted = MAY_IMPORT.get(room(importer) or inner(importer), ())
    return any(inner(imported) == name or inner(imported).startswith(f"{name}.") for name in granted)


def imports_within(graph):
    """Return the pairs (importer, imported) of modules of the package."""
    modules = sorted(module for module in graph.modules if module.partition(".")[0] == PACKAGE)
    return [
        (importer, imported)
        for importer in modules
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if imported.partition(".")[0] == PACKAGE
    ]


def against_the_layout(graph):
    """Return the imports that the layout forbids, as "importer -> imported"."""
    return [f"{inner(a)} -> {inner(b)}" for a, b in imports_within(graph) if not allowed(a, b)]


def in_circles(graph):
    """Return the imports that are part of a circle, as "importer -> imported"."""
    circular = (pair for pair in imports_within(graph) if graph.chain_exists(importer=pair[1], imported=pair[0]))
    return [f"{inner(a)} -> {inner(b)}" for a, b in circular]


def heavy_chains(graph, name):
    """Return how modules of a room import heavy libraries: shortest chains, "a -> b -> torch"."""
    modules = [module for module in sorted(graph.modules) if room(module) == name and module.startswith(PACKAGE)]
    libraries = [library for library in HEAVY if library in graph.modules]
    chains = [graph.find_shortest_chain(module, library) for module in modules for library in libraries]
    return [" -> ".join(chain) for chain in chains if chain]


def test_every_folder_of_the_package_is_a_room():
    children = IMPORTS.find_children(PACKAGE)
    assert {inner(child) for child in children if IMPORTS.find_children(child)} == set(ROOMS)
    assert {name for name in MAY_IMPORT if f"{PACKAGE}.{name}" not in children} == set()


def test_no_import_goes_against_the_layout():
    assert against_the_layout(IMPORTS) == []


def test_no_import_is_part_of_a_circle():
    assert in_circles(IMPORTS) == []


@pytest.mark.parametrize("name", LIGHT)
def test_room_reaches_no_library_that_trains(name):
    assert heavy_chains(IMPORTS, name) == []


# The checks themselves, on imports made up


def graph(*imports):
    """Return a graph of imports between modules of the package, given as "importer -> imported"."""
    result = grimp.ImportGraph()
    for line in imports:
        importer, imported = (name if name in HEAVY else f"{PACKAGE}.{name}" for name in line.split(" -> "))
        result.add_import(importer=importer, imported=imported)
    return result


def test_imports_against_the_layout_are_seen():
    wrong = [
        "__main__ -> __main__", "analysis.a -> scorer.model", "data.turns -> policy.loading", "files -> data.turns",
        "report.arxiv -> stages.paper", "rewards -> training.grpo", "scorer.encoder -> policy.loading", "tools.doctor -> stages.paper",
    ]  # fmt: skip
    right = [
        "__main__ -> tools.serve", "analysis.a -> analysis.b", "analysis.a -> params", "params -> files", "rewards -> policy.loading", "rewards -> scorer.model",
        "report.figures -> analysis.a", "scorer.encoder -> policy.adapters", "stages.paper -> report.figures",
        "training.grpo -> policy.loading",
    ]  # fmt: skip
    assert against_the_layout(graph(*wrong[1:], *right)) == wrong[1:]
    assert against_the_layout(graph("params -> __main__")) == ["params -> __main__"]


def test_circles_are_seen_whole():
    circle = ["data.a -> data.b", "data.b -> data.c", "data.c -> data.a"]
    assert in_circles(graph(*circle, "data.a -> files", "data.d -> data.a")) == circle


def test_libraries_that_train_are_seen_through_other_modules():
    made_up = graph("analysis.a -> distributed", "distributed -> torch", "analysis.b -> files", "policy.a -> trl")
    assert heavy_chains(made_up, "analysis") == ["gpro_empathy.analysis.a -> gpro_empathy.distributed -> torch"]


def test_imports_inside_functions_and_for_types_are_imports(tmp_path, monkeypatch):
    package = tmp_path / "made_up_package"
    package.mkdir()
    names = ("__init__", "lazy", "types", "member", "plain", "unused")
    for name in names:
        (package / f"{name}.py").touch()
    (package / "start.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import made_up_package.plain as other\n"
        "if TYPE_CHECKING:\n    from made_up_package import types\n"
        "def f():\n    from made_up_package import lazy\n    from made_up_package.member import name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imports = grimp.build_graph("made_up_package", cache_dir=None)
    monkeypatch.delitem(sys.modules, "made_up_package", raising=False)
    reached = imports.find_upstream_modules("made_up_package.start")
    assert reached == {f"made_up_package.{name}" for name in ("lazy", "types", "member", "plain")}
