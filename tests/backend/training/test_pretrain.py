"""Continued pretraining: what each family is asked, that it learns it, and that the figures are those of the texts."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from backend.training import objectives, pretrain
from backend.training.data import BadRows, TextRow, read_texts
from backend.training.draws import generator
from backend.training.families import UnsupportedBase
from backend.training.objectives import Question, ask, kit_of, question_logp
from backend.training.run import NotFinite, Run, Stopped, TooFewRows
from backend.training.settings import PretrainSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny
from tests.backend.training.test_families import jsonl

FAMILIES = ["llama", "t5", "bert", "xlnet"]
QUICK: dict[str, Any] = {"lora_r": 8, "lora_alpha": 16, "learning_rate": 1e-2, "num_train_epochs": 6, "batch_size": 8}


def rows_of(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None) -> list[TextRow]:
    return read_texts(jsonl(tmp_path / "rows.jsonl", rows or [tiny.text_row(i) for i in range(50)]))


def ready(family: str) -> SharedBase:
    base = tiny.base(family)
    base.add("policy", Shape(8, 16), seed=0)
    return base


def run_of(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Run(tmp_path / "run")


def trained(tmp_path: Path, family: str = "llama", seed: int = 0, **settings: Any) -> tuple[SharedBase, dict[str, Any]]:
    base = ready(family)
    return base, pretrain.train(
        base, rows_of(tmp_path), PretrainSettings(**{**QUICK, **settings}), seed, run_of(tmp_path)
    )


# ---- what is asked


def asked_of(base: SharedBase, tokens: list[int], number: int = 0) -> Question:
    return ask(base, kit_of(base), tokens, PretrainSettings(), generator(0, number, "test"))


TEXT = [6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def test_a_decoder_predicts_every_token_but_the_first() -> None:
    base = tiny.base("llama")
    assert asked_of(base, [*TEXT, 1]) == Question([6], [*TEXT[1:], 1], [])
    base.tokenizer.bos_token = "<unk>"
    assert asked_of(base, [*TEXT, 1]) == Question([5], [*TEXT, 1], [])


def test_t5_writes_the_spans_that_were_cut_out_and_an_end() -> None:
    base = tiny.base("t5")
    sentinels = base.tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(12)])
    question = asked_of(base, TEXT)
    assert question.answer[0] == sentinels[0] == next(t for t in question.tokens if t in sentinels)
    assert question.answer[-2:] == [sentinels[1], base.end_id]
    cut = [token for token in question.answer if token not in sentinels][:-1]
    place = question.tokens.index(sentinels[0])
    assert [*question.tokens[:place], *cut, *question.tokens[place + 1 :]] == TEXT


def test_bert_guesses_words_that_it_does_not_see_and_never_special_tokens() -> None:
    base = tiny.base("bert")
    found = [asked_of(base, [*TEXT, base.end_id], number) for number in range(40)]
    assert all(question.answer == [TEXT[place] for place in question.places] for question in found)
    assert {len(question.places) for question in found} == {2}
    masks = [question.tokens[place] == base.tokenizer.mask_token_id for question in found for place in question.places]
    assert 0.6 < sum(masks) / len(masks) < 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_plain_models_whatever_stands_beside_the_text(family: str) -> None:
    base = tiny.base(family)
    texts = [TEXT, TEXT[3:8], TEXT[:7]]
    some = [asked_of(base, text if family == "t5" else [*text, base.end_id], i) for i, text in enumerate(texts)]
    with torch.no_grad(), base.scope(None):
        found = question_logp(base, some)
    for row, question in enumerate(some):
        wanted = plain_logp(base, family, question)
        torch.testing.assert_close(found.logp[row][found.is_answer[row]], wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def plain_logp(base: SharedBase, family: str, question: Question) -> torch.Tensor:
    """By the model's own forward, one text at a time."""
    tokens, answer = torch.tensor([question.tokens]), torch.tensor([question.answer])
    if family == "llama":
        logits = base.causal(torch.cat([tokens, answer], 1)).logits[0, len(question.tokens) - 1 : -1]
    elif family == "t5":
        logits = base.causal(input_ids=torch.cat([tokens, torch.tensor([[base.end_id]])], 1), labels=answer).logits[0]
    elif family == "bert":
        logits = base.causal(torch.cat([torch.tensor([base.opening]), tokens], 1)).logits[0, 1:][question.places]
    else:
        hidden = torch.zeros(1, tokens.shape[1], tokens.shape[1])
        for place in question.places:
            hidden[0, :, place] = 1.0
            for later in question.places[question.places.index(place) + 1 :]:
                hidden[0, later, place] = 0.0
        mapping = torch.zeros(1, len(question.places), tokens.shape[1])
        mapping[0, range(len(question.places)), question.places] = 1.0
        logits = base.causal(tokens, perm_mask=hidden, target_mapping=mapping).logits[0]
    return -cross_entropy(logits, answer[0], reduction="none")


def test_xlnet_predicts_a_token_from_the_rest_and_from_those_before_it_in_the_order() -> None:
    base = tiny.base("xlnet")
    places = [4, 9, 2]

    def logp(tokens: list[int]) -> list[float]:
        with torch.no_grad(), base.scope(None):
            found: list[float] = question_logp(base, [Question(tokens, [10, 10, 10], places)]).logp[0].tolist()
        return found

    plain = logp(TEXT)
    for changed, moved in ((4, [9, 2]), (9, [2]), (2, []), (6, [4, 9, 2])):
        other = logp([29 if place == changed else token for place, token in enumerate(TEXT)])
        assert [p for p, a, b in zip(places, plain, other, strict=True) if abs(a - b) > 1e-6] == moved


@pytest.mark.parametrize(
    ("family", "lacks", "sentence"), [("t5", "sentinels", "<extra_id_0>"), ("bert", "mask", "names no mask token")]
)
def test_a_tokenizer_without_the_tokens_it_takes_is_refused(family: str, lacks: str, sentence: str) -> None:
    base = ready(family)
    if lacks == "mask":
        base.tokenizer.mask_token = None
    else:
        base.tokenizer = tiny.tokenizer("llama")
    with pytest.raises(UnsupportedBase, match=sentence):
        kit_of(base)


# ---- what is learnt


@pytest.mark.parametrize("family", FAMILIES)
def test_the_held_out_loss_falls_and_the_interval_says_so(family: str, tmp_path: Path) -> None:
    epochs = 12 if family == "bert" else 6  # it is asked two tokens of each text, and needs longer
    _, report = trained(tmp_path, family, num_train_epochs=epochs)
    assert report["objective"] == objectives.NAMES[ready(family).family]
    assert report["verdict"] == "loss_fell" and report["loss"]["fall"]["low"] > 0.1
    assert report["n"] == report["loss"]["n"] == 20 and report["sizes"]["train_texts"] == 30
    assert report["steps"] == epochs * 4 == len(report["curve"])
    assert sum("held_out/loss" in point for point in report["curve"]) == epochs
    assert ("perplexity" in report) == (family == "llama")
    assert report["curve"][-1]["held_out/loss"] == report["loss"]["after"]
    assert json.dumps(report, allow_nan=False)


def test_perplexity_is_exp_of_the_mean_loss_of_all_tokens_and_the_loss_a_mean_over_texts(tmp_path: Path) -> None:
    base = ready("llama")
    rows = rows_of(tmp_path, [tiny.text_row(i, length=4 + 9 * (i % 4)) for i in range(50)])
    settings = PretrainSettings(**{**QUICK, "num_train_epochs": 1, "max_length": 16})
    report = pretrain.train(base, rows, settings, 0, run_of(tmp_path))
    pieces, counts = pretrain.encode(base, kit_of(base), rows, settings)
    held_out = [piece for piece in pieces if piece.row.split != "train"]
    assert counts["texts_cut"] > 10 and counts["pieces"] == len(pieces) > counts["texts"] == 50
    texts: dict[int, list[torch.Tensor]] = {}
    for piece in held_out:
        with torch.no_grad(), base.scope("policy"):
            tokens = torch.tensor([piece.tokens])
            logits = base.logits(base.states(tokens, torch.ones_like(tokens, dtype=torch.bool)))[0, :-1]
        texts.setdefault(piece.row.document, []).append(cross_entropy(logits, tokens[0, 1:], reduction="none"))
    every = torch.cat([loss for some in texts.values() for loss in some])
    assert report["perplexity"]["after"] == pytest.approx(math.exp(every.mean()), rel=1e-4)
    assert report["perplexity"]["n"] == len(every)
    means = [float(torch.cat(some).mean()) for some in texts.values()]
    assert report["loss"]["after"] == pytest.approx(sum(means) / len(means), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_cut_into_micro_batches_gives_one_gradient(family: str, tmp_path: Path) -> None:
    found = []
    for tokens in (16, 64, 4096):
        base = ready(family)
        settings = PretrainSettings(**{**QUICK, "tokens_per_microbatch": tokens, "max_grad_norm": 1e6})
        kit = kit_of(base)
        pieces, _ = pretrain.encode(base, kit, rows_of(tmp_path), settings)
        weights = base.weights("policy")
        told = pretrain.update(
            base, kit, pieces[:7], torch.optim.SGD(weights, lr=0.0), weights, settings, 0, 3, run_of(tmp_path)
        )
        asked = [ask(base, kit, p.tokens, settings, generator(0, 3, f"hide {i}")) for i, p in enumerate(pieces[:7])]
        with torch.no_grad(), base.scope("policy"):
            every = question_logp(base, asked)
        assert told["loss"] == pytest.approx(-float(every.logp[every.is_answer].mean()), rel=1e-4)  # a mean over tokens
        grads = [w.grad.clone() for w in weights if w.grad is not None]
        found.append([torch.tensor([told["loss"]]), *grads])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_same_seed_gives_the_same_weights(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, first = trained(tmp_path, family, num_train_epochs=1)
    torch.manual_seed(2)
    two, second = trained(tmp_path, family, num_train_epochs=1)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.weights("policy"), two.weights("policy"), strict=True))
    three, _ = trained(tmp_path, family, seed=1, num_train_epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(one.weights("policy"), three.weights("policy"), strict=True))


def test_what_is_hidden_is_drawn_anew_at_every_step(tmp_path: Path) -> None:
    base, settings = ready("bert"), PretrainSettings(**QUICK)
    kit, weights = kit_of(base), base.weights("policy")
    pieces, _ = pretrain.encode(base, kit, rows_of(tmp_path), settings)
    still = torch.optim.SGD(weights, lr=0.0)
    told = [
        pretrain.update(base, kit, pieces[:4], still, weights, settings, 0, step, run_of(tmp_path))["loss"]
        for step in (0, 1, 0)
    ]
    assert told[0] == told[2] != told[1]


def test_a_long_text_is_cut_into_pieces_and_what_is_too_short_is_counted(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [tiny.text_row(0, length=40), tiny.text_row(1, text="w1"), tiny.text_row(2, length=5)])
    base = ready("llama")
    pieces, counts = pretrain.encode(base, kit_of(base), rows, PretrainSettings(max_length=16))
    assert dict(counts) == {"texts": 3, "texts_cut": 1, "pieces_too_short": 1, "pieces": 4}
    assert [len(piece.tokens) for piece in pieces] == [16, 16, 9, 6]
    assert [piece.tokens[-1] == base.end_id for piece in pieces] == [False, False, True, True]
    bert = ready("bert")
    longest = pretrain.encode(bert, kit_of(bert), [TextRow(1, "train", "w1 " * 300)], PretrainSettings())[0]
    assert max(len(piece.tokens) for piece in longest) == 94  # of 96: [CLS], and one to spare


def test_too_little_nothing_held_out_a_stop_and_nan_end_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TooFewRows, match="needs 99 texts .* there are 30"):
        trained(tmp_path, min_texts=99)
    rows = rows_of(tmp_path, [tiny.text_row(i, split="train") for i in range(20)])
    report = pretrain.train(
        ready("llama"), rows, PretrainSettings(**{**QUICK, "num_train_epochs": 1}), 0, run_of(tmp_path)
    )
    assert report["verdict"] == "no_held_out_texts" and report["n"] == 0 and report["loss"] is None
    base = ready("llama")
    with torch.no_grad():
        base.weights("policy")[0][0, 0] = math.nan
    with pytest.raises(NotFinite, match="Lower the learning rate"):
        pretrain.train(base, rows, PretrainSettings(**QUICK), 0, run_of(tmp_path))
    (tmp_path / "run" / "stop").touch()
    with pytest.raises(Stopped):
        trained(tmp_path)


def test_a_row_without_its_text_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="Line 2 .*'text'"):
        rows_of(tmp_path, [tiny.text_row(1), {"document": 1, "split": "train"}])
