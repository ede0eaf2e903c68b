"""The work between a step's products as compiled loops over memory: a processor's, in float32 or bfloat16.

A step of a small model has some thirty calls of a few microseconds in every layer between four products; these are four. Numba
compiles them for the processor at hand when they are first asked for, and keeps what it compiled. Every row is computed by itself in
an order that follows from its own length alone, so its bits do not depend on its company. Given are addresses of contiguous
memory; quick.py speaks to them in tensors. Sums are in float32, what is stored is rounded to the nearest, ties to even.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from backend.decoder.vectors import (
    IS_THERE,
    LANES,
    add_weighted,
    fetch,
    kept,
    products_of_sixteen,
    products_with_sixteen,
)

F = np.float32
LEAST = F(-3e38)
AT_ONCE = 4  # keys or values that are read side by side, so that a query's numbers are fetched once for all
ADDED = 4  # vectors of sums that stay in registers while values are added
DRAWN = 256  # weights that are passed over together when a token is looked up
LINE = 64  # bytes that come from memory together
PART = 32  # places; what stands elsewhere of a prompt is a multiple of them

_entry, _part = kept(), kept(forceinline=True)


def _pointer(to):
    """Makes pointers. What is stored by one that was made in the same turn of a loop and is not used again, Numba takes for dead and
    leaves out: they are made before the loop that stores."""

    @intrinsic
    def made(typing, address):
        def code(context, builder, signature, given):
            return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

        return types.CPointer(to)(types.int64), code

    return made


_to_float32, _to_int64 = _pointer(types.float32), _pointer(types.int64)
_to_bytes, _to_bits, _to_float64 = _pointer(types.uint8), _pointer(types.uint16), _pointer(types.float64)
_to_signed, _to_int32 = _pointer(types.int8), _pointer(types.int32)


@intrinsic
def _until_here(typing, room):
    """Memory whose address alone was spoken of is there up to this place."""
    return types.void(room), lambda context, builder, signature, given: context.get_dummy_value()


FLOAT32, BFLOAT16 = np.float32(0), np.uint16(0)  # kinds of numbers, told apart by their types while loops are compiled


def _at(kind, address):
    """A pointer to numbers of this kind."""


@overload(_at, inline="always")
def _at_by_type(kind, address):
    if kind == types.float32:
        return lambda kind, address: _to_float32(address)
    return lambda kind, address: _to_bits(address)


def _get(numbers, at):
    """A number, as float32."""


@overload(_get, inline="always")
def _get_by_type(numbers, at):
    if numbers.dtype == types.float32:
        return lambda numbers, at: numbers[at]
    return lambda numbers, at: np.uint32(np.uint32(numbers[at]) << np.uint32(16)).view(np.float32)


def _put(numbers, at, value):
    """Store a float32."""


@overload(_put, inline="always")
def _put_by_type(numbers, at, value):
    if numbers.dtype == types.float32:

        def plainly(numbers, at, value):
            numbers[at] = value

        return plainly

    def to_half(numbers, at, value):
        bits = np.float32(value).view(np.uint32)
        numbers[at] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return to_half


def _rounded(numbers, value):
    """A float32 as it would be read again from where these numbers are."""


@overload(_rounded, inline="always")
def _rounded_by_type(numbers, value):
    if numbers.dtype == types.float32:
        return lambda numbers, value: value

    def by_half(numbers, value):
        bits = np.float32(value).view(np.uint32)
        half = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        return np.uint32(half << np.uint32(16)).view(np.float32)

    return by_half


@_part
def _exp(x):
    """e^x to a few units in the last place: x = n ln 2 + r, and a polynomial of r (Cephes' expf). Of -87 below that; x is at most 88."""
    x = max(x, F(-87.0))
    n = np.floor(x * F(1.44269504) + F(0.5))
    r = x - n * F(0.693359375) + n * F(2.12194440e-4)
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    return (p * r * r + r + F(1.0)) * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


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


_add_to_one, _add_to_some = add_weighted(1), add_weighted(ADDED)
_products_64, _products_128 = products_with_sixteen(64), products_with_sixteen(128)  # sizes of heads


def _size(kind):
    """Bytes of a number."""


@overload(_size, inline="always")
def _size_by_type(kind):  # of int8 four stand together
    return (lambda kind: 2) if kind == types.uint16 else (lambda kind: 4)


@_part
def _scored(kind, query, keys, count, width, scores, largest):
    """A query's products with so many keys. Each of sixteen lanes of ``largest`` becomes the largest number that fell to it. Up to
    fifteen places more are written."""
    if not IS_THERE or width % LANES != 0:
        _scored_by_number(kind, query, keys, count, width, scores, largest)
        return
    place, sixteen = 0, LANES * width * _size(kind)
    while place + LANES <= count and width in (64, 128):
        if width == 64:
            _products_64(kind, query, keys, scores, largest)
        else:
            _products_128(kind, query, keys, scores, largest)
        place, keys, scores = place + LANES, keys + sixteen, scores + 4 * LANES
    while place < count:
        products_of_sixteen(kind, query, keys, count - 1 - place, width, scores, largest)
        place, keys, scores = place + LANES, keys + sixteen, scores + 4 * LANES


@_part
def _scored_by_number(kind, query, keys, count, width, scores, largest):
    asked, key, found, most = _to_float32(query), _at(kind, keys), _to_float32(scores), _to_float32(largest)
    place = 0
    while place + AT_ONCE <= count:
        k = place * width
        a, b, c, d = F(0), F(0), F(0), F(0)
        for i in range(width):
            q = asked[i]
            a += q * _get(key, k + i)
            b += q * _get(key, k + width + i)
            c += q * _get(key, k + 2 * width + i)
            d += q * _get(key, k + 3 * width + i)
        found[place], found[place + 1], found[place + 2], found[place + 3] = a, b, c, d
        most[0] = max(most[0], a, b, c, d)
        place += AT_ONCE
    while place < count:
        a = F(0)
        for i in range(width):
            a += asked[i] * _get(key, place * width + i)
        found[place] = a
        most[0] = max(most[0], a)
        place += 1


@_part
def _summed(kind, sums, values, count, width, weights):
    """Add so many values by their weights."""
    if not IS_THERE or width % LANES != 0:
        _summed_by_number(kind, sums, values, count, width, weights)
        return
    i, size = 0, _size(kind)
    while i < width:
        if i + ADDED * LANES <= width:
            _add_to_some(kind, weights, values + i * size, count, width * size, sums + 4 * i)
            i += ADDED * LANES
        else:
            _add_to_one(kind, weights, values + i * size, count, width * size, sums + 4 * i)
            i += LANES


@_part
def _summed_by_number(kind, sums, values, count, width, weights):
    found, value, weight = _to_float32(sums), _at(kind, values), _to_float32(weights)
    place = 0
    while place + AT_ONCE <= count:
        v = place * width
        a, b, c, d = weight[place], weight[place + 1], weight[place + 2], weight[place + 3]
        for i in range(width):
            found[i] += (
                a * _get(value, v + i)
                + b * _get(value, v + width + i)
                + c * _get(value, v + 2 * width + i)
                + d * _get(value, v + 3 * width + i)
            )
        place += AT_ONCE
    while place < count:
        for i in range(width):
            found[i] += weight[place] * _get(value, place * width + i)
        place += 1


@_part
def _stands(prompts, shape, slot, place, room, size):
    """Where a place of a slot's prompt is in memory: in the room of its beginning or in its own. ``room``: how many of a head's keys or
    values come before; ``size``: bytes of a place."""
    if place < shape[5 * slot + 3]:
        return prompts[2 * slot + 1] + (room * shape[5 * slot + 4] + place) * size
    return prompts[2 * slot] + (room * shape[5 * slot + 2] + place) * size


@_part
def _have_own_fetched(first, size, own, length, start):
    """Have a share of a slot's own places on its way while a part of its prompt, which others have near already, is looked at."""
    if IS_THERE:
        at, parts = start // PART, -(-length // PART)
        for line in range(own * size * at // parts, own * size * (at + 1) // parts, LINE):
            fetch(first + line)


@_part
def _attend(kind, memory, sizes):
    """A token of each slot sees itself and what is before it; its key and value are kept.

    ``memory``: the token's query, key and value, where the sums go, the layer's keys and values, by slot where its prompt is and where
    the prompt's beginning, and by slot how many tokens it has read, how many its prompt has, for how many there are places, how
    many its beginning has, of which the prompt's own room is not looked at, and for how many that has places.
    """
    query, key, value = _at(kind, memory[0]), _at(kind, memory[1]), _at(kind, memory[2])
    out, keys, values = _at(kind, memory[3]), _at(kind, memory[4]), _at(kind, memory[5])
    prompts, shape = _to_int64(memory[6]), _to_int64(memory[7])
    stride, places, layer, slots, heads, sharing, width = sizes
    longest, prompted = 0, 0
    for slot in range(slots):
        own, length = shape[5 * slot], shape[5 * slot + 1]
        longest, prompted = max(longest, own + 1 + length), max(prompted, length)
        for head in range(heads):
            to = ((slot * heads + head) * places + own) * width
            for i in range(width):
                keys[to + i] = key[slot * stride + head * width + i]
                values[to + i] = value[slot * stride + head * width + i]
    rows = slots * sharing  # that look at one head
    many = longest + 2 * LANES  # places for the products of a row
    room = np.empty(rows * (2 * width + LANES + many + 1), np.float32)
    asked = room.ctypes.data
    sums, largest = asked + 4 * rows * width, asked + 8 * rows * width
    scores = largest + 4 * rows * LANES
    total = _to_float32(scores + 4 * rows * many)
    size, scale = width * _size(kind), F(1) / np.sqrt(F(width))
    for head in range(heads):  # one head of all rows, and a part of their prompts at a time: what they share stays near
        for row in range(rows):
            first = row // sharing * stride + (head * sharing + row % sharing) * width
            own, nothing = _to_float32(asked + 4 * row * width), _to_float32(sums + 4 * row * width)
            for i in range(width):
                own[i] = _get(query, first + i) * scale
                nothing[i] = F(0)
            least = _to_float32(largest + 4 * row * LANES)
            for i in range(LANES):
                least[i] = LEAST
        for start in range(0, prompted, PART):
            for slot in range(slots):
                count = min(PART, shape[5 * slot + 1] - start)
                if count > 0:
                    these = _stands(prompts, shape, slot, start, 2 * layer * heads + head, size)
                    mine = memory[4] + (slot * heads + head) * places * size
                    _have_own_fetched(mine, size, shape[5 * slot], shape[5 * slot + 1], start)
                    for row in range(slot * sharing, (slot + 1) * sharing):
                        to, most = scores + 4 * (row * many + start), largest + 4 * row * LANES
                        _scored(kind, asked + 4 * row * width, these, count, width, to, most)
        for row in range(rows):
            slot = row // sharing
            count, length, first = shape[5 * slot] + 1, shape[5 * slot + 1], scores + 4 * row * many
            these, lanes = memory[4] + (slot * heads + head) * places * size, largest + 4 * row * LANES
            _scored(kind, asked + 4 * row * width, these, count, width, first + 4 * length, lanes)
            most, whole, weights = LEAST, F(0), _to_float32(first)
            for i in range(LANES):
                most = max(most, _to_float32(lanes)[i])
            for place in range(length + count):
                weight = _exp(weights[place] - most)
                whole += weight
                weights[place] = weight
            total[row] = whole
        # a part's values have sums of their own: how many stand in one room and how many in the next does not show in the last bits
        for start in range(0, prompted, PART):
            for slot in range(slots):
                count = min(PART, shape[5 * slot + 1] - start)
                if count > 0:
                    these = _stands(prompts, shape, slot, start, (2 * layer + 1) * heads + head, size)
                    mine = memory[5] + (slot * heads + head) * places * size
                    _have_own_fetched(mine, size, shape[5 * slot], shape[5 * slot + 1], start)
                    for row in range(slot * sharing, (slot + 1) * sharing):
                        weights = scores + 4 * (row * many + start)
                        _summed(kind, sums + 4 * row * width, these, count, width, weights)
        for row in range(rows):
            slot = row // sharing
            count, length = shape[5 * slot] + 1, shape[5 * slot + 1]
            these, found = memory[5] + (slot * heads + head) * places * size, _to_float32(sums + 4 * row * width)
            _summed(kind, sums + 4 * row * width, these, count, width, scores + 4 * (row * many + length))
            to = ((slot * heads + head) * sharing + row % sharing) * width
            for i in range(width):
                _put(out, to + i, found[i] / total[row])
    _until_here(room)


@_part
def _add_adapters(kind, memory, sizes):
    """Each row's own adapter's part. ``memory``: x, out, the A of all adapters, input by input, by row its adapter (-1: none), and by run of layers
    where its B are, how many layers, how many outputs of each, and the first of its inner values and outputs."""
    x, out, size = _at(kind, memory[0]), _at(kind, memory[1]), _size(kind)
    owner, run = _to_int64(memory[3]), _to_int64(memory[4])
    rows, inputs, outputs, inner, rank, runs = sizes
    room = np.empty(inputs + inner + outputs, np.float32)
    asked = room.ctypes.data
    found, summed = asked + 4 * inputs, asked + 4 * (inputs + inner)
    given, values, sums = _to_float32(asked), _to_float32(found), _to_float32(summed)
    for row in range(rows):
        whose = owner[row]
        if whose < 0:
            continue
        for i in range(inputs):
            given[i] = _get(x, row * inputs + i)
        for i in range(inner):
            values[i] = F(0)
        _summed(kind, found, memory[2] + whose * inner * inputs * size, inputs, inner, asked)
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
    _until_here(room)


@_part
def _farthest(x, first, count):
    """The largest distance from zero; no number where there is one that is none. Bits are compared, which goes side by side."""
    most = np.uint32(0)
    for i in range(count):
        most = max(most, np.float32(_get(x, first + i)).view(np.uint32) & np.uint32(0x7FFFFFFF))
    return np.uint32(most).view(np.float32)


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


@_entry
def drawn(logits, temperature, uniform, out, rows, width):
    """Each row's token, by its random number, from the softmax of its logits over its temperature; of 0 the likeliest, and of equals the
    first. The number is looked up in the cumulated weights in the order of the tokens; what is e^-87 times as likely as the likeliest is never drawn.
    """
    given, temperatures = _to_float32(logits), _to_float32(temperature)
    numbers, tokens, weights = _to_float64(uniform), _to_int64(out), np.empty(width, np.float32)
    for row in range(rows):
        first, most, warmth = row * width, LEAST, temperatures[row]
        for i in range(width):
            most = max(most, given[first + i])
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
            weight = F(0) if x < F(-87) else _exp(x)
            weights[i] = weight
            total += np.float64(weight)
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
def add_adapters_float32(memory, sizes):
    _add_adapters(FLOAT32, memory, sizes)


@_entry
def attend_float32(memory, sizes):
    _attend(FLOAT32, memory, sizes)


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


@_entry
def add_adapters_bfloat16(memory, sizes):
    _add_adapters(BFLOAT16, memory, sizes)


@_entry
def attend_bfloat16(memory, sizes):
    _attend(BFLOAT16, memory, sizes)
