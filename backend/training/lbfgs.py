"""Where a strictly convex function of many numbers is lowest, by L-BFGS (Liu & Nocedal 1989), from its gradient alone.

A step is taken once the slope along it has not turned far: for a convex function that is the approximate Wolfe condition
of Hager & Zhang 2005 (equation 4.1), which needs no value and stays exact where values differ by less than they are
rounded. Nearly every first try is taken, so a step costs one gradient.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

STEPS = 500
TRIES = 30  # lengths of one step
REMEMBERED = 10  # moves whose change of the gradient shapes the next one
OVERSHOOT = 0.9  # of the slope where a step begins: how steep it may rise where it ends


class Move(NamedTuple):
    """One step that was taken, and what it did to the gradient."""

    by: Tensor  # (F,)
    change: Tensor  # (F,)
    product: float  # of the two: how the function bends along the move


def lowest(gradient_of: Callable[[Tensor], Tensor], start: Tensor, slope: float) -> Tensor:
    """The first place found where no entry of the gradient is larger than ``slope``. (F,), in the precision of ``start``.

    Where it has come to after ``STEPS`` steps, or when the gradient is too coarse to step on or is not a number, is
    returned all the same.
    """
    at, gradient = start, gradient_of(start)
    moves: deque[Move] = deque(maxlen=REMEMBERED)
    for _ in range(STEPS):
        if float(gradient.abs().max()) <= slope:
            break
        move = _step(gradient_of, at, gradient, moves)
        if move is None:
            break
        moves.append(move)
        at, gradient = at + move.by, gradient + move.change
    return at


def _step(gradient_of: Callable[[Tensor], Tensor], at: Tensor, gradient: Tensor, moves: deque[Move]) -> Move | None:
    """None where no length of step will do."""
    downwards = _newton(gradient, moves).neg_()
    before = float(gradient @ downwards)
    length = 1.0 if moves else 1.0 / float(gradient.norm())
    for _ in range(TRIES):
        by = length * downwards
        change = gradient_of(at + by) - gradient
        after = before + float(change @ downwards)
        if after <= -OVERSHOOT * before:
            product = float(by @ change)
            return Move(by, change, product) if product > 0 else None
        length *= before / (before - after)  # where a straight line through both slopes is level
    return None


def _newton(gradient: Tensor, moves: deque[Move]) -> Tensor:
    """The gradient times the inverse of the bend that the moves show (Nocedal & Wright 2006, algorithm 7.4). (F,)"""
    found, shares = gradient.clone(), []
    for move in reversed(moves):
        shares.append(float(move.by @ found) / move.product)
        found.sub_(move.change, alpha=shares[-1])
    if moves:
        found.mul_(moves[-1].product / float(moves[-1].change @ moves[-1].change))
    for move, share in zip(moves, reversed(shares), strict=True):
        found.add_(move.by, alpha=share - float(move.change @ found) / move.product)
    return found
