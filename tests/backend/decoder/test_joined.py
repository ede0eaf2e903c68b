"""Layers joined, with any number of adapters, compute what each of them computes by itself."""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from backend.decoder import joined

ADAPTERS = {"one": 3, "two": 2, "none": 0}  # with their ranks; "none" has no part anywhere


class Pair(nn.Module):
    def __init__(self, has_bias: bool) -> None:
        super().__init__()
        self.left = nn.Linear(16, 24, bias=has_bias)
        self.right = nn.Linear(16, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], -1)


def adapted_pair(has_bias: bool = False) -> tuple[nn.Module, list[nn.Module]]:
    """Two layers; "one" is on both, "two" on the left one only."""
    torch.manual_seed(0)
    pair = Pair(has_bias)
    model = get_peft_model(pair, LoraConfig(r=3, lora_alpha=6, target_modules=["left", "right"]), adapter_name="one")  # type: ignore[arg-type]
    model.add_adapter("two", LoraConfig(r=2, lora_alpha=8, target_modules=["left"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    model.eval().requires_grad_(False)
    return model, [pair.left, pair.right]


def by_itself(model: nn.Module, x: Tensor, adapter: str) -> Tensor:
    if adapter == "none":
        with model.disable_adapter():  # type: ignore[operator]
            found: Tensor = model(x)
    else:
        model.set_adapter(adapter)  # type: ignore[operator]
        found = model(x)
    return found


def test_every_row_has_its_own_adapter() -> None:
    for has_bias in (False, True):
        model, layers = adapted_pair(has_bias)
        x = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
        owners = [0, 1, 2, 1, 0, 2]
        names = list(ADAPTERS)
        expected = torch.stack([by_itself(model, x[i], names[owner]) for i, owner in enumerate(owners)])
        weights, lora = joined.join(layers), joined.adapted(layers, names)
        mask = torch.eye(3)[owners]
        assert lora is not None
        found = joined.product(x, weights, lora, joined.mask_of(lora, mask))
        torch.testing.assert_close(found, expected)


def test_one_adapter_needs_no_mask() -> None:
    model, layers = adapted_pair()
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    for name in ADAPTERS:
        expected = by_itself(model, x, name)
        found = joined.product(x, joined.join(layers), joined.adapted(layers, [name]), None)
        torch.testing.assert_close(found, expected)


def test_layers_are_views_of_what_is_joined() -> None:
    model, layers = adapted_pair(has_bias=True)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    before = by_itself(model, x, "one")
    weights = joined.join(layers)
    assert torch.equal(by_itself(model, x, "one"), before)
    weights.weight.zero_()
    assert all(not joined.plain(layer).weight.any() for layer in layers)  # type: ignore[operator]


def test_packed_weights_hold_the_adapter() -> None:
    if not joined.can_pack(torch.float32, "cpu"):
        return  # a build of torch without oneDNN
    for has_bias in (False, True):
        model, layers = adapted_pair(has_bias)
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
        weights = joined.join(layers)
        for name in ADAPTERS:
            found = joined.product(x, joined.packed(joined.merged(weights, layers, name), 8), None, None)
            torch.testing.assert_close(found, by_itself(model, x, name))


def test_other_layers_are_not_joined() -> None:
    assert joined.can_join([nn.Linear(4, 4), nn.Linear(4, 2)])
    assert not joined.can_join([nn.Linear(4, 4), nn.Linear(4, 2).to(torch.bfloat16)])
    assert not joined.can_join([nn.Linear(4, 4), nn.Bilinear(4, 4, 4)])
    assert not joined.can_pack(torch.float64, "cpu")
    assert not joined.can_pack(torch.float32, "cuda")
