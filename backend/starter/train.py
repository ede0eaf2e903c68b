"""Train the starter model from nothing: `python -m backend.starter.train` remakes the weights in this folder.

A plain next-token loop on documents the grammar makes as it goes. Documents are never packed together: a batch holds
documents of like length, padded at the right, so no document sees another.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from backend.starter import corpus, probes
from backend.starter.model import StarterSettings, new_model
from backend.starter.tokens import save_tokenizer, train_tokenizer

WEIGHTS = Path(__file__).parent / "weights"


class Batch(NamedTuple):
    ids: torch.Tensor  # (B, T), padded at the right
    weight: torch.Tensor  # (B, T), what the prediction of each token counts; 0 at padding and at the first token


def new_tokenizer(settings: StarterSettings) -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus.vocabulary_texts(), settings.vocabulary, settings.positions)


def pool_of_batches(
    settings: StarterSettings, tokenizer: PreTrainedTokenizerFast, pool: int, progress: float
) -> list[Batch]:
    """The batches of one pool of documents; the pool's number alone decides them, so a resumed run sees the same."""
    rng = Random(f"pool {settings.seed} {pool}")
    rendered = [corpus.render(corpus.document(rng, "train", progress)) for _ in range(settings.pool_documents)]
    rows = sorted(_encode(tokenizer, rendered, settings.positions), key=lambda row: len(row[0]))
    batches, start = [], 0
    while start < len(rows):
        end = start
        while end < len(rows) and len(rows[end][0]) * (end + 1 - start) <= settings.batch_tokens:
            end += 1
        if end - start > 1:  # a batch of one row would be compiled once more for itself
            batches.append(_padded(rows[start:end], tokenizer.pad_token_id))
        start = end
    rng.shuffle(batches)
    return batches


def weighted_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy per token, averaged with the weights. Padding stands at the right, so no attention mask is needed."""
    logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1]  # (B, T-1, V)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.ids[:, 1:].flatten(), reduction="none")
    weight = batch.weight[:, 1:].flatten()
    return (loss * weight).sum() / weight.sum()


def train(
    settings: StarterSettings, out: Path, minutes: float | None = None, resume: bool = False, quiet: bool = False
) -> PreTrainedModel:
    """The loop. With minutes, the length of the run follows the clock and is no longer the same on every machine."""
    torch.set_num_threads(settings.threads)
    tokenizer = new_tokenizer(settings)
    model = new_model(settings, tokenizer)
    optimizers = _optimizers(model, settings)
    state: dict[str, Any] = {"step": 0, "pool": 0, "tokens": 0, "seconds": 0.0}
    if resume and (out / "checkpoint.pt").exists():
        state = _load(out / "checkpoint.pt", model, optimizers)
    started, saved = time.monotonic() - state["seconds"], time.monotonic()
    model.train()
    stepped = torch.compile(model, dynamic=True) if settings.compiled else model
    progress = 0.0
    while progress < 1.0:
        # 1. a pool of documents, at the curriculum's present stage
        for batch in pool_of_batches(
            settings, tokenizer, state["pool"], min(1.0, state["step"] / settings.curriculum_steps)
        ):
            # 2. the learning rate of this step
            progress = _progress(settings, state["step"], minutes, time.monotonic() - started)
            if progress >= 1.0:
                break
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = _lr(settings, state["step"], progress)
            # 3. one step
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                loss = weighted_loss(stepped, batch)
            model.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            for optimizer in optimizers:
                optimizer.step()
            state["step"] += 1
            state["tokens"] += int((batch.ids != tokenizer.pad_token_id).sum())
            # 4. the log
            if not quiet and state["step"] % 100 == 0:
                _log(model, tokenizer, state, loss.item(), progress, time.monotonic() - started)
        state["pool"] += 1
        state["seconds"] = time.monotonic() - started
        if time.monotonic() - saved > 180:
            _checkpoint(out, model, tokenizer, optimizers, state)
            saved = time.monotonic()
    _save(out, model, tokenizer, {**asdict(settings), **state})
    return model


def _progress(settings: StarterSettings, step: int, minutes: float | None, seconds: float) -> float:
    return min(1.0, seconds / (60 * minutes) if minutes else step / settings.steps)


def _lr(settings: StarterSettings, step: int, progress: float) -> float:
    """Warm-up by steps, level through the curriculum, then a cosine down to the last share."""
    level = settings.curriculum_steps / settings.steps
    cosine = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - level) / max(1e-9, 1 - level)))
    return (
        settings.lr
        * min(1.0, (step + 1) / settings.warmup_steps)
        * (settings.lr_last_share + (1 - settings.lr_last_share) * cosine)
    )


def _optimizers(model: PreTrainedModel, settings: StarterSettings) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the layers' matrices, AdamW for the embeddings, biases and norms.

    Muon's step is scaled to the size of AdamW's, so that both share one learning rate (Liu et al. 2025).
    """
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() > 1 and "embed" not in name]
    embeddings = [weight for name, weight in model.named_parameters() if weight.dim() > 1 and "embed" in name]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": embeddings, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, settings.beta2), eps=1e-8, fused=True),
    ]


def _encode(
    tokenizer: PreTrainedTokenizerFast, rendered: list[tuple[str, bytes]], positions: int
) -> list[tuple[list[int], list[int]]]:
    """Token ids and weights; a token has the weight of its first character. What is too long is left out."""
    texts = [text for text, _ in rendered]
    told = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, return_offsets_mapping=True)
    rows = []
    for (_, weights), ids, offsets in zip(rendered, told["input_ids"], told["offset_mapping"], strict=True):
        if len(ids) <= positions:
            rows.append((ids, [0, *(weights[start] for start, _ in offsets[1:])]))
    return rows


def _padded(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), pad)
    weight = torch.zeros(len(rows), longest)
    for place, (row_ids, row_weight) in enumerate(rows):
        ids[place, : len(row_ids)] = torch.tensor(row_ids)
        weight[place, : len(row_ids)] = torch.tensor(row_weight, dtype=torch.float32)
    return Batch(ids, weight)


def _log(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    state: dict[str, Any],
    loss: float,
    progress: float,
    seconds: float,
) -> None:
    line = {"step": state["step"], "tokens": state["tokens"], "loss": round(loss, 4), "progress": round(progress, 4)}
    line["tokens_per_second"] = round(state["tokens"] / seconds)
    line["seconds"] = round(seconds)
    if state["step"] % 1000 == 0:
        model.eval()
        line |= probes.in_context_accuracy(model, tokenizer, seed=1, count=20)
        model.train()
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _checkpoint(
    out: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    optimizers: list[torch.optim.Optimizer],
    state: dict[str, Any],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    half = out / "checkpoint.part"
    kept = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": kept, "state": state}, half)
    os.replace(half, out / "checkpoint.pt")
    model.save_pretrained(str(out), safe_serialization=True)
    save_tokenizer(tokenizer, out)


def _load(path: Path, model: PreTrainedModel, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    kept = torch.load(path, weights_only=True)
    model.load_state_dict(kept["model"])
    for optimizer, state_dict in zip(optimizers, kept["optimizers"], strict=True):
        optimizer.load_state_dict(state_dict)
    state: dict[str, Any] = kept["state"]
    return state


def _save(out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, record: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.eval()
    model.save_pretrained(str(out), safe_serialization=True)
    save_tokenizer(tokenizer, out)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--minutes", type=float, help="stop by the clock instead of by steps")
    parser.add_argument("--steps", type=int, default=StarterSettings.steps)
    parser.add_argument("--seed", type=int, default=StarterSettings.seed)
    parser.add_argument("--threads", type=int, default=StarterSettings.threads)
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    chosen = parser.parse_args()
    settings = replace(
        StarterSettings(), steps=chosen.steps, seed=chosen.seed, threads=chosen.threads, compiled=chosen.compile
    )
    torch.set_float32_matmul_precision("medium")  # of the whole process, so only where the process is this training
    train(settings, chosen.out, chosen.minutes, chosen.resume)


if __name__ == "__main__":
    main()
