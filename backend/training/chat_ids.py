"""Conversations as token ids. What a message says stays text, even where it spells a control token of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

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


def chat_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
    """A conversation in the model's chat template.

    Where no message spells a control token, the ids of the whole text; else the ids of what the template writes, and between
    them those of the messages as data. Raises ControlTokens where the template writes a message otherwise than as it is.
    """

    def written(contents: Sequence[str]) -> str:
        filled = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
        return str(tokenizer.apply_chat_template(filled, tokenize=False, add_generation_prompt=add_generation_prompt))

    contents = [message["content"] for message in messages]
    text = written(contents)
    found = next((token for content in contents if (token := spelt(tokenizer, content))), None)
    if found is None:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    marks = {MARK.format(place): content for place, content in enumerate(contents)}
    pieces = re.split(f"({'|'.join(map(re.escape, marks))})", written(list(marks)))
    if "".join(marks.get(piece, piece) for piece in pieces) != text:
        raise ControlTokens(found)
    ids: list[int] = []
    for piece in pieces:
        if piece in marks:
            ids += text_ids(tokenizer, marks[piece])
        elif piece:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids
