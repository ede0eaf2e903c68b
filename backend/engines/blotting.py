"""Keeps a key out of what a remote server says, should it say it: answers are shown to people who may not see keys, and kept."""

from __future__ import annotations

from dataclasses import replace

from .answers import Answer

BLOT = "[key]"
SHORTEST = 16  # letters of a key in an answer: shorter ones are the "none" and "EMPTY" of servers without keys, and words; our choice


def blotted(text: str, key: str) -> str:
    """The text without the key."""
    return text.replace(key, BLOT) if key else text


def said_without(text: str, key: str) -> str:
    """A text of an answer that can be shown and stored: whole characters, and no key."""
    return blotted(sound(text), key if len(key) >= SHORTEST else "")


def answer_without(answer: Answer, key: str) -> Answer:
    """The same of every text of an answer."""
    said = (answer.text, answer.model, answer.fingerprint, answer.finish_reason)
    text, model, fingerprint, reason = (said_without(one, key) for one in said)
    logps = tuple((said_without(token, key), logp) for token, logp in answer.token_logps)
    if len(key) >= SHORTEST and key in "".join(token for token, _ in logps):
        logps = ()  # it stands there in parts
    return replace(answer, text=text, model=model, fingerprint=fingerprint, finish_reason=reason, token_logps=logps)


def sound(text: str) -> str:
    """Without halves of characters, which JSON can hold and nothing else: two that belong together are one, others are none."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Held:
    """A stream's text as it can be shown: what may be the beginning of the key waits for what comes next."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= SHORTEST else ""
        self._waiting = ""

    def shown(self, text: str) -> str:
        self._waiting = blotted(self._waiting + text, self._key)
        most = min(len(self._key) - 1, len(self._waiting))
        begun = next((size for size in range(most, 0, -1) if self._waiting.endswith(self._key[:size])), 0)
        if not begun and self._waiting and "\ud800" <= self._waiting[-1] < "\udc00":
            begun = 1  # half a character
        ready, self._waiting = self._waiting[: len(self._waiting) - begun], self._waiting[len(self._waiting) - begun :]
        return sound(ready)

    def rest(self) -> str:
        ready, self._waiting = self._waiting, ""
        return sound(ready)
