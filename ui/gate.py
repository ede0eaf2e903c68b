"""What every request passes before FastAPI and Gradio see it: host, origin, size, session, role; and headers on every reply."""

from __future__ import annotations

import gzip
import logging
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cache, lru_cache, partial
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from backend import signing_in
from backend.access import has_role
from feedback_db.people import Session
from feedback_db.types import Person
from ui.context import Ui
from ui.shell import Frame, Shell
from ui.text import choose_language

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("whetstone.web")

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
BODY_LIMIT, UPLOAD_LIMIT = 2_000_000, 50_000_000
OPEN = re.compile(
    r"^(/login|/healthz|/favicon\.ico|/static/.*|/invite/[^/]*|/v1/prompts/.+/[^/]+|/(label|studio|admin)/(assets/.*|static/.*|theme\.css|manifest\.json))$"
)
CLOSED = re.compile(  # what Gradio offers and nobody here needs
    r"^/(label|studio|admin)/(gradio_api/)?"
    r"(token|proxy=|vibe|undo-vibe|run-history|runs|dev/|monitoring|component_server|deep_link|custom_component|profiling|"
    r"login|logout|process_recording|svelte|api_info|openapi\.json|info)"
)
HELD_OPEN = re.compile(r"/gradio_api/(queue/data|heartbeat/)")
JOIN = re.compile(r"/gradio_api/(queue/join|run/|call/|api/)")
UPLOAD = re.compile(r"^/(label|studio|admin)/gradio_api/upload$")
KEEP = re.compile(r"^(/static/|/(label|studio|admin)/(assets|static)/)")
HELD_OPEN_MOST, JOINS_PER_MINUTE = 24, 600

POLICY = "img-src 'self' data: blob:; font-src 'self' data:; frame-src 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " + POLICY
)
AREA_POLICY = (  # Gradio builds pages with inline scripts; gr.HTML compiles its template with eval
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'self'; " + POLICY
)


class Asked(NamedTuple):
    """One request, as far as the gate needs it."""

    path: str
    method: str
    headers: dict[str, str]
    cookies: dict[str, str]
    frame: Frame
    ip: str

    @property
    def wants_page(self) -> bool:
        return self.method in ("GET", "HEAD") and "text/html" in self.headers.get("accept", "")


class Refused(Exception):
    """The gate's no: a status and a text key."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


class RateLimit:
    """At most ``most`` acts per person in any ``seconds``."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float]):
        self.most, self.seconds, self.clock = most, seconds, clock
        self.acts: dict[int, deque[float]] = {}

    def wait_seconds(self, person_id: int) -> int:
        """0 when the act may go ahead (it is then counted), else how long to wait."""
        now = self.clock()
        acts = self.acts.setdefault(person_id, deque())
        while acts and acts[0] <= now - self.seconds:
            acts.popleft()
        if len(acts) >= self.most:
            return max(1, int(acts[0] + self.seconds - now) + 1)
        acts.append(now)
        return 0


class Gate:
    """Pure ASGI: it counts bytes before anybody parses them, and leaves event streams unbuffered."""

    def __init__(
        self,
        app: Any,
        *,
        routes: list[Any],
        ui: Ui,
        shell: Shell,
        areas: dict[str, str],
        pages: list[str],
        clock: Callable[[], float],
    ):
        self.app = app
        self.routes = routes  # all that stands behind the gate, for whoever wants to see that it is guarded
        self.ui, self.shell, self.areas, self.pages = ui, shell, areas, pages
        self.secure = ui.settings.behind_proxy
        self.cookie_name = cookie_name(self.secure)
        self.hosts = set(ui.settings.allowed_hosts) | (
            set(LOOPBACK) if is_loopback(ui.settings.host) else {ui.settings.host}
        )
        self.held_open: Counter[int] = Counter()
        self.joins = RateLimit(JOINS_PER_MINUTE, 60, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        asked = self._read(scope)
        reply = _Reply(self, asked, scope, send)
        try:
            self._check_host(asked)
            self._check_origin(asked)
            limit = UPLOAD_LIMIT if UPLOAD.match(asked.path) else BODY_LIMIT
            self._check_length(asked, limit)
            if CLOSED.match(asked.path):
                raise Refused(404, self.ui.text("gate.not_found", asked.frame.lang))
            person = await self._person(asked)
            scope["person"], scope["ip"], scope["frame"] = person, asked.ip, asked.frame
            reply.person = person
            if not OPEN.match(asked.path):
                if person is None:
                    await self._ask_to_sign_in(asked, reply)
                    return
                self._check_role(asked, person)
                if await self._straighten(asked, reply):
                    return
            await self._pass_on(asked, person, scope, _Counted(receive, reply, limit), reply)
        except Refused as refused:
            await reply.refuse(refused)
        except Exception:
            log.exception("%s %s failed", asked.method, KEY_IN_PATH.sub("/invite/…", asked.path))
            await reply.refuse(Refused(500, self.ui.text("gate.wrong", asked.frame.lang)))

    # ---- the checks, in their order

    def _read(self, scope: Scope) -> Asked:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        ip = scope["client"][0] if scope.get("client") else ""
        forwarded = headers.get("x-forwarded-for", "")
        scope["headers"] = [
            pair for pair in scope["headers"] if not pair[0].lower().startswith((b"x-forwarded", b"forwarded"))
        ]
        if self.secure:  # the proxy in front speaks https; it appends the address it saw
            ip = forwarded.rsplit(",", 1)[-1].strip() or ip
            scope["scheme"] = "https"
            scope["headers"] = [*scope["headers"], (b"x-forwarded-proto", b"https")]
        cookies = _cookies(headers.get("cookie", ""))
        lang = choose_language(cookies.get("wh_lang"), headers.get("accept-language", ""))
        theme = cookies.get("wh_theme", "")
        frame = Frame(lang, theme if theme in ("dark", "light") else "", scope["path"])
        return Asked(scope["path"], scope["method"], headers, cookies, frame, ip)

    def _check_host(self, asked: Asked) -> None:
        host = asked.headers.get("host", "").lower()
        if host not in self.hosts and _without_port(host) not in self.hosts:
            raise Refused(421, self.ui.text("gate.host", asked.frame.lang))

    def _check_origin(self, asked: Asked) -> None:
        origin = asked.headers.get("origin")
        ours = f"{'https' if self.secure else 'http'}://{asked.headers.get('host', '').lower()}"
        if origin is not None and origin.lower() != ours:
            raise Refused(403, self.ui.text("gate.other_site", asked.frame.lang))
        site = asked.headers.get("sec-fetch-site", "none")
        if asked.method not in ("GET", "HEAD", "OPTIONS") and site not in ("same-origin", "none"):
            raise Refused(403, self.ui.text("gate.other_site", asked.frame.lang))

    def _check_length(self, asked: Asked, limit: int) -> None:
        length = asked.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            raise self.too_large(asked, limit)

    def too_large(self, asked: Asked, limit: int) -> Refused:
        return Refused(413, self.ui.text("gate.too_large", asked.frame.lang, most=limit // 1_000_000))

    async def _person(self, asked: Asked) -> Person | None:
        token = asked.cookies.get(self.cookie_name)
        found = signing_in.session(self.ui.store, token)
        if found is None or token is None:
            return None
        if signing_in.is_due(self.ui.store, found):  # nobody waits for it: it moves a limit of hours
            self.ui.store.hand_over(partial(self._stay, token, found), _nobody_waits)
        return found.person

    def _stay(self, token: str, found: Session) -> None:
        try:
            signing_in.stay(self.ui.store, token, found)
        except Exception:
            log.exception("The idle limit of a session could not be moved")
            raise

    async def _ask_to_sign_in(self, asked: Asked, reply: _Reply) -> None:
        if not asked.wants_page:
            raise Refused(401, self.ui.text("problem.signed_out", asked.frame.lang))
        if asked.headers.get("sec-fetch-site") == "cross-site" and self.cookie_name not in asked.cookies:
            await reply.html(200, self.shell.again(asked.frame, asked.path))
            return
        target = f"/login?next={quote(asked.path)}" if asked.path in self.pages else "/login"
        await reply.redirect(303, target)

    def _check_role(self, asked: Asked, person: Person) -> None:
        needed = next((role for prefix, role in self.areas.items() if _is_under(asked.path, prefix)), None)
        if needed is not None and not has_role(person, needed):
            lang = asked.frame.lang
            roles = {"needed": self.ui.text(f"role.{needed}", lang), "role": self.ui.text(f"role.{person.role}", lang)}
            raise Refused(403, self.ui.text("gate.wrong_role", lang, **roles))

    async def _straighten(self, asked: Asked, reply: _Reply) -> bool:
        """Gradio loses the area when an address ends in a slash too many or too few."""
        if asked.method not in ("GET", "HEAD") or asked.path in self.pages:
            return False
        other = asked.path.rstrip("/") if asked.path.endswith("/") else asked.path + "/"
        if (
            other not in self.pages and asked.path.rstrip("/") in self.areas
        ):  # an area without a page of its own: its first
            other = next((path for path in self.pages if _is_under(path, asked.path.rstrip("/"))), "")
        if other in self.pages:
            await reply.redirect(308, other)
            return True
        return False

    async def _pass_on(
        self, asked: Asked, person: Person | None, scope: Scope, receive: _Counted, reply: _Reply
    ) -> None:
        if person is None or person.id is None:
            await self.app(scope, receive, reply)
            return
        if JOIN.search(asked.path) and (wait := self.joins.wait_seconds(person.id)):
            raise Refused(429, self.ui.text("gate.too_often", asked.frame.lang, wait=wait), wait)
        if not HELD_OPEN.search(asked.path):
            await self.app(scope, receive, reply)
            return
        if self.held_open[person.id] >= HELD_OPEN_MOST:
            raise Refused(429, self.ui.text("gate.too_many_pages", asked.frame.lang), 10)
        self.held_open[person.id] += 1
        try:
            await self.app(scope, receive, reply)
        finally:
            self.held_open[person.id] -= 1


class _Counted:
    """``receive`` that stops a body above the limit, whatever its Content-Length said."""

    def __init__(self, receive: Receive, reply: _Reply, limit: int):
        self.receive, self.reply, self.limit, self.seen = receive, reply, limit, 0

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self.receive()
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            if self.seen > self.limit:
                self.reply.too_large = True  # whatever the app makes of the error, the browser gets 413
                raise self.reply.gate.too_large(self.reply.asked, self.limit)
        return message


class _Reply:
    """``send`` that adds headers, puts the frame into pages, and can refuse."""

    def __init__(self, gate: Gate, asked: Asked, scope: Scope, send: Send):
        self.gate, self.asked, self.send = gate, asked, send
        self.in_area = any(_is_under(asked.path, prefix) for prefix in gate.areas)
        self.person: Person | None = None
        self.too_large = False
        self.started = False
        self.held: MutableMapping[str, Any] | None = None
        self.body = bytearray()

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if self.too_large and not self.started:
            raise self.gate.too_large(self.asked, BODY_LIMIT)
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message["headers"]]
            kind = dict(headers).get(b"content-type", b"")
            if self.in_area and kind.startswith(b"text/html") and self.asked.method != "HEAD":
                self.held = {**message, "headers": headers}  # the frame goes in when the whole page is here
                return
            await self._start({**message, "headers": headers})
            return
        if self.held is None:
            await self.send(message)
            return
        self.body += message.get("body", b"")
        if not message.get("more_body", False):
            page = self._framed(self.body.decode("utf-8", "replace")).encode()
            kept = [pair for pair in self.held["headers"] if pair[0] != b"content-length"]
            if "gzip" in self.asked.headers.get("accept-encoding", ""):  # Gradio leaves its pages uncompressed
                page = gzip.compress(page, 5)
                kept += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
            await self._start({**self.held, "headers": [*kept, (b"content-length", str(len(page)).encode())]})
            await self.send({"type": "http.response.body", "body": page})

    def _framed(self, page: str) -> str:
        shell, frame = self.gate.shell, self.asked.frame
        page = re.sub(r"<head[^>]*>", lambda found: found[0] + shell.head(frame), page, count=1)
        return re.sub(r"<body[^>]*>", lambda found: found[0] + shell.bar(frame, self.person), page, count=1)

    async def _start(self, message: MutableMapping[str, Any]) -> None:
        self.started = True
        ours = self._headers(message["status"])
        kept = [pair for pair in message["headers"] if pair[0] not in ours]
        await self.send({**message, "headers": [*kept, *ours.items()]})

    def _headers(self, status: int) -> Mapping[bytes, bytes]:
        keep = status == 200 and KEEP.match(self.asked.path) is not None
        return _our_headers(self.in_area, keep, self.gate.secure)

    # ---- replies of the gate itself

    async def refuse(self, refused: Refused) -> None:
        if self.started:  # too late to say no: end the connection
            raise ConnectionAbortedError(refused.sentence)
        retry = [(b"retry-after", str(refused.retry_after).encode())] if refused.retry_after else []
        if self.asked.wants_page:
            page = self.gate.shell.message(self.asked.frame, str(refused.status), refused.sentence, self.person)
            await self._answer(refused.status, b"text/html; charset=utf-8", page.encode(), retry)
            return
        error = {"error": refused.sentence, "detail": refused.sentence}
        await self._answer(refused.status, b"application/json", orjson.dumps(error), retry)

    async def html(self, status: int, page: str) -> None:
        await self._answer(status, b"text/html; charset=utf-8", page.encode(), [])

    async def redirect(self, status: int, path: str) -> None:
        await self._answer(
            status, b"text/plain; charset=utf-8", b"", [(b"location", path.encode("latin-1", "replace"))]
        )

    async def _answer(self, status: int, kind: bytes, body: bytes, more: list[tuple[bytes, bytes]]) -> None:
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
        await self._start({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"" if self.asked.method == "HEAD" else body})


KEY_IN_PATH = re.compile(r"/invite/.*")


@cache
def _our_headers(in_area: bool, keep: bool, secure: bool) -> Mapping[bytes, bytes]:
    """What every reply carries; whoever gets it does not change it."""
    return {
        b"content-security-policy": (AREA_POLICY if in_area else STRICT_POLICY).encode(),
        b"x-content-type-options": b"nosniff",
        b"x-frame-options": b"DENY",
        b"referrer-policy": b"same-origin",
        b"cross-origin-opener-policy": b"same-origin",
        b"cross-origin-resource-policy": b"same-origin",
        b"cache-control": b"public, max-age=31536000, immutable" if keep else b"no-store",
        **({b"strict-transport-security": b"max-age=31536000"} if secure else {}),
    }


def _nobody_waits() -> None:
    """What is called when the outcome of a hand-over is known and nobody asked for it."""


def cookie_name(secure: bool) -> str:
    return "__Host-whetstone" if secure else "whetstone"  # browsers take the prefix over https only


def is_loopback(host: str) -> bool:
    return host in LOOPBACK


def _cookies(header: str) -> dict[str, str]:
    """The first value of each cookie; a broken one loses only itself."""
    found: dict[str, str] = {}
    for part in header.split(";"):
        if '"' not in part:  # nearly all; SimpleCookie takes longer than a query
            name, equals, value = part.strip().partition("=")
            if equals:
                found.setdefault(name.rstrip(), value.lstrip())
            continue
        try:
            for name, morsel in SimpleCookie(part.strip()).items():
                found.setdefault(name, morsel.value)
        except CookieError:
            continue
    return found


@lru_cache(maxsize=64)
def _without_port(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "") if re.fullmatch(r"[\w.\-\[\]:]+", host) else ""


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
