"""The HTTP server around the pages."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable

import uvicorn

from backend.settings import Settings
from ui.gate import Gate


class _Server(uvicorn.Server):
    """Calls ``started`` once the port is open: what competes for the processor waits until pages can be answered."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.set_threshold(
            20_000, 20, 20
        )  # records come and go by reference count; looking for rings after every seventh judgement finds none
        gc.freeze()  # what is here now stays; walking through all of Gradio's objects again and again would hold up everybody
        if self.started:
            self._started()


def answer(pages: Gate, settings: Settings, started: Callable[[], None]) -> None:
    """Serve until a signal ends it."""
    config = uvicorn.Config(
        pages,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # the gate reads and strips them itself
        access_log=False,  # a one-time link is part of its address
        timeout_graceful_shutdown=3,
    )
    _Server(config, started).run()
