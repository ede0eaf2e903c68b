"""Reward model: Bradley-Terry on a LoRA adapter with a scalar head on the frozen base, alone or as an ensemble.

Bradley & Terry 1952; Ouyang et al. 2022 (arXiv:2203.02155) eq. 1: per comparison the mean over its C(K, 2) pairs of
-[q log sigma(d - m) + (1 - q) log sigma(-d - m)], d the difference of the two scores, q 1 for a win and .5 for a tie,
m the margin asked of strong preferences. With ``label_smoothing`` e, q is q (1 - e) + (1 - q) e. ``ties``: half is
the above; drop leaves tied pairs out; model is Rao & Kupper 1967 (maths.outcome_logp), whose theta is learnt with the
head. The score is read at the last token, which is the end token if the answer ended, so an answer without its end
scores differently. The head is drawn from N(0, 1/sqrt(D + 1)) (Stiennon et al. 2020).

An ensemble (Coste et al. 2023, arXiv:2310.02743) is ``num_members`` adapters with a head each on the one base. Adapters
of small rank on one frozen base that differ by their seeds alone agree too much, also where they know nothing (Zhai et
al. 2024, arXiv:2401.00243), so every member but the first learns from a bootstrap of the training cases, in an order
of its own. The first learns from all of them: it is, to the bit, the model that a job of one member gives, and who
reads plain PEFT alone loses nothing. The gradient norm is clipped per member, so none slows another.

The answers of a comparison are read together where the base allows it (tree.py): the case is read once. Before training,
a linear probe (probe.py) says what the bare base already knows.

Left out: margins in the ties model (theta is one already), a penalty that drives members apart, a bootstrap of the
first member.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import probe, report, reward_report, stepping, tree
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import ComparisonRow, Pair, Tokens, pairs_of
from backend.training.draws import cycled, generator
from backend.training.judge import (
    ADAPTER,
    TIES_RATE,
    Head,
    Judge,
    Member,
    Norm,
    files_of,
    name_of,
    norm_of,
    normalise,
    score_groups,
)
from backend.training.maths import bradley_terry_loss, ties_loss
from backend.training.precision import fast_matmul
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import RewardSettings
from backend.training.shared_base import Shape, SharedBase


class Item(NamedTuple):
    """One comparison ready for the model."""

    row: ComparisonRow
    sequences: list[list[int]]  # one per answer
    pairs: list[Pair]
    margin: float


class Learner(NamedTuple):
    """A member of the ensemble while it learns."""

    number: int  # 1 is the first
    member: Member
    weights: list[nn.Parameter]  # of its adapter and head
    items: list[Item]  # what it learns from; a bootstrap may hold one several times
    mean_weight: float


Push = Callable[[Learner, int, int], dict[str, float]]
"""What else pulls at a member: (member, step, steps per epoch) -> statistics. It runs backward under its open scope."""


class Trained(NamedTuple):
    judge: Judge
    report: dict[str, Any]
    held_out: list[dict[str, Any]]  # per held-out comparison: {"case", "completions": ids, "scores": one per answer}


def train(
    base: SharedBase,
    rows: Sequence[ComparisonRow],
    settings: RewardSettings,
    seed: int,
    run: Run,
    start: Path | None = None,
    saves: Checkpoints = NONE,
    features: probe.Features | None = None,
    push: Push | None = None,
) -> Trained:
    """Adds the adapter "reward" (and "reward-2" ...) to the base and trains it. Held out are the splits val and test.

    ``features`` are those of the bare base that earlier runs kept, for the linear probe the report is to be compared with.
    """
    s = settings
    # 1. data
    items, counts = encode(base, rows, s)
    training = [item for item in items if item.row.split == "train" and item.pairs]
    held_out = [item for item in items if item.row.split != "train" and item.pairs]
    count = len(training) + len(held_out)
    if count < s.min_comparisons or not training:
        raise TooFewRows(
            f"A reward job needs {s.min_comparisons} comparisons that say something, some of them in the split 'train'; "
            f"there are {count}, {len(training)} of them to train on. Label more, or lower 'Fewest comparisons'."
        )

    # 2. model
    learners = [begin(base, number, training, s, seed, start) for number in range(1, s.num_members + 1)]
    tree.trust(base, ADAPTER, [item.sequences for item in items], run)
    probed = probe.compare(
        features or probe.Features(base, ""), compared(training), compared(held_out), s.tokens_per_microbatch, run
    )
    weights = [weight for learner in learners for weight in learner.weights]
    optimizer = stepping.adamw(weights, s.learning_rate)
    steps_per_epoch = math.ceil(len(training) / s.batch_size)
    total_steps = steps_per_epoch * s.num_train_epochs

    # 3. loop
    def look(epochs: int) -> None:
        curve.append({"epoch": epochs, **brief(base, learners, held_out, s, run)})
        told = {f"held_out/{k}": v for k, v in curve[-1].items() if k != "epoch"}
        run.metrics(epochs * steps_per_epoch, total_steps, told)

    live = Live(groups_of(base, learners), optimizer)
    first, facts = saves.resume(live)
    curve: list[dict[str, Any]] = facts.get("curve", [])
    if len(curve) < first // steps_per_epoch:  # interrupted while it looked
        look(first // steps_per_epoch)
    for step in range(first, total_steps):
        epoch, place = divmod(step, steps_per_epoch)
        begun = epoch * len(training) + place * s.batch_size  # comparisons each member has seen
        size = min(s.batch_size, len(training) - place * s.batch_size)
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * cosine_share(step, total_steps, s.warmup_share)
        batches = [batch_of(learner, begun, size, seed) for learner in learners]
        pushes = (lambda learner, step=step: push(learner, step, steps_per_epoch)) if push else None
        measured = update(base, learners, batches, optimizer, s, seed, step, run, pushes)
        run.metrics(step + 1, total_steps, {**measured, "epoch": epoch + (place + 1) / steps_per_epoch})
        is_epoch_end = place == steps_per_epoch - 1
        saves.keep(step + 1, live, {"curve": curve}, now=is_epoch_end)
        if is_epoch_end:
            look(epoch + 1)

    # 4. zero mean, unit variance, and what the model is worth
    run.check()
    said = {
        is_held: [raw_scores(base, learner.member, of, s, run) for learner in learners]
        for is_held, of in ((True, held_out), (False, training))
    }
    for learner, raw in zip(learners, said[bool(held_out)], strict=True):
        normalise(learner.member.head, raw)
    norms = [Norm(float(one.member.head.bias), float(one.member.head.gain)) for one in learners]
    means = {is_held: reward_report.mean_scores(raw, norms) for is_held, raw in said.items()}
    beside = reward_report.beside_probe(probed, reward_report.judged_pairs(compared(held_out), means[True]), seed, run)
    thetas = [float(theta.detach()) for one in learners if (theta := one.member.head.log_theta) is not None]
    told = {
        **reward_report.full_report(compared(training), compared(held_out), means[False], means[True]),
        **reward_report.members_report(compared(held_out), said[True], norms),
        **reward_report.ties_report(compared(held_out), means[True], thetas),
        "counts": dict(counts),
        "curve": curve,
        "steps": total_steps,
        "probe": beside,
    }
    judge = Judge(tuple(learner.member for learner in learners))
    return Trained(judge, told, [scored(item, mine) for item, mine in zip(held_out, means[True], strict=True)])


def scored(item: Item, scores: Sequence[float]) -> dict[str, Any]:
    """A held-out comparison and what the reward model says of its answers, in raw scores (reward_report.mean_scores)."""
    return {
        "case": item.row.case,
        "completions": [answer.completion for answer in item.row.answers],
        "scores": list(scores),
    }


def encode(
    base: SharedBase, rows: Sequence[ComparisonRow], settings: RewardSettings
) -> tuple[list[Item], Counter[str]]:
    """Comparisons as token ids; the counter says what was cut, dropped or tied."""
    tokens = Tokens(base.tokenizer, min(settings.max_length, base.longest))
    items = []
    for row in rows:
        answers = [tokens.answer(answer.text, answer.has_ended) for answer in row.answers]
        sequences = tokens.joined(tokens.prefix(row.conversation), answers) if all(answers) else None
        if sequences is None:
            tokens.counts["comparisons_dropped"] += 1
            continue
        pairs = pairs_of(row)
        tokens.counts["comparisons"] += 1
        tokens.counts["pairs"] += len(pairs)
        tokens.counts["ties"] += sum(pair.share == 0.5 for pair in pairs)
        tokens.counts["both_bad_without_winner"] += math.comb(len(row.ranks), 2) - len(pairs)
        if settings.ties == "drop":
            decided = [pair for pair in pairs if pair.share != 0.5]
            tokens.counts["ties_dropped"] += len(pairs) - len(decided)
            pairs = decided
        items.append(Item(row, sequences, pairs, settings.strength_margin * (row.strength or 0.0)))
    return items, tokens.counts


def compared(items: Sequence[Item]) -> list[probe.Compared]:
    return [probe.Compared(item.sequences, item.pairs, item.row.weight, item.row.case) for item in items]


def begin(
    base: SharedBase, number: int, training: Sequence[Item], settings: RewardSettings, seed: int, start: Path | None
) -> Learner:
    """A member with a fresh adapter, or with that of the model ``start``: its own there, else the first one's."""
    name = name_of(ADAPTER, number)
    if start is None:
        base.add(name, Shape(settings.lora_r, settings.lora_alpha), seed)
    else:
        file, _ = files_of(number)
        base.load(name, start, file if (start / file).exists() else files_of(1)[0])
    head = new_head(base, seed, number, tie_share(training) if settings.ties == "model" else None)
    items = resampled(training, seed, number)
    mean_weight = sum(item.row.weight for item in items) / len(items)
    return Learner(number, Member(name, head), [*base.weights(name), *head.parameters()], items, mean_weight)


def new_head(base: SharedBase, seed: int, number: int = 1, ties: float | None = None) -> Head:
    """``ties``: a ties model that begins with so many ties at equal scores, that is theta = (1 + ties) / (1 - ties)."""
    head = Head(base.width, models_ties=ties is not None)
    nn.init.normal_(head.weight, std=1 / math.sqrt(base.width + 1), generator=generator(seed, 0, own("head", number)))
    if head.ties is not None and ties is not None:
        bounded = min(max(ties, 0.01), 0.99)  # our choice
        log_theta = math.log((1 + bounded) / (1 - bounded))
        softplus = log_theta + math.log(-math.expm1(-log_theta))  # turned round
        nn.init.constant_(head.ties, softplus / TIES_RATE)
    return head.to(base.device)


def own(purpose: str, number: int) -> str:
    """The name of a member's draw; the first has that of a model alone."""
    return purpose if number == 1 else f"{purpose} {number}"


def tie_share(items: Sequence[Item]) -> float:
    shares = [pair.share for item in items for pair in item.pairs]
    return sum(share == 0.5 for share in shares) / len(shares)


def resampled(training: Sequence[Item], seed: int, number: int) -> list[Item]:
    """All comparisons for the first member; for another those of as many cases, drawn with replacement."""
    if number == 1:
        return list(training)
    by_case: dict[int, list[Item]] = {}
    for item in training:
        by_case.setdefault(item.row.case, []).append(item)
    cases = list(by_case.values())
    drawn = torch.randint(len(cases), (len(cases),), generator=generator(seed, number, "bootstrap of cases")).tolist()
    return [item for place in drawn for item in cases[place]]


def batch_of(learner: Learner, begun: int, size: int, seed: int) -> list[Item]:
    places = cycled(len(learner.items), begun, size, seed, own("order", learner.number))
    return [learner.items[place] for place in places]


def groups_of(base: SharedBase, learners: Sequence[Learner]) -> dict[str, list[nn.Parameter]]:
    """What a checkpoint holds, by name."""
    found: dict[str, list[nn.Parameter]] = {}
    for learner in learners:
        found[learner.member.adapter] = base.weights(learner.member.adapter)
        found[name_of("head", learner.number)] = list(learner.member.head.parameters())
    return found


def update(
    base: SharedBase,
    learners: Sequence[Learner],
    batches: Sequence[Sequence[Item]],
    optimizer: torch.optim.Optimizer,
    settings: RewardSettings,
    seed: int,
    step: int,
    run: Run,
    push: Callable[[Learner], dict[str, float]] | None = None,
) -> dict[str, float]:
    """One optimizer step, each member on its own batch and what else pushes it; the statistics are means over the members."""
    optimizer.zero_grad()
    told = [
        add_gradient(base, learner, batch, settings, seed, step, run, push)
        for learner, batch in zip(learners, batches, strict=True)
    ]
    optimizer.step()
    thetas = [float(theta.detach().exp()) for one in learners if (theta := one.member.head.log_theta) is not None]
    means = {name: math.fsum(one[name] for one in told) / len(told) for name in told[0]}
    return {**means, "theta": math.fsum(thetas) / len(thetas)} if thetas else means


def add_gradient(
    base: SharedBase,
    learner: Learner,
    batch: Sequence[Item],
    settings: RewardSettings,
    seed: int,
    step: int,
    run: Run,
    push: Callable[[Learner], dict[str, float]] | None = None,
) -> dict[str, float]:
    """One member's clipped gradient of a batch, in micro-batches whose gradients add up to the batch's."""
    s, head = settings, learner.member.head
    total_loss, hits, pairs = 0.0, 0.0, 0
    with base.scope(learner.member.adapter), fast_matmul():
        for part in tree.parts(base, [item.sequences for item in batch], s.tokens_per_microbatch, seed, step):
            run.check()
            few = [batch[i] for i in part]
            losses, differences = comparison_losses(
                few, score_items(base, head, few), s.label_smoothing, head.log_theta
            )
            shares = torch.tensor([item.row.weight for item in few], device=base.device)
            loss = (losses * shares).sum() / (len(batch) * learner.mean_weight)
            torch.autograd.backward(loss)
            total_loss += float(loss.detach())
            pairs_seen = zip(differences.tolist(), (pair.share for item in few for pair in item.pairs), strict=True)
            decided = [(difference, share) for difference, share in pairs_seen if share != 0.5]
            hits += sum(report.agreement(*zip(*decided, strict=True))) if decided else 0.0
            pairs += len(decided)
        told = push(learner) if push else {}
        norm = float(nn.utils.clip_grad_norm_(learner.weights, s.max_grad_norm))
    if not (math.isfinite(total_loss) and math.isfinite(norm)):
        raise NotFinite(
            f"The reward loss became {total_loss} at step {step + 1}. Lower the learning rate and start again."
        )
    return {"loss": total_loss, "accuracy": hits / pairs if pairs else math.nan, "grad_norm": norm, **told}


def score_items(base: SharedBase, head: Head, items: Sequence[Item]) -> Tensor:
    """Raw scores of all answers of the items in order, under the open scope. (answers,)"""
    return head.raw(tree.ends(base, [item.sequences for item in items]))


def comparison_losses(
    items: Sequence[Item], scores: Tensor, label_smoothing: float = 0.0, log_theta: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean loss of each comparison's pairs (comparisons,), and every pair's difference (pairs,).

    ``log_theta``: of the ties model; without it a tie is half a win for either.
    """
    losses, all_differences, start = [], [], 0
    for item in items:
        mine = scores[start : start + len(item.sequences)]
        start += len(item.sequences)
        differences = mine[[p.first for p in item.pairs]] - mine[[p.second for p in item.pairs]]
        share = torch.tensor([p.share for p in item.pairs], device=scores.device)
        if log_theta is None:
            margin = item.margin * (share != 0.5)
            losses.append(bradley_terry_loss(differences, share, margin, label_smoothing).mean())
        else:
            losses.append(ties_loss(differences, share, log_theta, label_smoothing).mean())
        all_differences.append(differences.detach())
    return torch.stack(losses), torch.cat(all_differences)


def cosine_share(step: int, total_steps: int, warmup_share: float, floor: float = 0.1) -> float:
    """Share of the learning rate: a straight rise, then a cosine down to a tenth (InstructGPT)."""
    warmup = max(1, round(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def raw_scores(
    base: SharedBase, member: Member, items: Sequence[Item], settings: RewardSettings, run: Run
) -> reward_report.Scores:
    """Per item a member's raw scores of its answers."""
    run.check()
    groups = [item.sequences for item in items]
    scores = iter(score_groups(base, member, groups, settings.tokens_per_microbatch).tolist())
    return [[next(scores) for _ in item.sequences] for item in items]


def brief(
    base: SharedBase, learners: Sequence[Learner], held_out: Sequence[Item], settings: RewardSettings, run: Run
) -> dict[str, float]:
    """One point of the learning curve, of the members' mean."""
    if not held_out:
        return {}
    raw = [raw_scores(base, learner.member, held_out, settings, run) for learner in learners]
    scores = reward_report.mean_scores(raw, [norm_of(one) for one in raw])
    judged = reward_report.judged_pairs(compared(held_out), scores)
    told = {"log_loss": round(report.log_loss(judged), 6)}
    return {**told, "accuracy": judged.accuracy().value} if judged.decided().shares else told
