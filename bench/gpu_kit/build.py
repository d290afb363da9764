"""Pack the packages that a GPU machine without a network lacks, in parts.

That machine has Linux on x86-64, Python 3.12, torch 2.11.0 for CUDA 13 with Triton,
transformers 5.17.0 and numpy, and one GPU of compute capability 9.0. What of packages.txt is not
needed there for one training and its rollouts by Unsloth and vLLM is left out: see LEFT_OUT.
Another GPU or another torch needs another selection.

Writes  <output>/site/          the packages
        <output>/kit.xz.00 ...  the same packed and cut; unpack it there with
                                `cat kit.xz.* | tar -xJ -C <folder>`
"""

import argparse
import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages.txt")
PYTHON = "3.12"
PLATFORM = "x86_64-manylinux_2_39"
PART = 52 * 2**20
# Patterns below the folder of packages, and why each is left out.
LEFT_OUT = {
    "vllm/vllm_flash_attn/_vllm_fa2_C*": "attention for GPUs before 9.0, 290 MiB; such a GPU needs it instead of _vllm_fa3_C",
    "vllm/_moe_C*": "mixtures of experts",
    "vllm/_flashmla*": "multi-head latent attention",
    "vllm/_qutlass_C*": "formats of compute capability 10",
    "vllm/third_party/deep_gemm": "products in FP8",
    "vllm/third_party/fmha_sm100": "attention of compute capability 10",
    "vllm/third_party/tml_fa4": "attention of compute capability 10",
    "vllm/vllm-rs": "the server's front end",
    "bitsandbytes/libbitsandbytes_cuda1[12]*": "other versions of CUDA",
    "bitsandbytes/libbitsandbytes_cuda132*": "other versions of CUDA",
    "bitsandbytes/libbitsandbytes_rocm*": "other makers' GPUs",
    "bitsandbytes/libbitsandbytes_xpu*": "other makers' GPUs",
    "torchao/*.so": "the kernels of formats that nothing here uses",
    "mistral_common/data": "other models' tokenizers",
    "pycountry/locales": "translations of the names of countries",
    "studio": "Unsloth's web interface",
    "unsloth_cli": "Unsloth's command line",
    "test": "a stray folder of a package's tests",
    "bin": "scripts that name the Python of the machine that packed them",
    "**/__pycache__": "written anew by each Python",
    "**/*.pyi": "types for editors",
}


def main() -> None:
    """Install, leave out, pack and cut."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder for the packages and the parts")
    parser.add_argument("--installed", action="store_true", help="the packages are installed already: only pack")
    arguments = parser.parse_args()
    site = arguments.output / "site"
    if not arguments.installed:
        install(site)
    leave_out(site)
    for part in pack(site, arguments.output):
        print(f"{part.stat().st_size / 2**20:6.1f} MiB  {part}")


def install(site: Path) -> None:
    """Install exactly packages.txt into `site`, as the other machine's Python would."""
    shutil.rmtree(site, ignore_errors=True)
    where = ["--target", str(site), "--python-version", PYTHON, "--python-platform", PLATFORM]
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", *where, "-r", str(PACKAGES)]
    subprocess.run(command, check=True, env=os.environ | {"UV_LINK_MODE": "copy"})


def leave_out(site: Path) -> None:
    """Delete what LEFT_OUT names."""
    for pattern in LEFT_OUT:
        for path in sorted(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def pack(site: Path, folder: Path) -> list[Path]:
    """Pack `site` and cut it into parts of PART bytes; return them in order."""
    for old in folder.glob("kit.xz.*"):
        old.unlink()
    whole = folder / "kit.tar.xz"
    with lzma.open(whole, "wb", preset=6) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        archive.add(site, arcname=".")
    parts = []
    with whole.open("rb") as stream:
        while piece := stream.read(PART):
            parts.append(folder / f"kit.xz.{len(parts):02d}")
            parts[-1].write_bytes(piece)
    whole.unlink()
    return parts


if __name__ == "__main__":
    main()
