"""A room for a prompt is used again when nobody looks at it, and what was in it is seen by nobody."""

from __future__ import annotations

from collections.abc import Callable

import torch

from backend.decoder.stack import Stack
from backend.engines.local.attention import ROOM
from backend.engines.local.model import Base
from backend.engines.local.rooms import Rooms
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.test_scheduler import GREEDY, Asked, request
from tests.backend.training import wired


def stack_of() -> Stack:
    base = wired.bases()[0]
    return Stack(base.backbone, base.causal.get_output_embeddings())


def test_a_room_is_used_again_and_holds_zeros_behind_its_tokens() -> None:
    stack = stack_of()
    rooms, like = Rooms(stack, 10**7), stack.room(1, ROOM)[:, :, 0]
    room = rooms.room(10)
    assert room.shape == like.shape and room.dtype == like.dtype and room.is_contiguous()
    assert not bool(room[:, :, :, 10:].any())
    where, part = room.data_ptr(), room[1:, :, :, :4]
    room.fill_(torch.nan)
    del room
    assert rooms.free_bytes == 0 and rooms.room(10).data_ptr() != where, "somebody looks at a part of it still"
    del part
    again = rooms.room(20)
    assert again.data_ptr() == where
    assert not bool(again[:, :, :, 20:].any()), "zeros, not what was there"
    assert rooms.room(ROOM + 1).shape[3] == 2 * ROOM and rooms.room(0).shape[3] == ROOM


def test_no_more_stays_than_was_said() -> None:
    stack = stack_of()
    one = stack.room(1, ROOM).nbytes
    rooms = Rooms(stack, 3 * one)
    many = [rooms.room(10) for _ in range(5)]
    assert rooms.free_bytes == 0
    many.clear()
    assert rooms.free_bytes == 3 * one
    large = rooms.room(2 * ROOM)
    del large
    assert rooms.free_bytes <= 3 * one and rooms._free[2 * one], "what was used last stays"
    assert Rooms(stack).room(3).shape[3] == ROOM


def test_what_one_prompt_left_changes_nothing_for_the_next(load: Callable[[], Base]) -> None:
    """Not even what is no number, which an adapter whose sums grow too large may leave."""
    scheduler = Scheduler(load())
    long = request(scheduler.base, [5 + at % 90 for at in range(100)], max_tokens=8, sampling=GREEDY, top_logps=1)
    expected = Asked(scheduler, long).pieces()
    assert scheduler.wait_until_idle(20)
    scheduler.do(lambda _: scheduler.prefixes.clear()).result(20)
    rooms = scheduler._mixed_rows()._reader._rooms
    wait = [memory for free in rooms._free.values() for memory in free]
    assert wait
    for memory in wait:
        memory.view(torch.float32).fill_(torch.nan)
    assert [piece.tokens for piece in Asked(scheduler, long).pieces()] == [piece.tokens for piece in expected]
    scheduler.close()
