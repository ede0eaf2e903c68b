"""The same batch of the same tiny model through TRL 1.16 and through our own code: equal losses, equal gradients.

TRL makes the batch, with its own padding on the right; ours is made of the same token ids, padded on the left.
"""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.training import dpo, ift, judge, kto, reward, sft
from backend.training.answers import Written, answer_logp
from backend.training.data import Answer, AnswerRow, ComparisonRow, Pair
from backend.training.maths import sum_over
from backend.training.rollout import Sampled, lay_out
from backend.training.run import Run
from backend.training.settings import DPOSettings, IFTSettings, KTOSettings, SFTSettings
from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own, and what its import brings up

ROWS = [
    {
        "prompt": f"<user> {tiny.said(i, length=2 + i)} <assistant>",
        "chosen": " " + tiny.said(i + 1, words="good", length=1 + i),
        "rejected": " " + tiny.said(i + 2, words="bad", length=3),
    }
    for i in range(4)
]
POLICY, REFERENCE = 1, 0  # seeds of two models


@pytest.fixture
def trl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import trl

    return trl


def settings_of(tmp_path: Path) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "report_to": "none",
        "bf16": False,
        "activation_checkpointing": False,
        "per_device_train_batch_size": 4,
    }


def theirs(trainer: Any) -> tuple[dict[str, Tensor], Tensor]:
    """TRL's batch, and its loss of it; the gradient stands in its model."""
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return batch, loss.detach()


def trainer_of(kind: type, config: Any, rows: list[dict[str, Any]], model: Any, **more: Any) -> Any:
    from datasets import Dataset

    return kind(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tiny.tokenizer(), **more
    )


def ours(seed: int) -> SharedBase:
    """The model alone, without adapters; its own weights take a gradient."""
    base = tiny.base(seed=seed)
    base.causal.requires_grad_(True)
    return base


def texts(batch: dict[str, Tensor], prefix: str = "") -> list[Written]:
    """The prompts and answers of TRL's batch."""
    tokens, is_real = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"].bool()
    is_answer = batch[f"{prefix}completion_mask"].bool()
    return [
        Written(row[real & ~answer].tolist(), row[answer].tolist())
        for row, real, answer in zip(tokens, is_real, is_answer, strict=True)
    ]


def sums(base: SharedBase, some: list[Written]) -> Tensor:
    with base.scope(None):
        return sum_over(*answer_logp(base, some))


def same_gradient(their_model: Any, base: SharedBase) -> None:
    """Relative to the whole gradient's length."""
    mine = dict(base.causal.named_parameters())
    difference, length = 0.0, 0.0
    for name, weight in their_model.named_parameters():
        if mine[name].grad is None and name.endswith("norm.weight"):  # frozen with us; fused.py forms no gradient of it
            continue
        difference += float(((weight.grad - mine[name].grad) ** 2).sum())
        length += float((weight.grad**2).sum())
    assert length > 1e-3 and math.sqrt(difference / length) < 1e-5


def close(mine: Tensor, their: Tensor) -> None:
    torch.testing.assert_close(mine.detach(), their, rtol=1e-5, atol=1e-5)


def test_sft(trl: ModuleType, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS]
    trainer = trainer_of(
        trl.SFTTrainer, trl.SFTConfig(max_length=None, **settings_of(tmp_path)), rows, tiny.causal(seed=POLICY)
    )
    batch, expected = theirs(trainer)
    some = texts({**batch, "completion_mask": batch["labels"] != -100})
    base = ours(POLICY)
    with base.scope(None):
        loss = sft.sft_loss(*answer_logp(base, some))
        loss.backward()
    close(loss, expected)
    same_gradient(trainer.model, base)
    # the loss that our loop reports, for rows of the same texts
    base = tiny.base(seed=POLICY)
    base.add("policy", Shape(4, 8), 0)
    asked = [[{"role": "user", "content": tiny.said(i, length=2 + i)}] for i in range(len(ROWS))]
    given = [AnswerRow(i, "train", asked[i], Answer(None, row["chosen"], True), "winner") for i, row in enumerate(ROWS)]
    settings, weights = SFTSettings(), base.weights("policy")
    items, _ = sft.encode(base, given, settings)
    assert sorted(item.text for item in items) == sorted(some)
    nothing = torch.optim.SGD(weights, lr=0.0)
    told = sft.update(base, [item.text for item in items], nothing, weights, settings, 0, 0, run_of(tmp_path))
    close(torch.tensor(told["loss"]), expected)


def run_of(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Run(tmp_path / "run")


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_dpo_and_ipo(trl: ModuleType, tmp_path: Path, loss_type: str) -> None:
    config = trl.DPOConfig(loss_type=[loss_type], beta=0.3, max_length=None, **settings_of(tmp_path))
    trainer = trainer_of(trl.DPOTrainer, config, ROWS, tiny.causal(seed=POLICY), ref_model=tiny.causal(seed=REFERENCE))
    batch, expected = theirs(trainer)
    some = texts(batch)
    items = [dpo.Item(i, "train", 1.0, some[i], some[4 + i]) for i in range(4)]
    base = ours(POLICY)
    with torch.no_grad():
        reference = sums(tiny.base(seed=REFERENCE), some).chunk(2)
    with base.scope(None):
        now = dpo.pair_sums(base, items)
        ratios = dpo.Sums(*(logp - known for logp, known in zip(now, reference, strict=True)))
        loss = dpo.pair_losses(ratios, items, DPOSettings(beta=0.3, loss_type=loss_type)).mean()
        loss.backward()
    close(loss, expected)
    same_gradient(trainer.model, base)


@pytest.mark.parametrize(("policy", "reference"), [(POLICY, REFERENCE), (REFERENCE, POLICY)])
def test_kto(trl: ModuleType, tmp_path: Path, policy: int, reference: int) -> None:
    """Its KL, loss and gradient of a whole step; one of the two has a positive KL, the other is held at 0."""
    rows = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in ROWS[:2]]
    rows += [{"prompt": r["prompt"], "completion": r["rejected"], "label": False} for r in ROWS[2:]]
    weigh = {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    config = trl.KTOConfig(max_length=None, **weigh, **settings_of(tmp_path))
    trainer = trainer_of(trl.KTOTrainer, config, rows, tiny.causal(seed=policy), ref_model=tiny.causal(seed=reference))
    batch, expected = theirs(trainer)
    some = texts(batch)
    items = [
        kto.Item(i, "train", good, 1.0, text)
        for i, (good, text) in enumerate(zip(batch["label"].tolist(), some, strict=True))
    ]
    one = kto.Batch(items, kto.mismatched(some, 96))
    assert one.mismatched == texts(batch, "KL_")
    known = kto.Sums(*(sums(tiny.base(seed=reference), part) for part in (some, one.mismatched)))
    base, settings = ours(policy), KTOSettings(max_grad_norm=1e9, tokens_per_microbatch=16, **weigh)
    weights = list(base.causal.parameters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kto, "ADAPTER", None)  # the model's own weights are the policy here
        nothing = torch.optim.SGD(weights, lr=0.0)
        told = kto.update(base, one, known, nothing, weights, 1.0, settings, 0, 0, run_of(tmp_path))
    close(torch.tensor(told["loss"]), expected)
    kept = trainer._metrics["train"]
    assert (told["kl"] > 0) is (policy == POLICY)
    for name in told.keys() - {"loss", "grad_norm"}:
        assert told[name] == pytest.approx(kept[name][-1], abs=1e-4), name
    same_gradient(trainer.model, base)


def test_reward(trl: ModuleType, tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification

    plain = tiny.causal(seed=POLICY)
    plain.config.num_labels = 1
    theirs_judge = LlamaForSequenceClassification(plain.config)
    theirs_judge.model.load_state_dict(plain.model.state_dict())
    rows = [{**row, "margin": 0.1 * i} for i, row in enumerate(ROWS)]
    trainer = trainer_of(
        trl.RewardTrainer, trl.RewardConfig(max_length=None, **settings_of(tmp_path)), rows, theirs_judge
    )
    batch, expected = theirs(trainer)
    base = tiny.base(seed=POLICY)
    head = judge.Head(base.width)
    head.weight.data.copy_(theirs_judge.score.weight.detach())
    tokens = [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    items = [
        reward.Item(
            ComparisonRow(i, "train", [], [], [1, 2]), [tokens[i], tokens[4 + i]], [Pair(0, 1, 1.0)], float(margin)
        )
        for i, margin in enumerate(batch["margin"])
    ]
    with base.scope(None):
        losses, _ = reward.comparison_losses(items, reward.score_items(base, head, items))
    losses.mean().backward()
    close(losses.mean(), expected)
    torch.testing.assert_close(head.weight.grad, theirs_judge.score.weight.grad, rtol=1e-4, atol=1e-5)


def test_rloo(trl: ModuleType, tmp_path: Path) -> None:
    def paid(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [len(tokens) + 0.3 * sum(tokens) / len(tokens) for tokens in completion_ids]

    config = trl.RLOOConfig(
        num_generations=4, max_completion_length=6, beta=0.2, temperature=0.9,
        **{**settings_of(tmp_path), "per_device_train_batch_size": 8},
    )  # fmt: skip
    folder = tiny.folder(tmp_path / "model", seed=REFERENCE)  # what TRL takes for its reference
    rows = [{"prompt": row["prompt"]} for row in ROWS]
    torch.manual_seed(0)
    trainer = trainer_of(trl.RLOOTrainer, config, rows, str(folder), reward_funcs=paid)
    trainer.model.load_state_dict(tiny.causal(seed=POLICY).state_dict())
    made = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    trainer._compute_loss(trainer.model, made).backward()

    prompts = [row[mask.bool()].tolist() for row, mask in zip(made["prompt_ids"], made["prompt_mask"], strict=True)]
    answers = [
        row[mask.bool()].tolist() for row, mask in zip(made["completion_ids"], made["completion_mask"], strict=True)
    ]
    base = ours(POLICY)
    settings = IFTSettings(num_generations=4, kl_coef=0.2, temperature=0.9, max_grad_norm=1e9)
    weights = list(base.causal.parameters())
    t = ift.Training(base, weights, torch.optim.SGD(weights, lr=0.0), settings, 0, run_of(tmp_path))
    path = lay_out(base, prompts, [Sampled(answer, False) for answer in answers])
    path = path._replace(score=torch.tensor(paid(answers)))
    path = path._replace(logp_ref=ift.reference_logp(t._replace(base=tiny.base(seed=REFERENCE)), path, 0))
    with torch.no_grad(), base.scope(None):
        logp = ift.token_logp(ift.response_logits(t, path), ift.response_tokens(path))
    rewards = ift.answer_reward(path.score, logp, path.logp_ref, path.is_response, 0.2)
    close(ift.advantages(rewards, 4, 0.0), made["advantages"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ift, "ADAPTER", None)  # the model's own weights are the policy here
        ift.update(t, path, 0.0, 0)
    same_gradient(trainer.model, base)
