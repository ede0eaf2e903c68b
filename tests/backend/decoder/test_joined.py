"""Layers joined, with an adapter within, compute what each of them computes by itself."""

import torch
from torch import nn

from backend.decoder import int8, joined
from tests.backend.decoder.pair import ADAPTERS, adapted_pair, by_itself


def test_what_is_added_can_be_added_to_the_product_at_once() -> None:
    _, layers = adapted_pair(has_bias=True)
    x, more = torch.randn(20, 16), torch.randn(20, 32)
    weights = joined.join(layers)
    expected = joined.product(x, weights) + more
    torch.testing.assert_close(joined.product(x, weights, more), expected)
    if joined.can_pack(torch.float32, "cpu"):
        torch.testing.assert_close(joined.product(x, joined.packed(weights, 16), more), expected)


def test_weights_in_whole_numbers_have_the_bias_and_what_is_added() -> None:
    if not int8.is_there():
        return  # another processor
    for has_bias in (False, True):
        _, layers = adapted_pair(has_bias)
        x, more = torch.randn(20, 16), torch.randn(20, 32)
        weights = joined.join(layers)
        whole = joined.rounded(weights, 16)
        assert isinstance(whole.packed, int8.Rounded)
        bare = int8.product(x, whole.packed) + (0 if weights.bias is None else weights.bias)
        torch.testing.assert_close(joined.product(x, whole), bare)
        torch.testing.assert_close(joined.product(x, whole, more), bare + more)


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
