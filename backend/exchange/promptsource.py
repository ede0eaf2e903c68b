"""PromptSource's templates.yaml: each body is the input, ``|||``, and the target. Its two tags are let through, and do nothing."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from backend.exchange.braces import CannotConvert, from_nunjucks
from backend.exchange.plan import MOST_TEMPLATES, BadFile, NewTemplate, Notes, Plan, storable
from backend.exchange.tree import Plain, read_yaml, texts, typed
from backend.exchange.upload import Upload

FORMAT = "promptsource"
TAGS = ("!Template", "!TemplateMetadata")
SEPARATOR = "|||"


def parse(upload: Upload) -> Plan:
    """Raises BadFile. A body that our part of Jinja cannot say is refused and shown."""
    notes = Notes(upload.main)
    read = read_yaml(upload.data, upload.main, TAGS)
    top = read.value if isinstance(read.value, dict) else {}
    given = top.get("templates")
    if not isinstance(given, dict):
        raise BadFile("not_promptsource", file=upload.main)
    if len(given) > MOST_TEMPLATES:
        raise BadFile("many_templates", file=upload.main, most=MOST_TEMPLATES)
    parts = [texts(top[key]) for key in ("dataset", "subset") if isinstance(top.get(key), str) and typed(top[key])]
    name = "/".join(parts) or PurePosixPath(upload.main).stem
    templates = []
    for key, one in given.items():
        line, field = read.line(("templates", key)), f"templates.{key}"
        if not isinstance(one, dict) or not isinstance(one.get("jinja"), str):
            notes.refused(line, field, "template_form", texts(one))
            continue
        made = _template(one, name, notes, read.line(("templates", key, "jinja")), field)
        if made is not None:
            templates.append(made)
            notes.taken(line, field, "template_taken", name=made.name)
        if isinstance(one.get("metadata"), dict):
            notes.refused(read.line(("templates", key, "metadata")), f"{field}.metadata", "metadata_left")
    return Plan(format=FORMAT, source=upload.main, name=name[:80], templates=tuple(templates), notes=tuple(notes.kept))


def _template(given: dict[str, Any], dataset: str, notes: Notes, line: int, field: str) -> NewTemplate | None:
    source = storable(str(given["jinja"]), notes.file, line, field)
    halves = source.split(SEPARATOR)
    if len(halves) > 2:
        notes.refused(line, f"{field}.jinja", "separator_twice", source)
        return None
    asked, target = halves[0].strip(), halves[1].strip() if len(halves) == 2 else ""
    choices = given.get("answer_choices")
    labels: tuple[str, ...] | None = None
    if isinstance(choices, str) and choices.strip() and not (isinstance(choices, Plain) and typed(choices) is None):
        if "{{" in choices or "{%" in choices:
            notes.refused(line, f"{field}.answer_choices", "choices_vary", choices)
        else:
            labels = tuple(one.strip() for one in choices.split(SEPARATOR))
    try:
        body = from_nunjucks(_with_choices(asked, labels), of_promptfoo=False)
    except CannotConvert as problem:
        notes.refused(line, f"{field}.jinja", "template_problem", source, problem=str(problem))
        return None
    if target:
        notes.mapped(line, f"{field}.jinja", "target_in_note", target)
    name = f"{dataset}: {texts(given.get('name') or '')}".strip(": ")
    return NewTemplate(
        name=name[:120],
        body=body.body,
        mode=body.mode,
        labels=labels,
        note=f"target: {target}"[:2000] if target else "",
    )


def _with_choices(source: str, labels: tuple[str, ...] | None) -> str:
    """``answer_choices`` is a variable of the body: where it is the same for every row, its list stands for it."""
    if labels is None or "answer_choices" not in source:
        return source
    quoted = ", ".join("'" + one.replace("\\", "\\\\").replace("'", "\\'") + "'" for one in labels)
    within = re.compile(r"(\{\{|\{%).*?(\}\}|%\})", re.DOTALL)
    return within.sub(lambda tag: re.sub(r"\banswer_choices\b", lambda _: f"[{quoted}]", tag[0]), source)
