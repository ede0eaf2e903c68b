"""Direct preference optimisation: the policy learns from judged pairs without a reward model.

Rafailov et al. 2023 (arXiv:2305.18290) eq. 7 (``loss_type`` sigmoid), with label smoothing if asked; Azar et al. 2023
(arXiv:2310.12036) eq. 17 (``loss_type`` ipo), per token as TRL has it. The reference is the policy that training starts
from: its log-probabilities are computed once, before the first step, and kept. The implicit reward of an answer is
beta * log(policy / reference).

Left out: sampling during training (nothing holds the KL of new answers: look at them before promoting), ties (a tie has
no winner; they are counted), pairs of answers to different prompts (the better prompt would be learnt as the better
answer; they are counted).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import report, stepping, tree
from backend.training.answers import Written, answer_logp, groups_of, written
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import ComparisonRow, Tokens, pairs_of
from backend.training.draws import cycled
from backend.training.maths import dpo_loss, ipo_loss, sum_over
from backend.training.on_policy import ADAPTER
from backend.training.precision import fast_matmul
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import DPOSettings
from backend.training.shared_base import SharedBase


class Item(NamedTuple):
    """One pair with a winner, ready for the model. The pairs of one judgement share its weight."""

    case: Any
    split: str
    weight: float
    chosen: Written
    rejected: Written
    share: float = 1.0  # how probably the chosen answer is the better one, above a half


class Sums(NamedTuple):
    """Log-probabilities of whole answers. Both (pairs,)."""

    chosen: Tensor
    rejected: Tensor


def train(
    base: SharedBase,
    rows: Sequence[ComparisonRow],
    settings: DPOSettings,
    seed: int,
    run: Run,
    saves: Checkpoints = NONE,
) -> dict[str, Any]:
    """Trains the adapter "policy", which must be on the base; the report. Held out are the splits val and test."""
    s = settings
    # 1. data, and what the reference says of it
    items, counts = encode(base, rows, s)
    training = [item for item in items if item.split == "train"]
    held_out = [item for item in items if item.split != "train"]
    if len(training) < s.min_pairs:
        raise TooFewRows(
            f"A DPO job needs {s.min_pairs} pairs with a winner in the split 'train', both answers to one prompt; "
            f"there are {len(training)}. Label more, or lower 'Fewest pairs'."
        )
    tree.trust(base, ADAPTER, groups_of(answers_of(items), 2), run)
    reference, held_reference = references(base, training, held_out, s, run, saves)

    # 2. what is trained
    weights = base.weights(ADAPTER)
    optimizer = stepping.adamw(weights, s.learning_rate)
    live = Live({"policy": weights}, optimizer)
    first, facts = saves.resume(live)
    curve: list[dict[str, Any]] = facts.get("curve", [])
    steps_per_epoch = math.ceil(len(training) / s.batch_size)
    total_steps = steps_per_epoch * s.num_train_epochs
    mean_weight = sum(item.weight for item in training) / len(training)

    # 3. loop
    for step in range(first, total_steps):
        epoch, place = divmod(step, steps_per_epoch)
        start = epoch * len(training) + place * s.batch_size
        size = min(s.batch_size, len(training) - place * s.batch_size)
        chosen = cycled(len(training), start, size, seed, "order")
        batch, known = [training[i] for i in chosen], Sums(*(sums[chosen] for sums in reference))
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * (1 - step / total_steps)
        measured = update(base, batch, known, optimizer, weights, mean_weight, s, seed, step, run)
        if place == steps_per_epoch - 1 and held_out:
            margins = implicit_margins(base, held_out, held_reference, s, run)
            measured |= {"held_out/accuracy": accuracy(margins, held_out).value, "held_out/margin": mean(margins)}
        curve.append({"step": step + 1, **{name: round(value, 6) for name, value in measured.items()}})
        run.metrics(step + 1, total_steps, measured)
        saves.keep(step + 1, live, {"curve": curve}, now=place == steps_per_epoch - 1)

    # 4. what it is worth
    return {
        "sizes": {"train_pairs": len(training), "held_out_pairs": len(held_out)},
        "counts": dict(counts),
        "steps": total_steps,
        "curve": curve,
        "train_accuracy": accuracy(implicit_margins(base, training, reference, s, run), training).as_dict(),
        **worth(training, held_out, implicit_margins(base, held_out, held_reference, s, run), seed),
    }


def encode(base: SharedBase, rows: Sequence[ComparisonRow], settings: DPOSettings) -> tuple[list[Item], Counter[str]]:
    """Pairs as token ids; the counter says what was cut, tied or dropped."""
    tokens = Tokens(base.tokenizer, min(settings.max_length, base.longest))
    items: list[Item] = []
    for row in rows:
        answers = [tokens.answer(answer.text, answer.has_ended) for answer in row.answers]
        pairs = pairs_of(row)
        tokens.counts["both_bad_without_winner"] += math.comb(len(row.ranks), 2) - len(pairs)
        tokens.counts["ties"] += sum(pair.share == 0.5 for pair in pairs)
        decided = [
            (pair.first, pair.second, pair.share) if pair.share > 0.5 else (pair.second, pair.first, 1 - pair.share)
            for pair in pairs
            if pair.share != 0.5
        ]
        alike = [one for one in decided if row.prompts[one[0]] == row.prompts[one[1]]]
        tokens.counts["pairs_across_prompts"] += len(decided) - len(alike)
        for won, lost, share in alike:
            both = written(tokens, tokens.prefix(row.prompts[won]), [answers[won], answers[lost]])
            if both is None:
                tokens.counts["pairs_dropped"] += 1
                continue
            tokens.counts["pairs"] += 1
            items.append(Item(row.case, row.split, row.weight / len(alike), both[0], both[1], share))
    return items, tokens.counts


def pair_sums(base: SharedBase, items: Sequence[Item]) -> Sums:
    """Under the open scope, both answers of every pair behind their one prompt."""
    return Sums(*sum_over(*answer_logp(base, answers_of(items), together=2)).view(-1, 2).unbind(1))


def answers_of(items: Sequence[Item]) -> list[Written]:
    """Chosen, rejected, chosen, rejected ..."""
    return [answer for item in items for answer in (item.chosen, item.rejected)]


@torch.no_grad()
def log_sums(base: SharedBase, items: Sequence[Item], settings: DPOSettings, run: Run) -> Sums:
    """The policy as it is now on all pairs."""
    found = Sums(*(torch.zeros(len(items), device=base.device) for _ in Sums._fields))
    with base.scope(ADAPTER), fast_matmul():
        for part in tree.parts(base, groups_of(answers_of(items), 2), settings.tokens_per_microbatch, 0, 0):
            run.check()
            for whole, some in zip(found, pair_sums(base, [items[i] for i in part]), strict=True):
                whole[part] = some
    return found


def references(
    base: SharedBase,
    training: Sequence[Item],
    held_out: Sequence[Item],
    settings: DPOSettings,
    run: Run,
    saves: Checkpoints,
) -> tuple[Sums, Sums]:
    """What the policy says of all pairs before it is trained, computed once in the life of a job."""

    def make() -> dict[str, Tensor]:
        learnt, held = log_sums(base, training, settings, run), log_sums(base, held_out, settings, run)
        return {"chosen": learnt.chosen, "rejected": learnt.rejected, "held_0": held.chosen, "held_1": held.rejected}

    kept = {name: sums.to(base.device) for name, sums in saves.once("reference", make).items()}
    return Sums(kept["chosen"], kept["rejected"]), Sums(kept["held_0"], kept["held_1"])


def pair_losses(ratios: Sums, items: Sequence[Item], settings: DPOSettings) -> Tensor:
    """One loss per pair. ``ratios`` are log(policy / reference) of the answers. (pairs,)

    A pair that is only probably so, with the share p, has p times its loss and 1 - p times that of the pair turned round: the
    expected loss, as conservative DPO has it (see ``dpo_loss``), each pair with a share of its own.
    """
    straight = _losses(ratios, items, settings, is_turned=False)
    if all(item.share == 1 for item in items):
        return straight
    shares = torch.tensor([item.share for item in items], device=ratios.chosen.device)
    return shares * straight + (1 - shares) * _losses(ratios, items, settings, is_turned=True)


def _losses(ratios: Sums, items: Sequence[Item], settings: DPOSettings, *, is_turned: bool) -> Tensor:
    """As if the chosen answers were better, or, turned round, the rejected ones. (pairs,)"""
    answers = [(item.rejected, item.chosen) if is_turned else (item.chosen, item.rejected) for item in items]
    better, worse = (ratios.rejected, ratios.chosen) if is_turned else (ratios.chosen, ratios.rejected)
    if settings.loss_type == "ipo":
        lengths = [torch.tensor([len(pair[at].answer) for pair in answers], device=better.device) for at in (0, 1)]
        return ipo_loss(better, worse, lengths[0], lengths[1], settings.beta)
    return dpo_loss(better, worse, settings.beta, settings.label_smoothing)


def update(
    base: SharedBase,
    batch: Sequence[Item],
    reference: Sums,
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    mean_weight: float,
    settings: DPOSettings,
    seed: int,
    step: int,
    run: Run,
) -> dict[str, float]:
    """One optimizer step on a batch, in micro-batches whose gradients add up to the batch's; TRL's names."""
    s = settings
    loss_sum, rewards = 0.0, Sums(*(torch.zeros(len(batch)) for _ in Sums._fields))
    optimizer.zero_grad()
    with base.scope(ADAPTER), fast_matmul():
        for part in tree.parts(base, groups_of(answers_of(batch), 2), s.tokens_per_microbatch, seed, step):
            run.check()
            few = [batch[i] for i in part]
            now = pair_sums(base, few)
            ratios = Sums(*(logp - known[part] for logp, known in zip(now, reference, strict=True)))
            shares = torch.tensor([item.weight for item in few], device=base.device)
            loss = (pair_losses(ratios, few, s) * shares).sum() / (len(batch) * mean_weight)
            torch.autograd.backward(loss)
            loss_sum += float(loss.detach())
            for whole, ratio in zip(rewards, ratios, strict=True):
                whole[part] = s.beta * ratio.detach().cpu()
        norm = float(nn.utils.clip_grad_norm_(weights, s.max_grad_norm))
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise NotFinite(f"The DPO loss became {loss_sum} at step {step + 1}. Lower the learning rate.")
        optimizer.step()
    margins = rewards.chosen - rewards.rejected
    return {
        "loss": loss_sum,
        "rewards/chosen": float(rewards.chosen.mean()),
        "rewards/rejected": float(rewards.rejected.mean()),
        "rewards/accuracies": mean(report.agreement(margins.tolist(), [1.0] * len(batch))),
        "rewards/margins": float(margins.mean()),
        "grad_norm": norm,
    }


def implicit_margins(
    base: SharedBase, items: Sequence[Item], reference: Sums, settings: DPOSettings, run: Run
) -> list[float]:
    """By how much each chosen answer's implicit reward is above the rejected one's."""
    now = log_sums(base, items, settings, run)
    margins: list[float] = (
        (settings.beta * ((now.chosen - reference.chosen) - (now.rejected - reference.rejected))).cpu().tolist()
    )
    return margins


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def accuracy(margins: Sequence[float], items: Sequence[Item]) -> report.Interval:
    """Share of the pairs whose chosen answer has the larger implicit reward; equal ones count half."""
    return report.share(report.agreement(margins, [1.0] * len(margins)), [item.case for item in items])


def worth(training: Sequence[Item], held_out: Sequence[Item], margins: Sequence[float], seed: int) -> dict[str, Any]:
    """Held-out accuracy and margin with their intervals, beside what answer length alone reaches."""
    found = accuracy(margins, held_out)
    if not held_out:
        return {"n": 0, "accuracy": None, "baselines": {}, "verdict": "no_held_out"}
    cases = [item.case for item in held_out]
    lengths = [[float(len(i.chosen.answer) - len(i.rejected.answer)) for i in items] for items in (training, held_out)]
    won = [[1.0] * len(differences) for differences in lengths]
    length = report.fitted_baseline((lengths[0], won[0]), (lengths[1], won[1]), cases, ("longer wins", "shorter wins"))
    by_case = report.by_group(margins, cases)
    return {
        "n": len(held_out),
        "accuracy": found.as_dict(),
        "margin": report.paired_gain([0.0] * len(by_case), by_case, seed).as_dict(),
        "baselines": {"length": length},
        "verdict": "usable" if found.low > max(0.5, length["value"]) else "near_chance",
    }
