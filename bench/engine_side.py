"""Our side of the generation measurement: the engine's scheduler in this process, asked as its server asks it.

The order comes as JSON on the standard input, the same as bench/peers/generate_side.py reads, with the adapters' digests
beside their folders. Prints one line of JSON.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from backend.engines import memory
from backend.engines.local.asking import Piece, Request
from backend.engines.local.loading import Setting, load_base
from backend.engines.local.resolver import Resolved
from backend.engines.local.sampling import Sampling
from backend.engines.local.scheduler import Scheduler
from bench import bandwidth, clients

SHORT = 4  # tokens of the warm-up where nothing is compared
MEMORY = 1 << 30  # bytes for keys and values; a quarter is the prefix cache, which is full before anything is timed
STEPS = 5  # how often a decode step is timed in one process
GREEDY = Sampling(temperature=0.0)


class Engine:
    """A scheduler whose base never ends an answer of itself, and the models it is asked for."""

    def __init__(self, order: dict[str, Any]) -> None:
        base = load_base(order["base"], Setting("cpu", order["dtype"], quantisation=order["quantisation"]))
        base.end_tokens = frozenset()  # every answer has as many tokens as were asked for
        self.base = base
        self.scheduler = Scheduler(base, threads=order["threads"], memory_limit=MEMORY, has_second=order["has_second"])
        memory.settle()  # as the engine's process does
        self.models = [
            Resolved(f"adapter{at}", Path(folder), digest)
            for at, (folder, digest) in enumerate(zip(order["adapters"], order["digests"], strict=True))
        ] or [Resolved("base", None, base.digest)]

    def age(self, prompts: Sequence[list[int]], new: int) -> None:
        """Until it has used all its memory once, as after some minutes of use. A virtual machine takes as long to hand out the memory of
        a prompt as the prompt takes to be read; what is used again, as the peers' from one call to the next, costs nothing."""
        before, cache = -1, self.scheduler.prefixes
        for prompt in prompts:
            if cache.held_bytes == before:  # one more put another out
                break
            before = cache.held_bytes
            self.answers(self.requests([prompt], 1, new))

    def requests(self, prompts: Sequence[list[int]], several: int, new: int, **more: Any) -> list[Request]:
        """One for each model and prompt, models outermost."""
        return [
            Request(model, [prompt], new, seed=at, n=several, **more)
            for model in self.models
            for at, prompt in enumerate(prompts)
        ]

    def answers(self, requests: Sequence[Request]) -> list[Piece]:
        """All answers, in the order of requests and samples. Raises RuntimeError where one failed or ended early."""
        found = clients.asked(self.scheduler, requests, [0.0] * len(requests))
        ended = [[piece for _, piece in one.pieces if piece.finish_reason] for one in found]
        answers = [piece for pieces in ended for piece in sorted(pieces, key=lambda piece: piece.sample)]
        wanted = requests[0].max_tokens
        if any(answer.tokens_so_far != wanted for answer in answers):
            raise RuntimeError(f"Answers have {[answer.tokens_so_far for answer in answers]} tokens, not {wanted}.")
        return answers


def measure_writing(order: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """Greedy answers first, one to a prompt, which are compared with the peers'; then the passes that are timed."""
    engine.age(order["worn"], SHORT)
    new = order["new"] if order["is_compared"] else SHORT
    compared = engine.answers(engine.requests(order["checked"], 1, new, sampling=GREEDY, top_logps=0))
    wall, cpu = time.perf_counter(), time.process_time()
    answers = []
    for prompts in order["passes"]:
        answers += engine.answers(engine.requests(prompts, order["several"], order["new"]))
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "units": sum(answer.tokens_so_far for answer in answers),
        "greedy": [[one.token for one in answer.tokens] for answer in compared],
    }


def measure_step(order: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """Seconds of one step of all rows: those of an answer of `new` tokens less those of one of a single token, per token.

    The prompt is read in both, or kept from before in both. The bytes are those of the middle step.
    """
    (prompt,), several, new = order["passes"][0], order["several"], order["new"]
    engine.age(order["worn"], SHORT)

    def spent(tokens: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        engine.answers(engine.requests([prompt], several, tokens))
        return time.perf_counter() - wall, time.process_time() - cpu

    spent(new)  # the prompt is kept by now, and buffers have their size
    pairs = [(spent(new), spent(1)) for _ in range(STEPS)]
    seconds, cpu_seconds = (statistics.median((a[at] - b[at]) / (new - 1) for a, b in pairs) for at in (0, 1))
    read = bandwidth.step_bytes(engine.base.model, several, len(prompt) + new // 2)
    torch.set_num_threads(order["threads"])
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": read, **bandwidth.measured()._asdict()}


def measure_clients(order: dict[str, Any], engine: Engine) -> dict[str, Any]:
    engine.age(order["worn"], SHORT)
    engine.answers(engine.requests(order["checked"], 1, SHORT))
    plan = clients.Plan(order["alone"], order["requests"], order["rate"], order["seed"])
    return clients.measure(engine.scheduler, engine.models, order["passes"][0], order["new"], plan)


WAYS: dict[str, Callable[[dict[str, Any], Engine], dict[str, Any]]] = {
    "writing": measure_writing,
    "step": measure_step,
    "clients": measure_clients,
}

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)  # as the engine's process does: several are the scheduler's
    served = Engine(asked)
    told = WAYS[asked["way"]](asked, served)
    served.scheduler.close()
    print(json.dumps({**told, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
