"""The first start: a sample project with templates, demonstrations and cases, all of the project's own making."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from backend.prompts import digest
from backend.prompts.template import compile_template
from backend.starter import sentiment, service, service_text
from feedback_db import Store, prompts
from feedback_db.types import Case, Demonstration, Guideline, Project, Template

SAMPLE = "Sample shop"
SERVICE, SENTIMENT = "customer service", "movie sentiment"
SERVICE_CASES, SENTIMENT_CASES, DEMONSTRATIONS = 200, 40, 16  # per language
FEW_SHOT_BODY = "Perform the following {{task}}:\n\n{{demonstrations}}\nInput: {{input}}\nOutput:"
GUIDELINE = (
    "Choose the answer that would help the customer more.\n"
    "1. It must be right: it answers the question that was asked, not another one.\n"
    "2. It must be polite.\n"
    "3. Between two right and polite answers, the shorter one is better.\n"
    "If both are equally good or bad, it is a tie; if nobody should send either, mark both as bad."
)
LABEL_FORM: dict[str, Any] = {"kind": "pair", "steps": 4, "tie": True, "both_bad": True, "rationale": "optional"}


class _Words(NamedTuple):
    """What differs between the languages of the sample project."""

    tag: str
    service_name: str
    sentiment_name: str
    task: str
    labels: tuple[str, str]  # positive, negative


LANGUAGES = {
    "en": _Words("en", "customer service", "movie sentiment", "sentiment classification", ("positive", "negative")),
    "zh": _Words("zh", "客服问答", "影评情感", "情感分类", ("正面", "负面")),
}


def ensure_sample(store: Store) -> Project:
    """The sample project, made on the first start; a store that has any project is left as it is."""
    with store.write():
        existing = prompts.projects(store)
        if existing:
            return existing[0]
        settings = {"order_seed": SAMPLE}  # the sides of answers are drawn alike in every copy of the sample
        project = store.add(Project(name=SAMPLE, label_form=LABEL_FORM, settings=settings, overlap=1))
        assert project.id is not None
        store.add(Guideline(project_id=project.id, body=GUIDELINE))
        for words in LANGUAGES.values():
            _add_service(store, project.id, words)
            _add_sentiment(store, project.id, words)
        return project


def _add_service(store: Store, project_id: int, words: _Words) -> None:
    system = service_text.SYSTEM_TEXTS[words.tag][1]
    plain = _template(project_id, words.service_name, "{{input}}", SERVICE, words.tag, system_text=system)
    few_shot = {"k": 2, "choose": "nearest", "shape": "turns"}
    shown = _template(
        project_id, f"{words.service_name} + 2", "{{input}}", SERVICE, words.tag, system_text=system, few_shot=few_shot
    )
    store.add(plain)
    store.add(shown)
    rng = Random(f"sample demonstrations {words.tag}")
    style = service.Style(tone="polite", remedy="right", long=False, helpful=False)
    for asked in service.questions(1, DEMONSTRATIONS, words.tag, "train"):
        _add_demonstration(store, project_id, asked.text, service.answer(rng, asked, style), SERVICE, words.tag)
    for asked in service.questions(2, SERVICE_CASES, words.tag, "train"):
        _add_case(store, project_id, {"input": asked.text}, SERVICE, words.tag)


def _add_sentiment(store: Store, project_id: int, words: _Words) -> None:
    label = dict(zip((sentiment.POSITIVE, sentiment.NEGATIVE), words.labels, strict=True))
    few_shot = {"k": 4, "choose": "balanced", "shape": "text"}
    store.add(
        _template(
            project_id,
            words.sentiment_name,
            FEW_SHOT_BODY,
            SENTIMENT,
            words.tag,
            few_shot=few_shot,
            labels=words.labels,
        )
    )
    for review in sentiment.reviews(1, DEMONSTRATIONS, words.tag, "train"):
        name = label[review.sentiment]
        _add_demonstration(store, project_id, review.text, name, SENTIMENT, words.tag, label=name)
    for review in sentiment.reviews(2, SENTIMENT_CASES, words.tag, "test"):
        values = {"task": words.task, "input": review.text}
        _add_case(store, project_id, values, SENTIMENT, words.tag, expected=label[review.sentiment])


def _template(
    project_id: int,
    name: str,
    body: str,
    scenario: str,
    language: str,
    *,
    system_text: str = "",
    few_shot: dict[str, Any] | None = None,
    labels: tuple[str, ...] | None = None,
) -> Template:
    return Template(
        project_id=project_id,
        name=name,
        system_text=system_text,
        body=body,
        variables=compile_template(body).variables,
        few_shot=few_shot or {},
        labels=labels,
        scenario=scenario,
        language=language,
        digest=digest.template_digest(
            mode="plain", system_text=system_text, body=body, few_shot=few_shot or {}, labels=labels
        ),
    )


def _add_demonstration(
    store: Store, project_id: int, input: str, output: str, scenario: str, language: str, label: str | None = None
) -> None:
    store.add(
        Demonstration(
            project_id=project_id,
            input=input,
            output=output,
            label=label,
            tags=(scenario,),
            language=language,
            digest=digest.demonstration_digest(input=input, output=output, label=label),
        )
    )


def _add_case(
    store: Store, project_id: int, values: dict[str, str], scenario: str, language: str, expected: str | None = None
) -> None:
    key = digest.case_digest(values=values, expected=expected)
    case = Case(
        project_id=project_id,
        values=values,
        expected=expected,
        scenario=scenario,
        tags=(f"lang:{language}",),
        split=digest.split_of(key),
        digest=key,
        source="sample",
    )
    if prompts.case_with(store, project_id, key) is None:
        store.add(case)
