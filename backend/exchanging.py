"""Exchanging: taking in preference data and plain texts from elsewhere. Imported judgements belong to a person named after
their source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from backend import access
from backend.exchange import hh_rlhf, texts
from backend.exchange.hh_rlhf import Pair, Parsed
from backend.exchange.reading import FileProblem, Refusal
from backend.exchange.texts import Texts
from backend.problem import Problem
from backend.prompts.digest import case_digest, digest_of, messages_digest, sampling_digest, split_of
from feedback_db import Store, audit, comparisons, documents, judgements, people, prompts
from feedback_db.types import (
    Assignment,
    Case,
    Comparison,
    Completion,
    Document,
    Judgement,
    Model,
    Person,
    Project,
    Prompt,
    Sampling,
)

READERS: dict[str, Callable[[Path], Parsed | Texts]] = {
    "hh-rlhf": hh_rlhf.parse_file,
    "text": texts.parse_paragraphs,
    "text-jsonl": texts.parse_jsonl,
}
FORMATS = tuple(READERS)
LABEL_FORM: dict[str, Any] = {"kind": "pair", "steps": 4, "tie": True, "both_bad": True, "rationale": "optional"}
SAMPLING: dict[str, Any] = {"imported": True}  # how the answers were sampled is not known


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


class _Target(NamedTuple):
    """The rows that everything imported from one file hangs on."""

    project_id: int
    person_id: int
    model_id: int
    sampling_id: int
    source: str


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
            target = _target(store, project_id, path.name)
            taken = sum(_add(store, target, pair) for pair in parsed.pairs)
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
        raise ImportProblem(f'There is no format "{format}". There are: {", ".join(FORMATS)}.', "no_format")
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


def _target(store: Store, project_id: int, source: str) -> _Target:
    sampling = Sampling(digest=sampling_digest(SAMPLING), settings=SAMPLING)
    return _Target(
        project_id=project_id,
        person_id=_id(_source_person(store, source)),
        model_id=_id(_maker(store, source)),
        sampling_id=_id(comparisons.keep_sampling(store, sampling)),
        source=source,
    )


def _source_person(store: Store, source: str) -> Person:
    """Whom imported judgements belong to: named after the file, without a password, so nobody can sign in as them."""
    known = store.find(Person, "source = ?", [source])
    if known:
        return known[0]
    return store.add(
        Person(
            pseudonym=people.new_pseudonym(),
            name=_imported(source),
            display_name=source,
            role="annotator",
            source=source,
        )
    )


def _maker(store: Store, source: str) -> Model:
    """The unknown model, or models, that wrote the answers of a file."""
    known = store.find(Model, "name = ?", [_imported(source)])
    if known:
        return known[0]
    return store.add(Model(name=_imported(source), kind="external", base="unknown", source=source, stage="retired"))


def _imported(source: str) -> str:
    return f"imported:{source}"


def _add(store: Store, target: _Target, pair: Pair) -> bool:
    """Add a pair with its judgement; False when this project has it already."""
    key = hashlib.sha256(target.project_id.to_bytes(8, "big") + pair.digest).digest()[:16]
    if judgements.by_key(store, key) is not None:
        return False
    case = _case(store, target, pair)
    prompt = prompts.keep_prompt(
        store,
        Prompt(
            project_id=target.project_id,
            case_id=_id(case),
            messages=pair.messages,
            digest=messages_digest(pair.messages),
        ),
        (),
    )
    answers = [_completion(store, target, _id(prompt), text) for text in (pair.chosen, pair.rejected)]
    chosen_first = key[0] % 2 == 0  # by hash, so that the preferred answer does not always stand on the left
    comparison = comparisons.add_comparison(
        store,
        Comparison(project_id=target.project_id, case_id=_id(case), reason="imported", batch=target.source),
        answers if chosen_first else answers[::-1],
    )
    _judge(store, target, _id(comparison), key, ranks=(1, 2) if chosen_first else (2, 1))
    return True


def _case(store: Store, target: _Target, pair: Pair) -> Case:
    digest = case_digest(conversation=pair.messages)
    return prompts.case_with(store, target.project_id, digest) or store.add(
        Case(
            project_id=target.project_id,
            conversation=pair.messages,
            split=split_of(digest),
            digest=digest,
            source=target.source,
            person_id=target.person_id,
        )
    )


def _completion(store: Store, target: _Target, prompt_id: int, text: str) -> int:
    """The seed stands for the text: equal answers to one prompt are one completion."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:6], "big")
    completion = Completion(
        prompt_id=prompt_id,
        model_id=target.model_id,
        sampling_id=target.sampling_id,
        seed=seed,
        text=text,
        finish_reason="imported",
    )
    return _id(comparisons.keep_completion(store, completion))


def _judge(store: Store, target: _Target, comparison_id: int, key: bytes, ranks: tuple[int, int]) -> None:
    """The judgement the file holds: leased, judged and submitted at once, so that the counters of the schema follow."""
    now = store.now()
    assignment = store.add(
        Assignment(
            comparison_id=comparison_id,
            person_id=target.person_id,
            project_id=target.project_id,
            shown=(0, 1),
            leased_at=now,
            expires_at=now,
        )
    )
    judgements.add(
        store,
        Judgement(
            key=key,
            assignment_id=_id(assignment),
            comparison_id=comparison_id,
            person_id=target.person_id,
            shown=(0, 1),
            ranks=ranks,
            seconds=0.0,
            client="import",
            created_at=now,
        ),
    )


def _id(record: Any) -> int:
    assert record.id is not None
    return int(record.id)
