"""L-BFGS: finds what is known, stops where it was asked to, and costs little more than one gradient per step."""

from collections.abc import Callable

import torch
from torch import Tensor

from backend.training import lbfgs


class Counted:
    """A gradient that knows how often it was asked for."""

    def __init__(self, gradient_of: Callable[[Tensor], Tensor]) -> None:
        self._gradient_of, self.times = gradient_of, 0

    def __call__(self, at: Tensor) -> Tensor:
        self.times += 1
        return self._gradient_of(at)


def bowl(size: int = 40, steepest: float = 100.0) -> tuple[Counted, Tensor]:
    """A quadratic whose directions are unlike by a factor of ``steepest``, and where it is lowest."""
    draw = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))[0]
    bends = (turned * torch.logspace(0, torch.tensor(steepest).log10(), size, dtype=torch.float64)) @ turned.T
    goal = torch.randn(size, generator=draw, dtype=torch.float64)
    return Counted(lambda at: bends @ (at - goal)), goal


def nothing(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64)


def test_the_lowest_place_of_a_stretched_bowl_is_found() -> None:
    gradient_of, goal = bowl()
    assert torch.allclose(lbfgs.lowest(gradient_of, nothing(40), 1e-9), goal, atol=1e-8)


def test_a_step_costs_little_more_than_one_gradient() -> None:
    gradient_of, _ = bowl()
    lbfgs.lowest(gradient_of, nothing(40), 1e-4)
    assert gradient_of.times < 75  # 62, where descent along the gradient alone needs hundreds


def test_it_ends_where_no_entry_of_the_gradient_is_larger_than_was_asked() -> None:
    gradient_of, goal = bowl()
    rough = gradient_of(lbfgs.lowest(gradient_of, nothing(40), 1.0))
    assert 1e-3 < rough.abs().max() <= 1.0
    gradient_of.times = 0
    assert torch.equal(lbfgs.lowest(gradient_of, goal, 1e-9), goal) and gradient_of.times == 1


def test_a_first_step_that_goes_far_too_far_is_shortened() -> None:
    def gradient_of(at: Tensor) -> Tensor:
        return 1e4 * (at - 1e-3) + 1e12 * (at - 1e-3) ** 3

    assert torch.allclose(lbfgs.lowest(gradient_of, nothing(1), 1e-6), torch.tensor(1e-3, dtype=torch.float64))


def test_a_slope_that_turns_suddenly_is_met() -> None:
    """Log-cosh bends at its middle alone: Newton's steps from afar would fly off."""
    goal = torch.tensor([30.0, -50.0, 4.0], dtype=torch.float64)

    gradient_of = Counted(lambda at: torch.tanh(at - goal) + 1e-3 * at)
    found = lbfgs.lowest(gradient_of, nothing(3), 1e-8)
    assert gradient_of.times < 38  # 32; the bend of the oldest move for that of the newest needs 45
    assert gradient_of(found).abs().max() <= 1e-8


def test_a_round_bowl_is_crossed_at_one_stroke() -> None:
    gradient_of, _ = bowl(steepest=1.0)
    lbfgs.lowest(gradient_of, nothing(40), 1e-9)
    assert gradient_of.times == 3


def test_a_gradient_that_is_no_number_ends_it() -> None:
    def gradient_of(at: Tensor) -> Tensor:
        return at * torch.nan

    assert torch.equal(lbfgs.lowest(gradient_of, nothing(3), 1e-9), nothing(3))


def test_a_gradient_that_does_not_change_ends_it() -> None:
    gradient_of = Counted(torch.ones_like)
    assert torch.isfinite(lbfgs.lowest(gradient_of, nothing(3), 1e-9)).all() and gradient_of.times < 5
