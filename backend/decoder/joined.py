"""Linear layers that read the same input, as one product, with the LoRA parts of any number of adapters beside it.

y = x W^T + b + sum over adapters k of s_k (x A_k^T) B_k^T, Hu et al. 2021 (arXiv:2106.09685) eq. 3. The A of all adapters and
of all layers joined stand below one another, and so do the outputs; a row that belongs to one adapter has the inner values of
the others set to 0. So a batch of rows of several adapters reads the base's weights once, and needs three products where
layer by layer and adapter by adapter there are dozens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

# So that a row's sums do not depend on which other adapters are there (docs/decisions/009):
COLUMNS = 64  # an inner value has the same bits wherever it stands if their number is a multiple
ADDED_IN_ONE_GO = 192  # more inner values are added in parts, and where the border lies follows from their number


class Weights(NamedTuple):
    """What the base says: the layers' weights below one another. They are views of this storage themselves."""

    weight: Tensor  # (O, I)
    bias: Tensor | None  # (O,)
    packed: Tensor | None = None  # the weight in the order in which a processor reads it for a few rows


class Adapted(NamedTuple):
    """The LoRA parts of the adapters that some row uses, side by side."""

    a: Tensor  # (M, I); M sums the ranks over adapters and layers, and is rounded up with zeros
    b: Tensor  # (M, O), scaled: an adapter's rows are zero outside its own layer's outputs
    owner: Tensor  # (M,) which of the adapters each inner value belongs to
    groups: list[slice]  # of M: whole adapters that are added in one product
    layout: tuple[int, ...]  # ``owner`` once more: products of one layout can share a mask


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


@torch.no_grad()
def adapted(layers: Sequence[nn.Module], adapters: Sequence[str]) -> Adapted | None:
    """The adapters' parts of these layers as they are now, in the base's number format; None where there is none.

    An adapter without a part of some layer leaves that layer alone.
    """
    weight: Tensor = plain(layers[0]).weight  # type: ignore[assignment]
    outputs = [int(plain(layer).out_features) for layer in layers]  # type: ignore[arg-type]
    parts = [
        (owner, sum(outputs[:place]), outputs[place], layer, name)
        for owner, name in enumerate(adapters)
        for place, layer in enumerate(layers)
        if isinstance(layer, LoraLinear) and name in layer.lora_A
    ]
    if not parts:
        return None
    below = [layer.lora_A[name].weight for _, _, _, layer, name in parts]
    ranks = [len(a) for a in below]
    spare = -sum(ranks) % COLUMNS
    b = weight.new_zeros(sum(ranks) + spare, sum(outputs))
    row = 0
    for rank, (_, start, size, layer, name) in zip(ranks, parts, strict=True):
        b[row : row + rank, start : start + size] = layer.lora_B[name].weight.t() * layer.scaling[name]
        row += rank
    owners = [part[0] for part, rank in zip(parts, ranks, strict=True) for _ in range(rank)]
    a = torch.nn.functional.pad(torch.cat(below).to(b.dtype), (0, 0, 0, spare))
    layout = (*owners, *[0] * spare)
    return Adapted(a, b, torch.tensor(layout, device=weight.device), _groups(owners, len(b)), layout)


@lru_cache(maxsize=4)
def can_pack(dtype: torch.dtype, device: str) -> bool:
    """Whether this build of torch has oneDNN's products for this number format on this processor."""
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        eye = torch.eye(16, dtype=dtype)
        return bool(torch.equal(product(eye, packed(Weights(eye, None), 16), None, None), eye))
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


def drawn(inputs: int, outputs: int, dtype: torch.dtype, draw: torch.Generator) -> Adapted:
    """An adapter of random numbers, on the CPU, to try products with."""
    a, b = (
        torch.randn(COLUMNS, inputs, generator=draw).to(dtype),
        torch.randn(COLUMNS, outputs, generator=draw).to(dtype),
    )
    return Adapted(a, b, torch.zeros(COLUMNS, dtype=torch.long), [slice(0, COLUMNS)], (0,) * COLUMNS)


def mask_of(lora: Adapted, owners: Tensor) -> Tensor:
    """Which inner values are a row's own. ``owners`` (R, adapters) says whose each row is, as 0 and 1 -> (R, M)"""
    return owners[:, lora.owner]


def product(x: Tensor, weights: Weights, lora: Adapted | None, mask: Tensor | None) -> Tensor:
    """Outputs of all the layers side by side. x (R, I) -> (R, O)

    ``mask`` (R, M) is 1 at the inner values of a row's own adapter and 0 elsewhere (``mask_of``); None: there is one adapter
    and every row is its.
    """
    out = _of_base(x, weights)
    if lora is None:
        return out
    inner = torch.mm(x, lora.a.t())  # (R, M)
    if mask is not None:
        inner.mul_(mask)
    for group in lora.groups:
        out.addmm_(inner[:, group], lora.b[group])
    return out


def _groups(owners: Sequence[int], most: int) -> list[slice]:
    """Whole adapters together as far as a product adds up in one go; the last group takes what is spare."""
    starts = [0]
    for place, (before, owner) in enumerate(itertools.pairwise(owners), 1):
        if owner != before and owners.index(owner) + owners.count(owner) - starts[-1] > ADDED_IN_ONE_GO:
            starts.append(place)
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], most], strict=True)]


def _of_base(x: Tensor, weights: Weights) -> Tensor:
    weight, bias, blocks = weights
    if blocks is not None:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocks, bias, "none", [], "")
        return out
    return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())


def _bias(layer: Any) -> Tensor:
    found: Tensor = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.data
    return found
