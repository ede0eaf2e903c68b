"""Instructions on sixteen float32 numbers at once, for what Numba compiles here (``COMPILED``).

Numba writes no such instructions itself, and its loops over a row's numbers end in sums across a register for each key. These are put
together from LLVM's vectors. An address is a whole number; ``kind`` is a number of the format that stands there, float32,
bfloat16 as 16 bits, or int8, four in the place of one. What a row is given does not depend on what else is computed with it.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import llvmlite.binding
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
AHEAD = 4096  # bytes between what is multiplied and what is fetched, shared by the blocks of a tile; measured
_CAN = llvmlite.binding.get_host_cpu_features()
IS_THERE = bool(_CAN.get("avx512f"))  # 32 registers; with fewer it would be slower
MULTIPLIES_BYTES = IS_THERE and bool(_CAN.get("avx512vnni"))
FOUR = 4  # bytes that are multiplied by four others, and added up, in each lane

_FLOAT, _BYTE, _LONG, _INT, _NOTHING = ir.FloatType(), ir.IntType(8), ir.IntType(64), ir.IntType(32), ir.VoidType()
_VECTOR, _WHOLE, _HALVES = (ir.VectorType(one, LANES) for one in (_FLOAT, _INT, ir.IntType(16)))


COMPILED = "adding", "attending", "kinds", "layers", "loops", "tiles", "vectors", "whole_tiles"
SOURCES = [Path(__file__).with_name(f"{name}.py") for name in COMPILED]


def kept(**more):
    """Compile for float32 sums side by side, and keep what is compiled until one of ``SOURCES`` changes: Numba looks at a function's own
    file alone, and these are written into one another."""
    fast = {"reassoc", "contract", "arcp", "nsz"}  # what is not a number stays so
    stamp = tuple((one.stat().st_mtime, one.stat().st_size) for one in SOURCES)

    def made(function):
        found = njit(nogil=True, cache=True, error_model="numpy", fastmath=fast, **more)(function)
        found._cache._cache_file._source_stamp = stamp  # no public name for it
        return found

    return made


class _Writer:
    """Writes instructions for numbers of one kind."""

    number, vector = _FLOAT, _VECTOR  # of what is added up

    def __init__(self, builder, kind):
        self.builder, self.is_half = builder, kind != types.float32
        self.size = 2 if self.is_half else 4  # bytes of a number
        self._multiply = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.fma.v16f32"
        )
        fetches = ir.FunctionType(_NOTHING, [_BYTE.as_pointer(), _INT, _INT, _INT])
        self._fetch = cgutils.get_or_insert_function(builder.module, fetches, "llvm.prefetch.p0")

    def after(self, address, number, times=1):
        return self.builder.add(address, self.builder.mul(number, ir.Constant(_LONG, times)))

    def place(self, to, address, offset=0):
        return self.builder.inttoptr(self.builder.add(address, ir.Constant(_LONG, offset)), to.as_pointer())

    def numbers(self, address, offset=0):
        """Sixteen of this kind, as float32."""
        if not self.is_half:
            return self.floats(address, offset)
        bits = self.builder.zext(self.builder.load(self.place(_HALVES, address, offset), align=2), _WHOLE)
        return self.builder.bitcast(self.builder.shl(bits, ir.Constant(_WHOLE, [16] * LANES)), _VECTOR)

    def floats(self, address, offset=0):
        return self.builder.load(self.place(_VECTOR, address, offset), align=4)

    def everywhere(self, address, offset=0):
        """A number in every lane; of bytes, four."""
        return self.spread(self.builder.load(self.place(self.number, address, offset), align=4), self.vector)

    def spread(self, number, vector):
        """The number in every lane."""
        unsaid = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(unsaid, number, ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(first, unsaid, ir.Constant(_WHOLE, [0] * LANES))

    def store(self, vector, address, offset=0):
        self.builder.store(vector, self.place(self.vector, address, offset), align=4)

    def put(self, vector, address):
        """Sixteen float32 as this kind, rounded to the nearest, ties to even."""
        if not self.is_half:
            self.builder.store(vector, self.place(_VECTOR, address), align=4)
            return
        all_of = [ir.Constant(_WHOLE, [number] * LANES) for number in (16, 1, 0x7FFF)]
        bits = self.builder.bitcast(vector, _WHOLE)
        is_odd = self.builder.and_(self.builder.lshr(bits, all_of[0]), all_of[1])
        rounded = self.builder.lshr(self.builder.add(self.builder.add(bits, all_of[2]), is_odd), all_of[0])
        self.builder.store(self.builder.trunc(rounded, _HALVES), self.place(_HALVES, address), align=2)

    def sums(self, count):
        """Places in registers, which begin at zero."""
        nothing = ir.Constant(self.vector, None)
        return [cgutils.alloca_once_value(self.builder, nothing) for _ in range(count)]

    def add_product(self, to, a, b):
        self.builder.store(self.builder.call(self._multiply, [a, b, self.builder.load(to)]), to)

    def fetch(self, address, offset):
        """Have it on its way into all caches."""
        how = (ir.Constant(_INT, one) for one in (0, 3, 1))  # to be read, to all of them, as data
        self.builder.call(self._fetch, [self.place(_BYTE, address, offset), *how])

    def across(self, vectors):
        """The sums of sixteen vectors' lanes, in one vector: neighbours are added, four times over."""
        even, odd = (ir.Constant(_WHOLE, list(range(first, 2 * LANES, 2))) for first in (0, 1))
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2])
            vectors = [
                self.builder.fadd(
                    self.builder.shuffle_vector(one, other, even), self.builder.shuffle_vector(one, other, odd)
                )
                for one, other in pairs
            ]
        return vectors[0]

    def turned(self, rows):
        """Sixteen vectors of sixteen as a square whose rows become columns: halves change places, then quarters, eighths, sixteenths."""
        for apart in (8, 4, 2, 1):
            lanes = [(lane, bool(lane & apart)) for lane in range(LANES)]
            low = ir.Constant(_WHOLE, [LANES + lane - apart if is_other else lane for lane, is_other in lanes])
            high = ir.Constant(_WHOLE, [LANES + lane if is_other else lane + apart for lane, is_other in lanes])
            for at in (at for at in range(LANES) if not at & apart):
                pair = rows[at], rows[at + apart]
                rows[at], rows[at + apart] = (self.builder.shuffle_vector(*pair, how) for how in (low, high))
        return rows

    def by_two(self, count, halves, add):
        """``add`` so many numbers, those that are even to one half and those that are odd to the other."""
        one, two = ir.Constant(_LONG, 1), ir.Constant(_LONG, 2)
        with cgutils.for_range(self.builder, self.builder.sdiv(count, two)) as loop:
            first = self.builder.mul(loop.index, two)
            add(halves[0], first)
            add(halves[1], self.builder.add(first, one))
        with self.builder.if_then(self.builder.icmp_signed("==", self.builder.srem(count, two), one)):
            add(halves[0], self.builder.sub(count, one))

    def store_products(self, total, out, largest):
        """Sixteen sums across their lanes, and what is the largest in its lane by now."""
        found, so_far = self.across([self.builder.load(own) for own in total]), self.floats(largest)
        self.store(found, out)
        self.store(self.builder.select(self.builder.fcmp_ordered(">", found, so_far), found, so_far), largest)


class _ByteWriter(_Writer):
    """Of bytes: those without a sign times those with one, as whole numbers of 32 bits."""

    number, vector = _INT, _WHOLE

    def __init__(self, builder, kind):
        super().__init__(builder, kind)
        self._multiply = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_WHOLE, [_WHOLE] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )

    def numbers(self, address, offset=0):
        return self.builder.load(self.place(_WHOLE, address, offset), align=4)

    def add_product(self, to, a, b):
        """``b`` are those without a sign."""
        self.builder.store(self.builder.call(self._multiply, [self.builder.load(to), b, a]), to)


def tile(rows, blocks, *, goes_on=False, fetches=True):
    """sums (rows, blocks, 16) of given (inputs, rows) float32 and of weights in blocks of sixteen outputs, which lie ``apart``; within
    them ``step`` bytes are from input to input. Of int8 four inputs stand for one, weights have no sign, and sums are int32.

    ``goes_on``: they are added to what is in ``sums``. ``fetches``: the weights that come next are had on their way."""

    @intrinsic
    def act(typing, kind, weights, apart, step, given, inputs, sums):
        def code(context, builder, signature, args):
            _, weights, apart, step, given, inputs, sums = args
            to = (_ByteWriter if kind == types.int8 else _Writer)(builder, kind)
            total = [to.sums(blocks) for _ in range(rows)]
            places = [(own, 4 * LANES * at) for at, own in enumerate(itertools.chain(*total))]
            for own, place in places if goes_on else []:
                builder.store(builder.load(to.place(to.vector, sums, place), align=4), own)
            begins = [to.after(weights, apart, block) for block in range(blocks)]
            with cgutils.for_range(builder, inputs) as loop:
                side_by_side = []
                for begin in begins:
                    at = builder.add(begin, builder.mul(step, loop.index))
                    if fetches:
                        to.fetch(at, max(AHEAD // blocks, 1024))
                    side_by_side.append(to.numbers(at))
                own = to.after(given, loop.index, 4 * rows)
                for row in range(rows):
                    number = to.everywhere(own, 4 * row)
                    for block in range(blocks):
                        to.add_product(total[row][block], number, side_by_side[block])
            for own, place in places:
                to.store(builder.load(own), sums, place)
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 6), code

    return act


def paired_tile(rows):
    """sums (rows, 16) of given (inputs, rows) float32 and of weights of sixteen outputs, ``step`` bytes from input to input, in two parts
    as those of ``add_weighted``."""

    @intrinsic
    def act(typing, kind, weights, step, given, inputs, sums):
        def code(context, builder, signature, args):
            _, weights, step, given, inputs, sums = args
            to = _Writer(builder, kind)
            halves = to.sums(rows), to.sums(rows)

            def add(total, number):
                side_by_side = to.numbers(builder.add(weights, builder.mul(step, number)))
                own = to.after(given, number, 4 * rows)
                for row in range(rows):
                    to.add_product(total[row], to.everywhere(own, 4 * row), side_by_side)

            to.by_two(inputs, halves, add)
            for row, (even, odd) in enumerate(zip(*halves)):
                to.store(builder.fadd(builder.load(even), builder.load(odd)), sums, 4 * LANES * row)
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 5), code

    return act


@intrinsic
def turn_sixteen(typing, kind, rows, offset, to, side):
    """Sixteen numbers of each of sixteen rows, ``offset`` bytes behind the addresses at ``rows``, number by number as float32, ``side``
    places apart. What is written for a number are sixteen places: those behind ``side`` are the next number's, or spare."""

    def code(context, builder, signature, args):
        _, rows, offset, out, side = args
        own = _Writer(builder, kind)
        begins = [builder.load(own.place(_LONG, rows, 8 * at)) for at in range(LANES)]
        for at, vector in enumerate(own.turned([own.numbers(builder.add(begin, offset)) for begin in begins])):
            own.store(vector, own.after(out, side, 4 * at))
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 4), code


@intrinsic
def store_sixteen(typing, kind, numbers, to):
    """Sixteen float32 where they belong. Loops over so few that might overlap are taken number by number."""

    def code(context, builder, signature, args):
        own = _Writer(builder, kind)
        own.put(own.floats(args[1]), args[2])
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64), code


@intrinsic
def store_sum(typing, kind, numbers, more, to):
    """Sixteen float32, and sixteen of this kind, where they belong."""

    def code(context, builder, signature, args):
        own = _Writer(builder, kind)
        own.put(builder.fadd(own.floats(args[1]), own.numbers(args[2])), args[3])
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 3), code


@intrinsic
def count_sixteen(typing, sums, above, scale, step):
    """Sixteen int32 less a number become, in place, the float32 that they count: times their scales and one step."""

    def code(context, builder, signature, args):
        sums, above, scale, step = args
        to = _Writer(builder, types.float32)
        whole = builder.load(to.place(_WHOLE, sums), align=4)
        number = builder.sitofp(builder.sub(whole, to.spread(above, _WHOLE)), _VECTOR)
        to.store(builder.fmul(builder.fmul(number, to.floats(scale)), to.spread(step, _VECTOR)), sums)
        return context.get_dummy_value()

    return types.void(types.int64, types.int32, types.int64, types.float32), code


@intrinsic
def fetch(typing, address):
    """Have what stands there on its way into all caches."""

    def code(context, builder, signature, args):
        _Writer(builder, types.float32).fetch(args[0], 0)
        return context.get_dummy_value()

    return types.void(types.int64), code


@intrinsic
def products_of_sixteen(typing, kind, query, keys, last, width, to, largest):
    """A float32 query's products with sixteen keys that follow one another, of which those behind the ``last`` are it again.
    ``width`` is a multiple of sixteen. Each of the sixteen numbers of ``largest`` becomes the product in its place if that is larger."""

    def code(context, builder, signature, args):
        _, query, keys, last, width, out, largest = args
        to = _Writer(builder, kind)
        total = to.sums(LANES)
        row = builder.mul(width, ir.Constant(_LONG, to.size))
        begins = []
        for at in range(LANES):
            number = ir.Constant(_LONG, at)
            begins.append(
                to.after(keys, builder.mul(row, builder.select(builder.icmp_signed("<", number, last), number, last)))
            )
        with cgutils.for_range(builder, builder.sdiv(width, ir.Constant(_LONG, LANES))) as loop:
            asked = to.floats(to.after(query, loop.index, 4 * LANES))
            for begin, own in zip(begins, total):
                to.add_product(own, asked, to.numbers(to.after(begin, loop.index, LANES * to.size)))
        to.store_products(total, out, largest)
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 6), code


def products_with_sixteen(width):
    """The same of keys that are all there and so wide: their places are in the instructions, which saves a third of the time."""

    @intrinsic
    def act(typing, kind, query, keys, to, largest):
        def code(context, builder, signature, args):
            _, query, keys, out, largest = args
            to = _Writer(builder, kind)
            total = to.sums(LANES)
            for first in range(0, width, LANES):
                asked = to.floats(query, 4 * first)
                for at, own in enumerate(total):
                    to.add_product(own, asked, to.numbers(keys, to.size * (at * width + first)))
            to.store_products(total, out, largest)
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 4), code

    return act


def add_weighted(vectors):
    """Add to so many vectors of sums ``count`` rows of values by their weights, both float32; the rows lie ``apart``."""

    @intrinsic
    def act(typing, kind, weights, values, count, apart, sums):
        def code(context, builder, signature, args):
            _, weights, values, count, apart, sums = args
            to = _Writer(builder, kind)
            even, odd = to.sums(vectors), to.sums(vectors)  # each waits for its last sum, and there are twice as many

            def add(total, number):
                weight = to.everywhere(to.after(weights, number, 4))
                row = to.after(values, builder.mul(number, apart))
                for at, own in enumerate(total):
                    to.add_product(own, weight, to.numbers(row, at * LANES * to.size))

            to.by_two(count, (even, odd), add)
            for at in range(vectors):
                both = builder.fadd(builder.load(even[at]), builder.load(odd[at]))
                to.store(builder.fadd(to.floats(sums, 4 * LANES * at), both), sums, 4 * LANES * at)
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 5), code

    return act
