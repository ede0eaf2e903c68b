"""Supervised fine-tuning: the policy learns to write the answers that people wrote, mended or preferred.

Ouyang et al. 2022 (arXiv:2203.02155) section 3.5: maximum likelihood of the answer given the prompt. The loss is read at
the answer's tokens alone, its end token included, and is a mean over the tokens of the whole batch, so that a long
answer weighs what its tokens weigh. The policy is the adapter "policy" on the frozen base.

Left out: packing of several rows into one (batches are cut by tokens from rows sorted by length instead), the loss on
prompts, noise on embeddings.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from backend.training import report, stepping, tree
from backend.training.answers import Written, answer_logp, groups_of, written
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import AnswerRow, Tokens
from backend.training.draws import cycled
from backend.training.maths import sft_loss, sum_over
from backend.training.on_policy import ADAPTER
from backend.training.precision import fast_matmul
from backend.training.reward import cosine_share
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import SFTSettings
from backend.training.shared_base import SharedBase


class Item(NamedTuple):
    """One row ready for the model."""

    row: AnswerRow
    text: Written


def train(
    base: SharedBase, rows: Sequence[AnswerRow], settings: SFTSettings, seed: int, run: Run, saves: Checkpoints = NONE
) -> dict[str, Any]:
    """Trains the adapter "policy", which must be on the base; the report. Held out are the splits val and test."""
    s = settings
    # 1. data and model
    items, counts = encode(base, rows, s)
    training = [item for item in items if item.row.split == "train"]
    held_out = [item for item in items if item.row.split != "train"]
    if len(training) < s.min_answers:
        raise TooFewRows(
            f"An SFT job needs {s.min_answers} answers to learn from in the split 'train'; there are {len(training)}. "
            "Label more, write demonstrations, or lower 'Fewest answers'."
        )
    tree.trust(base, ADAPTER, groups_of([item.text for item in items]), run)
    weights = base.weights(ADAPTER)
    optimizer = stepping.adamw(weights, s.learning_rate)
    live = Live({"policy": weights}, optimizer)
    first, facts = saves.resume(live)
    before: list[float] = facts.get("before") or losses(base, held_out, s, run)
    curve: list[dict[str, Any]] = facts.get("curve", [])
    steps_per_epoch = math.ceil(len(training) / s.batch_size)
    total_steps = steps_per_epoch * s.num_train_epochs

    # 2. loop
    for step in range(first, total_steps):
        epoch, place = divmod(step, steps_per_epoch)
        start = epoch * len(training) + place * s.batch_size
        size = min(s.batch_size, len(training) - place * s.batch_size)
        batch = [training[i].text for i in cycled(len(training), start, size, seed, "order")]
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * cosine_share(step, total_steps, s.warmup_share)
        measured = update(base, batch, optimizer, weights, s, seed, step, run)
        if place == steps_per_epoch - 1 and held_out:
            measured["held_out/loss"] = mean(losses(base, held_out, s, run))
        curve.append({"step": step + 1, **{name: round(value, 6) for name, value in measured.items()}})
        run.metrics(step + 1, total_steps, measured)
        saves.keep(step + 1, live, {"curve": curve, "before": before}, now=place == steps_per_epoch - 1)

    # 3. what it is worth
    after = losses(base, held_out, s, run)
    return {
        "n": len(held_out),
        "sizes": {"train_answers": len(training), "held_out_answers": len(held_out)},
        "counts": dict(counts),
        "steps": total_steps,
        "curve": curve,
        **compare(held_out, before, after, seed),
    }


def encode(base: SharedBase, rows: Sequence[AnswerRow], settings: SFTSettings) -> tuple[list[Item], Counter[str]]:
    """Rows as token ids; the counter says where they come from and what was cut, dropped or repeated.

    An answer that the same prompt already has is left out: it would weigh double for having been compared twice.
    """
    tokens = Tokens(base.tokenizer, min(settings.max_length, base.longest))
    items: list[Item] = []
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for row in rows:
        texts = written(tokens, tokens.prefix(row.messages), [tokens.answer(row.answer.text, row.answer.has_ended)])
        if texts is None:
            tokens.counts["answers_dropped"] += 1
        elif (key := (tuple(texts[0].prefix), tuple(texts[0].answer))) in seen:
            tokens.counts["repeats"] += 1
        else:
            seen.add(key)
            tokens.counts[row.source] += 1
            items.append(Item(row, texts[0]))
    return items, tokens.counts


def update(
    base: SharedBase,
    batch: Sequence[Written],
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    settings: SFTSettings,
    seed: int,
    step: int,
    run: Run,
) -> dict[str, float]:
    """One optimizer step on a batch, in micro-batches whose gradients add up to the batch's."""
    s = settings
    total = sum(len(one.answer) for one in batch)
    loss_sum = 0.0
    optimizer.zero_grad()
    with base.scope(ADAPTER), fast_matmul():
        for part in tree.parts(base, groups_of(batch), s.tokens_per_microbatch, seed, step):
            run.check()
            loss = sft_loss(*answer_logp(base, [batch[i] for i in part]), total)
            torch.autograd.backward(loss)
            loss_sum += float(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(weights, s.max_grad_norm))
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise NotFinite(f"The SFT loss became {loss_sum} at step {step + 1}. Lower the learning rate.")
        optimizer.step()
    return {"loss": loss_sum, "grad_norm": norm}


@torch.no_grad()
def losses(base: SharedBase, items: Sequence[Item], settings: SFTSettings, run: Run) -> list[float]:
    """Per item the mean loss of its answer's tokens, in nats per token."""
    found = torch.zeros(len(items))
    with base.scope(ADAPTER):
        for part in tree.parts(base, groups_of([i.text for i in items]), settings.tokens_per_microbatch, 0, 0):
            run.check()
            logp, is_answer = answer_logp(base, [items[i].text for i in part])
            found[part] = (-sum_over(logp, is_answer) / is_answer.sum(1)).cpu()
    values: list[float] = found.tolist()
    return values


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def compare(held_out: Sequence[Item], before: Sequence[float], after: Sequence[float], seed: int) -> dict[str, Any]:
    """The held-out loss before and after, and its fall with an interval over cases: answers to one case are alike."""
    if not held_out:
        return {"loss": None, "verdict": "no_held_out_answers"}
    cases = [item.row.case for item in held_out]
    fall = report.paired_gain(report.by_group(after, cases), report.by_group(before, cases), seed)
    return {
        "loss": {
            "n": len(held_out),
            "before": round(mean(before), 6),
            "after": round(mean(after), 6),
            "fall": fall.as_dict(),
        },
        "verdict": "loss_fell" if fall.low > 0 else "loss_not_lower",
    }
