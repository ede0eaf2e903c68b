"""Texts that pass through all layers but the last in one call have the bits that the calls one by one give them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from backend.decoder import beside, quick
from backend.decoder.passing import Text
from backend.decoder.stack import Stack
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import wired

pytestmark = pytest.mark.skipif(quick.tiled() is None, reason="this processor has no registers of sixteen numbers")

HAS_BYTES = pytest.mark.skipif(quick.byte_tiled() is None, reason="this processor has no tiles of whole numbers")
KNOWN, ROWS = (0, 7, 0, 40), (5, 9, 1, 33)  # tokens of each text that were read before, and that are read now
NAMES = ("policy", None, "large", "second")  # whose texts they are
SPARE = 3  # rows of no text


@pytest.fixture(autouse=True)
def _one_thread_and_no_gradients() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def deep() -> SharedBase:
    """A base of four layers with biases and roots of their own, and beside the others an adapter of a rank of its own that has no part in one layer's last product."""
    base = wired.base_of(Qwen2ForCausalLM(Qwen2Config(**{**wired.SHAPE, "num_hidden_layers": 4})))
    base.add("large", Shape(20, 10), seed=3)
    for place, (name, weight) in enumerate(base.causal.named_parameters()):
        if "bias" in name or "large" in name:
            weight.data.copy_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(place)))
    for place, layer in enumerate(base.backbone.layers):  # type: ignore[arg-type]
        layer.input_layernorm.variance_epsilon, layer.post_attention_layernorm.variance_epsilon = (
            0.1 + place,
            0.5 + place,
        )
    del base.backbone.layers[1].mlp.down_proj.lora_A["large"]  # type: ignore[index, union-attr]
    return base


def stack_of(base: SharedBase, is_rounded: bool = False) -> Stack:
    own = Stack(base.backbone, base.causal.get_output_embeddings())
    if is_rounded:
        own.pack(16, is_rounded=True)
    own.tile()
    return own


def spans_of(owners: Sequence[str | None], names: tuple[str, ...]) -> beside.Shares:
    return beside.spans_of([names.index(owner) if owner in names else None for owner in owners])


def read(own: Stack, *, as_texts: bool) -> tuple[Tensor, list[Tensor]]:
    """The states of all rows, and keys and values of every text, on rooms of random numbers where some are known already."""
    draw = torch.Generator().manual_seed(0)
    ends = [0, *torch.tensor(ROWS).cumsum(0).tolist()]
    rows = [slice(*both) for both in pairwise(ends)]
    rooms = [torch.randn(own.room(1, 80)[:, :, 0].shape, generator=draw) for _ in ROWS]
    texts = [Text(*one) for one in zip(rows, KNOWN, rooms, strict=True)]
    tokens = torch.randint(2, 14, (ends[-1] + SPARE,), generator=draw)
    spare = torch.zeros(SPARE, dtype=torch.long)
    places = [torch.arange(known, known + count) for known, count in zip(KNOWN, ROWS, strict=True)]
    owners = [name for name, count in zip(NAMES, ROWS, strict=True) for _ in range(count)]
    owners += [owners[-1]] * SPARE

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen = query.new_zeros(query.shape)
        assert own.loops is not None
        for at, start, room in texts:
            own.loops.see(query[at], key[at], value[at], room[layer], start, seen[at])
        return seen.flatten(1)

    adapters = own.adapters(["second", *(["large"] if own.holds("large") else []), "policy"])
    shares = adapters.shares(partial(spans_of, owners))
    given = tokens, torch.cat([*places, spare]), adapters, shares, attend
    return own.read(*given, texts=texts if as_texts else None), rooms


def calls(own: Stack, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with how many products are asked for from Python."""
    found: list[int] = []
    usual = quick.product
    monkeypatch.setattr(quick, "product", lambda x, *rest: (found.append(len(x)), usual(x, *rest))[1])
    return found


@pytest.mark.parametrize("is_rounded", [False, pytest.param(True, marks=HAS_BYTES)])
def test_a_pass_has_the_bits_of_the_calls_one_by_one(is_rounded: bool, deep: SharedBase) -> None:
    for base in (*wired.bases(), deep):
        own = stack_of(base, is_rounded)
        expected, kept = read(own, as_texts=False)
        found, rooms = read(own, as_texts=True)
        assert torch.equal(found, expected)
        assert all(torch.equal(one, other) for one, other in zip(rooms, kept, strict=True))


def test_weights_that_stand_in_half_the_bytes_are_read_as_they_are(deep: SharedBase) -> None:
    half = copy.deepcopy(deep)
    for name, weight in half.causal.named_parameters():
        if "layers.1." not in name:  # and whole ones between them
            weight.data.copy_(weight.bfloat16())
    own = stack_of(half)
    assert own._tiled is not None
    assert {one.packed.numbers.dtype for four in own._tiled for one in four} == {torch.float32, torch.bfloat16}  # type: ignore[union-attr]
    expected, kept = read(own, as_texts=False)
    found, rooms = read(own, as_texts=True)
    assert torch.equal(found, expected) and torch.equal(torch.stack(rooms), torch.stack(kept))


def test_only_the_last_layer_is_asked_for_call_by_call(monkeypatch: pytest.MonkeyPatch, deep: SharedBase) -> None:
    asked = calls(own := stack_of(deep), monkeypatch)
    read(own, as_texts=False)
    assert len(asked) == 4 * 4
    asked.clear()
    read(own, as_texts=True)
    assert len(asked) == 4


def test_layers_that_hold_more_are_read_call_by_call() -> None:
    """Qwen 3 normalises queries and keys."""
    kinds = {type(base.backbone).__name__: stack_of(base)._passing is not None for base in wired.bases()}
    assert kinds == {"LlamaModel": True, "Qwen2Model": True, "Qwen3Model": False, "MistralModel": True}
