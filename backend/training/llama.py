"""What decoders wired like Llama let us leave out: the last layer where nobody asks for its states, and most of a decoding step.

x <- x + attention(norm(x)); x <- x + mlp(norm(x)), with rotary positions (Touvron et al. 2023, arXiv:2302.13971; Su et al.
2021, arXiv:2104.09864). The modules are the model's own, adapters included; the wiring between them is written here once more.
Other families take transformers' own forward everywhere.
"""

import types
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache

from backend.training.data import side_by_side
from backend.training.packing import Line, attend

WIRED_ALIKE = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")


def is_wired_alike(backbone: nn.Module) -> bool:
    return type(backbone).__name__ in WIRED_ALIKE


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


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the first half of a head is turned against the second. (..., head size)"""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class _Kept(NamedTuple):
    """Keys and values of one layer: P prompts of T tokens, and of each of the R = P x K answers up to ``length`` tokens."""

    prompt_keys: Tensor  # (P, H, T, D)
    prompt_values: Tensor
    keys: Tensor  # (R, H, length, D)
    values: Tensor


class Decoder:
    """Answers to prompts that were read, token by token; K answers to one prompt read its keys and values together."""

    def __init__(self, backbone: Any, prompts: Cache, is_real: Tensor, count: int, length: int) -> None:
        """``prompts``: what the model kept of P prompts padded on the left; ``is_real`` (P, T)."""
        self.backbone, self.count = backbone, count
        self._layers = []
        for read in prompts.layers:
            shape = (len(is_real) * count, read.keys.shape[1], length, read.keys.shape[3])
            self._layers.append(_Kept(read.keys, read.values, *(read.keys.new_empty(shape) for _ in range(2))))
        lowest = torch.finfo(self._layers[0].keys.dtype).min
        self._mask = torch.zeros(is_real.shape, dtype=self._layers[0].keys.dtype, device=is_real.device)
        self._mask = self._mask.masked_fill_(~is_real, lowest)[:, None, None]  # (P, 1, 1, T)
        self._position = is_real.sum(1).repeat_interleave(count)  # (R,) of the next token
        self._written = 0

    def step(self, tokens: Tensor) -> Tensor:
        """The states after one more token of every answer. (R,) -> (R, D)"""
        x: Tensor = self.backbone.embed_tokens(tokens)
        cos, sin = self.backbone.rotary_emb(x[:, None], self._position[:, None])  # (R, 1, head size)
        for layer, kept in zip(self.backbone.layers, self._layers, strict=True):
            mine, normed = layer.self_attn, layer.input_layernorm(x)
            query = turned(_heads(mine, "q", normed), cos, sin)
            kept.keys[:, :, self._written] = turned(_heads(mine, "k", normed), cos, sin)
            kept.values[:, :, self._written] = _heads(mine, "v", normed)
            x = x + mine.o_proj(self._attend(query, kept, mine.scaling))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        self._position = self._position + 1
        self._written += 1
        states: Tensor = self.backbone.norm(x)
        return states

    def keep(self, prompts: Tensor) -> None:
        """Go on with the answers to these prompts only. (P',)"""
        rows = side_by_side(prompts, self.count)
        self._layers = [
            _Kept(kept.prompt_keys[prompts], kept.prompt_values[prompts], kept.keys[rows], kept.values[rows])
            for kept in self._layers
        ]
        self._mask, self._position = self._mask[prompts], self._position[rows]

    def _attend(self, query: Tensor, kept: _Kept, scale: float) -> Tensor:
        """One softmax over the prompt and the answer so far. query (R, heads, D) -> (R, heads * D)"""
        many, heads, size = kept.keys.shape[0], kept.keys.shape[1], query.shape[-1]
        own = query.unflatten(1, (heads, -1))  # (R, H, G, D): G queries share a key
        so_far = self._written + 1
        of_prompt = torch.matmul(self._together(own), kept.prompt_keys.transpose(2, 3))  # (P, H, K G, T)
        of_answer = torch.matmul(own, kept.keys[:, :, :so_far].transpose(2, 3))  # (R, H, G, t)
        scores = torch.cat([of_prompt * scale + self._mask, self._together(of_answer) * scale], -1)
        shares = scores.softmax(-1)
        width = of_prompt.shape[-1]
        found = self._apart(torch.matmul(shares[..., :width], kept.prompt_values), many)
        found = found + torch.matmul(self._apart(shares[..., width:], many), kept.values[:, :, :so_far])
        return found.reshape(many, heads * own.shape[2] * size)

    def _together(self, x: Tensor) -> Tensor:
        """Answers of one prompt side by side. (R, H, G, X) -> (P, H, K G, X)"""
        return x.unflatten(0, (-1, self.count)).transpose(1, 2).flatten(2, 3)

    def _apart(self, x: Tensor, many: int) -> Tensor:
        """The reverse. (P, H, K G, X) -> (R, H, G, X)"""
        return x.unflatten(2, (self.count, -1)).transpose(1, 2).reshape(many, x.shape[1], -1, x.shape[-1])
