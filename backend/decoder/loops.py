"""The work between a step's products as compiled loops over memory: a processor's, in float32 or bfloat16.

A step of a small model has some thirty calls of a few microseconds in every layer between four products; these are four. Numba
compiles them for the processor at hand when they are first asked for, and keeps what it compiled. Every row is computed by itself in
an order that follows from its own length alone, so its bits do not depend on its company. Given are addresses of contiguous
memory; quick.py speaks to them in tensors. Sums are in float32, what is stored is rounded to the nearest, ties to even.
"""

from __future__ import annotations

import numpy as np

from backend.decoder.kinds import (
    BFLOAT16,
    FLOAT32,
    LEAST,
    F,
    _at,
    _entry,
    _exp,
    _farthest,
    _get,
    _part,
    _put,
    _rounded,
    _to_bytes,
    _to_float32,
    _to_float64,
    _to_int64,
)
from backend.decoder.vectors import LANES

DRAWN = 256  # weights that are passed over together when a token is looked up


@_part
def _norm(x, gain, out, rows, width, least):
    for row in range(rows):
        first = row * width
        squares = F(0)
        for i in range(width):
            squares += _get(x, first + i) * _get(x, first + i)
        scale = F(1) / np.sqrt(squares / F(width) + F(least))
        for i in range(width):
            _put(out, first + i, _rounded(out, _get(x, first + i) * scale) * _get(gain, i))


@_part
def _gated(both, out, rows, width):
    for row in range(rows):
        gate, up, to = 2 * row * width, (2 * row + 1) * width, row * width
        for i in range(width):
            x = _get(both, gate + i)
            open_by = F(0) if x < F(-87) else x / (F(1) + _exp(-x))
            _put(out, to + i, _rounded(out, open_by) * _get(both, up + i))


@_part
def _turn(heads, cos, sin, position, rows, stride, turned, width):
    half = width // 2
    for row in range(rows):
        angle = position[row] * width
        for head in range(turned):
            first = row * stride + head * width
            for i in range(half):
                a, b = _get(heads, first + i), _get(heads, first + half + i)
                _put(heads, first + i, a * _get(cos, angle + i) + b * _get(sin, angle + i))
                _put(heads, first + half + i, b * _get(cos, angle + half + i) + a * _get(sin, angle + half + i))


@_entry
def whole_numbers(x, out, step, rows, width, most):
    """Each row's numbers as whole ones without a sign, up and down from 128, and what one of them counts: the largest is ``most``."""
    given, whole, steps = _to_float32(x), _to_bytes(out), _to_float32(step)
    for row in range(rows):
        first, largest = row * width, _farthest(given, row * width, width)
        times = F(most) / largest if largest > 0 else F(0)
        for i in range(width):
            whole[first + i] = np.uint8(np.int32(np.rint(given[first + i] * times)) + np.int32(128))
        steps[row] = largest / F(most)


@_entry
def scaled(out, step, more, stride, rows, width):
    """Each row's numbers times its step, and ``more``, whose rows are so far apart; 0 is nowhere."""
    found, steps, added = _to_float32(out), _to_float32(step), _to_float32(more)
    for row in range(rows):
        first, own = row * width, steps[row]
        if more == 0:
            for i in range(width):
                found[first + i] *= own
        else:
            for i in range(width):
                found[first + i] = found[first + i] * own + added[row * stride + i]


@_part
def _largest(numbers, first, count, sides):
    """Of so many numbers. ``sides`` has room for the largest of every sixteenth, which are compared side by side."""
    for side in range(LANES):
        sides[side] = LEAST
    whole = count // LANES * LANES
    for start in range(first, first + whole, LANES):
        for side in range(LANES):
            sides[side] = max(sides[side], numbers[start + side])
    most = LEAST
    for side in range(LANES):
        most = max(most, sides[side])
    for i in range(first + whole, first + count):
        most = max(most, numbers[i])
    return most


@_entry
def drawn(logits, temperature, uniform, out, rows, width):
    """Each row's token, by its random number, from the softmax of its logits over its temperature; of 0 the likeliest, and of equals the
    first. The number is looked up in the cumulated weights in the order of the tokens; what is e^-87 times as likely as the likeliest is never drawn.
    """
    given, temperatures = _to_float32(logits), _to_float32(temperature)
    numbers, tokens, weights = _to_float64(uniform), _to_int64(out), np.empty(width, np.float32)
    sides = np.empty(LANES, np.float32)
    for row in range(rows):
        first, warmth = row * width, temperatures[row]
        most = _largest(given, first, width, sides)
        tokens[row] = width - 1
        if warmth == 0:
            for i in range(width):
                if given[first + i] == most:
                    tokens[row] = i
                    break
            continue
        total = 0.0
        for i in range(width):
            x = (given[first + i] - most) / warmth
            weights[i] = F(0) if x < F(-87) else _exp(x)
        for i in range(width):
            total += np.float64(weights[i])
        target, before = numbers[row] * total, 0.0
        for start in range(0, width, DRAWN):
            end, own = min(width, start + DRAWN), 0.0
            for i in range(start, end):
                own += np.float64(weights[i])
            if before + own > target or end == width:
                for i in range(start, end):
                    if weights[i] > 0:
                        tokens[row] = i
                    before += np.float64(weights[i])
                    if before > target:
                        break
                break
            before += own


@_entry
def norm_float32(x, gain, out, rows, width, least):
    _norm(_at(FLOAT32, x), _at(FLOAT32, gain), _at(FLOAT32, out), rows, width, least)


@_entry
def gated_float32(both, out, rows, width):
    _gated(_at(FLOAT32, both), _at(FLOAT32, out), rows, width)


@_entry
def turn_float32(heads, cos, sin, position, rows, stride, turned, width):
    _turn(_at(FLOAT32, heads), _at(FLOAT32, cos), _at(FLOAT32, sin), _to_int64(position), rows, stride, turned, width)


@_entry
def norm_bfloat16(x, gain, out, rows, width, least):
    _norm(_at(BFLOAT16, x), _at(BFLOAT16, gain), _at(BFLOAT16, out), rows, width, least)


@_entry
def gated_bfloat16(both, out, rows, width):
    _gated(_at(BFLOAT16, both), _at(BFLOAT16, out), rows, width)


@_entry
def turn_bfloat16(heads, cos, sin, position, rows, stride, turned, width):
    _turn(
        _at(BFLOAT16, heads), _at(BFLOAT16, cos), _at(BFLOAT16, sin), _to_int64(position), rows, stride, turned, width
    )
