"""Rows of several adapters in one batch: each has the numbers of its own model alone, and the same ones in any company."""

from __future__ import annotations

import random

import pytest
import torch

from backend.decoder.stack import Stack
from backend.engines.local import mixed
from backend.engines.local.mixed import MixedRows, Prompt, fewest_rows
from backend.engines.local.prefixes import Prefixes
from backend.training.shared_base import SharedBase
from tests.backend.training import wired

ADAPTERS = [None, "policy", "second"]


@pytest.fixture(autouse=True)
def _one_thread_and_no_gradients() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def stack_of(base: SharedBase) -> Stack:
    stack = Stack(base.backbone, base.causal.get_output_embeddings())
    stack.pack(16)
    return stack


def rows_of(stack: Stack, fewest: int | None = None, limit: int = 10**7) -> MixedRows:
    return MixedRows(stack, 96, Prefixes(limit), fewest_rows(stack) if fewest is None else fewest)


def full(base: SharedBase, tokens: list[int], adapter: str | None) -> torch.Tensor:
    """The model's own answer under this adapter, without a cache."""
    with base.scope(adapter):
        one = torch.tensor([tokens])
        return base.logits(base.states(one, torch.ones_like(one, dtype=torch.bool)))[0, -1]


def text_of(draw: random.Random, length: int) -> list[int]:
    return [draw.randrange(4, 32) for _ in range(length)]


def test_rows_that_come_and_go_have_the_logits_of_their_own_model() -> None:
    for base in wired.bases():
        draw, stack = random.Random(0), stack_of(base)
        held, texts, owners, last = rows_of(stack), [], [], torch.zeros(0, dtype=torch.long)
        for turn in range(24):
            if turn in (0, 2, 7):  # one row; several of all adapters, two to a prompt; a long one
                lengths = {0: (5,), 2: (2, 40, 3, 17), 7: (60,)}[turn]
                prompts = [text_of(draw, length) for length in lengths]
                adapters = [ADAPTERS[(at + turn) % 3] for at in range(len(prompts))]
                sources = [at for at in range(len(prompts)) for _ in range(2 if turn == 2 else 1)]
                asked = [Prompt(text, owner, str(owner)) for text, owner in zip(prompts, adapters, strict=True)]
                last = torch.cat([last, held.add(asked, sources)])
                texts += [prompts[at][:-1] for at in sources]
                owners += [adapters[at] for at in sources]
            if turn in (5, 9, 12):
                kept = sorted(draw.sample(range(len(texts)), max(1, len(texts) - 3)))
                held.keep(kept)
                texts, owners = [texts[at] for at in kept], [owners[at] for at in kept]
                last = last[kept]
            texts = [[*text, int(token)] for text, token in zip(texts, last, strict=True)]
            logits = held.step(last)
            for text, owner, row in zip(texts, owners, logits, strict=True):
                torch.testing.assert_close(row, full(base, text, owner), rtol=1e-4, atol=1e-4)
            last = torch.tensor([draw.randrange(4, 32) for _ in texts])


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
                last, seen = held.add(prompts, range(len(prompts))), []
                for turn, token in enumerate([text[-1], *ahead]):
                    last[place] = token
                    seen.append(held.step(last)[place])
                    if turn == 4 and company > 4:  # some leave, others come
                        stay = sorted({place, *draw.sample(range(company + 1), 3)})
                        held.keep(stay)
                        last, place = last[stay], stay.index(place)
                        newer = [Prompt(text_of(draw, 9), draw.choice(ADAPTERS), "newer") for _ in range(6)]
                        last = torch.cat([last, held.add(newer, range(6))])
                runs.append(torch.stack(seen))
            assert all(torch.equal(run, runs[0]) for run in runs[1:]), adapter


def test_what_is_known_of_a_prompt_changes_no_bit() -> None:
    for base in wired.bases()[:2]:
        stack, draw = stack_of(base), random.Random(2)
        shared = text_of(draw, 64)
        texts = [[*shared, *text_of(draw, 9)], [*shared, *text_of(draw, 2)], shared[:33], [*shared, 7]]
        for adapter in ADAPTERS:
            fresh = [rows_of(stack) for _ in texts]
            expected = [
                held.step(held.add([Prompt(text, adapter, "m")], [0]))[0]
                for held, text in zip(fresh, texts, strict=True)
            ]
            held = rows_of(stack)
            known = [
                held.step(held.add([Prompt(text, adapter, "m")], [0]))[-1] if not held.keep([]) else None
                for text in texts
            ]
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
    found, expected = (held.step(held.add([prompt], [0])) for held in (parts, whole))
    assert torch.equal(found, expected)
    assert not rows_of(stack, limit=0).read_part(prompt, 40), "nothing is kept, so nothing is gained"


def test_a_place_beyond_the_context_is_the_last_one() -> None:
    base = wired.bases()[0]
    held = MixedRows(stack_of(base), 4, Prefixes(0), 2)
    last = held.add([Prompt([4, 5, 6], None, "m")], [0])
    for _ in range(4):
        assert bool(torch.isfinite(held.step(last)).all())


def test_the_fewest_rows_are_those_whose_products_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_of(wired.bases()[0])
    assert fewest_rows(stack) in mixed.TRIED_ROWS
    rows = torch.ones(64, 3)
    monkeypatch.setattr(stack, "first_products", lambda _: [(lambda x: x * (1 if len(x) >= 8 else 2), rows)])
    assert fewest_rows(stack) == 8
    monkeypatch.setattr(stack, "first_products", lambda _: [(lambda x: x * len(x), rows)])
    assert fewest_rows(stack) == 16
