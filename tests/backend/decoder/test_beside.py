"""Adapters beside the base's products: each row is given its own adapter's part and no other's."""

import torch
from torch import nn

from backend.decoder import beside, joined
from tests.backend.decoder.pair import ADAPTERS, adapted_pair, by_itself


def beside_of(layers: list[nn.Module], names: list[str]) -> beside.Adapted:
    found = beside.adapted(layers, names, 16)
    assert found is not None
    return found


def test_every_row_has_its_own_adapter() -> None:
    owners = [0, 1, 2, 1, 0, 2, 0]
    for has_bias, right in ((False, 8), (True, 8), (False, 24)):  # layers of as many outputs are added in one go
        model, layers = adapted_pair(has_bias, right)
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


def test_seats_of_a_later_adapter_are_its_own() -> None:
    model, layers = adapted_pair()
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    seats = beside.seats_of([None, 1, None], 4, x.device)
    assert seats is not None
    found = joined.product(x, joined.join(layers))
    beside.add(found, x, beside_of(layers, ["one", "two"]), seats)
    torch.testing.assert_close(found[1:2], by_itself(model, x[1:2], "two"))


def test_rows_that_sit_in_order_already_are_not_moved() -> None:
    model, layers = adapted_pair()
    seats = beside.seats_of([0, 0, 1, 1], 2, torch.device("cpu"))
    assert seats is not None and seats[:5] == (0, 2, None, None, None)
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
