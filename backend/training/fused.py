"""RMS normalisation as one step of the gradient tape: fewer passes over memory, the same numbers.

y = w * x / sqrt(mean(x^2) + eps), Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4, w frozen. transformers' own forward is six
operations, each with a backward of its own. As there, x is normalised in float32 whatever its type.
"""

import types
from typing import Any

import torch
from torch import Tensor, nn

SAME = 1e-5  # largest error against the module's own forward, relative; our choice


class _RMSNorm(torch.autograd.Function):
    """x (..., D), weight (D,) -> (..., D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (length.square_().div_(x.shape[-1]) + epsilon).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        towards = (grad * weight).float()
        along = (towards * x).sum(-1, keepdim=True).mul_(inverse**3).div_(x.shape[-1])  # (..., 1)
        return (towards * inverse).addcmul_(x.float(), along, value=-1).to(x.dtype), None, None


def install(model: nn.Module) -> None:
    """Give this forward to every normalisation of the model that computes the same; others keep their own."""
    for module in model.modules():
        is_one = hasattr(module, "variance_epsilon") and isinstance(getattr(module, "weight", None), Tensor)
        if is_one and _is_the_same(module):
            module.forward = types.MethodType(_forward, module)


@torch.no_grad()
def _is_the_same(module: Any) -> bool:
    """Some families multiply by 1 + w, or normalise otherwise."""
    weight: Tensor = module.weight
    x = torch.linspace(-1, 2, weight.numel(), device=weight.device).to(weight.dtype)[None]
    theirs, ours = module(x).float(), _forward(module, x).float()
    return bool((theirs - ours).norm() <= SAME * theirs.norm())


def _forward(self: Any, x: Tensor) -> Tensor:
    if x.is_cuda:  # PyTorch's own is one kernel there; on a processor it takes more passes than ours
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)
    found: Tensor = _RMSNorm.apply(x, self.weight, self.variance_epsilon)
    return found
