"""Kahneman-Tversky optimisation: the policy learns from single answers that people called good or bad, without pairs.

Ethayarajh et al. 2024 (arXiv:2402.01306) eq. 8. The reference is the policy that training starts from. z, the KL that a
gain or a loss is measured from, is estimated as in the paper's section 4.1 and in TRL: in a batch every prompt is given
the answer of the one before it (the first that of the last), z is the mean of log(policy / reference) of these mismatched
pairs, held at 0 from below, without gradient. It is one number for the whole batch, computed before the first
micro-batch, so the cut into micro-batches does not change the loss. Batches are made once by the seed and their order is
drawn anew for each epoch; so the mismatched pairs stay, and the reference reads them and the answers once.

The paper also splits pairs into a good and a bad answer, as is done here. That says more than was judged, since a winner
need not be good nor a loser bad: the counts say how many answers rest on a comparison alone.

Left out: answers without a verdict (they are counted), a KL of answers that the policy samples (nothing holds the KL of
new answers: look at them before promoting), other losses on unpaired answers, such as APO and BCO.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backend.training import report, stepping, tree
from backend.training.answers import Written, answer_logp, groups_of, written
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import Tokens, UnpairedRow
from backend.training.draws import cycled
from backend.training.maths import kto_loss, mismatched_kl, sum_over
from backend.training.on_policy import ADAPTER
from backend.training.precision import fast_matmul
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import KTOSettings
from backend.training.shared_base import SharedBase

# Weight of desirable over undesirable answers, least and most, as in the paper's first version and TRL's documentation.
ADVISED = (1.0, 4 / 3)


class Item(NamedTuple):
    """One answer with its verdict, ready for the model."""

    case: Any
    split: str
    is_desirable: bool
    weight: float
    text: Written


class Batch(NamedTuple):
    """The answers of one step, and each prompt with the answer of the one before it."""

    items: list[Item]
    mismatched: list[Written]


class Sums(NamedTuple):
    """Log-probabilities of whole answers. Both (answers,)."""

    matched: Tensor
    mismatched: Tensor


class Pairs(NamedTuple):
    """Each desirable answer of a case beside each undesirable one of it: places among the items, and the case."""

    desirable: list[int]
    undesirable: list[int]
    cases: list[Hashable]


def train(
    base: SharedBase, rows: Sequence[UnpairedRow], settings: KTOSettings, seed: int, run: Run, saves: Checkpoints = NONE
) -> dict[str, Any]:
    """Trains the adapter "policy", which must be on the base; the report. Held out are the splits val and test."""
    s = settings
    # 1. data, and what the reference says of it
    items, counts = encode(base, rows, s)
    training = [item for item in items if item.split == "train"]
    held_out = [item for item in items if item.split != "train"]
    check_enough(training, s)
    tree.trust(base, ADAPTER, groups_of(texts_of(items)), run)
    batches = batches_of(base, training, s, seed)
    known, held_reference = references(base, batches, held_out, s, run, saves)

    # 2. what is trained
    weights = base.weights(ADAPTER)
    optimizer = stepping.adamw(weights, s.learning_rate)
    live = Live({"policy": weights}, optimizer)
    first, facts = saves.resume(live)
    curve: list[dict[str, Any]] = facts.get("curve", [])
    total_steps = len(batches) * s.num_train_epochs
    mean_weight = math.fsum(item.weight for item in training) / len(training)
    if first == 0:
        say_balance(training, s, run)

    # 3. loop
    for step in range(first, total_steps):
        (chosen,) = cycled(len(batches), step, 1, seed, "order of batches")
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * (1 - step / total_steps)
        measured = update(base, batches[chosen], known[chosen], optimizer, weights, mean_weight, s, seed, step, run)
        is_last = (step + 1) % len(batches) == 0
        if is_last and pairs_of(held_out).cases:
            rewards = implicit_rewards(base, held_out, held_reference, s, run)
            measured["held_out/accuracy"] = separation(held_out, rewards).value
        curve.append({"step": step + 1, **{name: round(value, 6) for name, value in measured.items()}})
        run.metrics(step + 1, total_steps, measured)
        saves.keep(step + 1, live, {"curve": curve}, now=is_last)

    # 4. what it is worth
    trained = [item for batch in batches for item in batch.items]
    was = torch.cat([sums.matched for sums in known])
    return {
        "sizes": {**sizes("train", training), **sizes("held_out", held_out)},
        "counts": dict(counts),
        "balance": round(balance(training, s), 6),
        "steps": total_steps,
        "curve": curve,
        "train_accuracy": separation(trained, implicit_rewards(base, trained, was, s, run)).as_dict(),
        **worth(training, held_out, implicit_rewards(base, held_out, held_reference, s, run), seed),
    }


def encode(base: SharedBase, rows: Sequence[UnpairedRow], settings: KTOSettings) -> tuple[list[Item], Counter[str]]:
    """Answers as token ids; the counter says what each verdict rests on and what was cut, dropped or left open."""
    tokens = Tokens(base.tokenizer, min(settings.max_length, base.longest))
    items: list[Item] = []
    for row in rows:
        tokens.counts["contradicted"] += row.is_contradicted
        if row.is_desirable is None:
            tokens.counts["undecided"] += 1
            continue
        texts = written(tokens, tokens.prefix(row.messages), [tokens.answer(row.answer.text, row.answer.has_ended)])
        if texts is None:
            tokens.counts["answers_dropped"] += 1
            continue
        tokens.counts[row.source] += 1
        items.append(Item(row.case, row.split, row.is_desirable, row.weight, texts[0]))
    return items, tokens.counts


def sizes(split: str, items: Sequence[Item]) -> dict[str, int]:
    desirable = sum(item.is_desirable for item in items)
    return {f"{split}_desirable": desirable, f"{split}_undesirable": len(items) - desirable}


def check_enough(training: Sequence[Item], settings: KTOSettings) -> None:
    good, bad = sizes("train", training).values()
    if min(good, bad) < settings.min_of_each:
        raise TooFewRows(
            f"A KTO job needs {settings.min_of_each} desirable and as many undesirable answers in the split 'train'; "
            f"there are {good} and {bad}. Label more, or lower 'Fewest answers of each kind'."
        )


def balance(training: Sequence[Item], settings: KTOSettings) -> float:
    """The weight of all desirable answers over that of all undesirable ones."""
    good = math.fsum(item.weight for item in training if item.is_desirable)
    bad = math.fsum(item.weight for item in training if not item.is_desirable)
    return settings.desirable_weight * good / (settings.undesirable_weight * bad)


def say_balance(training: Sequence[Item], settings: KTOSettings, run: Run) -> None:
    """A message when the two kinds do not weigh what the paper advises, with the weights that would."""
    found, (low, high) = balance(training, settings), ADVISED
    if not low - 1e-6 <= found <= high + 1e-6:
        least, most = (settings.desirable_weight * edge / found for edge in ADVISED)
        run.message(
            f"The desirable answers weigh {found:.2f} times what the undesirable ones weigh; 1 to 1.33 times is advised. "
            f"Set 'Weight of desirable answers' between {least:.2g} and {most:.2g}."
        )


def batches_of(base: SharedBase, training: Sequence[Item], settings: KTOSettings, seed: int) -> list[Batch]:
    """The training answers, shuffled and cut. One left over alone joins the last batch: alone it has no mismatched pair."""
    size, count = settings.batch_size, len(training)
    number = math.ceil(count / size) - (count % size == 1 and count > size)
    order = cycled(count, 0, count, seed, "batches")
    longest = min(settings.max_length, base.longest)
    found = []
    for place in range(number):
        end = count if place == number - 1 else (place + 1) * size
        items = [training[i] for i in order[place * size : end]]
        found.append(Batch(items, mismatched(texts_of(items), longest)))
    return found


def mismatched(texts: Sequence[Written], longest: int) -> list[Written]:
    """Each prompt with the answer of the text before it, the first with that of the last; a prompt too long for it loses
    its front, as it would with an answer of its own."""
    answers = [texts[place - 1].answer for place in range(len(texts))]
    return [Written(one.prefix[-(longest - len(answer)) :], answer) for one, answer in zip(texts, answers, strict=True)]


def texts_of(items: Sequence[Item]) -> list[Written]:
    return [item.text for item in items]


@torch.no_grad()
def log_sums(base: SharedBase, texts: Sequence[Written], settings: KTOSettings, run: Run) -> Tensor:
    """Log-probabilities of the answers under the policy as it is now. (answers,)"""
    found = torch.zeros(len(texts), device=base.device)
    with base.scope(ADAPTER), fast_matmul():
        for part in tree.parts(base, groups_of(texts), settings.tokens_per_microbatch, 0, 0):
            run.check()
            found[part] = sum_over(*answer_logp(base, [texts[i] for i in part]))
    return found


def references(
    base: SharedBase,
    batches: Sequence[Batch],
    held_out: Sequence[Item],
    settings: KTOSettings,
    run: Run,
    saves: Checkpoints,
) -> tuple[list[Sums], Tensor]:
    """What the policy says before it is trained, of every batch and of what is held out, computed once in a job's life."""

    def make() -> dict[str, Tensor]:
        found = {"held_out": log_sums(base, texts_of(held_out), settings, run)}
        for place, batch in enumerate(batches):
            found[f"{place}.matched"] = log_sums(base, texts_of(batch.items), settings, run)
            found[f"{place}.mismatched"] = log_sums(base, batch.mismatched, settings, run)
        return found

    kept = {name: sums.to(base.device) for name, sums in saves.once("reference", make).items()}
    known = [Sums(kept[f"{place}.matched"], kept[f"{place}.mismatched"]) for place in range(len(batches))]
    return known, kept["held_out"]


def update(
    base: SharedBase,
    batch: Batch,
    reference: Sums,
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    mean_weight: float,
    settings: KTOSettings,
    seed: int,
    step: int,
    run: Run,
) -> dict[str, float]:
    """One optimizer step on a batch, in micro-batches whose gradients add up to the batch's; TRL's names."""
    s, texts = settings, texts_of(batch.items)
    kl = mismatched_kl(log_sums(base, batch.mismatched, s, run) - reference.mismatched)
    is_desirable = torch.tensor([item.is_desirable for item in batch.items], device=base.device)
    shares = torch.tensor([item.weight for item in batch.items], device=base.device) / (len(texts) * mean_weight)
    loss_sum, logp = 0.0, torch.zeros(len(texts), device=base.device)
    optimizer.zero_grad()
    with base.scope(ADAPTER), fast_matmul():
        for part in tree.parts(base, groups_of(texts), s.tokens_per_microbatch, seed, step):
            run.check()
            now = sum_over(*answer_logp(base, [texts[i] for i in part]))
            ratios = now - reference.matched[part]
            losses = kto_loss(ratios, is_desirable[part], kl, s.beta, s.desirable_weight, s.undesirable_weight)
            loss = (losses * shares[part]).sum()
            torch.autograd.backward(loss)
            loss_sum += float(loss.detach())
            logp[part] = now.detach()
        norm = float(nn.utils.clip_grad_norm_(weights, s.max_grad_norm))
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise NotFinite(f"The KTO loss became {loss_sum} at step {step + 1}. Lower the learning rate.")
        optimizer.step()
    told = of_each(logp, s.beta * (logp - reference.matched), is_desirable)
    return {"loss": loss_sum, "kl": float(kl), **told, "grad_norm": norm}


def of_each(logp: Tensor, rewards: Tensor, is_desirable: Tensor) -> dict[str, float]:
    """Mean implicit reward and log-probability of either kind, under TRL's names; a batch may lack one. All (answers,)."""
    told = {}
    for name, where in (("chosen", is_desirable), ("rejected", ~is_desirable)):
        if bool(where.any()):
            told[f"rewards/{name}"] = float(rewards[where].mean())
            told[f"logps/{name}"] = float(logp[where].mean())
    if "rewards/chosen" in told and "rewards/rejected" in told:
        told["rewards/margins"] = told["rewards/chosen"] - told["rewards/rejected"]
    return told


def implicit_rewards(
    base: SharedBase, items: Sequence[Item], reference: Tensor, settings: KTOSettings, run: Run
) -> list[float]:
    """beta * log(policy / reference) of each answer."""
    now = log_sums(base, texts_of(items), settings, run)
    rewards: list[float] = (settings.beta * (now - reference)).cpu().tolist()
    return rewards


def pairs_of(items: Sequence[Item]) -> Pairs:
    """Within one case alone: an easy case would make all of its answers likelier. Demonstrations have none."""
    by_case: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for place, item in enumerate(items):
        if item.case is not None:
            by_case[item.case][not item.is_desirable].append(place)
    found = Pairs([], [], [])
    for case, (desirable, undesirable) in by_case.items():
        for good, bad in product(desirable, undesirable):
            found.desirable.append(good)
            found.undesirable.append(bad)
            found.cases.append(case)
    return found


def differences(pairs: Pairs, values: Sequence[float]) -> list[float]:
    """Of each pair, the desirable answer's value less the undesirable one's."""
    return [values[good] - values[bad] for good, bad in zip(pairs.desirable, pairs.undesirable, strict=True)]


def separation(items: Sequence[Item], rewards: Sequence[float]) -> report.Interval:
    """Share of the pairs whose desirable answer has the larger implicit reward, equal ones half: the area under the ROC
    curve within cases."""
    pairs = pairs_of(items)
    return report.share(report.agreement(differences(pairs, rewards), [1.0] * len(pairs.cases)), pairs.cases)


def worth(training: Sequence[Item], held_out: Sequence[Item], rewards: Sequence[float], seed: int) -> dict[str, Any]:
    """How well held-out answers are told apart, and by how much, beside what answer length alone reaches.

    ``desirable_reward``: below 0 the good answers have become less likely too, which no figure on differences shows; the
    verdict is then ``less_likely`` however well they are told apart: the policy moved to answers nobody judged. These may
    still be better, so it is a reason to read some, not to throw the policy away.
    """
    pairs, learnt = pairs_of(held_out), pairs_of(training)
    if not pairs.cases:
        return {"n": 0, "accuracy": None, "baselines": {}, "verdict": "no_held_out"}
    found = separation(held_out, rewards)
    lengths = [
        differences(some, [float(len(item.text.answer)) for item in items])
        for some, items in ((learnt, training), (pairs, held_out))
    ]
    won = [[1.0] * len(some) for some in lengths]
    names = ("longer wins", "shorter wins")
    length = report.fitted_baseline((lengths[0], won[0]), (lengths[1], won[1]), pairs.cases, names)
    by_case = report.by_group(differences(pairs, rewards), pairs.cases)
    good = [place for place, item in enumerate(held_out) if item.is_desirable]
    by_case_of_good = report.by_group([rewards[place] for place in good], [held_out[place].case for place in good])
    liked = report.paired_gain([0.0] * len(by_case_of_good), by_case_of_good, seed)
    is_apart = found.low > max(0.5, length["value"])
    return {
        "n": len(pairs.cases),
        "accuracy": found.as_dict(),
        "margin": report.paired_gain([0.0] * len(by_case), by_case, seed).as_dict(),
        "desirable_reward": liked.as_dict(),
        "baselines": {"length": length},
        "verdict": "near_chance" if not is_apart else "less_likely" if liked.high < 0 else "usable",
    }
