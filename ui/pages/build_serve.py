"""The serving tab of the build page: tokens for programs, and the request that asks this template."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr

from backend import prompting, serving, versioning
from ui.context import Ui
from ui.guard import needs
from ui.views import drawn
from ui.views.words import clock

LATEST = "latest"


class Serving(NamedTuple):
    """The parts of the tab."""

    tab: Any
    version: Any
    requests: Any
    tokens: Any
    name: Any
    keeps: Any
    make: Any
    secret: Any
    told: Any

    @property
    def shown(self) -> list[Any]:
        """What ``serving_shown`` fills."""
        return [self.version, self.requests, self.tokens]


def serving_tab(ui: Ui, tab: Any) -> Serving:
    label = ui.text.label
    version = gr.Dropdown([LATEST], value=LATEST, label=label("serve.version"), elem_id="serve-version")
    version.preprocess = lambda payload: payload  # its choices are those of the template that is open
    requests = drawn.drawn("requests")
    with gr.Row(elem_classes="wh-tight"):
        name = gr.Textbox(label=label("serve.name"), elem_id="token-name", scale=3, max_lines=1, min_width=140)
        keeps = gr.Checkbox(label=label("serve.keeps"), elem_id="token-keeps", scale=3, min_width=180)
        make = gr.Button(label("serve.make"), size="sm", elem_id="make-token", scale=1, min_width=120)
    secret = gr.Textbox(
        label=label("serve.secret"), info=label("serve.secret_hint"), visible=False, interactive=False, buttons=["copy"],
        elem_id="token-secret",
    )  # fmt: skip
    told = drawn.drawn("serve-status")
    tokens = drawn.drawn("tokens")
    return Serving(tab, version, requests, tokens, name, keeps, make, secret, told)


def serving_events(
    ui: Ui, parts: Serving, project: Any, template: Any, names: Any, boxes: Sequence[Any], quiet: dict[str, Any]
) -> None:
    def show(
        project_id: int | None,
        template_id: int | None,
        version: str,
        known: list[str],
        request: gr.Request,
        *typed: Any,
    ) -> list[Any]:
        values = {name: text or "" for name, text in zip(known, typed, strict=False)}
        return [
            *_requests(ui, project_id or 0, template_id, version, values, _address(ui, request)),
            _tokens(ui, project_id or 0),
        ]

    @needs("serve")
    def make(project_id: int | None, name: str, keeps: bool) -> list[Any]:
        made, secret = serving.make_token(ui.store, ui.guard.person(), project_id or 0, name or "", keeps=bool(keeps))
        told = drawn.drawing(drawn.note(ui.guard.say("serve.made", name=made.name), "ok"))
        return [gr.update(value=secret, visible=True), "", told, _tokens(ui, project_id or 0)]

    @needs("serve")
    def revoke(project_id: int | None, event: gr.EventData) -> list[Any]:
        serving.revoke(ui.store, ui.guard.person(), int(event._data["id"]))
        told = drawn.drawing(drawn.note(ui.guard.say("serve.revoked"), "ok"))
        return [gr.update(value="", visible=False), told, _tokens(ui, project_id or 0)]

    asked = [project, template, parts.version, names, *boxes]
    gr.on([parts.tab.select, parts.version.input], show, asked, parts.shown, api_name="build_serve", **quiet)
    after = [parts.secret, parts.name, parts.told, parts.tokens]
    parts.make.click(make, [project, parts.name, parts.keeps], after, api_name="make_token")
    parts.tokens.select(revoke, project, [parts.secret, parts.told, parts.tokens], api_name="revoke_token")


def _address(ui: Ui, request: gr.Request) -> str:
    scheme = "https" if ui.settings.behind_proxy else "http"
    return f"{scheme}://{request.headers.get('host', f'127.0.0.1:{ui.settings.port}')}"


def _requests(
    ui: Ui, project_id: int, template_id: int | None, version: str, values: dict[str, str], address: str
) -> list[Any]:
    say, person = ui.guard.say, ui.guard.person()
    if not template_id:
        return [gr.skip(), drawn.drawing(drawn.note(say("build.open_one"), "warn"))]
    template = prompting.template(ui.store, person, template_id)
    pointed = versioning.aliases(ui.store, person, project_id, template.name)
    choices = [*sorted(alias for names in pointed.values() for alias in names), LATEST, str(template.version)]
    chosen = version if version in choices else choices[0]
    url = f"{address}/v1/prompts/{quote(template.name, safe='')}/{quote(chosen, safe='')}"
    body = json.dumps({"values": values}, ensure_ascii=False)
    remote = ", ".join(f"model-{one.id} ({one.name})" for one in serving.remote_models(ui.store, person))
    shown = [
        drawn.command("curl", _curl(url, body), say("serve.copy")),
        drawn.command("Python", _python(url, values), say("serve.copy")),
        drawn.note(say("serve.more")),
        drawn.note(say("serve.remote", models=remote) if remote else ""),
    ]
    return [gr.update(choices=choices, value=chosen), drawn.drawing(*shown)]


def _curl(url: str, body: str) -> str:
    return (
        f'curl -sS {shlex.quote(url)} -H "Authorization: Bearer $WHETSTONE_TOKEN" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


def _python(url: str, values: dict[str, str]) -> str:
    return (
        "import json, os, urllib.request\n"
        f"body = json.dumps({{'values': {values!r}}}).encode()\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['WHETSTONE_TOKEN'], 'Content-Type': 'application/json'}\n"
        f"request = urllib.request.Request({url!r}, body, headers)\n"
        "print(json.load(urllib.request.urlopen(request))['completion'])"
    )


def _tokens(ui: Ui, project_id: int) -> dict[str, Any]:
    say = ui.guard.say
    found = serving.made_tokens(ui.store, ui.guard.person(), project_id)
    rows = [
        (
            one.id or 0,
            (
                say("serve.revoke"),
                one.name,
                f"…{one.hint}",
                say("serve.kept") if one.keeps else "",
                clock(one.created_at),
                clock(one.last_used_at) or "–",
            ),
        )
        for one in found
        if one.revoked_at is None
    ]
    columns = [say(f"serve.{name}") for name in ("act", "name", "ends_in", "answers", "created", "used")]
    table = drawn.table(columns, rows, caption=say("serve.tokens"), empty=say("serve.none"), selects="button")
    return drawn.drawing(drawn.heading(say("serve.tokens")), table)
