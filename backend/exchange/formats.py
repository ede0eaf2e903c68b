"""Which format a file has, by its name and its first look, and who reads it."""

from __future__ import annotations

import re
from collections.abc import Callable

from backend.exchange import chainforge, lm_eval, openai_chat, promptfoo, promptfoo_results, promptsource, prompty
from backend.exchange.plan import BadFile, Plan
from backend.exchange.tree import decoded
from backend.exchange.upload import Upload

READERS: dict[str, Callable[[Upload], Plan]] = {
    "promptfoo": promptfoo.parse,
    "promptfoo-csv": promptfoo.parse_csv,
    "promptfoo-results": promptfoo_results.parse,
    "chainforge": chainforge.parse,
    "promptsource": promptsource.parse,
    "lm-eval": lm_eval.parse,
    "prompty": prompty.parse,
    "openai-chat": openai_chat.parse,
}
FORMATS = tuple(READERS)
LOOK = 4_000_000  # characters that are looked at to tell formats apart


def parse(upload: Upload, format: str = "") -> Plan:
    """The plan of a file; without a format it is told by ``detected``. Raises BadFile."""
    name = format or detected(upload)
    if name not in READERS:
        raise BadFile("no_such_format", format=name, formats=", ".join(FORMATS))
    return READERS[name](upload)


def detected(upload: Upload) -> str:
    """The name of the format. Raises BadFile where it cannot be told."""
    name = upload.main.lower()
    if name.endswith(".prompty"):
        return "prompty"
    if name.endswith((".cforge", "flow.json")):
        return "chainforge"
    if name.endswith(".csv"):
        return "promptfoo-csv"
    text = decoded(upload.data, upload.main)[:LOOK]
    if not text.strip():
        raise BadFile("file_empty", file=upload.main)
    if name.endswith(".jsonl"):
        first = next(line for line in text.split("\n") if line.strip())
        return "promptfoo" if re.search(r'"(vars|assert)"\s*:', first) else "openai-chat"
    if name.endswith(".json"):
        if re.search(r'"nodes"\s*:', text) and re.search(r'"edges"\s*:', text):
            return "chainforge"
        return "promptfoo-results" if re.search(r'"results"\s*:\s*\{', text) else "promptfoo"
    if name.endswith((".yaml", ".yml")):
        if "!Template" in text and re.search(r"(?m)^templates\s*:", text):
            return "promptsource"
        return "lm-eval" if re.search(r"(?m)^(task|doc_to_text|group|include)\s*:", text) else "promptfoo"
    raise BadFile("unknown_file", file=upload.main, formats=", ".join(FORMATS))
