"""The label page: an empty desk that ui/static/label.js fills over the JSON routes of ui/api/label.py."""

from __future__ import annotations

import gradio as gr

from ui.context import Ui
from ui.shell import static_version

NAME = "label"
PATH = ""


def page(ui: Ui) -> None:
    """A constant template: no data goes through Gradio, and texts of models and people are shown by textContent only."""
    gr.HTML(
        html_template='<section class="desk" id="desk" tabindex="-1" aria-busy="true"></section>',
        js_on_load=(
            f"import('/static/{static_version()}/label.js').then(m => m.mount(element.querySelector('.desk')))"
        ),
        apply_default_css=False,
        elem_id="desk-root",
    )
