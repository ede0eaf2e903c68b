"""What tokens see of the tokens before them, as compiled loops: a token of each row of a step, and the tokens of a prompt.

A part of the keys at a time is looked at by all who see it, so what they share stays near. A token's sums are those of parts that
begin at multiples of ``PART``, so its bits tell neither who else looked nor in which piece of memory a place stood.
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
    _get,
    _part,
    _put,
    _size,
    _to_float32,
    _to_int64,
    _until_here,
)
from backend.decoder.vectors import (
    IS_THERE,
    LANES,
    add_weighted,
    fetch,
    products_of_sixteen,
    products_with_sixteen,
)

AT_ONCE = 4  # keys or values that are read side by side, so that a query's numbers are fetched once for all
ADDED = 4  # vectors of sums that stay in registers while values are added
LINE = 64  # bytes that come from memory together
TOGETHER = 32  # tokens of a prompt that look at a part one after another
PART = 32  # places; what stands elsewhere of a prompt is a multiple of them

_add_to_one, _add_to_some = add_weighted(1), add_weighted(ADDED)
_products_64, _products_128 = products_with_sixteen(64), products_with_sixteen(128)  # sizes of heads


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
def _begun(query, first, asked, sums, largest, width, scale):
    """A row's query times ``scale``, and its sums and largest products before anything was looked at."""
    own, nothing, least = _to_float32(asked), _to_float32(sums), _to_float32(largest)
    for i in range(width):
        own[i] = _get(query, first + i) * scale
        nothing[i] = F(0)
    for i in range(LANES):
        least[i] = LEAST


@_part
def _weighed(scores, count, largest):
    """So many products become weights, of which the largest is 1. Their sum."""
    most, total, lanes, weights = LEAST, F(0), _to_float32(largest), _to_float32(scores)
    for i in range(LANES):
        most = max(most, lanes[i])
    for place in range(count):
        weight = _exp(weights[place] - most)
        total += weight
        weights[place] = weight
    return total


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
            _begun(
                query, first, asked + 4 * row * width, sums + 4 * row * width, largest + 4 * row * LANES, width, scale
            )
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
            total[row] = _weighed(first, length + count, lanes)
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
def _look_back(kind, memory, sizes):
    """Tokens of one text that follow one another see what comes before them and themselves; their keys and values are kept.

    ``memory``: the last ones' queries, all keys and values, where the sums go, and the layer's keys and values of the text.
    ``sizes``: how far a token's queries are from the next one's and its keys from theirs, for how many places there is room, the
    first token's place, tokens, how many of them have queries, heads, queries that share one, and numbers of each.
    """
    query, key, value = _at(kind, memory[0]), _at(kind, memory[1]), _at(kind, memory[2])
    out, keys, values = _at(kind, memory[3]), _at(kind, memory[4]), _at(kind, memory[5])
    stride, apart, places, start, tokens, given, heads, sharing, width = sizes
    for head in range(heads):
        for token in range(tokens):
            to, own = (head * places + start + token) * width, token * apart + head * width
            for i in range(width):
                keys[to + i] = key[own + i]
                values[to + i] = value[own + i]
    rows, many = min(given, TOGETHER) * sharing, start + tokens + 2 * LANES
    room = np.empty(rows * (2 * width + LANES + many + 1), np.float32)
    asked = room.ctypes.data
    sums, largest = asked + 4 * rows * width, asked + 8 * rows * width
    scores = largest + 4 * rows * LANES
    total = _to_float32(scores + 4 * rows * many)
    size, scale, first_place = width * _size(kind), F(1) / np.sqrt(F(width)), start + tokens - given
    for head in range(heads):
        its_keys, its_values = memory[4] + head * places * size, memory[5] + head * places * size
        for first in range(0, given, TOGETHER):
            rows, before = (
                min(TOGETHER, given - first) * sharing,
                first_place + first,
            )  # places before the first of these
            end = before + rows // sharing
            for row in range(rows):
                at = (first + row // sharing) * stride + (head * sharing + row % sharing) * width
                lanes = largest + 4 * row * LANES
                _begun(query, at, asked + 4 * row * width, sums + 4 * row * width, lanes, width, scale)
            for part in range(0, end, PART):
                for row in range(max(0, part - before) * sharing, rows):
                    count, to = min(PART, before + row // sharing + 1 - part), scores + 4 * (row * many + part)
                    lanes = largest + 4 * row * LANES
                    _scored(kind, asked + 4 * row * width, its_keys + part * size, count, width, to, lanes)
            for row in range(rows):
                count = before + row // sharing + 1
                total[row] = _weighed(scores + 4 * row * many, count, largest + 4 * row * LANES)
            for part in range(0, end, PART):
                for row in range(max(0, part - before) * sharing, rows):
                    count, its = min(PART, before + row // sharing + 1 - part), scores + 4 * (row * many + part)
                    _summed(kind, sums + 4 * row * width, its_values + part * size, count, width, its)
            for row in range(rows):
                found = _to_float32(sums + 4 * row * width)
                to = ((first + row // sharing) * heads * sharing + head * sharing + row % sharing) * width
                for i in range(width):
                    _put(out, to + i, found[i] / total[row])
    _until_here(room)


@_entry
def look_back_float32(memory, sizes):
    _look_back(FLOAT32, memory, sizes)


@_entry
def look_back_bfloat16(memory, sizes):
    _look_back(BFLOAT16, memory, sizes)


@_entry
def attend_float32(memory, sizes):
    _attend(FLOAT32, memory, sizes)


@_entry
def attend_bfloat16(memory, sizes):
    _attend(BFLOAT16, memory, sizes)
