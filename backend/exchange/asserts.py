"""promptfoo's assertions as checks of a suite: what is the same is taken, what needs code, a judge or a price is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from backend.exchange.braces import CannotConvert, from_nunjucks
from backend.exchange.plan import Notes
from backend.exchange.tree import Plain, number, texts, typed
from backend.suites.checks import MOST_CHECKS, NOT, BadCheck, parse
from backend.suites.kinds import KINDS

Row = dict[str, Any]

CODE = {"javascript", "python", "ruby", "webhook", "webassembly"}
JUDGED = {
    "llm-rubric", "model-graded-closedqa", "model-graded-factuality", "factuality", "closedqa", "g-eval", "answer-relevance",
    "context-faithfulness", "context-recall", "context-relevance", "conversation-relevance", "moderation", "guardrails", "pi",
    "agent-rubric", "search-rubric", "trajectory:goal-success",
}  # fmt: skip
BY_PEOPLE = {"human", "select-best", "max-score"}
EMBEDDED = {"similar", "similar:cosine", "similar:dot", "similar:euclidean", "classifier"}
IGNORED = {"type", "value", "threshold", "weight", "metric"}
EXPECTED_STANDS_IN = {  # kinds that compare with the case's expected answer when they have no value
    "equals", "iequals", "contains", "icontains", "levenshtein", "similarity", "rouge-n", "rouge-2", "rouge-l", "bleu", "gleu", "chrf",
    "exact-match", "f1", "number", "json-equals", "json-fields", "list-f1",
}  # fmt: skip
TYPED = {"is-json", "contains-json", "word-count", "length", "lines", "tokens", "latency", "perplexity", "perplexity-score", "json-fields",
         "list-f1", "json-equals"}  # fmt: skip


class Placed(NamedTuple):
    """An assertion of one test as a check, and where it stood."""

    row: Row
    line: int
    field: str


class Shared(NamedTuple):
    """What a suite takes of its cases' checks: ``expected`` by case, None where the checks have no say in it; ``own`` by case."""

    checks: tuple[Row, ...]
    expected: tuple[str | None, ...]
    own: tuple[tuple[Row, ...], ...]


def convert(given: Any, notes: Notes, line: int, field: str, texts_of: Mapping[str, str] | None = None) -> Row | None:
    """One assertion as a check; None where it is refused, with a note that says why. ``texts_of``: files that it may name."""
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        notes.refused(line, field, "assert_form", texts(given))
        return None
    name = str(given["type"])
    bare = name.removeprefix(NOT)
    reason = _unlike(bare, given)
    if reason:
        notes.refused(line, field, reason, _shown(given), name=name)
        return None
    row: Row = {"type": name}
    value = given.get("value")
    if value is not None and not (isinstance(value, Plain) and typed(value) is None):
        value, problem = _value(bare, value, texts_of or {})
        if problem:
            notes.refused(line, field, problem, _shown(given), name=name)
            return None
        row["value"] = value
    for key in ("threshold", "weight"):
        if given.get(key) is not None:
            found = number(given[key])
            if found is None:
                notes.refused(line, f"{field}.{key}", "not_a_number", texts(given[key]), name=key)
                return None
            row[key] = found
    if given.get("metric"):
        row["metric"] = texts(given["metric"])
    try:
        (check,) = parse([row])
    except BadCheck as problem:
        notes.refused(line, field, "assert_check", _shown(given), name=name, problem=problem.sentence)
        return None
    if bare in EXPECTED_STANDS_IN and row.get("value") == "{{expected}}":
        check = replace(check, value=None)
    left = sorted(set(given) - IGNORED)
    if left:
        notes.mapped(line, field, "assert_rest", _shown(given), name=name, keys=", ".join(left))
    return check.as_row()


def flat(given: Any, notes: Notes, line: int, field: str) -> list[tuple[Any, str]]:
    """An assertion, or those of an assert-set whose members all have to pass, each with its field."""
    if not isinstance(given, dict) or given.get("type") != "assert-set":
        return [(given, field)]
    inner = given.get("assert")
    if not isinstance(inner, list) or given.get("threshold") is not None:
        notes.refused(line, field, "assert_set", _shown(given))
        return []
    notes.mapped(line, field, "assert_set_flat", n=len(inner))
    return [(one, f"{field}.assert[{i + 1}]") for i, one in enumerate(inner)]


def shared(by_case: Sequence[Sequence[Placed]], notes: Notes, has_expected: bool = False) -> Shared:
    """The checks that every case has. One kind of check whose value differs from case to case becomes the cases' expected
    answers, unless they have some; a check that only some cases have is those cases' own."""
    if not by_case:
        return Shared((), (), ())
    everywhere = _everywhere(by_case)
    expected: list[str | None] = [None] * len(by_case)
    checks: list[tuple[int, Row]] = [(place, json.loads(key)) for key, place in everywhere.items()]
    left = [[one for one in ones if _key(one.row) not in everywhere] for ones in by_case]
    form = None if has_expected else _form_of_expected(left)
    if form is not None:
        for i, ones in enumerate(left):
            found = next(one for one in ones if _form(one.row) == form and "value" in one.row)
            expected[i] = _as_answer(found.row["value"])
            left[i] = [one for one in ones if one is not found]
        first = next(i for i, one in enumerate(by_case[0]) if _form(one.row) == form and "value" in one.row)
        checks.append((first, json.loads(form)))
        notes.mapped(by_case[0][first].line, by_case[0][first].field, "assert_expected", name=json.loads(form)["type"])
    for ones in left:
        for one in ones[:MOST_CHECKS]:
            notes.mapped(one.line, one.field, "assert_own", name=one.row["type"])
        for one in ones[MOST_CHECKS:]:
            shown = json.dumps(one.row, ensure_ascii=False)
            notes.refused(one.line, one.field, "assert_many", shown, most=MOST_CHECKS)
    rows = [row for _, row in sorted(checks, key=lambda pair: pair[0])]
    for row in rows[MOST_CHECKS:]:
        notes.refused(0, "assert", "assert_many", json.dumps(row, ensure_ascii=False), most=MOST_CHECKS)
    own = tuple(tuple(one.row for one in ones[:MOST_CHECKS]) for ones in left)
    return Shared(tuple(rows[:MOST_CHECKS]), tuple(expected), own)


def _everywhere(by_case: Sequence[Sequence[Placed]]) -> dict[str, int]:
    """The checks all cases have, each with its place in the first case."""
    counted = Counter(key for ones in by_case for key in {_key(one.row) for one in ones})
    return {
        _key(one.row): i for i, one in reversed(list(enumerate(by_case[0]))) if counted[_key(one.row)] == len(by_case)
    }


def _form_of_expected(left: Sequence[Sequence[Placed]]) -> str | None:
    """The form, a check without its value, that every case has exactly once and with a value that can be an expected answer."""
    for one in left[0]:
        form = _form(one.row)
        if one.row["type"].removeprefix(NOT) not in EXPECTED_STANDS_IN or "value" not in one.row:
            continue
        found = [[other.row for other in ones if _form(other.row) == form and "value" in other.row] for ones in left]
        if all(len(rows) == 1 and "{{" not in _as_answer(rows[0]["value"]) for rows in found):
            return form
    return None


def _key(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, sort_keys=True)


def _form(row: Row) -> str:
    return _key({key: value for key, value in row.items() if key != "value"})


def _as_answer(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unlike(bare: str, given: Row) -> str:
    """Why a check of this name cannot be taken, before its value is looked at; "" where it may be."""
    value = given.get("value")
    if bare in CODE or given.get("transform") or given.get("contextTransform"):
        return "assert_code"
    if isinstance(value, str) and value.startswith("file://") and value.partition(":")[2].split(":")[0].endswith((".js", ".cjs", ".mjs", ".ts", ".py", ".rb")):  # fmt: skip
        return "assert_code"
    if bare in KINDS:
        return ""
    if bare in BY_PEOPLE:
        return "assert_people"
    if bare in JUDGED or bare.startswith(("llm-", "model-graded", "context-", "conversation-")):
        return "assert_judge"
    if bare in EMBEDDED:
        return "assert_embedding"
    return "assert_cost" if bare == "cost" else "assert_unknown"


def _value(bare: str, value: Any, texts_of: Mapping[str, str]) -> tuple[Any, str]:
    """The value as our check takes it, and a reason where it cannot be taken."""
    if isinstance(value, str) and value.startswith("file://"):
        if value not in texts_of:
            return None, "file_outside"
        value = texts_of[value]
    if bare in TYPED:
        value = typed(value)
        if isinstance(value, str) and value[:1] in "[{" and "{{" not in value:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                pass
        return value, ""
    if isinstance(value, dict):
        return typed(value), ""
    try:
        if isinstance(value, list):
            return [_our_braces(texts(one)) for one in value], ""
        return _our_braces(str(value)), ""
    except CannotConvert:
        return None, "assert_template"


def _our_braces(text: str) -> str:
    """A value's template as a plain one: values of checks name variables and nothing else."""
    converted = from_nunjucks(text, of_promptfoo=False)
    if converted.mode != "plain":
        raise CannotConvert("it is not plain")
    return converted.body


def _shown(given: Any) -> str:
    return json.dumps(typed(given), ensure_ascii=False, indent=1)
