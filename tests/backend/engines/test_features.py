"""Demonstrations chosen by embeddings: a text is read once, by the base that the version names, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend import curating, exporting, prompting, serving, testing
from backend.engines.answers import Embedded, EngineError
from backend.engines.client import EngineClient
from backend.engines.features import current_base, embedder
from backend.engines.scripted import ScriptedEngine
from backend.prompting import Draft
from backend.prompts.fewshot import FewShotProblem
from backend.registry.bases import Base
from feedback_db import Store, features, models, prompts
from feedback_db.types import Person, Project, Prompt, SuiteRun, Template
from tests.backend.engines.tiny import KEY, Served
from tests.backend.suites import house

TEXTS = ("aaa bbb", "ccc ddd", "eee fff", "aaa ccc")


class Reading(ScriptedEngine):
    """Notes every text it reads; ``away`` refuses to, and ``base`` is whose embeddings it gives."""

    def __init__(self) -> None:
        super().__init__(lambda messages, model, seed: "yes")
        self.read: list[str] = []
        self.away = False
        self.base: str | None = None

    def embeddings(self, texts: Sequence[str]) -> Embedded:
        if self.away:
            raise EngineError("The engine cannot be reached: it has stopped or is starting. Try again in a moment.")
        self.read += texts
        return super().embeddings(texts)._replace(base=self.base)


@pytest.fixture
def engine() -> Reading:
    return Reading()


@pytest.fixture
def template(store: Store, engineer: Person, project: Project) -> Template:
    for text in TEXTS:
        curating.add_demonstration(store, engineer, project.id or 0, input=text, output=text.upper(), scenario="s")
    return prompting.save_template(store, engineer, project.id or 0, draft())


def draft(choose: str = "embedded", k: int = 2) -> Draft:
    return Draft(name="t", body="{{input}}", few_shot={"k": k, "choose": choose}, scenario="s")


def shown(store: Store, ids: Sequence[int]) -> list[str]:
    return [one.input for one in prompts.demonstrations_by_id(store, tuple(ids))]


def previewed(store: Store, engine: Any, engineer: Person, project: Project, text: str, **how: Any) -> list[str]:
    found = prompting.preview(store, engine, engineer, project.id or 0, draft(**how), {"input": text})
    return shown(store, found.demonstration_ids)


def test_a_version_names_the_base_whose_embeddings_choose(
    store: Store, engineer: Person, project: Project, base: Base, template: Template
) -> None:
    assert template.few_shot["base"] == base.fingerprint.hex() == current_base(store)
    again = prompting.save_template(store, engineer, project.id or 0, draft())
    assert again.id == template.id
    other = prompting.save_template(store, engineer, project.id or 0, draft("nearest"))
    assert "base" not in other.few_shot


def test_the_nearest_stands_last_and_the_case_itself_is_never_shown(
    store: Store, engineer: Person, project: Project, engine: Reading, template: Template
) -> None:
    assert previewed(store, engine, engineer, project, "fef fef")[-1] == "eee fff"
    assert previewed(store, engine, engineer, project, "d c d c")[-1] == "ccc ddd"
    assert "eee fff" not in previewed(store, engine, engineer, project, "EEE fff", k=4)


def test_no_text_is_read_twice_whoever_asks(
    store: Store, engineer: Person, project: Project, engine: Reading, template: Template
) -> None:
    previewed(store, engine, engineer, project, "zzz")
    assert sorted(engine.read) == sorted([*TEXTS, "zzz"])
    previewed(store, engine, engineer, project, "zzz", choose="embedded_varied")
    assert len(engine.read) == 5
    secret = serving.make_token(store, engineer, project.id or 0, "shop")[1]
    served = serving.answer(store, engine, secret, serving.Asked("t", "latest", {"input": "zzz"}))
    assert shown(store, served.demonstration_ids) == previewed(store, engine, engineer, project, "zzz")
    assert len(engine.read) == 5


def run_of(store: Store, engineer: Person, project: Project, template: Template) -> SuiteRun:
    found = testing.read_cases(engineer, "input,expected\nfff e,yes\nddd c,yes\nfff e,yes\n")
    made = prompting.add_cases(store, engineer, project.id or 0, [(one.values, one.expected) for one in found.cases])
    suite = testing.save_suite(
        store, engineer, project.id or 0, name="s", case_ids=[one.id or 0 for one in made], checks="equals"
    )
    return testing.start(store, engineer, suite.id or 0, [(template.id or 0, house.live(store).id or 0)], repeats=3)


def test_a_run_shows_what_the_preview_shows_and_stops_with_the_reason_while_the_engine_is_away(
    store: Store, engineer: Person, project: Project, engine: Reading, template: Template
) -> None:
    engine.away = True
    run = house.finished(store, engine, run_of(store, engineer, project, template))
    assert run.state == "stopped" and "cannot be reached" in run.problem and run.done == 0
    engine.away = False
    testing.go_on(store, engineer, run.id or 0)
    run = house.finished(store, engine, run)
    assert run.state == "done" and run.failed == 0
    assert sorted(engine.read) == sorted([*TEXTS, "fff e", "ddd c"])
    kept = {prompt.messages[-1]["content"]: prompt for prompt in store.find(Prompt)}
    for text in ("fff e", "ddd c"):
        sent = prompts.shown_in(store, kept[text].id or 0)
        assert shown(store, sent) == previewed(store, engine, engineer, project, text)


def test_an_export_writes_what_is_shown_and_says_what_it_could_not_read(
    store: Store, engineer: Person, project: Project, engine: Reading, template: Template
) -> None:
    run = run_of(store, engineer, project, template)
    given = {"template_ids": [template.id or 0]}
    alone = exporting.export(store, engineer, "suite", run.suite_id, "jsonl", **given)  # type: ignore[arg-type]
    assert [one.reason for one in alone.remarks if "no embedding" in one.reason]
    whole = exporting.export(store, engineer, "suite", run.suite_id, "jsonl", engine=engine, **given)  # type: ignore[arg-type]
    assert not [one for one in whole.remarks if one.fate == "refused"] and b"EEE FFF" in whole.data


def test_another_base_is_refused_by_name_and_what_is_kept_still_chooses(
    store: Store, engineer: Person, project: Project, engine: Reading, template: Template
) -> None:
    embed, named = embedder(store, engine), str(template.few_shot["base"])
    before = embed(["aaa"], named)
    engine.base = "ab" * 32
    assert np.array_equal(embed(["aaa"], named), before)
    with pytest.raises(FewShotProblem, match=f"{named[:8]}; the engine runs abababab"):
        embed(["bbb"], named)
    engine.base = named
    assert embed(["bbb", "aaa", "bbb"], named).shape == (3, 26)


def test_a_template_that_names_no_base_says_so(
    store: Store, engineer: Person, project: Project, engine: Reading, template: Template
) -> None:
    row = replace(template, id=None, version=9, few_shot={"k": 1, "choose": "embedded"}, digest=bytes(32))
    unnamed = store.add(row)
    secret = serving.make_token(store, engineer, project.id or 0, "shop")[1]
    with pytest.raises(FewShotProblem, match="Save it on the Build page"):
        serving.answer(store, engine, secret, serving.Asked("t", str(unnamed.version), {"input": "x"}))


def test_the_first_vector_of_a_text_stays(store: Store) -> None:
    key = features.key_of(bytes(32), "x")
    features.keep(store, {key: b"first"})
    features.keep(store, {key: b"other"})
    assert features.known(store, [key, features.key_of(b"\x01" * 32, "x")]) == {key: b"first"}


@pytest.fixture
def real(store: Store, engine_served: Served) -> Iterator[EngineClient]:
    client = EngineClient(engine_served.url, KEY)
    yield client
    client.close()


@pytest.fixture(scope="session")
def engine_served(request: pytest.FixtureRequest, base_folder: Any, adapters: Any) -> Iterator[Served]:
    from backend.engines.local.loading import load_base
    from backend.engines.local.scheduler import Scheduler
    from tests.backend.engines.tiny import TableResolver, served

    loaded = load_base(str(base_folder), device="cpu")
    scheduler = Scheduler(loaded, row_limit=16, waiting_limit=4)
    resolver = TableResolver(loaded, adapters)
    with served(loaded, scheduler, resolver) as url:
        yield Served(url, loaded, scheduler, resolver)
    scheduler.close()


def test_of_a_text_longer_than_the_context_the_beginning_is_read(
    store: Store, real: EngineClient, engine_served: Served
) -> None:
    class Process:
        def client(self) -> EngineClient:
            return real

    long, base = "where is my parcel " * 200, engine_served.base.digest
    found = embedder(store, Process())([long, "good", "", long[: len(long) // 8]], base)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    half = next(long[: len(long) >> n] for n in range(12) if fits(engine_served, long[: len(long) >> n]))
    assert np.allclose(found[0], real.embeddings([half]).vectors[0], atol=1e-5)
    assert np.allclose(found[1], real.embeddings(["good"]).vectors[0], atol=1e-5)
    assert real.embeddings(["good"]).base == base


def fits(engine: Served, text: str) -> bool:
    return len(engine.base.text_tokens(text)) <= engine.base.longest_prompt


def test_the_base_that_runs_is_that_of_the_live_policy(store: Store, base: Base) -> None:
    live = models.live(store, "policy")
    assert live is not None and current_base(store) == (live.base_fingerprint or b"").hex() != ""
