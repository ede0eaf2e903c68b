"""One base, many adapters: each scope sees its own, and no gradient is lost in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.registry.artifacts import BadArtifact
from backend.training.data import pad_left
from backend.training.families import UnsupportedBase
from backend.training.shared_base import ScopeError, Shape, SharedBase, load_base
from tests.backend.training import tiny

ROWS = [[2, 9, 10, 11, 3], [2, 7, 3]]


def logits(base: SharedBase, scope: str | None) -> Tensor:
    padded = pad_left(ROWS, base.pad_id)
    with torch.no_grad(), base.scope(scope):
        return base.logits(base.states(padded.tokens, padded.is_real))


def bare(base: SharedBase, family: str, model: Any = None) -> Tensor:
    """Of a base that never had an adapter."""
    padded = pad_left(ROWS, base.pad_id)
    with torch.no_grad():
        model = model or tiny.base(family).causal
        return model(padded.tokens, attention_mask=padded.is_real.long(), **base.positions(padded.is_real)).logits


def shaken(base: SharedBase, name: str) -> None:
    """As if trained."""
    base.add(name, Shape(4, 8), seed=1)
    with torch.no_grad():
        for i, weight in enumerate(base.weights(name)):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_adapters_off_the_logits_are_the_bare_base_to_the_bit(family: str) -> None:
    base = tiny.base(family)
    shaken(base, "policy")
    shaken(base, "reward")
    assert torch.equal(logits(base, None), bare(base, family))
    torch.testing.assert_close(logits(base, None), bare(base, family, tiny.causal(family).eval()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(base, "policy"), bare(base, family), atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_new_adapter_changes_nothing_and_equal_seeds_are_equal(family: str) -> None:
    one, two = tiny.base(family), tiny.base(family)
    for base in (one, two):
        base.add("policy", Shape(4, 8), seed=5)
    two.add("reward", Shape(4, 8), seed=6)
    assert torch.equal(logits(one, "policy"), bare(one, family))
    for a, b in zip(one.weights("policy"), two.weights("policy"), strict=True):
        assert torch.equal(a, b)
    first, second = two.weights("policy"), two.weights("reward")
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_adapter_trains_in_its_own_scope_whichever_came_first() -> None:
    base = tiny.base()
    for name in ("policy", "reward"):
        shaken(base, name)
    padded = pad_left(ROWS, base.pad_id)
    for name, other in (("reward", "policy"), ("policy", "reward")):
        for weight in [*base.weights(name), *base.weights(other)]:
            weight.grad = None
        with base.scope(name):
            base.states(padded.tokens, padded.is_real).square().mean().backward()
        assert all(w.grad is not None and w.grad.any() for w in base.weights(name))
        assert all(w.grad is None for w in base.weights(other))
    assert all(p.grad is None for n, p in base.causal.named_parameters() if "lora" not in n)


def test_a_backward_outside_the_scope_of_its_forward_is_refused() -> None:
    base = tiny.base()
    shaken(base, "policy")
    padded = pad_left(ROWS, base.pad_id)
    with base.scope("policy"):
        loss = base.states(padded.tokens, padded.is_real).mean()
    with pytest.raises(ScopeError), base.scope(None):
        loss.backward()
    with base.scope("policy"), pytest.raises(ScopeError), base.scope(None):
        pass
    with pytest.raises(ScopeError):
        base.states(padded.tokens, padded.is_real)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_left_padding_changes_no_state(family: str) -> None:
    base = tiny.base(family)
    shaken(base, "policy")
    with torch.no_grad(), base.scope("policy"):
        together = base.states(*pad_left(ROWS, base.pad_id))
        alone = base.states(*pad_left(ROWS[1:], base.pad_id))
    torch.testing.assert_close(together[1:, -3:], alone, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(together).all()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers' old name
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_saved_adapter_is_plain_peft_and_the_same_after_loading(family: str, tmp_path: Path) -> None:
    base = tiny.base(family)
    shaken(base, "policy")
    base.save("policy", tmp_path)
    other = tiny.base(family)
    other.load("anything", tmp_path)
    assert torch.equal(logits(base, "policy"), logits(other, "anything"))

    from peft import PeftModel

    peft = PeftModel.from_pretrained(tiny.causal(family), tmp_path, adapter_name="policy").eval()
    padded = pad_left(ROWS, base.pad_id)
    with torch.no_grad():
        theirs = peft(input_ids=padded.tokens, attention_mask=padded.is_real.long(), **base.positions(padded.is_real))
    torch.testing.assert_close(
        theirs.logits[padded.is_real], logits(base, "policy")[padded.is_real], rtol=1e-5, atol=1e-5
    )
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == ""


def spoilt(folder: Path, how: str) -> None:
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    state, facts = load_file(weights), json.loads(config.read_text())
    first = sorted(state)[0]
    if how == "missing tensor":
        del state[first]
    elif how == "extra tensor":
        state["base_model.model.more.lora_A.weight"] = torch.ones(2, 2)
    elif how == "nan":
        state[first] = torch.full_like(state[first], float("nan"))
    elif how == "zeroed":
        state = {k: torch.zeros_like(v) for k, v in state.items()}
    elif how == "other rank":
        facts["r"] = 2
    elif how == "modules to save":
        facts["modules_to_save"] = ["lm_head"]
    else:
        facts["target_modules"] = ["q_proj"]
    save_file(state, weights)
    config.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "how", ["missing tensor", "extra tensor", "nan", "zeroed", "other rank", "modules to save", "other targets"]
)
def test_a_spoilt_adapter_is_refused(how: str, tmp_path: Path) -> None:
    base = tiny.base()
    shaken(base, "policy")
    base.save("policy", tmp_path)
    spoilt(tmp_path, how)
    with pytest.raises(BadArtifact):
        tiny.base().load("policy", tmp_path)


def test_the_base_is_loaded_from_its_folder_and_a_missing_one_is_named(tmp_path: Path) -> None:
    base = load_base(str(tiny.folder(tmp_path / "base")))
    assert torch.equal(logits(base, None), bare(base, "llama"))
    with pytest.raises(UnsupportedBase, match="Fetch"):
        load_base(str(tmp_path / "nothing"))


def test_a_base_in_bfloat16_keeps_its_adapter_in_float32(tmp_path: Path) -> None:
    base = load_base(str(tiny.folder(tmp_path / "base")), "bfloat16")
    base.add("policy", Shape(4, 8), seed=0)
    assert {w.dtype for w in base.weights("policy")} == {torch.float32}
    torch.testing.assert_close(logits(base, "policy"), bare(base, "llama"), rtol=0.1, atol=0.1)
