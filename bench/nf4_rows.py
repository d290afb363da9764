"""Time products of a few rows with NF4 weights one by one, in microseconds.

The products are bitsandbytes', the package's (module nf4_rows) and bfloat16's.

`python bench/nf4_rows.py` prints JSON, on a GPU of compute capability 8.0 or later with nvcc.
"""

import functools
import json
import tempfile
from pathlib import Path

import torch

from gpro_empathy.training import nf4_rows

# (N, K) of what vLLM multiplies with in a layer of an 8B Llama: q, k, v and gate, up lie together,
# but bitsandbytes multiplies with them apart.
LAYER = {
    "qkv": [(4096, 4096), (1024, 4096), (1024, 4096)],
    "o": [(4096, 4096)],
    "gate_up": [(14336, 4096)] * 2,
    "down": [(4096, 14336)],
}


@functools.cache
def product() -> nf4_rows.Product:
    """Return the package's product, compiled for the GPU here."""
    with tempfile.TemporaryDirectory() as folder:
        return nf4_rows.load(nf4_rows.compiled(*torch.cuda.get_device_capability(), Path(folder)))


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
    """Time bitsandbytes' product, the package's and bfloat16's, for each matrix of a layer.

    The weights take turns, past what the cache holds.
    """
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
        codes, scales = torch.cat([code for code, _ in packed]), torch.cat([nf4_rows.scales(how) for _, how in packed])
        sets.append((packed, codes, scales, torch.cat([nf4.dequantize_4bit(code, how) for code, how in packed])))
    return sets


def _compare(sets: list[tuple], shapes: list[tuple[int, int]], rows: int) -> tuple[dict, dict]:
    import bitsandbytes as bnb

    columns, width = sum(n for n, _ in shapes), shapes[0][1]
    x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
    out = torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16)

    def theirs(i):
        at = 0
        for code, how in sets[i][0]:
            out[:, at : at + how.shape[0]] = bnb.matmul_4bit(x, code.t(), how)
            at += how.shape[0]

    def ours(tiles):
        return lambda i: product()(x, sets[i][1], sets[i][2], out, tiles)

    calls = {
        "bitsandbytes": theirs,
        "rows_1": ours(1),
        "rows_2": ours(2),
        "bfloat16": lambda i: torch.mm(x, sets[i][3].t(), out=out),
    }
    exact = x.double() @ sets[0][3].double().t()
    errors = {}
    for key, call in calls.items():
        out.fill_(float("nan"))
        call(0)
        errors[key] = f"{((out.double() - exact).norm() / exact.norm()).item():.2g}"
    return {key: round(microseconds(call, len(sets)), 2) for key, call in calls.items()}, errors


if __name__ == "__main__":
    print(json.dumps(compare(), indent=1))
