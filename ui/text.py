"""Every string people read, in every language. The strings stand in ui/strings, one file per page, languages side by side."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from backend.problem import filled
from ui.strings import STRINGS

if TYPE_CHECKING:
    import gradio

LANGUAGES = ("en", "zh-CN")  # the order of the texts in each pair
LANGUAGE_NAMES = {"en": "English", "zh-CN": "中文"}
BROWSER_PREFIXES = ("label.", "shell.")  # strings that our own scripts show


class Text:
    """``text("key", lang, name=value)`` is a sentence; ``text.label("key")`` is a label that Gradio translates in the browser."""

    def __init__(self, strings: dict[str, tuple[str, ...]] = STRINGS):
        self.strings = strings

    def __call__(self, key: str, lang: str = "en", **values: Any) -> str:
        """The string with its {values} filled in. An unknown key is an error: a test calls for every key in the code."""
        said = self.strings[key][LANGUAGES.index(lang) if lang in LANGUAGES else 0]
        return filled(said, values)

    def label(self, key: str) -> gradio.I18nData:
        """For ``label``, ``value``, ``placeholder`` and ``info`` of components: pages are built once for all languages."""
        from gradio.i18n import I18nData

        if key not in self.strings:
            raise KeyError(key)
        return I18nData(key)

    def i18n(self) -> gradio.I18n:
        """What Gradio needs to show ``label`` in the browser's language."""
        import gradio

        return gradio.I18n(**{lang: self.all(lang) for lang in LANGUAGES})

    def all(self, lang: str) -> dict[str, str]:
        place = LANGUAGES.index(lang)
        return {key: texts[place] for key, texts in self.strings.items()}

    def problem(self, error: Any, lang: str) -> str:
        """An error, or words within one, as a sentence in this language: by its ``code`` when there is a text for it, else its own message.

        A value that has a code itself is said in this language too, and so are a ``line`` or a place, ``at``, of the error, which stand
        before the sentence.
        """
        key = f"problem.{getattr(error, 'code', '')}"
        if key not in self.strings:
            return str(error)
        given = getattr(error, "values", {}).items()
        said = self(key, lang, **{k: self.problem(v, lang) if hasattr(v, "code") else v for k, v in given})
        line, at = getattr(error, "line", None), getattr(error, "at", None)
        if at is not None:
            return self("problem.at", lang, at=self.problem(at, lang), problem=said)
        return said if line is None else self("problem.line", lang, line=line, problem=said)

    def module(self, lang: str) -> str:
        """The strings of our scripts as a JavaScript module."""
        chosen = {key: said for key, said in self.all(lang).items() if key.startswith(BROWSER_PREFIXES)}
        return f"export default {json.dumps(chosen, ensure_ascii=False)};\n"

    def version(self) -> str:
        """Changes when a string of our scripts does, so that browsers may keep them for ever."""
        joined = "".join(self.module(lang) for lang in LANGUAGES)
        return hashlib.sha256(joined.encode()).hexdigest()[:8]


@lru_cache(maxsize=256)
def choose_language(cookie: str | None, accepted: str) -> str:
    """The cookie wh_lang, else the first language of Accept-Language that we have, else English."""
    if cookie in LANGUAGES:
        return cookie
    for part in accepted.split(","):
        wanted = part.split(";")[0].strip().lower()
        for lang in LANGUAGES:
            if wanted and wanted.split("-")[0] == lang.split("-")[0]:
                return lang
    return "en"
