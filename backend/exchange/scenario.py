"""Ready scenarios: one JSON file holds template versions, demonstrations, cases, a suite, a label form and a guideline.

Where an answer is JSON it may stand in the file as the table or list itself; it is stored as one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backend.labels import form
from backend.problem import Problem
from backend.prompts.fewshot import FewShot
from backend.prompts.rows import check_rows
from backend.prompts.template import compile_template
from backend.suites.checks import parse
from feedback_db.types import Message, Row

AREAS = ("service", "finance", "medicine", "sentiment", "reading", "inference")
LANGUAGES = ("en", "zh")
FIELDS = {
    "synthetic", "area", "scenario", "language", "title", "about", "templates", "demonstrations", "cases", "suite",
    "label_form", "guideline",
}  # fmt: skip
TEMPLATE_FIELDS = {"name", "system_text", "body", "rows", "mode", "few_shot", "labels", "note"}


class BadScenario(Problem, ValueError):
    """A scenario file that cannot be used; the message names the file, the field and what is wrong."""


class Version(NamedTuple):
    """A version of a template as the file holds it, with ``rows`` instead of texts where it is a chat template; ``few_shot`` names
    no ids, for those are a project's own."""

    name: str
    system_text: str
    body: str
    rows: tuple[Row, ...]
    mode: str
    few_shot: dict[str, Any]
    labels: tuple[str, ...] | None
    note: str
    variables: tuple[str, ...]


class Shown(NamedTuple):
    """A demonstration."""

    input: str
    output: str
    label: str | None
    tags: tuple[str, ...]


class Asked(NamedTuple):
    """A case; a conversation may have values beside it."""

    values: dict[str, str] | None
    conversation: tuple[Message, ...] | None
    expected: str | None
    tags: tuple[str, ...]


class Scenario(NamedTuple):
    """``key`` is the same in every language; ``checks`` are rows as a suite keeps them."""

    area: str
    key: str
    language: str
    title: str
    about: str
    templates: tuple[Version, ...]
    demonstrations: tuple[Shown, ...]
    cases: tuple[Asked, ...]
    suite: str
    checks: tuple[dict[str, Any], ...]
    threshold: float | None
    label_form: dict[str, Any]
    guideline: str


def files(folder: Path) -> list[Path]:
    """``<area>/<scenario>.<language>.json`` under a folder, by area as the gallery shows them, then by name."""
    found = folder.glob("*/*.json")
    return sorted(found, key=lambda path: (_place(path.parent.name), path.name))


def read(path: Path) -> Scenario:
    """Raises BadScenario."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadScenario(f"{path.name} cannot be read: {error}.") from None
    try:
        return _scenario(row)
    except KeyError as error:
        raise BadScenario(f"{path.name}: {error.args[0]} is missing. Add it.") from None
    except (Problem, ValueError, TypeError, AttributeError) as error:
        raise BadScenario(f"{path.name}: {error}") from None


def _scenario(row: Mapping[str, Any]) -> Scenario:
    unknown = sorted(set(row) - FIELDS)
    if unknown:
        raise ValueError(f"there is no field {', '.join(unknown)}; known are {', '.join(sorted(FIELDS))}.")
    if row["synthetic"] is not True:
        raise ValueError("synthetic must be true: a scenario holds invented texts only.")
    _one_of("area", row["area"], AREAS)
    _one_of("language", row["language"], LANGUAGES)
    suite = row["suite"]
    threshold = suite.get("threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"the suite's threshold is {threshold}; it must lie between 0 and 1.")
    if not row["templates"] or not row["cases"] or not suite["checks"]:
        raise ValueError("a scenario needs a template, a case and a check.")
    return Scenario(
        area=row["area"],
        key=_text("scenario", row["scenario"]),
        language=row["language"],
        title=_text("title", row["title"]),
        about=_text("about", row["about"]),
        templates=tuple(_version(one) for one in row["templates"]),
        demonstrations=tuple(_shown(one) for one in row["demonstrations"]),
        cases=tuple(_asked(one) for one in row["cases"]),
        suite=_text("suite.name", suite["name"]),
        checks=tuple(check.as_row() for check in parse(suite["checks"])),
        threshold=threshold,
        label_form=form.stored(form.parse(row["label_form"])),
        guideline=_text("guideline", row["guideline"]),
    )


def _version(row: Mapping[str, Any]) -> Version:
    unknown = sorted(set(row) - TEMPLATE_FIELDS)
    if unknown:
        raise ValueError(f"a template has no field {', '.join(unknown)}.")
    few_shot, mode = dict(row.get("few_shot") or {}), row.get("mode", "plain")
    if FewShot.parse(few_shot).ids:
        raise ValueError("few_shot names ids; a file cannot know those of a project.")
    system_text, body, rows = row.get("system_text", ""), row.get("body", ""), row.get("rows", ())
    if rows and (system_text or body):
        raise ValueError("a template has rows or texts (system_text, body), not both.")
    rows = check_rows(rows, mode) if rows else ()
    texts = [one.get("text", "") for one in rows] if rows else [system_text, body]
    used = [name for text in texts for name in compile_template(text, mode).variables]
    labels = tuple(row["labels"]) if row.get("labels") else None
    name = _text("template name", row["name"])
    return Version(
        name, system_text, body, rows, mode, few_shot, labels, row.get("note", ""), tuple(dict.fromkeys(used))
    )


def _shown(row: Mapping[str, Any]) -> Shown:
    return Shown(_text("input", row["input"]), _text("output", _said(row["output"])), row.get("label"), _tags(row))


def _asked(row: Mapping[str, Any]) -> Asked:
    values, conversation = row.get("values"), row.get("conversation")
    if not values and not conversation:
        raise ValueError("a case has neither values nor a conversation.")
    return Asked(
        values={name: _text(name, value, or_empty=True) for name, value in values.items()} if values else None,
        conversation=tuple(_turn(turn) for turn in conversation) if conversation else None,
        expected=_said(row["expected"]),
        tags=_tags(row),
    )


def _turn(row: Mapping[str, Any]) -> Message:
    _one_of("role", row["role"], ("user", "assistant"))
    return {"role": row["role"], "content": _text("content", row["content"])}


def _said(value: Any) -> str:
    """An answer as a model would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tags(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(tag) for tag in row.get("tags", ()))


def _text(name: str, value: Any, *, or_empty: bool = False) -> str:
    if not isinstance(value, str) or not (or_empty or value.strip()):
        raise ValueError(f"{name} is {value!r}; it must be a text.")
    return value


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def _place(area: str) -> int:
    return AREAS.index(area) if area in AREAS else len(AREAS)
