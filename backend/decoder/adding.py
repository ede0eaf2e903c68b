"""What adapters add to a few rows, each its own, as compiled loops.

Rows of one adapter are taken up to eight at a time where there are registers for it, so that its numbers are read once for all;
two are no quicker that way. Inputs with an even number and those with an odd one are summed by themselves in either way, and a row's bits
are the same in both.
"""

from __future__ import annotations

import numpy as np

from backend.decoder.attending import _summed
from backend.decoder.kinds import (
    BFLOAT16,
    FLOAT32,
    F,
    _at,
    _begun,
    _entry,
    _get,
    _part,
    _put,
    _size,
    _to_float32,
    _to_int64,
    _turned,
    _until_here,
)
from backend.decoder.vectors import IS_THERE, LANES, paired_tile, store_sum

MOST = 8  # rows at a time

_eight, _four = paired_tile(8), paired_tile(4)


@_part
def _add_to_one(kind, memory, sizes, whose, row, room):
    """``room``: for a row's inputs, inner values and sums."""
    x, out, run, size = _at(kind, memory[0]), _at(kind, memory[1]), _to_int64(memory[4]), _size(kind)
    _, inputs, outputs, inner, rank, runs = sizes
    found, summed = room + 4 * inputs, room + 4 * (inputs + inner)
    given, values, sums = _to_float32(room), _to_float32(found), _to_float32(summed)
    for i in range(inputs):
        given[i] = _get(x, row * inputs + i)
    for i in range(inner):
        values[i] = F(0)
    _summed(kind, found, memory[2] + whose * inner * inputs * size, inputs, inner, room)
    for at in range(0, 5 * runs, 5):
        layers, many = run[at + 1], run[at + 2]
        for layer in range(layers):
            for i in range(many):
                sums[i] = F(0)
            b = run[at] + (whose * layers + layer) * rank * many * size
            _summed(kind, summed, b, rank, many, found + 4 * (run[at + 3] + layer * rank))
            to = row * outputs + run[at + 4] + layer * many
            for i in range(many):
                _put(out, to + i, _get(out, to + i) + sums[i])


@_part
def _of_some(kind, side, weights, step, given, inputs, sums):
    if side == MOST:
        _eight(kind, weights, step, given, inputs, sums)
    else:
        _four(kind, weights, step, given, inputs, sums)


@_part
def _add_to_some(kind, memory, sizes, whose, rows, count, side, room):
    """The same for ``count`` of ``rows``, in a tile of four or eight. ``room``: for as many rows' inputs and inner values, their sums, and
    where sixteen rows begin, twice."""
    run, size, own = _to_int64(memory[4]), _size(kind), _to_int64(rows)
    _, inputs, outputs, inner, rank, runs = sizes
    begins, found = room, room + 8 * LANES
    given = found + 8 * LANES
    values, sums = given + 4 * side * inputs, given + 4 * side * (inputs + inner)
    begin = _to_int64(begins)
    for row in range(LANES):
        begin[row] = memory[0] + own[min(row, count - 1)] * inputs * size  # who is not there is the last one again
    _begun(found, LANES, sums, side, 4 * LANES)
    _turned(kind, begins, inputs, given, side)
    for block in range(0, inner, LANES):
        a = memory[2] + (whose * inputs * inner + block) * size
        _of_some(kind, side, a, inner * size, given, inputs, sums)
        _turned(FLOAT32, found, LANES, values + 4 * block * side, side)
    for at in range(0, 5 * runs, 5):
        layers, many = run[at + 1], run[at + 2]
        for layer in range(layers):
            its = values + 4 * (run[at + 3] + layer * rank) * side
            for block in range(0, many, LANES):
                b = run[at] + ((whose * layers + layer) * rank * many + block) * size
                _of_some(kind, side, b, many * size, its, rank, sums)
                for row in range(count):
                    to = memory[1] + (own[row] * outputs + run[at + 4] + layer * many + block) * size
                    store_sum(kind, sums + 4 * row * LANES, to, to)


@_part
def _add_adapters(kind, memory, sizes):
    """Each row's own adapter's part. ``memory``: x, out, the A of all adapters, input by input, by row its adapter (-1: none), and by run
    of layers where its B are, how many layers, how many outputs of each, and the first of its inner values and outputs."""
    owner, run = _to_int64(memory[3]), _to_int64(memory[4])
    rows, inputs, outputs, inner, _, runs = sizes
    adapters, fills_lanes = 0, IS_THERE and inner % LANES == 0
    for row in range(rows):
        adapters = max(adapters, owner[row] + 1)
    for at in range(0, 5 * runs, 5):
        fills_lanes = fills_lanes and run[at + 2] % LANES == 0
    numbers = np.empty(4 * LANES + MOST * (inputs + inner + LANES) + outputs, np.float32)
    picked = np.empty(rows + 1, np.int64)
    room, own, first = numbers.ctypes.data, picked.ctypes.data, _to_int64(picked.ctypes.data)
    for whose in range(adapters):
        count = 0
        for row in range(rows):
            if owner[row] == whose:
                first[count] = row
                count += 1
        at = 0
        while at < count:
            left = count - at
            if fills_lanes and left > 2:
                side = MOST if left > 4 else 4
                _add_to_some(kind, memory, sizes, whose, own + 8 * at, min(side, left), side, room)
                at += side
            else:
                _add_to_one(kind, memory, sizes, whose, first[at], room)
                at += 1
    _until_here(numbers)
    _until_here(picked)


@_entry
def add_adapters_float32(memory, sizes):
    _add_adapters(FLOAT32, memory, sizes)


@_entry
def add_adapters_bfloat16(memory, sizes):
    _add_adapters(BFLOAT16, memory, sizes)
