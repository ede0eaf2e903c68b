"""The bank's tab of the build page: choose and order demonstrations, add and change them, take in answers people preferred."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from backend import curating
from backend.curating import Known
from backend.prompting import Draft
from feedback_db.bank import Fared
from feedback_db.types import Demonstration
from ui.context import Ui
from ui.guard import needs
from ui.pages.build_form import Form, draft_of
from ui.views.drawn import drawing, drawn, heading, note, table
from ui.views.words import clipped, share

ShownBank = dict[str, Any]


class Bank(NamedTuple):
    """The parts of the tab beside the list itself, which is a field of the form."""

    search: Any
    editing: Any  # the id of the demonstration in the fields below; None for a new one
    input: Any
    output: Any
    label: Any
    tags: Any
    add: Any
    change: Any
    remove: Any
    told: Any
    winners: Any
    keep_all: Any

    @property
    def fields(self) -> list[Any]:
        return [self.input, self.output, self.label, self.tags]

    @property
    def winning(self) -> list[Any]:
        return [self.winners, self.keep_all]


def bank_tab(ui: Ui, form: Form) -> Bank:
    label = ui.text.label
    search = gr.Textbox(label=label("build.find"), elem_id="find-demonstration", max_lines=1)
    form.bank.render()
    with gr.Row(elem_classes="wh-tight"):
        input = gr.Textbox(label=label("build.input"), elem_id="new-input", scale=1, max_lines=3)
        output = gr.Textbox(label=label("build.output"), elem_id="new-output", scale=1, max_lines=3)
    with gr.Row(elem_classes="wh-tight"):
        name = gr.Textbox(label=label("build.label"), elem_id="new-label", scale=2, max_lines=1, min_width=90)
        tags = gr.Textbox(label=label("build.tags"), elem_id="new-tags", scale=3, max_lines=1, min_width=110)
        add = gr.Button(label("build.add"), size="sm", elem_id="add-demonstration", min_width=80)
        change = gr.Button(
            label("build.change"), size="sm", elem_id="change-demonstration", min_width=110, visible=False
        )
        remove = gr.Button(
            label("build.remove"), size="sm", elem_id="remove-demonstration", min_width=110, visible=False
        )
    told = drawn("bank-status")
    winners = drawn("winners")
    keep_all = gr.Button(label("build.keep_all"), size="sm", elem_id="keep-winners", visible=False)
    return Bank(search, gr.State(None), input, output, name, tags, add, change, remove, told, winners, keep_all)


def bank_shown(ui: Ui, project_id: int, draft: Draft, picked: Sequence[int], holding: str = "") -> ShownBank:
    """All demonstrations a draft may draw from; ``picked`` are the chosen ones in order, shown when choosing is by hand."""
    say = ui.guard.say
    found = curating.known(
        ui.store, ui.guard.person(), project_id, scenario=draft.scenario, language=draft.language, holding=holding,
        named=tuple(picked),
    )  # fmt: skip
    columns = ("use", "up", "down", "edit", "input", "output", "label", "tags", "source", "judged")
    return {
        "rows": [_row(ui, one, draft.scenario) for one in found],
        "picked": list(picked),
        "picks": draft.few_shot.get("choose", "fixed") == "fixed",
        "words": {
            "caption": say("build.bank", n=len(found)),
            "empty": say("build.none_found" if holding.strip() else "build.bank_empty"),
            **{name: say(f"build.{name}") for name in columns},
        },
    }


def winners_shown(ui: Ui, project_id: int) -> list[Any]:
    """The answers worth adding, and the button that adds them all."""
    say = ui.guard.say
    found = curating.winners(ui.store, ui.guard.person(), project_id)
    columns = [say(f"build.{name}") for name in ("take", "input", "output", "judged")]
    rows = [
        (one.completion_id, (say("build.add"), clipped(one.input), clipped(one.output), _fared(ui, one.fared)))
        for one in found
    ]
    shown = table(columns, rows, caption=say("build.winners"), empty="", selects="button")
    return [
        drawing(
            heading(say("build.winners"), say("build.winners_hint")), shown if rows else note(say("build.no_winners"))
        ),
        gr.update(visible=bool(rows)),
    ]


def bank_events(
    ui: Ui, form: Form, bank: Bank, project: Any, opened_prompt: Callable[[Any, str], None], quiet: dict[str, Any]
) -> None:
    def shown(project_id: int | None, holding: str, given: Sequence[Any]) -> ShownBank:
        return bank_shown(ui, project_id or 0, draft_of(given), (given[-1] or {}).get("picked", []), holding or "")

    def find(project_id: int | None, holding: str, *given: Any) -> ShownBank:
        return shown(project_id, holding, given)

    def count_picked(bank: dict[str, Any] | None) -> int:
        return len((bank or {}).get("picked", []))

    def edit(event: gr.EventData) -> list[Any]:
        wanted = event._data.get("edit") if isinstance(event._data, dict) else None
        if wanted is None:
            return [gr.skip()] * 8
        one = curating.demonstration(ui.store, ui.guard.person(), int(wanted))
        return [*_filled(one), drawing(note(ui.guard.say("build.editing", id=one.id)))]

    @needs("build")
    def add_demonstration(
        input: str, output: str, name: str, tags: str, project_id: int | None, holding: str, *given: Any
    ) -> list[Any]:
        draft = draft_of(given)
        added = curating.add_demonstration(
            ui.store, ui.guard.person(), project_id or 0, input=input or "", output=output or "",
            label=name or None, scenario=draft.scenario, language=draft.language, tags=_split(tags),
        )  # fmt: skip
        told = drawing(note(ui.guard.say("build.added", id=added.id), "ok"))
        return [shown(project_id, holding, given), *_filled(None), told, *winners_shown(ui, project_id or 0)]

    @needs("build")
    def change_demonstration(
        id: int | None, input: str, output: str, name: str, tags: str, project_id: int | None, holding: str, *given: Any
    ) -> list[Any]:
        kept = curating.change_demonstration(
            ui.store, ui.guard.person(), id or 0, input=input or "", output=output or "", label=name or None,
            tags=_split(tags),
        )  # fmt: skip
        told = drawing(note(ui.guard.say("build.changed", id=kept.id), "ok"))
        return [shown(project_id, holding, given), *_filled(None), told]

    @needs("build")
    def remove_demonstration(id: int | None, project_id: int | None, holding: str, *given: Any) -> list[Any]:
        gone = curating.remove_demonstration(ui.store, ui.guard.person(), id or 0)
        told = drawing(note(ui.guard.say("build.removed", id=gone.id), "ok"))
        return [shown(project_id, holding, given), *_filled(None), told]

    def kept(project_id: int | None, holding: str, given: Sequence[Any], ids: list[int]) -> list[Any]:
        made = curating.keep_winners(ui.store, ui.guard.person(), project_id or 0, ids)
        told = drawing(note(ui.guard.say("build.kept", n=len(made)), "ok"))
        return [shown(project_id, holding, given), told, *winners_shown(ui, project_id or 0)]

    @needs("build")
    def keep_winner(project_id: int | None, holding: str, event: gr.EventData, *given: Any) -> list[Any]:
        return kept(project_id, holding, given, [int(event._data["id"])])

    @needs("build")
    def keep_all(project_id: int | None, holding: str, *given: Any) -> list[Any]:
        found = curating.winners(ui.store, ui.guard.person(), project_id or 0)
        return kept(project_id, holding, given, [one.completion_id for one in found])

    whole = [project, bank.search, *form]
    after_edit = [form.bank, bank.editing, *bank.fields, bank.change, bank.remove, bank.told]
    scope = gr.on(
        [form.scenario.input, form.language.input, form.choose.input],
        find, whole, form.bank, api_name="build_bank", trigger_mode="always_last", **quiet,
    )  # fmt: skip
    opened_prompt(scope, "build_bank_prompt")
    bank.search.input(find, whole, form.bank, api_name="build_find_bank", trigger_mode="always_last", **quiet)
    picking = form.bank.select(
        count_picked, form.bank, form.k, api_name="build_pick", trigger_mode="always_last", **quiet
    )
    opened_prompt(picking, "build_pick_prompt")
    form.bank.select(edit, None, after_edit[1:], api_name="build_edit", **quiet)
    gr.on(
        [bank.add.click, bank.tags.submit, bank.label.submit],
        add_demonstration, [*bank.fields, *whole], [*after_edit, *bank.winning], api_name="add_demonstration",
    )  # fmt: skip
    bank.change.click(
        change_demonstration, [bank.editing, *bank.fields, *whole], after_edit, api_name="change_demonstration"
    )
    bank.remove.click(remove_demonstration, [bank.editing, *whole], after_edit, api_name="remove_demonstration")
    after_keep = [form.bank, bank.told, *bank.winning]
    bank.winners.select(keep_winner, whole, after_keep, api_name="keep_winner")
    bank.keep_all.click(keep_all, whole, after_keep, api_name="keep_winners")


def _row(ui: Ui, known: Known, scenario: str | None) -> dict[str, Any]:
    one, say = known.demonstration, ui.guard.say
    tags = [tag for tag in one.tags if tag != scenario]
    source = say("build.out_of_bank") if one.retired_at else say(f"build.source.{one.source}")
    return {
        "id": one.id, "input": one.input, "output": one.output, "label": one.label or "", "tags": ", ".join(tags),
        "source": source, "judged": _judged(ui, known),
    }  # fmt: skip


def _judged(ui: Ui, known: Known) -> str:
    said = [
        ui.guard.say(f"build.judged_{name}", share=share(fared.points), n=fared.n)
        for name, fared in (("own", known.own), ("shown", known.shown))
        if fared is not None
    ]
    return " · ".join(said)


def _fared(ui: Ui, fared: Fared) -> str:
    return ui.guard.say("build.judged_own", share=share(fared.points), n=fared.n)


def _filled(one: Demonstration | None) -> list[Any]:
    """editing, the four fields, and the buttons that need something to edit."""
    shows = gr.update(visible=one is not None)
    if one is None:
        return [None, "", "", "", "", shows, shows]
    return [one.id, one.input, one.output, one.label or "", ", ".join(one.tags), shows, shows]


def _split(tags: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split("[,,、\n]", tags or "") if part.strip())
