"""Tables and lists as YAML that every parser reads alike: texts are always quoted or in blocks, so that 007 and NO stay texts."""

from __future__ import annotations

import re
from typing import Any

import yaml

_KEY = re.compile(r"[A-Za-z_$][\w.-]*\Z", re.ASCII)
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_BLOCK = re.compile(
    r"[^\s\x00-\x1f\x7f\x85\u2028\u2029\ufeff][^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]*\Z"
)
_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BASE):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    in_block = "\n" in text and _BLOCK.match(text) and not re.search(r"[ \t]\n|[ \t]\Z|\n\n\Z", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if in_block else '"')


def _table(dumper: Any, table: dict[str, Any]) -> Any:
    node = dumper.represent_mapping("tag:yaml.org,2002:map", table.items(), flow_style=False)
    for key, _ in node.value:
        if _KEY.match(key.value) and key.value.lower() not in _WORDS:
            key.style = None
    return node


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _table)


def as_yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1 << 30))
