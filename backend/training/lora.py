"""LoRA linear layers as one step of the gradient tape: fewer passes over memory, the same numbers.

y = x W^T + b + scale * (x A^T) B^T, Hu et al. 2021 (arXiv:2106.09685) eq. 3. W and b are frozen, so no gradient of theirs is
formed; x, x A^T and the small matrices are all that is kept for the backward. PEFT's own forward makes the LoRA part as a
tensor of its own, scales it, and adds it: three more passes over an output, and as many backward, which on a processor cost
as much as the products.

Where no gradient is wanted a new adapter, whose B is zero, is not multiplied at all: DPO's and KTO's references are read so.

On a base in bfloat16 the adapter's weights stay float32 and are rounded for the products alone, as torch's autocast does.
"""

import types
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn


class _Linear(torch.autograd.Function):
    """Shapes: x (..., I), weight (O, I), a (R, I), b (O, R), bias (O,) or None -> (..., O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, I)
        ctx.master = a.dtype
        a, b = a.to(x.dtype), b.to(x.dtype)
        inner = flat @ a.t()  # (N, R)
        out = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        out.addmm_(inner, b.t(), alpha=scale)
        ctx.save_for_backward(flat, inner, weight, a, b)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, weight, a, b = ctx.saved_tensors
        out = grad.reshape(-1, grad.shape[-1])  # (N, O)
        towards_a = (out @ b).mul_(ctx.scale)  # (N, R)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (out @ weight).addmm_(towards_a, a).view(*grad.shape[:-1], -1)
        for_a = (towards_a.t() @ flat).to(ctx.master)
        for_b = (out.t() @ inner).to(ctx.master).mul_(ctx.scale)
        return for_x, None, None, for_a, for_b, None


def install(model: nn.Module) -> None:
    """Give every LoRA linear layer of a PEFT model this forward. Calling it again, after one more adapter, is harmless."""
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.forward = types.MethodType(_forward, module)


def _forward(self: Any, x: Tensor) -> Tensor:
    """Of one LoRA layer: the base alone, or with the one adapter that is active."""
    names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.lora_A]
    if not names:
        plain: Tensor = self.base_layer(x)
        return plain
    (name,) = names
    base = self.base_layer
    if not torch.is_grad_enabled() and _is_zero(self.lora_B[name].weight):
        return base(x)
    weight = base.weight.t() if self.fan_in_fan_out else base.weight  # GPT-2 keeps (I, O)
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    out: Tensor = _Linear.apply(x, weight, base.bias, a, b, self.scaling[name])
    return out


def _is_zero(b: Tensor) -> bool:
    """Asked of processors only: a GPU would have to be waited for, which costs more than the products."""
    return b.device.type == "cpu" and not bool(b.any())
