"""The loop in a real browser against the real server, engine and workers, from an empty folder to a promoted policy's answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from feedback_db import Store, comparisons, models
from feedback_db.types import Assignment, Comparison, Job, Judgement, Template
from tests.journeys.whetstone import App, accept, browsing, choose, judge, page_in, running

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
EACH = 13  # judgements of each annotator: a few more than a reward job needs


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running(tmp_path_factory.mktemp("journey") / "data") as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as started:
        yield started


@pytest.fixture(scope="module")
def store(app: App) -> Iterator[Store]:
    """What the app has written, read from outside."""
    opened = Store(app.data_dir / "feedback.db", read_only=True)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def admin(app: App, browser: Browser) -> Page:
    page = page_in(browser, app)
    accept(page, app.first_link)
    return page


def invited(admin: Page, app: App, browser: Browser, name: str, role: str) -> Page:
    """The admin adds a person on the people page; the person opens the link that is shown."""
    admin.goto("/admin/people")
    expect(admin.locator("#people [role=gridcell]").first).to_be_visible()  # the page is filled
    admin.fill("#new-name input, #new-name textarea", name)
    admin.check(f"#new-role input[value={role}]")
    admin.click("#add")
    link = admin.locator("#link input, #link textarea")
    expect(link).to_have_value(re.compile("/invite/"))
    page = page_in(browser, app)
    accept(page, link.input_value())
    return page


def test_the_whole_loop(app: App, browser: Browser, store: Store, admin: Page) -> None:
    engineer = invited(admin, app, browser, "erin", "engineer")
    build_a_prompt(engineer, store)
    compare_and_send(engineer, store)
    annotators = [invited(admin, app, browser, name, "annotator") for name in ("ann", "ben")]
    for page in annotators:
        judge(page, EACH)
    judged_blind_and_once(store)
    train(admin, store, "reward", {})
    train(admin, store, "ppo", {"total-episodes": "64", "batch-size": "32", "eval-cases": "4"})
    promoted = promote(admin, store)
    the_next_comparison_is_the_new_policys(annotators[0], store, promoted)


def build_a_prompt(page: Page, store: Store) -> None:
    expect(page).to_have_url(re.compile("/studio"))
    expect(page.locator("#prompt .vw-message").first).to_be_visible()
    system = page.locator("#system-text textarea")
    for name, text in (("movie sentiment", ""), ("customer service", "You are the customer service of a shop.")):
        choose(page, "template", f"{name} · v1")
        expect(system).to_have_value(text)  # what is picked fills all fields: typing before that would be replaced
    system.press("End")
    system.press_sequentially(" Be brief.")
    expect(page.locator("#prompt")).to_contain_text("of a shop. Be brief.")
    page.click("#save")
    expect(page.locator("#build-status")).to_contain_text("2")
    saved = store.find(Template, "name = 'customer service'", order_by="version desc")[0]
    assert (saved.version, saved.system_text) == (2, "You are the customer service of a shop. Be brief.")


def compare_and_send(page: Page, store: Store) -> None:
    page.goto("/studio/compare")
    expect(page.locator("#template-A input").first).not_to_have_value("")
    choose(page, "template-A", "customer service · v1")
    choose(page, "template-B", "customer service · v2")
    run_until_the_answers_differ(page)
    before = store.value("select count(*) from comparisons where reason = 'sent by an engineer'")
    page.click("#send")
    expect(page.locator("#compare-status")).to_contain_text("waits for labelling")
    assert store.value("select count(*) from comparisons where reason = 'sent by an engineer'") == before + 1


LISTEN = """() => {
    const said = document.querySelector("#compare-status");
    window.heard = "";
    new MutationObserver(() => { window.heard += said.textContent; })
        .observe(said, {childList: true, subtree: true, characterData: true});
}"""  # a quick run is over before anybody looks


def run_until_the_answers_differ(page: Page) -> None:
    """With one seed, two versions that differ little may write the same text; the page says so and takes another seed."""
    said = page.locator("#compare-status")
    for seed in range(1, 9):
        page.locator("#seed input").fill("")
        page.locator("#seed input").press_sequentially(str(seed))
        page.locator("#seed input").press("Tab")
        page.evaluate(LISTEN)
        page.click("#run")
        page.wait_for_function("window.heard.includes('Answering')")
        expect(said).to_contain_text(re.compile("are stored|wrote the same"))
        if page.locator("#send").is_enabled():
            return
    raise AssertionError("eight seeds gave the same text under both versions")


def judged_blind_and_once(store: Store) -> None:
    judged = store.find(Judgement)
    assert len(judged) == 2 * EACH and len({j.person_id for j in judged}) == 2
    assert len({j.comparison_id for j in judged}) == 2 * EACH  # overlap 1: nobody judged what another had
    assert {tuple(j.shown) for j in judged} == {(0, 1), (1, 0)}  # the order is each person's own


def train(page: Page, store: Store, kind: str, settings: dict[str, str]) -> None:
    page.goto("/admin/train")
    page.get_by_role("tab").nth(["reward", "ppo"].index(kind)).click()
    start = page.locator(f"#start-{kind}")
    expect(start).to_be_visible()
    expect(start).to_be_enabled()  # the page is filled: it shows what it asks for
    for name, value in settings.items():
        field = page.locator(f"#{kind}-{name} input")
        if not field.is_visible():
            page.locator(f"#{kind}-advanced button").first.click()
            expect(field).to_be_visible()
        field.press("Control+a")
        field.press_sequentially(value)
        field.press("Tab")
        expect(field).to_have_value(value)
    if page.locator(f"#{kind}-despite textarea, #{kind}-despite input").first.is_visible():
        page.locator(f"#{kind}-despite textarea, #{kind}-despite input").first.press_sequentially("a journey")
    start.click()
    expect(page.locator("#train-status .vw-ok")).to_be_visible()
    job = store.find(Job, "kind = ?", [kind], "id desc")[0]
    run, named = page.locator("#run"), f"Job {job.id} · {kind}"
    expect(run).to_contain_text(re.compile(f"{named}.*(running|done)"))  # a short job may be over
    page.goto("about:blank")  # a closed tab loses nothing
    page.goto("/admin/train")
    expect(run).to_contain_text(re.compile(f"{named}.*done"), timeout=240_000)
    expect(page.locator("#plot-0")).to_be_visible()
    done = store.get(Job, job.id or 0)
    assert done.state == "done" and done.output_model_id
    points = store.value("select count(distinct step) from metrics where job_id = ?", [done.id])
    assert points >= 2  # the curve moved


def promote(page: Page, store: Store) -> int:
    made = store.find(Job, "kind = 'ppo'")[0].output_model_id
    page.goto(f"/admin/models?model={made}")
    expect(page.locator("#promote")).to_be_enabled()
    page.click("#promote")
    page.click("#promote-yes")
    expect(page.locator("#models-status")).to_contain_text("live")
    live = models.live(store, "policy")
    assert live is not None and live.id == made
    return live.id or 0


def the_next_comparison_is_the_new_policys(page: Page, store: Store, policy: int) -> None:
    """What was on the desk and what was fetched ahead may be finished; what comes after is the promoted policy's."""
    judge(page, 2)
    page.wait_for_selector("#desk[data-ready]:not([data-ready=empty])")
    desk = int(page.get_attribute("#desk", "data-ready") or 0)
    comparison = store.get(Comparison, store.get(Assignment, desk).comparison_id)
    assert {c.model_id for c in comparisons.completions_of(store, comparison.id or 0)} == {policy}
    shown = page.locator("#desk").inner_text()
    assert "ppo-" not in shown and "model-" not in shown  # still blind
