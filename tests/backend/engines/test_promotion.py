"""Promotion while the engine serves: "live" changes between two requests, never within one."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from backend.engines.client import Answer, EngineClient
from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved, StoreResolver
from backend.engines.local.scheduler import Scheduler
from feedback_db import Store, models
from feedback_db.types import Model
from tests.backend.engines.tiny import KEY, served

HELLO = [{"role": "user", "content": "where is my parcel"}]


class House(NamedTuple):
    store: Store
    policies: list[Model]
    client: EngineClient


@pytest.fixture
def house(tmp_path: Path, load: Callable[[], Base], adapters: dict[str, Resolved]) -> Iterator[House]:
    store = Store(tmp_path / "feedback.db")
    kept = []
    for name, found in adapters.items():
        shutil.copytree(found.adapter, tmp_path / "models" / found.adapter.name)
        digest = bytes.fromhex(found.digest)
        row = Model(name=name, kind="policy", base="tiny", source="ppo", adapter=found.adapter.name, digest=digest)
        kept.append(store.add(row))
    base = load()
    scheduler, resolver = Scheduler(base, row_limit=16), StoreResolver(tmp_path, base.digest)
    with served(base, scheduler, resolver) as url:
        client = EngineClient(url, KEY)
        yield House(store, kept, client)
        client.close()
    scheduler.close()
    resolver.close()
    store.close()


def promote(house: House, policy: Model) -> None:
    models.move(house.store, house.store.get(Model, policy.id), "live", reason="a test", person_id=None)


def ask(house: House, model: str, seed: int) -> Answer:
    return house.client.complete(HELLO, model=model, seed=seed, max_tokens=30)[0]


def test_a_stream_that_runs_while_another_model_is_promoted_stays_with_its_own(house: House):
    first, second = house.policies
    promote(house, first)
    expected = ask(house, f"model-{first.id}", 3)
    stream = house.client.stream(HELLO, model="live", seed=3, max_tokens=30)
    text = next(stream).text
    promote(house, second)
    after = ask(house, "live", 3)
    pieces = list(stream)
    answer = pieces[-1].answer
    assert text + "".join(piece.text for piece in pieces) == answer.text == expected.text
    assert (answer.model, answer.fingerprint) == (f"model-{first.id}", first.digest.hex())
    assert (after.model, after.fingerprint) == (f"model-{second.id}", second.digest.hex())
    assert after.text == ask(house, f"model-{second.id}", 3).text != expected.text


def test_forty_answers_during_promotions_each_come_from_one_recorded_model(house: House):
    by_digest = {policy.digest.hex(): f"model-{policy.id}" for policy in house.policies}
    is_over = threading.Event()
    promote(house, house.policies[0])

    def switch() -> None:
        for policy in itertools.cycle(house.policies):
            if is_over.wait(0.02):
                return
            promote(house, policy)

    with ThreadPoolExecutor(9) as pool:
        switching = pool.submit(switch)
        try:
            answers = list(pool.map(lambda seed: ask(house, "live", seed), range(40)))
        finally:
            is_over.set()
        switching.result(10)
    assert {answer.fingerprint for answer in answers} == set(by_digest)
    for seed, answer in enumerate(answers):
        assert answer.model == by_digest[answer.fingerprint]
        assert answer.text == ask(house, answer.model, seed).text
