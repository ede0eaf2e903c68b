"""What promptfoo's prompts and tests have in common: how a file is read, what is code, and what lies elsewhere."""

from __future__ import annotations

import re
from typing import Any

from backend.exchange.tree import Plain, Read, decoded, json_value, read_json, read_yaml, texts, typed

CODE = re.compile(
    r"^(exec:|python:|javascript:|ruby:|golang:)|\.(js|cjs|mjs|ts|mts|py|rb|go|sh)(:\w+)?$|^file://.*\.(js|py|ts|rb|go)(:\w+)?$"
)
PROGRAM = re.compile(r"^(exec|python|javascript|ruby|golang):\s*|(?<=\w):\w+$")
ELSEWHERE = re.compile(r"^(https?|langfuse|portkey|helicone|huggingface|s3|gs|az)://|^huggingface:")


def read_any(file: str, data: bytes) -> Read:
    """YAML, JSON or JSON lines, by the file's name."""
    if file.endswith(".json"):
        return read_json(data, file)
    if file.endswith(".jsonl"):
        numbered = [(i, line) for i, line in enumerate(decoded(data, file).split("\n"), 1) if line.strip()]
        value = [json_value(line, file, number) for number, line in numbered]
        return Read(file, value, {(i,): number for i, (number, _) in enumerate(numbered)})
    if file.endswith(".csv"):
        return Read(file, [], {})
    return read_yaml(data, file)


def shown(value: Any) -> str:
    return texts(typed(value)) if isinstance(value, Plain) else texts(value)
