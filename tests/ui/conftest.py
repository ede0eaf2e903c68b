"""One server and one browser for all UI tests; each test gets its own project and people where it matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from backend.engines.scripted import ScriptedEngine
from backend.labels import form as forms
from backend.labels.form import Form
from feedback_db.types import Completion, Person, Project
from tests.ui.house import ALL, HOSTILE, LONG, House, add_comparisons, app_of, build, serving, token_for


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return build(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="session")
def app(house: House) -> Any:
    return app_of(house, ScriptedEngine(lambda messages, model, seed: f"Answer {seed} to “{messages[-1]['content']}”."))


@pytest.fixture(scope="session")
def url(app: Any) -> Iterator[str]:
    with serving(app) as address:
        yield address


PATIENCE_MS = 90_000  # busy cores are no failure
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def project(house: House) -> Callable[..., Project]:
    """A new project that is the only open one."""

    def make(comparisons: int, texts: tuple[str, ...] = (f"{LONG}\n", f"{HOSTILE} "), **settings: Any) -> Project:
        number = house.store.value("select count(*) from projects")
        with house.store.write() as db:
            db.conn.execute("update projects set archived_at = 1 where archived_at is null")
        made = house.store.add(Project(name=f"project {number}", **settings))
        add_comparisons(house.store, made, comparisons, made.overlap, 1000 * number, texts)
        return made

    return make


@pytest.fixture
def asked(house: House, project):
    """A new project with this form and comparisons of this kind and size."""

    def make(count: int, form: Form = ALL, kind: str = "pair", size: int = 2):
        work = project(count, label_form=forms.stored(form))
        if kind == "pair":
            return work
        for row in house.store.rows("select id from comparisons where project_id = ?", [work.id]):
            held = "select c.* from completions c join comparison_items i on i.completion_id = c.id where i.comparison_id = ?"
            one = house.store.rows(held, [row["id"]])[0]
            with house.store.write() as db:
                db.conn.execute("update comparisons set kind = ?, size = ? where id = ?", [kind, size, row["id"]])
                for n in range(2, size):
                    text = f"Answer {n}. Restart it in the menu, please! Then wait for the light."
                    given: dict[str, Any] = {name: one[name] for name in ("prompt_id", "model_id", "sampling_id")}
                    made = house.store.add(Completion(**given, seed=n, text=text, finish_reason="stop"))
                    db.conn.execute("insert into comparison_items values (?,?,?)", [row["id"], n, made.id])
        return work

    return make


@pytest.fixture
def page_of(house: House, url: str, browser: Browser) -> Iterator[Callable[..., Page]]:
    """A page of this person; fails the test when a script throws or something leaves the machine."""
    contexts, problems = [], []

    def open_page(
        person: Person | None, lang: str = "en", theme: str = "light", size: tuple[int, int] = (1440, 900)
    ) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, base_url=url)
        context.set_default_timeout(PATIENCE_MS)
        cookies = {"wh_lang": lang, "wh_theme": theme}
        if person is not None:
            cookies["whetstone"] = token_for(house, person)
        context.add_cookies([{"name": name, "value": value, "url": url} for name, value in cookies.items()])
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or problems.append(asked.url))
        page.on("console", lambda said: "Content Security Policy" in said.text and problems.append(said.text))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
