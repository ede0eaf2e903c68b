"""What PPO and IFT share: prompts as tokens, the score of an answer, guards, samples, and held-out answers before and after."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.training import report, tree
from backend.training.data import PromptRow, Tokens
from backend.training.judge import Judge, scores
from backend.training.maths import combined_score, exact_kl, final_score, sum_over
from backend.training.rollout import Sampled, Trajectory, lay_out, sample
from backend.training.run import GuardStop, NotFinite, Run, TooFewRows
from backend.training.settings import OnPolicySettings
from backend.training.shared_base import SharedBase

ADAPTER = "policy"
LARGEST_RATIO = 10.0  # a minibatch with a larger mean ratio is skipped (N+); three in a row end the run
KL_ALARM = 6.0  # nats per answer, Ziegler et al. 2019
APPROX_KL_ALARM, CLIP_ALARM = 0.02, 0.2  # per token, and share of tokens; our choice
SPREAD_ALARM = 2.0  # times the first disagreement of the reward model's members; our choice
SAMPLES_TOLD = 2


class Prompt(NamedTuple):
    """One prompt as token ids: what the policy reads, and the case as the reward model reads it."""

    case: Any
    split: str
    policy: list[int]
    reward: list[int]


def encode(
    base: SharedBase, rows: Sequence[PromptRow], settings: OnPolicySettings
) -> tuple[list[Prompt], dict[str, int]]:
    """Prompts as token ids, with room for the answer; the counts say how many lost their front."""
    tokens = Tokens(base.tokenizer, min(settings.max_length, base.longest))
    room = tokens.longest - settings.response_length
    if room < 1:
        raise TooFewRows(
            f"An answer of {settings.response_length} tokens leaves no room for a prompt within {tokens.longest}. "
            "Lower 'Longest answer in tokens'."
        )
    prompts = [
        Prompt(
            row.case,
            row.split,
            tokens.cut(tokens.prefix(row.messages), room),
            tokens.cut(tokens.prefix(row.conversation), room),
        )
        for row in rows
    ]
    return prompts, {"prompts": len(prompts), **tokens.counts}


def parts_of(base: SharedBase, path: Trajectory, tokens: int, seed: int, step: int) -> list[list[int]]:
    """Rows of each micro-batch; answers to one prompt stay together."""
    return tree.trajectory_parts(base, path.tokens, path.is_real, path.is_response.shape[1], tokens, seed, step)


def response_states(base: SharedBase, path: Trajectory) -> Tensor:
    """The states that predict the response tokens, under the open scope. (B, R, D)"""
    return tree.trajectory_states(base, path.tokens, path.is_real, path.is_response.shape[1])


def response_tokens(path: Trajectory) -> Tensor:
    """(B, R)"""
    return path.tokens[:, -path.is_response.shape[1] :]


def trust(base: SharedBase, prompts: Sequence[Prompt], settings: OnPolicySettings, run: Run) -> None:
    """Whether the answers to one prompt can be read together is tried with beginnings of prompts in their place."""
    ends = [prompt.policy[: settings.response_length] for prompt in prompts[: max(2, settings.num_generations)]]
    groups = [[prompt.policy + end for end in ends] for prompt in prompts]
    tree.trust(base, ADAPTER, groups, run)


class Paid(NamedTuple):
    """What answers are paid, and how far the reward model's members are apart about them. Both (B,)."""

    score: Tensor
    spread: Tensor  # population deviation of the normalised scores; 0 for one member


@torch.no_grad()
def score_answers(
    base: SharedBase, judge: Judge, asked: Sequence[Prompt], answers: Sequence[Sampled], settings: OnPolicySettings
) -> Paid:
    """What each answer is paid by the reward model's members together, clip and penalty included."""
    sequences = [prompt.reward + answer.tokens for prompt, answer in zip(asked, answers, strict=True)]
    found = scores(base, judge, sequences, settings.tokens_per_microbatch)  # (members, B)
    if not bool(torch.isfinite(found).all()):
        raise NotFinite("The reward model gave a score that is not finite. Train the reward model again.")
    has_ended = torch.tensor([answer.has_ended for answer in answers], device=base.device)
    combined = combined_score(found, settings.ensemble, settings.uwo_coef)
    paid = final_score(combined, has_ended, settings.reward_clip, settings.missing_eos_penalty)
    return Paid(paid, found.std(0, correction=0))


def spread_told(judge: Judge, path: Trajectory) -> dict[str, float]:
    """The mean disagreement over a batch, of a reward model that has several members."""
    return {"objective/score_spread": float(path.spread.mean())} if len(judge.members) > 1 else {}


class Guard:
    """Looks at every step; says once what is odd, ends the run when it is beyond repair. Thresholds are our choice
    where no source is named."""

    def __init__(self, settings: OnPolicySettings, state: Mapping[str, Any] | None = None) -> None:
        """``state``: what ``state()`` gave when the run was interrupted."""
        self.settings = settings
        state = state or {"alarms": [], "first_entropy": None, "first_spread": None, "wild_in_a_row": 0}
        self.alarms: list[dict[str, Any]] = list(state["alarms"])
        self._first_entropy: float | None = state["first_entropy"]
        self._first_spread: float | None = state["first_spread"]
        self._wild_in_a_row: int = state["wild_in_a_row"]

    def state(self) -> dict[str, Any]:
        """All that a look remembers of the looks before it, as JSON."""
        return {
            "alarms": list(self.alarms),
            "first_entropy": self._first_entropy,
            "first_spread": self._first_spread,
            "wild_in_a_row": self._wild_in_a_row,
        }

    def look(self, told: Mapping[str, float], step: int, run: Run, ratios: Sequence[float] = ()) -> None:
        """``told`` are the step's statistics under TRL's names, ``ratios`` the mean ratio of each update, skipped ones too."""
        for ratio in ratios:
            self._wild_in_a_row = self._wild_in_a_row + 1 if ratio > LARGEST_RATIO else 0
            if self._wild_in_a_row >= 3:
                self._stop("ratio", ratio, step, "Three updates in a row were too far. Lower the learning rate.")
        kl, spread = told["objective/kl"], told["objective/entropy"]
        if self._first_entropy is None:
            self._first_entropy = spread
        if kl > self.settings.kl_stop:
            self._stop(
                "kl", kl, step, "The answers drifted from the base. Raise 'KL coefficient' or lower the learning rate."
            )
        if spread < self.settings.entropy_stop * self._first_entropy:
            self._stop("entropy", spread, step, "The policy gives the same answer everywhere. Raise 'KL coefficient'.")
        if kl > KL_ALARM:
            self._alarm("kl", kl, step, run, "the answers drift from the base: raise 'KL coefficient'")
        moved, clipped = told.get("policy/approxkl_avg", 0.0), told.get("policy/clipfrac_avg", 0.0)
        if moved > APPROX_KL_ALARM or clipped > CLIP_ALARM:
            self._alarm("step", moved, step, run, "steps are large: fewer passes or a lower rate")
        if "objective/score_spread" in told:
            self._look_at_spread(told["objective/score_spread"], step, run)

    def _look_at_spread(self, spread: float, step: int, run: Run) -> None:
        if self._first_spread is None:
            self._first_spread = spread
        limit, remedy = (
            self.settings.spread_stop,
            "the reward model was not taught about such answers: label some of them",
        )
        if limit and spread > limit * self._first_spread:
            self._stop("spread", spread, step, f"{remedy[0].upper()}{remedy[1:]}, or take uwo.")
        if spread > SPREAD_ALARM * self._first_spread:
            self._alarm("spread", spread, step, run, remedy)

    def _alarm(self, signal: str, value: float, step: int, run: Run, remedy: str) -> None:
        if all(alarm["signal"] != signal for alarm in self.alarms):
            self.alarms.append({"signal": signal, "value": round(value, 6), "step": step})
            run.message(f"Step {step}: {signal} is {value:.3g}; {remedy}.")

    def _stop(self, signal: str, value: float, step: int, remedy: str) -> None:
        raise GuardStop(f"Stopped at step {step}: {signal} is {value:.3g}. {remedy}")


def tell_samples(
    base: SharedBase,
    run: Run,
    step: int,
    total_steps: int,
    asked: Sequence[Prompt],
    answers: Sequence[Sampled],
    scores: Tensor,
) -> None:
    """A few answers at the start, at the end and at eight places between."""
    if step % max(1, total_steps // 8) and step != total_steps - 1:
        return
    for i in range(0, len(answers), math.ceil(len(answers) / SAMPLES_TOLD)):
        text = base.tokenizer.decode(answers[i].tokens, skip_special_tokens=True)
        run.sample(step + 1, asked[i].case, text, float(scores[i]))


class Evaluated(NamedTuple):
    """One answer to each held-out prompt."""

    scores: list[float]
    kl: list[float]  # nats per answer
    lengths: list[int]
    ended: list[bool]


@torch.no_grad()
def evaluate(
    base: SharedBase, judge: Judge, prompts: Sequence[Prompt], settings: OnPolicySettings, seed: int, run: Run
) -> Evaluated:
    """The policy as it is now; the same draws every time, so that before and after differ by the policy alone.

    The KL sums the exact divergence of each next-token distribution along the sampled answer.
    """
    s = settings
    if not prompts:
        return Evaluated([], [], [], [])
    policy_ids = [prompt.policy for prompt in prompts]
    answers = sample(base, ADAPTER, policy_ids, 1, s.response_length, s.temperature, seed, 0, run, "evaluate")
    path = lay_out(base, policy_ids, answers)
    kl = torch.zeros(len(prompts))
    for part in parts_of(base, path, s.tokens_per_microbatch, seed, 0):
        run.check()
        few = path.take(part)
        logits = []
        for adapter in (ADAPTER, None):
            with base.scope(adapter):
                logits.append(base.logits(response_states(base, few), s.temperature))
        kl[part] = sum_over(exact_kl(*logits), few.is_response).cpu()
    lengths = [len(answer.tokens) for answer in answers]
    paid = score_answers(base, judge, prompts, answers, s).score.tolist()
    return Evaluated(paid, kl.tolist(), lengths, [answer.has_ended for answer in answers])


def compare(before: Evaluated, after: Evaluated, seed: int) -> dict[str, Any] | None:
    n = len(after.scores)
    if not n:
        return None

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / n, 6)

    deviation = float(torch.tensor(after.kl, dtype=torch.float64).std()) if n > 1 else math.nan
    return {
        "n": n,
        "score_before": mean(before.scores),
        "score_after": mean(after.scores),
        "gain": report.paired_gain(before.scores, after.scores, seed).as_dict(),
        "kl": {"value": mean(after.kl), "se": round(deviation / math.sqrt(n), 6) if n > 1 else None, "n": n},
        "mean_length_before": mean(before.lengths),
        "mean_length_after": mean(after.lengths),
        "eos_rate_before": mean(before.ended),
        "eos_rate_after": mean(after.ended),
    }


def verdict(before: Evaluated, after: Evaluated, seed: int) -> str:
    if not after.scores:
        return "no_held_out"
    return "gained" if report.paired_gain(before.scores, after.scores, seed).low > 0 else "no_gain"
