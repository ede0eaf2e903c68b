"""The JSON routes of the label page: the hot path, kept free of Gradio."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from backend import going_on, labelling, looking_back, reviewing
from backend.access import Denied
from backend.engines.answers import EngineError
from backend.labelling import Desk, LabellingProblem
from backend.labels import form as forms
from backend.labels.form import Answer, Span
from backend.labels.turns import CannotGoOn
from backend.problem import Problem
from backend.stats.agreement import Estimate
from feedback_db import BusyOrFull, NotFound
from feedback_db.types import Person
from ui.context import Ui
from ui.gate import RateLimit

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

Id = Annotated[int, Field(ge=1, lt=2**63)]
Key = Annotated[str, Field(pattern=UUID.pattern, max_length=36)]
Place = Annotated[int, Field(ge=0, le=15)]
Name = Annotated[str, Field(min_length=1, max_length=forms.NAME_MOST + 4)]
LongText = Annotated[str, Field(max_length=forms.RATIONALE_MOST)]
PointsBody = Annotated[list[Annotated[int, Field(ge=0, le=5)]], Field(max_length=16)]  # 0: not given yet
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Body(BaseModel):
    """Unknown keys, NaN and numbers in quotes are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NextBody(Body):
    project: Id


class SpanBody(Body):
    place: Place
    start: Annotated[int, Field(ge=0, le=10_000_000)]
    end: Annotated[int, Field(ge=1, le=10_000_000)]
    text: LongText
    tag: Name


class SaidBody(Body):
    """What can be said of the answers, as a draft holds it: half of it may be missing."""

    ranks: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=1, max_length=16)] | None = (
        None  # 0: not ranked yet
    )
    both_bad: bool = False
    both_good: bool = False
    strength: Annotated[int, Field(ge=0, le=3)] | None = None
    aspects: Annotated[dict[Name, PointsBody], Field(max_length=forms.NAMES_MOST)] | None = None
    points: PointsBody | None = None
    flags: Annotated[list[Name], Field(max_length=100)] | None = None
    spans: Annotated[list[SpanBody], Field(max_length=forms.SPANS_MOST)] | None = None
    rationale: LongText | None = None
    edited_place: Place | None = None
    edited_text: LongText | None = None
    confidence: Annotated[int, Field(ge=1, le=3)] | None = None


class SubmitBody(SaidBody):
    ranks: Annotated[list[Annotated[int, Field(ge=1, le=16)]], Field(min_length=1, max_length=16)] | None = None
    assignment: Id
    key: Key
    seconds: Seconds
    active_seconds: Seconds | None = None


class CorrectBody(SubmitBody):
    corrects: Id


class HistoryBody(Body):
    project: Id
    before: Annotated[list[Id], Field(min_length=2, max_length=2)] | None = None


class JudgementBody(Body):
    judgement: Id


class GoOnBody(Body):
    judgement: Id
    place: Place
    text: LongText


class SkipBody(Body):
    assignment: Id
    reason: Annotated[str, Field(max_length=40)] = ""


class ReportBody(Body):
    assignment: Id
    key: Key
    category: Annotated[str, Field(max_length=40)]
    note: Annotated[str, Field(max_length=labelling.NOTE_MOST)] = ""


class UndoBody(Body):
    project: Id
    key: Key
    judgement: Id | None = None


class DraftBody(SaidBody):
    assignment: Id


class HeartbeatBody(Body):
    assignment: Id


class ReleaseBody(Body):
    assignment: Id
    lease: Id


class BadBody(Exception):
    """The request cannot be read; names the field."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class LabelRoutes:
    """Answers the label routes before anything else is asked, and passes on the rest.

    They carry nearly all requests, and the layers behind would cost as much time as the work itself.
    """

    def __init__(self, app: Any, *, ui: Ui, clock: Callable[[], float]):
        self.app = app
        self.ui = ui
        self.most = ui.settings.judgements_per_minute
        self.limit = RateLimit(self.most, 60, clock)
        self.acts = {f"/api/label/{name}": act for name, act in ACTS.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        act = self.acts.get(scope.get("path", "")) if scope["type"] == "http" else None
        if act is None:
            await self.app(scope, receive, send)
            return
        reply = await self._answer(act, Request(scope, receive))
        await reply(scope, receive, send)

    async def _answer(self, act: RouteAct, request: Request) -> Response:
        if request.method != "POST":
            return _error(405, "Send a POST request.")
        if (
            act in (_submit, _go_on, _report)
            and self.most
            and (wait := self.limit.wait_seconds(request.scope["person"].id))
        ):
            said = self.ui.text("problem.too_fast", request.scope["frame"].lang, most=self.most, wait=wait)
            return _error(429, said, wait)
        return await _answer(self.ui, request, act)


# ---- one function per route: body, activity, view


async def _projects(ui: Ui, person: Person, request: Request) -> Any:
    await _read(request, Body)
    found = await run_in_threadpool(labelling.projects, ui.store, person)
    listed = [{"id": p.id, "name": p.name, **p.counts._asdict()} for p in found]
    return {"person": person.id, "projects": listed}  # the browser keeps drafts per person


async def _next(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, NextBody)
    return _view(await _written(ui, labelling.next_desk, person, body.project))


async def _ahead(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, NextBody)
    return _view(await _written(ui, labelling.ahead, person, body.project))


async def _own(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, NextBody)
    own = await run_in_threadpool(reviewing.own, ui.store, person, body.project)
    shares = {name: value for name, value in own._asdict().items() if isinstance(value, Estimate) and name != "seconds"}
    figures = {name: {"percent": round(100 * one.value), "low": round(100 * one.low), "high": round(100 * one.high), "n": one.n}
               for name, one in shares.items() if one.n}  # fmt: skip
    return {"judged": own.judged, "seconds": own.seconds._asdict() if own.seconds else None, "figures": figures}


async def _submit(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, SubmitBody)
    done = await _written(ui, labelling.submit, person, body.assignment, _key(body.key), _said(body))
    return {"judgement": done.judgement, "counted": done.counted, "desk": _view(done.desk)}


async def _history(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, HistoryBody)
    before = (body.before[0], body.before[1]) if body.before else None
    found = await run_in_threadpool(looking_back.history, ui.store, person, body.project, before)
    return {"past": [one._asdict() for one in found.past], "before": found.before}


async def _look_at(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, JudgementBody)
    return _view(await run_in_threadpool(looking_back.open_again, ui.store, person, body.judgement))


async def _correct(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, CorrectBody)
    made = await run_in_threadpool(looking_back.correct, ui.store, person, body.corrects, _key(body.key), _said(body))
    return {"judgement": made}


async def _reveal(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, JudgementBody)
    told = await run_in_threadpool(looking_back.reveal, ui.store, ui.engine, person, body.judgement)
    return told._asdict() if told else None


async def _go_on(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, GoOnBody)
    made = await run_in_threadpool(going_on.go_on, ui.store, ui.engine, person, body.judgement, body.place, body.text)
    return _view(await _written(ui, labelling.next_desk, person, made.project_id))


def _said(body: SubmitBody) -> Answer:
    said = {f: getattr(body, f) for f in SaidBody.model_fields} | {
        "ranks": tuple(body.ranks or ()),
        "aspects": {name: tuple(values) for name, values in body.aspects.items()} if body.aspects else None,
        "points": tuple(body.points) if body.points else None,
        "flags": tuple(body.flags) if body.flags else None,
        "spans": tuple(Span(**span.model_dump()) for span in body.spans) if body.spans else None,
    }
    return Answer(**said, seconds=body.seconds, active_seconds=body.active_seconds, client="web")


async def _skip(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, SkipBody)
    return {"desk": _view(await _written(ui, labelling.skip, person, body.assignment, body.reason))}


async def _report(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, ReportBody)
    made = await _written(ui, labelling.report, person, body.assignment, _key(body.key), body.category, body.note)
    return {"report": made}


async def _undo(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, UndoBody)
    key = _key(body.key)
    return {"desk": _view(await _written(ui, labelling.undo, person, body.project, key, body.judgement))}


async def _draft(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, DraftBody)
    draft = body.model_dump(exclude={"assignment"})
    await _written(ui, labelling.save_draft, person, body.assignment, draft)
    return {"saved": True}


async def _heartbeat(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, HeartbeatBody)
    return {"seconds": await _written(ui, labelling.heartbeat, person, body.assignment)}


async def _release(ui: Ui, person: Person, request: Request) -> Any:
    body = await _read(request, ReleaseBody)
    await _written(ui, labelling.release, person, body.assignment, body.lease)
    return {"released": True}


RouteAct = Callable[[Ui, Person, Request], Awaitable[Any]]
ACTS: dict[str, RouteAct] = {
    "submit": _submit,
    "next": _next,
    "ahead": _ahead,
    "draft": _draft,
    "heartbeat": _heartbeat,
    "skip": _skip,
    "report": _report,
    "undo": _undo,
    "release": _release,
    "projects": _projects,
    "own": _own,
    "history": _history,
    "look": _look_at,
    "correct": _correct,
    "reveal": _reveal,
    "go-on": _go_on,
}


# ---- inside


async def _written(ui: Ui, act: Callable[..., R], *values: Any) -> R:
    """Run an activity on the writer thread, what it reads included, and wait for its commit without holding a thread."""
    loop = asyncio.get_running_loop()
    known: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not known.done():  # the browser may have gone
            known.set_result(None)

    waiting = ui.store.hand_over(lambda: act(ui.store, *values), lambda: loop.call_soon_threadsafe(tell))
    await known
    return waiting.outcome()


async def _answer(ui: Ui, request: Request, act: RouteAct) -> Response:
    """Run one route; every problem becomes a status and a sentence in the person's language."""
    lang = request.scope["frame"].lang
    try:
        found = await act(ui, request.scope["person"], request)
    except BadBody as error:
        return _error(error.status, str(error))
    except Denied as error:
        return _error(403, ui.text.problem(error, lang))
    except LabellingProblem as error:
        return _error(error.status, ui.text.problem(error, lang))
    except EngineError as error:
        return _error(502, ui.text.problem(error, lang))
    except CannotGoOn as error:
        return _error(422, ui.text.problem(error, lang))
    except (Problem, NotFound) as error:
        return _error(404, ui.text.problem(error, lang))
    except BusyOrFull:  # locked or full: nothing was saved, the same key may be sent again
        return _error(503, ui.text("problem.busy", lang), 2)
    return Response(orjson.dumps(found), media_type="application/json")


async def _read(request: Request, kind: type[T]) -> T:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise BadBody(415, "Send application/json.")
    try:
        return kind.model_validate(orjson.loads(await request.body()))
    except orjson.JSONDecodeError as error:
        raise BadBody(422, "The body is not valid JSON text.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadBody(422, f"{field[:80]}: {first['msg']}.") from error


def _error(status: int, sentence: str, retry_after: int | None = None) -> Response:
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return Response(orjson.dumps({"error": sentence}), status, headers, media_type="application/json")


def _key(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def _view(desk: Desk | None) -> dict[str, Any] | None:
    """A desk as the browser gets it: messages as role and text, counts as they are."""
    if desk is None:
        return None
    view = {f.name: getattr(desk, f.name) for f in fields(desk)}  # asdict would copy every text
    view["conversation"] = [{"role": m.get("role", ""), "text": m.get("content", "")} for m in desk.conversation]
    view["progress"] = desk.progress._asdict()
    return view
