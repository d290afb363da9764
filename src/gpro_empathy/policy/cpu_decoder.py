"""A copy of the policy that decodes fast on a CPU, and the cache that it fills.

Decoding runs one token of a few dozen responses through every layer. What costs most there is not
arithmetic:

- the LoRA matrices double the number of products: here they are merged in;
- the product x W^T is slow for few rows: see `FrozenLinear`;
- attention copies the keys of a group of heads for each of its heads: here the heads of a group are
  queries of one attention, which reads the keys once;
- a cache that grows by a token copies itself at every token: here it has room ahead.

Embeddings and norms, which LoRA leaves alone, are shared with the policy, not copied.
"""

import copy

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "one_query_per_group"
# Tokens that a cache layer makes room for at a time.
ROOM = 64
TYPICAL_ROWS = 48


def grouped_attention(module, query_BHTD, key_BGSD, value_BGSD, attention_mask, scaling=None, **kwargs):
    """Attend with one query a row, H heads in G groups.

    Longer queries go to transformers' own attention.

    Called by transformers. Returns the result, shape (B, 1, H, D), and no weights.
    """
    rows, heads, tokens, width = query_BHTD.shape
    if tokens > 1:
        return sdpa_attention_forward(
            module, query_BHTD, key_BGSD, value_BGSD, attention_mask, scaling=scaling, **kwargs
        )
    # Contiguous, or torch takes its slow general path.
    query_BGKD = query_BHTD.reshape(rows, key_BGSD.shape[1], -1, width).contiguous()
    result_BGKD = nn.functional.scaled_dot_product_attention(
        query_BGKD, key_BGSD, value_BGSD, attn_mask=attention_mask, scale=scaling
    )
    return result_BGKD.reshape(rows, 1, heads, width), None


AttentionInterface.register(ATTENTION, grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class RoomyLayer(DynamicLayer):
    """A cache layer whose keys and values are views of larger tensors.

    So a token is written in place.
    """

    _rooms: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Add the keys and values of new tokens, shape (B, G, T, D) each, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._rooms is None or self._rooms[0].shape[-2] < end:
            self._rooms = tuple(
                self._roomy(old, new, end) for old, new in ((self.keys, key_states), (self.values, value_states))
            )
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        super().batch_repeat_interleave(repeats)
        self._rooms = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self._rooms = None

    @staticmethod
    def _roomy(old: torch.Tensor, new: torch.Tensor, end: int) -> torch.Tensor:
        room = new.new_empty(*new.shape[:2], end + ROOM, new.shape[-1])
        if old.numel():
            room[:, :, : old.shape[-2]] = old
        return room


class FrozenLinear(nn.Module):
    """x W^T + b without gradients, with the weights in the blocks that the product wants.

    MKL brings the weights of x W^T into blocks anew at every product, which for few rows takes
    longer than the product itself; oneDNN does it once. On two AVX2 cores, all products of a token
    of 24 responses of SmolLM2-135M took 67 ms; 97 ms as (W x^T)^T, which serves where oneDNN does
    not, and which is itself faster than x W^T.

    Args:
        weight, bias: Shapes (O, I) and (O,).
        rows: How many rows x will have, about: a hint.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, rows: int) -> None:
        super().__init__()
        # The operators of torch's compiler: nothing public keeps weights in blocks.
        self.in_blocks = weight.dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        if self.in_blocks:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b."""
        rows_RI = x.reshape(-1, x.shape[-1])
        if self.in_blocks:
            product_RO = torch.ops.mkldnn._linear_pointwise(rows_RI, self.weight, self.bias, "none", [], None)
        else:
            product_RO = (self.weight @ rows_RI.T).T
            product_RO = product_RO if self.bias is None else product_RO + self.bias
        return product_RO.reshape(*x.shape[:-1], -1)


def empty_cache() -> Cache:
    """Return a cache for the decoding of one batch."""
    return Cache(layer_class_to_replicate=RoomyLayer)


def decoder_of(model: nn.Module) -> PreTrainedModel:
    """Return a model that gives the same logits as `model`, for decoding; `model` itself on a GPU.

    Args:
        model: A causal language model of transformers, or its PEFT wrapper with the adapter to
            decode with active.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.device.type != "cpu":
        return model
    config = copy.deepcopy(base.config)
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        twin = type(base)(config)
    for name, module in list(base.named_modules()):
        if isinstance(module, LoraLayer):
            layer = module.get_base_layer()
            twin.set_submodule(name, FrozenLinear(_merged_weight(module), layer.bias, TYPICAL_ROWS))
        elif isinstance(module, nn.Linear) and not _inside_lora(base, name):
            twin.set_submodule(name, FrozenLinear(module.weight.detach(), module.bias, TYPICAL_ROWS))
    _share(base, twin)
    twin.generation_config = base.generation_config
    return twin.eval()


@torch.no_grad()
def _merged_weight(layer: LoraLayer) -> torch.Tensor:
    weight = layer.get_base_layer().weight
    if layer.disable_adapters or layer.merged:
        return weight.detach()
    # Added in the adapter's float32 and rounded once, where the weights are bfloat16.
    delta = sum(layer.get_delta_weight(name) for name in layer.active_adapters if name in layer.lora_A)
    return (weight + delta).to(weight.dtype)


def _inside_lora(base: nn.Module, name: str) -> bool:
    parts = name.split(".")
    return any(isinstance(base.get_submodule(".".join(parts[:i])), LoraLayer) for i in range(1, len(parts)))


def _share(base: nn.Module, twin: nn.Module) -> None:
    """Give the twin's remaining parameters and buffers the tensors of the base model."""
    for name, module in twin.named_modules():
        if isinstance(module, FrozenLinear):
            continue
        source = base.get_submodule(name)
        for key in module._parameters:
            module._parameters[key] = source._parameters[key]
        for key in module._buffers:
            module._buffers[key] = source._buffers[key]
