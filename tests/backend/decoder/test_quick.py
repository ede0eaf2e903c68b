"""Loops give what torch's own operations give, to each row alone and in any company."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from backend.decoder import beside, plain, quick
from backend.decoder.quick import Loops, loops_for
from tests.backend.decoder.pair import with_adapter

DTYPES = [torch.float32, torch.bfloat16]
WIDTHS = [6, 48, 64, 128]


def near(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}


def loops_of(dtype: torch.dtype) -> Loops:
    found = loops_for(dtype, "cpu")
    assert found is not None
    return found


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [5, 48, 256])
def test_norms_gates_and_turns_are_those_of_torch(dtype: torch.dtype, width: int) -> None:
    loops, x, gain = loops_of(dtype), drawn(7, width, dtype=dtype), drawn(width, dtype=dtype, seed=1)
    x[2] = 0
    norm = plain.Norm(gain, 1e-5)
    torch.testing.assert_close(loops.normed(norm, x), plain.normed(norm, x), **near(dtype))
    torch.testing.assert_close(loops.normed(norm, x.t().contiguous().t()), plain.normed(norm, x), **near(dtype))
    both = drawn(7, 2 * width, dtype=dtype) * 4
    torch.testing.assert_close(loops.gated(both), plain.gated(silu, both), **near(dtype))
    heads = drawn(7, 5, 2 * width, dtype=dtype, seed=2)
    cos, sin = drawn(9, 1, 2 * width, dtype=dtype, seed=3), drawn(9, 1, 2 * width, dtype=dtype, seed=4)
    positions = torch.tensor([3, 0, 8, 8, 1, 2, 5])
    expected = heads.clone()
    expected[:, :3] = plain.turned(heads[:, :3].float(), cos[positions].float(), sin[positions].float()).to(dtype)
    loops.turn_in_place(heads[:, :3], cos, sin, positions)
    torch.testing.assert_close(heads, expected, **near(dtype))


def test_gates_far_from_zero_are_open_or_shut_and_what_is_no_number_stays_so() -> None:
    gate = torch.tensor([-3e38, -1000.0, -88.0, -0.0, 88.0, 1000.0, 3e38, torch.nan, torch.inf])
    both = torch.cat([gate, torch.ones(9)])[None]
    found, expected = loops_of(torch.float32).gated(both)[0], silu(gate)
    assert torch.equal(found.isnan(), expected.isnan())
    torch.testing.assert_close(found[:7], expected[:7], rtol=1e-5, atol=1e-30)
    norm, x = plain.Norm(torch.ones(8), 1e-5), torch.ones(3, 8)
    x[1, 3] = torch.nan
    assert loops_of(torch.float32).normed(norm, x).isnan().any(1).tolist() == [False, True, False]


class Rows:
    """Slots of which each has read some tokens and looks at some tokens of a prompt besides."""

    def __init__(
        self,
        dtype: torch.dtype,
        width: int,
        read: list[int],
        prompts: list[int],
        sharing: int = 2,
        first: tuple[int, ...] = (0, 0, 0, 0),
    ) -> None:
        """``first``: how many of the prompt's tokens are elsewhere, and not where the others are."""
        self.read, self.heads, places = torch.tensor(read), 3, 40
        self.kept = drawn(2, 2, len(read), self.heads, places, width, dtype=dtype)  # of two layers
        self.prompts = [
            drawn(2, 2, self.heads, max(1, length) + 5, width, dtype=dtype, seed=9 + at)
            for at, length in enumerate(prompts)
        ]
        self.whole = [prompt.clone() for prompt in self.prompts]
        self.beginnings = [drawn(2, 2, self.heads, 70, width, dtype=dtype) for _ in prompts]
        for beginning, prompt, count in zip(self.beginnings, self.prompts, first, strict=False):
            beginning[:, :, :, :count] = prompt[:, :, :, :count]
            prompt[:, :, :, :count] = torch.nan
        self.lengths, self.sharing, self.first = prompts, sharing, first
        self.tokens = drawn(len(read), self.heads * (sharing + 2), width, dtype=dtype, seed=5)

    def query_key_value(self) -> tuple[Tensor, ...]:
        return self.tokens.split([self.heads * self.sharing, self.heads, self.heads], 1)

    def attend(self, loops: Loops, layer: int, slots: int | None = None) -> Tensor:
        query, key, value = self.query_key_value()
        kept, count = self.kept[layer], len(self.read) if slots is None else slots
        out = query.new_empty(count, query.shape[1] * query.shape[2])
        shape = torch.tensor(
            [
                [int(n), t, p.shape[3], first, 70]
                for n, t, p, first in zip(self.read, self.lengths, self.prompts, self.first, strict=False)
            ]
        )
        both = zip(self.prompts, self.beginnings, strict=True)
        addresses = torch.tensor([[prompt.data_ptr(), beginning.data_ptr()] for prompt, beginning in both])
        given = (query, key, value, out, kept[0], kept[1], addresses, shape)
        sizes = query.stride(0), kept.shape[3], layer, count, self.heads, self.sharing, query.shape[2]
        loops.attend(tuple(one.data_ptr() for one in given), sizes)
        return out

    def expected(self, layer: int, slot: int) -> Tensor:
        """softmax(q K^T / sqrt(D)) V in double precision, of the prompt, what was read, and the token itself."""
        query, key, value = (part[slot].double() for part in self.query_key_value())
        n, t = int(self.read[slot]), self.lengths[slot]
        prompt, own = self.whole[slot][layer][:, :, :t].double(), self.kept[layer, :, slot, :, :n].double()
        keys = torch.cat([prompt[0], own[0], key[:, None]], 1).repeat_interleave(self.sharing, 0)
        values = torch.cat([prompt[1], own[1], value[:, None]], 1).repeat_interleave(self.sharing, 0)
        weights = (keys @ query[..., None])[..., 0].div(query.shape[1] ** 0.5).softmax(-1)
        return (weights[:, None] @ values).flatten()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_token_sees_its_prompt_what_was_read_and_itself(dtype: torch.dtype, width: int) -> None:
    for layer, sharing in ((0, 2), (1, 1)):
        rows = Rows(dtype, width, [0, 7, 31, 4], [0, 0, 13, 70], sharing)
        before = rows.kept.clone()
        expected = torch.stack([rows.expected(layer, slot) for slot in range(4)])
        found = rows.attend(loops_of(dtype), layer)
        torch.testing.assert_close(found.double(), expected, **near(dtype))
        for slot, at in enumerate(rows.read.tolist()):
            before[layer, :, slot, :, at] = torch.stack(rows.query_key_value()[1:], 0)[:, slot]
        assert torch.equal(rows.kept, before), "its key and value are kept in their place, and nothing else is touched"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_rows_bits_do_not_depend_on_where_its_prompts_beginning_stands(dtype: torch.dtype, width: int) -> None:
    for layer in (0, 1):
        lengths = [70, 64, 33, 5]
        found, other = (
            Rows(dtype, width, [0, 7, 31, 4], lengths, 2, first).attend(loops_of(dtype), layer)
            for first in ((0, 0, 0, 0), (64, 64, 32, 0))
        )
        assert torch.equal(found, other) and not bool(found.isnan().any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rows_bits_do_not_depend_on_its_company(dtype: torch.dtype) -> None:
    loops = loops_of(dtype)
    among = Rows(dtype, 64, [9, 2, 17, 30], [5, 0, 3, 11]).attend(loops, 1)
    alone = Rows(dtype, 64, [9, 2, 17, 30], [5, 0, 3, 11]).attend(loops, 1, slots=1)
    assert torch.equal(alone[0], among[0])


def test_scores_far_apart_leave_the_largest_alone_and_what_is_no_number_stays_so() -> None:
    rows = Rows(torch.float32, 64, [3, 3], [2, 2])
    rows.tokens[0] *= 100
    expected = rows.expected(0, 0)
    rows.kept[0, 0, 1, :, 1] = torch.nan
    found = rows.attend(loops_of(torch.float32), 0)
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-4)
    assert bool(found[1].isnan().all()) and not bool(found[0].isnan().any())


def looked_back(
    dtype: torch.dtype, width: int, start: int, end: int, parts: list[int], given: int | None = None
) -> tuple[Tensor, Tensor]:
    """What the tokens of a text of ``end`` see, from ``start`` on, which are read in so many parts; and what is kept."""
    heads, sharing = 3, 2
    tokens = drawn(end, heads * (sharing + 2), width, dtype=dtype, seed=5)
    query, key, value = tokens.split([heads * sharing, heads, heads], 1)
    kept = torch.full((2, heads, end + 5, width), torch.nan, dtype=dtype)
    kept[0, :, :start], kept[1, :, :start] = key[:start].transpose(0, 1), value[:start].transpose(0, 1)
    seen = []
    for count in parts:
        own, asked = slice(start, start + count), count if given is None else given
        out = query.new_empty(asked, heads * sharing * width)
        loops_of(dtype).see(query[own][count - asked :], key[own], value[own], kept, start, out)
        seen.append(out)
        start += count
    return torch.cat(seen), kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_prompts_tokens_see_what_comes_before_them_and_themselves(dtype: torch.dtype, width: int) -> None:
    for start, end in ((0, 1), (0, 75), (40, 110)):
        found, kept = looked_back(dtype, width, start, end, [end - start])
        tokens = drawn(end, 12, width, dtype=dtype, seed=5).double()
        query, key, value = tokens.split([6, 3, 3], 1)
        keys, values = (one.transpose(0, 1).repeat_interleave(2, 0) for one in (key, value))  # (6, T, D)
        scores = query.transpose(0, 1) @ keys.transpose(1, 2) / width**0.5
        is_later = torch.ones(end, end, dtype=torch.bool).triu(1)
        expected = (scores.masked_fill(is_later, -torch.inf).softmax(-1) @ values).transpose(0, 1).flatten(1)
        torch.testing.assert_close(found.double(), expected[start:], **near(dtype))
        assert torch.equal(kept[:, :, :end], torch.stack([key, value]).transpose(1, 2).to(dtype))
        assert bool(kept[:, :, end:].isnan().all()), "nothing else is touched"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_prompts_tokens_have_the_same_bits_however_it_is_read(dtype: torch.dtype, width: int) -> None:
    whole, _ = looked_back(dtype, width, 0, 110, [110])
    for start, parts in ((0, [1, 40, 69]), (33, [77]), (64, [33, 13]), (109, [1])):
        assert torch.equal(looked_back(dtype, width, start, 110, parts)[0], whole[start:])
    assert torch.equal(looked_back(dtype, width, 50, 110, [60], given=1)[0], whole[-1:]), "the last one's query alone"
    assert looked_back(dtype, width, 50, 110, [60], given=0)[0].shape == (0, 6 * width)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_has_its_own_adapters_part_in_any_company(dtype: torch.dtype) -> None:
    a = drawn(3, 20, 48, dtype=dtype, seed=1)  # of two runs: one layer of 9 outputs, two of 5
    b, c = drawn(3, 1, 16, 9, dtype=dtype, seed=2), drawn(3, 2, 16, 5, dtype=dtype, seed=3)
    runs = [beside.Run(b, slice(0, 16), slice(0, 9)), beside.Run(c, slice(16, 48), slice(9, 19))]
    lora = beside.Adapted(a, runs, beside.places_of(runs))
    x, out = drawn(5, 20, dtype=dtype, seed=4), drawn(5, 19, dtype=dtype, seed=5)
    owners = [2, None, 0, 2, 1]
    found = out.clone()
    seats = beside.seats_of(owners, 4, x.device)
    assert seats is not None
    beside.add(found, x, lora, seats, loops_of(dtype))
    for row, owner in enumerate(owners):
        expected = out[row].double()
        if owner is not None:
            expected = with_adapter(out[row], x[row], a[owner], b[owner], c[owner])
        torch.testing.assert_close(
            found[row].double(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5
        )
    alone, own = out[3:4].clone(), beside.seats_of([2], 4, x.device)
    assert own is not None
    beside.add(alone, x[3:4], lora, own, loops_of(dtype))
    assert torch.equal(alone[0], found[3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_one_adapter_are_given_what_each_is_given_alone_however_many_there_are(dtype: torch.dtype) -> None:
    a = drawn(3, 21, 48, dtype=dtype, seed=1)  # of two runs: one layer of 80 outputs, two of 16
    b, c = drawn(3, 1, 16, 80, dtype=dtype, seed=2), drawn(3, 2, 16, 16, dtype=dtype, seed=3)
    runs = [beside.Run(b, slice(0, 16), slice(0, 80)), beside.Run(c, slice(16, 48), slice(80, 112))]
    lora = beside.Adapted(a, runs, beside.places_of(runs))
    owners = [2, None, 0, 2, 2, 1, 0, *[2] * 8, 0, 2, None, 1]  # twelve of one, three of another, two
    x, out = drawn(len(owners), 21, dtype=dtype, seed=4), drawn(len(owners), 112, dtype=dtype, seed=5)
    found, seats = out.clone(), beside.seats_of(owners, 1, x.device)
    assert seats is not None
    beside.add(found, x, lora, seats, loops_of(dtype))
    for row, owner in enumerate(owners):
        if owner is None:
            assert torch.equal(found[row], out[row])
            continue
        alone, own = out[row : row + 1].clone(), beside.seats_of([owner], 1, x.device)
        assert own is not None
        beside.add(alone, x[row : row + 1], lora, own, loops_of(dtype))
        assert torch.equal(alone[0], found[row]), row
        expected = with_adapter(out[row], x[row], a[owner], b[owner], c[owner])
        torch.testing.assert_close(
            found[row].double(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-4
        )


def test_half_precision_is_rounded_to_the_nearest_and_ties_to_even() -> None:
    a, b = torch.zeros(1, 4, 16), torch.zeros(1, 1, 16, 6)
    a[0, 0, 0] = 1
    b[0, 0, 0] = torch.tensor([2**-8, 3 * 2**-8, 2**-8 + 2**-15, -(2**-9), 0.5, 0])  # of a step of 2**-7 above 1
    runs = [beside.Run(b.bfloat16(), slice(0, 16), slice(0, 6))]
    lora = beside.Adapted(a.bfloat16(), runs, beside.places_of(runs))
    seats, out = beside.seats_of([0], 4, a.device), torch.ones(1, 6, dtype=torch.bfloat16)
    assert seats is not None
    beside.add(out, torch.tensor([[1, 0, 0, 0]]).bfloat16(), lora, seats, loops_of(torch.bfloat16))
    assert torch.equal(out, (1 + b[:, 0, 0]).bfloat16())
    assert out[0, :2].tolist() == [1, 1 + 2**-6]


def test_there_are_loops_for_a_processors_two_formats_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loops_of(torch.bfloat16).have_ready()
    assert loops_for(torch.float16, "cpu") is None and loops_for(torch.float32, "cuda") is None
    monkeypatch.setitem(sys.modules, "backend.decoder.loops", None)  # as where Numba is missing
    monkeypatch.delattr("backend.decoder.loops")
    quick.compiled.cache_clear()
    fresh: Any = loops_for.__wrapped__
    with caplog.at_level(logging.WARNING):
        assert quick.compiled() is None and fresh(torch.float32, "cpu") is None
    assert "slower" in caplog.text
    monkeypatch.undo()
    quick.compiled.cache_clear()
    assert quick.compiled() is not None


def test_what_was_compiled_is_forgotten_when_any_of_the_files_changes_that_are_written_into_one_another() -> None:
    from backend.decoder import adding, attending, kinds, layers, loops, tiles, vectors, whole_tiles

    stamp = tuple((one.stat().st_mtime, one.stat().st_size) for one in vectors.SOURCES)
    compiled = [adding, attending, kinds, layers, loops, tiles, vectors, whole_tiles]
    assert [Path(str(module.__file__)) for module in compiled] == vectors.SOURCES
    for one in (loops.norm_float32, attending._scored, tiles.product_bfloat16, whole_tiles.product_float32):
        assert one._cache._cache_file._source_stamp == stamp


def test_a_token_is_drawn_as_the_softmax_in_double_precision_says() -> None:
    logits, draws = drawn(300, 1000) * 3, torch.Generator().manual_seed(1)
    temperature = torch.linspace(0.3, 2, 300)
    number = torch.rand(300, dtype=torch.float64, generator=draws)
    cumulated = (logits.double() / temperature.double()[:, None]).softmax(-1).cumsum(-1)
    found = quick.drawn(logits, temperature, number)
    rows = torch.arange(300)
    upper, lower = cumulated[rows, found], torch.where(found > 0, cumulated[rows, (found - 1).clamp(min=0)], 0)
    assert bool(((number < upper + 1e-6) & (number > lower - 1e-6)).all())
    assert len(set(found.tolist())) > 100


def test_what_cannot_be_is_never_drawn_and_the_likeliest_of_equals_is_the_first() -> None:
    low = -torch.inf
    logits = torch.full((6, 700), low)
    logits[:, 300:400] = 0.0
    logits[5] = torch.nan
    number = torch.tensor([0.0, 1 - 2**-53, 0.5, 0.0, 0.7, 0.5], dtype=torch.float64)
    warmth = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    logits[4, 500] = logits[4, 600] = 3.0
    found = quick.drawn(logits, warmth, number).tolist()
    assert found[:5] == [300, 399, 350, 300, 500]
    assert 0 <= found[5] < 700


@pytest.mark.parametrize("width", [1, 15, 16, 35, 64])
def test_the_likeliest_is_found_wherever_it_stands(width: int) -> None:
    logits = torch.full((width, width), -7.0) + 4 * torch.eye(width)
    numbers = torch.full((width,), 0.5, dtype=torch.float64)
    assert quick.drawn(logits, torch.zeros(width), numbers).tolist() == [*range(width)]
    logits.fill_diagonal_(100.0)  # beside which all others weigh nothing; were it not seen, weights would have no end
    assert quick.drawn(logits, torch.full((width,), 0.5), numbers).tolist() == [*range(width)]


def test_the_largest_number_draws_the_last_token_that_can_be() -> None:
    """However the sums are rounded."""
    logits = drawn(400, 900)
    logits[:, 700:] = -torch.inf
    number = torch.full((400,), 1 - 2**-53, dtype=torch.float64)
    assert set(quick.drawn(logits, torch.ones(400), number).tolist()) <= {698, 699}
