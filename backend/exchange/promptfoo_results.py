"""promptfoo's results: the configuration they came from, and what people said of answers to the same rendered prompt.

Scores of assertions are not people's judgements and stay where they are; a run of the suite makes them anew. A thumb up and a
thumb down on answers to the very same prompt are a judged comparison.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

from backend.exchange import promptfoo
from backend.exchange.chats import chat_of
from backend.exchange.plan import BadFile, NewPair, Notes, Plan, storable
from backend.exchange.tree import json_value, list_in, read_json, table_in, texts, typed
from backend.exchange.upload import Upload
from feedback_db.types import Message

FORMAT = "promptfoo-results"


def parse(upload: Upload) -> Plan:
    """Raises BadFile."""
    top = read_json(upload.data, upload.main).value
    results = top.get("results") if isinstance(top, dict) else None
    rows = results.get("results") if isinstance(results, dict) else None
    if not isinstance(results, dict) or not isinstance(rows, list):
        raise BadFile("not_results", file=upload.main)
    given = top.get("config")
    config: dict[str, Any] = given if isinstance(given, dict) else {}
    config = {**config, "prompts": _prompts(config, results), "tests": _tests(config, rows)}
    inner = Upload(upload.main, {**upload.files, upload.main: json.dumps(typed(config)).encode("utf-8")})
    plan = promptfoo.parse(inner)
    notes = Notes(upload.main, list(plan.notes))
    pairs = _pairs(rows, upload.main, notes)
    notes.refused(0, "results", "scores_left", n=len(rows))
    return replace(plan, format=FORMAT, pairs=tuple(pairs), notes=tuple(notes.kept))


def _prompts(config: dict[str, Any], results: dict[str, Any]) -> list[Any]:
    """The prompts as they were, once each, however many models were asked."""
    found: dict[str, Any] = {}
    for one in list_in(results, "prompts"):
        if isinstance(one, dict) and isinstance(one.get("raw"), str):
            label = texts(one.get("label") or "")
            found.setdefault(one["raw"], {"raw": one["raw"], "label": "" if label == one["raw"] else label[:80]})
    return list(found.values()) or list_in(config, "prompts")


def _tests(config: dict[str, Any], rows: list[Any]) -> list[Any]:
    """The tests in their order. Rows come in the order of completion, and every model has one."""
    found: dict[int, Any] = {}
    for row in rows:
        case = row.get("testCase") if isinstance(row, dict) else None
        place = typed(row.get("testIdx")) if isinstance(row, dict) else None
        if isinstance(case, dict) and isinstance(place, int):
            found.setdefault(
                place,
                {key: case[key] for key in ("vars", "assert", "threshold", "metadata", "description") if case.get(key)},
            )
    given = config.get("tests")
    return [found[place] for place in sorted(found)] or (given if isinstance(given, list) else [])


def _pairs(rows: list[Any], file: str, notes: Notes) -> list[NewPair]:
    judged: dict[tuple[int, str], list[tuple[bool, str, str]]] = defaultdict(list)
    alone = 0
    for row in rows:
        thumb = _thumb(row) if isinstance(row, dict) else None
        if thumb is None:
            continue
        prompt, output = table_in(row, "prompt"), table_in(row, "response").get("output")
        place = typed(row.get("testIdx"))
        if isinstance(prompt.get("raw"), str) and isinstance(output, str):
            judged[place if isinstance(place, int) else -1, prompt["raw"]].append((thumb[0], output, thumb[1]))
    found = []
    for (_, raw), answers in judged.items():
        good = [answer for answer in answers if answer[0]]
        bad = [answer for answer in answers if not answer[0]]
        alone += abs(len(good) - len(bad))
        for better, worse in zip(good, bad, strict=False):
            if better[1] != worse[1]:
                texts_of = [
                    storable(text, file, 0, "results.output") for text in (better[1], worse[1], better[2] or worse[2])
                ]
                found.append(
                    NewPair(messages=_messages(raw, file), better=texts_of[0], worse=texts_of[1], rationale=texts_of[2])
                )
    if found:
        notes.taken(0, "results", "pairs_taken", n=len(found))
    if alone:
        notes.refused(0, "results", "thumbs_alone", n=alone)
    return found


def _thumb(row: dict[str, Any]) -> tuple[bool, str] | None:
    """What a person said of an answer, and their comment; None where nobody did."""
    grading = row.get("gradingResult")
    parts = grading.get("componentResults") if isinstance(grading, dict) else None
    for one in parts if isinstance(parts, list) else []:
        assertion = one.get("assertion") if isinstance(one, dict) else None
        if isinstance(assertion, dict) and assertion.get("type") == "human":
            comment = grading.get("comment") if isinstance(grading, dict) else None
            return bool(typed(one.get("pass"))), str(comment) if isinstance(comment, str) and typed(comment) else ""
    return None


def _messages(raw: str, file: str) -> tuple[Message, ...]:
    storable(raw, file, 0, "prompt.raw")
    if raw.lstrip().startswith("["):
        try:
            turns = chat_of(json_value(raw, file, 0))
        except BadFile:
            turns = None
        if turns and turns[-1]["role"] == "user":
            return turns
    return ({"role": "user", "content": raw},)
