"""Our forward of a LoRA layer gives PEFT's numbers: values, and every gradient."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from backend.training.shared_base import Shape, SharedBase
from tests.backend.training import tiny


def shaken(family: str, dtype: torch.dtype = torch.float32) -> SharedBase:
    base = SharedBase(tiny.causal(family).to(dtype), tiny.tokenizer())
    for name in ("policy", "reward"):
        base.add(name, Shape(4, 6), seed=1)
        with torch.no_grad():
            for i, weight in enumerate(base.weights(name)):
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    return base


def layers(base: SharedBase) -> list[LoraLinear]:
    return [module for module in base.causal.modules() if isinstance(module, LoraLinear)]


def told(base: SharedBase, name: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    """States, and the gradients of the embedded input and of the adapter."""
    tokens = torch.tensor([[2, 9, 10, 3, 7], [2, 8, 3, 6, 1]])
    inputs = base.causal.get_input_embeddings()(tokens).detach().requires_grad_(True)
    for weight in base.weights(name):
        weight.grad = None
    with base.scope(name):
        states = base.backbone(inputs_embeds=inputs, use_cache=False).last_hidden_state
        aim = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
        torch.autograd.backward((states.float() * aim).sum())
    assert inputs.grad is not None
    return states.detach(), inputs.grad, [w.grad.clone() for w in base.weights(name)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["policy", "reward"])
def test_values_and_gradients_are_pefts(family: str, name: str) -> None:
    base = shaken(family)
    states, inputs, weights = told(base, name)
    assert len(layers(base)) == {"llama": 14, "gpt2": 8}[family]
    for layer in layers(base):
        del layer.forward  # PEFT's own stands behind it
    their_states, their_inputs, their_weights = told(base, name)
    torch.testing.assert_close(states, their_states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inputs, their_inputs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(weights, their_weights, strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_a_base_in_bfloat16_differs_by_its_own_rounding_only() -> None:
    base = shaken("llama", torch.bfloat16)
    states, _, weights = told(base, "policy")
    assert states.dtype == torch.bfloat16 and {w.dtype for w in weights} == {torch.float32}
    exact_states, _, exact = told(shaken("llama"), "policy")
    for layer in layers(base):
        del layer.forward
    their_states, _, theirs = told(base, "policy")
    ours_off, theirs_off = ((s.float() - exact_states).norm() for s in (states, their_states))
    assert ours_off < 1.5 * theirs_off
    far = [(a - e).norm() / (b - e).norm() for a, b, e in zip(weights, theirs, exact, strict=True)]
    assert sum(far) / len(far) < 1.5


def test_nothing_is_computed_for_the_frozen_weights() -> None:
    base = shaken("gpt2")
    told(base, "policy")
    with base.scope("policy"):
        frozen = [p for n, p in base.causal.named_parameters() if "lora" not in n]
        assert frozen and all(not p.requires_grad and p.grad is None for p in frozen)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT's own
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_into_the_base_by_peft_a_saved_adapter_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    base = shaken(family)
    base.save("policy", tmp_path)
    merged = PeftModel.from_pretrained(tiny.causal(family), tmp_path).merge_and_unload().eval()
    tokens = torch.tensor([[2, 9, 10, 3, 7], [2, 8, 3, 6, 1]])
    is_real = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad(), base.scope("policy"):
        ours = base.logits(base.states(tokens, is_real))
        plain = tiny.causal(family).eval()(tokens).logits
        torch.testing.assert_close(merged(tokens).logits, ours, rtol=1e-4, atol=1e-5)
    assert (ours - plain).abs().max() > 0.1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_new_adapter_is_not_multiplied_where_no_gradient_is_wanted_and_one_that_learnt_is(family: str) -> None:
    base = SharedBase(tiny.causal(family), tiny.tokenizer())
    base.add("policy", Shape(4, 6), seed=1)
    tokens = torch.tensor([[2, 9, 10, 3, 7]])

    def read() -> tuple[Tensor, int]:
        with base.scope("policy"), FlopCounterMode(display=False) as counted:
            states = base.backbone(tokens, use_cache=False).last_hidden_state
        return states.detach(), counted.get_total_flops()

    with torch.no_grad(), base.scope(None), FlopCounterMode(display=False) as bare:
        states = base.backbone(tokens, use_cache=False).last_hidden_state
    with torch.no_grad():
        new, work = read()
    assert torch.equal(new, states) and work == bare.get_total_flops()
    assert read()[1] > work, "its gradient is wanted"
    layer = layers(base)[-1]
    with torch.no_grad():
        layer.lora_B["policy"].weight[-1, -1] = 0.5
        learnt, more = read()
    assert not torch.equal(learnt, states) and more > work
