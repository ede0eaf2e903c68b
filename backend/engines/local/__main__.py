"""python -m backend.engines.local --data-dir DIR --base FOLDER_OR_ID: the engine as a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from starlette.types import ASGIApp

from backend.settings import ATTENTIONS, DTYPES, QUANTISATIONS

from .. import memory
from ..lending import holders
from ..process import EngineFile, one_spelling, process_started_at, remove_engine_file, write_engine_file

for name, value in memory.WAITING.items():  # before torch is imported
    os.environ.setdefault(name, value)
log = logging.getLogger("backend.engines.local")
EXIT_MODEL_PROBLEM = 3
KEPT_SECONDS = 75  # an idle connection: longer than clients keep theirs (5 s in Python), so that none is closed as it is used again


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.parent:
        _follow(options.parent)
    import torch

    from .loading import Setting, load_base
    from .placing import ModelProblem
    from .resolver import StoreResolver
    from .resting import Rest, has_no_room
    from .scheduler import Scheduler
    from .server import build_app

    torch.set_num_threads(1)  # several are the scheduler's
    started = time.monotonic()
    try:
        setting = Setting(options.device, options.dtype, options.attention, options.quantisation)
        at_work = holders(options.data_dir)
        base = load_base(options.base, setting, chat_template=options.chat_template, at_rest=bool(at_work))
        must_rest = bool(at_work) and has_no_room(base)
        if base.is_away and not must_rest:
            base.come_back()
    except ModelProblem as problem:
        print(f"engine: {problem}", file=sys.stderr, flush=True)
        return EXIT_MODEL_PROBLEM
    log.info("loaded %s on %s in %.1f s", base.name, base.device, time.monotonic() - started)
    # One core is left to the web process: with every core taken, a busy neighbour slows each step down many times.
    scheduler = Scheduler(base, threads=options.threads or max(1, (os.cpu_count() or 2) - 1))
    rest = Rest(base, scheduler)
    if must_rest:
        rest.begin_without(at_work)
    memory.settle()
    key = secrets.token_urlsafe(32)
    app = build_app(base, scheduler, StoreResolver(options.data_dir, base.digest), key, rest)
    try:
        _serve(app, key, options, lambda: rest.join(holders(options.data_dir)))
    finally:
        scheduler.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.engines.local", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of the database and the adapters")
    parser.add_argument("--base", required=True, help="a model folder, or an id on the Hugging Face hub")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="of the weights and products")
    parser.add_argument("--attention", default="auto", choices=ATTENTIONS, help="how attention is computed")
    parser.add_argument("--quantisation", default="none", choices=QUANTISATIONS, help="of the base's weights")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves one core to others")
    parser.add_argument("--chat-template", type=Path, help="a Jinja file, for a model that brings none")
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    return parser


def _serve(app: ASGIApp, key: str, options: argparse.Namespace, announced: Callable[[], None]) -> None:
    """Answer until a signal ends it; ``announced`` is called once whoever looks for an engine finds this one."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # our handlers below end the process with status 0; uvicorn's would raise the signal again

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=KEPT_SECONDS,
        server_header=False,
        lifespan="off",
    )
    server = Server(config)

    def end(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    pid = os.getpid()
    file = EngineFile(url, key, pid, process_started_at(pid) or 0.0, time.time(), one_spelling(options.base))
    threading.Thread(target=_announce, args=(server, options.data_dir, file, announced), daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        remove_engine_file(options.data_dir, pid)


def _announce(server: object, data_dir: Path, file: EngineFile, announced: Callable[[], None]) -> None:
    while not server.started:  # type: ignore[attr-defined]
        time.sleep(0.01)
    write_engine_file(data_dir, file)
    log.info("answering at %s", file.url)
    announced()


def _follow(parent: int) -> None:
    started_at = process_started_at(parent)

    def watch() -> None:
        while started_at is not None and process_started_at(parent) == started_at:
            time.sleep(0.5)
        log.info("the parent process has ended")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
