"""One house with work in it for all page tests; they add to it and leave what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from feedback_db.types import Person
from tests.ui.house import serving, token_for
from tests.ui.pages.studio import Studio, worked_in
from ui.web import create_app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a browser come last: while one is open, its event loop runs in this thread and no other may start."""
    items.sort(key=lambda item: "browser" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = worked_in(tmp_path_factory.mktemp("studio"))
    yield made
    made.store.close()


@pytest.fixture
def fresh_studio(tmp_path: Path) -> Iterator[Studio]:
    """One that no other test has added to: for what depends on all templates, cases or models there are."""
    made = worked_in(tmp_path)
    yield made
    made.store.close()


@pytest.fixture(scope="session")
def studio_app(studio: Studio) -> Any:
    return create_app(studio.ui)


@pytest.fixture(scope="session")
def studio_url(studio_app: Any) -> Iterator[str]:
    with serving(studio_app) as address:
        yield address


@pytest.fixture
def studio_page(studio: Studio, studio_url: str, browser: Browser) -> Iterator[Callable[..., Page]]:
    """A page of a person; a script error or a refused address fails the test."""
    contexts, problems = [], []

    def open_page(person: Person, lang: str = "en", theme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=studio_url)
        cookies = {"wh_lang": lang, "wh_theme": theme, "whetstone": token_for(studio, person)}  # type: ignore[arg-type]
        context.add_cookies([{"name": name, "value": value, "url": studio_url} for name, value in cookies.items()])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # two busy cores are no failure
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("console", lambda said: "Content Security Policy" in said.text and problems.append(said.text))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
