"""What stands around every page: head, top bar, theme, and the pages outside Gradio (sign-in, invite, refusals)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backend.access import has_role
from feedback_db.types import Person
from ui.text import LANGUAGE_NAMES, LANGUAGES, Text

if TYPE_CHECKING:
    import gradio

STATIC = Path(__file__).parent / "static"
FONTS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Microsoft YaHei",
    "sans-serif",
)
CODE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "Liberation Mono", "monospace")


class Link(NamedTuple):
    """A page as the top bar shows it; ``role`` is the least that may open it."""

    path: str
    key: str
    role: str


class Frame(NamedTuple):
    """What the top bar of one reply depends on."""

    lang: str
    theme: str  # "dark", "light", or "" to follow the system
    path: str


def static_version() -> str:
    """Part of every static address, so that browsers may keep the files for ever."""
    digest = hashlib.sha256()
    for file in sorted(STATIC.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def theme() -> gradio.themes.Base:
    """System fonts (no request leaves the machine) and colours that pass WCAG AA in light and dark."""
    import gradio

    return gradio.themes.Base(
        primary_hue="emerald", neutral_hue="slate", font=list(FONTS), font_mono=list(CODE_FONTS), radius_size="md"
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_400",
    )


class Shell:
    """Draws the frame in the language of the reply."""

    def __init__(self, text: Text, links: list[Link], reports: Callable[[Person], int]):
        """``reports`` counts those that wait for this person, who reviews; the bar shows it on the page where they do."""
        self.text = text
        self.links = links
        self.reports = reports
        self.base = f"/static/{static_version()}"
        self.strings = f"/static/text-{text.version()}"

    def head(self, frame: Frame) -> str:
        """Goes first into <head>: language and theme must be known before Gradio starts."""
        sheet = {"label": "label.css", "studio": "views.css", "admin": "views.css"}.get(frame.path.split("/")[1], "")
        desk = f'<link rel="stylesheet" href="{self.base}/{sheet}">' if sheet else ""
        return (
            f'<script src="{self.base}/boot.js" data-lang="{frame.lang}" data-theme="{frame.theme}"'
            f' data-text="{self.strings}/{frame.lang}.js"></script>'
            f'<link rel="stylesheet" href="{self.base}/shell.css">{desk}<link rel="icon" href="/favicon.ico" type="image/svg+xml">'
        )

    def bar(self, frame: Frame, person: Person | None) -> str:
        """The top bar. It is in the reply, not built by a script: it is there before anything else has loaded."""
        say = self._in(frame.lang)
        mark = (
            f'<a class="wh-mark" href="/" aria-label="{say("shell.name")}">{MARK}<span>{say("shell.name")}</span></a>'
        )
        who = ""
        links = ""
        if person is not None:
            items = "".join(
                f'<a href="{escape(link.path)}"{CURRENT if link.path == frame.path else ""}>{say(link.key)}'
                f"{self._badge(say, person) if link.key == REVIEWED else ''}</a>"
                for link in self.links
                if has_role(person, link.role)
            )
            links = f'<nav aria-label="{say("shell.pages")}">{items}</nav>'
            name = person.display_name or person.name or ""
            who = (
                f'<span class="wh-who"><span class="wh-face" aria-hidden="true">{escape(name[:2].upper())}</span>'
                f'<span class="wh-name">{escape(name)} · {say("role." + person.role)}</span></span>'
                f'<form method="post" action="/logout"><button type="submit">{say("shell.sign_out")}</button></form>'
            )
        other = next(lang for lang in LANGUAGES if lang != frame.lang)
        return (
            f'<header class="wh-bar">{mark}{links}<span class="wh-space"></span>'
            f'<button type="button" data-lang-to="{other}" lang="{other}" aria-label="{say("shell.language")}: '
            f'{LANGUAGE_NAMES[other]}">{LANGUAGE_NAMES[other]}</button>'
            f'<button type="button" data-theme-switch data-dark="{say("shell.dark")}" data-light="{say("shell.light")}">'
            f"{say('shell.dark')}</button>{who}</header>"
        )

    def _badge(self, say: _Say, person: Person) -> str:
        n = self.reports(person)
        return f' <b class="wh-badge" title="{say("shell.reports", n=str(n))}">{n}</b>' if n else ""

    def page(self, frame: Frame, title: str, body: str, person: Person | None = None) -> str:
        """A page outside Gradio. ``body`` is HTML made here, with every value escaped."""
        return (
            f'<!doctype html><html lang="{frame.lang}"><head><meta charset="utf-8">{self.head(frame)}'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)} · Whetstone</title>'
            f'</head><body class="wh-plain">{self.bar(frame, person)}<main>{body}</main></body></html>'
        )

    def sign_in(self, frame: Frame, name: str = "", error: str = "", next_path: str = "") -> str:
        say = self._in(frame.lang)
        body = (
            f'<form class="wh-card" method="post" action="/login"><h1>{say("login.title")}</h1>{_alert(error)}'
            f'<input type="hidden" name="next" value="{escape(next_path)}">'
            f'<label>{say("login.name")}<input name="name" autocomplete="username" required autofocus '
            f'maxlength="80" value="{escape(name)}"></label>'
            f'<label>{say("login.password")}<input name="password" type="password" autocomplete="current-password" required '
            f'maxlength="256"></label><button type="submit" class="wh-primary">{say("login.button")}</button>'
            f"<p>{say('login.no_account')}</p></form>"
        )
        return self.page(frame, self.text("login.title", frame.lang), body)

    def invite(self, frame: Frame, token: str, person: Person, error: str = "", *, offer_without: bool = False) -> str:
        say = self._in(frame.lang)
        name = person.name or ""
        without = (
            f'<form class="wh-card wh-second" method="post" action="/invite/{escape(token)}"><p>{say("invite.without_hint")}</p>'
            f'<button type="submit" name="without" value="1">{say("invite.without")}</button></form>'
            if offer_without
            else ""
        )
        body = (
            f'<form class="wh-card" method="post" action="/invite/{escape(token)}"><h1>{say("invite.title", name=name)}</h1>'
            f"<p>{say('invite.text', name=name)}</p>{_alert(error)}"
            f'<input type="hidden" name="name" autocomplete="username" value="{escape(name)}">'
            f'<label>{say("invite.password")}<input name="password" type="password" autocomplete="new-password" required '
            f'minlength="15" maxlength="256" aria-describedby="hint" autofocus></label><p id="hint">{say("invite.hint")}</p>'
            f'<label>{say("invite.again")}<input name="again" type="password" autocomplete="new-password" required '
            f'maxlength="256"></label><button type="submit" class="wh-primary">{say("invite.button")}</button></form>{without}'
        )
        return self.page(frame, self.text("invite.title", frame.lang, name=name), body)

    def message(self, frame: Frame, title: str, sentence: str, person: Person | None = None) -> str:
        """One sentence and a way on."""
        body = (
            f'<div class="wh-card"><h1>{escape(title)}</h1><p>{escape(sentence)}</p>'
            f'<p><a href="/">{self._in(frame.lang)("gate.home")}</a></p></div>'
        )
        return self.page(frame, title, body, person)

    def again(self, frame: Frame, path: str) -> str:
        """Sends the browser to the same address once more, now as a request from this site.

        A link in a chat arrives without the SameSite=Strict cookie; the second request carries it.
        """
        return f'<!doctype html><html lang="{frame.lang}"><head><meta http-equiv="refresh" content="0;url={escape(path)}"></head></html>'

    def _in(self, lang: str) -> _Say:
        return _Say(self.text, lang)


class _Say(NamedTuple):
    """A string in one language, ready for HTML."""

    text: Text
    lang: str

    def __call__(self, key: str, **values: str) -> str:
        return escape(self.text(key, self.lang, **values))


def _alert(error: str) -> str:
    return f'<p class="wh-error" role="alert">{escape(error)}</p>' if error else ""


REVIEWED = "nav.quality"
CURRENT = ' aria-current="page"'
MARK = (
    '<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><path d="M5 15 21 5l-9 10z" fill="currentColor" '
    'opacity=".75"/><rect x="2" y="15.5" width="20" height="4.5" rx="1.5" fill="currentColor"/></svg>'
)
