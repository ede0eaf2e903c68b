"""What stands between the products, beside plain formulas in double precision."""

import torch
from torch.nn.functional import silu

from backend.decoder import plain


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_norm_divides_by_the_root_of_the_mean_square() -> None:
    x, gain = drawn(3, 2, 24), drawn(24, seed=1)
    x[1] *= 1e-3  # where what is added to the square counts
    exact = x.double()
    expected = exact / (exact.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain.double()
    torch.testing.assert_close(plain.normed(plain.Norm(gain, 1e-5), x).double(), expected, rtol=1e-5, atol=1e-6)
    half = plain.normed(plain.Norm(gain.bfloat16(), 1e-5), x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=3e-2, atol=3e-2)


def test_the_first_half_opens_the_second() -> None:
    both = drawn(3, 10)
    torch.testing.assert_close(plain.gated(silu, both), silu(both[:, :5]) * both[:, 5:])


def test_halves_of_a_head_are_turned_against_each_other() -> None:
    x, angle = drawn(4, 3, 6), drawn(4, 1, 3, seed=1)
    first, second = x[..., :3], x[..., 3:]
    expected = torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([-angle.sin(), angle.sin()], -1)
    torch.testing.assert_close(plain.turned(x, cos, sin), expected)
