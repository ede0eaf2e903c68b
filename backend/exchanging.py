"""Exchanging: taking in preference data and plain texts from elsewhere. Imported judgements belong to a person named after
their source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from backend import access
from backend.exchange import hh_rlhf, judged, texts
from backend.exchange.hh_rlhf import Parsed
from backend.exchange.reading import FileProblem, Refusal
from backend.exchange.texts import Texts
from backend.problem import Problem
from backend.prompts.digest import digest_of, split_of
from feedback_db import Store, audit, documents, prompts
from feedback_db.types import Document, Person, Project

READERS: dict[str, Callable[[Path], Parsed | Texts]] = {
    "hh-rlhf": hh_rlhf.parse_file,
    "text": texts.parse_paragraphs,
    "text-jsonl": texts.parse_jsonl,
}
FORMATS = tuple(READERS)
LABEL_FORM: dict[str, Any] = {"kind": "pair", "steps": 4, "tie": True, "both_bad": True, "rationale": "optional"}


class ImportProblem(Problem):
    """A file, a format or a project that cannot be used; nothing was imported."""


class ImportReport(NamedTuple):
    """What became of a file: rows = taken + refused + duplicates."""

    project_id: int
    source: str
    rows: int
    taken: int
    duplicates: int  # of another row of the file, or of what was imported before
    refused: tuple[Refusal, ...]


def import_file(store: Store, person: Person, path: Path | str, *, format: str, project: str) -> ImportReport:
    """Read a file and add what is new in it to a project, which is made when it does not exist.

    One transaction: after an interruption nothing of the file is there, and importing a file again adds nothing.
    """
    access.require(person, "import")
    path = Path(path)
    parsed = _read(path, format)
    name = project.strip()
    if not name:
        raise ImportProblem("The project needs a name.", "project_nameless")
    with store.write():
        project_id = _id(_project(store, name))
        if isinstance(parsed, Texts):
            taken = sum(_keep(store, project_id, path.name, found.text) for found in parsed.texts)
        else:
            target = judged.target(store, project_id, path.name)
            taken = sum(
                judged.add_pair(store, target, pair.messages, pair.chosen, pair.rejected) for pair in parsed.pairs
            )
        report = ImportReport(
            project_id=project_id,
            source=path.name,
            rows=parsed.rows,
            taken=taken,
            duplicates=parsed.rows - len(parsed.refused) - taken,
            refused=parsed.refused,
        )
        facts = {"rows": report.rows, "taken": taken, "duplicates": report.duplicates, "refused": len(report.refused)}
        audit.record(store, person, "import_file", "project", project_id, facts)
    return report


def _read(path: Path, format: str) -> Parsed | Texts:
    if format not in READERS:
        raise ImportProblem(
            f'There is no format "{format}". There are: {", ".join(FORMATS)}.',
            "no_format",
            format=format,
            known=", ".join(FORMATS),
        )
    try:
        parsed = READERS[format](path)
    except FileProblem as problem:
        raise ImportProblem(str(problem)) from None
    if not parsed.rows:
        raise ImportProblem(f"{path.name} holds no rows. Check that it is the right file.", "no_rows", file=path.name)
    return parsed


def _project(store: Store, name: str) -> Project:
    found = prompts.project_named(store, name)
    if found is not None and found.archived_at is not None:
        raise ImportProblem(f"The project {name} is closed. Choose another name.", "project_closed", name=name)
    return found or store.add(Project(name=name, label_form=LABEL_FORM))


def _keep(store: Store, project_id: int, source: str, text: str) -> bool:
    """Add a text; False when this project has it already."""
    digest = digest_of({"text": text})
    document = Document(project_id=project_id, text=text, source=source, split=split_of(digest), digest=digest)
    return documents.keep(store, document)


def _id(record: Any) -> int:
    assert record.id is not None
    return int(record.id)
