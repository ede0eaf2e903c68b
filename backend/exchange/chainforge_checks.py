"""What a ChainForge flow says of answers: its evaluators as checks, its grades as judged comparisons."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from backend.exchange.chats import ROLES
from backend.exchange.plan import NewPair, Notes, storable
from backend.exchange.tree import list_in, number, table_in, texts, typed
from feedback_db.types import Message

DRAWN = {"vis", "inspect", "comment"}
OPERATIONS = {"contains": "contains", "starts with": "starts-with", "ends with": "ends-with", "equals": "equals"}
_META = re.compile(
    r"(?:let|const|var)?\s*(?P<name>\w+)\s*=\s*r(?:esponse)?\.(?:meta|var)\[(?P<q>['\"])(?P<column>.+?)(?P=q)\]\s*;?\s*"
    r"return\s+(?:r(?:esponse)?\.text\.(?P<method>startswith|startsWith|includes)\(\s*(?P=name)\s*\)|(?P=name)\s+(?P<within>in)\s+"
    r"r(?:esponse)?\.text|r(?:esponse)?\.text\s*(?P<equal>===?)\s*(?P=name))\s*;?\s*\}?\s*\Z"
)

_TEXT = re.compile(
    r"return\s+(?P<no>!|not\s+)?(?:r(?:esponse)?\.text\.(?P<method>startswith|startsWith|endswith|endsWith|includes)\(\s*(?P<q>['\"])"
    r"(?P<text>[^'\"\\\n]+)(?P=q)\s*\)|r(?:esponse)?\.text\s*(?P<equal>===?)\s*(?P<e>['\"])(?P<whole>[^'\"\\\n]+)(?P=e))\s*;?\s*\}?\s*\Z"
)
_NAMED = re.compile(r"\{#?(\w+)\}")


class Node(NamedTuple):
    id: str
    type: str
    data: dict[str, Any]


class Flow(NamedTuple):
    nodes: dict[str, Node]
    edges: list[dict[str, str]]
    cache: dict[str, Any]
    file: str

    def into(self, node: str) -> list[dict[str, str]]:
        return [edge for edge in self.edges if edge["target"] == node]


def checks_of(flow: Flow, node: Node, notes: Notes) -> tuple[tuple[dict[str, Any], ...], str]:
    """The checks of a prompt's evaluators, and the column that holds the expected answer ("" without one)."""
    checks: list[dict[str, Any]] = []
    columns: set[str] = set()
    fed = {name_of(edge["targetHandle"]) for edge in flow.into(node.id)}
    for edge in flow.edges:
        one = flow.nodes.get(edge["target"])
        if edge["source"] != node.id or one is None or one.type in {*DRAWN, "prompt", "chat"}:
            continue
        for part in _parts(one):
            found = _read(part, notes)
            if found is None:
                continue
            kind, value, column = found
            if column and column not in fed:
                columns.add(column)
            checks.append(_check(kind, value, column, column in fed))
    if len(columns) > 1:
        notes.refused(0, node.id, "two_columns", name=", ".join(sorted(columns)))
        return (), ""
    return tuple(checks), next(iter(columns), "")


def _parts(node: Node) -> list[Node]:
    """The evaluators that one node holds: itself, or each of several."""
    if node.type != "multieval":
        return [node]
    kinds = {"simple": "simpleval", "llm": "llmeval", "javascript": "evaluator", "python": "evaluator"}
    held = [one for one in list_in(node.data, "evaluators") if isinstance(one, dict)]
    return [
        Node(f"{node.id}.{texts(one.get('name') or at)}", kinds.get(texts(one.get("type") or ""), "evaluator"), table_in(one, "state"))
        for at, one in enumerate(held, 1)
    ]  # fmt: skip


def _read(node: Node, notes: Notes) -> tuple[str, str, str] | None:
    """Kind, text and column of an evaluator's check; None, and told, where it has none here."""
    if node.type == "simpleval":
        return _simple(node, notes)
    if node.type == "evaluator":
        return _known(node, notes)
    if node.type == "llmeval":
        return _asked(node, notes)
    notes.refused(0, node.id, "node", code_of(node), name=node.type)
    return None


def _asked(node: Node, notes: Notes) -> tuple[str, str, str] | None:
    """A question to a model that is answered by true or false is a rubric; ``{#name}`` in it is the case's variable."""
    prompt = texts(node.data.get("prompt") or "").strip()
    if texts(node.data.get("format") or "bin") != "bin" or not prompt or "{" in _NAMED.sub("", prompt):
        notes.refused(0, node.id, "rubric_kind", prompt)
        return None
    notes.mapped(0, node.id, "rubric_asked", prompt)
    return "llm-rubric", _NAMED.sub(r"{{\1}}", prompt), ""


def _check(kind: str, value: str, column: str, is_variable: bool) -> dict[str, Any]:
    if column and is_variable:
        return {"type": kind, "value": f"{{{{{column}}}}}"}
    if column:
        return {"type": kind, "value": "{{expected}}"} if kind in ("starts-with", "ends-with") else {"type": kind}
    return {"type": kind, "value": value}


def _simple(node: Node, notes: Notes) -> tuple[str, str, str] | None:
    """A simple evaluator: kind, its text, or the column or variable that it compares with."""
    kind = OPERATIONS.get(texts(node.data.get("operation") or ""))
    if kind is None:
        notes.refused(0, node.id, "operation", texts(node.data.get("operation") or ""))
        return None
    if node.data.get("varValue") and typed(node.data.get("varValue")):
        return kind, "", name_of(texts(node.data["varValue"]))
    text = texts(node.data.get("textValue") or "")
    if "{{" in text or not text:
        notes.refused(0, node.id, "operation", text)
        return None
    return kind, text, ""


def _known(node: Node, notes: Notes) -> tuple[str, str, str] | None:
    """An evaluator in code that is one of the usual three; another one is shown."""
    code = texts(node.data.get("code") or "")
    body = re.sub(r"\A\s*(def\s+evaluate\s*\(\w+\)\s*:|function\s+evaluate\s*\(\w+\)\s*\{)", "", code)
    literal = _TEXT.match(body.strip()) if body != code else None
    if literal:
        return _literal(node, code, literal, notes)
    match = _META.match(body.strip()) if body != code else None
    if match is None:
        notes.refused(0, node.id, "code", code)
        return None
    kind = (
        "equals"
        if match["equal"]
        else "contains"
        if match["within"] or match["method"] == "includes"
        else "starts-with"
    )
    notes.mapped(0, node.id, "evaluator", code, name=kind)
    return kind, "", name_of(match["column"])


def _literal(node: Node, code: str, match: re.Match[str], notes: Notes) -> tuple[str, str, str]:
    """An evaluator that compares with a text of its own."""
    method = (match["method"] or "equals").casefold()
    kind = {"startswith": "starts-with", "endswith": "ends-with", "includes": "contains"}.get(method, "equals")
    kind = f"not-{kind}" if match["no"] else kind
    notes.mapped(0, node.id, "evaluator", code, name=kind)
    return kind, match["text"] or match["whole"], ""


def pairs_of(flow: Flow, notes: Notes) -> list[NewPair]:
    """One pair for every answer graded good beside one graded bad of the same response; grades of others are told."""
    strings = flow.cache.get("__s")
    found: list[NewPair] = []
    for key, held in flow.cache.items():
        if not key.endswith(".json") or not isinstance(held, dict):
            continue
        for response in list_in(held, "responses_last_run"):
            if isinstance(response, dict):
                found += _graded(response, flow, strings, notes)
    if found:
        notes.taken(0, "grades", "pairs_taken", n=len(found))
    return found


def _graded(response: dict[str, Any], flow: Flow, strings: Any, notes: Notes) -> list[NewPair]:
    uid = texts(response.get("uid") or "")
    grades = flow.cache.get(f"r.{uid}.grade")
    if not isinstance(grades, dict):
        return []
    field = f"r.{uid}.grade"
    answers = response.get("responses")
    prompt = looked_up(response.get("prompt"), strings)
    by_grade: dict[bool, list[str]] = {True: [], False: []}
    for index, grade in grades.items():
        place = int(index) if index.isascii() and index.isdigit() and len(index) < 6 else -1
        if typed(grade) in (True, False) and isinstance(answers, list) and 0 <= place < len(answers):
            by_grade[bool(typed(grade))].append(looked_up(answers[place], strings))
    if not by_grade[True] or not by_grade[False]:
        notes.refused(0, field, "grade_alone", texts(grades))
        return []
    note = flow.cache.get(f"r.{uid}.note")
    messages = (
        *earlier_turns(response, flow, field),
        {"role": "user", "content": storable(prompt, flow.file, 0, field)},
    )
    return [
        NewPair(
            messages=messages, better=storable(better, flow.file, 0, field), worse=storable(worse, flow.file, 0, field),
            rationale=storable(texts(note), flow.file, 0, field) if isinstance(note, str) else "",
        )
        for better, worse in zip(by_grade[True], by_grade[False], strict=False)
        if better != worse and better.strip() and worse.strip()
    ]  # fmt: skip


def earlier_turns(response: dict[str, Any], flow: Flow, field: str) -> tuple[Message, ...]:
    """What was said before this response was asked for, without system texts: these are a template's."""
    strings = flow.cache.get("__s")
    said = [one for one in list_in(response, "chat_history") if isinstance(one, dict)]
    turns = [(ROLES.get(texts(one.get("role") or "")), looked_up(one.get("content"), strings)) for one in said]
    return tuple(
        {"role": role, "content": storable(text, flow.file, 0, field)}
        for role, text in turns
        if role in ("user", "assistant") and text
    )


def pasts_of(flow: Flow, node: Node) -> list[tuple[Message, ...]]:
    """The conversations that a node has answered, each with its first answer, as they are kept in the flow."""
    held, strings = table_in(flow.cache, f"{node.id}.json"), flow.cache.get("__s")
    found = []
    for response in list_in(held, "responses_last_run"):
        answers = response.get("responses") if isinstance(response, dict) else None
        if isinstance(answers, list) and answers:
            last = [("user", response.get("prompt")), ("assistant", answers[0])]
            said = [
                {"role": role, "content": storable(looked_up(text, strings), flow.file, 0, node.id)}
                for role, text in last
            ]
            if all(turn["content"].strip() for turn in said):
                found.append((*earlier_turns(response, flow, node.id), *said))
    return found


def looked_up(value: Any, strings: Any) -> str:
    """Texts are kept once: a number stands for the place of one in the table."""
    if isinstance(value, dict):
        value = value.get("text", value.get("d", ""))
    place = number(value) if not isinstance(value, str) or type(value) is not str else None
    if place is not None and isinstance(strings, list) and 0 <= int(place) < len(strings):
        return texts(strings[int(place)])
    return texts(value if value is not None else "")


def name_of(raw: str) -> str:
    """A variable of ours has no spaces, dashes or hashes in its name."""
    return re.sub(r"\W+", "_", raw.strip()).strip("_")


def code_of(node: Node) -> str:
    return texts(node.data.get("code") or node.data.get("prompt") or node.type)
