"""The product of bench/nf4_rows.cu in the place of bitsandbytes' in vLLM, for up to 8 rows, and how fast both are.

`install()` puts it there; run as a program it compares the products one by one, and prints JSON.
"""

import ctypes
import functools
import json
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_suffix(".cu")
MOST_ROWS, WIDE = 8, 8192
# (N, K) of what vLLM multiplies with in a layer of an 8B Llama: q, k, v and gate, up lie together, but are multiplied apart.
LAYER = {"qkv": [(4096, 4096), (1024, 4096), (1024, 4096)], "o": [(4096, 4096)], "gate_up": [(14336, 4096)] * 2, "down": [(4096, 14336)]}


@functools.cache
def library() -> ctypes.CDLL:
    """Compile the product for the GPU here."""
    major, minor = torch.cuda.get_device_capability()
    made = Path(tempfile.mkdtemp(prefix="nf4-rows-")) / "nf4_rows.so"
    arch = f"arch=compute_{major}{minor},code=sm_{major}{minor}"
    command = ["nvcc", "-O3", "-std=c++17", f"-gencode={arch}", "-shared", "-Xcompiler", "-fPIC", "-o", made, SOURCE]
    subprocess.run([str(part) for part in command], check=True)
    return ctypes.CDLL(str(made))


def product(x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, out: torch.Tensor, tiles: int | None = None) -> None:
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


def install() -> None:
    """Have vLLM multiply up to 8 rows with NF4 weights by this product; it must be called before vLLM records graphs."""
    from vllm.model_executor.layers.quantization import bitsandbytes as theirs

    library()
    used = set()

    def apply(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor, out: torch.Tensor) -> None:
        if not hasattr(weight, "nf4_scales"):  # at vLLM's first pass, before it records graphs
            states = weight.bnb_quant_state
            assert all(states[i].blocksize == 64 and states[i].quant_type == "nf4" for i in range(len(states)))
            weight.nf4_scales = torch.cat([scales_of(states[i]) for i in range(len(states))])
        fits = x.shape[0] <= MOST_ROWS and x.dtype == out.dtype == torch.bfloat16 and x.shape[1] % 64 == 0
        if not (fits and out.shape[1] % 32 == 0):
            return theirs._apply_bnb_4bit(x, weight, offsets, out)
        product(x.contiguous(), weight, weight.nf4_scales, out)
        shape = (*x.shape, out.shape[1])
        if shape not in used:
            used.add(shape)
            print(f"nf4_rows: {shape}", flush=True)

    install.kept = torch.library.Library("vllm", "IMPL")
    install.kept.impl("apply_bnb_4bit", apply, "CUDA", allow_override=True)


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
    """Time bitsandbytes' product, this one, and bfloat16's, for each matrix of a layer; weights take turns, past the cache."""
    import bitsandbytes as bnb
    import bitsandbytes.functional as nf4

    torch.manual_seed(0)
    found: dict = {"gpu": torch.cuda.get_device_name(), "microseconds": {}, "error": {}}
    for name, shapes in LAYER.items():
        columns, width = sum(n for n, _ in shapes), shapes[0][1]
        sets = max(4, 2**28 // (columns * width))
        packed, plain = [], []
        for _ in range(sets):
            whole = [nf4.quantize_4bit(torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02, quant_type="nf4") for n, k in shapes]
            plain.append(torch.cat([nf4.dequantize_4bit(code, how) for code, how in whole]))
            codes = torch.cat([code for code, _ in whole])
            packed.append((whole, codes, torch.cat([scales_of(how) for _, how in whole])))
        for rows in (1, 3, 4, 8):
            x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
            out = torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16)

            def theirs(i, packed=packed, x=x, out=out):
                at = 0
                for code, how in packed[i][0]:
                    out[:, at : at + how.shape[0]] = bnb.matmul_4bit(x, code.t(), how)
                    at += how.shape[0]

            def ours(i, tiles=None, packed=packed, x=x, out=out):
                product(x, packed[i][1], packed[i][2], out, tiles)

            row = {
                "bitsandbytes": microseconds(theirs, sets),
                "rows_1": microseconds(lambda i: ours(i, 1), sets),
                "rows_2": microseconds(lambda i: ours(i, 2), sets),
                "bfloat16": microseconds(lambda i: torch.mm(x, plain[i].t(), out=out), sets),
            }
            found["microseconds"][f"{name} {rows}"] = {key: round(value, 2) for key, value in row.items()}
            exact = x.double() @ plain[0].double().t()
            for key, call in (("bitsandbytes", theirs), ("rows_1", lambda i: ours(i, 1)), ("rows_2", lambda i: ours(i, 2))):
                out.fill_(float("nan"))
                call(0)
                error = ((out.double() - exact).norm() / exact.norm()).item()
                found["error"][f"{name} {rows} {key}"] = float(f"{error:.2g}") if error == error else "nan"
    for rows in (1, 3, 4, 8):
        whole = {}
        for key in ("bitsandbytes", "rows_1", "rows_2", "bfloat16"):
            whole[key] = round(32 * sum(found["microseconds"][f"{name} {rows}"][key] for name in LAYER) / 1000, 3)
        found["microseconds"][f"ms of 32 layers, {rows} rows"] = whole
    return found


if __name__ == "__main__":
    print(json.dumps(compare(), indent=1))
