"""promptfoo's prompts as templates: texts, chats, files of the upload, and what stands around all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from backend.exchange import our_templates, promptfoo_csv
from backend.exchange.chats import as_template
from backend.exchange.plan import NewTemplate, Notes
from backend.exchange.promptfoo_parts import CODE, ELSEWHERE, PROGRAM, shown
from backend.exchange.tree import Read, decoded, read_yaml, table_in, texts
from backend.exchange.tree import given as given_in
from backend.exchange.upload import Upload

WRITTEN = "whetstone_"  # how the variables begin that hold a prompt written out case by case


def prompts_of(
    read: Read, upload: Upload, notes: Notes, around: tuple[str, str], ours: Mapping[str, Any]
) -> list[NewTemplate]:
    """``ours`` has by label what our own export keeps beside a prompt."""
    given = given_in(read.value, "prompts")
    if given is None:
        return []
    if isinstance(given, dict):  # {text or file: label}
        listed: list[Any] = [{"raw": key, "label": texts(label)} for key, label in given.items()]
    else:
        listed = given if isinstance(given, list) else [given]
    found: list[NewTemplate] = []
    for i, one in enumerate(listed):
        line, place = read.line(("prompts", i)), f"prompts[{i + 1}]"
        if isinstance(one, str):
            found += _prompt(one, f"{_stem(upload)} {i + 1}", line, place, upload, notes, around)
        elif isinstance(one, dict) and isinstance(one.get("raw", one.get("id")), str):
            if one.get("config"):
                notes.refused(line, f"{place}.config", "run_setting", shown(one["config"]), name="config")
            label = texts(one.get("label") or "") or f"{_stem(upload)} {i + 1}"
            raw = str(one.get("raw", one.get("id")))
            own = our_templates.restored(ours.get(label), raw, label, notes, line, place)
            found += [own] if own else _prompt(raw, label, line, place, upload, notes, around)
        else:
            notes.refused(line, place, "prompt_form", shown(one))
    return _named_apart(found)


def _prompt(
    text: str, label: str, line: int, place: str, upload: Upload, notes: Notes, around: tuple[str, str]
) -> list[NewTemplate]:
    bare = text.strip()
    if "\n" not in bare and len(bare) < 500:
        if ELSEWHERE.search(bare):
            notes.refused(line, place, "elsewhere", text)
            return []
        if CODE.search(bare):
            inside = upload.named(PROGRAM.sub("", bare))
            notes.refused(line, place, "code", upload.files[inside].decode("utf-8", "replace") if inside else text)
            return []
        inside = upload.named(bare)
        if inside is not None and inside != upload.main:
            return _prompt_file(inside, label, upload, notes, around)
        if bare.startswith("file://"):
            notes.refused(line, place, "file_outside", text)
            return []
    if re.search(r"\{\{ " + WRITTEN + r"\d+_1 \}\}", text):
        notes.refused(line, place, "written_out", text)
        return []
    made = as_template(around[0] + text + around[1], label, notes, line, place)
    return [made] if made else []


def _prompt_file(file: str, label: str, upload: Upload, notes: Notes, around: tuple[str, str]) -> list[NewTemplate]:
    within, data = notes.within(file), upload.files[file]
    stem = PurePosixPath(file).stem if label.startswith(_stem(upload)) else label
    if file.endswith(".csv"):
        parts = [
            (line, text, name or f"{stem} {line - 1}") for line, text, name in promptfoo_csv.prompts_of(data, file)
        ]
    elif file.endswith((".json", ".yaml", ".yml", ".md", ".j2")):
        text = decoded(data, file)
        if file.endswith((".yaml", ".yml")):
            text = texts(read_yaml(data, file).value)
        parts = [(1, text, stem)]
    else:
        parts, line = [], 1
        texts_in = re.split(r"(?m)^---[ \t]*\r?$\n?", decoded(data, file))
        for n, text in enumerate(texts_in, 1):
            if text.strip():
                parts.append((line, text.strip("\r\n"), stem if len(texts_in) == 1 else f"{stem} {n}"))
            line += text.count("\n") + 1
    made = [as_template(around[0] + text + around[1], name, within, line, "prompt") for line, text, name in parts]
    return [one for one in made if one is not None]


def affixes_of(read: Read, defaults: dict[str, Any], notes: Notes) -> tuple[str, str]:
    """What stands before and after every prompt."""
    options = table_in(defaults, "options")
    line = read.line(("defaultTest", "options"))
    for key in sorted(set(options) - {"prefix", "suffix", "disableVarExpansion"}):
        notes.refused(line, f"defaultTest.options.{key}", "test_option", shown(options[key]), name=key)
    before, after = (texts(options.get(key) or "") for key in ("prefix", "suffix"))
    if before or after:
        notes.mapped(line, "defaultTest.options", "affixes")
    return before, after


def _named_apart(templates: list[NewTemplate]) -> list[NewTemplate]:
    """Two prompts of one label are two templates, not two versions of one."""
    seen: dict[str, int] = {}
    apart = []
    for one in templates:
        seen[one.name] = seen.get(one.name, 0) + 1
        apart.append(one if seen[one.name] == 1 else replace(one, name=f"{one.name} ({seen[one.name]})"))
    return apart


def _stem(upload: Upload) -> str:
    return PurePosixPath(upload.main).stem
