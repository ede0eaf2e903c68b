"""The real app in its own process, with its engine and workers, and a browser to use it with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from bench.start import free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "four unrelated words here"
CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=120_000)  # a loaded machine may need a while for what a page does next


@dataclass
class App:
    """A running `python app.py` and what it printed."""

    url: str
    data_dir: Path
    first_link: str
    process: subprocess.Popen[str]


@contextmanager
def running(data_dir: Path, *options: str, seconds: float = 180) -> Iterator[App]:
    """Start the app on a free port; yields when it has printed the first admin's link."""
    port = free_port()
    command = [sys.executable, "-u", "app.py", "--data-dir", str(data_dir), "--port", str(port), *options]
    log = data_dir.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
    try:
        deadline = time.monotonic() + seconds
        while (found := re.search(r"http://\S+/invite/\S+", log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The app did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield App(f"http://127.0.0.1:{port}", data_dir, found[0], process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def browsing() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def page_in(
    browser: Browser, app: App, lang: str = "en", theme: str = "light", size: tuple[int, int] = (1440, 900)
) -> Page:
    """A page in a browser profile of its own."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, base_url=app.url)
    cookies = {"wh_lang": lang, "wh_theme": theme}
    context.add_cookies([{"name": name, "value": value, "url": app.url} for name, value in cookies.items()])
    page = context.new_page()
    page.set_default_timeout(120_000)
    return page


def accept(page: Page, link: str) -> None:
    """Open a one-time link and choose a password; ends on the person's first page."""
    page.goto(link)
    page.fill("input[name=password]", PASSWORD)
    page.fill("input[name=again]", PASSWORD)
    page.locator("form", has=page.locator("input[name=again]")).locator("button[type=submit]").first.click()
    page.wait_for_url(re.compile(r"/(label|studio|admin)"))


def judge(page: Page, count: int, keys: str = "12T34") -> None:
    """Judge comparisons by keyboard alone, until the last one is saved: the next one is shown before the server has said so."""
    for turn in range(count):
        page.wait_for_selector("#desk[data-ready]:not([data-ready=empty])")
        desk = page.get_attribute("#desk", "data-ready")
        page.keyboard.press(keys[turn % len(keys)])
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#desk:not([data-ready='{desk}'])")
    page.wait_for_function("!Object.keys(localStorage).some((key) => key.includes(':submit:'))")


def choose(page: Page, field: str, text: str) -> None:
    """Pick an entry of a Gradio dropdown by its text."""
    box = page.locator(f"#{field} input").first
    box.click()
    box.fill(text)
    page.get_by_role("option", name=text).first.click()
