"""A faster product of a few rows with NF4 weights, in vLLM, in the place of bitsandbytes'.

GRPO of one prompt decodes a few responses at once, and bitsandbytes' product for so few rows then
takes most of the time of a token (docs/scaling.md). nf4_rows.cu, beside this module, holds one that
reads the same packed weights; `install` compiles it with nvcc, keeps the library for the next run,
and has vLLM use it.
"""

import ctypes
import functools
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from gpro_empathy import distributed, files
from gpro_empathy.files import UserError

SOURCE = Path(__file__).with_suffix(".cu")
# What the kernel takes: rows at most, and multiples of its columns and of its width.
MOST_ROWS, COLUMNS, WIDTH = 8, 32, 64
# From so many columns on a warp takes 32 rows of the weights and not 16: faster so on an H200.
WIDE = 8192
SCALED = 64  # weights for each scale
# Of the size of a product; rounding to bfloat16 takes 0.003 of it on an H200 (bench/nf4_rows.py).
LARGEST_DIFFERENCE = 0.01
WHERE_CUDA_IS = "/usr/local/cuda/bin"

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
# The overrides stand for as long as their libraries are kept.
_LIBRARIES: list[torch.library.Library] = []


def install(folder: Path) -> None:
    """Have vLLM multiply few rows by this module's product, and say so; before vLLM is started.

    Where the product cannot be compiled, does not run on this GPU or gives other numbers, or vLLM
    has no such operator, bitsandbytes' stays, and a line says why.

    Args:
        folder: Where the compiled library is kept.
    """
    try:
        of_bitsandbytes = vllms_own()
        product = load(compiled(*torch.cuda.get_device_capability(), folder))
        check(product, "cuda")
    except (UserError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        distributed.say(f"NF4 weights in vLLM: bitsandbytes' product, as the faster one for few rows failed ({reason})")
        return
    replace(of_bitsandbytes, product, "CUDA")
    distributed.say(f"NF4 weights in vLLM: this package's product for up to {MOST_ROWS} rows, bitsandbytes' for more")


def compiled(major: int, minor: int, folder: Path) -> Path:
    """Compile the product for a compute capability and return the library's path.

    Nothing is compiled if `folder` has it already.

    Raises:
        UserError: If there is no nvcc, or it fails.
    """
    arch = f"-gencode=arch=compute_{major}{minor},code=sm_{major}{minor}"
    command = [*compiler(), "-O3", "-std=c++17", arch, "-shared", "-Xcompiler", "-fPIC"]
    digest = hashlib.sha256(SOURCE.read_bytes() + "\n".join(command).encode()).hexdigest()
    library = folder / f"nf4_rows-{digest[:16]}.so"
    if library.is_file():
        return library
    with files.atomic_path(library) as made:
        try:
            subprocess.run([*command, "-o", str(made), str(SOURCE)], check=True, capture_output=True, text=True)
        except OSError as error:
            raise UserError(f"{command[0]} cannot be run ({error})") from None
        except subprocess.CalledProcessError as error:
            said = " ".join((error.stderr or error.stdout).split())[:300]
            raise UserError(f"{command[0]} ends with {error.returncode} ({said})") from None
    return library


def compiler() -> list[str]:
    """Return the command of nvcc: the machine's, or that of the package nvidia-cuda-nvcc.

    Raises:
        UserError: If there is neither.
    """
    if nvcc := shutil.which("nvcc") or shutil.which("nvcc", path=WHERE_CUDA_IS):
        return [nvcc]
    try:
        import nvidia
    except ImportError:
        homes = []
    else:
        homes = [
            home for folder in nvidia.__path__ for home in Path(folder).glob("cu*") if (home / "bin/nvcc").is_file()
        ]
    if not homes:
        raise UserError(f"there is no nvcc in PATH, in {WHERE_CUDA_IS} or from the package nvidia-cuda-nvcc")
    home = homes[0]
    return [str(home / "bin/nvcc"), f"-I{home / 'include'}", f"-L{home / 'lib'}"]


def load(path: Path) -> Product:
    """Load a compiled library; return its product, which `multiply` describes.

    Raises:
        UserError: If it cannot be loaded.
    """
    try:
        kernel = ctypes.CDLL(str(path.absolute())).nf4_rows
    except (OSError, AttributeError) as error:
        raise UserError(f"{path} cannot be loaded ({error})") from None

    return functools.partial(multiply, kernel)


def multiply(
    kernel, x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, out: torch.Tensor, tiles: int | None = None
) -> None:
    """Write x (M, K) times the transposed NF4 weights (N, K) to `out` (M, N).

    It runs on the current stream.

    Args:
        kernel: The function nf4_rows of the library.
        x: Rows of bfloat16, contiguous; M, K and N as `fits` says.
        codes: N K / 2 bytes, packed by bitsandbytes.
        scales: One float32 for each 64 codes.
        out: Of bfloat16; its rows may be apart.
        tiles: How many times 16 rows of the weights a warp takes, 1 or 2; by default what is
            faster.

    Raises:
        RuntimeError: If the GPU reports an error.
    """
    (rows, width), columns = x.shape, out.shape[1]
    tiles = tiles or (2 if columns >= WIDE else 1)
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, codes, scales, out)]
    error = kernel(*pointers, rows, columns, width, out.stride(0), tiles, stream)
    if error:
        raise RuntimeError(f"nf4_rows failed with CUDA error {error}")


def check(product: Product, device: str) -> None:
    """Check on two small matrices that a product is that of bitsandbytes' numbers.

    One has few columns and the other so many that a warp takes twice as many of them; both have
    work for every warp.

    Raises:
        UserError: If it is not.
    """
    from bitsandbytes import functional

    generator = torch.Generator().manual_seed(0)
    for columns in (COLUMNS, WIDE):
        drawn = torch.randn(3 + columns, 16 * WIDTH, generator=generator)
        x, weight = drawn.to(device, torch.bfloat16).split([3, columns])
        codes, state = functional.quantize_4bit(weight, blocksize=SCALED, quant_type="nf4")
        out = torch.empty(len(x), columns, device=device, dtype=torch.bfloat16)
        product(x, codes, scales(state), out)
        exact = x.double() @ functional.dequantize_4bit(codes, state).double().T
        difference = float((out.double() - exact).norm() / exact.norm())
        if not difference < LARGEST_DIFFERENCE:
            raise UserError(f"its products are off by {difference:.2g} of their size")


def vllms_own() -> Callable:
    """Return what vLLM's operator runs.

    This is its own up to 0.27, and that of the package vllm-bnb-plugin from 0.28 on.

    Raises:
        UserError: If there is neither.
    """
    try:
        from vllm.model_executor.layers.quantization.bitsandbytes import _apply_bnb_4bit
    except ImportError:
        try:
            from vllm_bnb_plugin.quantization.linear import _apply_bnb_4bit
        except ImportError as error:
            raise UserError(f"neither vLLM nor vllm-bnb-plugin has the operator: {error}") from None
    return _apply_bnb_4bit


def replace(of_bitsandbytes: Callable, product: Product, dispatch_key: str) -> None:
    """Put `product` in the place of vLLM's operator wherever it fits.

    `of_bitsandbytes` keeps the rest.
    """

    def apply(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor, out: torch.Tensor) -> None:
        if not hasattr(weight, "nf4_scales"):  # at vLLM's first pass, before it records graphs
            weight.nf4_scales = joined_scales(weight.bnb_quant_state)
        if weight.nf4_scales is not None and fits(x, out):
            product(x.contiguous(), weight, weight.nf4_scales, out)
        else:
            of_bitsandbytes(x, weight, offsets, out)

    library = torch.library.Library("vllm", "IMPL")
    library.impl("apply_bnb_4bit", apply, dispatch_key, allow_override=True)
    _LIBRARIES.append(library)


def joined_scales(states: Mapping[int, object]) -> torch.Tensor | None:
    """Return the scales of matrices that lie one after the other, as float32.

    The result is None unless the matrices are NF4 in blocks of 64.

    The scales are 4 bytes for every 64 weights, beside the nested ones of bitsandbytes, which the
    trainer reads.

    Args:
        states: bitsandbytes' QuantState of each matrix, by its place.
    """
    in_order = [states[i] for i in range(len(states))]
    if not all(state.blocksize == SCALED and state.quant_type == "nf4" for state in in_order):
        return None
    return torch.cat([scales(state) for state in in_order])


def scales(state) -> torch.Tensor:
    """Return the scales of a QuantState, which may be quantised themselves, as float32."""
    if not state.nested:
        return state.absmax.float().flatten()
    from bitsandbytes import functional

    return (functional.dequantize_blockwise(state.absmax, state.state2) + state.offset).float().flatten()


def fits(x: torch.Tensor, out: torch.Tensor) -> bool:
    """Return whether the kernel takes x (M, K) and out (M, N)."""
    of_bfloat16 = x.dtype == out.dtype == torch.bfloat16
    return of_bfloat16 and 0 < x.shape[0] <= MOST_ROWS and x.shape[1] % WIDTH == 0 and out.shape[1] % COLUMNS == 0
