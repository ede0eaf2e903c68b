"""Rows of several adapters in one batch: each has the numbers of its own model alone, and the same ones in any company."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.decoder import quick
from backend.decoder.stack import Stack
from backend.engines.local import mixed
from backend.engines.local.mixed import MixedRows, fewest_rows
from backend.engines.local.prefixes import Prefixes
from backend.engines.local.prepared import Prepared
from backend.engines.local.prompts import Fewest, Prompt
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import wired

ADAPTERS = [None, "policy", "second"]
WAYS = SimpleNamespace(is_tiled=False)  # of the test that runs


@pytest.fixture(autouse=True)
def _one_thread_and_no_gradients() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, params=["loops", "products", "tiles"])
def _every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as a processor's loops, and as products, which are what other devices have; and all products in tiles, prompts in one call."""
    if request.param == "products":
        monkeypatch.setattr(quick, "loops_for", lambda *_: None)
    monkeypatch.setattr(WAYS, "is_tiled", request.param == "tiles")


def stack_of(base: SharedBase) -> Stack:
    stack = Stack(base.backbone, base.causal.get_output_embeddings())
    stack.pack(16)
    if WAYS.is_tiled:
        stack.tile()
    return stack


def rows_of(stack: Stack, fewest: Fewest | None = None, limit: int = 10**7) -> MixedRows:
    return MixedRows(stack, 96, Prefixes(limit), fewest_rows(stack) if fewest is None else fewest)


def full(base: SharedBase, tokens: list[int], adapter: str | None) -> torch.Tensor:
    """The model's own answer under this adapter, without a cache."""
    with base.scope(adapter):
        one = torch.tensor([tokens])
        return base.logits(base.states(one, torch.ones_like(one, dtype=torch.bool)))[0, -1]


def text_of(draw: random.Random, length: int) -> list[int]:
    return [draw.randrange(4, 32) for _ in range(length)]


def begun(held: MixedRows, prompt: Prompt) -> torch.Tensor:
    """The logits of its only row's first two tokens, of which the first is 5."""
    held.keep([])
    return torch.cat([held.add([prompt], [0]), held.step(torch.tensor([5]))])


def test_rows_that_come_and_go_have_the_logits_of_their_own_model() -> None:
    for base in wired.bases():
        draw, stack = random.Random(0), stack_of(base)
        held, texts, owners = rows_of(stack), [], []
        for turn in range(24):
            if turn in (0, 2, 7):  # one row; several of all adapters, two to a prompt; a long one
                lengths = {0: (5,), 2: (2, 40, 3, 17), 7: (60,)}[turn]
                prompts = [text_of(draw, length) for length in lengths]
                adapters = [ADAPTERS[(at + turn) % 3] for at in range(len(prompts))]
                sources = [at for at in range(len(prompts)) for _ in range(2 if turn == 2 else 1)]
                asked = [Prompt(text, owner, str(owner)) for text, owner in zip(prompts, adapters, strict=True)]
                for at, row in zip(sources, held.add(asked, sources), strict=True):
                    torch.testing.assert_close(row, full(base, prompts[at], adapters[at]), rtol=1e-4, atol=1e-4)
                texts += [prompts[at] for at in sources]
                owners += [adapters[at] for at in sources]
            if turn in (5, 9, 12):
                kept = sorted(draw.sample(range(len(texts)), max(1, len(texts) - 3)))
                held.keep(kept)
                texts, owners = [texts[at] for at in kept], [owners[at] for at in kept]
            last = [draw.randrange(4, 32) for _ in texts]
            texts = [[*text, token] for text, token in zip(texts, last, strict=True)]
            logits = held.step(torch.tensor(last))
            for text, owner, row in zip(texts, owners, logits, strict=True):
                torch.testing.assert_close(row, full(base, text, owner), rtol=1e-4, atol=1e-4)


def test_a_rows_bits_do_not_depend_on_its_company() -> None:
    for base in wired.bases()[:2]:
        stack = stack_of(base)
        draw = random.Random(1)
        text, ahead = text_of(draw, 37), [draw.randrange(4, 32) for _ in range(12)]
        for adapter in ADAPTERS:
            runs = []
            for company in (0, 1, 9, 20):
                held = rows_of(stack)
                others = [
                    Prompt(text_of(draw, draw.randrange(1, 50)), draw.choice(ADAPTERS), str(n)) for n in range(company)
                ]
                place = draw.randrange(company + 1)
                prompts = [*others[:place], Prompt(text, adapter, "own"), *others[place:]]
                seen, rows = [held.add(prompts, range(len(prompts)))[place]], len(prompts)
                for turn, token in enumerate(ahead):
                    last = torch.tensor(text_of(draw, rows))
                    last[place] = token
                    seen.append(held.step(last)[place])
                    if turn == 4 and company > 4:  # some leave, others come
                        stay = sorted({place, *draw.sample(range(company + 1), 3)})
                        held.keep(stay)
                        place, rows = stay.index(place), len(stay) + 6
                        newer = [Prompt(text_of(draw, 9), draw.choice(ADAPTERS), "newer") for _ in range(6)]
                        held.add(newer, range(6))
                runs.append(torch.stack(seen))
            assert all(torch.equal(run, runs[0]) for run in runs[1:]), adapter


def test_samples_of_a_prompt_that_is_held_once_have_the_logits_of_their_model() -> None:
    for base in wired.bases():
        draw, stack = random.Random(4), stack_of(base)
        held, prompts = rows_of(stack), [text_of(draw, 19), text_of(draw, 6), text_of(draw, 70)]
        owners = ["policy", None, "second"]
        asked = [Prompt(text, owner, str(owner)) for text, owner in zip(prompts, owners, strict=True)]
        sources = [0] * 9 + [1] * 2 + [2] * 8
        first = held.add(asked, sources)
        texts, owner = [prompts[at] for at in sources], [owners[at] for at in sources]
        for text, name, row in zip(texts, owner, first, strict=True):
            torch.testing.assert_close(row, full(base, text, name), rtol=1e-4, atol=1e-4)
        assert held._kept.shape[4] == 64, "only the prompt of few samples takes places for each"
        for turn in range(20):
            if turn in (6, 12):  # rows leave both benches, once so many that the others move together
                kept = sorted(draw.sample(range(len(texts)), 12 if turn == 6 else 5))
                held.keep(kept)
                texts, owner = [texts[at] for at in kept], [owner[at] for at in kept]
            if turn == 8:  # and another one joins
                held.add([Prompt([5, 6, 7, 8], "policy", "policy")], [0] * 8)
                texts, owner = texts + [[5, 6, 7, 8]] * 8, [*owner, *["policy"] * 8]
            last = [draw.randrange(4, 32) for _ in texts]
            texts = [[*text, token] for text, token in zip(texts, last, strict=True)]
            logits = held.step(torch.tensor(last))
            for text, name, row in zip(texts, owner, logits, strict=True):
                torch.testing.assert_close(row, full(base, text, name), rtol=1e-4, atol=1e-4)


def test_many_samples_of_a_single_token_are_held_once_too() -> None:
    for base in wired.bases()[:2]:
        held = rows_of(stack_of(base))
        first = held.add([Prompt([7], "policy", "m"), Prompt([7, 8], "policy", "m")], [0] * 9 + [1] * 9)
        logits = held.step(torch.full((18,), 9))
        for row, text in ((first[4], [7]), (first[12], [7, 8]), (logits[4], [7, 9]), (logits[12], [7, 8, 9])):
            torch.testing.assert_close(row, full(base, text, "policy"), rtol=1e-4, atol=1e-4)


def test_a_samples_bits_do_not_depend_on_its_company() -> None:
    for base in wired.bases()[:2]:
        stack = stack_of(base)
        draw = random.Random(5)
        text, ahead = text_of(draw, 37), [draw.randrange(4, 32) for _ in range(12)]
        runs = []
        for company, several in ((0, 8), (9, 8), (3, 11)):
            held = rows_of(stack)
            others = [
                Prompt(text_of(draw, draw.randrange(1, 50)), draw.choice(ADAPTERS), str(n)) for n in range(company)
            ]
            sources = [*range(company), *[company] * several]
            place, rows = company + 3, len(sources)
            seen = [held.add([*others, Prompt(text, "policy", "own")], sources)[place]]
            for turn, token in enumerate(ahead):
                last = torch.tensor(text_of(draw, rows))
                last[place] = token
                seen.append(held.step(last)[place])
                if turn == 4 and company:  # others leave, also of its own prompt; many come
                    stay = sorted({place, *draw.sample(range(len(sources)), 4)})
                    held.keep(stay)
                    place, rows = stay.index(place), len(stay) + 10
                    held.add([Prompt(text_of(draw, 9), draw.choice(ADAPTERS), "newer")], [0] * 10)
            runs.append(torch.stack(seen))
        assert all(torch.equal(run, runs[0]) for run in runs[1:])


def test_memory_that_stays_gives_later_rows_the_same_bits() -> None:
    stack, draw = stack_of(wired.bases()[0]), random.Random(6)
    held = MixedRows(stack, 96, Prefixes(0), fewest_rows(stack), most_bytes=10**9)
    prompt = Prompt(text_of(draw, 21), "policy", "own")
    runs = []
    for company in (0, 5, 0):
        others = [Prompt(text_of(draw, 50), "second", "other") for _ in range(company)]
        held.add([prompt, *others], range(company + 1))
        last = torch.full((company + 1,), 5)
        runs.append(torch.stack([held.step(last)[0] for _ in range(4)]))
        assert held._kept.shape[2] == mixed.RESERVED > len(held._read), "what nobody has used is not taken"
        held.keep([])
        assert held._memory.nbytes > 0 and not held._read
    assert all(torch.equal(run, runs[0]) for run in runs[1:])
    little = MixedRows(stack, 96, Prefixes(0), fewest_rows(stack))  # which lays out no more than it needs
    little.add([prompt], [0])
    assert little._kept.shape[2] == len(little._read)
    little.keep([])
    assert little._memory.nbytes == 0, "nothing stays where nothing may"


def test_memory_for_the_first_rows_is_taken_before_anybody_asks() -> None:
    stack, text = stack_of(wired.bases()[0]), text_of(random.Random(9), 30)
    held, little = (MixedRows(stack, 96, Prefixes(0), fewest_rows(stack), most_bytes=most) for most in (10**9, 100))
    for rows in (held, little):
        rows.have_ready()
    assert held._memory.nbytes >= held._memory.bytes(mixed.READY_ROWS, 128) and little._memory.nbytes == 0
    before = held._memory._regions.data_ptr()
    held.add([Prompt(text, None, "m")], [0])
    held.step(torch.tensor([5]))
    assert held._memory._regions.data_ptr() == before, "the first rows take no more"


def test_rows_move_to_empty_slots_when_many_have_left() -> None:
    base, draw = wired.bases()[0], random.Random(7)
    held = rows_of(stack_of(base), Fewest(4, 4))
    texts = [text_of(draw, 9) for _ in range(16)]
    held.add([Prompt(text, None, str(at)) for at, text in enumerate(texts)], range(16))
    held.keep([2, 9, 12, 15])
    assert len(held._read) == 4 and sorted(held._slots) == [0, 1, 2, 3]
    for at, row in zip([2, 9, 12, 15], held.step(torch.tensor([4, 5, 6, 7])), strict=True):
        text = [*texts[at], {2: 4, 9: 5, 12: 6, 15: 7}[at]]
        torch.testing.assert_close(row, full(base, text, None), rtol=1e-4, atol=1e-4)


def test_adapters_of_unlike_rank_share_steps_and_change_no_bit_of_each_other() -> None:
    base = wired.base_of(next(wired.models()))
    base.add("wide", Shape(20, 8), seed=5)
    for weight in base.weights("wide"):
        weight.data.add_(0.1)
    stack, draw = stack_of(base), random.Random(8)
    texts = {name: text_of(draw, 11) for name in ("policy", "wide", "second")}
    together, alone = rows_of(stack), rows_of(stack)
    first = together.add([Prompt(text, name, name) for name, text in texts.items()], range(3))
    assert [kind.names for kind in together._made_ready(16).adapters.kinds] == [("policy", "second"), ("wide",)]
    logits = together.step(torch.tensor([5, 5, 5]))
    for row, later, (name, text) in zip(first, logits, texts.items(), strict=True):
        torch.testing.assert_close(row, full(base, text, name), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(later, full(base, [*text, 5], name), rtol=1e-4, atol=1e-4)
    assert torch.equal(alone.add([Prompt(texts["wide"], "wide", "wide")], [0])[0], first[1])
    assert torch.equal(alone.step(torch.tensor([5]))[0], logits[1])


def test_adapters_stay_prepared_while_they_are_in_memory() -> None:
    stack, made = stack_of(wired.bases()[0]), Prepared()
    first = made.of(stack, ["policy"])
    assert made.of(stack, ["policy"]) is first and made.of(stack, []) is first
    both = made.of(stack, ["second"])
    assert [kind.names for kind in both.kinds] == [("policy", "second")] and made.of(stack, ["policy"]) is both
    made._names = ["gone", "policy"]  # as if it had been dropped from memory
    assert made.of(stack, ["second"]).kinds[0].names == ("policy", "second")
    assert made._names == ["policy", "second"], "one that comes back later is not taken for prepared"
    assert made.of(stack_of(wired.bases()[1]), ["policy"]).kinds[0].names == ("policy",), "another base knows none"


def test_what_is_known_of_a_prompt_changes_no_bit() -> None:
    for base in wired.bases()[:2]:
        stack, draw = stack_of(base), random.Random(2)
        shared = text_of(draw, 64)
        texts = [[*shared, *text_of(draw, 9)], [*shared, *text_of(draw, 2)], shared[:33], [*shared, 7]]
        for adapter in ADAPTERS:
            fresh = [rows_of(stack) for _ in texts]
            expected = [begun(held, Prompt(text, adapter, "m")) for held, text in zip(fresh, texts, strict=True)]
            held = rows_of(stack)
            known = [begun(held, Prompt(text, adapter, "m")) for text in texts]
            assert held._prefixes.found_tokens == 64 + 32 + 64
            assert all(torch.equal(a, b) for a, b in zip(known, expected, strict=True))


def test_a_long_prompt_can_be_read_in_parts() -> None:
    base = wired.bases()[0]
    stack, text = stack_of(base), text_of(random.Random(3), 90)
    whole, parts = rows_of(stack), rows_of(stack)
    prompt = Prompt(text, "policy", "m")
    assert parts.unread(prompt) == 89
    assert parts.read_part(prompt, 40) and parts.unread(prompt) == 89 - 32
    assert parts.read_part(prompt, 40) and parts.unread(prompt) == 89 - 64
    found, expected = (begun(held, prompt) for held in (parts, whole))
    assert torch.equal(found, expected)
    assert not rows_of(stack, limit=0).read_part(prompt, 40), "nothing is kept, so nothing is gained"


def test_a_place_beyond_the_context_is_the_last_one() -> None:
    base = wired.bases()[0]
    held = MixedRows(stack_of(base), 4, Prefixes(0), Fewest(2, 2))
    assert bool(torch.isfinite(held.add([Prompt([4, 5, 6], None, "m")], [0])).all())
    for _ in range(4):
        assert bool(torch.isfinite(held.step(torch.tensor([5]))).all())


def test_the_fewest_rows_are_those_whose_products_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_of(wired.bases()[0])
    assert {*fewest_rows(stack)} <= {*mixed.TRIED_ROWS}
    rows = torch.ones(64, 3)

    def agree_from(written: int, read: int) -> None:
        def products(_: int, *, of_prompts: bool) -> list[tuple[Any, torch.Tensor]]:
            return [(lambda x: x * (1 if len(x) >= (read if of_prompts else written) else 2), rows)]

        monkeypatch.setattr(stack, "first_products", products)

    agree_from(2, 8)
    assert fewest_rows(stack) == (2, 8), "steps are not to be padded for what only prompts' adapters need"
    agree_from(8, 2)
    assert fewest_rows(stack) == (8, 2)
    agree_from(60, 60)
    assert fewest_rows(stack) == (16, 16)


def test_no_row_of_a_product_may_differ_not_the_last_ones_either(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, rows = stack_of(wired.bases()[0]), torch.ones(64, 3)

    def product(x: torch.Tensor) -> torch.Tensor:
        """Whose rows beyond the last multiple of four have other bits."""
        return torch.cat([x[: len(x) // 4 * 4], 2 * x[len(x) // 4 * 4 :]])

    monkeypatch.setattr(stack, "first_products", lambda _, of_prompts: [(product, rows)])
    assert fewest_rows(stack) == (16, 16), "17 rows have one more"
