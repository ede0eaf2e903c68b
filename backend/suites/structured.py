"""Checks of answers that are, or hold, JSON."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import Any

from backend.problem import Phrase
from backend.suites.kinds import Given, Outcome, graded, judged, kind, wanted

SCHEMA = Phrase("a JSON schema, or nothing", "asks_schema")
TABLE = Phrase("a table, or nothing: the expected answer of the case", "asks_table")
SAME_JSON = Phrase("the same JSON", "found_same_json")
LIST = Phrase("a list, or nothing: the expected answer of the case", "asks_list")


def read(text: str) -> Any:
    """The JSON a text is; a fence of backquotes around it is taken off. Raises ValueError with the line where it ends."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```") and "\n" in bare:
        bare = bare[bare.index("\n") + 1 : -3]
    try:
        return json.loads(bare, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        words = f"no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        at = {"error": error.msg, "row": error.lineno, "column": error.colno}
        raise ValueError(Phrase(words, "found_no_json", **at)) from None
    except RecursionError:
        raise ValueError(Phrase("no JSON: nested too deeply", "found_deep_json")) from None


NO_JSON = Outcome(0.0, False, Phrase("holds no JSON", "found_holds_no_json"))


def found_in(text: str) -> list[Any]:
    """Every table and list that stands in a text, outermost ones, in order."""
    decoder, place, found = json.JSONDecoder(), 0, []
    while (place := next((i for i in range(place, len(text)) if text[i] in "{["), -1)) >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
            found.append(value)
        except (json.JSONDecodeError, RecursionError):
            place += 1
    return found


def _is_schema(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    try:
        _validator(json.dumps(value, sort_keys=True))
    except ValueError:
        return False
    return True


@kind("is-json", SCHEMA, _is_schema)
def is_json(given: Given, value: Any, _: float | None) -> Outcome:
    return _as_schema_wants(read(given.answer), value)


@kind("contains-json", SCHEMA, _is_schema)
def contains_json(given: Given, value: Any, _: float | None) -> Outcome:
    """Holds JSON that fits; other text may stand around it."""
    every = [_as_schema_wants(one, value) for one in found_in(given.answer)]
    return next((one for one in every if one.passed), every[0] if every else NO_JSON)


@kind("json-equals", TABLE)
def json_equals(given: Given, value: Any, _: float | None) -> Outcome:
    return judged(read(given.answer) == _right(given, value), SAME_JSON, Phrase("another JSON", "found_another_json"))


@kind("json-fields", TABLE, lambda value: value is None or isinstance(value, dict | str))
def json_fields(given: Given, value: Any, threshold: float | None) -> Outcome:
    """F1 over the fields of a table: a field counts when name and value are right. Nested fields have dotted names."""
    right, ours = _right(given, value), read(given.answer)
    if not isinstance(right, dict) or not isinstance(ours, dict):
        both = Phrase("both must be tables", "found_both_tables")
        raise ValueError(both if not isinstance(right, dict) else Phrase("the answer is no table", "found_no_table"))
    return _f1(Counter(_fields(ours)), Counter(_fields(right)), threshold, Phrase("field F1", "found_field_f1"))


@kind("list-f1", LIST, lambda value: value is None or isinstance(value, list | str))
def list_f1(given: Given, value: Any, threshold: float | None) -> Outcome:
    """F1 over the items of a list in any order: factors, entities, [head, relation, tail] triples."""
    right, ours = _right(given, value), read(given.answer)
    if not isinstance(right, list) or not isinstance(ours, list):
        both = Phrase("both must be lists", "found_both_lists")
        raise ValueError(both if not isinstance(right, list) else Phrase("the answer is no list", "found_no_list"))
    return _f1(Counter(map(_key, ours)), Counter(map(_key, right)), threshold, Phrase("item F1", "found_item_f1"))


def _right(given: Given, value: Any) -> Any:
    return value if isinstance(value, dict | list) else read(wanted(given, value))


def _f1(ours: Counter[str], right: Counter[str], threshold: float | None, what: str) -> Outcome:
    shared, total = sum((ours & right).values()), sum(ours.values()) + sum(right.values())
    return graded(2 * shared / total if total else 1.0, 1.0 if threshold is None else threshold, what)


def _fields(table: dict[str, Any], before: str = "") -> list[str]:
    found: list[str] = []
    for name, value in table.items():
        path = f"{before}{name}"
        found += _fields(value, f"{path}.") if isinstance(value, dict) and value else [f"{path}={_key(value)}"]
    return found


def _key(value: Any) -> str:
    """Equal for what reads the same: texts without outer space and case, 1 and 1.0 alike."""
    if isinstance(value, str):
        return json.dumps(value.strip().casefold(), ensure_ascii=False)
    if isinstance(value, list):
        return f"[{','.join(map(_key, value))}]"
    if isinstance(value, dict):
        return json.dumps({name: _key(value[name]) for name in sorted(value)}, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)


def _as_schema_wants(found: Any, schema: dict[str, Any] | None) -> Outcome:
    if schema is None:
        return Outcome(1.0, True, "JSON")
    error = next(iter(_validator(json.dumps(schema, sort_keys=True)).iter_errors(found)), None)
    if error is None:
        return Outcome(1.0, True, Phrase("as the schema wants", "found_schema"))
    return Outcome(0.0, False, f"{error.json_path}: {error.message}"[:200])


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    import jsonschema  # a third of a second: only suites that ask for a schema pay it

    made = json.loads(schema)
    try:
        jsonschema.Draft202012Validator.check_schema(made)
    except jsonschema.SchemaError as error:
        words = f"the schema cannot be used: {error.message}"
        raise ValueError(Phrase(words, "found_bad_schema", error=error.message)) from None
    return jsonschema.Draft202012Validator(made)


def _no_constant(name: str) -> Any:
    raise ValueError(Phrase(f"no JSON: {name} is no number of JSON", "found_no_constant", name=name))
