"""Linear layers that read the same input, as one product: the base's weights are read once for all rows.

Adapters stand beside it (beside.py), or within a packed copy of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from backend.decoder import int8, quick
from backend.decoder.int8 import Rounded
from backend.decoder.quick import Blocks, ByteBlocks


class Weights(NamedTuple):
    """What the base says: the layers' weights below one another. They are views of this storage themselves."""

    weight: Tensor  # (O, I)
    bias: Tensor | None  # (O,)
    packed: Tensor | Rounded | Blocks | ByteBlocks | None = None  # the weight in the order in which it is read


def plain(layer: nn.Module) -> nn.Module:
    """The base's own layer beneath whatever PEFT has put around it."""
    found: nn.Module = layer.base_layer if isinstance(layer, LoraLinear) else layer
    return found


def can_join(layers: Sequence[nn.Module]) -> bool:
    """Whether these are ordinary linear layers of one number format; quantised ones are not."""
    inner = [plain(layer) for layer in layers]
    return all(type(layer) is nn.Linear for layer in inner) and len({layer.weight.dtype for layer in inner}) == 1


@torch.no_grad()
def join(layers: Sequence[nn.Module]) -> Weights:
    """Put the layers' weights into one storage; each layer keeps its own as a view of it, so nothing is held twice."""
    inner: list[Any] = [plain(layer) for layer in layers]
    if len(inner) == 1:
        return Weights(inner[0].weight.data, None if inner[0].bias is None else inner[0].bias.data)
    whole = torch.cat([layer.weight.data for layer in inner])
    start = 0
    for layer in inner:
        layer.weight.data = whole[start : start + layer.out_features]
        start += layer.out_features
    if all(layer.bias is None for layer in inner):
        return Weights(whole, None)
    return Weights(whole, torch.cat([_bias(layer) for layer in inner]))


@lru_cache(maxsize=4)
def can_pack(dtype: torch.dtype, device: str) -> bool:
    """Whether this build of torch has oneDNN's products for this number format on this processor."""
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        eye = torch.eye(16, dtype=dtype)
        return bool(torch.equal(product(eye, packed(Weights(eye, None), 16)), eye))
    except (AttributeError, RuntimeError):
        return False


@torch.no_grad()
def merged(weights: Weights, layers: Sequence[nn.Module], adapter: str) -> Weights:
    """A copy with the adapter added in: W + s B A of every layer, A and B rounded to the base's number format as beside them."""
    whole, start = weights.weight.clone(), 0
    for layer in layers:
        rows = slice(start, start + int(plain(layer).out_features))  # type: ignore[arg-type]
        if isinstance(layer, LoraLinear) and adapter in layer.lora_A:
            a, b = (part[adapter].weight.to(whole.dtype) for part in (layer.lora_A, layer.lora_B))
            whole[rows].addmm_(b, a, alpha=layer.scaling[adapter])
        start = rows.stop
    return Weights(whole, weights.bias)


@torch.no_grad()
def packed(weights: Weights, rows: int) -> Weights:
    """With a copy in the blocks that oneDNN wants for about so many rows: a product with few rows takes half the time then."""
    return weights._replace(packed=torch.ops.mkldnn._reorder_linear_weight(weights.weight, rows))


def rounded(weights: Weights, rows: int) -> Weights:
    """The same in whole numbers of 8 bits."""
    return weights._replace(packed=int8.rounded(weights.weight, rows))


def can_tile(dtype: torch.dtype, device: str) -> bool:
    """Whether there are tiles for this number format, and nobody shares a product with other threads: a tile has one."""
    is_known = device == "cpu" and dtype in (torch.float32, torch.bfloat16)
    return is_known and torch.get_num_threads() == 1 and quick.tiled() is not None


@torch.no_grad()
def tiled(weights: Weights) -> Weights:
    """With a copy in the blocks that tiles read (tiles.py), for few rows."""
    return weights._replace(packed=quick.blocked(weights.weight))


@torch.no_grad()
def byte_tiled(weights: Weights) -> Weights:
    """The same in whole numbers of 8 bits."""
    return weights._replace(packed=quick.byte_blocked(*int8.whole_weights(weights.weight)))


def product(x: Tensor, weights: Weights, more: Tensor | None = None) -> Tensor:
    """Outputs of all the layers side by side, of the base alone, and ``more`` (R, O). x (R, I) -> (R, O)"""
    weight, bias, blocks = weights
    if isinstance(blocks, Rounded | Blocks | ByteBlocks):
        both = more if bias is None or more is None else more + bias
        both = bias if both is None else both
        if isinstance(blocks, Rounded):
            return int8.product(x, blocks, both)
        return quick.product(x, blocks, both) if isinstance(blocks, Blocks) else quick.byte_product(x, blocks, both)
    if blocks is None:
        out = torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
        return out if more is None else out.add_(more)
    if more is None:
        found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, blocks, bias, "none", [], "")
    else:
        found = torch.ops.mkldnn._linear_pointwise.binary(x, more, blocks, bias, "add")
    return found


def _bias(layer: Any) -> Tensor:
    found: Tensor = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.data
    return found
