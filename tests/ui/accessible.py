"""What axe finds on a page that has come to rest; every page is to break no rule of WCAG 2.1 A and AA."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
AT_REST = """() => {
  const moving = document.getAnimations();
  if (moving.some((one) => one.effect.getComputedTiming().endTime === Infinity)) return false;
  moving.forEach((one) => one.finish());
  return document.title && document.fonts.status === "loaded";
}"""  # what turns without end waits for an answer; a colour on its way is nobody's colour


def broken(page: Page) -> list[str]:
    """Each broken rule with the element and why; looked for when nothing moves any more."""
    page.wait_for_function(AT_REST)
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]
