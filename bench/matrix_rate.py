"""How fast this machine multiplies matrices, at the shapes that a policy's layers have."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from gpro_empathy.policy.cpu_decoder import FrozenLinear

SECONDS = 0.1  # each product is repeated for at least so long
SQUARE = 2048


@dataclass(frozen=True)
class Layer:
    """A shape of weight matrix, and how many of a model's layers have it."""

    inputs: int
    outputs: int
    count: int


def linear(weight_OI: torch.Tensor, rows: int) -> Callable:
    """Return the product x W^T as a linear layer computes it, whatever the number of rows."""
    return lambda x_RI: functional.linear(x_RI, weight_OI)


def frozen(weight_OI: torch.Tensor, rows: int) -> Callable:
    """Return the product as the decoder computes it on a CPU; on a GPU that is a linear layer."""
    return FrozenLinear(weight_OI, None, rows) if weight_OI.device.type == "cpu" else linear(weight_OI, rows)


VARIANTS: dict[str, tuple[torch.dtype, Callable]] = {
    "float32": (torch.float32, linear),
    "float32_frozen": (torch.float32, frozen),
    "bfloat16": (torch.bfloat16, linear),
    "bfloat16_frozen": (torch.bfloat16, frozen),
}


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the shapes of a model's linear layers, those of LoRA included."""
    shapes = Counter((m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear))
    return [Layer(inputs, outputs, count) for (inputs, outputs), count in sorted(shapes.items())]


@torch.no_grad()
def seconds_of(rows: int, layer: Layer, variant: str, device: torch.device) -> float:
    """Return the median seconds of one product of `rows` rows with a layer's weights."""
    dtype, product_with = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    x_RI = torch.randn(rows, layer.inputs, generator=generator).to(device, dtype)
    weight_OI = torch.randn(layer.outputs, layer.inputs, generator=generator).to(device, dtype)
    product = product_with(weight_OI, rows)
    product(x_RI)
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        _synchronise()
        started = time.perf_counter()
        product(x_RI)
        _synchronise()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def rates(model: nn.Module, rows: int) -> dict:
    """Return GFLOP/s of `rows` rows with every linear layer of a model.

    The rates are by shape, and with all of the layers in a row.
    """
    layers, device = layers_of(model), next(model.parameters()).device
    table, work, spent = [], 0.0, dict.fromkeys(VARIANTS, 0.0)
    for layer in layers:
        flops = 2.0 * rows * layer.inputs * layer.outputs
        seconds = {variant: seconds_of(rows, layer, variant, device) for variant in VARIANTS}
        gflops = {variant: flops / seconds[variant] / 1e9 for variant in VARIANTS}
        table.append({"inputs": layer.inputs, "outputs": layer.outputs, "layers": layer.count, **gflops})
        work += layer.count * flops
        spent = {variant: spent[variant] + layer.count * seconds[variant] for variant in VARIANTS}
    return {"rows": rows, "shapes": table, "all": {variant: work / spent[variant] / 1e9 for variant in VARIANTS}}


def square_rates(device: torch.device) -> dict[str, float]:
    """Return GFLOP/s of the product of two square matrices, about the most the machine can do."""
    layer = Layer(SQUARE, SQUARE, 1)
    return {name: 2.0 * SQUARE**3 / seconds_of(SQUARE, layer, name, device) / 1e9 for name in ("float32", "bfloat16")}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
