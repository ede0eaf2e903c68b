"""Gradio Blocks that check who acts before every event. Gradio events are HTTP endpoints whatever a page hides."""

from __future__ import annotations

import html
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from backend import signing_in
from backend.access import Denied, require, require_role
from backend.problem import Problem
from feedback_db import NotFound, Store, StoreProblem
from feedback_db.types import Person
from ui.text import Text, choose_language

PROBLEMS = (Problem, NotFound, StoreProblem)  # errors whose message a person may read and act on

SESSION_CACHE_SECONDS = 1.0  # a generator step asks again and again; a revoked session stops it within this time
REMEMBERED_TABS = 10_000  # as many as Gradio keeps states for
F = TypeVar("F", bound=Callable[..., Any])


def needs(action: str) -> Callable[[F], F]:
    """Ask more of a handler than its area does: ``@needs("promote")``. It cannot ask less."""

    def mark(handler: F) -> F:
        handler.needs = action  # type: ignore[attr-defined]
        return handler

    return mark


class Acting(NamedTuple):
    person: Person
    language: str


class Guard:
    """Knows who acts, and which person each open tab belongs to."""

    def __init__(self, store: Store, text: Text, cookie_name: str, clock: Callable[[], float] = time.monotonic):
        self._store = store
        self._text = text
        self._cookie_name = cookie_name
        self._clock = clock
        self._acting: ContextVar[Acting] = ContextVar("acting")
        self._cache: OrderedDict[str, tuple[float, Person | None]] = OrderedDict()
        self._tabs: OrderedDict[str, int] = OrderedDict()

    def person(self) -> Person:
        """Who acts in the running handler."""
        return self._acting.get().person

    def language(self) -> str:
        """In which language the running handler answers."""
        return self._acting.get().language

    def say(self, key: str, **values: Any) -> str:
        """A string in the language of the running handler."""
        return self._text(key, self.language(), **values)

    # ---- called by GuardedBlocks

    def admit(self, request: gr.Request | None, role: str, need: str | None, session_hash: str | None) -> Acting:
        """The one who asks, or Denied. ``need`` may raise what the area asks for."""
        if request is None or request.request is None:  # a call without a browser behind it belongs to nobody
            raise Denied("This can only be done from a page.", "signed_out")
        cookies = request.request.cookies
        person = self._session(cookies.get(self._cookie_name))
        require_role(person, role)
        if need is not None:
            require(person, need)
        if person is None or person.id is None:
            raise Denied("Your session has ended. Sign in again.", "signed_out")
        self._bind(session_hash or request.session_hash, person.id)
        language = choose_language(cookies.get("wh_lang"), request.request.headers.get("accept-language", ""))
        return Acting(person, language)

    @contextmanager
    def acting(self, who: Acting) -> Iterator[None]:
        """While this runs, ``person()`` answers; threads and generators that start in it inherit the answer."""
        token = self._acting.set(who)
        try:
            yield
        finally:
            self._acting.reset(token)

    def shown(self, error: Exception, request: gr.Request | None) -> gr.Error:
        """An error of an activity as a message on the page. Escaped: Gradio shows it as HTML."""
        real = getattr(request, "request", None)
        language = "en"
        if real is not None:
            language = choose_language(real.cookies.get("wh_lang"), real.headers.get("accept-language", ""))
        return gr.Error(html.escape(self._text.problem(error, language)), print_exception=False)

    # ---- inside

    def _session(self, token: str | None) -> Person | None:
        if not token:
            return None
        now = self._clock()
        until, person = self._cache.get(token, (0.0, None))
        if now >= until:
            found = signing_in.session(self._store, token)
            person = found.person if found else None
            self._cache[token] = (now + SESSION_CACHE_SECONDS, person)
            self._cache.move_to_end(token)
            while len(self._cache) > REMEMBERED_TABS:
                self._cache.popitem(last=False)
        return person

    def _bind(self, session_hash: str | None, person_id: int) -> None:
        """gr.State belongs to whoever knows the session hash, which the browser chooses: its first person owns it."""
        if session_hash is None:
            return
        owner = self._tabs.setdefault(session_hash, person_id)
        self._tabs.move_to_end(session_hash)
        while len(self._tabs) > REMEMBERED_TABS:
            self._tabs.popitem(last=False)
        if owner != person_id:
            raise Denied("This page was opened by somebody else. Reload it.", "foreign_tab")


class GuardedBlocks(gr.Blocks):
    """Blocks in which no event runs without a person who may."""

    def __init__(self, guard: Guard, role: str, **settings: Any):
        self.guard = guard
        self.role = role
        super().__init__(**settings)

    async def process_api(  # the one way to every handler: queue, /run, /call, load, timer, render, generator steps
        self,
        block_fn: Any,
        inputs: list[Any],
        state: Any = None,
        request: Any = None,
        iterator: Any = None,
        session_hash: str | None = None,
        *rest: Any,
        **more: Any,
    ) -> dict[str, Any]:
        event = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        asked = request if isinstance(request, list) else [request]  # a batch carries one request per item
        first = asked[0] if asked else None
        try:
            admitted = [
                self.guard.admit(one, self.role, getattr(event.fn, "needs", None), session_hash)
                for one in asked or [None]
            ]
            with self.guard.acting(admitted[0]):
                return await super().process_api(
                    block_fn, inputs, state, request, iterator, session_hash, *rest, **more
                )
        except PROBLEMS as error:
            raise self.guard.shown(error, first) from error
