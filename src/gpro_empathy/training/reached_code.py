"""The source files that a run reaches: of modules, and of what they import of the same code."""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

# Installed packages, whose versions are compared elsewhere, may lie below the working folder.
_INSTALLED = ("site-packages", "dist-packages")


def files_of(modules: Iterable[str]) -> dict[str, Path]:
    """Return the source files of modules and of what they import, by module name.

    Imports inside functions count too. They are followed into the packages of `modules` and into
    what lies below the working folder, not into installed packages. No module is run for it.
    """
    waiting = list(modules)
    packages = {name.partition(".")[0] for name in waiting}
    reached: dict[str, Path] = {}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        spec = _spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        path = Path(spec.origin)
        if name.partition(".")[0] not in packages and not _is_of_working_folder(path):
            continue
        reached[name] = path
        # What a module compiles at its first use stands beside it.
        reached |= {f"{name} ({source.name})": source for source in path.parent.glob(f"{path.stem}.cu")}
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        waiting += _imports(path, package)
        # A package's __init__ runs before its modules.
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(reached.items()))


def _spec(name: str) -> ModuleSpec | None:
    """Return where a module is, or None, without running its package.

    Unlike this one, importlib's own function runs that package.
    """
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _is_of_working_folder(path: Path) -> bool:
    folder = Path.cwd()
    path = path.absolute()
    if not path.is_relative_to(folder):
        return False
    return not any(part in _INSTALLED for part in path.relative_to(folder).parts)


def _imports(path: Path, package: str) -> Iterator[str]:
    """Yield the names that a file imports: modules, and what may be one of their submodules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*above, *module.split(".")]).strip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
