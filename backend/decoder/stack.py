"""A decoder wired like Llama, read without a gradient in the fewest products, with attention as the caller keeps it.

x <- x + attention(norm(x)); x <- x + mlp(norm(x)), with rotary positions (Touvron et al. 2023, arXiv:2302.13971; Su et al.
2021, arXiv:2104.09864). The weights and norms are the model's own; the wiring between them is written here once more, because
at a few rows the calls between the products take longer than the products. Other families take transformers' own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.decoder import joined
from backend.decoder.joined import Adapted, Weights

WIRED_ALIKE = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
FIXED_TURNS = (
    "default",
    "linear",
    "llama3",
    "yarn",
)  # kinds of rotary positions that do not depend on the text's length

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query (R, heads, D), key (R, H, D), value (R, H, D)) -> (R, heads * D): keep what is new, and say what each token sees."""


def is_wired_alike(backbone: nn.Module) -> bool:
    return type(backbone).__name__ in WIRED_ALIKE


def can_stack(backbone: Any, head: nn.Module | None) -> bool:
    """Whether the backbone is wired this way and its weights can stand side by side."""
    return (
        is_wired_alike(backbone)
        and head is not None
        and joined.can_join([head])
        and getattr(backbone.rotary_emb, "rope_type", "default") in FIXED_TURNS
        and all(joined.can_join(group) for layer in backbone.layers for group in _groups(layer))
    )


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the first half of a head is turned against the second. (..., head size)"""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Adapters(NamedTuple):
    """Adapters in use, prepared for every product of the stack. Made anew when their weights change."""

    parts: list[list[Adapted | None]]  # by layer: queries with keys and values, output, gate with up, down


class Stack:
    """The backbone's layers with their weights joined. Heads are counted as H of keys, heads of queries."""

    def __init__(self, backbone: Any, head: nn.Module) -> None:
        """Rearranges the weights in memory; every module of the model computes what it did. ``head`` makes the logits."""
        self.backbone = backbone
        self._weights = [[joined.join(group) for group in _groups(layer)] for layer in backbone.layers]
        self._head = joined.join([head])
        self._packed: list[list[Weights]] | None = None
        self._packed_head: Weights | None = None
        attention = backbone.layers[0].self_attn
        self.head_size = int(attention.head_dim)
        self.keys = joined.plain(attention.k_proj).out_features // self.head_size  # type: ignore[operator]
        self.queries = joined.plain(attention.q_proj).out_features // self.head_size  # type: ignore[operator]
        self._turns: tuple[Tensor, Tensor] | None = None  # cos and sin of all positions so far, (T, 1, head size)

    @property
    def linear_layers(self) -> list[nn.Module]:
        """Every layer whose adapters a read adds in, as PEFT has wrapped it."""
        return [linear for layer in self.backbone.layers for group in _groups(layer) for linear in group]

    @property
    def device(self) -> torch.device:
        return self._head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._head.weight.dtype

    def first_products(self, rows: int) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor]]:
        """The first layer's products, each with an adapter of random numbers, and rows to try them on, (rows, I)."""
        draw = torch.Generator().manual_seed(0)
        for weights in (self._packed or self._weights)[0]:
            outputs, inputs = weights.weight.shape
            lora = joined.drawn(inputs, outputs, self.dtype, draw)
            x = torch.randn(rows, inputs, generator=draw).to(self.dtype)
            yield partial(joined.product, weights=weights, lora=lora, mask=None), x

    def room(self, slots: int, places: int) -> Tensor:
        """Empty keys and values for so many rows and tokens, (layers, 2, slots, H, places, D)."""
        shape = (len(self._weights), 2, slots, int(self.keys), places, self.head_size)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def pack(self, rows: int) -> None:
        """Hold a copy of the weights in the order that about so many rows read quickest, for as long as the stack is there."""
        if joined.can_pack(self.dtype, self.device.type):
            self._packed = [[joined.packed(weights, rows) for weights in every] for every in self._weights]
            self._packed_head = joined.packed(self._head, rows)

    def adapters(self, names: Sequence[str]) -> Adapters:
        """These adapters' weights as they are now."""
        return Adapters([[joined.adapted(group, names) for group in _groups(layer)] for layer in self.backbone.layers])

    @contextmanager
    def for_few_rows(self, adapter: str | None, rows: int) -> Iterator[Adapters]:
        """Within: what ``read`` is to be given for this adapter. On a processor it has a copy of the weights then, with the
        adapter added in and in the order that about so many rows read quickest."""
        if not joined.can_pack(self.dtype, self.device.type):
            yield self.adapters([] if adapter is None else [adapter])
            return
        self._packed = [
            [
                joined.packed(weights if adapter is None else joined.merged(weights, group, adapter), rows)
                for weights, group in zip(every, _groups(layer), strict=True)
            ]
            for every, layer in zip(self._weights, self.backbone.layers, strict=True)
        ]
        if self._packed_head is None:  # no adapter changes it: it stays
            self._packed_head = joined.packed(self._head, rows)
        try:
            yield self.adapters([])
        finally:
            self._packed = None

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """(R, D) -> (R, V)"""
        return joined.product(states, self._packed_head or self._head, None, None)

    @torch.no_grad()
    def read(
        self,
        tokens: Tensor,
        positions: Tensor,
        adapters: Adapters,
        owners: Tensor | None,
        attend: Attend,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """The states after these tokens: one of each row, or all of some texts. tokens and positions (R,) -> (R, D)

        ``owners`` (R, adapters) says whose each row is, as 0 and 1; None: there is one adapter and every row is its. With
        ``wanted`` (W,) the states of these places alone, (W, D): in the last layer ``attend`` is then asked for their
        queries only.
        """
        x: Tensor = self.backbone.embed_tokens(tokens)
        cos, sin = self._turned(positions, x)
        every, masks = self._packed or self._weights, _Masks(owners)
        for at, layer in enumerate(self.backbone.layers):
            weights, lora = every[at], adapters.parts[at]
            mine, mlp = layer.self_attn, layer.mlp
            found = joined.product(_normed(layer.input_layernorm, x), weights[0], lora[0], masks.of(lora[0]))
            heads = found.view(len(x), -1, self.head_size)
            query, key = self._turn(mine, heads, cos, sin)
            if wanted is not None and at == len(every) - 1:
                query, x, masks = query[wanted], x[wanted], _Masks(None if owners is None else owners[wanted])
            seen = attend(at, query, key, heads[:, self.queries + self.keys :])
            if not len(x):  # nobody asks for the states, and the keys and values are kept
                return x
            x = x + joined.product(seen, weights[1], lora[1], masks.of(lora[1]))
            gate, up = joined.product(
                _normed(layer.post_attention_layernorm, x), weights[2], lora[2], masks.of(lora[2])
            ).chunk(2, -1)
            x = x + joined.product(mlp.act_fn(gate).mul_(up), weights[3], lora[3], masks.of(lora[3]))
        return _normed(self.backbone.norm, x)

    def _turn(self, attention: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys with their positions; some families normalise them first."""
        both = heads[:, : self.queries + self.keys]
        if hasattr(attention, "q_norm"):
            query, key = both[:, : self.queries], both[:, self.queries :]
            both = torch.cat([_normed(attention.q_norm, query), _normed(attention.k_norm, key)], 1)
        both = turned(both, cos, sin)
        return both[:, : self.queries], both[:, self.queries :]

    def _turned(self, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cos and sin of these positions, (R, 1, head size); all positions so far are computed once."""
        most = int(positions.max())
        if self._turns is None or most >= len(self._turns[0]) or self._turns[0].dtype != x.dtype:
            every = torch.arange(-(-(most + 1) // 256) * 256, device=x.device)
            cos, sin = self.backbone.rotary_emb(x[None], every[None])  # (1, T, head size)
            self._turns = cos[0, :, None], sin[0, :, None]
        return self._turns[0][positions], self._turns[1][positions]


class _Masks:
    """Those of one read; most layers share them."""

    def __init__(self, owners: Tensor | None) -> None:
        self._owners = owners
        self._made: dict[tuple[int, ...], Tensor] = {}

    def of(self, lora: Adapted | None) -> Tensor | None:
        if lora is None or self._owners is None:
            return None
        if lora.layout not in self._made:
            self._made[lora.layout] = joined.mask_of(lora, self._owners)
        return self._made[lora.layout]


def _normed(norm: Any, x: Tensor) -> Tensor:
    """RMS normalisation, Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4, in float32 whatever x is; PyTorch's own takes more
    passes. (..., D)"""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = length.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()  # (..., 1)
    return (x * inverse).to(x.dtype).mul_(norm.weight)


def _groups(layer: Any) -> list[list[nn.Module]]:
    """The linear layers that read the same input, in the order of ``Adapters.parts``."""
    mine, mlp = layer.self_attn, layer.mlp
    return [[mine.q_proj, mine.k_proj, mine.v_proj], [mine.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]
