"""The engines page: how the engine of this machine does, and the servers of others that answer too."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from backend import connecting
from backend.connecting import Connected
from ui.context import Ui
from ui.guard import needs
from ui.views.drawn import badge, cards, drawing, drawn, facts, heading, note, table
from ui.views.pickers import picker
from ui.views.words import engine_event

NAME = "engines"
PATH = "engines"
CONTEXT_TOKENS = 8192
MEGABYTE = 1024 * 1024


class Form(NamedTuple):
    """What is said of a new engine."""

    name: Any
    base_url: Any
    key_reference: Any
    context_tokens: Any


def page(ui: Ui) -> None:
    label = ui.text.label
    chosen = gr.State(None)
    with gr.Column(elem_classes=["wh-page", "wh-wide"]):
        with gr.Column(elem_classes="wh-panel"):
            health = drawn("engine-health")
            again = gr.Button(label("engines.again"), size="sm", elem_id="engine-again", scale=0, min_width=140)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=420, elem_classes="wh-panel"):
                remote = drawn("engines")
                detail = drawn("engine-detail")
                with gr.Row(elem_classes="wh-tight"):
                    ask = gr.Button(label("engines.ask"), size="sm", elem_id="ask-engine", interactive=False)
                    model = picker(
                        label("engines.model"), "engine-model", allow_custom_value=True, scale=3, min_width=220
                    )
                    take = gr.Button(label("engines.take"), size="sm", elem_id="take-model", interactive=False)
                remove = gr.Button(
                    label("engines.remove"),
                    size="sm",
                    elem_id="remove-engine",
                    interactive=False,
                    scale=0,
                    min_width=160,
                )
                status = drawn("engines-status")
            with gr.Column(scale=4, min_width=300, elem_classes="wh-panel"):
                gr.Markdown(label("engines.add_title"))
                form = _form(ui)
                add = gr.Button(label("engines.add"), variant="primary", size="md", elem_id="add-engine")
    shown = [chosen, remote, detail, ask, take, remove]

    def open_page() -> list[Any]:
        return [_health(ui), *_shown(ui, None)]

    def look_again() -> dict[str, Any]:
        return _health(ui)

    def choose(event: gr.EventData) -> list[Any]:
        return [*_shown(ui, int(event._data["id"])), gr.update(choices=[], value=None), drawing()]

    @needs("administer")
    def add_engine(name: str, base_url: str, key_reference: str, context: float | None) -> list[Any]:
        made = connecting.add_engine(
            ui.store, ui.engine, ui.guard.person(), name=name or "", base_url=base_url or "",
            key_reference=key_reference or "", context_tokens=int(context or 0),
        )  # fmt: skip
        return [*_shown(ui, made.id), _said(ui, "engines.added", name=made.name), "", "", "", CONTEXT_TOKENS]

    @needs("administer")
    def ask_engine(engine_id: int | None) -> list[Any]:
        found = connecting.offered(ui.store, ui.engine, ui.guard.person(), engine_id or 0)
        choices = gr.update(choices=found, value=found[0] if found else None)
        return [choices, _said(ui, "engines.offers", n=len(found))]

    @needs("administer")
    def take_model(engine_id: int | None, name: str | None) -> list[Any]:
        made = connecting.take_model(ui.store, ui.guard.person(), engine_id or 0, name or "")
        return [*_shown(ui, engine_id), _said(ui, "engines.taken", name=made.name)]

    @needs("administer")
    def remove_engine(engine_id: int | None) -> list[Any]:
        removed = connecting.remove_engine(ui.store, ui.engine, ui.guard.person(), engine_id or 0)
        return [*_shown(ui, None), _said(ui, "engines.removed", name=removed.name)]

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    gr.on(None, open_page, None, [health, *shown], api_name="engines_open", **quiet)
    again.click(look_again, None, health, api_name="engines_again", **quiet)
    remote.select(choose, None, [*shown, model, status], api_name="engines_choose", **quiet)
    add.click(add_engine, list(form), [*shown, status, *form], api_name="add_engine")
    ask.click(ask_engine, chosen, [model, status], api_name="ask_engine")
    take.click(take_model, [chosen, model], [*shown, status], api_name="take_model")
    remove.click(remove_engine, chosen, [*shown, status], api_name="remove_engine")


def _form(ui: Ui) -> Form:
    label = ui.text.label
    return Form(
        gr.Textbox(label=label("engines.name"), elem_id="engine-name", max_lines=1),
        gr.Textbox(
            label=label("engines.base_url"), info=label("engines.base_url_hint"), elem_id="engine-url", max_lines=1
        ),
        gr.Textbox(label=label("engines.key"), info=label("engines.key_hint"), elem_id="engine-key", max_lines=1),
        gr.Number(
            value=CONTEXT_TOKENS,
            precision=0,
            label=label("engines.context"),
            info=label("engines.context_hint"),
            elem_id="engine-context",
        ),
    )


def _health(ui: Ui) -> dict[str, Any]:
    """The engine process as it says of itself."""
    say, found = ui.guard.say, connecting.health(ui.engine, ui.guard.person())
    title = heading(say("engines.own"))
    if found is None or not found["loaded"]:
        kept = say(f"engines.{found['state'] if found else 'asleep'}")
        return drawing(title, note(kept, "warn" if found else "info"), note(engine_event(ui), "warn"))
    state = "engines.resting" if found["resting"] else "engines.running"
    kept = found["dtype"] if found["quantisation"] == "none" else f"{found['quantisation']} / {found['dtype']}"
    place = f"{found['device']}, {kept}, {found['attention']}"
    items = [
        (say("engines.state"), say(state), place),
        (say("engines.speed"), f"{found['tokens_per_second']:g}", say("engines.speed_hint")),
        (say("engines.rows"), str(found["active"]), say("engines.rows_hint", n=found["waiting"])),
        (say("engines.adapters"), str(found["adapters"]), say("engines.adapters_hint")),
        (say("engines.memory"), _megabytes(found["memory_bytes"]), say("engines.memory_hint")),
    ]
    if found["gpu_bytes"]:
        items.append((say("engines.gpu"), _megabytes(found["gpu_bytes"]), say("engines.gpu_hint")))
    for name in ("batch_fill", "cache_hits"):
        if name in found:
            items.append((say(f"engines.{name}"), f"{100 * found[name]:.0f} %", say(f"engines.{name}_hint")))
    return drawing(title, cards(items), note(engine_event(ui), "warn"))


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.0f} MB"


def _shown(ui: Ui, wanted: int | None) -> list[Any]:
    """The remote engines, the one chosen, and what can be done with it."""
    found = connecting.engines(ui.store, ui.engine, ui.guard.person())
    one = next((entry for entry in found if entry.engine.id == wanted), found[0] if found else None)
    can_act = gr.update(interactive=one is not None)
    return [one.engine.id if one else None, _engines(ui, found, one), _detail(ui, one), can_act, can_act, can_act]


def _engines(ui: Ui, found: list[Connected], one: Connected | None) -> dict[str, Any]:
    say = ui.guard.say
    rows = [
        (
            entry.engine.id or 0,
            [
                entry.engine.name,
                entry.engine.base_url,
                str(len(entry.models)),
                badge(say("engines.ready"), "ok") if entry.trouble is None else badge(say("engines.trouble"), "bad"),
            ],
        )
        for entry in found
    ]
    columns = [say(f"engines.{name}") for name in ("name", "base_url", "models", "state")]
    shown = table(
        columns, rows, caption=say("engines.table"), empty=say("engines.none"), selects=True, numbers=[2],
        chosen=one.engine.id if one else None,
    )  # fmt: skip
    hosts = ", ".join(ui.engine.allowed) or say("engines.no_hosts")
    return drawing(heading(say("engines.remote")), note(say("engines.hosts", hosts=hosts)), shown)


def _detail(ui: Ui, one: Connected | None) -> dict[str, Any]:
    if one is None:
        return drawing()
    say = ui.guard.say
    trouble = note(ui.text.problem(one.trouble, ui.guard.language()), "bad") if one.trouble else None
    rows = [
        (say("engines.key"), one.engine.key_reference or say("engines.no_key")),
        (say("engines.context"), str(one.engine.context_tokens)),
        (say("engines.models"), ", ".join(model.name for model in one.models) or say("engines.no_models")),
    ]
    return drawing(heading(one.engine.name), facts(rows), trouble)


def _said(ui: Ui, key: str, **values: Any) -> dict[str, Any]:
    return drawing(note(ui.guard.say(key, **values), "ok"))
