"""A picture of every page: `make screenshots` fills screenshots/ from a running app with work in it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tests.journeys.whetstone import accept, browsing, page_in, running

PAGES = {  # compare first: it sends what label then shows
    "compare": "/studio/compare",
    "label": "/label/",
    "build": "/studio/",
    "tune": "/studio/tune",
    "test": "/studio/test",
    "gallery": "/studio/gallery",
    "exchange": "/studio/exchange",
    "quality": "/studio/quality",
    "train": "/admin/train",
    "models": "/admin/models",
    "engines": "/admin/engines",
    "people": "/admin/people",
}
LOOKS = [("en", "light"), ("en", "dark"), ("zh-CN", "light"), ("zh-CN", "dark")]
SETTLED_MS = 4000  # until the last panel is drawn


def main(out: Path, data_dir: Path | None) -> None:
    """Pictures of a given data folder, or of a new one."""
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(data_dir or Path(folder) / "data") as app,
        browsing() as browser,
    ):
        page = page_in(browser, app)
        accept(page, app.first_link)
        cookies = page.context.cookies()
        for lang, theme in LOOKS:
            for name, path in PAGES.items():
                look = page_in(browser, app, lang, theme)
                look.context.add_cookies([c for c in cookies if not c["name"].startswith("wh_")])  # type: ignore[misc]
                take(look, path, out / f"{name}_{theme}_{lang[:2]}.png")
                look.context.close()
        phone = page_in(browser, app, size=(390, 844))
        phone.context.add_cookies([c for c in cookies if not c["name"].startswith("wh_")])  # type: ignore[misc]
        take(phone, PAGES["label"], out / "label_phone.png")


def take(page: Page, path: str, file: Path) -> None:
    page.goto(path)
    page.wait_for_load_state("load")
    page.wait_for_timeout(SETTLED_MS)
    if "compare" in path:
        page.click("#run")
        page.wait_for_timeout(SETTLED_MS)
        page.click("#send")
        page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=str(file))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
