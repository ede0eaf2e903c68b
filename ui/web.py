"""The web app: the gate in front, sign-in pages, the areas with their Gradio pages, the JSON routes of the label page."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

for _name, _value in {  # before gradio is imported: no call home, no summary of past events on every event
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000",
    "GRADIO_SHARE": "False",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ[_name] = _value

import gradio as gr  # noqa: E402

from backend import adjudicating, signing_in  # noqa: E402
from backend.access import has_role  # noqa: E402
from backend.signing_in import SignedIn, SigningInProblem  # noqa: E402
from feedback_db.types import Person  # noqa: E402
from ui.api import label as label_api  # noqa: E402
from ui.api import prompts as prompts_api  # noqa: E402
from ui.context import Ui  # noqa: E402
from ui.gate import Gate, cookie_name, is_loopback  # noqa: E402
from ui.guard import Guard, GuardedBlocks  # noqa: E402
from ui.pages import build, compare, engines, exchange, gallery, label, models, people, quality, suites, train, tune  # noqa: E402
from ui.shell import STATIC, Frame, Link, Shell, theme  # noqa: E402
from ui.text import LANGUAGES, Text  # noqa: E402


class Area(NamedTuple):
    """One mount: its pages, and the least role that may open them. A page cannot exist outside an area, so none lacks a role."""

    role: str
    pages: list[ModuleType]


AREAS: dict[str, Area] = {
    "/label": Area("annotator", [label]),
    "/studio": Area("engineer", [build, gallery, tune, suites, compare, quality, exchange]),
    "/admin": Area("admin", [train, models, engines, people]),
}
HOME = {"annotator": "/label", "engineer": "/studio", "admin": "/admin"}


def create_app(ui: Ui, *, areas: dict[str, Area] = AREAS, clock: Callable[[], float] = time.monotonic) -> Gate:
    """Everything the browser talks to. ``clock`` counts seconds, for the limits on how often one person may ask.

    The gate stands before FastAPI itself, whose own layers cost a judgement as much time as storing it does.
    """
    guard = Guard(ui.store, ui.text, cookie_name(ui.settings.behind_proxy), clock)
    ui = replace(ui, guard=guard)
    shell = Shell(ui.text, page_links(areas), partial(adjudicating.reports_waiting, ui.store))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(
        CORSMiddleware, allow_origins=[]
    )  # its presence switches off Gradio's, which reflects any origin
    _add_own_routes(app, ui, shell)
    prompts_api.add_routes(app, ui, clock)

    def mount_areas() -> None:
        for prefix, area in areas.items():
            if area.pages:
                _mount(app, ui, prefix, area)

    _in_a_loop(mount_areas)
    return Gate(
        label_api.LabelRoutes(app, ui=ui, clock=clock),
        routes=app.routes,
        ui=ui,
        shell=shell,
        areas={prefix: area.role for prefix, area in AREAS.items()},  # closed also where no page is mounted
        pages=[link.path for link in shell.links],
        clock=clock,
    )


def page_links(areas: dict[str, Area] = AREAS) -> list[Link]:
    """The pages as the top bar shows them, in order. A page with an empty PATH stands at the area itself."""
    return [
        Link(f"{prefix}/{page.PATH.strip('/')}", f"nav.{page.NAME}", area.role)
        for prefix, area in areas.items()
        for page in area.pages
    ]


def home(person: Person) -> str:
    """Where somebody starts: the first page of their own area, or of the nearest one that has pages."""
    links = [link.path for link in page_links() if has_role(person, link.role)]
    own = [path for path in links if path.startswith(HOME[person.role] + "/")]
    return (own or links)[0]


def _in_a_loop(build: Callable[[], None]) -> None:
    """Run this while an event loop runs: without one, Gradio makes a loop for each of its locks and never closes them."""

    async def run() -> None:
        build()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run())
    else:
        build()


def _mount(app: FastAPI, ui: Ui, prefix: str, area: Area) -> None:
    blocks = GuardedBlocks(ui.guard, area.role, title="Whetstone", analytics_enabled=False, fill_width=True)
    pages = sorted(area.pages, key=lambda page: bool(page.PATH))  # the one at the area itself first
    with blocks:
        gr.Navbar(visible=False)
        if not pages[0].PATH:
            pages.pop(0).page(ui)
    for page in pages:
        with blocks.route(page.NAME, page.PATH):
            gr.Navbar(visible=False)
            page.page(ui)
    blocks.queue(api_open=False, default_concurrency_limit=8, status_update_rate=5, max_size=200)

    def signed_in(request: Request) -> str | None:
        """Gradio asks again. Not async: some versions never awaited an async one, and let everybody in."""
        person = request.scope.get("person")
        return str(person.id) if person is not None and has_role(person, area.role) else None

    with warnings.catch_warnings():  # says that it switches off what we did not switch on
        warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)
        gr.mount_gradio_app(
            app,
            blocks,
            path=prefix,
            auth_dependency=signed_in,
            run_history=False,
            footer_links=[],
            enable_monitoring=False,
            show_error=False,
            max_file_size="50mb",
            ssr_mode=False,
            i18n=ui.text.i18n(),
            theme=theme(),
        )


def _add_own_routes(app: FastAPI, ui: Ui, shell: Shell) -> None:
    strings = {lang: ui.text.module(lang) for lang in LANGUAGES}
    secure = ui.settings.behind_proxy
    pages = {link.path for link in shell.links}

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        ui.store.value("select 1")
        return PlainTextResponse("ok")

    @app.get("/")
    async def start(request: Request) -> RedirectResponse:
        return RedirectResponse(home(request.scope["person"]), 303)

    @app.get(f"{shell.strings}/{{lang}}.js")
    async def text_module(lang: str) -> Response:
        if lang not in strings:
            return PlainTextResponse("", 404)
        return Response(strings[lang], media_type="text/javascript; charset=utf-8")

    @app.get("/favicon.ico")
    async def favicon() -> Response:
        return Response((STATIC / "favicon.svg").read_bytes(), media_type="image/svg+xml")

    app.mount(shell.base, StaticFiles(directory=STATIC))

    @app.get("/login")
    async def login_page(request: Request, next: str = "") -> Response:
        if request.scope["person"] is not None:
            return RedirectResponse("/", 303)
        return HTMLResponse(shell.sign_in(request.scope["frame"], next_path=next if next in pages else ""))

    @app.post("/login")
    async def login(request: Request) -> Response:
        form = await _form(request)
        name, target = form.get("name", ""), form.get("next", "")
        try:
            signed = await run_in_threadpool(
                signing_in.sign_in, ui.store, name, form.get("password", ""), request.scope["ip"]
            )
        except SigningInProblem as problem:
            frame = request.scope["frame"]
            return _problem(problem, shell.sign_in(frame, name, ui.text.problem(problem, frame.lang), target))
        return _signed_in(signed, target if target in pages else "/", secure)

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        name = cookie_name(secure)
        await run_in_threadpool(signing_in.sign_out, ui.store, request.cookies.get(name))
        reply = RedirectResponse("/login", 303)
        reply.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")
        return reply

    @app.get("/invite/{token}")
    async def invite_page(request: Request, token: str) -> Response:
        return HTMLResponse(_invite_page(ui, shell, request.scope["frame"], token))

    @app.post("/invite/{token}")
    async def invite(request: Request, token: str) -> Response:
        form, frame = await _form(request), request.scope["frame"]
        person = signing_in.invited(ui.store, token)
        without = form.get("without") == "1" and person is not None and _may_skip_password(ui, person)
        try:
            if not without and form.get("password", "") != form.get("again", ""):
                raise SigningInProblem("The two passwords differ. Type both again.", "different_passwords")
            password = None if without else form.get("password", "")
            signed = await run_in_threadpool(signing_in.accept, ui.store, token, password, request.scope["ip"])
        except SigningInProblem as problem:
            return _problem(problem, _invite_page(ui, shell, frame, token, ui.text.problem(problem, frame.lang)))
        return _signed_in(signed, "/", secure)


def _invite_page(ui: Ui, shell: Shell, frame: Frame, token: str, error: str = "") -> str:
    person = signing_in.invited(ui.store, token)
    if person is None:
        return shell.message(frame, ui.text("invite.expired", frame.lang), ui.text("problem.link_used", frame.lang))
    return shell.invite(frame, token, person, error, offer_without=_may_skip_password(ui, person))


def _may_skip_password(ui: Ui, person: Person) -> bool:
    """Only an admin who has none yet, on the machine the server runs on: the link itself came from its terminal."""
    local = is_loopback(ui.settings.host) and not ui.settings.behind_proxy
    return local and person.role == "admin" and person.password_hash is None


async def _form(request: Request) -> dict[str, str]:
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=10))
    except ValueError:
        return {}


def _problem(problem: SigningInProblem, page: str) -> Response:
    wait = {"Retry-After": str(problem.wait_seconds)} if problem.wait_seconds else {}
    return HTMLResponse(page, 429 if problem.wait_seconds else 422, headers=wait)


def _signed_in(signed: SignedIn, target: str, secure: bool) -> Response:
    reply = RedirectResponse(target, 303)
    options: dict[str, Any] = {"path": "/", "secure": secure, "httponly": True, "samesite": "strict"}
    reply.set_cookie(cookie_name(secure), signed.token, max_age=signed.seconds, **options)
    return reply


__all__ = ["AREAS", "Area", "Text", "create_app", "home", "page_links"]
