"""Tiles of whole numbers give what a plain formula over whole numbers gives, and a row's bits are its own whatever tile it is in."""

import pytest
import torch
from torch import Tensor

from backend.decoder import joined, quick
from backend.decoder.joined import Weights

pytestmark = pytest.mark.skipif(quick.byte_tiled() is None, reason="this processor has no tiles of whole numbers")

FORMATS = [torch.float32, torch.bfloat16]
ROWS = [*range(1, 50), 56, 57]  # every tile, several of them, and every smaller last one


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_whole_numbers(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as whole numbers from -127 to 127 and what one of them counts, in double precision."""
    step = x.double().abs().amax(-1, keepdim=True) / 127
    return (x.double() / step).round(), step


def tiled(x: Tensor, weight: Tensor, more: Tensor | None = None) -> Tensor:
    return joined.product(x, joined.byte_tiled(Weights(weight, None)), more)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("inputs", "outputs"), [(20, 40), (64, 128), (7, 300), (1, 1)])
def test_tiles_give_the_same_product_and_no_row_feels_its_company(
    dtype: torch.dtype, inputs: int, outputs: int
) -> None:
    weight, x = drawn(outputs, inputs, seed=1).to(dtype) * 0.1, drawn(ROWS[-1], inputs) * 10
    x[1], x[2], weight[outputs // 2] = x[1] / 100, x[2].abs(), weight[outputs // 2].abs()  # and sums far from zero
    x, more = x.to(dtype), drawn(ROWS[-1], outputs, seed=2).to(dtype)
    numbers, (whole, step) = in_whole_numbers(x), in_whole_numbers(weight)
    expected = (numbers[0] @ whole.t()) * numbers[1] * step.t() + more.double()
    found = tiled(x, weight, more)
    # numbers in half precision may lie in the middle of two whole ones
    near = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-1}
    torch.testing.assert_close(found.double(), expected, **near)
    torch.testing.assert_close(tiled(x, weight).double(), expected - more.double(), **near)
    torch.testing.assert_close(tiled(x, weight, more[0]).double(), expected - more.double() + more[0].double(), **near)
    for rows in ROWS:
        assert torch.equal(tiled(x[:rows], weight, more[:rows]), found[:rows]), rows
        assert torch.equal(tiled(x[-rows:], weight, more[-rows:]), found[-rows:]), rows


def test_the_largest_sums_of_tiles_fit() -> None:
    x, weight = torch.full((17, 8192), -3.0), torch.full((16, 8192), 2.0)
    assert torch.equal(tiled(x, weight), torch.full((17, 16), -3.0 * 2 * 8192))


def test_zeros_and_what_is_no_number_stay_in_their_rows_and_outputs_of_tiles() -> None:
    x, weight = drawn(18, 24), drawn(40, 24, seed=1)
    x[4], weight[7] = 0, 0
    found = tiled(x, weight)
    assert not found[4].any() and not found[:, 7].any() and bool(found.isfinite().all())
    x[3, 5], x[16, 0] = torch.nan, torch.inf
    assert (~tiled(x, weight).isfinite()).any(1).nonzero().flatten().tolist() == [3, 16]
