"""Products of few rows in whole numbers of 8 bits, as the tiles of tiles.py: a quarter of the bytes, four multiplications in a lane.

A row's numbers are rounded by its own largest one, as in int8.py, and weights stand without a sign, 128 up: the row's own sum says
what that added. Sums of whole numbers are exact. Weights lie in blocks of sixteen outputs, four inputs side by side.
"""

from __future__ import annotations

import numpy as np

from backend.decoder.kinds import (
    BFLOAT16,
    FLOAT32,
    F,
    _at,
    _entry,
    _farthest,
    _get,
    _part,
    _to_float32,
    _to_int32,
    _to_signed,
    _until_here,
)
from backend.decoder.tiles import GROUP, _of_side, _sides_of, _stored
from backend.decoder.vectors import FOUR, LANES, count_sixteen

BYTE = np.int8(0)  # a kind of numbers, told apart by its type
MIDDLE = np.int32(128)
MOST = F(127)


@_part
def _rounded(x, first, inputs, whole, to, side):
    """A row's numbers as whole ones, four to a place, ``side`` places apart. What one of them counts, and their sum."""
    largest, total = _farthest(x, first, inputs), np.int32(0)
    times = MOST / largest if largest > 0 else F(0)
    own = _to_signed(whole)
    for i in range(inputs):
        number = np.int32(np.rint(_get(x, first + i) * times))
        own[i] = np.int8(number)
        total += number
    fours, place = _to_int32(whole), _to_int32(to)
    for i in range(-(-inputs // FOUR)):
        place[i * side] = fours[i]
    return largest / MOST, total


@_part
def _counted(sums, blocks, block, first, rows, outputs, scale, steps, totals):
    """The sums of a tile's rows become what they count, in place."""
    found, scales, step, total = _to_int32(sums), _to_float32(scale), _to_float32(steps), _to_int32(totals)
    counted = _to_float32(sums)
    for row in range(rows):
        above = np.int32(MIDDLE * total[first + row])
        for b in range(blocks):
            start, at = (block + b) * LANES, (row * blocks + b) * LANES
            if start + LANES <= outputs:
                count_sixteen(sums + 4 * at, above, scale + 4 * start, step[first + row])
            else:
                for i in range(outputs - start):
                    counted[at + i] = F(found[at + i] - above) * scales[start + i] * step[first + row]


@_part
def _product(kind, memory, sizes):
    """As ``tiles._product``; ``memory`` has what each output's weights count besides."""
    x = _at(kind, memory[0])
    rows, inputs, outputs, apart, stride = sizes
    blocks, fours = -(-outputs // (LANES * GROUP)) * GROUP, -(-inputs // FOUR)
    side, last = _sides_of(rows)
    tiles = -(-rows // side)
    rest = rows - (tiles - 1) * side
    given, sums = np.zeros(tiles * side * fours, np.int32), np.empty(LANES * LANES * 2, np.int32)
    whole, rows_own = (
        np.zeros(fours, np.int32),
        np.empty(2 * rows, np.int32),
    )  # by row what a number counts, and their sum
    numbers, found, row_of = given.ctypes.data, sums.ctypes.data, whole.ctypes.data
    steps, totals = rows_own.ctypes.data, rows_own.ctypes.data + 4 * rows
    step, total = _to_float32(steps), _to_int32(totals)
    for row in range(rows):
        at = row // side
        to = numbers + 4 * (at * side * fours + row % side)
        step[row], total[row] = _rounded(x, row * inputs, inputs, row_of, to, last if at == tiles - 1 else side)
    for group in range(0, blocks, GROUP):
        for at in range(tiles):
            is_last = at == tiles - 1
            block, own = group, rest if is_last else side
            while block < group + GROUP:
                weights, its = memory[2] + block * apart, numbers + 4 * at * side * fours
                at_once = _of_side(BYTE, last if is_last else side, weights, apart, its, fours, found)
                _counted(found, at_once, block, at * side, own, outputs, memory[4], steps, totals)
                _stored(kind, found, at_once, block, at * side, own, memory, outputs, stride)
                block += at_once
    _until_here(given)
    _until_here(sums)
    _until_here(whole)
    _until_here(rows_own)


@_entry
def product_float32(memory, sizes):
    _product(FLOAT32, memory, sizes)


@_entry
def product_bfloat16(memory, sizes):
    _product(BFLOAT16, memory, sizes)
