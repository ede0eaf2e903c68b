"""A run of 20,000 cells on the test page, and templates: how long the page takes to open, to follow and to scroll, what rendering
costs, and how long hostile templates hold anybody up.

``python -m bench matrix``; ``measure`` gives the rows and facts to any other measurement that wants them.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from backend import opening, prompting, signing_in, starting, testing
from backend.engines.kept import SamplingSettings
from backend.engines.scripted import ScriptedEngine
from backend.prompts import template
from backend.prompts.chat import build_messages
from backend.registry.bases import Base
from backend.settings import Settings
from backend.suites import running
from backend.suites.looking import Looks
from bench import report
from feedback_db import Store, models, people
from feedback_db.types import Person, Row, SuiteRun, Template
from ui.context import Ui
from ui.text import Text
from ui.web import create_app

TRIED = importlib.import_module(
    "tests.backend.prompts.test_template"
)  # the templates that the tests hold to the same limits
serving = importlib.import_module("tests.ui.house").serving  # an app on a free port, as the tests open it
CASES, COLUMNS = 2_500, 8  # 20,000 cells
OPEN_SECONDS, LOOK_SECONDS, RENDER_SECONDS = 2.0, 0.1, 50e-6
HOSTILE_SECONDS, HOSTILE_MB = 0.5, 64.0
LEFT = 64  # cells that come while somebody looks
PLAIN = "You are {{role}}. Answer briefly.\n\nText: {{text}}\nQuestion: {{question}}\nAnswer:"
LOGIC = "You are {{ role }}.{% if text %}\n\nText: {{ text }}{% endif %}\nQuestion: {{ question|trim }}\nAnswer:"
CHAT: tuple[Row, ...] = (
    {"role": "system", "text": "You are {{role}}. Answer briefly."},
    {"role": "user", "text": "Text: {{text}}"},
    {"role": "assistant", "text": "I have read it."},
    {"role": "user", "text": "Question: {{question}}\nAnswer:"},
)
VALUES = {"role": "a support agent", "text": "The parcel left on Monday. " * 8, "question": " Where is it? "}
BLANKS = """async (steps) => {
  const frame = document.querySelector('#run-cases .vw-scroll');
  frame.scrollIntoView({ block: 'center' });
  const box = frame.getBoundingClientRect();
  let blank = 0, frames = 0, longest = 0, before = performance.now();
  for (let at = 0; at < steps; at++) {
    frame.scrollTop += 60;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    longest = Math.max(longest, now - before); before = now; frames++;
    for (const part of [0.3, 0.6, 0.9]) {
      const there = document.elementFromPoint(box.left + box.width / 2, box.top + box.height * part)?.closest('tr');
      if (!there || !there.textContent.trim()) blank++;
    }
  }
  return { frames, blank, longest, reached: frame.scrollTop + frame.clientHeight >= frame.scrollHeight - 2, cells: frame.querySelectorAll('td').length };
}"""


def measure(quick: bool = False) -> dict[str, Any]:
    """{"rows": rows of a report, "facts": figures beside them}. Needs Chromium and about a minute."""
    rows, facts = _templates(quick)
    with tempfile.TemporaryDirectory() as folder:
        more, found = _page(Path(folder), 3 if quick else 7)
    return {"rows": [*rows, *more], "facts": {**facts, **found}}


def alone(quick: bool) -> report.Found:
    found = measure(quick)
    return report.Found(found["rows"], {"facts": found["facts"]})


# ---- templates


def _templates(quick: bool) -> tuple[list[report.Row], dict[str, Any]]:
    rows, facts = [], {}
    for name, body, mode in (("plain", PLAIN, "plain"), ("logic", LOGIC, "logic")):
        compiled = template.compile_template(body, mode)  # type: ignore[arg-type]
        seconds = [_seconds(partial(template.render, compiled, VALUES), 2000) for _ in range(5 if quick else 25)]
        rows.append(report.row(f"rendering a compiled template, {name}", "limit of 50 µs", seconds, RENDER_SECONDS, 1))
        facts[f"render_{name}_us"] = round(statistics.median(seconds) * 1e6, 2)
    chat = Template(project_id=0, name="chat", digest=bytes(32), few_shot={}, body="", rows=CHAT)
    seconds = [_seconds(partial(build_messages, chat, VALUES, (), "turns"), 2000) for _ in range(5 if quick else 25)]
    rows.append(
        report.row(
            "rendering a chat template of four rows to its messages", "limit of 50 µs", seconds, RENDER_SECONDS, 1
        )
    )
    facts["render_chat_us"] = round(statistics.median(seconds) * 1e6, 2)
    tries = [(body, mode, values) for body, values in TRIED.HOSTILE.values() for mode in ("logic", "plain")]
    tries += [(body, "logic", values) for body, values in TRIED.AMPLIFIERS.values()]
    longest = [max(_cpu_seconds(*one) for one in tries) for _ in range(2 if quick else 5)]
    largest = [max(_peak_mb(*one) for one in tries)]
    rows.append(
        report.row(f"worst of {len(tries)} hostile fillings, seconds", "limit of 0.5 s", longest, HOSTILE_SECONDS, 1)
    )
    rows.append(report.row(f"worst of {len(tries)} hostile fillings, memory", "limit of 64 MB", largest, HOSTILE_MB, 1))
    facts |= {"hostile_templates": len(TRIED.HOSTILE) + len(TRIED.AMPLIFIERS), "hostile_fillings": len(tries)}
    facts |= {"hostile_worst_s": round(max(longest), 3), "hostile_worst_mb": round(largest[0], 1)}
    return rows, facts


def _seconds(act: Callable[[], Any], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - started) / times


def _cpu_seconds(body: str, mode: str, values: dict[str, Any]) -> float:
    started = time.process_time()
    _filled(body, mode, values)
    return time.process_time() - started


def _peak_mb(body: str, mode: str, values: dict[str, Any]) -> float:
    tracemalloc.start()
    try:
        _filled(body, mode, values)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def _filled(body: str, mode: str, values: dict[str, Any]) -> None:
    try:
        TRIED.filled(body, mode, **values)
    except template.TemplateProblem:
        pass


# ---- the page


def _page(folder: Path, times: int) -> tuple[list[report.Row], dict[str, Any]]:
    ui, person, run = _house(folder)
    looks, looked = Looks(), []
    first = _seconds(lambda: testing.summary(ui.store, person, run.id or 0, looks), 1)
    while True:  # the last cells come, and somebody looks at each batch
        if not running.advance(ui.store, ui.engine):
            break
        looked.append(_seconds(lambda: _look(ui.store, person, run, looks), 1))
    cold, warm, turned, scrolled = [], [], [], {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(times):
            with serving(create_app(ui)) as address, _opened(browser, ui.store, person, address) as page:
                cold.append(_open(page, f"{address}/studio/test?run={run.id}"))
                warm.append(_open(page, f"{address}/studio/test?run={run.id}"))
                turned += _turn(page, 5)
                scrolled = page.evaluate(BLANKS, 60)
        browser.close()
    facts = {
        "cells": CASES * COLUMNS, "first_look_s": round(first, 3), "look_s": round(statistics.median(looked), 4), "looks": len(looked),
        "open_cold_s": round(statistics.median(cold), 3), "open_warm_s": round(statistics.median(warm), 3),
        "turn_s": round(statistics.median(turned), 3), "scroll": scrolled,
        "web_and_bench_rss_mb": round(psutil.Process().memory_info().rss / 2**20),
    }  # fmt: skip
    rows = [
        report.row("a run of 20,000 cells opens, first time", "limit of 2 s", cold, OPEN_SECONDS, 1),
        report.row("a run of 20,000 cells opens, again", "limit of 2 s", warm, OPEN_SECONDS, 1),
        report.row("the next page of cases", "limit of 2 s", turned, OPEN_SECONDS, 1),
        report.row("a look after 64 more cells", "limit of 0.1 s", looked, LOOK_SECONDS, 1),
    ]
    ui.store.close()
    return rows, facts


def _look(store: Store, person: Person, run: SuiteRun, looks: Looks) -> None:
    """What the page asks each second."""
    testing.runs(store, person, run.project_id)
    testing.summary(store, person, run.id or 0, looks)
    testing.rows(store, person, run.id or 0, most=50, looks=looks)


def _house(folder: Path) -> tuple[Ui, Person, SuiteRun]:
    """A run of 2,500 cases in eight columns, answered but for the last few cells."""
    settings = Settings(data_dir=folder, port=0)
    store = Store(settings.database)
    opening.register_base(store, Base("starter", Path("/nowhere"), hashlib.sha256(b"starter").digest()))
    project_id = starting.ensure_sample(store).id or 0
    person = store.add(Person(pseudonym="bob", name="bob", role="engineer"))
    engine = ScriptedEngine(
        lambda messages, model, seed: f"{messages[-1]['content']} {len(messages[-1]['content']) * 7 % 11}"
    )
    rows = [({"word": f"parcel {number}"}, f"{number}") for number in range(CASES)]
    cases = prompting.add_cases(store, person, project_id, rows)
    ids = [case.id or 0 for case in cases]
    checks = "contains\nnot-contains: 3\nlength:" + '{"max": 40}'
    suite = testing.save_suite(store, person, project_id, name="parcels", case_ids=ids, checks=checks)
    drafts = [prompting.Draft(name=f"t{n}", body=f"{'Tell ' * (n + 1)}{{{{word}}}}") for n in range(COLUMNS // 2)]
    templates = [prompting.save_template(store, person, project_id, draft).id or 0 for draft in drafts]
    live = models.live(store, "policy")
    assert live is not None
    samplings = [SamplingSettings(temperature=one) for one in (0.0, 0.7)]
    run = testing.start(store, person, suite.id or 0, [(one, live.id or 0) for one in templates], samplings=samplings)
    store.db.conn.execute("pragma synchronous=off")  # while the house is built; what is measured reads
    while testing.progress(store, person, run.id or 0).done < run.total - 10 * LEFT:
        running.advance(store, engine)
    return Ui(store=store, engine=engine, jobs=None, settings=settings, text=Text()), person, run


@contextmanager
def _opened(browser: Browser, store: Store, person: Person, address: str) -> Iterator[Page]:
    """A page of this person, with the app's own files already in the browser's cache: what is measured is the run."""
    with store.write():
        token = people.invite(store, person, None)
    session = signing_in.accept(store, token, None).token
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_cookies([{"name": "whetstone", "value": session, "url": address}])
    page = context.new_page()
    page.goto(f"{address}/studio/compare")
    page.locator("#project, .wh-page").first.wait_for(state="attached")
    yield page
    context.close()


def _open(page: Page, address: str) -> float:
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator("#run-cases tbody tr").nth(49).wait_for(state="attached")
    return time.perf_counter() - started


def _turn(page: Page, times: int) -> list[float]:
    """Seconds from the click until the next page of cases stands there."""
    found = []
    for _ in range(times):
        before = page.locator("#run-cases tbody tr button").first.inner_text()
        started = time.perf_counter()
        page.locator("#next-cases").click()
        page.wait_for_function(
            "(was) => { const first = document.querySelector('#run-cases tbody tr button'); return first && first.innerText !== was; }",
            arg=before,
        )
        found.append(time.perf_counter() - started)
    return found
