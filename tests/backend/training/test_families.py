"""Every family of base does what it can, equal to transformers' own forward, and refuses the rest with a sentence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backend.training import dpo, families, ift, judge, ppo, precision, probe, reward, rollout, sft, tree
from backend.training.answers import Written, answer_logp, groups_of
from backend.training.data import read_answers, read_comparisons, read_prompts
from backend.training.draws import generator
from backend.training.families import UnsupportedBase
from backend.training.run import Run
from backend.training.settings import DPOSettings, IFTSettings, PPOSettings, RewardSettings, SFTSettings
from backend.training.shared_base import Shape, SharedBase, load_base
from tests.backend.training import tiny

FAMILIES = {"llama": "decoder", "gpt2": "decoder", "t5": "encoder_decoder", "t5-tied": "encoder_decoder",
            "bert": "encoder", "xlnet": "permutation"}  # fmt: skip
T5 = ["t5", "t5-tied"]
READERS = ["bert", "xlnet"]
TEXTS = [[2, 9, 10, 11, 3, 6, 1], [2, 7, 3, 8, 1], [2, 7, 3, 8]]
SOME = [Written([2, 9, 10, 3], [6, 8, 1]), Written([2, 7, 3], [7, 1]), Written([2, 12, 13, 14, 3], [11])]
QUICK: dict[str, Any] = {"lora_r": 8, "lora_alpha": 16, "learning_rate": 1e-2}


def ready(family: str, adapter: str = "policy") -> SharedBase:
    """With an adapter that is not zero."""
    base = tiny.base(family)
    base.add(adapter, Shape(8, 16), seed=0)
    with torch.no_grad():
        for i, weight in enumerate(base.weights(adapter)):
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    return base


def run_of(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Run(tmp_path / "run")


def ends(base: SharedBase, texts: Sequence[list[int]], adapter: str | None = "policy") -> Tensor:
    with torch.no_grad(), base.scope(adapter):
        return tree.ends(base, [[text] for text in texts])


# ---- what a base is


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_is_loaded_with_the_head_of_its_family(family: str, tmp_path: Path) -> None:
    base = load_base(str(tiny.folder(tmp_path / "base", family)))
    is_decoder = FAMILIES[family] == "decoder"
    assert (base.reads_trees, base.packs, base.is_wired_like_llama) == (is_decoder, is_decoder, family == "llama")
    assert base.family == FAMILIES[family] and type(base.causal) is type(tiny.causal(family))
    assert torch.equal(ends(base, TEXTS, None), ends(tiny.base(family), TEXTS, None))
    assert base.tokenizer.eos_token_id == base.end_id


def test_a_type_of_model_without_a_head_for_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_vision_model"}))
    with pytest.raises(UnsupportedBase, match="clip_vision_model has no head that predicts tokens"):
        load_base(str(tmp_path))


def test_xlnet_in_bfloat16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedBase, match="float32 only"):
        load_base(str(tiny.folder(tmp_path / "base", "xlnet")), "bfloat16")


def test_auto_is_float32_for_xlnet_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "LARGE", 100)
    loaded = {
        family: load_base(str(tiny.folder(tmp_path / family, family)), "auto").dtype for family in ("xlnet", "t5")
    }
    assert loaded == {"xlnet": torch.float32, "t5": torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_is_the_same_after_loading(family: str, tmp_path: Path) -> None:
    base = ready(family)
    base.save("policy", tmp_path)
    base.load("again", tmp_path)
    assert torch.equal(ends(base, TEXTS), ends(base, TEXTS, "again"))
    assert not torch.allclose(ends(base, TEXTS), ends(base, TEXTS, None), atol=1e-3)
    task = json.loads((tmp_path / "adapter_config.json").read_text())["task_type"]
    assert task == families.TASKS[base.family]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_scored_alike_in_any_company_and_its_end_token_counts(family: str) -> None:
    base = ready(family)
    together = ends(base, TEXTS)
    for text, state in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(ends(base, [text])[0], state, rtol=1e-5, atol=1e-5)
    assert float((together[1] - together[2]).norm()) > 0.1


@pytest.mark.parametrize(("family", "reads_ahead"), [("llama", False), ("t5", True), ("bert", True), ("xlnet", True)])
def test_only_a_decoder_reads_its_text_from_left_to_right(family: str, reads_ahead: bool) -> None:
    base = ready(family)
    with torch.no_grad(), base.scope("policy"):
        first = [tree.read(base, [[text]]) for text in ([2, 7, 3, 8], [2, 7, 3, 9])]
    seconds = [states[0, rows.columns[0, 1]] for rows, states in first]
    assert torch.allclose(*seconds, atol=1e-5) != reads_ahead


def test_bert_reads_its_opening_token_before_every_text() -> None:
    base = tiny.base("bert")
    with torch.no_grad(), base.scope(None):
        states = tree.ends(base, [[TEXTS[0]]])[0]
        own = base.causal.bert(input_ids=torch.tensor([[*base.opening, *TEXTS[0]]])).last_hidden_state[0, -1]
    assert base.opening == [base.tokenizer.cls_token_id] and base.longest == 96 - 2
    torch.testing.assert_close(states, own, rtol=1e-5, atol=1e-5)


# ---- what can be written


@pytest.mark.parametrize("family", T5)
def test_the_log_probability_of_an_answer_is_the_plain_models(family: str) -> None:
    base = tiny.base(family)
    with torch.no_grad(), base.scope(None):
        found = answer_logp(base, SOME)
    for row, one in enumerate(SOME):
        labels = torch.tensor([one.answer])
        with torch.no_grad():
            logits = base.causal(input_ids=torch.tensor([[*one.prefix, base.end_id]]), labels=labels).logits[0]
        plain = -cross_entropy(logits, labels[0], reduction="none")
        torch.testing.assert_close(found.logp[row][found.is_answer[row]], plain, rtol=1e-4, atol=1e-5)
        assert int(found.is_answer[row].sum()) == len(one.answer)


def test_a_prompt_with_several_answers_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ready("t5")
    sizes: list[int] = []
    read = base.states

    def spied(tokens: Tensor, is_real: Tensor) -> Tensor:
        sizes.append(len(tokens))
        return read(tokens, is_real)

    monkeypatch.setattr(base, "states", spied)
    four = [Written([2, 9, 10, 3], answer) for answer in ([6, 8, 1], [7, 1], [6, 1], [9])]
    with torch.no_grad(), base.scope("policy"):
        together = answer_logp(base, four, together=4).logp
        alone = torch.cat(
            [torch.nn.functional.pad(answer_logp(base, [one]).logp, (0, 3 - len(one.answer))) for one in four]
        )
    assert sizes == [1] * 5
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", T5)
def test_cold_sampling_is_the_plain_models_greedy_answer(family: str, tmp_path: Path) -> None:
    base = ready(family)
    prompts = [[2, 9, 10, 11, 3], [2, 7, 3], [2, 12, 3, 8]]
    found = rollout.sample(base, "policy", prompts, 2, 12, 1e-4, 0, 0, run_of(tmp_path))
    for place, prompt in enumerate(prompts):
        with torch.no_grad(), base.scope("policy"):
            whole = base.causal.generate(
                input_ids=torch.tensor([[*prompt, base.end_id]]), max_new_tokens=12, do_sample=False, num_beams=1
            )[0].tolist()
        assert found[2 * place] == found[2 * place + 1]
        assert found[2 * place].tokens == whole[1:]
        assert found[2 * place].has_ended == (whole[-1] == base.end_id)


@pytest.mark.parametrize("seed", [0, 5, 6, 11])  # answers of the first or of the second prompt end early
def test_an_answer_depends_on_its_own_draws_and_not_on_those_beside_it(tmp_path: Path, seed: int) -> None:
    base = ready("t5-tied")
    prompts = [[2, 9, 10, 11, 3], [2, 7, 3]]
    three = rollout.sample(base, "policy", prompts, 3, 8, 1.0, seed, 0, run_of(tmp_path))
    again = rollout.sample(base, "policy", prompts, 3, 8, 1.0, seed, 0, run_of(tmp_path))
    assert three == again and len({tuple(one.tokens) for one in three}) > 3
    assert {one.has_ended for one in three} == {one.tokens[-1] == base.end_id for one in three}
    path = rollout.lay_out(base, [prompts[0]] * 3 + [prompts[1]] * 3, three)
    with torch.no_grad(), base.scope("policy"):
        states = tree.trajectory_states(base, path.tokens, path.is_real, path.is_response.shape[1])
        wanted = answer_logp(base, [Written(prompts[i // 3], one.tokens) for i, one in enumerate(three)])
    logp = base.logits(states).log_softmax(-1).gather(2, path.tokens[:, -states.shape[1] :, None])[..., 0]
    torch.testing.assert_close(logp[path.is_response], wanted.logp[wanted.is_answer], rtol=1e-4, atol=1e-5)
    uniform = torch.rand(8, 6, generator=generator(seed, 0, "sample"), dtype=torch.float64)
    for row, one in enumerate(three):  # each token is the one its draw picks from what training's forward says
        again_picked = rollout.pick(base.logits(states)[row, : len(one.tokens)], uniform[: len(one.tokens), row])
        assert again_picked.tolist() == one.tokens


@pytest.mark.parametrize("family", READERS)
def test_a_base_that_only_reads_refuses_to_write_and_says_what_to_use(family: str, tmp_path: Path) -> None:
    base = ready(family)
    with base.scope("policy"), pytest.raises(UnsupportedBase, match="cannot write answers .* reward model"):
        answer_logp(base, SOME)
    with pytest.raises(UnsupportedBase, match="which sampling needs"):
        rollout.sample(base, "policy", [[2, 7, 3]], 1, 4, 1.0, 0, 0, run_of(tmp_path))
    tokens = torch.tensor([[2, 7, 3, 8]])
    with base.scope("policy"), pytest.raises(UnsupportedBase):
        tree.trajectory_states(base, tokens, torch.ones_like(tokens, dtype=torch.bool), 1)


# ---- what is learnt


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fresh(family: str) -> SharedBase:
    base = tiny.base(family)
    base.add("policy", Shape(8, 16), seed=0)
    return base


def test_sft_on_t5_learns_the_answers(tmp_path: Path) -> None:
    rows = read_answers(jsonl(tmp_path / "rows", [tiny.answer_row(i) for i in range(50)]))
    settings = SFTSettings(**QUICK, num_train_epochs=4, batch_size=8)
    report = sft.train(fresh("t5"), rows, settings, 0, run_of(tmp_path))
    assert report["verdict"] == "loss_fell" and report["loss"]["before"] > 2 and report["loss"]["after"] < 0.5


def test_dpo_on_t5_prefers_what_people_preferred(tmp_path: Path) -> None:
    rows = read_comparisons(jsonl(tmp_path / "rows", [tiny.preference_row(i) for i in range(60)]), with_prompts=True)
    report = dpo.train(fresh("t5"), rows, DPOSettings(**QUICK, num_train_epochs=3), 0, run_of(tmp_path))
    assert report["curve"][0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert report["verdict"] == "usable" and report["accuracy"]["value"] > 0.95


@pytest.mark.parametrize("family", ["t5", "bert", "xlnet"])
def test_a_reward_model_learns_separable_data_and_scores_the_same_after_loading(family: str, tmp_path: Path) -> None:
    rows = read_comparisons(jsonl(tmp_path / "rows", tiny.separable_rows(80)))
    base, settings = tiny.base(family), RewardSettings(**QUICK, num_train_epochs=4, batch_size=8)
    trained = reward.train(base, rows, settings, 0, run_of(tmp_path))
    assert trained.report["log_loss"] < 0.1 and trained.report["accuracy"]["value"] > 0.95
    assert trained.report["probe"]["n"] == trained.report["n"]
    judge.save(base, trained.judge, tmp_path)
    sequences = [s for item in reward.encode(base, rows, settings)[0][:5] for s in item.sequences]
    was = judge.scores(base, trained.judge, sequences, 64)
    other = tiny.base(family)
    loaded = judge.load(other, tmp_path)
    torch.testing.assert_close(judge.scores(other, loaded, sequences, 4096), was, rtol=1e-5, atol=1e-5)
    unended = judge.scores(base, trained.judge, [s[:-1] for s in sequences], 64)
    assert float((unended - was).abs().min()) > 1e-4


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_the_probe_reads_the_same_features_in_any_company(family: str, tmp_path: Path) -> None:
    base = tiny.base(family)
    groups = [[TEXTS[0], TEXTS[1]], [TEXTS[2]]]
    together = torch.cat(probe.Features(base, "a").of(groups, 4096, run_of(tmp_path)))
    alone = torch.cat(probe.Features(base, "b").of([[text] for text in TEXTS], 8, run_of(tmp_path)))
    with torch.no_grad(), base.scope(None):
        last = tree.ends(base, [[TEXTS[2]]])
    torch.testing.assert_close(together[2], alone[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[2, : base.width], last[0], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def judged_by(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model on T5 that likes the word "good"."""
    folder = tmp_path_factory.mktemp("judge")
    rows = read_comparisons(jsonl(folder / "rows", tiny.separable_rows(80)))
    base = tiny.base("t5-tied")
    trained = reward.train(base, rows, RewardSettings(**QUICK, num_train_epochs=3, batch_size=8), 0, run_of(folder))
    judge.save(base, trained.judge, folder)
    return folder


@pytest.mark.parametrize("kind", ["ift", "ppo"])
def test_a_t5_policy_follows_its_reward_model(kind: str, judged_by: Path, tmp_path: Path) -> None:
    rows = read_prompts(jsonl(tmp_path / "rows", [tiny.prompt_row(i) for i in range(30)]))
    base = fresh("t5-tied")
    common: dict[str, Any] = {
        **QUICK,
        "learning_rate": 5e-3,
        "total_episodes": 384,
        "batch_size": 32,
        "response_length": 6,
    }
    run = run_of(tmp_path)
    if kind == "ift":
        report = ift.train(base, judge.load(base, judged_by), rows, IFTSettings(**common), 0, run)
    else:
        report = ppo.train(base, judge.load(base, judged_by), rows, PPOSettings(**common), 0, run)
    curve = report["curve"]
    assert abs(curve[0]["objective/kl"]) < 1e-4
    if kind == "ppo":
        assert curve[0]["val/ratio"] == pytest.approx(1, abs=0.2)
    assert report["held_out"]["gain"]["low"] > 0 and report["verdict"] == "gained"


def test_training_t5_leaves_its_base_as_it_was(tmp_path: Path) -> None:
    base = fresh("t5")
    rows = read_answers(jsonl(tmp_path / "rows", [tiny.answer_row(i) for i in range(30)]))
    sft.train(base, rows, SFTSettings(**QUICK, num_train_epochs=1, min_answers=2), 0, run_of(tmp_path))
    assert torch.equal(ends(base, TEXTS, None), ends(tiny.base("t5"), TEXTS, None))
    with torch.no_grad(), base.scope("policy"):
        assert len(tree.parts(base, groups_of(SOME), 4096, 0, 0)) == 1
    moved = [weight for weight in base.weights("policy") if weight.grad is not None]
    assert len(moved) == len(base.weights("policy"))  # encoder and decoder alike
