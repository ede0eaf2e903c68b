"""Layers joined, with any number of adapters beside them or one within, compute what each of them computes by itself."""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from backend.decoder import beside, joined

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


def beside_of(layers: list[nn.Module], names: list[str]) -> beside.Adapted:
    found = beside.adapted(layers, names, 16)
    assert found is not None
    return found


def test_every_row_has_its_own_adapter() -> None:
    owners = [0, 1, 2, 1, 0, 2, 0]
    for has_bias in (False, True):
        model, layers = adapted_pair(has_bias)
        x = torch.randn(len(owners), 16, generator=torch.Generator().manual_seed(1))
        names = list(ADAPTERS)
        expected = torch.stack([by_itself(model, x[i], names[owner]) for i, owner in enumerate(owners)])
        weights, lora = joined.join(layers), beside_of(layers, names)
        for fewest in (1, 4):
            found = joined.product(x, weights)
            seats = beside.seats_of(owners, fewest, x.device)
            assert seats is not None
            beside.add(found, x, lora, seats)
            torch.testing.assert_close(found, expected)
        found = joined.product(x, weights)
        spans = beside.spans_of(owners)
        assert spans is not None
        beside.add(found, x, lora, spans)
        torch.testing.assert_close(found, expected)


def test_a_row_without_an_adapter_is_left_as_it_is_whatever_the_others_come_to() -> None:
    _, layers = adapted_pair()
    lora, out = beside_of(layers, ["one", "two"]), torch.zeros(3, 32)
    x = torch.full((3, 16), torch.inf)
    seats = beside.seats_of([None, 1, None], 4, out.device)
    assert seats is not None and (seats.first, seats.adapters) == (1, 1), "nobody sits for the first one"
    beside.add(out, x, lora, seats)
    assert not out[[0, 2]].any() and not bool(torch.isfinite(out[1]).all())
    assert beside.seats_of([None, None], 4, out.device) is None and beside.spans_of([None, None]) is None


def test_rows_that_sit_in_order_already_are_not_moved() -> None:
    model, layers = adapted_pair()
    seats = beside.seats_of([0, 0, 1, 1], 2, torch.device("cpu"))
    assert seats == beside.Seats(0, 2, None, None, None)
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    found = joined.product(x, joined.join(layers))
    beside.add(found, x, beside_of(layers, ["one", "two"]), seats)
    expected = [by_itself(model, x[:2], "one"), by_itself(model, x[2:], "two")]
    torch.testing.assert_close(found, torch.cat(expected))


def test_ranks_are_rounded_up_and_an_adapter_without_a_part_has_none() -> None:
    _, layers = adapted_pair()
    assert [beside.rank_of(layers, name) for name in ADAPTERS] == [16, 16, 0]
    assert beside.rank_of(layers[1:], "two") == 0
    assert beside.adapted(layers, ["none"], 16) is None and beside.adapted(layers[1:], ["two"], 16) is None


def test_what_is_added_can_be_added_to_the_product_at_once() -> None:
    _, layers = adapted_pair(has_bias=True)
    x, more = torch.randn(20, 16), torch.randn(20, 32)
    weights = joined.join(layers)
    expected = joined.product(x, weights) + more
    torch.testing.assert_close(joined.product(x, weights, more), expected)
    if joined.can_pack(torch.float32, "cpu"):
        torch.testing.assert_close(joined.product(x, joined.packed(weights, 16), more), expected)


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
            found = joined.product(x, joined.packed(joined.merged(weights, layers, name), 8))
            torch.testing.assert_close(found, by_itself(model, x, name))


def test_other_layers_are_not_joined() -> None:
    assert joined.can_join([nn.Linear(4, 4), nn.Linear(4, 2)])
    assert not joined.can_join([nn.Linear(4, 4), nn.Linear(4, 2).to(torch.bfloat16)])
    assert not joined.can_join([nn.Linear(4, 4), nn.Bilinear(4, 4, 4)])
    assert not joined.can_pack(torch.float64, "cpu")
    assert not joined.can_pack(torch.float32, "cuda")
