"""Rows of an encoder-decoder (T5, BART): the encoder reads a prompt once for all its answers, the decoder writes behind it.

Raffel et al. 2020 (arXiv:1910.10683): the encoder's text ends with the end token, and the decoder reads a start token and
then the answer. An encoder's token sees the whole prompt, so only a whole prompt is found again, never a beginning of one.

As in rows.py a row's numbers do not depend on its company: on a CPU a prompt is encoded by itself, token p of an answer
stands at place p of a slot of its own, and a step never has fewer rows than ``FEWEST_ROWS``. That takes a decoder whose
positions can be told for every row, as T5's are: it adds to each score a number for the distance between the two tokens.
Answers of other encoder-decoders go as ``StartedRows``: every start is a batch of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutput

from backend.training import families

from .rows import FEWEST_ROWS, ROOM

if TYPE_CHECKING:
    from .model import Base

JOINING = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration")  # their blocks take a bias for every row


class Known:
    """What the encoder made of earlier prompts, by model and whole prompt; the ones not asked for longest leave when the
    room is full. Used by the model's thread alone."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.asked_tokens = 0
        self.found_tokens = 0
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], Tensor] = OrderedDict()

    def find(self, model: str, tokens: Sequence[int]) -> Tensor | None:
        """The encoder's last states, (T, D)."""
        self.asked_tokens += len(tokens)
        found = self._kept.get((model, tuple(tokens)))
        if found is not None:
            self._kept.move_to_end((model, tuple(tokens)))
            self.found_tokens += len(tokens)
        return found

    def put(self, model: str, tokens: Sequence[int], states: Tensor) -> None:
        if states.nbytes > self.limit_bytes or (model, tuple(tokens)) in self._kept:
            return
        while self.held_bytes + states.nbytes > self.limit_bytes:
            self.held_bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[model, tuple(tokens)] = states.clone()
        self.held_bytes += states.nbytes

    def clear(self) -> None:
        self._kept.clear()
        self.held_bytes = 0


class JoinedRows:
    """Rows of T5 that come and go between steps. Row i of ``step`` is the i-th of those that were added and kept."""

    def __init__(self, base: Base, known: Known, model: str) -> None:
        """``model`` names base and adapter together; adding and stepping happen within that adapter's scope."""
        self._base, self._known, self._model = base, known, model
        self._decoder: Any = base.model.get_decoder()
        self._slots: list[int] = []  # where each row lives, in the order of the rows
        self._read: list[int] = []  # tokens of the answer in the cache, by slot
        self._lengths: list[int] = []  # tokens of the prompt, by slot
        attention = self._decoder.block[0].layer[0].SelfAttention
        shape = (len(self._decoder.block), 2, 0, attention.n_heads, 0, attention.key_value_proj_dim)
        self._answer = torch.zeros(shape, dtype=base.dtype, device=base.device)  # (layers, 2, S, H, places, D)
        self._prompt = torch.zeros(shape, dtype=base.dtype, device=base.device)
        self._by_distance: Tensor | None = None  # (H, distances): what is added to a score

    def add(self, prompts: Sequence[Sequence[int]], sources: Sequence[int]) -> Tensor:
        """Encode each prompt once, and add one row for each source: the index of its prompt.

        Returns the start tokens, (rows,): what the next step is to be given for them.
        """
        read = [self._keys_and_values(states) for states in encoded(self._base, self._known, self._model, prompts)]
        slots = self._take_slots(len(sources), max(keys.shape[3] for keys in read))
        for slot, source in zip(slots, sources, strict=True):
            length = read[source].shape[3]
            self._prompt[:, :, slot, :, :length] = read[source]
            self._lengths[slot], self._read[slot] = length, 0
        self._slots += slots
        return torch.full((len(sources),), self._base.start_token, device=self._base.device)

    def step(self, tokens: Tensor) -> Tensor:
        """Each row reads its next token, (rows,); returns the float32 logits of the one after it, (rows, V)."""
        device = self._base.device
        places = _rounded(max(self._read[slot] for slot in self._slots) + 1, ROOM)
        seen = _rounded(max(self._lengths[slot] for slot in self._slots), ROOM)
        if places > self._answer.shape[4]:
            self._answer = pad(self._answer, [0, 0, 0, places - self._answer.shape[4]])
        slot, read = torch.tensor(self._slots, device=device), torch.tensor(self._read, device=device)
        whole = torch.zeros_like(read)
        whole[slot] = tokens
        own = [_Layer(keys[:, :, :places], values[:, :, :places], read) for keys, values in self._answer]
        prompt = [_Layer(keys[:, :, :seen], values[:, :, :seen], read) for keys, values in self._prompt]
        cache = EncoderDecoderCache(Cache(layers=[*own]), Cache(layers=[*prompt]))
        cache.is_updated = dict.fromkeys(range(len(own)), True)
        biases = self._biases(read, places, seen)
        with _one_by_one(self._base, self._decoder):
            states = self._decoder.embed_tokens(whole.unsqueeze(1))  # (S, 1, D)
            for block in self._decoder.block:
                states = block(states, None, biases[0], states, None, biases[1], past_key_values=cache)[0]
            logits = families.logits(self._base.model, "encoder_decoder", self._decoder.final_layer_norm(states)[:, 0])
        for at in self._slots:
            self._read[at] += 1
        return logits.float()[slot]

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order."""
        stay = [self._slots[at] for at in rows]
        for slot in set(self._slots) - set(stay):  # a spare slot is computed along, and must not need more places
            self._read[slot], self._lengths[slot] = 0, 1
        self._slots = stay
        size = _rounded(len(stay), FEWEST_ROWS)
        if stay and size < len(self._read):
            chosen = stay + [slot for slot in range(len(self._read)) if slot not in set(stay)]
            chosen = chosen[:size]
            self._answer, self._prompt = self._answer[:, :, chosen], self._prompt[:, :, chosen]
            self._read, self._lengths = ([kept[slot] for slot in chosen] for kept in (self._read, self._lengths))
            self._slots = list(range(len(stay)))

    def _keys_and_values(self, states: Tensor) -> Tensor:
        """What every layer's attention to the prompt looks at. (T, D) -> (layers, 2, H, T, head size)"""
        found = []
        for block in self._decoder.block:
            attention = block.layer[1].EncDecAttention
            both = torch.stack([attention.k(states), attention.v(states)])  # (2, T, H x head size)
            found.append(both.unflatten(-1, (attention.n_heads, -1)).transpose(1, 2))
        return torch.stack(found)

    def _biases(self, read: Tensor, places: int, seen: int) -> tuple[Tensor, Tensor]:
        """What is added to the scores between a row's token and the answer's, (S, H, 1, places), and the prompt's,
        (S, 1, 1, seen): T5's number for their distance, and the least number where nothing may be seen."""
        least = torch.finfo(self._base.dtype).min
        if self._by_distance is None or self._by_distance.shape[1] < places:
            attention = self._decoder.block[0].layer[0].SelfAttention
            last = attention.compute_bias(
                1, places, past_seen_tokens=places - 1
            )  # (1, H, 1, places), the farthest first
            self._by_distance = last[0, :, 0].flip(-1)
        distance = read[:, None] - torch.arange(places, device=read.device)  # (S, places)
        answer = self._by_distance[:, distance.clamp(min=0)].transpose(0, 1)  # (S, H, places)
        answer = answer.masked_fill((distance < 0)[:, None], least)
        lengths = torch.tensor(self._lengths, device=read.device)
        is_hidden = torch.arange(seen, device=read.device) >= lengths[:, None]
        prompt = torch.zeros(is_hidden.shape, dtype=answer.dtype, device=read.device).masked_fill_(is_hidden, least)
        return answer.unsqueeze(2), prompt[:, None, None]

    def _take_slots(self, count: int, length: int) -> list[int]:
        used = set(self._slots)
        free = [slot for slot in range(len(self._read)) if slot not in used]
        more = _rounded(max(0, count - len(free)), FEWEST_ROWS)
        free += range(len(self._read), len(self._read) + more)
        longer = max(0, _rounded(length, ROOM) - self._prompt.shape[4])
        self._prompt = pad(self._prompt, [0, 0, 0, longer, 0, 0, 0, more])
        self._answer = pad(self._answer, [0, 0, 0, 0, 0, 0, 0, more])
        self._read += [0] * more
        self._lengths += [1] * more
        return free[:count]


class StartedRows:
    """Rows that start together: their answers are equally long as long as they are there. ``last`` is what the first step
    reads."""

    def __init__(
        self, base: Base, known: Known, model: str, prompts: Sequence[Sequence[int]], sources: Sequence[int]
    ) -> None:
        self._base = base
        states = encoded(base, known, model, prompts)
        self._states = torch.nn.utils.rnn.pad_sequence([states[at] for at in sources], batch_first=True)  # (rows, T, D)
        lengths = torch.tensor([len(states[at]) for at in sources], device=base.device)
        self._is_real = (torch.arange(self._states.shape[1], device=base.device) < lengths[:, None]).long()
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.last = torch.full((len(sources),), base.start_token, device=base.device)

    def step(self, tokens: Tensor) -> Tensor:
        """As ``JoinedRows.step``."""
        output = self._base.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._states),
            attention_mask=self._is_real,
            decoder_input_ids=tokens[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits.float()

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order."""
        chosen = torch.tensor(list(rows), device=self._base.device)
        self._states, self._is_real = self._states[chosen], self._is_real[chosen]
        self._cache.batch_select_indices(chosen)


def can_join(base: Base) -> bool:
    """Whether answers can be written beside others that began earlier."""
    return type(base.model).__name__ in JOINING


def place_bytes(base: Base) -> int:
    """What one token of prompt or answer takes in the rows of a batch."""
    config = base.model.get_decoder().config
    heads, size = getattr(config, "num_heads", 0), getattr(config, "d_kv", 0)
    width = heads * size or families.width_of(base.model, "encoder_decoder")
    layers = int(getattr(config, "num_decoder_layers", None) or config.decoder_layers)
    return 2 * layers * width * base.dtype.itemsize


def encoded(base: Base, known: Known, model: str, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The encoder's last states of each prompt, (T, D), its opening and end tokens included; under the open scope."""
    found = {tuple(prompt): known.find(model, prompt) for prompt in prompts}
    unread = [prompt for prompt, states in found.items() if states is None]
    parts = [[prompt] for prompt in unread] if base.device.type == "cpu" else [unread]
    for part in parts:
        closed = [[*base.opening, *prompt, base.closing] for prompt in part]
        for prompt, states in zip(part, read(base, closed), strict=True):
            known.put(model, prompt, states)
            found[prompt] = states
    return [states for states in (found[tuple(prompt)] for prompt in prompts) if states is not None]


def read(base: Base, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """The encoder's last states of each row of tokens as it stands, (T, D), under the open scope."""
    if not rows:
        return []
    tokens = torch.full((len(rows), max(map(len, rows))), base.pad_token)
    is_real = torch.zeros_like(tokens)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = torch.tensor(row, dtype=torch.long)
        is_real[at, : len(row)] = 1
    encoder: Any = base.model.get_encoder()
    output = encoder(input_ids=tokens.to(base.device), attention_mask=is_real.to(base.device))
    return [states[: len(row)] for states, row in zip(output.last_hidden_state, rows, strict=True)]


class _Layer(CacheLayerMixin):
    """Views of one layer's keys and values, (S, H, places, D). ``at`` (S,) is where the next token of each row goes."""

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, at: Tensor) -> None:
        super().__init__()
        self.keys: Tensor = keys
        self.values: Tensor = values
        self.at = at
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: there are tensors from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(self.at), device=self.at.device)
        self.keys[rows, :, self.at] = key_states[:, :, 0]
        self.values[rows, :, self.at] = value_states[:, :, 0]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        return 0  # asked only for distances, which are always given

    def get_max_length(self) -> int:
        return -1


@contextmanager
def _one_by_one(base: Base, decoder: Any) -> Iterator[None]:
    """On a CPU attention is plain products in here, as in rows.py: a row has the same bits whichever thread computes it."""
    usual = decoder.config._attn_implementation
    if base.device.type == "cpu":
        decoder.config._attn_implementation = "eager"
    try:
        yield
    finally:
        decoder.config._attn_implementation = usual


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
