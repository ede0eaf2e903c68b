"""How weights are stepped: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) without decay, as one operation for all weights."""

from collections.abc import Iterable

import torch
from torch import nn


def adamw(weights: Iterable[nn.Parameter], learning_rate: float, eps: float = 1e-8) -> torch.optim.Optimizer:
    """A LoRA adapter is dozens of small matrices; stepped one by one their calls take five times as long."""
    return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, eps=eps, fused=True)
