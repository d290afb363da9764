"""The kernels of bench/nf4_rows.cu in vLLM, for up to 8 rows, in the place of bitsandbytes' product and of its own for LoRA.

`install()` puts them there; run as a program it compares the products one by one, and prints JSON.
"""

import ctypes
import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_suffix(".cu")
MOST_ROWS, WIDE = 8, 8192
# (N, K) of what vLLM multiplies with in a layer of an 8B Llama: q, k, v and gate, up lie together, but are multiplied apart.
LAYER = {
    "qkv": [(4096, 4096), (1024, 4096), (1024, 4096)],
    "o": [(4096, 4096)],
    "gate_up": [(14336, 4096)] * 2,
    "down": [(4096, 14336)],
}


@functools.cache
def library() -> ctypes.CDLL:
    """Compile the kernels for the GPU here, and load them."""
    return ctypes.CDLL(str(compiled(*torch.cuda.get_device_capability(), Path(tempfile.mkdtemp(prefix="nf4-rows-")))))


def compiled(major: int, minor: int, folder: Path) -> Path:
    """Compile the kernels for GPUs of a compute capability, from 8.0 on, into `folder`; return the library's path."""
    made = folder / "nf4_rows.so"
    arch = f"-gencode=arch=compute_{major}{minor},code=sm_{major}{minor}"
    command = [*compiler(), "-O3", "-std=c++17", arch, "-shared", "-Xcompiler", "-fPIC", "-o", made, SOURCE]
    subprocess.run([str(part) for part in command], check=True)
    return made


def compiler() -> list[str]:
    """Return the command of nvcc: the machine's, or that of the package nvidia-cuda-nvcc with its folders."""
    if found := shutil.which("nvcc"):
        return [found]
    import nvidia

    (home,) = (Path(folder) / "cu13" for folder in nvidia.__path__ if (Path(folder) / "cu13/bin/nvcc").is_file())
    return [str(home / "bin/nvcc"), f"-I{home / 'include'}", f"-L{home / 'lib'}"]


def product(
    x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, out: torch.Tensor, tiles: int | None = None
) -> None:
    """Write x (M, K) times the transposed NF4 weights (N, K) to `out` (M, N), whose rows may be apart."""
    (rows, width), columns = x.shape, out.shape[1]
    tiles = tiles or (2 if columns >= WIDE else 1)
    stream = torch.cuda.current_stream().cuda_stream
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, codes, scales, out)]
    error = library().nf4_rows(*pointers, rows, columns, width, out.stride(0), tiles, ctypes.c_void_p(stream))
    if error:
        raise RuntimeError(f"nf4_rows failed with CUDA error {error}")


def scales_of(how) -> torch.Tensor:
    """Return the float32 scales of bitsandbytes' QuantState, one for each 64 codes."""
    import bitsandbytes.functional as nf4

    if not how.nested:
        return how.absmax.float().flatten()
    return (nf4.dequantize_blockwise(how.absmax, how.state2) + how.offset).float().flatten()


def shrink(
    x: torch.Tensor, matrices: list[torch.Tensor], mapping: torch.Tensor, shrunk: torch.Tensor, scale: float
) -> None:
    """Write x (M, K) times each of the transposed matrices A (R, K) times `scale` to `shrunk` (S, M, R)."""
    (rows, width), rank = x.shape, shrunk.shape[2]
    three = [matrices[min(i, len(matrices) - 1)] for i in range(3)]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, *three, mapping, shrunk)]
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    error = library().lora_shrink(*pointers, len(matrices), rows, width, rank, ctypes.c_float(scale), stream)
    if error:
        raise RuntimeError(f"lora_shrink failed with CUDA error {error}")


def expand(
    shrunk: torch.Tensor, matrices: list[torch.Tensor], mapping: torch.Tensor, out: torch.Tensor, begin: int = 0
) -> None:
    """Add shrunk (S, M, R) times each of the transposed matrices B (N of the slice, R) to the columns of `out` from `begin` on."""
    (_, rows, rank), ends = shrunk.shape, []
    for i in range(3):
        ends.append((ends[-1] if ends else 0) + (matrices[i].shape[-2] if i < len(matrices) else 0))
    three = [matrices[min(i, len(matrices) - 1)] for i in range(3)]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (shrunk, *three, mapping, out)]
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    error = library().lora_expand(*pointers, *ends, rows, rank, begin, out.stride(0), stream)
    if error:
        raise RuntimeError(f"lora_expand failed with CUDA error {error}")


def install() -> None:
    """Have vLLM use these kernels for up to 8 rows; it must be called before vLLM records graphs."""
    from vllm.lora.ops.triton_ops import lora_expand_op, lora_shrink_op
    from vllm.model_executor.layers.quantization import bitsandbytes as theirs

    library()
    used = set()

    def note(*what) -> None:
        if what not in used:
            used.add(what)
            print("nf4_rows:", *what, flush=True)

    def apply(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor, out: torch.Tensor) -> None:
        if not hasattr(weight, "nf4_scales"):  # at vLLM's first pass, before it records graphs
            states = weight.bnb_quant_state
            assert all(states[i].blocksize == 64 and states[i].quant_type == "nf4" for i in range(len(states)))
            weight.nf4_scales = torch.cat([scales_of(states[i]) for i in range(len(states))])
        fits = x.shape[0] <= MOST_ROWS and x.dtype == out.dtype == torch.bfloat16 and x.shape[1] % 64 == 0
        if not (fits and out.shape[1] % 32 == 0):
            return theirs._apply_bnb_4bit(x, weight, offsets, out)
        product(x.contiguous(), weight, weight.nf4_scales, out)
        note("product", *x.shape, out.shape[1])

    def one_adapter(rows: int, rank: int, matrices: list[torch.Tensor]) -> bool:
        plain = all(m.shape[0] == 1 and m.dtype == torch.bfloat16 and m.is_contiguous() for m in matrices)
        return rows <= MOST_ROWS and rank == 32 and len(matrices) <= 3 and plain

    def shrink_in_vllm(x, matrices, shrunk, mapping, order, counts, starts, ids, none, active, scaling) -> None:
        others = (order, counts, starts, ids, none, active, scaling)
        fits = x.dtype == torch.bfloat16 and shrunk.dtype == torch.float32 and x.shape[1] % 8 == 0
        if not (fits and one_adapter(x.shape[0], shrunk.shape[2], matrices)):
            return lora_shrink_op._lora_shrink(x, matrices, shrunk, mapping, *others)
        if not none.item():
            shrink(x, matrices, mapping, shrunk, scaling)
            note("shrink", *x.shape, len(matrices))

    def expand_in_vllm(
        shrunk, matrices, out, mapping, order, counts, starts, ids, none, active, offset_start=0, add_inputs=False
    ) -> None:
        others = (order, counts, starts, ids, none, active, offset_start, add_inputs)
        fits = add_inputs and shrunk.dtype == torch.float32 and out.dtype == torch.bfloat16
        if not (fits and one_adapter(shrunk.shape[1], shrunk.shape[2], matrices)):
            return lora_expand_op._lora_expand(shrunk, matrices, out, mapping, *others)
        if not none.item():
            expand(shrunk, matrices, mapping, out, offset_start)
            note("expand", shrunk.shape[1], out.shape[1], len(matrices))

    kept = install.kept = torch.library.Library("vllm", "IMPL")
    for name, kernel in {"apply_bnb_4bit": apply, "lora_shrink": shrink_in_vllm, "lora_expand": expand_in_vllm}.items():
        kept.impl(name, kernel, "CUDA", allow_override=True)


def microseconds(call, sets: int, repeats: int = 20) -> float:
    """Return the time of `call(i)`, i below `sets`, recorded as one graph and replayed."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(sets):
            call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(sets):
            call(i)
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / sets)
    return sorted(times)[len(times) // 2]


def compare() -> dict:
    """Time bitsandbytes' product, this one, bfloat16's and LoRA's, for each matrix of a layer; weights take turns, past the cache."""
    torch.manual_seed(0)
    found: dict = {"gpu": torch.cuda.get_device_name(), "microseconds": {}, "error": {}}
    for name, shapes in LAYER.items():
        sets = _weights(shapes)
        for rows in (1, 3, 4, 8):
            times, errors = _compare(sets, shapes, rows)
            found["microseconds"][f"{name} {rows}"], found["error"][f"{name} {rows}"] = times, errors
    for rows in (1, 3, 4, 8):
        layer = [found["microseconds"][f"{name} {rows}"] for name in LAYER]
        found[f"ms of 32 layers, {rows} rows"] = {
            key: round(32 * sum(row[key] for row in layer) / 1000, 3) for key in layer[0]
        }
    return found


def _weights(shapes: list[tuple[int, int]]) -> list[tuple]:
    import bitsandbytes.functional as nf4

    sets = []
    for _ in range(max(4, 2**28 // sum(n * k for n, k in shapes))):
        drawn = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02 for n, k in shapes]
        packed = [nf4.quantize_4bit(weight, quant_type="nf4") for weight in drawn]
        codes, scales = torch.cat([code for code, _ in packed]), torch.cat([scales_of(how) for _, how in packed])
        sets.append((packed, codes, scales, torch.cat([nf4.dequantize_4bit(code, how) for code, how in packed])))
    return sets


def _compare(sets: list[tuple], shapes: list[tuple[int, int]], rows: int) -> tuple[dict, dict]:
    import bitsandbytes as bnb

    columns, width = sum(n for n, _ in shapes), shapes[0][1]
    x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
    out = torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16)
    a = [torch.randn(1, 1, 32, width, device="cuda", dtype=torch.bfloat16) * 0.02 for _ in shapes]
    b = [torch.randn(1, 1, n, 32, device="cuda", dtype=torch.bfloat16) * 0.02 for n, _ in shapes]
    mapping = torch.zeros(rows, dtype=torch.int32, device="cuda")
    shrunk = torch.empty(len(shapes), rows, 32, device="cuda")

    def theirs(i):
        at = 0
        for code, how in sets[i][0]:
            out[:, at : at + how.shape[0]] = bnb.matmul_4bit(x, code.t(), how)
            at += how.shape[0]

    def lora(i):
        shrink(x, a, mapping, shrunk, 1.0)
        expand(shrunk, b, mapping, out)

    calls = {
        "bitsandbytes": theirs,
        "rows_1": lambda i: product(x, sets[i][1], sets[i][2], out, 1),
        "rows_2": lambda i: product(x, sets[i][1], sets[i][2], out, 2),
        "bfloat16": lambda i: torch.mm(x, sets[i][3].t(), out=out),
        "lora": lora,
    }
    exact = x.double() @ sets[0][3].double().t()
    errors = {}
    for key, call in calls.items():
        out.fill_(float("nan") if key != "lora" else 0.0)
        call(0)
        if key == "lora":
            exact = torch.cat(
                [x.double() @ a[i][0, 0].double().t() @ b[i][0, 0].double().t() for i in range(len(a))], 1
            )
        errors[key] = f"{((out.double() - exact).norm() / exact.norm()).item():.2g}"
    return {key: round(microseconds(call, len(sets)), 2) for key, call in calls.items()}, errors


if __name__ == "__main__":
    print(json.dumps(compare(), indent=1))
