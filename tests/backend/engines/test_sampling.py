"""Choosing tokens, and turning them into text."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from backend.engines.local.sampling import Sampling, choose, settings_of, uniforms
from backend.engines.local.text import TextStream, token_bytes, token_text
from tests.backend.engines.tiny import CHINESE

CPU = torch.device("cpu")


def counts(sampling: Sampling, logits: torch.Tensor, draws: int = 20_000) -> torch.Tensor:
    rows = settings_of([sampling] * draws, logits.shape[0], CPU)
    tokens = choose(logits.expand(draws, -1), rows, list(itertools.islice(uniforms(0, 0), draws)))
    return torch.bincount(tokens, minlength=logits.shape[0]) / draws


LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.5])


def test_samples_follow_the_softmax_at_the_asked_temperature():
    for temperature in (0.5, 1.0, 2.0):
        expected = (LOGITS / temperature).softmax(-1)
        assert torch.allclose(counts(Sampling(temperature=temperature), LOGITS), expected, atol=0.015)


def test_temperature_zero_takes_the_best_token_also_beside_rows_that_sample():
    rows = settings_of([Sampling(temperature=0), Sampling(temperature=1.0)], 5, CPU)
    tokens = choose(LOGITS.expand(2, -1), rows, [0.99, 0.99])
    assert tokens.tolist() == [0, 4]


def test_top_k_and_top_p_leave_only_the_most_likely_tokens():
    assert counts(Sampling(top_k=2), LOGITS).nonzero().flatten().tolist() == [0, 4]
    shares = LOGITS.softmax(-1)
    two = float(shares[0] + shares[4])
    assert counts(Sampling(top_p=two - 0.01), LOGITS).nonzero().flatten().tolist() == [0, 4]
    assert counts(Sampling(top_p=two + 0.01), LOGITS).nonzero().flatten().tolist() == [0, 2, 4]
    assert counts(Sampling(top_p=1e-6), LOGITS).nonzero().flatten().tolist() == [0]


def test_each_row_keeps_its_own_settings():
    rows = settings_of([Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(), Sampling(temperature=0)], 5, CPU)
    assert choose(LOGITS.expand(4, -1), rows, [0.999] * 4).tolist() == [0, 0, 4, 0]


def test_the_random_numbers_of_a_sample_depend_on_seed_and_index_alone():
    def first(seed: int, sample: int) -> list[float]:
        return list(itertools.islice(uniforms(seed, sample), 100))

    assert first(1, 0) == first(1, 0)
    assert len({tuple(first(seed, sample)) for seed in range(5) for sample in range(5)}) == 25
    assert all(0 <= number < 1 for number in first(-3, 2))


def test_a_growing_chinese_text_never_holds_half_a_character(tokenizer):
    tokens = tokenizer.encode(CHINESE)
    assert len(tokens) > len(CHINESE)
    stream = TextStream(tokenizer, [], ())
    parts = [stream.add(token) for token in tokens]
    assert not any("\ufffd" in part for part in parts)
    assert "".join(parts) + stream.finish() == CHINESE


def test_a_text_cut_within_a_character_ends_before_it(tokenizer):
    tokens = tokenizer.encode("good " + CHINESE[:3])[:-1]
    stream = TextStream(tokenizer, [], ())
    for token in tokens:
        stream.add_later(token)
    assert stream.finish() == "good " + CHINESE[:2]


@pytest.mark.parametrize("seed", range(5))
def test_text_taken_token_by_token_equals_text_taken_at_the_end(tokenizer, seed: int):
    draw = random.Random(seed)
    tokens = [draw.randrange(len(tokenizer)) for _ in range(60)]
    stream, whole = TextStream(tokenizer, tokens[:5], ()), TextStream(tokenizer, tokens[:5], ())
    text = "".join([stream.add(token) for token in tokens[5:]]) + stream.finish()
    for token in tokens[5:]:
        whole.add_later(token)
    assert text == whole.finish()


def test_a_stop_string_across_tokens_is_never_shown_in_part(tokenizer):
    tokens = tokenizer.encode("the story STOP was kind")
    stream = TextStream(tokenizer, [], ["STOP", "nothing"])
    parts = []
    for token in tokens:
        parts.append(stream.add(token))
        if stream.has_stopped:
            break
    assert "".join(parts) + stream.finish() == "the story "
    assert stream.has_stopped


def test_text_that_only_began_like_a_stop_string_is_given_back(tokenizer):
    stream = TextStream(tokenizer, [], ["kindness"])
    parts = [stream.add(token) for token in tokenizer.encode("the story was kind")]
    assert "".join(parts) + stream.finish() == "the story was kind"
    assert not stream.has_stopped


def test_a_token_that_is_part_of_a_character_is_told_by_its_bytes(tokenizer):
    tokens = tokenizer.encode("天")
    assert b"".join(token_bytes(tokenizer, token) for token in tokens) == "天".encode()
    assert token_text(tokenizer, tokens[0]).startswith("bytes:\\xe5")
