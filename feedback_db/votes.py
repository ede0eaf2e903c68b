"""Judged pairs as votes for models or for templates, of the random arm, with what else differs between the two answers.

A vote for a model is a pair of answers by two models to one prompt's template; a vote for a template is one of answers by one
model to two templates. A pair in which both differ says nothing certain of either.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from .quality import COUNTED, ITEMS
from .store import Store

What = Literal["models", "templates"]
STYLES = ("length", "headings", "lists", "bold")

PROMPTS = " join prompts p0 on p0.id = c0.prompt_id join prompts p1 on p1.id = c1.prompt_id"
SIDES: dict[str, tuple[str, str]] = {
    "models": ("model_id", "c0.model_id <> c1.model_id and p0.template_id is p1.template_id"),
    "templates": ("template_id", "c0.model_id = c1.model_id and p0.template_id <> p1.template_id"),
}


class Vote(NamedTuple):
    """``outcome`` 1: the first one's answer was better, 0.5 neither. Counts of style are (first, second)."""

    first: int
    second: int
    outcome: float
    person: int
    length: tuple[int, int]
    headings: tuple[int, int]
    lists: tuple[int, int]
    bold: tuple[int, int]


def votes(store: Store, project_id: int, what: What, after: int = 0) -> list[Vote]:
    """All votes, or those of judgements after one. The counts are by signs at the beginnings of lines, as Markdown has them."""
    column, where = SIDES[what]
    side = "c" if what == "models" else "p"
    counted = COUNTED.replace(" where ", f"{ITEMS}{PROMPTS} where ", 1)
    sql = (
        f"select {side}0.{column}, {side}1.{column}, case when j.verdict = 'a' then 1.0 when j.verdict = 'b' then 0.0 else 0.5 end,"
        f" a.person_id, {', '.join(f'{_count(style, answer)}' for style in STYLES for answer in ('c0', 'c1'))} {counted}"
        f" and {where} and k.leaked is null and j.id > :after"  # an answer that named its maker was not judged blind
    )
    found = store.db.conn.execute(sql, {"project": project_id, "person": None, "after": after})
    return [
        Vote(a, b, won, by, *(tuple(counts[i : i + 2]) for i in range(0, 8, 2)))
        for a, b, won, by, *counts in found.fetchall()
    ]


def _count(style: str, answer: str) -> str:
    """SQL for one count of an answer's text."""
    lines = f"char(10) || {answer}.text"
    if style == "length":
        return f"length({answer}.text)"
    if style == "headings":
        return _times(lines, "char(10) || '#'", 2)
    if style == "lists":
        return " + ".join(_times(lines, f"char(10) || '{mark} '", 3) for mark in ("-", "*"))
    return _times(f"{answer}.text", "'**'", 4)  # two pairs of stars for one bold run


def _times(text: str, sign: str, signs: int) -> str:
    return f"(length({text}) - length(replace({text}, {sign}, ''))) / {signs}"


class Stamp(NamedTuple):
    """What a count of votes rests on: the newest judgement, and how much was set aside."""

    newest: int
    void: int


def stamp(store: Store, project_id: int) -> Stamp:
    newest = store.value("select coalesce(max(id), 0) from judgements")
    void = store.value(
        "select count(*) from comparisons where project_id = ? and void_reason is not null",
        [project_id],
    )
    return Stamp(newest, void)


def has_corrections(store: Store, after: int) -> bool:
    """Whether a judgement after this one takes the place of another: then adding up is not enough."""
    return bool(store.rows("select 1 from judgements where id > ? and act <> 'submit' limit 1", [after]))
