"""Tree rows give the states and the gradients of plain rows, on every kind of attention we use."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from backend.training import tree
from backend.training.run import Run
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

GROUPS = [
    [[2, 9, 10, 11, 3, 7, 8, 1], [2, 9, 10, 11, 3, 12, 1], [2, 9, 10, 11, 3, 7, 8, 13, 14, 15, 1]],
    [[2, 20, 3, 6, 1], [2, 20, 3, 8]],
    [[4, 5, 3, 9, 1]],
    [[2, 9, 3, 6, 6, 1], [2, 9, 3, 6, 6, 1]],
]
COUNTS = [3, 2, 6, 2, 1, 2, 3, 3]
FAMILIES = ("llama", "gpt2")
ATTENTION = ("eager", "sdpa")


def shaken(family: str, attention: str = "sdpa") -> SharedBase:
    """A base with an adapter "policy" as if trained."""
    base = tiny.base(family)
    base.causal.set_attn_implementation(attention)
    base.add("policy", Shape(4, 8), seed=1)
    with torch.no_grad():
        for i, weight in enumerate(base.weights("policy")):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    return base


def bases() -> Iterator[SharedBase]:
    """In rows with either attention, and in one line, whose attention is our own."""
    for family in FAMILIES:
        for attention in ATTENTION:
            yield in_rows(shaken(family, attention))
        yield shaken(family)


def in_rows(base: SharedBase) -> SharedBase:
    base.packs = False
    return base


def plainly(base: SharedBase) -> SharedBase:
    base.reads_trees = base.packs = False
    return base


def draw_like(states: Tensor) -> Tensor:
    return torch.randn(states.shape, generator=torch.Generator().manual_seed(7))


def gradients(base: SharedBase, loss: Tensor) -> Tensor:
    for weight in base.weights("policy"):
        weight.grad = None
    torch.autograd.backward(loss)
    return torch.cat([w.grad.flatten() for w in base.weights("policy")])


def test_the_common_beginning_leaves_every_sequence_a_token() -> None:
    assert tree.common([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert tree.common([[1, 2, 3], [1, 2, 3]]) == 2
    assert tree.common([[1, 2], [1, 2, 3]]) == 1
    assert tree.common([[1, 2, 3], [2, 2, 3]]) == tree.common([[1, 2, 3]]) == tree.common([[1], [1, 2]]) == 0


def test_a_token_sees_the_common_part_and_its_own_end() -> None:
    rows = tree.tree_rows([[[5, 6, 7], [5, 8, 9, 4]], [[3, 3]]], pad_id=0)
    assert rows.tokens.tolist() == [[5, 6, 7, 8, 9, 4], [3, 3, 0, 0, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 1, 2, 3], [0, 1, 0, 0, 0, 0]]
    assert rows.is_real.int().tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]
    assert rows.row.tolist() == [0, 0, 1] and rows.lengths.tolist() == [3, 4, 2]
    assert rows.columns.tolist() == [[0, 1, 2, 0], [0, 3, 4, 5], [0, 1, 0, 0]]
    assert rows.mask is not None and rows.mask.shape == (2, 1, 6, 6) and rows.mask.dtype == torch.float32
    assert (rows.mask[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 1],
    ]
    # what is padding sees itself alone, and nothing sees it
    assert (rows.mask[1, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert set(rows.mask.unique().tolist()) == {0.0, torch.finfo(torch.float32).min}


def test_tree_rows_give_the_states_of_plain_rows() -> None:
    for base in bases():
        assert base.reads_trees
        with torch.no_grad(), base.scope("policy"):
            packed = tree.ends(base, GROUPS), tree.predicting(base, GROUPS, COUNTS)
            alone = [base.states(torch.tensor([s]), torch.ones(1, len(s), dtype=torch.bool))[0] for s in flat(GROUPS)]
            assert tree.error(base, GROUPS) < 1e-6 and base.reads_trees
            plainly(base)
            plain = tree.ends(base, GROUPS), tree.predicting(base, GROUPS, COUNTS)
        assert packed[1].shape == (8, 6, base.width)
        for n, (states, count) in enumerate(zip(alone, COUNTS, strict=True)):
            for last, predicting in (packed, plain):
                torch.testing.assert_close(last[n], states[-1], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(predicting[n, :count], states[-count - 1 : -1], rtol=1e-5, atol=1e-5)


def flat(groups: list[list[list[int]]]) -> list[list[int]]:
    return [sequence for group in groups for sequence in group]


def test_tree_rows_give_the_gradient_of_plain_rows_and_without_the_branch_mask_they_do_not() -> None:
    for base in bases():
        found = []
        for reads_trees, can_see_all in ((True, False), (False, False), (True, True)):
            base.reads_trees = reads_trees
            with base.scope("policy"):
                rows, states = tree.read(base, GROUPS)
                if can_see_all:
                    everything = torch.where(rows.is_real, 0, -1)  # as if all were the common part
                    states = base.masked_states(rows.tokens, tree.branch_mask(everything), rows.positions)
                last = states[rows.row, rows.columns.gather(1, rows.lengths[:, None] - 1)[:, 0]]
                found.append(gradients(base, (last * draw_like(last)).sum()))
        packed, plain, leaking = found
        assert (packed - plain).norm() < 1e-5 * plain.norm()
        assert (leaking - plain).norm() > 0.05 * plain.norm()


def test_the_gradient_of_predicting_states_is_that_of_plain_rows() -> None:
    is_counted = torch.arange(max(COUNTS))[None] < torch.tensor(COUNTS)[:, None]
    for base in bases():
        found = []
        for base.reads_trees in (True, False):
            with base.scope("policy"):
                states = tree.predicting(base, GROUPS, COUNTS)
                found.append(gradients(base, (states * draw_like(states))[is_counted].sum()))
        assert (found[0] - found[1]).norm() < 1e-5 * found[1].norm()


def test_any_cut_into_micro_batches_gives_one_gradient() -> None:
    base = shaken("llama")
    found = []
    for tokens in (1, 24, 4096):
        parts = tree.parts(base, GROUPS, tokens, seed=0, step=0)
        assert sorted(i for part in parts for i in part) == [0, 1, 2, 3]
        total = torch.zeros(())
        with base.scope("policy"):
            for part in parts:
                for_each = torch.cat([torch.full((len(GROUPS[i]),), 1.0 + i) for i in part])
                last = tree.ends(base, [GROUPS[i] for i in part])
                total = total + (last * for_each[:, None] * draw_like(last[0])).sum()
            found.append(gradients(base, total))
        assert len(parts) == {1: 4, 24: 2, 4096: 1}[tokens]
    for other in found[1:]:
        assert (found[0] - other).norm() < 1e-5 * other.norm()


def test_the_size_of_a_group_counts_what_is_shared_once() -> None:
    base = shaken("llama")
    assert [tree.size(base, group) for group in GROUPS] == [16, 6, 5, 7]
    assert [tree.size(plainly(base), group) for group in GROUPS] == [33, 10, 5, 12]


def test_rows_with_one_prompt_are_found_however_they_are_padded() -> None:
    tokens = torch.tensor([[0, 5, 6, 9], [7, 5, 6, 9], [0, 5, 6, 8], [0, 0, 6, 9]])
    is_real = torch.tensor(
        [[False, True, True, True], [True] * 4, [False, True, True, False], [False, False, True, True]]
    )
    assert tree.by_prompt(tokens, is_real, 1) == [[0, 2], [1], [3]]


def messages(base: SharedBase, groups: list[list[list[int]]]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        tree.trust(base, "policy", groups, run)
        run.message("the end")
        events = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
    return [event["text"] for event in events][:-1]


def test_a_base_that_reads_trees_well_is_trusted_in_silence() -> None:
    for base in bases():
        assert messages(base, GROUPS) == [] and base.reads_trees


def test_a_base_whose_states_differ_reads_plain_rows_and_says_so() -> None:
    base = in_rows(shaken("llama"))
    masked = base.masked_states

    def blind(tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return masked(tokens, torch.zeros_like(mask), positions)

    base.masked_states = blind  # type: ignore[method-assign]
    assert messages(base, []) == [] and base.reads_trees, "nothing to compare"
    (told,) = messages(base, GROUPS)
    assert "one by one" in told and not base.reads_trees


def test_a_base_whose_states_differ_in_a_line_reads_tree_rows_and_says_so() -> None:
    base = shaken("llama")
    packed = base.packed_states

    def forgetful(tokens: Tensor, positions: Tensor, pieces: Any, columns: Tensor | None = None) -> Tensor:
        return packed(tokens, positions, [piece._replace(seen_to=piece.seen_from) for piece in pieces], columns)

    base.packed_states = forgetful  # type: ignore[method-assign]
    (told,) = messages(base, GROUPS)
    assert "in one line" in told and base.reads_trees and not base.packs
    assert messages(base, GROUPS) == []


def test_a_line_has_no_padding_and_a_texts_tokens_stand_together() -> None:
    rows = tree.packed_line([[[5, 6, 7], [5, 8, 9, 4]], [[3, 3]]])
    assert rows.tokens.tolist() == [[5, 6, 7, 8, 9, 4, 3, 3]] and bool(rows.is_real.all())
    assert rows.positions.tolist() == [[0, 1, 2, 1, 2, 3, 0, 1]]
    assert rows.row.tolist() == [0, 0, 0] and rows.lengths.tolist() == [3, 4, 2]
    assert rows.columns.tolist() == [[0, 1, 2, 0], [0, 3, 4, 5], [6, 7, 0, 0]]
    assert [(p.start, p.end, p.seen_to - p.seen_from) for p in rows.pieces or []] == [(0, 3, 0), (3, 6, 1), (6, 8, 0)]


def test_a_sliding_window_is_never_read_in_tree_rows() -> None:
    shape: dict[str, Any] = {
        "vocab_size": len(tiny.WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 96, "eos_token_id": 1,
    }  # fmt: skip
    for window, reads_trees in ((4, False), (None, True)):
        causal: Any = MistralForCausalLM(MistralConfig(**shape, sliding_window=window))
        assert SharedBase(causal, tiny.tokenizer()).reads_trees is reads_trees


def test_a_base_in_bfloat16_is_trusted_and_a_leak_is_still_seen() -> None:
    base = SharedBase(tiny.causal().to(torch.bfloat16), tiny.tokenizer())
    base.add("policy", Shape(4, 8), seed=1)
    assert messages(base, GROUPS) == [] and base.reads_trees
    with torch.no_grad(), base.scope("policy"):
        assert tree.ends(base, GROUPS).dtype == torch.bfloat16
        assert tree.error(base, GROUPS) < 0.01


def test_a_trajectorys_rows_share_their_prompt_and_keep_their_places() -> None:
    rows = [[0, 0, 2, 9, 3, 6, 1, 0], [2, 5, 4, 9, 3, 7, 8, 1], [0, 0, 2, 9, 3, 8, 6, 7], [0, 0, 2, 9, 3, 6, 0, 0]]
    tokens = torch.tensor(rows)
    is_real = torch.tensor([[token != 0 for token in row] for row in rows])
    for base in bases():
        with torch.no_grad(), base.scope("policy"):
            together = tree.trajectory_states(base, tokens, is_real, 3)
            plain = base.states(tokens, is_real)[:, -4:-1]
            narrow = tree.trajectory_states(base, tokens[[0, 3]], is_real[[0, 3]], 3)
        where = is_real[:, -3:]
        assert together.shape == plain.shape and narrow.shape[1] == 3
        torch.testing.assert_close(together[where], plain[where], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(narrow[where[[0, 3]]], plain[[0, 3]][where[[0, 3]]], rtol=1e-5, atol=1e-5)
        for most, count in ((4096, 1), (11, 3), (8, 4)):
            cut = tree.trajectory_parts(base, tokens, is_real, 3, most, 0, 0)
            assert sorted(row for part in cut for row in part) == [0, 1, 2, 3]
            assert len(cut) == count or base.packs
        alone = tree.trajectory_parts(plainly(base), tokens, is_real, 3, 8, 0, 0)
        assert sorted(alone) == [[0], [1], [2], [3]]


def test_neighbours_that_begin_alike_are_grouped_and_no_group_is_too_large() -> None:
    one, two, three, other = [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 9, 9, 9], [1, 8, 8, 8, 8]
    assert tree.neighbours([one, two, three, other, one], 100) == [[one, two, three], [other], [one]]
    assert tree.neighbours([one, two, three], 7) == [[one, two], [three]]
