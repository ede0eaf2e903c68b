"""A stack computes what the model's own forward computes, for rows of several adapters at once, in every family it is used for."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from backend.decoder import beside, stack
from backend.training.shared_base import SharedBase
from tests.backend.training import tiny, wired

TEXTS = [[2, 9, 10, 11, 3, 7], [4, 7, 2, 8, 9, 13, 3], [2, 12, 3]]
OWNERS = [0, 1, 2]  # the bare base, "policy", "second"


def every_way() -> Iterator[tuple[SharedBase, stack.Stack]]:
    """Every base, with loops between the products and without."""
    for base in wired.bases():
        yield base, (own := stack.Stack(base.backbone, base.causal.get_output_embeddings()))
        assert own.loops is not None
        own.loops = None
        yield base, own


def read_together(own: Any, wanted: list[int] | None = None) -> Tensor:
    """All texts in one call, each with its own adapter; the states of all tokens, or of these places, in their order."""
    lengths = [len(text) for text in TEXTS]
    tokens = torch.tensor([token for text in TEXTS for token in text])
    positions = torch.cat([torch.arange(length) for length in lengths])
    names = [None, "policy", "second"]
    owners = [names[owner] for owner, length in zip(OWNERS, lengths, strict=True) for _ in range(length)]

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not len(query):
            return query.flatten(1)
        if len(query) < len(key):  # of the last layer what is wanted of it; its neighbours' questions do not matter
            query = torch.zeros(len(key), *query.shape[1:]).index_copy(0, torch.tensor(wanted), query)
            return attend(layer, query, key, value)[wanted]
        asking = query.split(lengths)
        seen = [
            scaled_dot_product_attention(
                q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), is_causal=len(q) > 1, enable_gqa=True
            ).transpose(0, 1)
            for q, k, v in zip(asking, key.split(lengths), value.split(lengths), strict=True)
        ]
        return torch.cat(seen).flatten(1)

    adapters = own.adapters(["policy", "second"])

    def shares(owners: list[str | None]) -> list[beside.Shares]:
        return adapters.shares(
            lambda kind: beside.seats_of(
                [kind.index(name) if name in kind else None for name in owners], 4, tokens.device
            )
        )

    places = None if wanted is None else torch.tensor(wanted, dtype=torch.long)
    of_wanted = None if wanted is None else shares([owners[place] for place in wanted])
    found: Tensor = own.read(tokens, positions, adapters, shares(owners), attend, places, of_wanted)
    return found


@torch.no_grad()
def test_a_token_stands_where_its_place_says() -> None:
    for base, own in every_way():
        tokens, positions = torch.tensor(TEXTS[0]), torch.tensor([0, 3, 4, 7, 20, 21])

        def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (part.transpose(0, 1) for part in (query, key, value))
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(0, 1).flatten(1)

        with base.scope("policy"):
            expected = base.backbone(input_ids=tokens[None], position_ids=positions[None]).last_hidden_state[0]
        found = own.read(tokens, positions, own.adapters(["policy"]), None, attend)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_wanted_places_have_the_states_they_have_among_all() -> None:
    wanted = torch.tensor([1, 3, 5])
    for _, own in every_way():
        tokens, positions = torch.tensor(TEXTS[1]), torch.arange(len(TEXTS[1]))

        def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (part.transpose(0, 1) for part in (query, key, value))
            asking = torch.arange(len(key)) if len(query) == len(key) else wanted
            may_see = torch.arange(len(key))[None] <= asking[:, None]
            return scaled_dot_product_attention(q, k, v, attn_mask=may_see, enable_gqa=True).transpose(0, 1).flatten(1)

        adapters = own.adapters(["policy"])
        every = own.read(tokens, positions, adapters, None, attend)
        found = own.read(tokens, positions, adapters, None, attend, wanted)
        torch.testing.assert_close(found, every[wanted], rtol=1e-4, atol=1e-5)


def by_itself(base: SharedBase, text: list[int], owner: int) -> Tensor:
    with base.scope([None, "policy", "second"][owner]):
        tokens = torch.tensor([text])
        return base.states(tokens, torch.ones_like(tokens, dtype=torch.bool))[0]


@torch.no_grad()
def test_texts_of_several_adapters_are_read_in_one_call() -> None:
    for base, own in every_way():
        expected = [by_itself(base, text, owner) for text, owner in zip(TEXTS, OWNERS, strict=True)]
        torch.testing.assert_close(read_together(own), torch.cat(expected), rtol=1e-4, atol=1e-5)
        assert read_together(own, wanted=[]).shape == (0, expected[0].shape[1])
        last = [len(TEXTS[0]) + len(TEXTS[1]) + len(TEXTS[2]) - 1, len(TEXTS[0]) - 1, len(TEXTS[0]) + len(TEXTS[1]) - 1]
        found = torch.stack([expected[at][-1] for at in (2, 0, 1)])
        torch.testing.assert_close(read_together(own, wanted=last), found, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_for_few_rows_the_adapter_is_in_the_weights() -> None:
    for base in wired.bases():
        own = stack.Stack(base.backbone, base.causal.get_output_embeddings())
        tokens, positions = torch.tensor([5, 9, 7]), torch.zeros(3, dtype=torch.long)

        def attend(_: int, query: Tensor, __: Tensor, value: Tensor) -> Tensor:  # each token sees itself
            return value.repeat_interleave(query.shape[1] // value.shape[1], 1).flatten(1)

        for name in (None, "policy", "second"):
            expected = own.read(tokens, positions, own.adapters([name] if name else []), None, attend)
            logits = own.logits(expected)
            with own.for_few_rows(name, 3) as adapters:
                found = own.read(tokens, positions, adapters, None, attend)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(own.logits(found), logits, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(logits, base.logits(expected), rtol=1e-4, atol=1e-5)
            after = own.read(tokens, positions, own.adapters([]), None, attend)
            torch.testing.assert_close(after, own.read(tokens, positions, own.adapters([]), None, attend))


@torch.no_grad()
def test_in_bfloat16_an_adapter_in_the_weights_is_as_exact_as_beside_them() -> None:
    exact = wired.bases()[0]
    rounded = copy.deepcopy(exact)
    rounded.causal.to(torch.bfloat16)
    tokens, positions = torch.arange(4, 14), torch.zeros(10, dtype=torch.long)
    logp = []
    for base, is_in in ((exact, False), (rounded, False), (rounded, True)):
        own = stack.Stack(base.backbone, base.causal.get_output_embeddings())

        def attend(_: int, query: Tensor, __: Tensor, value: Tensor) -> Tensor:
            return value.repeat_interleave(query.shape[1] // value.shape[1], 1).flatten(1)

        if is_in:
            with own.for_few_rows("policy", 10) as adapters:
                logits = own.logits(own.read(tokens, positions, adapters, None, attend))
        else:
            logits = own.logits(own.read(tokens, positions, own.adapters(["policy"]), None, attend))
        logp.append(logits.float().log_softmax(-1))
    beside, within = ((logp[0].exp() * (logp[0] - other)).sum(-1).mean() for other in logp[1:])
    assert float(within) < 3 * float(beside) + 1e-4


def test_other_families_and_positions_are_left_to_transformers() -> None:
    base = wired.bases()[0]
    head = base.causal.get_output_embeddings()
    assert stack.can_stack(base.backbone, head)
    assert not stack.can_stack(base.backbone, None)
    other = tiny.base("gpt2")
    assert not stack.is_wired_alike(other.backbone)
    assert not stack.can_stack(other.backbone, other.causal.get_output_embeddings())
    turns: Any = base.backbone.rotary_emb
    usual = turns.rope_type
    try:
        turns.rope_type = "dynamic"
        assert not stack.can_stack(base.backbone, head)
    finally:
        turns.rope_type = usual


def test_numbers_of_two_formats_are_not_read_by_loops() -> None:
    base = copy.deepcopy(wired.bases()[0])
    assert stack.Stack(base.backbone, base.causal.get_output_embeddings()).loops is not None
    norm: Any = base.backbone.norm
    norm.to(torch.bfloat16)
    assert stack.Stack(base.backbone, base.causal.get_output_embeddings()).loops is None
