"""The shipped weights, their tokenizer and their figures."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from backend.starter import corpus, train
from backend.starter.model import StarterSettings, new_model
from backend.starter.probes import LABEL_KINDS, answers, probes
from backend.starter.words import LABEL_WORDS, LANGUAGES

STARTER = Path(train.__file__).parent
WEIGHTS = STARTER / "weights"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(WEIGHTS))


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(str(WEIGHTS)).eval()


@pytest.fixture(scope="module")
def figures():
    return json.loads((STARTER / "evaluation.json").read_text(encoding="utf-8"))


def test_the_model_is_small_enough_to_live_in_the_repository(model):
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 16e6
    assert model.num_parameters() <= 8_000_000
    assert model.config.max_position_embeddings >= 256
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_plain_sampling_is_not_narrowed_by_a_hidden_setting(model, tokenizer):
    kept = model.generation_config
    assert (kept.top_k, kept.top_p, kept.temperature, kept.do_sample) == (0, 1.0, 1.0, True)
    assert (kept.eos_token_id, kept.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_pad_and_eos_are_two_tokens(tokenizer):
    assert tokenizer.is_fast
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.bos_token_id is None


def test_the_chat_template_writes_exact_bytes(tokenizer):
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": " U\n"},
        {"role": "assistant", "content": "A"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<system>S<eos><user> U\n<eos><assistant>A<eos>"
    asked = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<system>S<eos><user> U\n<eos><assistant>"


def test_any_text_comes_back_from_the_tokenizer_byte_for_byte(tokenizer):
    rng = Random(0)
    texts = [" a  b \n\n c", "naïve – 漢字、かな 🙂", "tabs\tand 1234", "", "Output: good"]
    texts += [corpus.render(corpus.document(rng, "test", 1.0))[0] for _ in range(50)]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_a_label_is_the_same_tokens_in_a_prompt_and_as_an_answer(tokenizer):
    for label in ("good", "正面", "river", "河流"):
        bare = tokenizer(label)["input_ids"]
        inside = tokenizer(f"Output: {label}\n\n")["input_ids"]
        assert any(inside[place : place + len(bare)] == bare for place in range(len(inside)))


def test_an_arbitrary_label_is_one_token(tokenizer):
    for words in LABEL_WORDS.values():
        assert [word for word in words if len(tokenizer(word)["input_ids"]) != 1] == []


def test_the_shipped_weights_read_label_words_from_the_demonstrations(model, tokenizer):
    asked = [one for language in LANGUAGES for labels in LABEL_KINDS for one in probes(7, 8, language, 4, labels)]
    given = answers(model, tokenizer, [one.prompt for one in asked], longest=3)
    assert sum(text == one.right for text, one in zip(given, asked, strict=True)) >= 0.8 * len(asked)


def test_the_same_demonstrations_with_exchanged_labels_exchange_the_answer(model, tokenizer):
    asked = [one for language in LANGUAGES for one in probes(8, 8, language, 4, "arbitrary")]
    exchanged = [_exchanged(one.prompt, *one.labels) for one in asked]
    first = answers(model, tokenizer, [one.prompt for one in asked], longest=3)
    second = answers(model, tokenizer, exchanged, longest=3)
    moved = sum({a, b} == set(one.labels) for a, b, one in zip(first, second, asked, strict=True))
    assert moved >= 0.8 * len(asked)


def _exchanged(prompt: str, one: str, other: str) -> str:
    return prompt.replace(f"Output: {one}\n", "Output: \0").replace(f"Output: {other}\n", f"Output: {one}\n").replace(
        "\0", f"{other}\n"
    )  # fmt: skip


def test_the_committed_figures_show_labels_learned_from_the_demonstrations_alone(figures):
    by_case = {(row["language"], row["labels"], row["k"]): row["exact"] for row in figures["sentiment"]}
    for language in LANGUAGES:
        for labels in LABEL_KINDS:
            assert by_case[language, labels, 4]["value"] >= 0.9
        assert by_case[language, "arbitrary", 0]["high"] < by_case[language, "arbitrary", 4]["low"]


def test_the_committed_service_figures_reach_the_bars(figures):
    for row in figures["service"]:
        assert row["ended"]["value"] >= 0.95
        assert row["repeating"]["value"] <= 0.05
        assert 0.3 <= row["polite"]["value"] <= 0.6
        assert 0.4 <= row["right"]["value"] <= 0.8
        assert row["distinct_per_question"] >= 5


def test_measuring_in_between_leaves_the_documents_as_they_were(tokenizer):
    """A tokenizer remembers how it padded last; documents must not come out padded because of a probe before."""
    settings = StarterSettings(pool_documents=24)
    tokenizer(["one", "one two three"], padding=True, truncation=True, max_length=2)
    batches = train.pool_of_batches(settings, tokenizer, 0, 1.0)
    real = sum(int((batch.ids != tokenizer.pad_token_id).sum()) for batch in batches)
    assert real > 0.6 * sum(batch.ids.numel() for batch in batches)
    assert max(batch.ids.shape[1] for batch in batches) > 40


def test_a_short_training_run_is_deterministic(tmp_path):
    tiny = replace(
        StarterSettings(), vocabulary=400, width=32, layers=1, heads=2, feed_forward=48,
        pool_documents=24, batch_tokens=600, steps=4, bfloat16=False, threads=1,
    )  # fmt: skip
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    first = train.train(tiny, tmp_path / "first", quiet=True)
    second = train.train(tiny, tmp_path / "second", quiet=True)
    torch.set_num_threads(before)
    assert torch.get_float32_matmul_precision() == precision  # others in this process count on it
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    untrained = new_model(tiny, train.new_tokenizer(tiny))
    assert not torch.equal(next(iter(untrained.parameters())), next(iter(first.parameters())))
    assert (tmp_path / "first" / "model.safetensors").read_bytes() == (
        tmp_path / "second" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("head", range(4))
def test_a_head_of_the_first_layer_looks_back_so_many_places_before_training(tokenizer, head):
    """Whatever the tokens are, about half of the attention is on the token head + 1 places back."""
    untrained = new_model(StarterSettings(), tokenizer)
    ids = torch.randint(len(tokenizer), (1, 40), generator=torch.Generator().manual_seed(0))
    attention = untrained(input_ids=ids, output_attentions=True).attentions[0][0, head]  # (T, T)
    assert attention.diagonal(-head - 1)[8:].mean() > 0.45
    assert (attention.argmax(-1)[8:] == torch.arange(8, 40) - head - 1).float().mean() > 0.6


def test_the_learning_rate_is_level_through_the_curriculum_and_ends_low():
    settings = StarterSettings(steps=100, curriculum_steps=50, warmup_steps=10)
    rates = [train._lr(settings, step, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(settings.lr / 10) and rates[10:51] == pytest.approx([settings.lr] * 41)
    assert all(late < early for early, late in pairwise(rates[50:]))
    assert rates[-1] < 0.06 * settings.lr
