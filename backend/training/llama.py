"""What decoders wired like Llama let us leave out: the last layer where nobody asks for its states, and a prompt's keys and
values for each of its answers. backend/decoder has the wiring; other families take transformers' own forward everywhere.
"""

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.decoder.stack import Adapters, Stack, turned
from backend.training.data import lines, side_by_side
from backend.training.packing import Line, attend


def trim_last_layer(backbone: Any) -> None:
    """Let the last layer of a packed line compute the states that are wanted, where the line says which."""
    layer = backbone.layers[-1]
    whole = layer.forward

    def forward(self: Any, hidden_states: Tensor, *args: Any, line: Line | None = None, **more: Any) -> Tensor:
        if line is not None and line.columns is not None:
            return _last_layer(self, hidden_states, more["position_embeddings"], line, line.columns)
        told = {"line": line} if line is not None else {}
        found: Tensor = whole(hidden_states, *args, **told, **more)
        return found

    layer.forward = types.MethodType(forward, layer)


def _last_layer(layer: Any, x: Tensor, turns: tuple[Tensor, Tensor], line: Line, columns: Tensor) -> Tensor:
    """Keys and values of all, the rest of the wanted columns only. (1, N, D) -> (1, W, D)"""
    mine = layer.self_attn
    cos, sin = (turn[0, :, None] for turn in turns)  # (N, 1, head size)
    normed = layer.input_layernorm(x[0])
    key = turned(_heads(mine, "k", normed), cos, sin)
    value = _heads(mine, "v", normed)
    query = turned(_heads(mine, "q", normed[columns]), cos[columns], sin[columns])
    query, key, value = (part.transpose(0, 1) for part in (query, key, value))  # by head
    found = attend(query, key, value, line.some, mine.scaling)  # (W, H, head size)
    wanted = x[0, columns] + mine.o_proj(found.flatten(1))
    return (wanted + layer.mlp(layer.post_attention_layernorm(wanted)))[None]


def _heads(attention: Any, which: str, x: Tensor) -> Tensor:
    """Queries, keys or values by head, normalised where the family does that. (N, D) -> (N, H, head size)"""
    found: Tensor = getattr(attention, f"{which}_proj")(x).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{which}_norm", None)
    return found if norm is None else norm(found)


READ_TOGETHER = 2048  # tokens of prompts; our choice


class _Kept(NamedTuple):
    """Keys and values of one layer, (P, H, T + length * K, D): a prompt's T tokens, then the first token of each of its K
    answers, then the second of each, and so on."""

    keys: Tensor
    values: Tensor


class Decoder:
    """Answers to prompts that were read, token by token. The K answers to one prompt are one block of queries for all that was
    read for them; a mask hides the other answers' tokens. That is K times the products for an answer's own tokens, and half
    the calls, which take longer."""

    def __init__(
        self, stack: Stack, adapters: Adapters, prompts: Sequence[Sequence[int]], count: int, length: int
    ) -> None:
        """Reads the P prompts, for ``count`` answers to each of ``length`` tokens at most; ``states`` are their last ones."""
        self.stack, self.adapters, self.count = stack, adapters, count
        weight = stack.backbone.embed_tokens.weight
        width = max(len(prompt) for prompt in prompts)
        shape = (len(prompts), stack.keys, width + length * count, stack.head_size)
        self._layers = [
            _Kept(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(len(stack.backbone.layers))
        ]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=weight.device)
        self._mask = self._hidden(lengths, width, length).to(weight.dtype)
        self._position = lengths.repeat_interleave(count)  # (R,) of the next token
        self._read = width  # places taken
        self.states = torch.cat([self._prefilled(prompts, part) for part in lines(lengths.tolist(), READ_TOGETHER)])

    def _hidden(self, lengths: Tensor, width: int, length: int) -> Tensor:
        """What is added to the scores: 0, and the least number in front of a prompt and at other answers' tokens.
        (P, 1, K G, T + length * K)"""
        together = self.stack.queries // self.stack.keys  # queries that share a key
        is_other = ~torch.eye(self.count, dtype=torch.bool, device=lengths.device).repeat_interleave(together, 0)
        is_front = torch.arange(width, device=lengths.device) < (width - lengths)[:, None]  # (P, T)
        hidden = torch.cat(
            [
                is_front[:, None].expand(-1, len(is_other), -1),
                is_other.repeat(1, length).expand(len(lengths), -1, -1),
            ],
            2,
        )
        lowest = torch.finfo(self.stack.backbone.embed_tokens.weight.dtype).min
        return torch.zeros(hidden.shape, device=lengths.device).masked_fill_(hidden, lowest)[:, None]

    def _prefilled(self, prompts: Sequence[Sequence[int]], part: Sequence[int]) -> Tensor:
        """Keep the keys and values of these prompts; the last states of each, once for each answer. (P' x K, D)"""
        lengths = [len(prompts[place]) for place in part]
        ends = torch.tensor(lengths, device=self._position.device).cumsum(0)
        tokens = torch.tensor([token for place in part for token in prompts[place]], device=ends.device)
        positions = torch.cat([torch.arange(length, device=ends.device) for length in lengths])

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            kept, seen = self._layers[layer], []
            asking = query.split(lengths if len(query) == len(key) else [1] * len(part))
            all_keys, all_values = key.transpose(0, 1).split(lengths, 1), value.transpose(0, 1).split(lengths, 1)
            for place, own, keys, values in zip(part, asking, all_keys, all_values, strict=True):  # (H, T', D)
                kept.keys[place, :, self._read - keys.shape[1] : self._read] = keys
                kept.values[place, :, self._read - keys.shape[1] : self._read] = values
                seen.append(
                    nn.functional.scaled_dot_product_attention(
                        own.transpose(0, 1)[None],
                        keys[None],
                        values[None],
                        is_causal=len(own) > 1,
                        enable_gqa=bool(self.stack.queries > self.stack.keys),
                    )[0].transpose(0, 1)
                )
            return torch.cat(seen).flatten(1)

        states = self.stack.read(tokens, positions, self.adapters, None, attend, wanted=ends - 1)
        return states.repeat_interleave(self.count, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """The states after one more token of every answer. (R,) -> (R, D)"""
        states = self.stack.read(tokens, self._position, self.adapters, None, self._attend)
        self._position = self._position + 1
        self._read += self.count
        return states

    def keep(self, prompts: Tensor) -> None:
        """Go on with the answers to these prompts only. (P',)"""
        self._layers = [_Kept(kept.keys[prompts], kept.values[prompts]) for kept in self._layers]
        self._mask, self._position = self._mask[prompts], self._position[side_by_side(prompts, self.count)]

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (R, heads, D), key and value (R, H, D) -> (R, heads * D)"""
        kept, now = self._layers[layer], self._read + self.count
        kept.keys[:, :, self._read : now] = self._together(key)
        kept.values[:, :, self._read : now] = self._together(value)
        keys = kept.keys.shape[1]
        block = query.unflatten(0, (-1, self.count)).unflatten(2, (keys, -1))  # (P, K, H, G, D)
        block = block.permute(0, 2, 1, 3, 4).flatten(2, 3)  # (P, H, K G, D)
        seen = nn.functional.scaled_dot_product_attention(
            block, kept.keys[:, :, :now], kept.values[:, :, :now], attn_mask=self._mask[..., :now]
        )
        seen = seen.unflatten(2, (self.count, -1)).permute(0, 2, 1, 3, 4)  # (P, K, H, G, D)
        return seen.reshape(query.shape[0], -1)

    def _together(self, x: Tensor) -> Tensor:
        """Answers of one prompt side by side. (R, H, D) -> (P, H, K, D)"""
        return x.unflatten(0, (-1, self.count)).transpose(1, 2)
