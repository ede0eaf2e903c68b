"""Label forms: what annotators of a project are asked, and whether an answer fits what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from backend.problem import Problem

STEPS = (2, 4, 6)  # of a pair, both sides together: strength 1, 1 to 2, 1 to 3
POINTS = (1, 2, 3, 4, 5)
CONFIDENCES = (1, 2, 3)
FLAGS = ("unsafe", "false", "personal", "identity", "bad_prompt")  # all but the last are about one answer
ABOUT_THE_PROMPT = "bad_prompt"
NAME_MOST, NAMES_MOST, SPANS_MOST = 40, 12, 50
RATIONALE_MOST = EDIT_MOST = 20_000


class BadForm(Problem):
    """A label form asks something that cannot be asked; the message names the field."""


class DoesNotFit(Problem):
    """An answer is not one to this form; the message says what is missing or too much."""


@dataclass(frozen=True)
class Form:
    """``aspects`` are asked side against side in pairs and by points elsewhere; ``points`` asks 1 to 5 of each answer."""

    steps: int = 4
    tie: bool = True
    both_bad: bool = True
    both_good: bool = False
    best_worst: bool = False  # of three and more only the best and the worst are asked
    aspects: tuple[str, ...] = ()
    points: bool = False
    flags: tuple[str, ...] = ("unsafe", "false", "personal", "identity", "bad_prompt")
    span_tags: tuple[str, ...] = ()
    rationale: Literal["off", "optional", "required"] = "optional"
    edit: bool = True
    confidence: bool = False
    markdown: bool = True  # texts are shown as Markdown; off shows them as they are written
    continues: bool = False  # whoever judged may go on from the better answer; the live policy answers twice
    reveal: Literal["off", "margin", "others"] = "off"  # what is told after the judgement
    reveal_holdout: float = 0.3  # of comparisons and people nothing is told, to see what telling does


NAMES = tuple(f.name for f in fields(Form))


def parse(stored: Mapping[str, Any]) -> Form:
    """The form of a project as it is stored; what is not named is as above. Raises BadForm."""
    given = {name: value for name, value in stored.items() if name in NAMES}
    for name in ("aspects", "flags", "span_tags"):
        if name in given:
            given[name] = tuple(str(one).strip() for one in given[name])
            _check_names(name, given[name])
    form = Form(**given)
    if form.steps not in STEPS:
        known = ", ".join(map(str, STEPS))
        raise BadForm(f"A pair has {known} steps, not {form.steps}.", "bad_steps", known=known, steps=form.steps)
    if form.rationale not in ("off", "optional", "required"):
        raise BadForm("The rationale is off, optional or required.", "bad_rationale")
    if form.reveal not in ("off", "margin", "others") or not 0 <= form.reveal_holdout <= 1:
        raise BadForm("Off, margin or others is revealed, and held back for a share of 0 to 1.", "bad_reveal")
    if not set(form.flags) <= set(FLAGS):
        raise BadForm(f"Known flags are {', '.join(FLAGS)}.", "bad_flags", known=", ".join(FLAGS))
    return form


def stored(form: Form) -> dict[str, Any]:
    """What the database keeps of a form."""
    return {name: list(value) if isinstance(value := getattr(form, name), tuple) else value for name in NAMES}


def _check_names(field: str, names: tuple[str, ...]) -> None:
    if len(names) > NAMES_MOST or len(set(names)) < len(names) or not all(0 < len(name) <= NAME_MOST for name in names):
        raise BadForm(
            f"{field}: at most {NAMES_MOST} different names of 1 to {NAME_MOST} characters.",
            "bad_names",
            field=field,
            most=NAMES_MOST,
            length=NAME_MOST,
        )


@dataclass(frozen=True, kw_only=True)
class Span:
    """A piece of an answer: code points from ``start`` to before ``end``, and the text that stands there."""

    place: int
    start: int
    end: int
    text: str
    tag: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person says about the answers as shown. Lists go by place, left to right.

    ``ranks[i]`` is the rank of answer i, 1 is best, equal is a tie. ``aspects`` are ranks of a pair and points elsewhere.
    """

    ranks: tuple[int, ...] = ()
    both_bad: bool = False
    both_good: bool = False
    strength: int | None = None
    aspects: Mapping[str, tuple[int, ...]] | None = None
    points: tuple[int, ...] | None = None
    flags: tuple[str, ...] | None = None
    spans: tuple[Span, ...] | None = None
    rationale: str | None = None
    edited_place: int | None = None
    edited_text: str | None = None
    confidence: int | None = None
    seconds: float
    active_seconds: float | None = None
    client: str | None = None


def check(answer: Answer, form: Form, kind: str, texts: tuple[str, ...]) -> Answer:
    """The answer with ranks for what was rated; ``texts`` are the answers as shown. Raises DoesNotFit."""
    if kind == "demonstration":
        return _check_written(answer, form)
    if kind == "rate":
        if answer.points is None:
            raise DoesNotFit("Rate every answer from 1 to 5.", "points_missing")
        order = sorted(set(answer.points), reverse=True)
        answer = _with(answer, ranks=tuple(order.index(one) + 1 for one in answer.points))
    _check_ranks(answer, form, kind, len(texts))
    _check_points(answer, form, kind, len(texts))
    _check_flags(answer, form, len(texts))
    for span in answer.spans or ():
        _check_span(span, form, texts)
    if len(answer.spans or ()) > SPANS_MOST:
        raise DoesNotFit(f"At most {SPANS_MOST} highlights.", "many_spans", most=SPANS_MOST)
    _check_texts(answer, form, len(texts))
    _check_confidence(answer, form)
    return answer


def _check_confidence(answer: Answer, form: Form) -> None:
    if answer.confidence is not None and (not form.confidence or answer.confidence not in CONFIDENCES):
        raise DoesNotFit("Confidence is 1, 2 or 3, where the form asks for it.", "bad_confidence")


def _check_written(answer: Answer, form: Form) -> Answer:
    """The ideal answer itself, with nothing to compare it to; what was asked may be bad all the same."""
    if not (answer.edited_text or "").strip():
        raise DoesNotFit("Write the answer you would want to read.", "nothing_written")
    about = {flag for flag in answer.flags or () if flag != ABOUT_THE_PROMPT}
    said = (
        answer.ranks,
        answer.points,
        answer.aspects,
        answer.spans,
        answer.strength,
        answer.both_bad,
        answer.both_good,
        about,
    )
    if any(said) or answer.edited_place is not None:
        raise DoesNotFit("There are no answers here to say anything of.", "not_asked")
    _check_flags(answer, form, 0)
    _check_long(answer)
    _check_reason(answer, form)
    _check_confidence(answer, form)
    return answer


def _with(answer: Answer, **values: Any) -> Answer:
    return Answer(**{**{f.name: getattr(answer, f.name) for f in fields(answer)}, **values})


def _check_ranks(answer: Answer, form: Form, kind: str, size: int) -> None:
    ranks = answer.ranks
    if len(ranks) != size:
        raise DoesNotFit(
            f"This comparison has {size} answers; {len(ranks)} ranks came.", "ranks_missing", size=size, came=len(ranks)
        )
    if min(ranks) != 1 or max(ranks) > size:
        raise DoesNotFit(f"Ranks go from 1, the best, to {size}.", "bad_ranks", size=size)
    is_tie = len(set(ranks)) == 1
    if (is_tie or kind != "pair") and answer.strength not in (None, 0):
        raise DoesNotFit("A tie has no strength.", "tie_strength")
    if answer.strength is not None and answer.strength > form.steps // 2:
        raise DoesNotFit(f"Strength goes to {form.steps // 2} here.", "bad_strength", most=form.steps // 2)
    if answer.both_bad and answer.both_good:
        raise DoesNotFit("Answers cannot be both good and both bad.", "good_and_bad")
    if (answer.both_bad and not form.both_bad) or (answer.both_good and not form.both_good):
        raise DoesNotFit("This form does not ask whether all are good or bad.", "not_asked")
    if kind == "pair" and is_tie and not (form.tie or answer.both_bad or answer.both_good):
        raise DoesNotFit("This form takes no ties: choose a side.", "no_ties")


def _check_points(answer: Answer, form: Form, kind: str, size: int) -> None:
    if answer.points is not None:
        if not (form.points or kind == "rate"):
            raise DoesNotFit("This form does not ask for points.", "not_asked")
        _check_places("points", answer.points, POINTS, size)
    for name, values in (answer.aspects or {}).items():
        if name not in form.aspects:
            raise DoesNotFit(f"This form does not ask about {name[:NAME_MOST]!r}.", "not_asked")
        _check_places(name, values, (1, 2) if kind == "pair" else POINTS, size)


def _check_places(name: str, values: tuple[int, ...], allowed: tuple[int, ...], size: int) -> None:
    if len(values) != size or not set(values) <= set(allowed):
        raise DoesNotFit(
            f"{name}: one number from {allowed[0]} to {allowed[-1]} for each of the {size} answers.",
            "bad_points",
            name=name,
            least=allowed[0],
            most=allowed[-1],
            size=size,
        )


def _check_flags(answer: Answer, form: Form, size: int) -> None:
    for flag in answer.flags or ():
        name, _, place = flag.partition(":")
        is_placed = place.isascii() and place.isdecimal() and int(place) < size
        if name not in form.flags or (place == "") != (name == ABOUT_THE_PROMPT) or (place and not is_placed):
            raise DoesNotFit(f"Unknown flag {flag[:NAME_MOST]!r}.", "unknown_flag", flag=flag[:NAME_MOST])


def _check_span(span: Span, form: Form, texts: tuple[str, ...]) -> None:
    if span.tag not in form.span_tags:
        raise DoesNotFit(f"Unknown tag {span.tag[:NAME_MOST]!r}.", "unknown_flag", flag=span.tag[:NAME_MOST])
    is_there = 0 <= span.place < len(texts) and 0 <= span.start < span.end <= len(texts[span.place])
    if not is_there or texts[span.place][span.start : span.end] != span.text:
        raise DoesNotFit("A highlight does not lie on the text it quotes. Mark it again.", "bad_span")


def _check_long(answer: Answer) -> None:
    if len(answer.rationale or "") > RATIONALE_MOST or len(answer.edited_text or "") > EDIT_MOST:
        raise DoesNotFit(f"A text may have {RATIONALE_MOST} characters.", "long_text", most=RATIONALE_MOST)


def _check_reason(answer: Answer, form: Form) -> None:
    if form.rationale == "required" and not (answer.rationale or "").strip():
        raise DoesNotFit("Say why: this form asks for a reason.", "rationale_missing")
    if form.rationale == "off" and answer.rationale:
        raise DoesNotFit("This form does not ask for a reason.", "not_asked")


def _check_texts(answer: Answer, form: Form, size: int) -> None:
    _check_long(answer)
    _check_reason(answer, form)
    if answer.edited_text is not None:
        if not form.edit:
            raise DoesNotFit("This form does not ask for a better answer.", "not_asked")
        if answer.edited_place is None or not 0 <= answer.edited_place < size or not answer.edited_text.strip():
            raise DoesNotFit("An edited answer has a text, and the place of the answer it mends.", "bad_edit")
