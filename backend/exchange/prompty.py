"""Prompty files: settings between two lines of dashes, then turns that begin with ``system:`` or ``user:``, in Jinja."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from backend.exchange.chats import ROLES, history_of, template_of, with_turns
from backend.exchange.plan import BadFile, NewCase, Notes, Plan, storable
from backend.exchange.tree import Read, decoded, read_json, read_yaml, texts
from backend.exchange.upload import Upload
from backend.prompts.rows import TURNS
from feedback_db.types import Message

FORMAT = "prompty"
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_TURN = re.compile(
    r"(?m)^[ \t]*#?[ \t]*(system|developer|user|assistant|\0turns)[ \t]*(?:\[[^\]\n]*\])?[ \t]*:[ \t]*\r?$\n?",
    re.IGNORECASE,
)
MARK = "\n\0turns:\n"  # no file holds a zero byte
KNOWN = {"name", "description", "sample", "inputs", "tags", "authors", "version", "$schema"}


def parse(upload: Upload) -> Plan:
    """Raises BadFile."""
    notes = Notes(upload.main)
    text = decoded(upload.data, upload.main)
    front = _FRONT.match(text)
    if front is None:
        raise BadFile("prompty_front", file=upload.main, line=1)
    read = read_yaml(front[1].encode("utf-8"), upload.main)
    settings = read.value if isinstance(read.value, dict) else {}
    body, line = text[front.end() :], text.count("\n", 0, front.end()) + 1
    name = texts(settings.get("name") or "").strip() or PurePosixPath(upload.main).stem
    for key in settings:
        if key in ("model", "template"):
            notes.refused(_line(read, key), key, "run_setting", texts(settings[key]), name=key)
        elif key not in KNOWN:
            notes.refused(_line(read, key), key, "unknown_key", texts(settings[key]), name=key)
    made = template_of(_turns(body, notes, line), name, notes, line, "prompt", of_promptfoo=False)
    if made is not None:
        notes.taken(line, "prompt", "template_taken", name=made.name)
    cases = _sample(settings, read, upload, notes)
    return Plan(
        format=FORMAT,
        source=upload.main,
        name=name[:80],
        templates=(made,) if made else (),
        cases=cases,
        notes=tuple(notes.kept),
    )


def _turns(body: str, notes: Notes, line: int) -> list[Message]:
    storable(body, notes.file, line, "prompt")
    before, *rest = _TURN.split(with_turns(body, MARK))
    if not rest:
        return [{"role": "user", "content": body.strip("\n")}]
    turns = [
        {"role": ROLES.get(role.lower(), TURNS), "content": content.strip()}
        for role, content in zip(rest[::2], rest[1::2], strict=True)
    ]
    return [*([{"role": "system", "content": before.strip()}] if before.strip() else []), *turns]


def _sample(settings: dict[str, Any], read: Read, upload: Upload, notes: Notes) -> tuple[NewCase, ...]:
    """``sample``: one example of the inputs, in the file or beside it, as a case."""
    sample, line = settings.get("sample"), _line(read, "sample")
    inputs = settings.get("inputs")
    if sample is None and isinstance(inputs, dict):
        found = {key: one.get("sample", one.get("default")) for key, one in inputs.items() if isinstance(one, dict)}
        sample = {key: value for key, value in found.items() if value is not None} or None
        line = _line(read, "inputs")
    if isinstance(sample, str):
        reference = re.sub(r"\A\$\{file:(.*)\}\Z", r"\1", sample)
        inside = upload.named(reference)
        if inside is None or not inside.endswith(".json"):
            notes.refused(line, "sample", "file_outside", sample)
            return ()
        sample = read_json(upload.files[inside], inside).value
    if not isinstance(sample, dict):
        return ()
    if isinstance(sample.get("inputs"), dict):
        sample = sample["inputs"]
    past = [(key, turns) for key, turns in ((key, history_of(value)) for key, value in sample.items()) if turns]
    histories = dict(past) if len(past) == 1 else {}  # a case has one past
    values = {
        str(key): storable(texts(value), upload.main, line, str(key))
        for key, value in sample.items()
        if key not in histories
    }
    for turn in (turn for turns in histories.values() for turn in turns):
        storable(turn["content"], upload.main, line, "sample")
    if histories:
        notes.mapped(line, "sample", "history_taken")
    earlier = next(iter(histories.values()), None)
    if not any(value.strip() for value in values.values()):
        return ()
    notes.taken(line, "sample", "case_taken", n=1)
    return (NewCase(values=values, conversation=earlier),)


def _line(read: Read, key: str) -> int:
    return read.line((key,)) + 1  # the settings begin on the file's second line
