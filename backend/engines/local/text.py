"""From token ids to text as it grows: never half a character, never part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from transformers import PreTrainedTokenizerFast

HALF_CHARACTER = "�"
CONTEXT_TOKENS = 6
SPELT = (
    1 << 16
)  # tokens whose bytes are known without asking the tokenizer again, which takes ten microseconds; our choice


class TextStream:
    """The text of one answer. Tokens go in one at a time; text comes out once it can no longer change.

    A token may hold only some bytes of a character, so text that ends in U+FFFD is kept back until the character is
    whole. The last tokens of the prompt are decoded along, because some tokenizers write a space only between words.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._decoded = decoder_of(tokenizer)
        self._stop = stop
        self._window = list(prompt[-CONTEXT_TOKENS:])
        self._done = self._decode(self._window)
        if self._done.endswith(HALF_CHARACTER):
            self._window, self._done = [], ""
        self._given_tokens = len(self._window)
        self._held = ""
        self.has_stopped = False

    def add(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        if len(text) <= len(self._done) or text.endswith(HALF_CHARACTER):
            return ""
        new = text[len(self._done) :]
        self._window = self._window[self._given_tokens :]
        self._given_tokens = len(self._window)
        self._done = self._decode(self._window)
        return self._release(new)

    def add_later(self, token: int) -> None:
        """For an answer nobody watches growing: decoded once, in finish()."""
        self._window.append(token)

    def finish(self) -> str:
        """What was kept back. Bytes that never became a character are left out."""
        new = self._decode(self._window)[len(self._done) :].rstrip(HALF_CHARACTER)
        if self.has_stopped:
            return ""
        text = self._release(new)
        rest, self._held = self._held, ""
        return text if self.has_stopped else text + rest

    def _decode(self, tokens: list[int]) -> str:
        return self._decoded(tokens) if tokens else ""

    def _release(self, new: str) -> str:
        if not self._stop:
            return new
        text = self._held + new
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:  # the first to be complete, so that it does not matter how the text is cut into tokens
            self.has_stopped, self._held = True, ""
            return text[: min(found)[1]]
        kept = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def decoder_of(tokenizer: Any) -> Callable[[list[int]], str]:
    """Tokens as text, without those that stand for no text and with all spaces. Where the tokenizer adds nothing to the library beneath
    it, that is asked, which takes a quarter of the time for a few tokens."""
    own, plain = type(tokenizer), PreTrainedTokenizerFast
    if isinstance(tokenizer, plain) and own.decode is plain.decode and own._decode is plain._decode:
        library = tokenizer.backend_tokenizer
        return lambda tokens: library.decode(tokens, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text could be the beginning of the stop string."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


@lru_cache(maxsize=SPELT)
def token_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes one token stands for, also where they are only a part of a character."""
    text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if HALF_CHARACTER not in text:
        return text.encode()
    name = tokenizer.convert_ids_to_tokens(token)
    if name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:-1], 16)])
    known = _bytes_of_letters()
    return bytes(known[letter] for letter in name) if all(letter in known for letter in name) else text.encode()


def token_text(tokenizer: Any, token: int) -> str:
    """A token for people; half a character is written as OpenAI does: bytes:\\xe4\\xb8."""
    return _told(token_bytes(tokenizer, token))


@lru_cache(maxsize=SPELT)
def _told(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _bytes_of_letters() -> dict[str, int]:
    """The letters byte-level BPE writes for bytes (GPT-2): printable bytes as themselves, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + at): byte for at, byte in enumerate(others)}
