"""Adversarial refresh of a reward model: good answers must score above what the policy itself writes to their prompts.

To the loss of the judgements it adds adv_coef times the mean over (good, sampled) of -log sigma(f(good) - f(sampled)),
both behind the same case. Good are demonstrations, edited answers and winners; the policy answers their prompts once,
at the start, from seeded draws, so a run that goes on from a checkpoint has the same answers. An answer with the text
of the good one teaches nothing and is left out; in the report it counts as one that cannot be told apart. Near Chen
et al. 2024 (arXiv:2401.01335, SPIN) and Cheng et al. 2023 (arXiv:2311.08045, APO), where the discriminator is the
policy itself or sees no judgements. Of an ensemble every member is pushed, each by all pairs in an order of its own, and
the report speaks of the members' mean.

Left out: answers sampled anew as the reward model learns, since the policy does not move meanwhile; a bootstrap of the
pairs for each member, as they have of the judgements.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.training import judge, report, reward, reward_report, tree
from backend.training.data import AnswerRow, ComparisonRow, Tokens
from backend.training.draws import cycled
from backend.training.judge import Head, Judge, Norm
from backend.training.maths import adversarial_loss
from backend.training.reward import Learner, Push
from backend.training.rollout import Sampled, sample
from backend.training.run import Run, TooFewRows
from backend.training.settings import RewardSettings
from backend.training.shared_base import SharedBase

FORMER = "former"  # adapters of the reward model before this one


class Opposed(NamedTuple):
    """One good answer and what the policy wrote to the same prompt, both behind the case."""

    case: Hashable
    split: str
    sequences: list[list[int]]  # the good one first
    alike: int = 0  # sampled answers with its text


class Against(NamedTuple):
    pairs: list[Opposed]
    counts: dict[str, int]


def oppose(
    base: SharedBase, policy: str | None, rows: Sequence[AnswerRow], settings: RewardSettings, seed: int, run: Run
) -> Against:
    """Let the adapter ``policy`` (None: the bare base) answer the prompt of every good answer."""
    s = settings
    tokens = Tokens(base.tokenizer, min(s.max_length, base.longest))
    room = tokens.longest - s.response_length
    if room < 1:
        raise TooFewRows(
            f"A sampled answer of {s.response_length} tokens leaves no room for a prompt within {tokens.longest}. "
            "Lower 'Longest sampled answer in tokens'."
        )
    prompts = [tokens.cut(tokens.prefix(row.messages), room) for row in rows]
    answers = sample(base, policy, prompts, s.adv_generations, s.response_length, 1.0, seed, 0, run, "opposed")
    found = []
    for place, row in enumerate(rows):
        mine = answers[place * s.adv_generations : (place + 1) * s.adv_generations]
        other = [answer.tokens for answer in mine if not _is_same(base, row, answer)]
        if sequences := _sequences(tokens, row, other):
            case = row.case if row.case is not None else f"good {place}"
            found.append(Opposed(case, row.split, sequences, len(mine) - len(other)))
    if not any(one.split == "train" for one in found):
        raise TooFewRows(
            "There is no good answer in the split 'train' to set the policy's own against: no demonstration, no edited "
            "and no winning one. Write demonstrations or label more, or set the weight of the policy's answers to 0."
        )
    tokens.counts["sampled_answers"] = len(answers)
    tokens.counts["sampled_like_the_good_one"] = sum(one.alike for one in found)
    return Against(found, dict(tokens.counts))


def _sequences(tokens: Tokens, row: AnswerRow, other: Sequence[list[int]]) -> list[list[int]] | None:
    """The good answer and the others, each behind the case; None when there is no room for them."""
    good = tokens.answer(row.answer.text, row.answer.has_ended)
    return tokens.joined(tokens.prefix(row.conversation), [good, *other]) if good else None


def _is_same(base: SharedBase, row: AnswerRow, answer: Sampled) -> bool:
    text = base.tokenizer.decode(answer.tokens, skip_special_tokens=True)
    return bool(text.strip() == row.answer.text.strip())


def pusher(base: SharedBase, opposed: Sequence[Opposed], settings: RewardSettings, seed: int, run: Run) -> Push:
    """What a reward step adds to a member's gradient: a share of the training pairs, so that an epoch sees each once."""
    training = [one for one in opposed if one.split == "train" and len(one.sequences) > 1]

    def push(learner: Learner, step: int, steps_per_epoch: int) -> dict[str, float]:
        if not training:
            return {}
        size, order = -(-len(training) // steps_per_epoch), reward.own("opposed order", learner.number)
        batch = [training[i] for i in cycled(len(training), step * size, size, seed, order)]
        return pull_apart(base, learner.member.head, batch, settings, seed, step, run)

    return push


def pull_apart(
    base: SharedBase, head: Head, batch: Sequence[Opposed], settings: RewardSettings, seed: int, step: int, run: Run
) -> dict[str, float]:
    """Backward of the batch's loss under the open scope, in micro-batches; loss and share of pairs told apart."""
    groups = [one.sequences for one in batch]
    total = float(sum(len(group) - 1 for group in groups))
    loss_sum, hits = 0.0, 0.0
    for part in tree.parts(base, groups, settings.tokens_per_microbatch, seed, step):
        run.check()
        few = [groups[i] for i in part]
        good, sampled = sides(head.raw(tree.ends(base, few)), few)
        loss = adversarial_loss(good, sampled, total)
        torch.autograd.backward(settings.adv_coef * loss)
        loss_sum += float(loss.detach())
        hits += float(((good > sampled).float() + 0.5 * (good == sampled).float()).sum())
    return {"adversarial/loss": loss_sum, "adversarial/accuracy": hits / total}


def sides(scores: Tensor, groups: Sequence[tree.Group]) -> tuple[Tensor, Tensor]:
    """Scores group by group, the good answer's first -> (pairs,) of good and of sampled answers."""
    parts = scores.split([len(group) for group in groups])
    return torch.cat([part[:1].expand(len(part) - 1) for part in parts]), torch.cat([part[1:] for part in parts])


def separation(base: SharedBase, found: Judge, opposed: Sequence[Opposed], tokens: int) -> report.Interval:
    """Share of (good, sampled) pairs whose good answer scores higher; equal scores and equal texts count half."""
    if not opposed:
        return report.share([], [])
    groups = [one.sequences for one in opposed]
    scores = judge.scores(base, found, [sequence for group in groups for sequence in group], tokens).mean(0)
    good, sampled = sides(scores, groups)
    cases = [one.case for one in opposed for _ in one.sequences[1:]]
    hits = report.agreement((good - sampled).tolist(), [1.0] * len(cases))
    alike = [one.case for one in opposed for _ in range(one.alike)]
    return report.share([*hits, *[0.5] * len(alike)], [*cases, *alike])


def told(
    base: SharedBase, trained: Judge, former: Path | None, against: Against, settings: RewardSettings
) -> dict[str, Any]:
    """How well the reward model, and the one before it, tell good answers from the policy's own, on held-out prompts."""
    held_out = [one for one in against.pairs if one.split != "train"]
    training, most = [one for one in against.pairs if one.split == "train"], settings.tokens_per_microbatch
    before = None
    if former is not None:
        before = separation(base, judge.load(base, former, FORMER), held_out, most).as_dict()
    return {
        "separation": separation(base, trained, held_out, most).as_dict(),
        "separation_before": before,
        "train_separation": separation(base, trained, training, most).as_dict(),
        "counts": against.counts,
    }


def newest(
    base: SharedBase, trained: Judge, rows: Sequence[ComparisonRow], settings: RewardSettings, run: Run
) -> dict[str, Any]:
    """Accuracy beside its baselines on held-out comparisons that hold an answer of the newest policy."""
    items = [item for item in reward.encode(base, rows, settings)[0] if item.pairs]
    training = [item for item in items if item.row.split == "train"]
    held_out = [item for item in items if item.row.split != "train" and item.row.is_newest]
    unread = [[0.0] * len(item.sequences) for item in training]  # only the baselines learn from these comparisons
    said = [reward.raw_scores(base, member, held_out, settings, run) for member in trained.members]
    norms = [Norm(float(member.head.bias), float(member.head.gain)) for member in trained.members]
    found = reward_report.full_report(
        reward.compared(training), reward.compared(held_out), unread, reward_report.mean_scores(said, norms)
    )
    return {name: found[name] for name in ("n", "accuracy", "baselines", "verdict")}
