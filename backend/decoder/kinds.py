"""Numbers in memory, for the compiled loops: pointers from addresses, and kinds of numbers, float32 or bfloat16, by their types."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from backend.decoder.vectors import LANES, kept, turn_sixteen

F = np.float32
LEAST = F(-3e38)

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


def _size(kind):
    """Bytes of a number."""


@overload(_size, inline="always")
def _size_by_type(kind):  # of int8 four stand together
    return (lambda kind: 2) if kind == types.uint16 else (lambda kind: 4)


@_part
def _farthest(x, first, count):
    """The largest distance from zero; no number where there is one that is none. Bits are compared, which goes side by side."""
    most = np.uint32(0)
    for i in range(count):
        most = max(most, np.float32(_get(x, first + i)).view(np.uint32) & np.uint32(0x7FFFFFFF))
    return np.uint32(most).view(np.float32)


@_part
def _begun(to, count, first, rows, apart):
    """Where each of ``count`` rows begins, so many bytes ``apart``; those behind the last are it again."""
    begin = _to_int64(to)
    for row in range(count):
        begin[row] = first + min(row, rows - 1) * apart


@_part
def _turned(kind, rows, inputs, to, side):
    """The numbers of ``side`` rows, which begin at the addresses of sixteen at ``rows``, number by number as float32. Behind the last
    number there is room for sixteen less ``side``."""
    numbers, begin, done = _to_float32(to), _to_int64(rows), 0
    if side >= LANES // 2:  # fewer are as quick one by one
        done = inputs // LANES * LANES
        for i in range(0, done, LANES):
            turn_sixteen(kind, rows, i * _size(kind), to + 4 * i * side, side)
    for row in range(side):
        own = _at(kind, begin[row])
        for i in range(done, inputs):
            numbers[i * side + row] = _get(own, i)
