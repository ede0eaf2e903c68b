"""Texts that are read pass through a decoder's layers in one compiled call: nothing between two layers asks for Python.

Python computes on one thread at a time. A thread that reads a prompt in a dozen calls a layer waits after many of them for the thread
that writes, longer than the call took. What is computed is what stack.py computes call by call, by the same loops; passing.py lays out
what is given here.
"""

from __future__ import annotations

import numpy as np

from backend.decoder.attending import look_back_float32
from backend.decoder.kinds import _entry, _part, _to_float64, _to_int64, _until_here
from backend.decoder.loops import gated_float32, norm_float32, turn_float32
from backend.decoder.tiles import add_to_span_float32, product_float32, product_float32_by_bfloat16
from backend.decoder.whole_tiles import product_float32 as product_by_bytes

PRODUCTS = 4  # of a layer
PRODUCT = 6  # numbers that say where a product's weights are
LAYER = 2 + PRODUCTS * PRODUCT  # numbers of a layer
ADAPTED = 5  # numbers that say what adapters of one kind add to a product
SPAN, TEXT = 4, 5  # numbers that say which rows are an adapter's, and which a text's


@_part
def _by_blocks(memory, sizes, more, is_half):
    """A product of blocks, which are kept in half the bytes or whole."""
    x, out, weights = memory
    if is_half != 0:
        product_float32_by_bfloat16((x, out, weights, more), sizes)
    else:
        product_float32((x, out, weights, more), sizes)


@_part
def _by_bytes(memory, sizes, more, scale):
    """A product of whole numbers; ``scale``: where it is said what they count."""
    x, out, weights = memory
    product_by_bytes((x, out, weights, more, scale), sizes)


@_part
def _with_adapters(product, memory, adapted, apart, spans, rows):
    """A base's product, and what adapters add. ``memory``: x, out, what says where the weights are, and ``more``, which is nowhere where
    the bias is added. ``adapted``: what the first kind of adapters adds; the next ones' are so many bytes ``apart``."""
    x, out, weights, more = memory
    count, own, span = spans[1], _to_int64(weights), _to_int64(spans[0])
    inputs, outputs = own[2], own[3]
    added, stride = (own[4], 0) if more == 0 else (more, outputs)
    product((x, out, own[0]), (rows, inputs, outputs, own[1], stride), added, own[5])
    for each in range(0, SPAN * count, SPAN):
        its = _to_int64(adapted + apart * span[each])
        if its[0] != 0:
            sizes = span[each + 1], span[each + 2], span[each + 3], inputs, outputs, its[1], its[2], its[4]
            add_to_span_float32((x, out, its[0], its[3]), sizes)


@_part
def _passed(product, memory, sizes):
    """Rows x, in place, through the first layers.

    ``memory``: x, the rows' positions, cos and sin of all positions; by layer where its gains are, and by product where the weights, how
    far their blocks are apart, inputs, outputs, where the bias is, and how they are kept; by layer what is added under its two roots; by kind
    of adapters, layer and product where the A are, inner values, rank, where its runs are, and how many; by span its kind, adapter, first row
    and rows; by text its first row, tokens, the first one's place, where its room is, and for how many places.
    ``sizes``: rows, layers to be passed, layers that there are adapters for, heads of queries and of keys, numbers of a head, spans, texts.
    """
    x, position, cos, sin, layer_at, least_at, adapted, spans, texts = memory
    rows, layers, all_layers, queries, keys, width, span_count, text_count = sizes
    first, text = _to_int64(layer_at), _to_int64(texts)
    hidden, both = first[2 + 2], first[2 + 2 * PRODUCT + 3]
    stride = (queries + 2 * keys) * width  # from a row's heads to the next one's
    room = np.empty(rows * (hidden + stride + both + both // 2), np.float32)
    looked = np.zeros(rows * queries * width, np.float32)  # a row of no text sees nothing
    normed, seen = room.ctypes.data, looked.ctypes.data
    heads = normed + 4 * rows * hidden
    wide = heads + 4 * rows * stride
    gated = wide + 4 * rows * both
    key, value = heads + 4 * queries * width, heads + 4 * (queries + keys) * width
    of_spans, apart = (spans, span_count), 8 * ADAPTED * PRODUCTS * all_layers
    for layer in range(layers):
        at, own = layer_at + 8 * LAYER * layer, adapted + 8 * ADAPTED * PRODUCTS * layer
        gain, least = _to_int64(at), _to_float64(least_at + 16 * layer)
        its = at + 16  # the products'
        norm_float32(x, gain[0], normed, rows, hidden, least[0])
        _with_adapters(product, (normed, heads, its, 0), own, apart, of_spans, rows)
        turn_float32(heads, cos, sin, position, rows, stride, queries + keys, width)
        for each in range(0, TEXT * text_count, TEXT):
            row, tokens, start, kept, places = (
                text[each],
                text[each + 1],
                text[each + 2],
                text[each + 3],
                text[each + 4],
            )
            half = 4 * keys * places * width
            kept += 2 * half * layer
            to, its_seen = 4 * stride * row, seen + 4 * queries * width * row
            given = heads + to, key + to, value + to, its_seen, kept, kept + half
            look_back_float32(given, (stride, stride, places, start, tokens, tokens, keys, queries // keys, width))
        _with_adapters(product, (seen, x, its + 8 * PRODUCT, x), own + 8 * ADAPTED, apart, of_spans, rows)
        norm_float32(x, gain[1], normed, rows, hidden, least[1])
        _with_adapters(product, (normed, wide, its + 16 * PRODUCT, 0), own + 16 * ADAPTED, apart, of_spans, rows)
        gated_float32(wide, gated, rows, both // 2)
        _with_adapters(product, (gated, x, its + 24 * PRODUCT, x), own + 24 * ADAPTED, apart, of_spans, rows)
    _until_here(room)
    _until_here(looked)


@_entry
def passed_by_blocks(memory, sizes):
    _passed(_by_blocks, memory, sizes)


@_entry
def passed_by_bytes(memory, sizes):
    _passed(_by_bytes, memory, sizes)
