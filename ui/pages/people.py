"""The people page: who may sign in, with which role; one-time links."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from backend import administering
from backend.access import RANK
from feedback_db.people import Seen
from ui.context import Ui
from ui.gate import is_loopback

NAME = "people"
PATH = "people"


def page(ui: Ui) -> None:
    label = ui.text.label
    roles = [(label(f"people.{role}"), role) for role in RANK]
    short_roles = [(label(f"role.{role}"), role) for role in RANK]
    with gr.Column(elem_classes="wh-page"):
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(label("people.title"))
                table = gr.Dataframe(
                    headers=["", "", "", ""],
                    datatype="str",
                    interactive=False,
                    label=label("people.table"),
                    show_label=True,
                    elem_id="people",
                    wrap=True,
                    column_count=4,
                    buttons=[],
                )
            with gr.Column(scale=2, min_width=300):
                link = gr.Textbox(
                    label=label("people.link"),
                    info=label("people.link_hint"),
                    visible=False,
                    interactive=False,
                    buttons=["copy"],
                    elem_id="link",
                )
                gr.Markdown(label("people.add"))
                with gr.Group():
                    name = gr.Textbox(label=label("people.name"), info=label("people.name_hint"), elem_id="new-name")
                    role = gr.Radio(roles, value="annotator", label=label("people.role"), elem_id="new-role")
                add = gr.Button(label("people.add_button"), variant="primary", size="md", elem_id="add")
                gr.Markdown(label("people.change"))
                with gr.Group():
                    who = gr.Dropdown([], label=label("people.who"), elem_id="who", filterable=True)
                    other_role = gr.Radio(
                        short_roles, value="annotator", label=label("people.role"), elem_id="other-role"
                    )
                with gr.Row():
                    set_role = gr.Button(label("people.set_role"), size="sm", elem_id="set-role")
                    new_link = gr.Button(label("people.new_link"), size="sm", elem_id="new-link")
                    disable = gr.Button(label("people.disable"), size="sm", elem_id="disable")
                    enable = gr.Button(label("people.enable"), size="sm", elem_id="enable")

    def show() -> list[Any]:
        found = administering.people(ui.store, ui.guard.person())
        choices = [(str(seen.person.name), int(seen.person.id or 0)) for seen in found]
        return [_table(ui, found), gr.update(choices=choices)]

    def show_link(token: str, request: gr.Request) -> Any:
        return gr.update(value=f"{_address(ui, request)}/invite/{token}", visible=True)

    def add_person(new_name: str, new_role: str, request: gr.Request) -> list[Any]:
        made = administering.add_person(ui.store, ui.guard.person(), new_name, new_role)
        gr.Info(ui.guard.say("people.added", name=made.person.name))
        return [*show(), show_link(made.token, request), ""]

    def invite_again(person_id: int | None, request: gr.Request) -> Any:
        made = administering.new_invite(ui.store, ui.guard.person(), person_id or 0)
        gr.Info(ui.guard.say("people.link_made", name=made.person.name))
        return show_link(made.token, request)

    def change_role(person_id: int | None, new_role: str) -> list[Any]:
        changed = administering.change_role(ui.store, ui.guard.person(), person_id or 0, new_role)
        gr.Info(ui.guard.say("people.role_changed", name=changed.name, role=ui.guard.say(f"role.{changed.role}")))
        return show()

    def disable_person(person_id: int | None) -> list[Any]:
        changed = administering.disable(ui.store, ui.guard.person(), person_id or 0)
        gr.Info(ui.guard.say("people.was_disabled", name=changed.name))
        return show()

    def enable_person(person_id: int | None) -> list[Any]:
        changed = administering.enable(ui.store, ui.guard.person(), person_id or 0)
        gr.Info(ui.guard.say("people.was_enabled", name=changed.name))
        return show()

    loaded: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    gr.on(None, show, None, [table, who], api_name="people", **loaded)
    add.click(add_person, [name, role], [table, who, link, name], api_name="add_person")
    name.submit(add_person, [name, role], [table, who, link, name], api_name="add_person_by_key")
    new_link.click(invite_again, [who], [link], api_name="new_invite")
    set_role.click(change_role, [who, other_role], [table, who], api_name="change_role")
    disable.click(disable_person, [who], [table, who], api_name="disable_person")
    enable.click(enable_person, [who], [table, who], api_name="enable_person")


def _table(ui: Ui, found: list[Seen]) -> Any:
    say = ui.guard.say
    rows = [
        [
            str(seen.person.name),
            say(f"role.{seen.person.role}"),
            say("people.invited" if _is_waiting(seen) else f"people.{seen.person.status}"),
            _ago(seen.last_seen_at) or say("people.never"),
        ]
        for seen in found
    ]
    headers = [say(f"people.{column}") for column in ("name", "role", "status", "last_seen")]
    return gr.update(value={"headers": headers, "data": rows})


def _is_waiting(seen: Seen) -> bool:
    return seen.person.status == "active" and seen.person.password_hash is None


def _ago(at: int | None) -> str:
    """Local time of the server, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at / 1_000_000)) if at else ""


def _address(ui: Ui, request: gr.Request) -> str:
    """Where this browser reaches us; the gate has checked the host."""
    scheme = "https" if ui.settings.behind_proxy else "http"
    fallback = f"{ui.settings.host}:{ui.settings.port}" if is_loopback(ui.settings.host) else ui.settings.host
    return f"{scheme}://{request.headers.get('host', fallback)}"
