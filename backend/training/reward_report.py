"""What a reward model is worth: held-out accuracy with its interval, beside baselines that read no words at all."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from backend.training import report
from backend.training.judge import Norm
from backend.training.maths import outcome_logp, ties_loss
from backend.training.probe import Compared, Reached
from backend.training.run import Run

Scores = list[list[float]]  # per comparison one number for each of its answers


def mean_scores(members: Sequence[Scores], norms: Sequence[Norm]) -> Scores:
    """What the members say on average, in log-odds: the mean of their normalised scores over their mean gain.

    So it orders answers as the mean that PPO and IFT follow, and its log loss can be compared with one member's. Of a
    single member these are its raw scores.
    """
    if len(members) == 1:
        return members[0]
    total = math.fsum(norm.gain for norm in norms)
    return [
        [
            math.fsum(norm.gain * (score - norm.bias) for norm, score in zip(norms, said, strict=True)) / total
            for said in zip(*rows, strict=True)
        ]
        for rows in zip(*members, strict=True)
    ]


def spread(members: Sequence[Scores], norms: Sequence[Norm]) -> float:
    """Mean over answers of the members' population deviation, in normalised scores; 0 for one member."""
    said = [
        [norm.gain * (score - norm.bias) for row in rows for score in row]
        for rows, norm in zip(members, norms, strict=True)
    ]
    return float(torch.tensor(said, dtype=torch.float64).std(0, correction=0).mean())


def judged_pairs(items: Sequence[Compared], scores: Sequence[Sequence[float]]) -> report.Judged:
    out = report.Judged([], [], [])
    for item, mine in zip(items, scores, strict=True):
        for pair in item.pairs:
            out.differences.append(mine[pair.first] - mine[pair.second])
            out.shares.append(pair.share)
            out.cases.append(item.case)
    return out


def full_report(
    training: Sequence[Compared], held_out: Sequence[Compared], training_scores: Scores, held_scores: Scores
) -> dict[str, Any]:
    learnt, judged = judged_pairs(training, training_scores), judged_pairs(held_out, held_scores)
    accuracy = judged.accuracy()
    facts: dict[str, Any] = {
        "n": accuracy.n,
        "sizes": {
            "train_comparisons": len(training),
            "train_pairs": len(learnt.shares),
            "held_out_comparisons": len(held_out),
            "held_out_pairs": len(judged.shares),
            "held_out_ties": len(judged.shares) - accuracy.n,
            "held_out_cases": len(set(judged.cases)),
        },
        "train_accuracy": learnt.accuracy().as_dict(),
    }
    if not accuracy.n:
        return {**facts, "accuracy": None, "baselines": {}, "verdict": "no_held_out"}
    lengths = [[[float(len(s)) for s in item.sequences] for item in items] for items in (training, held_out)]
    short, long = (judged_pairs(*of).decided() for of in zip((training, held_out), lengths, strict=True))
    places = [[[-float(i) for i in range(len(item.sequences))] for item in items] for items in (training, held_out)]
    first, later = (judged_pairs(*of).decided() for of in zip((training, held_out), places, strict=True))
    baselines = {
        "length": report.fitted_baseline(short[:2], long[:2], long.cases, ("longer wins", "shorter wins")),
        "position": report.fitted_baseline(first[:2], later[:2], later.cases, ("first wins", "last wins")),
    }
    bins = report.calibration(judged.differences, judged.shares)
    floor = max(0.5, *(baseline["value"] for baseline in baselines.values()))
    return {
        **facts,
        "accuracy": accuracy.as_dict(),
        "log_loss": round(report.log_loss(judged), 6),
        "calibration": bins,
        "calibration_error": round(report.calibration_error(bins), 6),
        "baselines": baselines,
        "verdict": "usable" if accuracy.low > floor else "near_chance",
    }


def beside_probe(probed: Reached | None, judged: report.Judged, seed: int, run: Run) -> dict[str, Any] | None:
    """The probe's figures, and how much more often the reward model is right than it: of each case's held-out pairs with a
    winner, a mean over cases with its interval. Both looked at the same comparisons. None without a probe.
    """
    if probed is None:
        return None
    theirs, ours = probed.judged.decided(), judged.decided()
    hits = [report.by_group(report.agreement(one.differences, one.shares), one.cases) for one in (theirs, ours)]
    gain = report.paired_gain(hits[0], hits[1], seed)
    worth = "more often right" if gain.low > 0 else "not shown to be more often right"
    run.message(
        f"The reward model is {worth} than the probe: {gain.value:+.1%} ({gain.low:+.1%} to {gain.high:+.1%}), "
        f"a mean over {gain.n} held-out cases."
    )
    return {**probed.told, "gain": gain.as_dict()}


def members_report(held_out: Sequence[Compared], members: Sequence[Scores], norms: Sequence[Norm]) -> dict[str, Any]:
    """Each member's own held-out figures, and how far they are apart; nothing for one member."""
    if len(members) == 1 or not held_out:
        return {}
    judged = [judged_pairs(held_out, scores) for scores in members]
    each = [{"accuracy": one.accuracy().as_dict(), "log_loss": round(report.log_loss(one), 6)} for one in judged]
    count = sum(len(row) for row in members[0])
    return {"members": each, "spread": {"value": round(spread(members, norms), 6), "n": count}}


def ties_report(held_out: Sequence[Compared], scores: Scores, log_thetas: Sequence[float]) -> dict[str, Any]:
    """The ties model on held-out pairs: theta (the geometric mean of several members'), the log loss of the three
    outcomes in nats, and the share of ties it expects beside the one that was judged. Nothing without such a model."""
    if not log_thetas:
        return {}
    log_theta = math.fsum(log_thetas) / len(log_thetas)
    judged = judged_pairs(held_out, scores)
    facts: dict[str, Any] = {"theta": round(math.exp(log_theta), 6), "n": len(judged.shares)}
    if judged.shares:
        differences, shares = torch.tensor(judged.differences), torch.tensor(judged.shares)
        losses = ties_loss(differences, shares, torch.tensor(log_theta))
        expected = outcome_logp(differences, torch.tensor(log_theta)).tie.exp()
        facts["log_loss"] = round(float(losses.mean()), 6)
        facts["expected"] = round(float(expected.mean()), 6)
        facts["observed"] = round(float((shares == 0.5).float().mean()), 6)
    return {"ties": facts}
