"""Conversations as token ids. What a message says stays text, even where it spells a control token of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MARK = "\ue000{}\ue001"  # private signs that stand for a message while the template is read


class ControlTokens(ValueError):
    """A message spells a control token, and the chat template changes messages, so that the text cannot be kept apart."""

    def __init__(self, found: str):
        super().__init__(f"A message contains {found!r}, which this model reads as a control token.")
        self.found = found


def spelt(tokenizer: Any, text: str) -> str | None:
    """The first control token of the tokenizer whose text stands in this one."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    known = [token.content for token in added.values() if token.special] or tokenizer.all_special_tokens
    return next((token for token in known if token and token in text), None)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that is data: what spells a control token is read letter by letter."""
    as_data = {"split_special_tokens": True} if spelt(tokenizer, text) else {}
    return list(tokenizer(text, add_special_tokens=False, **as_data)["input_ids"])


class Part(NamedTuple):
    """A stretch of a conversation as the template writes it."""

    text: str
    is_data: bool  # a message, of which nothing is a control token


def chat_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
    """A conversation in the model's chat template: the ids of its parts. Raises ControlTokens."""
    return part_ids(tokenizer, chat_parts(tokenizer, messages, add_generation_prompt=add_generation_prompt))


def part_ids(tokenizer: Any, parts: Sequence[Part]) -> list[int]:
    ids: list[int] = []
    for part in parts:
        ids += (
            text_ids(tokenizer, part.text)
            if part.is_data
            else tokenizer(part.text, add_special_tokens=False)["input_ids"]
        )
    return ids


def chat_parts(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
) -> list[Part]:
    """A conversation in the model's chat template.

    Where no message spells a control token, the whole text as one part; else what the template writes, and between that the
    messages as data. Raises ControlTokens where the template writes a message otherwise than as it is.
    """

    def written(contents: Sequence[str]) -> str:
        filled = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
        return str(tokenizer.apply_chat_template(filled, tokenize=False, add_generation_prompt=add_generation_prompt))

    contents = [message["content"] for message in messages]
    text = written(contents)
    found = next((token for content in contents if (token := spelt(tokenizer, content))), None)
    if found is None:
        return [Part(text, False)]
    marks = {MARK.format(place): content for place, content in enumerate(contents)}
    pieces = re.split(f"({'|'.join(map(re.escape, marks))})", written(list(marks)))
    if "".join(marks.get(piece, piece) for piece in pieces) != text:
        raise ControlTokens(found)
    return [Part(marks.get(piece, piece), piece in marks) for piece in pieces if piece]
