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

import psutil
import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from backend.decoder import beside, joined, passing, plain, quick
from backend.decoder.beside import Adapted, Shares
from backend.decoder.int8 import Rounded
from backend.decoder.joined import Weights
from backend.decoder.passing import Passing, Text
from backend.decoder.plain import Norm
from backend.decoder.quick import Loops

SPARE = 3  # times the memory of a copy is to be free before it is made; our choice
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


class Kind(NamedTuple):
    """Adapters of one rank, prepared for every product of the stack."""

    names: tuple[str, ...]
    parts: list[list[Adapted | None]]  # by layer: queries with keys and values, output, gate with up, down


class Adapters(NamedTuple):
    """Adapters in use, by their rank. Made anew when their weights change."""

    kinds: list[Kind]
    told: Tensor | None  # as ``passing.told`` says

    def shares(self, of: Callable[[tuple[str, ...]], Shares]) -> list[Shares]:
        """By kind, from its names."""
        return [of(kind.names) for kind in self.kinds]


class _Layer(NamedTuple):
    before_attention: Norm
    of_queries: Norm | None  # some families normalise queries and keys first
    of_keys: Norm | None
    before_mlp: Norm
    activation: Callable[[Tensor], Tensor]
    is_silu: bool


class Stack:
    """The backbone's layers with their weights joined. Heads are counted as H of keys, heads of queries."""

    def __init__(self, backbone: Any, head: nn.Module) -> None:
        """Rearranges the weights in memory; every module of the model computes what it did. ``head`` makes the logits."""
        self.backbone = backbone
        self._weights = [[joined.join(group) for group in _groups(layer)] for layer in backbone.layers]
        self._head = joined.join([head])
        self._layers = [_layer_of(layer) for layer in backbone.layers]
        self._last_norm = _norm_of(backbone.norm)
        self._packed: list[list[Weights]] | None = None
        self._packed_head: Weights | None = None
        self._tiled: list[list[Weights]] | None = None  # for products of few rows
        self._tiled_head: Weights | None = None
        self._passing: Passing | None = None  # where texts are read by tiles
        attention = backbone.layers[0].self_attn
        self.head_size = int(attention.head_dim)
        self.keys = joined.plain(attention.k_proj).out_features // self.head_size  # type: ignore[operator]
        self.queries = joined.plain(attention.q_proj).out_features // self.head_size  # type: ignore[operator]
        self.loops = quick.loops_for(self.dtype, self.device.type) if self._is_of_one_format() else None
        self._turns: tuple[Tensor, Tensor] | None = (
            None  # for ``plain.turned``, all positions so far, (T, 1, head size)
        )

    def _is_of_one_format(self) -> bool:
        """Whether loops, which are told addresses alone, may take all numbers for those of one format."""
        norms = [norm for one in self._layers for norm in (one.before_attention, one.before_mlp)]
        given = [self.backbone.embed_tokens.weight, *(norm.gain for norm in (*norms, self._last_norm))]
        return all(one.dtype == self.dtype for one in given)

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

    def first_products(self, rows: int, *, of_prompts: bool) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor]]:
        """The first layer's products, and an adapter's of random numbers as it is added when rows are written or when prompts
        are read, with rows to try them on, (rows, I)."""
        seated = beside.Seats(0, 1, None, None, None, torch.zeros(rows, dtype=torch.long))
        draw = torch.Generator().manual_seed(0)
        for weights in (self._for_many if of_prompts else self._for_few)[0]:
            outputs, inputs = weights.weight.shape
            lora = beside.drawn(1, inputs, outputs, self.dtype, draw)
            x = torch.randn(rows, inputs, generator=draw).to(self.dtype)
            for shares in (None, beside.EVERY if of_prompts else seated):
                yield partial(_product, weights=weights, lora=[lora], shares=[shares], loops=self.loops), x

    def room(self, slots: int, places: int) -> Tensor:
        """Empty keys and values for so many rows and tokens, (layers, 2, slots, H, places, D)."""
        shape = (len(self._weights), 2, slots, int(self.keys), places, self.head_size)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def pack(self, rows: int, *, is_rounded: bool = False) -> None:
        """Hold a copy of the weights in the order that about so many rows read quickest, for as long as the stack is there.

        ``is_rounded``: the layers' in whole numbers of 8 bits (int8.py), which ask for less memory and time and change the
        numbers. The head's stay: rounding them changes what is said as much as all layers do.
        """
        can_pack = joined.can_pack(self.dtype, self.device.type)
        if is_rounded or can_pack:
            copied = joined.rounded if is_rounded else joined.packed
            self._packed = [[copied(weights, rows) for weights in every] for every in self._weights]
        if can_pack:
            self._packed_head = joined.packed(self._head, rows)

    def tile(self) -> None:
        """Hold another copy for products by tiles, where this processor has them and there is memory to spare. On the thread that
        computes. Those of many rows are by tiles too, but in bfloat16, where libraries have an instruction of their own."""
        self._tiled = self._tiled_head = self._passing = None
        size = sum(weights.weight.nbytes for every in [*self._weights, [self._head]] for weights in every)
        if not joined.can_tile(self.dtype, self.device.type) or SPARE * size > psutil.virtual_memory().available:
            return
        self._tiled_head = joined.tiled(self._head)
        is_rounded = self._packed is not None and isinstance(self._packed[0][0].packed, Rounded)
        if not is_rounded or quick.byte_tiled() is not None:
            copied = joined.byte_tiled if is_rounded else joined.tiled
            self._tiled = [[copied(weights) for weights in every] for every in self._weights]
        if self.dtype == torch.float32 and not is_rounded:  # nobody asks for it any more
            self._packed = self._packed_head = None
        if self.dtype == torch.float32 and self._tiled is not None and self._are_known():
            norms = [(one.before_attention, one.before_mlp) for one in self._layers]
            self._passing = passing.passing_of(self._tiled, norms, (int(self.queries), int(self.keys), self.head_size))

    def _are_known(self) -> bool:
        """Whether loops have all that stands between the layers' products."""
        return self.loops is not None and all(one.is_silu and one.of_queries is None for one in self._layers)

    @property
    def _for_many(self) -> list[list[Weights]]:
        by_tiles = self._tiled if self.dtype == torch.float32 else None
        return by_tiles or self._packed or self._weights

    @property
    def _for_few(self) -> list[list[Weights]]:
        return self._tiled or self._for_many

    def adapters(self, names: Sequence[str]) -> Adapters:
        """These adapters' weights as they are now."""
        ranks = {name: beside.rank_of(self.linear_layers, name) for name in names}
        used = sorted({*ranks.values()} - {0})
        kinds = [self._kind([name for name in names if ranks[name] == rank], rank) for rank in used]
        return Adapters(kinds, passing.told([kind.parts for kind in kinds]))

    def holds(self, adapter: str) -> bool:
        """Whether it is in memory and has a part of what is read here."""
        return beside.rank_of(self.linear_layers, adapter) > 0

    def _kind(self, names: Sequence[str], rank: int) -> Kind:
        layers = self.backbone.layers
        return Kind(
            tuple(names), [[beside.adapted(group, names, rank) for group in _groups(layer)] for layer in layers]
        )

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
        return joined.product(states, self._tiled_head or self._packed_head or self._head)

    @torch.no_grad()
    def read(
        self,
        tokens: Tensor,
        positions: Tensor,
        adapters: Adapters,
        shares: Sequence[Shares] | None,
        attend: Attend,
        wanted: Tensor | None = None,
        wanted_shares: Sequence[Shares] | None = None,
        between: Callable[[], None] | None = None,
        are_few: bool = False,
        texts: Sequence[Text] | None = None,
    ) -> Tensor:
        """The states after these tokens: one of each row, or all of some texts. tokens and positions (R,) -> (R, D)

        ``shares`` says by kind of adapters whose each row is; None: there is one adapter and every row is its. With ``wanted``
        (W,) the states of these places alone, (W, D): in the last layer ``attend`` is then asked for their queries only.
        Where ``shares`` is given and a place is named, ``wanted_shares`` says the same of these places.
        ``between`` is called before every layer but the first; it may read other texts. ``are_few``: the rows are written, a token
        each, and not read; products of few rows may have bits of their own, and what is wanted is always in those.
        ``texts``: ``attend`` keeps and sees what ``Loops.see`` does of these, and ``shares`` are spans; then all layers but the last are
        one call where that can be.
        """
        x: Tensor = self.backbone.embed_tokens(tokens)
        turns = self._turns_for(positions, x)
        every = self._for_few if are_few else self._for_many
        whose: Sequence[Shares] = [beside.EVERY for _ in adapters.kinds] if shares is None else shares

        def product(at: int, which: int, x: Tensor, more: Tensor | None = None) -> Tensor:
            own = [kind.parts[at][which] for kind in adapters.kinds]
            return _product(x, every[at][which], own, whose, more, self.loops)

        done = 0
        if texts is not None and self._passing is not None and adapters.told is not None:
            done = len(self._layers) - 1
            self._passing.pass_through(x, positions, turns, adapters.told, whose, texts, done)
        for at, layer in enumerate(self._layers[done:], done):
            if between is not None and at > 0:
                between()
            heads = product(at, 0, self._normed(layer.before_attention, x)).view(len(x), -1, self.head_size)
            query, key = self._turn(layer, heads, positions, turns)
            if wanted is not None and at == len(every) - 1:
                query, x, every = query[wanted], x[wanted], self._for_few
                whose = whose if wanted_shares is None else wanted_shares
            seen = attend(at, query, key, heads[:, self.queries + self.keys :])
            if not len(x):  # nobody asks for the states, and the keys and values are kept
                return x
            x = product(at, 1, seen, x)
            both = product(at, 2, self._normed(layer.before_mlp, x))
            x = product(at, 3, self._gated(layer, both), x)
        return self._normed(self._last_norm, x)

    def _normed(self, norm: Norm, x: Tensor) -> Tensor:
        return plain.normed(norm, x) if self.loops is None else self.loops.normed(norm, x)

    def _gated(self, layer: _Layer, both: Tensor) -> Tensor:
        if self.loops is None or not layer.is_silu:
            return plain.gated(layer.activation, both)
        return self.loops.gated(both)

    def _turn(
        self, layer: _Layer, heads: Tensor, positions: Tensor, turns: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys with their positions. With loops they are written where they were."""
        both = heads[:, : self.queries + self.keys]
        if layer.of_queries is not None and layer.of_keys is not None:
            query, key = both[:, : self.queries], both[:, self.queries :]
            normed = torch.cat([plain.normed(layer.of_queries, query), plain.normed(layer.of_keys, key)], 1)
            both = normed if self.loops is None else both.copy_(normed)
        if self.loops is None:
            both = plain.turned(both, *turns)
        else:
            self.loops.turn_in_place(both, *turns, positions)
        return both[:, : self.queries], both[:, self.queries :]

    def _turns_for(self, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cos and sin for ``plain.turned``: of these positions, (R, 1, head size), or with loops of all so far, (T, 1, head size)."""
        most = int(positions.max())
        if self._turns is None or most >= len(self._turns[0]) or self._turns[0].dtype != x.dtype:
            every = torch.arange(-(-(most + 1) // 256) * 256, device=x.device)
            cos, sin = self.backbone.rotary_emb(x[None], every[None])  # (1, T, head size)
            first, second = sin[0, :, None].chunk(2, -1)
            self._turns = cos[0, :, None], torch.cat([-first, second], -1)
        return self._turns if self.loops is not None else (self._turns[0][positions], self._turns[1][positions])


def _product(
    x: Tensor,
    weights: Weights,
    lora: Sequence[Adapted | None],
    shares: Sequence[Shares],
    more: Tensor | None = None,
    loops: Loops | None = None,
) -> Tensor:
    """The base's product, ``more`` (R, O), and what each row's adapter adds. (R, I) -> (R, O)"""
    out = joined.product(x, weights, more)
    for own, rows in zip(lora, shares, strict=True):
        if own is not None and rows is not None:
            beside.add(out, x, own, rows, loops)
    return out


def _layer_of(layer: Any) -> _Layer:
    mine = layer.self_attn
    has_norms = hasattr(mine, "q_norm")
    return _Layer(
        _norm_of(layer.input_layernorm),
        _norm_of(mine.q_norm) if has_norms else None,
        _norm_of(mine.k_norm) if has_norms else None,
        _norm_of(layer.post_attention_layernorm),
        layer.mlp.act_fn,
        isinstance(layer.mlp.act_fn, nn.SiLU | SiLUActivation),
    )


def _norm_of(norm: Any) -> Norm:
    return Norm(norm.weight, float(norm.variance_epsilon))


def _groups(layer: Any) -> list[list[nn.Module]]:
    """The linear layers that read the same input, in the order of ``Adapters.parts``."""
    mine, mlp = layer.self_attn, layer.mlp
    return [[mine.q_proj, mine.k_proj, mine.v_proj], [mine.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]
