"""Guidelines on the quality page: write the next version, see what changed when and how far people agree under each."""

from __future__ import annotations

from typing import Any

import gradio as gr

from backend import guiding
from backend.guiding import Version
from ui.context import Ui
from ui.guard import needs
from ui.views.drawn import cards, diff, drawing, drawn, heading, note
from ui.views.words import clock


def guidelines_panel(ui: Ui, project: Any) -> list[Any]:
    """The outputs that ``guidelines_shown`` fills."""
    label = ui.text.label
    body = gr.Textbox(label=label("guide.body"), info=label("guide.hint"), lines=8, max_lines=24, elem_id="guideline")
    save = gr.Button(label("guide.save"), variant="primary", size="sm", elem_id="save-guideline")
    status = drawn("guideline-status")
    shown = drawn("guidelines")

    @needs("review")
    def save_guideline(project_id: int | None, text: str) -> list[Any]:
        made = guiding.save(ui.store, ui.guard.person(), project_id or 0, text or "")
        said = drawing(note(ui.guard.say("guide.saved", version=made.version), "ok"))
        return [said, *guidelines_shown(ui, project_id or 0)]

    save.click(save_guideline, [project, body], [status, body, shown], api_name="save_guideline", queue=False)
    return [body, shown]


def guidelines_shown(ui: Ui, project_id: int) -> list[Any]:
    found = guiding.versions(ui.store, ui.guard.person(), project_id)
    return [found[0].guideline.body if found else "", drawing(*(part for one in found for part in _version(ui, one)))]


def _version(ui: Ui, one: Version) -> list[Any]:
    say = ui.guard.say
    when = clock(one.guideline.created_at)
    alpha = one.alpha
    known = f"{alpha.value:.2f}" if alpha.n else "–"
    rests = (
        say("quality.rests", low=f"{alpha.low:.2f}", high=f"{alpha.high:.2f}", n=alpha.n)
        if alpha.n
        else say("guide.none_together")
    )
    return [
        heading(
            say("guide.version", version=one.guideline.version),
            say("guide.by", name=one.by, when=when) if one.by else when,
        ),
        cards([(say("quality.alpha"), known, rests), (say("guide.judged"), str(one.judged), say("guide.judged_hint"))]),
        diff([(piece.kind, piece.text) for piece in one.changed], say("guide.changed", version=one.guideline.version)),
    ]
