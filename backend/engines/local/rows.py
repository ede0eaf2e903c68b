"""The rows of a running batch: what the model has read of each, and one step that reads one more token of all.

The numbers of a row must not depend on its company, or the same seed gives another text beside other requests. Two things
would make them depend on it. Where a row's tokens stand in the cache decides in which order sums are taken: here token p of
a row stands at place p, whoever else is there. And a matrix product takes another path for few rows than for many: here
there are never fewer than ``FEWEST_ROWS``, spare ones included, and on a CPU a prompt is read by itself. There the logits of
a row are equal to the last bit alone and among up to ``FEWEST_ROWS``; beyond, and on other devices, they are as equal as the
libraries make them.

Models whose cache is more than keys and values of all tokens (sliding windows, states) go as ``PaddedRows``: every start is
a batch of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

if TYPE_CHECKING:
    from .model import Base

FEWEST_ROWS = 16  # our choice; on newer processors a product's row has the same bits from here on (docs/decisions/005)
ROOM = 64  # places are added so many at a time


class FixedRows:
    """Rows that come and go between steps. Row i of ``step`` is the i-th of those that were added and kept."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._slots: list[int] = []  # where each row lives, in the order of the rows
        self._read = torch.zeros(0, dtype=torch.long, device=base.device)  # (S,) tokens in the cache, by slot
        self._layers: list[_Layer] = []

    def add(self, prompts: Sequence[Sequence[int]], sources: Sequence[int]) -> torch.Tensor:
        """Read all but the last token of each prompt once, and add one row for each source: the index of its prompt.

        Returns the prompts' last tokens, (rows,): what the next step is to be given for them.
        """
        read = _read(self._base, prompts)
        room = read[0].keys.shape[2]
        self._layers = self._layers or [_Layer(layer.keys[:0], layer.values[:0]) for layer in read]
        slots = self._take_slots(len(sources), room)
        device = self._base.device
        place, source = torch.tensor(slots, device=device), torch.tensor(sources, device=device)
        for mine, new in zip(self._layers, read, strict=True):
            mine.keys[place, :, :room] = new.keys[source]
            mine.values[place, :, :room] = new.values[source]
        self._read[place] = torch.tensor([len(prompts[at]) - 1 for at in sources], device=device)
        self._slots += slots
        return torch.tensor([prompts[at][-1] for at in sources], device=device)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Each row reads its next token, (rows,); returns the float32 logits of the one after it, (rows, V)."""
        place = torch.tensor(self._slots, device=self._base.device)
        whole = torch.zeros_like(self._read)
        whole[place] = tokens
        if int(self._read[place].max()) + 1 > self._room:
            self._resize(len(self._read), self._room + ROOM)
        is_hidden = torch.arange(self._room, device=whole.device) > self._read.unsqueeze(1)  # (S, places)
        for layer in self._layers:
            layer.at = self._read
        mask = _additive(is_hidden[:, None, None], self._base.dtype)
        with _one_by_one(self._base):
            logits = self._base.forward(
                whole.unsqueeze(1), mask, self._read.unsqueeze(1), Cache(layers=[*self._layers])
            )
        self._read[place] += 1
        return logits[place]

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order."""
        stay = [self._slots[at] for at in rows]
        self._read[list(set(self._slots) - set(stay))] = 0  # a spare slot reads on too, and must not outgrow its places
        self._slots = stay
        spare = len(self._read) - _rounded(len(self._slots), FEWEST_ROWS)
        if self._slots and spare > 0:
            self._gather()

    @property
    def _room(self) -> int:
        return self._layers[0].keys.shape[2]

    def _take_slots(self, count: int, room: int) -> list[int]:
        used = set(self._slots)
        free = [slot for slot in range(len(self._read)) if slot not in used]
        size = len(self._read) + _rounded(max(0, count - len(free)), FEWEST_ROWS)
        free += range(len(self._read), size)
        self._resize(size, max(room, self._room))
        return free[:count]

    def _resize(self, size: int, room: int) -> None:
        """More slots, more places, or both; what is there stays where it is."""
        if (size, room) != (len(self._read), self._room):
            self._read = torch.cat([self._read, self._read.new_zeros(size - len(self._read))])
            for layer in self._layers:
                layer.keys, layer.values = _enlarged(layer.keys, size, room), _enlarged(layer.values, size, room)

    def _gather(self) -> None:
        """Move the rows to the first slots and let the rest go."""
        size = _rounded(len(self._slots), FEWEST_ROWS)
        chosen = self._slots + [slot for slot in range(len(self._read)) if slot not in set(self._slots)]
        place = torch.tensor(chosen[:size], device=self._base.device)
        self._read = self._read[place]
        for layer in self._layers:
            layer.keys, layer.values = layer.keys[place], layer.values[place]
        self._slots = list(range(len(self._slots)))


class PaddedRows:
    """Rows that start together, padded at the left, over the model's own kind of cache. ``last`` is what the first step reads."""

    def __init__(self, base: Base, prompts: Sequence[Sequence[int]], sources: Sequence[int]) -> None:
        self._base = base
        self._cache = DynamicCache(config=base.model.config)
        longest = max(len(prompt) for prompt in prompts) - 1
        tokens = torch.full((len(prompts), longest), base.pad_token)
        is_real = torch.zeros_like(tokens)
        for at, prompt in enumerate(prompts):
            tokens[at, longest + 1 - len(prompt) :] = torch.tensor(prompt[:-1], dtype=torch.long)
            is_real[at, longest + 1 - len(prompt) :] = 1
        self._is_real = is_real.to(base.device)  # (rows, columns)
        if longest:
            base.forward(tokens.to(base.device), self._is_real, _positions(self._is_real), self._cache)
        self.keep(sources)
        self.last = torch.tensor([prompts[at][-1] for at in sources], device=base.device)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """As ``FixedRows.step``."""
        self._is_real = torch.cat([self._is_real, torch.ones_like(tokens).unsqueeze(1)], 1)
        position = _positions(self._is_real)[:, -1:]
        return self._base.forward(tokens.unsqueeze(1), self._is_real, position, self._cache)

    def keep(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(list(rows), device=self._base.device)
        self._is_real = self._is_real[chosen]
        if self._is_real.shape[1]:
            self._cache.reorder_cache(chosen)  # of states too, which know no other way to choose rows


@contextmanager
def _one_by_one(base: Base) -> Iterator[None]:
    """On a CPU attention is plain products in here: the fused one gives rows of its second thread other bits on some."""
    config = base.model.config
    usual = config._attn_implementation
    if base.device.type == "cpu":
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = usual


def can_be_fixed(base: Base) -> bool:
    """Whether this model's cache is keys and values of all tokens, and its forward takes places and a full mask.

    Models that transformers does not count among those whose attention can be exchanged (GPT-Neo, Falcon) may make a mask of their
    own from where a token stands in the cache, which is another place here.
    """
    kinds_of_layer = {type(layer) for layer in DynamicCache(config=base.model.config).layers}
    attention = str(getattr(base.model.config, "_attn_implementation", ""))
    is_plain = bool(getattr(base.model, "_supports_attention_backend", False)) and attention in ("sdpa", "eager")
    return is_plain and base.takes_position and kinds_of_layer == {DynamicLayer}


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, (S, heads, places, width). ``at`` (S,) is where the next token of each row goes."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int = 0) -> None:
        super().__init__()
        self.keys: torch.Tensor = keys
        self.values: torch.Tensor = values
        self.is_initialized = True
        self.at: torch.Tensor | None = None
        self._room = room  # for the first tokens of prompts, while there is no ``at``

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: there are tensors from the start."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.at is None:
            more = [0, 0, 0, self._room - key_states.shape[2]]
            self.keys = torch.nn.functional.pad(key_states, more)
            self.values = torch.nn.functional.pad(value_states, more)
        else:
            rows = torch.arange(len(self.at), device=self.at.device)
            self.keys[rows, :, self.at] = key_states[:, :, 0]
            self.values[rows, :, self.at] = value_states[:, :, 0]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[2] or self._room, 0

    def get_seq_length(self) -> int:
        return 0  # asked only to count positions, which are always given

    def get_max_length(self) -> int:
        return -1


def _read(base: Base, prompts: Sequence[Sequence[int]]) -> list[_Layer]:
    """What the model keeps of all but the last token of each prompt, side by side: (prompts, heads, room, width) a layer.

    On a CPU prompt by prompt: products of many rows gain nothing from more of them there, and how many prompts are read
    together would show in the last bits.
    """
    parts = [[prompt] for prompt in prompts] if base.device.type == "cpu" else [prompts]
    found = [_read_together(base, part) for part in parts]
    if len(found) == 1:
        return found[0]
    room = max(layers[0].keys.shape[2] for layers in found)
    return [
        _Layer(
            torch.cat([_enlarged(layer.keys, 1, room) for layer in layers]),
            torch.cat([_enlarged(layer.values, 1, room) for layer in layers]),
        )
        for layers in zip(*found, strict=True)
    ]


def _read_together(base: Base, prompts: Sequence[Sequence[int]]) -> list[_Layer]:
    """One forward; what stands behind a prompt's end is never looked at."""
    room = _rounded(max(len(prompt) for prompt in prompts) + 1, ROOM)  # holds the padding too: ROOM is a multiple of it
    longest = _rounded(max(2, *(len(prompt) for prompt in prompts)) - 1, FEWEST_ROWS)
    tokens = torch.full((len(prompts), longest), base.pad_token)
    for at, prompt in enumerate(prompts):
        tokens[at, : len(prompt) - 1] = torch.tensor(prompt[:-1], dtype=torch.long)
    places = torch.arange(longest, device=base.device)
    is_hidden = torch.arange(room, device=base.device) > places.unsqueeze(1)  # (T, places)
    empty = torch.zeros(0, device=base.device)
    layers = [_Layer(empty.view(0, 0, 0, 0), empty.view(0, 0, 0, 0), room) for _ in range(base.layers)]
    mask = _additive(is_hidden[None, None].expand(len(prompts), -1, -1, -1), base.dtype)
    position = places.clamp(max=base.context - 1).expand(len(prompts), -1)  # padding may reach beyond the last position
    base.forward(tokens.to(base.device), mask, position, Cache(layers=[*layers]))
    return layers


def _additive(is_hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask that both ways of computing attention read alike: 0 where a token may be seen, the least number elsewhere."""
    return torch.zeros(is_hidden.shape, dtype=dtype, device=is_hidden.device).masked_fill(
        is_hidden, torch.finfo(dtype).min
    )


def _enlarged(tensor: torch.Tensor, size: int, room: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, [0, 0, 0, room - tensor.shape[2], 0, 0, 0, size - tensor.shape[0]])


def _positions(is_real: torch.Tensor) -> torch.Tensor:
    return (is_real.cumsum(-1) - 1).clamp(min=0)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
