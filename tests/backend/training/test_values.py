"""The values of PPO: on the policy's states, on an adapter of their own, or starting as the reward model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.training import judge, on_policy, ppo, rollout, values
from backend.training.checkpoint import Checkpoints, Live, Resumed
from backend.training.settings import PPOSettings
from backend.training.shared_base import SharedBase
from tests.backend.training.test_ppo import QUICK, batch_of, likes_good, made_up, moved, ready, rows_of, run_of, trained

KINDS = ["none", "own", "reward"]


def grads(weights: list[torch.nn.Parameter]) -> list[Tensor]:
    return [weight.grad.clone() for weight in weights if weight.grad is not None]


def updated(tmp_path: Path, batch: Any, **settings: Any) -> tuple[SharedBase, ppo.Training, rollout.Trajectory]:
    """After one update that leaves the weights as they are and their gradients in place."""
    base, judged_by = ready()
    moved(base)
    t, path = batch_of(tmp_path, base, judged_by, **{"max_grad_norm": 1e9, **settings})
    t = t._replace(optimizer=torch.optim.SGD([w for group in t.groups for w in group], lr=0.0))
    ppo.update(t, batch(path), range(len(path.score)), 0, 0)
    return base, t, path


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    assert some and len(some) == len(others)
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_from_the_reward_model_the_values_are_its_normalised_scores_of_the_text_so_far(
    family: str, tmp_path: Path
) -> None:
    base, judged_by = ready(family)
    (member,) = judged_by.members
    member.head.bias.fill_(0.3)
    member.head.gain.fill_(2.5)
    moved(base)
    _, path = batch_of(tmp_path, base, judged_by, value_adapter="reward")
    width = path.is_response.shape[1]
    for row in range(0, len(path.score), 5):
        count = int(path.is_response[row].sum())
        prompt = path.tokens[row, :-width][path.is_real[row, :-width]].tolist()
        answer = path.tokens[row, -width:].tolist()
        sequences = [prompt + answer[:place] for place in range(count)]
        (scores,) = judge.scores(base, judged_by, sequences, 1)
        torch.testing.assert_close(path.values[row, :count], scores, rtol=1e-4, atol=1e-4)
    assert path.values[path.is_response].std() > 0.1


@pytest.mark.parametrize("kind", ["none", "own"])
def test_without_a_reward_model_the_values_start_at_zero(kind: str, tmp_path: Path) -> None:
    base, judged_by = ready()
    moved(base)
    t, path = batch_of(tmp_path, base, judged_by, value_adapter=kind)
    assert not path.values.any() and bool(t.critic.own) is (kind == "own")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_do_not_change_with_padding_or_company(kind: str, family: str, tmp_path: Path) -> None:
    base, judged_by = ready(family)
    moved(base)
    t, path = batch_of(tmp_path, base, judged_by, value_adapter=kind)
    with torch.no_grad():
        t.critic.head.weight.add_(torch.randn(t.critic.head.weight.shape, generator=torch.Generator().manual_seed(3)))
    rows = range(len(path.score))
    found = []
    for parts in ([[row] for row in rows], [list(rows)]):
        whole = torch.zeros_like(path.values)
        for part in parts:
            few = path.take(part)
            with torch.no_grad(), base.scope(t.critic.adapter):
                seen = values.values_of(t.critic, on_policy.response_states(base, few))
            whole[part, : seen.shape[1]] = seen
        found.append(whole[path.is_response])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert found[0].std() > 0.1


@pytest.mark.parametrize("kind", ["own", "reward"])
def test_on_an_adapter_of_their_own_policy_and_values_do_not_touch_each_other(kind: str, tmp_path: Path) -> None:
    found = []
    for advantage, returns in ((1.0, 1.0), (1.0, -3.0), (-2.0, 1.0)):
        base, t, _ = updated(
            tmp_path, lambda path, a=advantage, r=returns: made_up(path)._replace(
                advantage=a * torch.sign(path.logp_old + 2), returns=torch.full_like(path.values, r)
            ), value_adapter=kind,
        )  # fmt: skip
        found.append((grads(base.weights("policy")), grads([*t.critic.own, *t.critic.head.parameters()])))
    plain, other_returns, other_advantage = found
    assert equal(plain[0], other_returns[0]) and not equal(plain[1], other_returns[1])
    assert not equal(plain[0], other_advantage[0]) and equal(plain[1], other_advantage[1])


@pytest.mark.parametrize("kind", ["own", "reward"])
def test_the_values_gradient_is_that_of_the_plain_formula(kind: str, tmp_path: Path) -> None:
    base, t, path = updated(tmp_path, made_up, value_adapter=kind, cliprange_value=1000.0, tokens_per_microbatch=64)
    weights = [*t.critic.own, *t.critic.head.parameters()]
    with base.scope(values.ADAPTER):
        seen = t.critic.head(on_policy.response_states(base, path))[..., 0]
        loss = 0.1 * 0.5 * ((seen - made_up(path).returns)[path.is_response] ** 2).mean()
        expected = torch.autograd.grad(loss, weights)
    for a, b in zip(grads(weights), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert expected[-1].abs() > 1e-4


@pytest.mark.parametrize(("kind", "is_apart"), [("none", False), ("own", True)])
def test_a_wild_error_of_the_values_shrinks_the_policys_step_only_where_they_share_an_adapter(
    kind: str, is_apart: bool, tmp_path: Path
) -> None:
    found = []
    for size in (1.0, 1e4):
        base, _, _ = updated(
            tmp_path, lambda path, size=size: made_up(path)._replace(returns=torch.full_like(path.values, size)),
            value_adapter=kind, max_grad_norm=1e-3,
        )  # fmt: skip
        found.append(torch.cat([grad.flatten() for grad in grads(base.weights("policy"))]).norm())
    if is_apart:
        assert found[0] == found[1]
    else:
        assert found[1] < 0.5 * found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_values_learn(kind: str, tmp_path: Path) -> None:
    base, judged_by = ready()
    t, path = batch_of(
        tmp_path, base, judged_by, value_adapter=kind, cliprange_value=1000.0, vf_coef=1.0, approx_kl_stop=0.0
    )
    goal = made_up(path)._replace(advantage=torch.zeros_like(path.values), returns=path.score[:, None] + path.logp_old)
    losses = [ppo.update(t, goal, range(len(path.score)), 0, number).value_loss for number in range(30)]
    assert losses[-1] < 0.3 * losses[0]


class Watched(Checkpoints):
    """Keeps a copy of what each step leaves behind."""

    def __init__(self) -> None:
        super().__init__(None, {}, 0)
        self.seen: list[tuple[dict[str, list[Tensor]], list[int]]] = []

    def resume(self, live: Live) -> Resumed:
        self.keep(0, live, {})
        return Resumed(0, {})

    def keep(self, step: int, live: Live, facts: Any, now: bool = False) -> None:
        weights = {name: [w.detach().clone() for w in some] for name, some in live.weights.items()}
        places = {id(w): i for i, w in enumerate(w for g in live.optimizer.param_groups for w in g["params"])}
        self.seen.append((weights, sorted(places[id(w)] for w in live.optimizer.state)))


@pytest.mark.parametrize("kind", KINDS)
def test_while_the_values_warm_up_the_policy_rests_to_the_bit(kind: str, tmp_path: Path) -> None:
    base, judged_by = ready()
    settings = {**QUICK, "total_episodes": 256, "value_warmup_steps": 2, "value_adapter": kind, "kl_target": 1.0}
    watched = Watched()
    report = ppo.train(
        base, judged_by, rows_of(tmp_path), PPOSettings(**{**settings, "kl_coef": 0.1}), 0, run_of(tmp_path), watched
    )
    count = len(base.weights("policy"))
    for step in range(1, 5):
        (was, _), (now, moments) = watched.seen[step - 1 : step + 1]
        assert equal(was["policy"], now["policy"]) is (step <= 2)
        assert not equal(was["value_head"], now["value_head"])
        assert kind == "none" or not equal(was["value"], now["value"])
        assert all(place >= count for place in moments) is (step <= 2)
    first, second, third, fourth = report["curve"]
    assert first["loss/value_avg"] > second["loss/value_avg"]
    assert second["objective/kl"] == 0 == second["policy/approxkl_avg"] and second["val/ratio"] == 1
    assert third["kl_coef"] == 0.1 != fourth["kl_coef"]  # a KL that is zero by rule does not lower its price


@pytest.mark.parametrize("kind", ["own", "reward"])
def test_training_leaves_base_and_reward_to_the_bit_and_no_value_behind(kind: str, tmp_path: Path) -> None:
    base, judged_by = ready()
    before = {n: p.detach().clone() for n, p in base.peft.named_parameters()}  # type: ignore[union-attr]
    settings = PPOSettings(**{**QUICK, "total_episodes": 128, "value_adapter": kind})
    ppo.train(base, judged_by, rows_of(tmp_path), settings, 0, run_of(tmp_path))
    after = dict(base.peft.named_parameters())  # type: ignore[union-attr]
    assert set(after) == set(before)
    assert all(".policy." in name for name, weight in before.items() if not torch.equal(weight, after[name]))
    base.save("policy", tmp_path)
    assert "value" not in (tmp_path / "adapter_config.json").read_text()


@pytest.mark.parametrize("kind", ["own", "reward"])
def test_the_score_rises_within_the_price_of_kl(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "score_sequences", likes_good)
    _, report = trained(tmp_path, total_episodes=448, kl_coef=0.1, value_adapter=kind)
    assert report["verdict"] == "gained" and 0 < report["held_out"]["kl"]["value"] < 10
    first, last = report["curve"][0], report["curve"][-1]
    assert last["objective/scores"] > first["objective/scores"] + 0.4
    assert first["objective/kl"] == 0


def test_same_seed_same_weights(tmp_path: Path) -> None:
    found = []
    for again in (1, 2):
        torch.manual_seed(again)
        base, report = trained(tmp_path, total_episodes=128, num_ppo_epochs=2, value_adapter="own")
        found.append(([w.detach() for w in base.weights("policy")], report))
    assert equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
