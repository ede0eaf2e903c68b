"""Memory that was written once is written again, however many slots and places come to lie in it."""

from __future__ import annotations

import torch

from backend.engines.local.cells import Memory

LAYERS, HEADS, WIDTH = 3, 2, 8


def memory_of(kept_bytes: int = 10**6) -> Memory:
    return Memory(torch.zeros(LAYERS, 2, 0, HEADS, 0, WIDTH), kept_bytes)


def beginnings(kept: torch.Tensor) -> list[int]:
    """Where each layer's keys and its values begin."""
    return [part.data_ptr() for layer in kept for part in layer]


def test_what_is_there_stays_when_slots_and_places_are_added() -> None:
    memory = memory_of()
    memory.laid_out(9, 64)  # so that the old ones lie where the new ones will
    for start, then in (((4, 16), (4, 32)), ((4, 32), (7, 32)), ((3, 16), (9, 64))):
        kept = memory.laid_out(*start)
        kept.copy_(torch.randn(kept.shape))
        expected = kept.clone()
        found = memory.enlarged(kept, 3, *then)
        assert found.shape == (LAYERS, 2, then[0], HEADS, then[1], WIDTH)
        assert torch.equal(found[:, :, :3, :, : start[1]], expected[:, :, :3])


def test_a_layers_memory_begins_where_it_began_and_has_no_gap() -> None:
    memory = memory_of()
    large = memory.laid_out(8, 64)
    for slots, places in ((1, 16), (8, 16), (3, 48)):
        smaller = memory.laid_out(slots, places)
        assert beginnings(smaller) == beginnings(large)
        assert all(part.is_contiguous() for layer in smaller for part in layer)


def test_memory_stays_as_far_as_it_was_written_to_and_no_more_than_it_may() -> None:
    memory = memory_of(kept_bytes=memory_of().bytes(4, 16))
    memory.laid_out(8, 64)
    memory.write(4, 16)
    memory.settle()
    assert memory.nbytes == memory.bytes(8, 64), "what was only laid out was never taken"
    memory.write(4, 17)
    memory.settle()
    assert memory.nbytes == 0
    assert memory.laid_out(2, 16).shape == (LAYERS, 2, 2, HEADS, 16, WIDTH)


def test_memory_is_had_ready_without_a_row() -> None:
    memory = memory_of(kept_bytes=0)
    kept = memory.laid_out(2, 16)
    kept.fill_(7.0)
    memory.have_ready(1, 16)
    assert not kept[:, :, :1].any() and bool((kept[:, :, 1:] == 7).all())
    memory.settle()
    assert memory.nbytes == 0, "it counts as written to"
