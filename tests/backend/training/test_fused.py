"""Our own normalisation computes what the model's computes, and is installed only where it does."""

from itertools import product

import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from backend.training import fused


def norm(kind: type, width: int = 12) -> nn.Module:
    made = kind(width, eps=0.01)
    with torch.no_grad():
        made.weight.copy_(torch.randn(width, generator=torch.Generator().manual_seed(0)))
    made.requires_grad_(False)
    return made


def drawn(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()


def test_forward_and_backward_are_the_modules_own() -> None:
    for kind, dtype in product((LlamaRMSNorm, T5LayerNorm), (torch.float32, torch.bfloat16)):
        error = 1e-5 if dtype == torch.float32 else 2e-2
        module, x = norm(kind).to(dtype), drawn(dtype)
        weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        theirs = module(x)
        (expected,) = torch.autograd.grad((theirs * weight).sum(), x)
        fused.install(module)
        assert "forward" in module.__dict__
        ours = module(x)
        (found,) = torch.autograd.grad((ours * weight).sum(), x)
        assert ours.dtype == theirs.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=error, atol=error)
        torch.testing.assert_close(found, expected, rtol=error, atol=error)


def test_a_norm_that_computes_something_else_keeps_its_own_forward() -> None:
    module = norm(GemmaRMSNorm)
    module.variance_epsilon = module.eps  # named as others name it, and yet it multiplies by 1 + w
    for other in (module, nn.LayerNorm(12)):
        fused.install(other)
        assert "forward" not in other.__dict__
