"""Review on the quality page: what divides people or was flagged or reported, judged blind and then in sight of all; what can be gold."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import gradio as gr

from backend import adjudicating, reviewing
from backend.adjudicating import Blind, Conflict, Said, Told
from backend.labels import order
from backend.labels.form import ABOUT_THE_PROMPT, Answer
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
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        typed = gr.Textbox(
            label=label("review.order"), info=label("review.order_hint"), elem_id="review-order", max_lines=1, scale=4
        )
        ordered = gr.Button(label("review.decide"), size="sm", elem_id="decide-order", interactive=False, min_width=160)
    flags = gr.CheckboxGroup([], label=label("review.flags"), elem_id="review-flags", visible=False)
    told = drawn("review-told")
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        reason = gr.Textbox(label=label("review.reason"), elem_id="void-reason", max_lines=1, scale=4)
        void = gr.Button(label("review.void"), size="sm", elem_id="void", interactive=False, min_width=160)
        keep = gr.Button(label("review.keep"), size="sm", elem_id="keep", interactive=False, min_width=160)
    with gr.Row(elem_classes=["wh-tight", "wh-middle"]):
        candidate = picker(label("review.candidates"), "candidate", scale=4, min_width=240)
        gold = gr.Button(label("review.make_gold"), size="sm", elem_id="make-gold", min_width=160)
    golden = drawn("gold")

    @needs("review")
    def look_at(comparison_id: int | None) -> list[Any]:
        blind = adjudicating.look(ui.store, ui.guard.person(), comparison_id or 0)
        on, of_pair, of_many = (
            gr.update(interactive=is_on) for is_on in (True, blind.has_order and len(blind.shown) == 2, blind.has_order)
        )
        desk = {"id": blind.id, "since": time.time(), "judged": False, "size": len(blind.shown)}
        asked = _flags(ui, blind)
        shown = gr.update(choices=asked, value=[], visible=bool(asked))
        return [_pair(ui, blind), drawing(), desk, *[of_pair] * len(buttons), of_many, "", shown, on, on]

    def settle(desk: dict[str, Any], decision: dict[str, Any], marked: Sequence[str] | None) -> list[Any]:
        """Judge blind, or decide otherwise; the lists change with it."""
        person, id, key = ui.guard.person(), int(desk.get("id", 0)), uuid.uuid4().bytes
        seconds = min(3600.0, time.time() - desk.get("since", time.time()))
        answer = Answer(**decision, flags=tuple(marked or ()), seconds=seconds)
        if desk.get("judged"):
            adjudicating.resolve(ui.store, person, id, answer, key)
            said = adjudicating.said(ui.store, person, id)
        else:
            said = adjudicating.judge(ui.store, person, id, answer, key)
        return [_told(ui, said), {**desk, "judged": True}]

    def decide(name: str) -> Any:
        @needs("review")
        def act(desk: dict[str, Any], marked: list[str] | None) -> list[Any]:
            return settle(desk, DECISIONS[name], marked)

        return act

    @needs("review")
    def decide_order(desk: dict[str, Any], text: str, marked: list[str] | None) -> list[Any]:
        return settle(desk, {"ranks": order.ranks_of(text or "", int(desk.get("size", 2)))}, marked)

    def cleared(said: dict[str, Any], project_id: int | None) -> list[Any]:
        off = gr.update(interactive=False)
        hidden = gr.update(choices=[], value=[], visible=False)
        return [
            drawing(),
            said,
            {},
            *[off] * len(buttons),
            off,
            "",
            hidden,
            off,
            off,
            "",
            *review_shown(ui, project_id or 0),
        ]

    @needs("review")
    def set_aside(desk: dict[str, Any], why: str, project_id: int | None) -> list[Any]:
        adjudicating.void(ui.store, ui.guard.person(), int(desk.get("id", 0)), why or "")
        return cleared(drawing(note(ui.guard.say("review.voided", id=desk["id"]), "ok")), project_id)

    @needs("review")
    def leave(desk: dict[str, Any], project_id: int | None) -> list[Any]:
        adjudicating.keep(ui.store, ui.guard.person(), int(desk.get("id", 0)))
        return cleared(drawing(note(ui.guard.say("review.kept", id=desk["id"]), "ok")), project_id)

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

    lists, desk = [conflict, candidate], [seen, told, at, *buttons.values(), ordered, typed, flags, void, keep]
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    look.click(look_at, conflict, desk, api_name="review_look", **quiet)
    for name, button in buttons.items():
        button.click(decide(name), [at, flags], [told, at], api_name=f"review_{name}", **quiet)
    for event, name in ((ordered.click, "review_order"), (typed.submit, "review_order_entered")):
        event(decide_order, [at, typed, flags], [told, at], api_name=name, **quiet)
    void.click(set_aside, [at, reason, project], [*desk, reason, *lists], api_name="review_void", **quiet)
    keep.click(leave, [at, project], [*desk, reason, *lists], api_name="review_keep", **quiet)
    candidate.input(show_candidate, [project, candidate], golden, api_name="review_candidate", **quiet)
    gold.click(make_gold, [project, candidate], [golden, *lists], api_name="make_gold", **quiet)
    return lists


def review_shown(ui: Ui, project_id: int) -> list[Any]:
    """The lists of conflicts and of gold candidates."""
    person, say = ui.guard.person(), ui.guard.say
    open_ones = [(_why(ui, one), one.id) for one in adjudicating.conflicts(ui.store, person, project_id)]
    golden = [
        (say("review.candidate", id=one.id, judged=one.judged), one.id)
        for one in adjudicating.candidates(ui.store, person, project_id)
    ]
    return [gr.update(choices=some, value=some[0][1] if some else None) for some in (open_ones, golden)]


def _why(ui: Ui, one: Conflict) -> str:
    """A line of the list: which comparison, and all that it waits for."""
    say = ui.guard.say
    why = [say("review.reported", why=say(f"label.report.{category}")) for category in one.reports]
    why += [say(f"label.flag.{flag}") for flag in one.flags]
    why += [say("review.skipped", why=say(f"label.skip.{reason}")) for reason in one.skips]
    if one.value:
        why.append(say("review.open", value=f"{one.value:.2f}"))
    return say("review.conflict", id=one.id, judged=one.judged, why=say("review.and").join(why))


def _flags(ui: Ui, blind: Blind) -> list[tuple[str, str]]:
    """What can be flagged of what lies on the desk: (shown, stored)."""
    if not blind.has_order:
        return []
    say = ui.guard.say
    about = [(say(f"label.flag.{flag}"), flag) for flag in blind.flags if flag == ABOUT_THE_PROMPT]
    return [
        (f"{ascii_uppercase[place]}: {say(f'label.flag.{flag}')}", f"{flag}:{place}")
        for place in range(len(blind.shown))
        for flag in blind.flags
        if flag != ABOUT_THE_PROMPT
    ] + about


def _pair(ui: Ui, blind: Blind) -> dict[str, Any]:
    say = ui.guard.say
    asked = [
        {"role": one["role"], "label": say(f"role.message.{one['role']}"), "text": one["content"], "foot": ""}
        for one in blind.conversation
    ]
    return drawing(
        *(note(_report(ui, one), "warn") for one in blind.told),
        note(say("review.blind" if blind.has_order else "review.only_aside")),
        messages(asked),
        _panes(_titles(ui, blind), blind.answers),
    )


def _titles(ui: Ui, blind: Blind) -> list[tuple[str, str]]:
    if len(blind.answers) == 2:
        return [(ui.guard.say(f"review.{side}"), "") for side in ("left", "right")]
    return [(ui.guard.say("review.answer", number=place + 1), "") for place in range(len(blind.answers))]


def _panes(titles: Sequence[tuple[str, str]], texts: Sequence[str]) -> dict[str, Any]:
    return panes(
        {"badge": ascii_uppercase[place], "title": title, "text": text, "foot": foot, "state": "done", "problem": ""}
        for place, ((title, foot), text) in enumerate(zip(titles, texts, strict=True))
    )


def _candidate(ui: Ui, better: str, worse: str) -> dict[str, Any]:
    return _panes([(ui.guard.say("review.better"), ""), (ui.guard.say("review.worse"), "")], [better, worse])


def _told(ui: Ui, said: Sequence[Said]) -> dict[str, Any]:
    say = ui.guard.say
    rows = [
        (
            place,
            [
                one.person,
                say(f"review.by_{one.purpose}" if one.purpose in ("review", "report", "skip") else "review.by_label"),
                _named(ui, one),
                ", ".join(_flag(ui, *flag) for flag in one.flags) or "–",
                "–" if one.strength is None else str(one.strength),
                _why_said(ui, one) or "–",
            ],
        )
        for place, one in enumerate(said)
    ]
    columns = [say(f"review.{name}") for name in ("who", "purpose", "said", "flags", "strength", "rationale")]
    return drawing(
        note(say("review.stands"), "ok"), table(columns, rows, caption=say("review.said"), empty="", numbers=[4])
    )


def _why_said(ui: Ui, one: Said) -> str:
    reason = ui.guard.say(f"label.{one.purpose}.{one.reason}") if one.reason else ""
    return f"{reason}: {one.rationale}" if reason and one.rationale else reason or one.rationale


def _report(ui: Ui, one: Told) -> str:
    why = ui.guard.say(f"label.report.{one.category}")
    return (
        ui.guard.say("review.told_note", why=why, note=one.note) if one.note else ui.guard.say("review.told", why=why)
    )


def _named(ui: Ui, one: Said) -> str:
    """A side or an order, in the letters the reviewer saw."""
    say = ui.guard.say
    if one.both_bad or one.both_good:
        return say("quality.both_good" if one.both_good else "review.both_bad")
    if len(one.ranks) == 2:
        return say(f"review.{'neither' if one.ranks == (1, 1) else 'left' if one.ranks[0] == 1 else 'right'}")
    return order.written(one.ranks) if one.ranks else "–"


def _flag(ui: Ui, name: str, place: int | None) -> str:
    return (
        ui.guard.say(f"label.flag.{name}")
        if place is None
        else f"{ascii_uppercase[place]}: {ui.guard.say(f'label.flag.{name}')}"
    )
