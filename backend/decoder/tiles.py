"""A product of few rows as compiled tiles: the weights are read once, and fetched ahead, while every row's sums stay in registers.

Libraries multiply a dozen rows by weights that come from memory at half of what either the memory or the arithmetic allows. A tile
is up to sixteen rows by sixteen or more outputs; Numba compiles it from instructions on vectors of sixteen float32 numbers, which a
processor with AVX-512 has 32 registers for. Sums are float32, in the order of the inputs, whatever the tile, so a row's bits do
not depend on its company. Weights lie in blocks of sixteen outputs, input by input. quick.py speaks to this in tensors.
"""

from __future__ import annotations

import numpy as np

from backend.decoder.kinds import (
    BFLOAT16,
    FLOAT32,
    F,
    _at,
    _entry,
    _get,
    _part,
    _put,
    _size,
    _to_float32,
    _to_int64,
    _until_here,
)
from backend.decoder.vectors import LANES, store_sixteen, store_sum, tile

GROUP = 8  # blocks whose number is rounded up to a multiple

_sixteen, _fourteen = tile(16, 1), tile(14, 2)
_eight, _four, _two, _one = tile(8, 2), tile(4, 4), tile(2, 8), tile(1, 8)


@_part
def _turned(x, first, rows, inputs, to, side):
    """Rows of x input by input, ``side`` of them, of which those that are not there are 0."""
    numbers = _to_float32(to)
    for row in range(rows):
        start = (first + row) * inputs
        for i in range(inputs):
            numbers[i * side + row] = _get(x, start + i)
    for row in range(rows, side):  # nobody looks at their sums, but numbers near zero are a hundred times as slow
        for i in range(inputs):
            numbers[i * side + row] = F(0)


@_part
def _stored(kind, sums, blocks, block, first, rows, memory, outputs, stride):
    """The sums of a tile's rows, and ``more``, where they belong."""
    out, more, found, size = _at(kind, memory[1]), _at(kind, memory[3]), _to_float32(sums), _size(kind)
    for row in range(rows):
        for b in range(blocks):
            start, at = (block + b) * LANES, (row * blocks + b) * LANES
            to, beside = (first + row) * outputs + start, (first + row) * stride + start
            if start + LANES > outputs:
                for i in range(outputs - start):
                    _put(out, to + i, found[at + i] if memory[3] == 0 else found[at + i] + _get(more, beside + i))
            elif memory[3] == 0:
                store_sixteen(kind, sums + 4 * at, memory[1] + to * size)
            else:
                store_sum(kind, sums + 4 * at, memory[3] + beside * size, memory[1] + to * size)


@_part
def _of_side(kind, side, weights, apart, given, inputs, sums):
    """A tile of so many rows. How many blocks side by side it takes."""
    if side == 16:
        _sixteen(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
        return 1
    if side == 14:
        _fourteen(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
        return 2
    if side == 8:
        _eight(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
        return 2
    if side == 4:
        _four(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
        return 4
    if side == 2:
        _two(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
        return 8
    _one(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
    return 8


@_part
def _product(kind, stored, memory, sizes):
    """Of weights of the kind ``stored``. ``memory``: x, out, the blocks of weights, and ``more``, whose rows are ``stride`` numbers apart; 0 is nowhere.

    Up to sixteen rows are one tile. More are tiles of fourteen, whose blocks stay near while all read them, and a smaller last one.
    """
    x = _at(kind, memory[0])
    rows, inputs, outputs, apart, stride = sizes
    blocks = -(-outputs // (LANES * GROUP)) * GROUP
    side = LANES if rows <= LANES else 14
    tiles = -(-rows // side)
    rest = rows - (tiles - 1) * side
    last = side if rest > 8 else 8 if rest > 4 else 4 if rest > 2 else rest
    given, sums = np.empty(tiles * side * inputs, np.float32), np.empty(LANES * LANES * 2, np.float32)
    every, found = given.ctypes.data, sums.ctypes.data
    for at in range(tiles):
        own = rest if at == tiles - 1 else side
        _turned(x, at * side, own, inputs, every + 4 * at * side * inputs, last if at == tiles - 1 else side)
    for group in range(0, blocks, GROUP):
        for at in range(tiles):
            is_last = at == tiles - 1
            block = group
            while block < group + GROUP:
                weights, its = memory[2] + block * apart, every + 4 * at * side * inputs
                at_once = _of_side(stored, last if is_last else side, weights, apart, its, inputs, found)
                own = rest if is_last else side
                _stored(kind, found, at_once, block, at * side, own, memory, outputs, stride)
                block += at_once
    _until_here(given)
    _until_here(sums)


@_part
def _add_to_span(kind, memory, sizes):
    """What one adapter adds to some rows that follow one another. ``memory``: x, out, the A of all adapters, input by input, and by
    run of layers what ``adding`` is told. A row's sums are the same wherever in a tile it stands."""
    x, run, size = _at(kind, memory[0]), _to_int64(memory[3]), _size(kind)
    whose, first, rows, inputs, outputs, inner, rank, runs = sizes
    room = np.empty(LANES * (inputs + inner + LANES), np.float32)
    given = room.ctypes.data
    values, sums = given + 4 * LANES * inputs, given + 4 * LANES * (inputs + inner)
    turned, found = _to_float32(values), _to_float32(sums)
    for start in range(first, first + rows, LANES):
        own = min(LANES, first + rows - start)
        _turned(x, start, own, inputs, given, LANES)
        for block in range(0, inner, LANES):
            a = memory[2] + (whose * inputs * inner + block) * size
            _sixteen(kind, a, 0, inner * size, given, inputs, sums)
            for row in range(LANES):
                for i in range(LANES):
                    turned[(block + i) * LANES + row] = found[row * LANES + i]
        for at in range(0, 5 * runs, 5):
            layers, many = run[at + 1], run[at + 2]
            for layer in range(layers):
                numbers = values + 4 * (run[at + 3] + layer * rank) * LANES
                for block in range(0, many, LANES):
                    b = run[at] + ((whose * layers + layer) * rank * many + block) * size
                    _sixteen(kind, b, 0, many * size, numbers, rank, sums)
                    to = memory[1] + (start * outputs + run[at + 4] + layer * many + block) * size
                    for row in range(own):
                        store_sum(kind, sums + 4 * row * LANES, to + row * outputs * size, to + row * outputs * size)
    _until_here(room)


@_entry
def add_to_span_float32(memory, sizes):
    _add_to_span(FLOAT32, memory, sizes)


@_entry
def add_to_span_bfloat16(memory, sizes):
    _add_to_span(BFLOAT16, memory, sizes)


@_entry
def product_float32(memory, sizes):
    _product(FLOAT32, FLOAT32, memory, sizes)


@_entry
def product_float32_by_bfloat16(memory, sizes):
    _product(FLOAT32, BFLOAT16, memory, sizes)


@_entry
def product_bfloat16(memory, sizes):
    _product(BFLOAT16, BFLOAT16, memory, sizes)
