"""Choosing tokens, and turning them into text."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from backend.engines.local.sampling import Sampling, choose, distribution, penalised, seen_of, settings_of, uniforms
from backend.engines.local.text import TextStream, decoder_of, token_bytes, token_text
from backend.engines.local.writing import token_logps
from tests.backend.engines.tiny import CHINESE

CPU = torch.device("cpu")


def counts(sampling: Sampling, logits: torch.Tensor, draws: int = 20_000) -> torch.Tensor:
    rows = settings_of([sampling] * draws, logits.shape[0], CPU)
    tokens = choose(logits.expand(draws, -1), rows, list(itertools.islice(uniforms(0, 0), draws)))
    return torch.bincount(tokens, minlength=logits.shape[0]) / draws


LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.5])

LOGITS_OF_OTHER = torch.zeros(1, 500)


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


def test_min_p_leaves_the_tokens_that_are_not_much_less_likely_than_the_best():
    shares = LOGITS.softmax(-1)
    ratio = float(shares[2] / shares[0])
    assert counts(Sampling(min_p=ratio - 0.01), LOGITS).nonzero().flatten().tolist() == [0, 2, 4]
    assert counts(Sampling(min_p=ratio + 0.01), LOGITS).nonzero().flatten().tolist() == [0, 4]
    assert counts(Sampling(min_p=1.0), LOGITS).nonzero().flatten().tolist() == [0]


def test_each_row_keeps_its_own_settings():
    listed = [Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(min_p=1.0), Sampling(), Sampling(temperature=0)]
    rows = settings_of(listed, 5, CPU)
    assert choose(LOGITS.expand(5, -1), rows, [0.999] * 5).tolist() == [0, 0, 0, 4, 0]


@pytest.mark.parametrize("seed", range(20))
def test_the_distribution_is_that_of_transformers_own_processors(seed: int):
    draw, vocabulary = random.Random(seed), 40
    torch.manual_seed(seed)
    logits, rows, expected, prompts = 3 * torch.randn(6, vocabulary), [], [], []
    for own in logits:
        sampling = Sampling(
            temperature=draw.choice([0.3, 1.0, 1.7]),
            top_p=draw.choice([1.0, 0.9, 0.5]),
            top_k=draw.choice([0, 3, 10]),
            min_p=draw.choice([0.0, 0.05, 0.5]),
            repetition_penalty=draw.choice([1.0, 1.3, 0.8]),
        )
        tokens = [draw.randrange(vocabulary) for _ in range(8)]
        processors = [RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
        processors += [TemperatureLogitsWarper(sampling.temperature)]
        processors += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
        processors += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
        processors += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
        theirs = LogitsProcessorList(processors)(torch.tensor([tokens]), own.unsqueeze(0).clone())
        expected.append(theirs[0].softmax(-1))
        rows.append(sampling)
        prompts.append(tokens)
    seen = []
    for sampling, tokens in zip(rows, prompts, strict=True):
        one = seen_of(sampling, tokens[:4], vocabulary, CPU)
        for token in tokens[4:] if one else ():
            one.add(token)
        seen.append(one)
    before = logits.clone()
    ours = distribution(penalised(logits, seen), settings_of(rows, vocabulary, CPU))
    assert torch.equal(logits, before)
    assert torch.allclose(ours / ours.sum(-1, keepdim=True), torch.stack(expected), atol=1e-6)


def test_greedy_rows_feel_the_repetition_penalty_too():
    seen = [seen_of(Sampling(repetition_penalty=5.0), [0], 5, CPU), None]
    rows = settings_of([Sampling(temperature=0)] * 2, 5, CPU)
    assert choose(penalised(LOGITS.expand(2, -1), seen), rows, [0.5] * 2).tolist() == [4, 0]


def test_a_row_that_leaves_nothing_out_does_not_feel_that_others_do():
    """Not even where its number falls between two tokens: it is looked up in the same sums."""
    logits = torch.randn(64, 500, generator=torch.Generator().manual_seed(0)) * 2
    sums = torch.softmax(logits, -1).double().cumsum(-1)
    edges = [float(sums[row, 7 * row] / sums[row, -1]) for row in range(64)]
    plain = [Sampling()] * 64
    alone = choose(logits, settings_of(plain, 500, logits.device), edges)
    for other in (Sampling(top_k=3), Sampling(top_p=0.5), Sampling(min_p=0.2)):
        beside = choose(
            torch.cat([logits, LOGITS_OF_OTHER]), settings_of([*plain, other], 500, logits.device), [*edges, 0.1]
        )
        assert torch.equal(beside[:64], alone)


@pytest.mark.parametrize("temperature", [1e-46, 1e-38, 1e-7])
def test_a_temperature_too_low_for_float32_is_greedy(temperature: float):
    rows = settings_of([Sampling(temperature=temperature), Sampling()], 5, CPU)
    assert choose(LOGITS.expand(2, -1), rows, [0.999] * 2).tolist() == [0, 4]


def test_a_token_that_cannot_be_has_a_log_probability_that_json_can_hold():
    logps = torch.tensor([[0.0, float("-inf"), float("-inf")]])
    (told,) = token_logps(logps, torch.tensor([1]), 3)
    assert told.logp == -9999.0
    assert [logp for _, logp in told.top] == [0.0, -9999.0, -9999.0]


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


@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_to_stop_strings_how_the_text_is_cut_into_tokens(tokenizer, seed: int):
    """The first one to be complete ends the text, also where it stands within another one or within half characters."""
    draw = random.Random(seed)
    text = f"the story {CHINESE[:5]} was kind 😀 and {CHINESE[5:9]} long"
    starts = [draw.randrange(len(text) - 8) for _ in range(draw.randint(1, 3))]
    outer = [text[at : at + draw.randint(3, 8)] for at in starts]
    stops = outer + [stop[1:-1] for stop in outer]
    first = min((text.index(stop) + len(stop), text.index(stop)) for stop in stops)[1]
    for tokens in (tokenizer.encode(text), [token for letter in text for token in tokenizer.encode(letter)]):
        stream = TextStream(tokenizer, [], stops)
        parts = [stream.add(token) for token in tokens if not stream.has_stopped]
        assert "".join(parts) + stream.finish() == text[:first]
        assert stream.has_stopped


def test_text_that_only_began_like_a_stop_string_is_given_back(tokenizer):
    stream = TextStream(tokenizer, [], ["kindness"])
    parts = [stream.add(token) for token in tokenizer.encode("the story was kind")]
    assert "".join(parts) + stream.finish() == "the story was kind"
    assert not stream.has_stopped


def test_tokens_are_the_text_that_the_tokenizer_makes_of_them(tokenizer, monkeypatch: pytest.MonkeyPatch):
    """Also of one that does something of its own; others' library is asked itself."""
    tokens = [*tokenizer.encode("the story , " + CHINESE), tokenizer.eos_token_id, *tokenizer.encode(" was kind")]
    told = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    asked = []
    plain = PreTrainedTokenizerFast.decode
    with monkeypatch.context() as patch:
        patch.setattr(
            PreTrainedTokenizerFast, "decode", lambda *args, **named: asked.append(1) or plain(*args, **named)
        )
        assert decoder_of(tokenizer)(tokens) == told and not asked

    class Loud(PreTrainedTokenizerFast):
        def _decode(self, *args, **named):
            return super()._decode(*args, **named).upper()

    loud = Loud(tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token)
    assert decoder_of(loud)(tokens) == told.upper() != told


def test_a_token_that_is_part_of_a_character_is_told_by_its_bytes(tokenizer):
    tokens = tokenizer.encode("天")
    assert b"".join(token_bytes(tokenizer, token) for token in tokens) == "天".encode()
    assert token_text(tokenizer, tokens[0]).startswith("bytes:\\xe5")
