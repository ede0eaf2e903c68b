"""The guard: what Gradio events answer to whom."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest

from backend import signing_in
from backend.access import Denied
from tests.ui.house import House, token_for
from ui.guard import SESSION_CACHE_SECONDS, Guard, GuardedBlocks, needs
from ui.text import Text


def asked(token: str | None, session_hash: str | None = None, lang: str = "en") -> gr.Request:
    cookies = {"wh_lang": lang, **({"whetstone": token} if token else {})}
    return gr.Request(SimpleNamespace(cookies=cookies, headers={}), session_hash=session_hash)


def blocks_of(app) -> list[GuardedBlocks]:
    return [route.app.get_blocks() for route in app.routes if hasattr(getattr(route, "app", None), "get_blocks")]


def small(house: House, role: str = "annotator", clock=time.monotonic) -> GuardedBlocks:
    guard = Guard(house.store, Text(), "whetstone", clock)

    def who() -> str:
        return f"{guard.person().name} {guard.language()}"

    @needs("administer")
    def only_admins() -> str:
        return "done"

    def steps():
        for n in range(3):
            yield f"{guard.person().name} {n}"

    def refuse() -> str:
        raise Denied("<b>no</b>", "")

    async def make() -> GuardedBlocks:
        with GuardedBlocks(guard, role, analytics_enabled=False) as made:
            box = gr.Textbox()
            for handler in (who, only_admins, steps, refuse):
                gr.Button().click(handler, None, box, api_name=handler.__name__)
        return made

    return asyncio.run(make())


def call(blocks: GuardedBlocks, name: str, request, **more):
    event = next(number for number, fn in blocks.fns.items() if fn.api_name == name)
    return asyncio.run(blocks.process_api(event, [], request=request, **more))


def test_a_handler_knows_who_acts_and_in_which_language(house):
    blocks = small(house)
    assert call(blocks, "who", asked(token_for(house, house.ann), lang="zh-CN"))["data"] == ["ann zh-CN"]
    with pytest.raises(LookupError):
        blocks.guard.person()


def test_an_event_without_a_request_or_a_session_is_refused(house):
    blocks = small(house)
    for request in (None, asked(None), asked("x" * 43), [], [None], gr.Request()):
        with pytest.raises(gr.Error, match="session has ended|from a page"):
            call(blocks, "who", request)


def test_the_area_and_a_need_can_only_raise_what_is_asked(house):
    for role, who, allowed in [("annotator", house.ann, True), ("engineer", house.ann, False), ("engineer", house.bob, True),
                               ("admin", house.bob, False), ("admin", house.admin, True)]:  # fmt: skip
        request = asked(token_for(house, who))
        if allowed:
            assert call(small(house, role), "who", request)["data"]
        else:
            with pytest.raises(gr.Error, match="needs the role"):
                call(small(house, role), "who", request)
    with pytest.raises(gr.Error, match="needs the role admin"):
        call(small(house), "only_admins", asked(token_for(house, house.bob)))


def test_a_session_hash_of_another_person_is_refused(house):
    blocks = small(house)
    tab = uuid.uuid4().hex
    assert call(blocks, "who", asked(token_for(house, house.ann), tab), session_hash=tab)["data"] == ["ann en"]
    with pytest.raises(gr.Error, match="somebody else"):
        call(blocks, "who", asked(token_for(house, house.eve), tab), session_hash=tab)


def test_a_revoked_session_stops_a_running_stream(house):
    now = [0.0]
    blocks = small(house, clock=lambda: now[0])
    token = token_for(house, house.ann)
    first = call(blocks, "steps", asked(token))
    assert first["data"] == ["ann 0"] and first["is_generating"]
    signing_in.sign_out(house.store, token)
    now[0] += SESSION_CACHE_SECONDS
    with pytest.raises(gr.Error, match="session has ended"):
        call(blocks, "steps", asked(token), iterator=first["iterator"])


def test_an_error_of_an_activity_is_shown_as_text(house):
    with pytest.raises(gr.Error) as shown:
        call(small(house), "refuse", asked(token_for(house, house.ann)))
    assert shown.value.message == "&lt;b&gt;no&lt;/b&gt;" and not shown.value.print_exception


def test_every_mount_is_guarded_and_none_goes_round_the_guard(app):
    found = blocks_of(app)
    assert len(found) >= 2
    for blocks in found:
        assert type(blocks) is GuardedBlocks
        for block in blocks.blocks.values():
            assert not getattr(block, "server_fns", None) and not getattr(block, "server_functions", None), block
        assert not any(fn.batch for fn in blocks.fns.values())


def test_every_event_answers_each_role_as_the_area_says(app, house):
    for blocks in blocks_of(app):
        for who in (house.ann, house.bob, house.admin):
            may = {"annotator": 0, "engineer": 1, "admin": 2}
            allowed = may[who.role] >= may[blocks.role]
            if not allowed:
                for number in blocks.fns:
                    with pytest.raises(gr.Error, match="needs the role"):
                        asyncio.run(blocks.process_api(number, [], request=asked(token_for(house, who))))


def test_a_plain_annotator_reaches_no_event_of_the_admin_area_over_http(house, url):
    cookies = {"whetstone": token_for(house, house.ann)}
    with httpx.Client(base_url=url, cookies=cookies) as client:
        for n in range(7):
            body = {"data": [], "fn_index": n, "session_hash": uuid.uuid4().hex}
            assert client.post("/admin/gradio_api/queue/join", json=body).status_code == 403
            assert client.post("/admin/gradio_api/run/predict", json=body).status_code == 403


def test_web_does_not_import_torch():
    code = (
        "import sys, json; import ui.web; "
        "print(json.dumps([name for name in ('torch', 'transformers', 'peft') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert json.loads(done.stdout) == [], done.stderr
