"""Writes the documents that are made from the code: the command line and the database schema. Run by ``make docs``."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTE = "<!-- Written by make docs; do not edit. -->\n\n"


def command_line() -> str:
    """The help of the app and of each of its verbs."""
    return NOTE + "# The command line\n" + _chapter()


def _chapter(*verbs: str) -> str:
    said = _help(*verbs)
    text = (f"\n## {' '.join(verbs)}\n" if verbs else "") + f"\n```text\n{said.strip()}\n```\n"
    return text + "".join(_chapter(*verbs, below) for below in re.findall(r"^    ([a-z][a-z-]*) ", said, re.MULTILINE))


def schema() -> str:
    """The steps that make the database, with their comments."""
    text = NOTE + "# The database\n\nOne SQLite file. Every step is applied once, in this order.\n"
    for step in sorted((ROOT / "feedback_db" / "schema").glob("*.sql")):
        text += f"\n## {step.stem}\n\n```sql\n{step.read_text(encoding='utf-8').strip()}\n```\n"
    return text


def _help(*verbs: str) -> str:
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
    command = [sys.executable, "app.py", *verbs, "--help"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    (DOCS / "command-line.md").write_text(command_line(), encoding="utf-8")
    (DOCS / "schema.md").write_text(schema(), encoding="utf-8")
