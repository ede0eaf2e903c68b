"""The forms of training jobs: made from the settings themselves, so that a new setting appears here by itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from backend.training.settings import KINDS, Option, options
from ui.context import Ui


class JobForm(NamedTuple):
    """The fields of one kind of job. ``fields`` stand in the order of ``options(KINDS[kind])``."""

    kind: str
    fields: list[Any]
    seed: Any
    despite: Any  # why to go on with a weak reward model; asked of the kinds that follow one
    start: Any
    key: Any  # hidden: names the click, so that a double click is one job


def job_form(ui: Ui, kind: str) -> JobForm:
    label = ui.text.label
    found = options(KINDS[kind])
    fields: dict[str, Any] = {}
    with gr.Row(elem_classes="wh-grid"):
        for option in found:
            if not option.advanced:
                fields[option.name] = _field(ui, kind, option)
        seed = gr.Number(value=0, precision=0, step=1, label=label("train.seed"), elem_id=f"{kind}-seed", min_width=120)
    with gr.Accordion(label("train.advanced"), open=False, elem_id=f"{kind}-advanced"), gr.Row(elem_classes="wh-grid"):
        for option in found:
            if option.advanced:
                fields[option.name] = _field(ui, kind, option)
    despite = gr.Textbox(
        label=label("train.despite"),
        info=label("train.despite_hint"),
        visible=False,
        elem_id=f"{kind}-despite",
        max_lines=2,
    )
    start = gr.Button(
        label(f"train.start.{kind}"), variant="primary", size="sm", elem_id=f"start-{kind}", interactive=False
    )
    key = gr.Textbox(visible=False)
    return JobForm(kind, [fields[option.name] for option in found], seed, despite, start, key)


def _field(ui: Ui, kind: str, option: Option) -> Any:
    named: dict[str, Any] = {
        "label": ui.text.label(f"setting.{kind}.{option.name}"),
        "info": ui.text.label(f"setting.{kind}.{option.name}.help"),
        "elem_id": f"{kind}-{option.name.replace('_', '-')}",
        "min_width": 150,
    }
    if option.type is bool:
        return gr.Checkbox(value=option.default, **named)
    if option.choices:
        return gr.Dropdown(list(option.choices), value=option.default, **named)
    if option.type is str:
        return gr.Textbox(value=option.default, placeholder=option.example, **named)
    if option.type is int:
        return gr.Number(value=option.default, precision=0, step=1, **named)
    return gr.Number(value=option.default, step=_step(option.default), **named)


def _step(default: float) -> float:
    """Arrow keys move a number by a tenth of its size."""
    return 0.1 if not default else 10.0 ** (len(str(int(1 / default))) * -1 - 1) if default < 1 else default / 10


def changes(kind: str, values: Sequence[Any]) -> dict[str, Any]:
    """What differs from the defaults; an emptied field counts as its default."""
    given = zip(options(KINDS[kind]), values, strict=True)
    return {option.name: value for option, value in given if value is not None and value != option.default}


def command_of(kind: str, project: str, changed: Mapping[str, Any], seed: int, despite: str) -> str:
    """The terminal command that starts the same job."""
    words = ["python", "app.py", "train", kind, "--project", project]
    for name, value in changed.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    if seed:
        words += ["--seed", str(seed)]
    if despite.strip():
        words += ["--despite", despite.strip()]
    return shlex.join(words)
