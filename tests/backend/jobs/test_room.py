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
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 100))
    assert device.is_short_of_memory() is is_short


@pytest.mark.parametrize("is_short", [True, False])
def test_a_job_asks_the_engine_of_its_data_folder_for_room_only_where_it_is_short(
    monkeypatch: pytest.MonkeyPatch, is_short: bool
):
    said: list[Any] = []

    @contextmanager
    def at_rest(data_dir: Path) -> Iterator[bool]:
        said.append(data_dir)
        yield True
        said.append("back")

    monkeypatch.setattr(worker, "engine_at_rest", at_rest)
    monkeypatch.setattr(worker, "is_short_of_memory", lambda: is_short)
    with worker.room_for(SimpleNamespace(models="/data/one/models")):  # type: ignore[arg-type]
        said.append("trains")
    assert said == ([Path("/data/one"), "trains", "back"] if is_short else ["trains"])
