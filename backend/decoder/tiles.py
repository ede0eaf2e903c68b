"""A product of few rows as compiled tiles: the weights are read once, and fetched ahead, while every row's sums stay in registers.

Libraries multiply a dozen rows by weights that come from memory at half of what either the memory or the arithmetic allows. A tile
is up to fourteen rows by thirty-two or more outputs; Numba compiles it from instructions on vectors of sixteen float32 numbers, which a
processor with AVX-512 has 32 registers for. Sums are float32, in the order of the inputs, whatever the tile, so a row's bits do
not depend on its company. Weights lie in blocks of sixteen outputs, input by input. quick.py speaks to this in tensors.
"""

from __future__ import annotations

import numpy as np

from backend.decoder.kinds import (
    BFLOAT16,
    FLOAT32,
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
from backend.decoder.vectors import LANES, store_sixteen, store_sum, tile, turn_sixteen

GROUP = 8  # blocks whose number is rounded up to a multiple
IN_TURN = 32  # inputs at which two tiles of rows take turns; measured

_sixteen, _fourteen, _twelve = tile(16, 1), tile(14, 2), tile(12, 2)
_eight, _four, _two, _one = tile(8, 2), tile(4, 4), tile(2, 8), tile(1, 8)
_first_14, _first_12 = tile(14, 2, goes_on=True), tile(12, 2, goes_on=True)
_then_14, _then_12, _then_8, _then_4, _then_2 = (
    tile(side, 2, goes_on=True, fetches=False) for side in (14, 12, 8, 4, 2)
)


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
def _side_of(rows):
    """Of the smallest tile for so few rows."""
    return 14 if rows > 12 else 12 if rows > 8 else 8 if rows > 4 else 4 if rows > 2 else rows


@_part
def _sides_of(rows):
    """Of the tiles that rows are cut into, and of the last one. More than fourteen are cut so that the fewest are computed for nobody."""
    by_fourteen, by_twelve = _side_of((rows - 1) % 14 + 1), _side_of((rows - 1) % 12 + 1)
    if rows > 14 and (rows - 1) // 12 * 12 + by_twelve < (rows - 1) // 14 * 14 + by_fourteen:
        return 12, by_twelve
    return 14, by_fourteen


@_part
def _of_side(kind, side, weights, apart, given, inputs, sums):
    """A tile of so many rows. How many blocks side by side it takes."""
    if side == 14:
        _fourteen(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
        return 2
    if side == 12:
        _twelve(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
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
def _first_goes_on(kind, side, weights, apart, given, inputs, sums):
    """Two blocks' sums for the first of two tiles of rows, by so many inputs more."""
    if side == 14:
        _first_14(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
    else:
        _first_12(kind, weights, apart, LANES * _size(kind), given, inputs, sums)


@_part
def _then_goes_on(kind, side, weights, apart, given, inputs, sums):
    """The same for the second one, which finds the weights near."""
    if side == 14:
        _then_14(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
    elif side == 12:
        _then_12(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
    elif side == 8:
        _then_8(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
    elif side == 4:
        _then_4(kind, weights, apart, LANES * _size(kind), given, inputs, sums)
    else:
        _then_2(kind, weights, apart, LANES * _size(kind), given, inputs, sums)


@_part
def _in_turn(kind, stored, memory, sizes, blocks, sides, given, room):
    """Two tiles of rows take turns at a few inputs of two blocks: while the second multiplies what is near, what comes next is on its way."""
    rows, inputs, outputs, apart, stride = sizes
    (side, last), step, sums = sides, LANES * _size(stored), _to_float32(room)
    second, found = given + 4 * side * inputs, room + 8 * LANES * side
    for block in range(0, blocks, 2):
        for at in range(2 * LANES * (side + last)):
            sums[at] = 0
        for start in range(0, inputs, IN_TURN):
            count, weights = min(IN_TURN, inputs - start), memory[2] + block * apart + start * step
            _first_goes_on(stored, side, weights, apart, given + 4 * start * side, count, room)
            _then_goes_on(stored, last, weights, apart, second + 4 * start * last, count, found)
        _stored(kind, room, 2, block, 0, side, memory, outputs, stride)
        _stored(kind, found, 2, block, side, rows - side, memory, outputs, stride)


@_part
def _product(kind, stored, memory, sizes):
    """Of weights of the kind ``stored``. ``memory``: x, out, the blocks of weights, and ``more``, whose rows are ``stride`` numbers apart; 0 is nowhere.

    Blocks stay near while the tiles of all rows read them.
    """
    rows, inputs, outputs, apart, stride = sizes
    blocks = -(-outputs // (LANES * GROUP)) * GROUP
    side, last = _sides_of(rows)
    tiles = -(-rows // side)
    take_turns = tiles == 2 and _size(stored) == 4  # those in half the bytes come soon enough
    if take_turns:
        last = max(last, 2)
    rest = rows - (tiles - 1) * side
    given, sums = np.empty(tiles * side * inputs + LANES, np.float32), np.empty(4 * LANES * LANES, np.float32)
    begins = np.empty(tiles * side + LANES, np.int64)
    every, found, begin = given.ctypes.data, sums.ctypes.data, begins.ctypes.data
    _begun(begin, len(begins), memory[0], rows, inputs * _size(kind))
    for at in range(tiles):
        to = every + 4 * at * side * inputs
        _turned(kind, begin + 8 * at * side, inputs, to, last if at == tiles - 1 else side)
    if take_turns:
        _in_turn(kind, stored, memory, sizes, blocks, (side, last), every, found)
    for group in range(0, 0 if take_turns else blocks, GROUP):
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
    _until_here(begins)


@_part
def _add_to_span(kind, memory, sizes):
    """What one adapter adds to some rows that follow one another. ``memory``: x, out, the A of all adapters, input by input, and by
    run of layers what ``adding`` is told. A row's sums are the same wherever in a tile it stands."""
    run, size = _to_int64(memory[3]), _size(kind)
    whose, first, rows, inputs, outputs, inner, rank, runs = sizes
    room, begins = np.empty(LANES * (inputs + inner + LANES), np.float32), np.empty(2 * LANES, np.int64)
    given, begin = room.ctypes.data, begins.ctypes.data
    values, sums = given + 4 * LANES * inputs, given + 4 * LANES * (inputs + inner)
    _begun(begin + 8 * LANES, LANES, sums, LANES, 4 * LANES)
    for start in range(first, first + rows, LANES):
        own = min(LANES, first + rows - start)
        _begun(begin, LANES, memory[0] + start * inputs * size, own, inputs * size)
        _turned(kind, begin, inputs, given, LANES)
        for block in range(0, inner, LANES):
            a = memory[2] + (whose * inputs * inner + block) * size
            _sixteen(kind, a, 0, inner * size, given, inputs, sums)
            turn_sixteen(FLOAT32, begin + 8 * LANES, 0, values + 4 * block * LANES, LANES)
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
    _until_here(begins)


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
