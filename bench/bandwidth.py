"""How fast this machine reads memory on one thread, and how many bytes one decoding step has to read."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

READ_BYTES = 1 << 29  # far more than the caches of a processor hold
TRIES = 5


class Bandwidth(NamedTuple):
    """Bytes a second, by the clock and by processor time."""

    bytes_per_second: float
    bytes_per_cpu_second: float


def measured() -> Bandwidth:
    """The best of several ways to read a large block once, each tried a few times."""
    block = torch.ones(READ_BYTES // 4)
    square, vector = block.view(-1, 1 << 13), torch.ones(1 << 13)
    half = len(block) // 2
    ways: list[Callable[[], Any]] = [block.sum, lambda: square @ vector, lambda: block[:half].dot(block[half:])]
    tries = [_timed(way) for way in ways for _ in range(TRIES)]
    return Bandwidth(READ_BYTES / min(wall for wall, _ in tries), READ_BYTES / min(cpu for _, cpu in tries))


def _timed(act: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def step_bytes(model: Any, rows: int, tokens: int) -> int:
    """What a step of so many rows reads, each with so many tokens behind it: every weight once, and each row's keys and values.

    Of the input embedding only the rows' own lines are read, unless it is the output layer too. Each row counts its whole
    cache, also where rows share a prompt.
    """
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    weights = {id(one): one for one in model.parameters()}
    if embedding is not output:
        weights.pop(id(embedding))
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * width * rows * tokens
    return sum(one.numel() * one.element_size() for one in weights.values()) + cache * embedding.element_size()
