"""How much arithmetic the work of a measurement is worth, and how much of it the machine could do: the share is the MFU.

Useful is what the method asks for whoever does it: a prompt read once for all its answers, no padding, nothing computed
twice, frozen weights without a gradient. Chowdhery et al. 2022 (arXiv:2204.02311), appendix B, for a frozen base with LoRA.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch

from bench.workload import SIZES, VOCABULARY, Shape

RANK = 16
REPEATS, TRIES = 20, 5


def peak() -> dict[str, float]:
    """The most floating-point operations per second of processor time that one thread's matrix product reaches here; of a
    GPU, per second."""
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        return {"bfloat16": _product_on_gpu()}
    return {name: _product(dtype) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))}


def _product(dtype: torch.dtype) -> float:
    a, b = torch.randn(1536, 768).to(dtype), torch.randn(768, 2048).to(dtype)
    seconds = []
    for _ in range(TRIES + 1):
        begun = time.process_time()
        for _ in range(REPEATS):
            a @ b
        seconds.append(time.process_time() - begun)
    return 2.0 * REPEATS * a.shape[0] * a.shape[1] * b.shape[1] / min(seconds[1:])


def _product_on_gpu() -> float:
    a = torch.randn(8192, 8192, device="cuda").to(torch.bfloat16)
    seconds = []
    for _ in range(TRIES + 1):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(REPEATS):
            a @ a
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2.0 * REPEATS * 8192**3 / min(seconds[1:])


def per_unit(method: str, size: str, rows: Sequence[dict[str, Any]], response: int, several: int) -> float:
    """Useful operations of one unit of work (pair, token, answer or episode), a mean over the rows."""
    found = [
        _of_row(method, SIZES[size], len(row["prompt"]), len(row["chosen"]), len(row["rejected"]), response, several)
        for row in rows
    ]
    units = sum(len(row["prompt"]) + len(row["chosen"]) for row in rows) if method == "sft" else len(rows)
    return sum(found) / units


def _of_row(method: str, shape: Shape, prompt: int, chosen: int, rejected: int, response: int, several: int) -> float:
    def forward(*answers: int) -> float:
        return _read(shape, prompt, answers)

    def train(*answers: int) -> float:
        return _learn(shape, prompt, answers)

    if method == "reward":
        return train(chosen, rejected)
    if method == "sft":
        return train(chosen) + 2 * _output(shape, chosen)
    if method == "dpo":
        return forward(chosen, rejected) + train(chosen, rejected) + 3 * _output(shape, chosen + rejected)
    answers = [response] * several
    sampled = forward(*answers) + _output(shape, sum(answers))  # every token is read once while it is written, too
    judged = forward(*answers)
    known = forward(*answers) + _output(shape, sum(answers))  # by the reference; PPO asks the policy as well
    learnt = train(*answers) + 2 * _output(shape, sum(answers))
    whole = sampled + judged + known + learnt if method == "ift" else sampled + judged + 2 * known + 4 * learnt
    return whole / several


def _read(shape: Shape, prompt: int, answers: Sequence[int]) -> float:
    """A forward of one prompt and its answers: weights, LoRA, and attention to what each token sees."""
    tokens = prompt + sum(answers)
    seen = prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in answers)
    linear = 4 * shape.width**2 + 3 * shape.width * shape.inner
    lora = RANK * (8 * shape.width + 3 * (shape.width + shape.inner))
    return shape.layers * (2.0 * tokens * (linear + lora) + 4.0 * shape.width * seen)


def _learn(shape: Shape, prompt: int, answers: Sequence[int]) -> float:
    """Forward and backward: towards the inputs of frozen weights once more, LoRA and attention twice more."""
    tokens = prompt + sum(answers)
    lora = 2.0 * tokens * shape.layers * RANK * (8 * shape.width + 3 * (shape.width + shape.inner))
    seen = prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in answers)
    return 2 * _read(shape, prompt, answers) + lora + shape.layers * 4.0 * shape.width * seen


def _output(shape: Shape, tokens: int) -> float:
    """The output layer at the answers' tokens, once."""
    return 2.0 * tokens * shape.width * VOCABULARY
