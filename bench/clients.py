"""Many clients at one engine, arriving at random, beside the same requests one at a time."""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from backend.engines.local.asking import Event, Failed, Piece, Request
from backend.engines.local.resolver import Resolved
from backend.engines.local.scheduler import Scheduler

SETTLED = 0.25  # of the arrivals: the batch is filling until then, and what it writes is not counted
PATIENCE_SECONDS = 600.0


class Plan(NamedTuple):
    alone: int  # requests asked one at a time
    requests: int  # requests that arrive at random
    rate: float  # of arrivals, times as many a second as are answered one at a time
    seed: int


class Asked(NamedTuple):
    due: float  # seconds after the start
    late: float  # how much later it was handed in
    pieces: list[tuple[float, Piece]]  # each with its time in seconds after the start


def measure(
    scheduler: Scheduler, models: Sequence[Resolved], prompts: Sequence[list[int]], new: int, plan: Plan
) -> dict[str, Any]:
    """Tokens a second and seconds to the first token, alone and together; models and prompts are taken in turn."""
    turns = zip(itertools.cycle(models), itertools.cycle(prompts))
    wanted = [
        Request(*_request(next(turns), new), seed=at, is_streamed=True) for at in range(plan.alone + plan.requests)
    ]
    alone, begun, cpu = [], time.monotonic(), time.process_time()
    for request in wanted[: plan.alone]:
        alone += asked(scheduler, [request], [0.0])
    seconds, alone_cpu_seconds = time.monotonic() - begun, time.process_time() - cpu
    due = arrivals(plan.requests, plan.rate * plan.alone / seconds, Random(plan.seed))
    cpu = time.process_time()
    together = asked(scheduler, wanted[plan.alone :], due)
    return {
        "alone_tokens_per_second": plan.alone * new / seconds,
        "together_tokens_per_second": steady_tokens_per_second(together),
        "alone_first_token_seconds": percentile(list(map(first_token_seconds, alone))),
        "together_first_token_seconds": percentile(list(map(first_token_seconds, together))),
        "together_first_token_median_seconds": statistics.median(map(first_token_seconds, together)),
        "alone_tokens_per_cpu_second": plan.alone * new / alone_cpu_seconds,
        "together_tokens_per_cpu_second": plan.requests * new / (time.process_time() - cpu),
        "most_late_seconds": max(one.late for one in together),
    }


def _request(turn: tuple[Resolved, list[int]], new: int) -> tuple[Resolved, list[list[int]], int]:
    return turn[0], [turn[1]], new


def arrivals(count: int, per_second: float, rng: Random) -> list[float]:
    """Times in seconds at which requests come in at random. Many clients' Poisson arrivals together are one stream of them.

    Given how many come in a part of the time, a Poisson process's arrivals are independent and uniform in it. Until the batch has filled and
    from then on as many come here as the rate says, so that no run asks for more or less than another.
    """
    settled = int(SETTLED * count)
    before = [rng.uniform(0, settled / per_second) for _ in range(settled)]
    return sorted(before + [rng.uniform(settled / per_second, count / per_second) for _ in range(count - settled)])


def asked(scheduler: Scheduler, requests: Sequence[Request], due: Sequence[float]) -> list[Asked]:
    """Hand each request in when it is due, and wait for all answers. Raises RuntimeError where one fails."""
    found: list[Asked] = []
    failures: list[str] = []
    left, is_over, begun = sum(len(one.prompts) * one.n for one in requests), threading.Event(), time.monotonic()
    counted = threading.Lock()  # first tokens may come from a thread of their own

    def emit_of(pieces: list[tuple[float, Piece]]) -> Callable[[Event], None]:
        def emit(event: Event) -> None:
            nonlocal left
            if isinstance(event, Failed):
                failures.append(event.message)
                is_over.set()
            elif isinstance(event, Piece):
                pieces.append((time.monotonic() - begun, event))
                with counted:
                    left -= event.finish_reason is not None
                    if left == 0:
                        is_over.set()

        return emit

    for request, at in zip(requests, due, strict=True):
        time.sleep(max(0.0, begun + at - time.monotonic()))
        one = Asked(at, max(0.0, time.monotonic() - begun - at), [])
        found.append(one)
        scheduler.submit(request, emit_of(one.pieces))
    if not is_over.wait(PATIENCE_SECONDS) or failures:
        raise RuntimeError(f"The engine failed: {failures[0] if failures else 'it did not answer in time'}")
    return found


def first_token_seconds(one: Asked) -> float:
    """From when the request was due, so that no wait is left out, to its first token, shown or not yet whole."""
    return one.late + one.pieces[0][1].first_token_seconds


def steady_tokens_per_second(together: Sequence[Asked]) -> float:
    """Tokens written a second while requests keep coming: from the arrival of the first quarter to the last."""
    begin, end = together[int(SETTLED * len(together))].due, together[-1].due
    return sum(written_by(one, end) - written_by(one, begin) for one in together) / (end - begin)


def written_by(one: Asked, moment: float) -> int:
    return max((piece.tokens_so_far for at, piece in one.pieces if at <= moment), default=0)


def percentile(values: Sequence[float]) -> float:
    """The 95th."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
