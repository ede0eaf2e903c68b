"""Room on the GPU for a job: who is asked for it, and when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.jobs import worker
from backend.training import device


@pytest.mark.parametrize(
    ("has_gpu", "free", "is_short"), [(False, 0, False), (True, 10, True), (True, 49, True), (True, 51, False)]
)
def test_a_gpu_is_short_of_memory_when_less_than_half_of_it_is_free(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, free: int, is_short: bool
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 100))
    assert device.is_short_of_memory() is is_short
    assert device.is_short_of_memory(free) is has_gpu, "with what would be taken"


@pytest.mark.parametrize(("has_gpu", "is_short"), [(True, True), (True, False), (False, False)])
def test_a_job_on_a_gpu_is_known_to_the_engine_and_asks_it_for_room_only_where_there_is_little(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, is_short: bool
):
    said: list[Any] = []

    @contextmanager
    def at_rest(data_dir: Path, *, asks: bool) -> Iterator[bool]:
        said.extend([data_dir, asks])
        yield True
        said.append("back")

    monkeypatch.setattr(worker, "engine_at_rest", at_rest)
    monkeypatch.setattr(worker, "is_short_of_memory", lambda: is_short)
    monkeypatch.setattr(worker, "has_gpu", lambda: has_gpu)
    with worker.room_for(SimpleNamespace(models="/data/one/models")):  # type: ignore[arg-type]
        said.append("trains")
    assert said == ([Path("/data/one"), is_short, "trains", "back"] if has_gpu else ["trains"])
