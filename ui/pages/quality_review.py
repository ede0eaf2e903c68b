"""Review on the quality page: what divides people, judged blind and then in sight of all; what can become gold."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import gradio as gr

from backend import adjudicating, reviewing
from backend.adjudicating import Blind, Said
from backend.labels.form import Answer
from ui.context import Ui
from ui.guard import needs
from ui.views.drawn import drawing, drawn, messages, note, panes, table
from ui.views.pickers import picker

DECISIONS: dict[str, dict[str, Any]] = {
    "left": {"ranks": (1, 2), "strength": 1},
    "neither": {"ranks": (1, 1)},
    "right": {"ranks": (2, 1), "strength": 1},
    "both_bad": {"ranks": (1, 1), "both_bad": True},
}


def review_panel(ui: Ui, project: Any) -> list[Any]:
    """The outputs that ``review_shown`` fills."""
    label = ui.text.label
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        conflict = picker(label("review.conflicts"), "conflict", scale=4, min_width=240)
        look = gr.Button(label("review.look"), variant="primary", size="sm", elem_id="look", min_width=160)
    seen = drawn("review")
    at = gr.State({})  # what lies on the desk: {"id", "since", "judged"}
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        buttons = {
            name: gr.Button(
                label(f"review.{name}"), size="sm", elem_id=f"decide-{name}", interactive=False, min_width=110
            )
            for name in DECISIONS
        }
    told = drawn("review-told")
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        reason = gr.Textbox(label=label("review.reason"), elem_id="void-reason", max_lines=1, scale=4)
        void = gr.Button(label("review.void"), size="sm", elem_id="void", interactive=False, min_width=160)
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        candidate = picker(label("review.candidates"), "candidate", scale=4, min_width=240)
        gold = gr.Button(label("review.make_gold"), size="sm", elem_id="make-gold", min_width=160)
    golden = drawn("gold")

    @needs("review")
    def look_at(comparison_id: int | None) -> list[Any]:
        blind = adjudicating.look(ui.store, ui.guard.person(), comparison_id or 0)
        on = gr.update(interactive=True)
        desk = {"id": blind.id, "since": time.time(), "judged": False}
        return [_pair(ui, blind), drawing(), desk, *[on] * len(buttons), on]

    def decide(name: str) -> Any:
        @needs("review")
        def act(desk: dict[str, Any]) -> list[Any]:
            person, id, key = ui.guard.person(), int(desk.get("id", 0)), uuid.uuid4().bytes
            answer = Answer(**DECISIONS[name], seconds=min(3600.0, time.time() - desk.get("since", time.time())))
            if desk.get("judged"):
                adjudicating.resolve(ui.store, person, id, answer, key)
                said = adjudicating.said(ui.store, person, id)
            else:
                said = adjudicating.judge(ui.store, person, id, answer, key)
            return [_told(ui, said), {**desk, "judged": True}]

        return act

    @needs("review")
    def set_aside(desk: dict[str, Any], why: str, project_id: int | None) -> list[Any]:
        adjudicating.void(ui.store, ui.guard.person(), int(desk.get("id", 0)), why or "")
        off = gr.update(interactive=False)
        told = drawing(note(ui.guard.say("review.voided", id=desk["id"]), "ok"))
        return [drawing(), told, {}, *[off] * len(buttons), off, "", *review_shown(ui, project_id or 0)]

    def show_candidate(project_id: int | None, comparison_id: int | None) -> dict[str, Any]:
        found = adjudicating.candidates(ui.store, ui.guard.person(), project_id or 0)
        return drawing(*(_candidate(ui, one.better, one.worse) for one in found if one.id == comparison_id))

    @needs("review")
    def make_gold(project_id: int | None, comparison_id: int | None) -> list[Any]:
        found = adjudicating.candidates(ui.store, ui.guard.person(), project_id or 0)
        chosen = next((one for one in found if one.id == comparison_id), None)
        if chosen is None:
            return [drawing(note(ui.guard.say("review.no_candidate"), "warn")), *review_shown(ui, project_id or 0)]
        made = reviewing.make_gold(ui.store, ui.guard.person(), chosen.id, chosen.order)
        return [drawing(note(ui.guard.say("review.gold_made", id=made.id), "ok")), *review_shown(ui, project_id or 0)]

    lists, desk = [conflict, candidate], [seen, told, at, *buttons.values(), void]
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    look.click(look_at, conflict, desk, api_name="review_look", **quiet)
    for name, button in buttons.items():
        button.click(decide(name), at, [told, at], api_name=f"review_{name}", **quiet)
    void.click(set_aside, [at, reason, project], [*desk, reason, *lists], api_name="review_void", **quiet)
    candidate.input(show_candidate, [project, candidate], golden, api_name="review_candidate", **quiet)
    gold.click(make_gold, [project, candidate], [golden, *lists], api_name="make_gold", **quiet)
    return lists


def review_shown(ui: Ui, project_id: int) -> list[Any]:
    """The lists of conflicts and of gold candidates."""
    person, say = ui.guard.person(), ui.guard.say
    open_ones = [
        (say("review.conflict", id=one.id, judged=one.judged, value=f"{one.value:.2f}"), one.id)
        for one in adjudicating.conflicts(ui.store, person, project_id)
    ]
    golden = [
        (say("review.candidate", id=one.id, judged=one.judged), one.id)
        for one in adjudicating.candidates(ui.store, person, project_id)
    ]
    return [gr.update(choices=some, value=some[0][1] if some else None) for some in (open_ones, golden)]


def _pair(ui: Ui, blind: Blind) -> dict[str, Any]:
    say = ui.guard.say
    asked = [
        {"role": one["role"], "label": say(f"role.message.{one['role']}"), "text": one["content"], "foot": ""}
        for one in blind.conversation
    ]
    return drawing(
        note(say("review.blind")),
        messages(asked),
        _panes([(say("review.left"), ""), (say("review.right"), "")], blind.answers),
    )


def _panes(titles: Sequence[tuple[str, str]], texts: Sequence[str]) -> dict[str, Any]:
    return panes(
        {"badge": "AB"[place], "title": title, "text": text, "foot": foot, "state": "done", "problem": ""}
        for place, ((title, foot), text) in enumerate(zip(titles, texts, strict=True))
    )


def _candidate(ui: Ui, better: str, worse: str) -> dict[str, Any]:
    return _panes([(ui.guard.say("review.better"), ""), (ui.guard.say("review.worse"), "")], [better, worse])


def _told(ui: Ui, said: Sequence[Said]) -> dict[str, Any]:
    say = ui.guard.say
    places = ("left", "right", "neither")
    rows = [
        (
            place,
            [
                one.person,
                say("review.by_review" if one.purpose == "review" else "review.by_label"),
                say("review.both_bad" if one.both_bad else f"review.{places[one.place]}"),
                "–" if one.strength is None else str(one.strength),
                one.rationale or "–",
            ],
        )
        for place, one in enumerate(said)
    ]
    columns = [say(f"review.{name}") for name in ("who", "purpose", "said", "strength", "rationale")]
    return drawing(
        note(say("review.stands"), "ok"), table(columns, rows, caption=say("review.said"), empty="", numbers=[3])
    )
