"""Continued pretraining: an adapter learns the language of plain texts, by the objective of the base's own family.

Gururangan et al. 2020 (arXiv:2004.10964): more pretraining on texts of the task's domain, before the task is learnt. What is
predicted, and of whom that is, stands in objectives.py. The loss is the mean over the predicted tokens of the whole batch.
A text longer than the base can read is cut into pieces, none of which is lost, and what is hidden in a piece is drawn anew
at every step.

Left out: packing of several texts into one row (a text is read by itself, so nothing leaks from one into another), the
next-sentence task of BERT, XLNet's memory of the piece before.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from backend.training import report, stepping, tree
from backend.training.checkpoint import NONE, Checkpoints, Live
from backend.training.data import TextRow
from backend.training.draws import cycled, generator
from backend.training.maths import sft_loss, sum_over
from backend.training.objectives import NAMES, Kit, Question, ask, kit_of, question_logp
from backend.training.on_policy import ADAPTER
from backend.training.precision import fast_matmul
from backend.training.reward import cosine_share
from backend.training.run import NotFinite, Run, TooFewRows
from backend.training.settings import PretrainSettings
from backend.training.shared_base import SharedBase

SHORTEST = 2  # tokens; less says nothing of what follows what


class Piece(NamedTuple):
    """A text, or a part of one, as token ids."""

    row: TextRow
    tokens: list[int]


def train(
    base: SharedBase,
    rows: Sequence[TextRow],
    settings: PretrainSettings,
    seed: int,
    run: Run,
    saves: Checkpoints = NONE,
) -> dict[str, Any]:
    """Trains the adapter "policy", which must be on the base; the report. Held out are the splits val and test."""
    s = settings
    # 1. data and model
    kit = kit_of(base)
    pieces, counts = encode(base, kit, rows, s)
    training = [piece for piece in pieces if piece.row.split == "train"]
    texts = len({piece.row.document for piece in training})
    if texts < s.min_texts:
        raise TooFewRows(
            f"A pretraining job needs {s.min_texts} texts in the split 'train'; there are {texts}. "
            "Import more, or lower 'Fewest texts'."
        )
    tree.trust(base, ADAPTER, [[piece.tokens] for piece in pieces], run)
    held_out = [piece for piece in pieces if piece.row.split != "train"]
    asked = [ask(base, kit, piece.tokens, s, generator(seed, 0, f"held out {i}")) for i, piece in enumerate(held_out)]
    weights = base.weights(ADAPTER)
    optimizer = stepping.adamw(weights, s.learning_rate)
    live = Live({"policy": weights}, optimizer)
    first, facts = saves.resume(live)
    before: list[float] = facts["before"] if facts else losses(base, asked, s, run)
    curve: list[dict[str, Any]] = facts.get("curve", [])
    steps_per_epoch = math.ceil(len(training) / s.batch_size)
    total_steps = steps_per_epoch * s.num_train_epochs

    # 2. loop
    for step in range(first, total_steps):
        epoch, place = divmod(step, steps_per_epoch)
        start = epoch * len(training) + place * s.batch_size
        size = min(s.batch_size, len(training) - place * s.batch_size)
        batch = [training[i] for i in cycled(len(training), start, size, seed, "order")]
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * cosine_share(step, total_steps, s.warmup_share)
        measured = update(base, kit, batch, optimizer, weights, s, seed, step, run)
        if place == steps_per_epoch - 1 and asked:
            measured["held_out/loss"] = mean(by_text(held_out, asked, losses(base, asked, s, run)))
        curve.append({"step": step + 1, **{name: round(value, 6) for name, value in measured.items()}})
        run.metrics(step + 1, total_steps, measured)
        saves.keep(step + 1, live, {"curve": curve, "before": before}, now=place == steps_per_epoch - 1)

    # 3. what it is worth
    after = losses(base, asked, s, run)
    return {
        "objective": NAMES[base.family],
        "n": len({piece.row.document for piece in held_out}),
        "sizes": {"train_texts": texts, "train_pieces": len(training), "held_out_pieces": len(held_out)},
        "counts": dict(counts),
        "steps": total_steps,
        "curve": curve,
        **compare(base, held_out, asked, before, after, seed),
    }


def encode(
    base: SharedBase, kit: Kit, rows: Sequence[TextRow], settings: PretrainSettings
) -> tuple[list[Piece], Counter[str]]:
    """Texts as token ids in pieces that the base can read; the counter says how many were cut, and what was too short.

    The end token follows a text, not its pieces; an encoder-decoder's encoder adds it to what it reads.
    """
    room = min(settings.max_length, base.longest) - len(kit.beginning)
    pieces: list[Piece] = []
    counts: Counter[str] = Counter()
    for row in rows:
        tokens = list(base.tokenizer(row.text, add_special_tokens=False)["input_ids"])
        if base.family != "encoder_decoder":
            tokens.append(base.end_id)
        parts = [tokens[start : start + room] for start in range(0, len(tokens), room)]
        long = [part for part in parts if sum(token not in kit.special for token in part) >= SHORTEST]
        counts["texts"] += 1
        counts["texts_cut"] += len(parts) > 1
        counts["pieces_too_short"] += len(parts) - len(long)
        counts["pieces"] += len(long)
        pieces += [Piece(row, part) for part in long]
    return pieces, counts


def update(
    base: SharedBase,
    kit: Kit,
    batch: Sequence[Piece],
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    settings: PretrainSettings,
    seed: int,
    step: int,
    run: Run,
) -> dict[str, float]:
    """One optimizer step on a batch, in micro-batches whose gradients add up to the batch's."""
    s = settings
    asked = [ask(base, kit, piece.tokens, s, generator(seed, step, f"hide {i}")) for i, piece in enumerate(batch)]
    total = sum(len(question.answer) for question in asked)
    loss_sum = 0.0
    optimizer.zero_grad()
    with base.scope(ADAPTER), fast_matmul():
        for part in parts_of(base, asked, s.tokens_per_microbatch, seed, step):
            run.check()
            loss = sft_loss(*question_logp(base, [asked[i] for i in part]), total)
            torch.autograd.backward(loss)
            loss_sum += float(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(weights, s.max_grad_norm))
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise NotFinite(f"The pretraining loss became {loss_sum} at step {step + 1}. Lower the learning rate.")
        optimizer.step()
    return {"loss": loss_sum, "grad_norm": norm}


def parts_of(base: SharedBase, asked: Sequence[Question], tokens: int, seed: int, step: int) -> list[list[int]]:
    return tree.parts(base, [[question.whole(base.family)] for question in asked], tokens, seed, step)


@torch.no_grad()
def losses(base: SharedBase, asked: Sequence[Question], settings: PretrainSettings, run: Run) -> list[float]:
    """Per question the summed loss of its answer's tokens, in nats."""
    found = torch.zeros(len(asked))
    with base.scope(ADAPTER):
        for part in parts_of(base, asked, settings.tokens_per_microbatch, 0, 0):
            run.check()
            found[part] = -sum_over(*question_logp(base, [asked[i] for i in part])).cpu()
    values: list[float] = found.tolist()
    return values


def by_text(pieces: Sequence[Piece], asked: Sequence[Question], nats: Sequence[float]) -> list[float]:
    """The mean loss per predicted token of every text: what a bootstrap may draw independently."""
    sums: dict[int, float] = {}
    tokens: dict[int, int] = {}
    for piece, question, value in zip(pieces, asked, nats, strict=True):
        document = piece.row.document
        sums[document] = sums.get(document, 0.0) + value
        tokens[document] = tokens.get(document, 0) + len(question.answer)
    return [sums[document] / tokens[document] for document in sums]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def compare(
    base: SharedBase,
    held_out: Sequence[Piece],
    asked: Sequence[Question],
    before: Sequence[float],
    after: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """The held-out loss before and after, its fall with an interval over texts; of a decoder the perplexity, which is exp
    of the mean loss of all held-out tokens."""
    if not held_out:
        return {"loss": None, "verdict": "no_held_out_texts"}
    was, now = (by_text(held_out, asked, nats) for nats in (before, after))
    fall = report.paired_gain(now, was, seed)
    found: dict[str, Any] = {
        "loss": {
            "n": len(was),
            "before": round(mean(was), 6),
            "after": round(mean(now), 6),
            "fall": fall.as_dict(),
        },
        "verdict": "loss_fell" if fall.low > 0 else "loss_not_lower",
    }
    if base.family == "decoder":
        tokens = sum(len(question.answer) for question in asked)
        found["perplexity"] = {
            "n": tokens,
            "before": round(math.exp(math.fsum(before) / tokens), 6),
            "after": round(math.exp(math.fsum(after) / tokens), 6),
        }
    return found
