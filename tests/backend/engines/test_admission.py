"""Who begins when not everybody can."""

from __future__ import annotations

from collections import deque

from backend.engines.local.admission import Job, Room, by_turn, taken
from backend.engines.local.asking import Request, Ticket
from backend.engines.local.resolver import Resolved

ROOM = Room(rows=4, memory_bytes=1 << 30, place_bytes=1, mixes=True)


def waiting(*prompts: int, first: int = 0) -> deque[Job]:
    """The prompts of requests that came one after the other, so many each; the requests are numbered from ``first`` on."""
    tickets = [
        Ticket(Request(Resolved("base", None, "d"), [[at]] * count, max_tokens=5, seed=0), print)
        for at, count in enumerate(prompts, first)
    ]
    return deque(Job(ticket, at) for ticket in tickets for at in range(len(ticket.request.prompts)))


def told(jobs: list[Job]) -> list[tuple[int, int]]:
    """Of each: which request's, and which of its prompts."""
    return [(job.tokens[0], job.prompt) for job in jobs]


def test_a_request_of_many_prompts_takes_turns_with_who_comes_after_it():
    assert told(by_turn(waiting(3, 1, 2))) == [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]
    found, rest = taken(waiting(300, 1), [], ROOM)
    assert told(found) == [(0, 0), (1, 0), (0, 1), (0, 2)]
    assert len(rest) == 297


def test_nobody_is_overtaken_for_ever():
    """New requests keep coming, and one prompt begins at a time."""
    line, begun, room = waiting(3), [], ROOM._replace(rows=1)
    for number in range(1, 8):
        line.extend(waiting(1, first=number))
        found, line = taken(line, [], room)
        begun += [request for request, _ in told(found)]
    assert begun == [0, 1, 0, 2, 3, 0, 4]


def test_who_has_hung_up_leaves():
    line = waiting(2, 1)
    line[0].ticket.cancel()
    found, rest = taken(line, [], ROOM)
    assert (told(found), list(rest)) == ([(1, 0)], [])
