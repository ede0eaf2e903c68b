"""Products in whole numbers: what a plain formula over whole numbers gives, near the exact product, and the same for a row in any company."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from backend.decoder import int8, quick

pytestmark = pytest.mark.skipif(
    not int8.is_there(), reason="this build of torch or this processor has no such products"
)


def product_without_loops(x: Tensor, weights: int8.Rounded, more: Tensor | None = None) -> Tensor:
    with patch.object(quick, "compiled", lambda: None):
        return int8.product(x, weights, more)


def both_ways(x: Tensor, weights: int8.Rounded, more: Tensor | None = None) -> Tensor:
    """The product, which is the same to the bit with loops around it and without."""
    found = int8.product(x, weights, more)
    assert torch.equal(product_without_loops(x, weights, more), found)
    return found


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_whole_numbers(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as whole numbers from -127 to 127 and what one of them counts, in double precision."""
    step = x.double().abs().amax(-1, keepdim=True) / 127
    return (x.double() / step).round(), step


def test_a_product_is_that_of_the_whole_numbers() -> None:
    x, weight = drawn(5, 48) * torch.tensor([[0.01], [1], [30], [4], [1]]), drawn(40, 48, seed=1) * 0.1
    weight[3] *= 50  # one output's weights are larger than the others'
    inputs, weights = in_whole_numbers(x), in_whole_numbers(weight)
    expected = (inputs[0] @ weights[0].t()) * inputs[1] * weights[1].t()
    found = both_ways(x, int8.rounded(weight, 16))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    exact = x.double() @ weight.double().t()
    assert 1e-4 < float((found - exact).norm() / exact.norm()) < 0.02


def test_what_is_added_is_added_as_it_is_whether_for_all_rows_or_each() -> None:
    x, weights, bias, more = (
        drawn(6, 32),
        int8.rounded(drawn(16, 32, seed=1), 16),
        drawn(16, seed=2),
        drawn(6, 16, seed=3),
    )
    bare = both_ways(x, weights)
    torch.testing.assert_close(both_ways(x, weights, bias), bare + bias)
    torch.testing.assert_close(both_ways(x, weights, more), bare + more)


def test_a_rows_bits_do_not_depend_on_other_rows() -> None:
    x, weights = drawn(64, 80), int8.rounded(drawn(72, 80, seed=1), 16)
    x[7] *= 1000
    whole = both_ways(x, weights)
    for start, end in ((0, 1), (3, 5), (5, 21), (6, 64)):
        assert torch.equal(both_ways(x[start:end], weights), whole[start:end])


def test_a_row_of_zeros_gives_zeros_and_outputs_without_weights_too() -> None:
    weight = drawn(8, 16, seed=1)
    weight[2] = 0
    x = drawn(4, 16)
    x[1] = 0
    found = both_ways(x, int8.rounded(weight, 16), torch.ones(8))
    assert torch.equal(found[1], torch.ones(8))
    assert torch.equal(found[:, 2], torch.ones(4))
    assert bool(found.isfinite().all())


def test_what_is_no_number_stays_so_in_its_own_row() -> None:
    x, weights = drawn(3, 16), int8.rounded(drawn(8, 16, seed=1), 16)
    x[1, 5] = torch.nan
    for found in (int8.product(x, weights), product_without_loops(x, weights)):
        assert found.isnan().all(1).tolist() == [False, True, False]


def test_half_precision_stays_half_precision() -> None:
    x, weight = drawn(4, 32).to(torch.bfloat16), drawn(8, 32, seed=1).to(torch.bfloat16)
    found = both_ways(x, int8.rounded(weight, 16), torch.ones(4, 8, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), x.float() @ weight.float().t() + 1, rtol=0.05, atol=0.2)
