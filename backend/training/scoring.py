"""The job that orders a queue: judgements and waiting comparisons in, a score and a reason for each of the latter out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from backend.training import acquisition, judge, probe, reward, tree
from backend.training.acquisition import Pool, Scored
from backend.training.data import ComparisonRow
from backend.training.judge import Judge
from backend.training.run import Run, TooFewRows
from backend.training.score_settings import ScoreSettings
from backend.training.settings import RewardSettings
from backend.training.shared_base import SharedBase

FEWEST = (
    200  # judgements from which on a probe's opinion is worth asking for (docs/benchmarks.md); before, chance is better
)


class Ordered(NamedTuple):
    """What goes into the job's file, and what is said of it."""

    rows: list[dict[str, Any]]  # {"comparison", "score" in nats, "reason"}, the highest score first
    report: dict[str, Any]


def order(
    base: SharedBase,
    rows: Sequence[ComparisonRow],
    settings: ScoreSettings,
    seed: int,
    run: Run,
    features: probe.Features,
    members: Judge | None = None,
) -> Ordered:
    """``rows`` without ranks wait to be judged. ``members``: the reward model's, for the rule ``disagreement``."""
    asked = RewardSettings(max_length=settings.max_length)
    tokens = settings.tokens_per_microbatch
    judged, _ = reward.encode(base, [row for row in rows if row.ranks], asked)
    waiting, counts = reward.encode(base, [unjudged(row) for row in rows if not row.ranks], asked)
    if not waiting:
        raise TooFewRows("No comparison waits that nobody has begun. Send some to labelling, then order the queue.")
    tree.trust(base, None, [item.sequences for item in [*judged, *waiting]], run)
    known = probe.pairs_of(features, reward.compared(judged), tokens, run)
    pairs = probe.pairs_of(features, reward.compared(waiting), tokens, run)
    features.save()
    assert pairs is not None
    groups, _ = acquisition.numbered([place for place, item in enumerate(waiting) for _ in item.pairs])
    pool = Pool(pairs.differences, groups, len(waiting))
    run.check()
    scored = by_rule(base, settings, (arm(known, judged, "train"), len(judged)), pool, waiting, members, seed, run)
    found = [
        {"comparison": item.row.comparison, "score": round(gain, 9), "reason": f"{settings.rule} {chance:.2f}"}
        for item, gain, chance in zip(waiting, scored.gains.tolist(), scored.chances.tolist(), strict=True)
    ]
    ordered = sorted(found, key=lambda row: (-row["score"], row["comparison"]))
    report = {
        "rule": settings.rule,
        "n": len(ordered),
        "judged": len(judged),
        "dropped": counts["comparisons_dropped"],
        "gain": gain_of(known, judged, seed),
    }
    return Ordered(ordered, report)


def unjudged(row: ComparisonRow) -> ComparisonRow:
    """The same with an order, so that it has pairs; nobody reads which."""
    return ComparisonRow(
        case=row.case, split=row.split, conversation=row.conversation, answers=row.answers,
        ranks=list(range(1, len(row.answers) + 1)), comparison=row.comparison,
    )  # fmt: skip


def by_rule(
    base: SharedBase,
    settings: ScoreSettings,
    judged: tuple[probe.Pairs | None, int],
    pool: Pool,
    waiting: Sequence[reward.Item],
    members: Judge | None,
    seed: int,
    run: Run,
) -> Scored:
    """``judged``: the pairs to learn from, and how many comparisons were judged with the held-out ones."""
    known, count = judged
    if settings.rule == "coverage":
        return acquisition.by_information(known, pool, settings.most, is_weighted=False)
    if settings.rule == "disagreement" and members is not None and len(members.members) > 1:
        return acquisition.by_disagreement(member_margins(base, settings, waiting, members, run), pool)
    if known is None or count < FEWEST:
        raise TooFewRows(
            f"The rule {settings.rule!r} needs {FEWEST} judged pairs to learn from; there are {count}. "
            "Label more in chance's order first."
        )
    if settings.rule == "uncertainty":
        return acquisition.by_information(known, pool, settings.most, is_weighted=True)
    return acquisition.by_disagreement(acquisition.probe_margins(known, pool, seed), pool)


def member_margins(
    base: SharedBase, settings: ScoreSettings, waiting: Sequence[reward.Item], members: Judge, run: Run
) -> torch.Tensor:
    """(M, P) margins of the reward model's members."""
    margins = []
    for member in members.members:
        raw = judge.score_groups(base, member, [item.sequences for item in waiting], settings.tokens_per_microbatch)
        margins.append(pair_margins(raw, waiting))
        run.check()
    return torch.stack(margins)


def pair_margins(raw: torch.Tensor, items: Sequence[reward.Item]) -> torch.Tensor:
    """(P,) raw score of each pair's first answer less that of its second."""
    found, start = [], 0
    for item in items:
        mine = raw[start : start + len(item.sequences)]
        found += [mine[pair.first] - mine[pair.second] for pair in item.pairs]
        start += len(item.sequences)
    return torch.stack(found)


def arm(
    known: probe.Pairs | None, judged: Sequence[reward.Item], split: str, name: str | None = None
) -> probe.Pairs | None:
    """The pairs of one arm (all arms: None), of the cases to train on or of the held-out ones."""
    if known is None:
        return None
    rows = [item.row for item in judged for _ in item.pairs]
    places = [
        i for i, row in enumerate(rows) if (row.split == "train") == (split == "train") and name in (None, row.arm)
    ]
    return known.take(places) if places else None


def gain_of(known: probe.Pairs | None, judged: Sequence[reward.Item], seed: int) -> dict[str, Any]:
    """What the priority arm has been worth so far; see acquisition.gain."""
    random, priority = (arm(known, judged, "train", name) for name in ("random", "priority"))
    held_out = arm(known, judged, "held out", "random")
    if random is None or priority is None or held_out is None:
        counts = [0 if part is None else len(part.shares) for part in (random, priority, held_out)]
        return {
            "verdict": "too_few", "each": min(counts[:2]), "cases": len(set(held_out.cases)) if held_out else 0, "pairs": counts[2],
            "fewest_judged": acquisition.FEWEST_JUDGED, "fewest_cases": acquisition.FEWEST_CASES,
        }  # fmt: skip
    return acquisition.gain(random, priority, held_out, seed)
