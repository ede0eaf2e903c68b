"""Our side of the prompts measurement: the engine's server and its client in this process, HTTP and tokenizer included.

The order comes as JSON on the standard input, as bench/peers/score_side.py reads it; ``groups`` are prompts that begin with the same
demonstrations, each sent as one request. Prints one line of JSON.
"""

import json
import resource
import sys
import threading
import time

import torch
import uvicorn

from backend.engines import memory
from backend.engines.client import EngineClient
from backend.engines.local.loading import Setting, load_base
from backend.engines.local.resolver import Resolved
from backend.engines.local.scheduler import Scheduler
from backend.engines.local.server import build_app

KEY = "a-key-for-a-measurement"


class OneModel:
    """Every name is the base."""

    def __init__(self, digest: str) -> None:
        self._base = Resolved("base", None, digest)

    def resolve(self, name: str) -> Resolved | None:
        return self._base

    def resolve_reward(self, name: str) -> Resolved | None:
        return None

    def names(self) -> list[str]:
        return ["base"]


def served(base: str) -> tuple[str, uvicorn.Server]:
    """The engine's address."""
    loaded = load_base(base, Setting(device="cpu", dtype="float32"))
    app = build_app(loaded, Scheduler(loaded), OneModel(loaded.digest), KEY)
    memory.settle()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server


if __name__ == "__main__":
    order = json.load(sys.stdin)
    torch.set_num_threads(order["threads"])
    address, server = served(order["base"])
    client = EngineClient(address, KEY)

    def scored(prompts: list[str]) -> list[list[float]]:
        found = client.likelihoods(
            [[{"role": "user", "content": one}] for one in prompts], order["labels"], model="base"
        )
        return [[one.mean_logp for one in likely] for likely in found]

    scored([order["warm"]])
    wall, cpu = time.perf_counter(), time.process_time()
    scores = [one for group in order["groups"] for one in scored(group)]
    told = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "scores": scores,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    client.close()
    server.should_exit = True
    print(json.dumps(told), flush=True)
