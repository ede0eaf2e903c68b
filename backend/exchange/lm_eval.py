"""lm-evaluation-harness tasks: ``doc_to_text`` becomes a template, ``doc_to_choice`` its labels, samples its demonstrations.

``include`` is followed inside the upload only. Functions (``!function``) and data sets are not fetched or run. Rows that lie in the
upload (``dataset_kwargs.data_files``) become cases with the target as the expected answer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from backend.exchange.braces import NAME, CannotConvert, Converted, from_nunjucks, literal
from backend.exchange.chats import INPUT, template_of
from backend.exchange.plan import MOST_CASES, BadFile, NewCase, NewDemonstration, NewTemplate, Notes, Plan, storable
from backend.exchange.promptfoo_csv import read_table
from backend.exchange.tree import Read, Tagged, decoded, json_value, list_in, number, read_yaml, table_in, texts
from backend.exchange.upload import Upload
from backend.prompts.fewshot import MOST_DEMONSTRATIONS
from backend.prompts.problem import TemplateProblem
from backend.prompts.template import compile_template, render
from feedback_db.types import Message

FORMAT = "lm-eval"
TAGS = ("!function",)
MOST_INCLUDES = 8
MOST_SAMPLES = 30  # as rows, of which a template has 64
KNOWN = {"task", "tag", "group", "doc_to_text", "doc_to_target", "doc_to_choice", "description", "fewshot_config", "fewshot_delimiter",
         "target_delimiter", "num_fewshot", "include", "dataset_kwargs", "metadata", "task_alias"}  # fmt: skip


def parse(upload: Upload) -> Plan:
    """Raises BadFile."""
    notes = Notes(upload.main)
    read = _read(upload, upload.main, notes, 0)
    task = read.value
    name = texts(task.get("task") or "").strip()[:80] or PurePosixPath(upload.main).stem
    for key, value in task.items():
        if key not in KNOWN:
            code = "code" if isinstance(value, Tagged) else "harness_setting"
            notes.refused(read.line((key,)), key, code, texts(value), name=key)
    asked = _template_in(task, "doc_to_text", read, notes)
    if asked is None:
        return Plan(format=FORMAT, source=upload.main, name=name, notes=tuple(notes.kept))
    choices = task.get("doc_to_choice")
    labels = tuple(texts(one) for one in choices) if isinstance(choices, list) else None
    if choices is not None and labels is None:
        notes.refused(read.line(("doc_to_choice",)), "doc_to_choice", "choices_vary", texts(choices))
    target = _template_in(task, "doc_to_target", read, notes) if task.get("doc_to_target") is not None else None
    chat = _as_rows(task, asked, target, labels, read, notes)
    body = None if chat else _described(asked, task, read, notes)
    if chat is None and body is None:
        return Plan(format=FORMAT, source=upload.main, name=name, notes=tuple(notes.kept))
    note = f"target: {texts(task['doc_to_target'])}"[:2000] if task.get("doc_to_target") is not None else ""
    title = storable(name, upload.main, read.line(("task",)), "task")
    if chat or body is None:
        template = replace(chat or NewTemplate(name=title), name=title, labels=labels, note=note)
    else:
        shown = _samples(task, asked, target, labels, read, notes)
        template = NewTemplate(
            name=title, body=body.body, mode=body.mode, labels=labels, note=note, shown=shown, shape="text"
        )
    notes.taken(read.line(("doc_to_text",)), "doc_to_text", "template_taken", name=template.name)
    cases = _cases(task, target, labels, upload, read, notes)
    return Plan(
        format=FORMAT, source=upload.main, name=name, templates=(template,), cases=cases, notes=tuple(notes.kept)
    )


def _read(upload: Upload, file: str, notes: Notes, depth: int) -> Read:
    """The task with what it includes; its own settings stand over the included ones."""
    if depth > MOST_INCLUDES:
        raise BadFile("include_depth", file=file, most=MOST_INCLUDES)
    read = read_yaml(upload.files[file], file, TAGS)
    if not isinstance(read.value, dict):
        raise BadFile("not_lm_eval", file=file)
    included = read.value.get("include")
    if included is None:
        return read
    inside = upload.named(texts(included))
    line = read.line(("include",))
    if inside is None or inside == file:
        notes.within(file).refused(line, "include", "file_outside", texts(included))
        return read
    base = _read(upload, inside, notes, depth + 1)
    notes.within(file).mapped(line, "include", "included", name=inside)
    elsewhere = {(key,): 0 for key in base.value if key not in read.value}
    return Read(file, {**base.value, **read.value}, {**read.lines, **elsewhere})


def _template_in(task: dict[str, Any], key: str, read: Read, notes: Notes) -> Converted | None:
    """A setting that is a template, or the name of a column."""
    source = task.get(key)
    line = read.line((key,))
    if not isinstance(source, str) or not source:
        notes.refused(line, key, "template_form", texts(source) if source is not None else "")
        return None
    if isinstance(source, Tagged):
        notes.refused(line, key, "code", f"!function {source}")
        return None
    text = f"{{{{{source}}}}}" if re.fullmatch(r"[^\W\d]\w*", source) else source
    try:
        return from_nunjucks(storable(text, notes.file, line, key), of_promptfoo=False)
    except CannotConvert as problem:
        notes.refused(line, key, "template_problem", source, problem=str(problem))
        return None


def _described(asked: Converted, task: dict[str, Any], read: Read, notes: Notes) -> Converted | None:
    """The description stands before the demonstrations, and those before the question."""
    description = task.get("description")
    if not isinstance(description, str) or not description.strip():
        return asked
    line = read.line(("description",))
    try:
        head = from_nunjucks(storable(str(description), notes.file, line, "description"), of_promptfoo=False)
        marked = "{{demonstrations}}\n" if description.endswith("\n") else ""
        if head.mode == asked.mode:
            body = head.body + marked + asked.body
            compile_template(body, asked.mode)
            notes.mapped(line, "description", "description_first")
            return Converted(body, asked.mode)
        raise CannotConvert("description and doc_to_text need different modes")
    except (CannotConvert, TemplateProblem) as problem:
        notes.refused(line, "description", "template_problem", str(description), problem=str(problem))
        return None


def _as_rows(
    task: dict[str, Any],
    asked: Converted,
    target: Converted | None,
    labels: tuple[str, ...] | None,
    read: Read,
    notes: Notes,
) -> NewTemplate | None:
    """Samples of a task that asks with other columns than {{input}}: rows of a chat template, as the harness writes turns for chat
    models, with the description as the system's row. None where they can be demonstrations, or there are none."""
    listed = list_in(table_in(task, "fewshot_config"), "samples")
    if not listed or target is None or INPUT in compile_template(asked.body, asked.mode).variables:
        return None
    wanted = int(number(task.get("num_fewshot")) or len(listed))
    pairs = [_pair(one, asked, target, labels) for one in listed[: min(wanted, MOST_SAMPLES)]]
    line = read.line(("fewshot_config", "samples"))
    if not pairs or any(pair is None for pair in pairs):
        return None  # they are refused one by one where demonstrations are made of them
    source = texts(task["doc_to_text"])
    turns: list[Message] = [{"role": "system", "content": texts(task.get("description") or "").strip()}]
    turns += [{"role": role, "content": literal(said)} for pair in pairs if pair for role, said in pair]
    turns.append({"role": "user", "content": f"{{{{{source}}}}}" if NAME.match(source) else source})
    made = template_of(turns, "task", notes, line, "fewshot_config.samples", of_promptfoo=False)
    if made is not None:
        notes.mapped(line, "fewshot_config.samples", "samples_rows", n=len(pairs))
    return made


def _pair(
    sample: Any, asked: Converted, target: Converted, labels: tuple[str, ...] | None
) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """What a sample asks and answers, role by role."""
    answer = _answer(sample, target, labels) if isinstance(sample, dict) else None
    question = _answer(sample, asked, None) if isinstance(sample, dict) else None
    return (("user", question), ("assistant", answer)) if question and answer else None


def _samples(
    task: dict[str, Any],
    asked: Converted,
    target: Converted | None,
    labels: tuple[str, ...] | None,
    read: Read,
    notes: Notes,
) -> tuple[NewDemonstration, ...]:
    """Demonstrations take the place of {{input}}: the samples are taken where the task asks with that name."""
    config = task.get("fewshot_config")
    samples = config.get("samples") if isinstance(config, dict) else None
    if samples is None:
        return ()
    line = read.line(("fewshot_config", "samples"))
    names = compile_template(asked.body, asked.mode).variables
    if not isinstance(samples, list) or target is None or INPUT not in names:
        notes.refused(line, "fewshot_config.samples", "samples_input", texts(samples))
        return ()
    found = []
    for i, sample in enumerate(samples):
        answer = _answer(sample, target, labels) if isinstance(sample, dict) else None
        if answer is None or not isinstance(sample.get("input"), str):
            notes.refused(
                read.line(("fewshot_config", "samples", i)),
                f"fewshot_config.samples[{i + 1}]",
                "sample_form",
                texts(sample),
            )
        else:
            found.append(
                NewDemonstration(
                    input=str(sample["input"]), output=answer, label=answer if labels and answer in labels else None
                )
            )
    wanted = int(number(task.get("num_fewshot")) or len(found))
    notes.mapped(line, "fewshot_config.samples", "turns_shown", n=min(wanted, len(found)))
    return tuple(found[: min(wanted, MOST_DEMONSTRATIONS)])


def _answer(row: dict[str, Any], target: Converted, labels: tuple[str, ...] | None) -> str | None:
    """The target of a row; with choices, digits are the place of one."""
    try:
        text = render(compile_template(target.body, target.mode), {key: texts(value) for key, value in row.items()})
    except TemplateProblem:
        return None
    if labels and text.strip().isascii() and text.strip().isdigit():
        place = int(text.strip())
        return labels[place] if place < len(labels) else None
    return text


def _cases(
    task: dict[str, Any],
    target: Converted | None,
    labels: tuple[str, ...] | None,
    upload: Upload,
    read: Read,
    notes: Notes,
) -> tuple[NewCase, ...]:
    files = table_in(task, "dataset_kwargs").get("data_files")
    if files is None:
        return ()
    named = list(files.values()) if isinstance(files, dict) else files if isinstance(files, list) else [files]
    cases: list[NewCase] = []
    for one in named:
        inside = upload.named(texts(one))
        if inside is None or not inside.endswith((".jsonl", ".csv")):
            notes.refused(read.line(("dataset_kwargs",)), "dataset_kwargs.data_files", "file_outside", texts(one))
            continue
        within = notes.within(inside)
        rows = _rows(upload.files[inside], inside)
        for line, row in rows:
            answer = _answer(row, target, labels) if target else None
            values = {key: storable(texts(value), inside, line, key) for key, value in row.items()}
            if target and answer is None:
                within.mapped(line, "doc_to_target", "no_target")
            if any(value.strip() for value in values.values()):
                cases.append(NewCase(values=values, expected=answer))
        within.taken(1, "rows", "cases_taken", n=len(rows))
    return tuple(cases)


def _rows(data: bytes, file: str) -> list[tuple[int, dict[str, Any]]]:
    if file.endswith(".csv"):
        return [(row.line, dict(row.cells)) for row in read_table(data, file)[1]]
    found = []
    for line, text in enumerate(decoded(data, file).split("\n"), 1):
        if text.strip():
            row = json_value(text, file, line)
            if not isinstance(row, dict):
                raise BadFile("line_no_table", file=file, line=line)
            found.append((line, row))
        if len(found) > MOST_CASES:
            raise BadFile("file_cases", file=file, most=f"{MOST_CASES:,}")
    return found
