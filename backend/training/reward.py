"""Reward model: Bradley-Terry on a LoRA adapter with a scalar head on the frozen base.

Bradley & Terry 1952; Ouyang et al. 2022 (arXiv:2203.02155) eq. 1: per comparison the mean over its C(K, 2) pairs of
-[q log sigma(d - m) + (1 - q) log sigma(-d - m)], d the difference of the two scores, q 1 for a win and .5 for a tie,
m the margin asked of strong preferences. The score is read at the last token, which is the end token if the answer
ended, so an answer without its end scores differently. The head is drawn from N(0, 1/sqrt(D + 1)) (Stiennon et al. 2020).

The answers of a comparison share a tree row where the base allows it (tree.py): the case is read once. Before training,
a linear probe (probe.py) says what the bare base already knows.

Left out: ensembles, the ties model of Rao & Kupper.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend.registry.artifacts import BadArtifact
from backend.training import probe, report, tree
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import ComparisonRow, Pair, Tokens, pairs_of
from backend.training.draws import cycled, generator
from backend.training.maths import bradley_terry_loss
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import RewardSettings
from backend.training.shared_base import Shape, SharedBase, fast_matmul

ADAPTER = "reward"
HEAD = "head.safetensors"


class Head(nn.Module):
    """score = gain * (weight . state - bias); bias and gain make held-out scores mean 0, deviation 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.bias: Tensor
        self.gain: Tensor
        self.register_buffer("bias", torch.zeros(1))
        self.register_buffer("gain", torch.ones(1))

    def raw(self, states: Tensor) -> Tensor:
        """(B, D) -> (B,) in fp32."""
        return states.float() @ self.weight[0]

    def forward(self, states: Tensor) -> Tensor:
        return self.gain * (self.raw(states) - self.bias)


class Item(NamedTuple):
    """One comparison ready for the model."""

    row: ComparisonRow
    sequences: list[list[int]]  # one per answer
    pairs: list[Pair]
    margin: float


Push = Callable[[Head, int, int], dict[str, float]]
"""What else pulls at the weights: (head, step, steps per epoch) -> statistics. It runs backward under the open scope."""


class Trained(NamedTuple):
    head: Head
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
    """Adds the adapter "reward" to the base and trains it. Held out are the splits val and test.

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
    if start is None:
        base.add(ADAPTER, Shape(s.lora_r, s.lora_alpha), seed)
    else:
        base.load(ADAPTER, start)
    tree.trust(base, ADAPTER, [item.sequences for item in items], run)
    probed = probe.compare(
        features or probe.Features(base, ""), compared(training), compared(held_out), s.tokens_per_microbatch, run
    )
    head = new_head(base, seed)
    weights = [*base.weights(ADAPTER), head.weight]
    optimizer = torch.optim.AdamW(weights, lr=s.learning_rate, weight_decay=0.0, eps=1e-8)
    steps_per_epoch = math.ceil(len(training) / s.batch_size)
    total_steps = steps_per_epoch * s.num_train_epochs
    mean_weight = sum(item.row.weight for item in training) / len(training)

    # 3. loop
    def look(epochs: int) -> None:
        curve.append({"epoch": epochs, **brief(base, head, held_out, s, run)})
        told = {f"held_out/{k}": v for k, v in curve[-1].items() if k != "epoch"}
        run.metrics(epochs * steps_per_epoch, total_steps, told)

    live = Live({"reward": base.weights(ADAPTER), "head": [head.weight]}, optimizer)
    first, facts = saves.resume(live)
    curve: list[dict[str, Any]] = facts.get("curve", [])
    if len(curve) < first // steps_per_epoch:  # interrupted while it looked
        look(first // steps_per_epoch)
    for step in range(first, total_steps):
        epoch, place = divmod(step, steps_per_epoch)
        size = min(s.batch_size, len(training) - place * s.batch_size)
        batch = [
            training[i]
            for i in cycled(len(training), epoch * len(training) + place * s.batch_size, size, seed, "order")
        ]
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * cosine_share(step, total_steps, s.warmup_share)
        pushes = (lambda step=step: push(head, step, steps_per_epoch)) if push else None
        measured = update(base, head, batch, optimizer, weights, mean_weight, s, seed, step, run, pushes)
        run.metrics(step + 1, total_steps, {**measured, "epoch": epoch + (place + 1) / steps_per_epoch})
        is_epoch_end = place == steps_per_epoch - 1
        saves.keep(step + 1, live, {"curve": curve}, now=is_epoch_end)
        if is_epoch_end:
            look(epoch + 1)

    # 4. zero mean, unit variance, and what the model is worth
    run.check()
    scores = {True: raw_scores(base, head, held_out, s, run), False: raw_scores(base, head, training, s, run)}
    normalise(head, scores[bool(held_out)])
    found = full_report(training, held_out, scores[False], scores[True])
    told = {**found, "counts": dict(counts), "curve": curve, "steps": total_steps, "probe": probed}
    return Trained(head, told, [scored(item, mine) for item, mine in zip(held_out, scores[True], strict=True)])


def scored(item: Item, scores: Sequence[float]) -> dict[str, Any]:
    """A held-out comparison and what the reward model says of its answers, in raw scores."""
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
        items.append(Item(row, sequences, pairs, settings.strength_margin * (row.strength or 0.0)))
    return items, tokens.counts


def compared(items: Sequence[Item]) -> list[probe.Compared]:
    return [probe.Compared(item.sequences, item.pairs, item.row.weight, item.row.case) for item in items]


def new_head(base: SharedBase, seed: int) -> Head:
    head = Head(base.width)
    nn.init.normal_(head.weight, std=1 / math.sqrt(base.width + 1), generator=generator(seed, 0, "head"))
    return head.to(base.device)


def update(
    base: SharedBase,
    head: Head,
    batch: Sequence[Item],
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    mean_weight: float,
    settings: RewardSettings,
    seed: int,
    step: int,
    run: Run,
    push: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """One optimizer step on a batch, in micro-batches whose gradients add up to the batch's, and on what else pushes."""
    s = settings
    optimizer.zero_grad()
    total_loss, hits, pairs = 0.0, 0.0, 0
    with base.scope(ADAPTER), fast_matmul():
        for part in tree.parts(base, [item.sequences for item in batch], s.tokens_per_microbatch, seed, step):
            run.check()
            few = [batch[i] for i in part]
            losses, differences = comparison_losses(few, score_items(base, head, few))
            shares = torch.tensor([item.row.weight for item in few], device=base.device)
            loss = (losses * shares).sum() / (len(batch) * mean_weight)
            torch.autograd.backward(loss)
            total_loss += float(loss.detach())
            pairs_seen = zip(differences.tolist(), (pair.share for item in few for pair in item.pairs), strict=True)
            decided = [(difference, share) for difference, share in pairs_seen if share != 0.5]
            hits += sum(report.agreement(*zip(*decided, strict=True))) if decided else 0.0
            pairs += len(decided)
        told = push() if push else {}
        norm = float(nn.utils.clip_grad_norm_(weights, s.max_grad_norm))
        if not (math.isfinite(total_loss) and math.isfinite(norm)):
            raise NotFinite(
                f"The reward loss became {total_loss} at step {step + 1}. Lower the learning rate and start again."
            )
        optimizer.step()
    return {"loss": total_loss, "accuracy": hits / pairs if pairs else math.nan, "grad_norm": norm, **told}


def score_items(base: SharedBase, head: Head, items: Sequence[Item]) -> Tensor:
    """Raw scores of all answers of the items in order, under the open scope. (answers,)"""
    return head.raw(tree.ends(base, [item.sequences for item in items]))


def comparison_losses(items: Sequence[Item], scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of each comparison's pairs (comparisons,), and every pair's difference (pairs,)."""
    losses, all_differences, start = [], [], 0
    for item in items:
        mine = scores[start : start + len(item.sequences)]
        start += len(item.sequences)
        differences = mine[[p.first for p in item.pairs]] - mine[[p.second for p in item.pairs]]
        share = torch.tensor([p.share for p in item.pairs], device=scores.device)
        margin = item.margin * (share != 0.5)
        losses.append(bradley_terry_loss(differences, share, margin).mean())
        all_differences.append(differences.detach())
    return torch.stack(losses), torch.cat(all_differences)


def cosine_share(step: int, total_steps: int, warmup_share: float, floor: float = 0.1) -> float:
    """Share of the learning rate: a straight rise, then a cosine down to a tenth (InstructGPT)."""
    warmup = max(1, round(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def score_sequences(
    base: SharedBase, head: Head, sequences: Sequence[Sequence[int]], tokens: int, adapter: str = ADAPTER
) -> Tensor:
    """Raw scores of token sequences in their order, on the CPU; neighbours that begin alike are read together. (N,)"""
    groups = tree.neighbours(sequences, tokens) if base.reads_trees else [[sequence] for sequence in sequences]
    return score_groups(base, head, groups, tokens, adapter)


@torch.no_grad()
def score_groups(
    base: SharedBase, head: Head, groups: Sequence[tree.Group], tokens: int, adapter: str = ADAPTER
) -> Tensor:
    """Raw scores of the sequences of groups that begin alike, group by group, on the CPU. (N,)"""
    starts = [0, *accumulate(len(group) for group in groups)]
    scores = torch.zeros(starts[-1])
    with base.scope(adapter):
        for part in tree.parts(base, groups, tokens, seed=0, step=0):
            places = [place for i in part for place in range(starts[i], starts[i + 1])]
            scores[places] = head.raw(tree.ends(base, [groups[i] for i in part])).cpu()
    return scores


def raw_scores(
    base: SharedBase, head: Head, items: Sequence[Item], settings: RewardSettings, run: Run
) -> list[list[float]]:
    """Per item the raw scores of its answers."""
    run.check()
    groups = [item.sequences for item in items]
    scores = iter(score_groups(base, head, groups, settings.tokens_per_microbatch).tolist())
    return [[next(scores) for _ in item.sequences] for item in items]


def normalise(head: Head, scores: Sequence[Sequence[float]]) -> None:
    """Bias and gain from the scores given: held-out ones, or the training ones when nothing is held out."""
    flat = torch.tensor([score for row in scores for score in row], dtype=torch.float64)
    head.bias.fill_(float(flat.mean()))
    head.gain.fill_(1 / max(float(flat.std()) if len(flat) > 1 else 1.0, 1e-6))


def judged_pairs(items: Sequence[Item], scores: Sequence[Sequence[float]]) -> report.Judged:
    out = report.Judged([], [], [])
    for item, mine in zip(items, scores, strict=True):
        for pair in item.pairs:
            out.differences.append(mine[pair.first] - mine[pair.second])
            out.shares.append(pair.share)
            out.cases.append(item.row.case)
    return out


def brief(
    base: SharedBase, head: Head, held_out: Sequence[Item], settings: RewardSettings, run: Run
) -> dict[str, float]:
    """One point of the learning curve."""
    if not held_out:
        return {}
    judged = judged_pairs(held_out, raw_scores(base, head, held_out, settings, run))
    told = {"log_loss": round(report.log_loss(judged), 6)}
    return {**told, "accuracy": judged.accuracy().value} if judged.decided().shares else told


def full_report(
    training: Sequence[Item],
    held_out: Sequence[Item],
    training_scores: list[list[float]],
    held_scores: list[list[float]],
) -> dict[str, Any]:
    """Held-out accuracy with its interval, beside baselines that read no words at all."""
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


def save(base: SharedBase, head: Head, folder: Path) -> None:
    base.save(ADAPTER, folder)
    state = {name: value.detach().float().cpu().contiguous() for name, value in head.state_dict().items()}
    save_file(state, folder / HEAD, metadata={"format": "pt"})


def load(base: SharedBase, folder: Path, adapter: str = ADAPTER) -> Head:
    """Adapter and head of a verified reward model; refuses a folder that is none."""
    if not (folder / HEAD).is_file():
        raise BadArtifact(f"The model {folder.name} has no {HEAD}: it is not a reward model. Choose another.")
    state = load_file(folder / HEAD)
    head = Head(base.width)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in head.state_dict().items()}:
        raise BadArtifact(f"The model {folder.name}: {HEAD} does not fit the base. Use its own base.")
    if not all(torch.isfinite(v).all() for v in state.values()) or not bool(state["weight"].any()):
        raise BadArtifact(f"The model {folder.name}: {HEAD} is empty or not finite. Train it again.")
    head.load_state_dict(state)
    base.load(adapter, folder)
    return head.requires_grad_(False).to(base.device)
