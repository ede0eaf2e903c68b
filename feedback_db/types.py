"""The nouns of the product. Every other file speaks in these.

A record with ``id=None`` has not been stored yet; ``Store.add`` returns a copy with its id. Records are frozen: a
correction is a new record that names what it supersedes, so that a label or a model can be traced to what it was made from.
Times (``*_at``) are unix microseconds UTC; digests are SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["annotator", "engineer", "admin"]
Split = Literal["train", "val", "test"]
Stage = Literal["candidate", "live", "retired"]
JobState = Literal["queued", "running", "paused", "cancelling", "done", "failed", "cancelled", "interrupted"]
RoundState = Literal["training_reward", "training_policy", "waiting_for_people", "done", "ended", "stopped", "failed"]
SnapshotKind = Literal["preference", "sft", "prompts", "unpaired", "texts"]
Basis = Literal["prompt", "demonstrations", "template"]
MeasurementKind = Literal["order", "count", "calibration", "confidence"]
BakeState = Literal["asking", "training", "testing", "done", "failed", "stopped"]
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Row = dict[
    str, str
]  # {"role": as a message's, "text": of a template}, or a place: {"role": "demonstrations" | "turns"}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who signs in, or the source that imported judgements belong to (``source`` set; cannot sign in)."""

    id: int | None = None
    pseudonym: str
    name: str | None
    display_name: str | None = None
    email: str | None = None
    password_hash: str | None = None
    role: Role
    status: Literal["active", "disabled", "erased"] = "active"
    language: str = "en"
    session_epoch: int = 0
    source: str | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Project:
    id: int | None = None
    name: str
    label_form: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    overlap: int = 1
    gold_every: int = 0
    lease_seconds: int = 300
    archived_at: int | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Guideline:
    """One version of what annotators are asked to look for."""

    id: int | None = None
    project_id: int
    version: int = 1
    body: str
    person_id: int | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a case becomes a prompt: a text template has a system text and a body, a chat template rows instead. A version never
    changes."""

    id: int | None = None
    project_id: int
    name: str
    version: int = 1
    parent_id: int | None = None
    mode: Literal["plain", "logic"] = "plain"
    system_text: str = ""
    body: str
    rows: tuple[Row, ...] = ()
    variables: tuple[str, ...] = ()
    few_shot: dict[str, Any] = field(default_factory=dict)  # {"k", "choose", "ids", "seed", "order", "shape"}
    labels: tuple[str, ...] | None = None
    scenario: str | None = None
    language: str | None = None
    note: str = ""
    digest: bytes
    person_id: int | None = None
    created_at: int = 0
    retired_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """One worked example for few-shot prompts."""

    id: int | None = None
    project_id: int
    input: str
    output: str
    label: str | None = None
    tags: tuple[str, ...] = ()
    language: str | None = None
    source: Literal["written", "imported", "winner"] = "written"
    judgement_id: int | None = None
    completion_id: int | None = None
    digest: bytes
    person_id: int | None = None
    created_at: int = 0
    retired_at: int | None = None  # out of the bank; template versions that name it still show it


@dataclass(frozen=True, kw_only=True)
class Comment:
    """What somebody says about a template version."""

    id: int | None = None
    template_id: int
    text: str
    person_id: int | None = None
    created_at: int = 0
    retired_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is asked. Annotators and the reward model see this, never the scaffolding around it."""

    id: int | None = None
    project_id: int
    values: dict[str, str] | None = None
    conversation: tuple[Message, ...] | None = None
    expected: str | None = None
    scenario: str | None = None
    tags: tuple[str, ...] = ()
    split: Split
    digest: bytes
    source: str = "written"
    person_id: int | None = None
    created_at: int = 0
    judgement_id: int | None = None  # a conversation that went on from the answer this judgement chose


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The exact messages a model saw: template version x case x demonstrations in order."""

    id: int | None = None
    project_id: int
    template_id: int | None = None
    case_id: int
    messages: tuple[Message, ...]
    dropped_ids: tuple[int, ...] = ()
    tokens: int | None = None
    digest: bytes
    person_id: int | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Model:
    """A policy or a reward model: a base, and usually an adapter on it. ``adapter`` is a folder name under models/.

    An external one is a remote engine's, whose name for it is ``base``, or only stands for imported answers.
    """

    id: int | None = None
    project_id: int | None = None
    name: str
    kind: Literal["policy", "reward", "external"]
    base: str
    base_fingerprint: bytes | None = None
    adapter: str | None = None
    parent_id: int | None = None
    job_id: int | None = None
    source: str
    revision: str | None = None
    digest: bytes | None = None
    stage: Stage = "candidate"
    card: dict[str, Any] = field(default_factory=dict)
    created_at: int = 0
    engine_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteEngine:
    """A server of others that answers in OpenAI's protocol. ``key_reference`` says where its key stands, never what it is."""

    id: int | None = None
    name: str
    base_url: str
    key_reference: str = ""  # env:NAME, file:name or nothing
    context_tokens: int
    person_id: int | None = None
    created_at: int = 0
    removed_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The settings an answer was sampled with: {"temperature", "top_p", "max_tokens", "stop"}."""

    id: int | None = None
    digest: bytes
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer, reproducible from its row."""

    id: int | None = None
    prompt_id: int
    model_id: int
    sampling_id: int
    seed: int
    repeat: int = 0
    text: str
    finish_reason: Literal["stop", "length", "cancelled", "error", "imported", "written"]
    prompt_tokens: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None
    mean_logp: float | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Answers to one case, waiting to be judged. Its completions stand in ``comparison_items``."""

    id: int | None = None
    project_id: int
    case_id: int
    kind: Literal["pair", "rank", "rate", "demonstration"] = "pair"
    size: int = 2
    status: Literal["open", "done", "paused", "retired"] = "open"
    overlap: int = 1
    slots_left: int = 1
    judged: int = 0
    gold: tuple[int, ...] | None = None
    arm: Literal["random", "priority"] = "random"
    queue_key: int = 0
    reason: str = ""
    score: float | None = None
    scored_by: int | None = None
    leaked: dict[str, Any] | None = None  # position -> [start, end) in code points of what names an answer's maker
    batch: str | None = None
    created_at: int = 0
    done_at: int | None = None
    void_reason: str | None = None  # why it cannot be judged; what was said of it counts nowhere
    basis: Basis = "prompt"  # what the answers' prompts differ in at most
    cleared_at: int | None = None  # a reviewer left what was flagged or reported until then as it is


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One person's lease on one comparison. ``shown[i]`` is the item position that stood at place i, left to right."""

    id: int | None = None
    comparison_id: int
    person_id: int
    project_id: int
    purpose: Literal["label", "gold", "repeat", "calibration", "review", "surplus"] = "label"
    state: Literal["leased", "submitted", "skipped", "expired", "released"] = "leased"
    is_ahead: bool = False  # leased while another one is still on the desk
    shown: tuple[int, ...]
    leased_at: int
    expires_at: int
    submitted_at: int | None = None
    revealed_at: int | None = None
    head_judgement_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One person's ranking. ``ranks[i]`` is the rank of ``shown[i]``, 1 is best, equal ranks are a tie.

    Append-only: a correction or a retraction is a new row that supersedes the one before it.
    """

    id: int | None = None
    key: bytes
    assignment_id: int
    revision: int = 0
    supersedes: int | None = None
    comparison_id: int
    person_id: int
    act: Literal["submit", "correct", "retract"] = "submit"
    shown: tuple[int, ...]
    ranks: tuple[int, ...] | None
    both_bad: bool = False
    both_good: bool = False
    strength: int | None = None
    aspects: dict[str, Any] | None = None  # name -> ranks of a pair, or points, by place; "points" is the rating itself
    flags: tuple[str, ...] | None = None  # "unsafe:1" is about the answer at place 1, "bad_prompt" about what was asked
    spans: tuple[dict[str, Any], ...] | None = None  # {"place", "start", "end", "text", "tag"}, in code points
    rationale: str | None = None
    edited_position: int | None = None  # canonical position of the answer that ``edited_text`` mends
    edited_text: str | None = None
    confidence: int | None = None
    seconds: float
    active_seconds: float | None = None
    guideline_id: int | None = None
    partial: bool = False
    after_reveal: bool = False
    client: str | None = None
    created_at: int = 0
    row_hash: bytes | None = None
    verdict: str | None = field(default=None, metadata={"generated": True})


ReportCategory = Literal["unclear", "broken", "personal", "harmful", "guidelines", "other"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Somebody says that something is wrong with a comparison. Append-only; a reviewer's decision closes it."""

    id: int | None = None
    key: bytes
    project_id: int
    comparison_id: int
    person_id: int
    category: ReportCategory
    note: str | None = None
    created_at: int = 0
    closed_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class ApiToken:
    """Lets a program ask the prompt endpoint of a project, for as long as the person who made it may."""

    id: int | None = None
    project_id: int
    name: str
    token_hash: bytes = field(repr=False)
    hint: str
    keeps: bool = False  # its answers are stored, so that they can be judged
    person_id: int
    created_at: int = 0
    last_used_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Cases and the checks of their answers. A version is a row and never changes."""

    id: int | None = None
    project_id: int
    name: str
    version: int = 1
    case_ids: tuple[int, ...]
    checks: tuple[dict[str, Any], ...]  # as backend/suites/checks.py reads them
    threshold: float | None = None  # of a case's score; None: every check must pass
    own: dict[str, Any] = field(default_factory=dict)  # case id -> {"checks", "threshold"} that are that case's alone
    digest: bytes
    person_id: int | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """A suite answered: one column per arm, each case ``repeats`` times.

    ``done``, ``failed`` and ``tries`` are counted by the schema: cells there are, those without an answer, and how many were
    taken away to be tried again.
    """

    id: int | None = None
    project_id: int
    suite_id: int
    arms: tuple[dict[str, int], ...]  # {"template", "model", "sampling"}, ids
    repeats: int = 1
    seed: int = 0
    state: Literal["running", "stopped", "done"] = "running"
    total: int  # cells there will be
    problem: str = ""
    follows: bool = False  # run again for every policy that is trained
    graders: dict[str, int] = field(
        default_factory=dict
    )  # who scores and judges (backend/suites/grading.py) -> model id
    sends: tuple[str, ...] = ()  # which cases go to labelling by themselves when it is done
    sent: int = 0  # comparisons that came of it
    done: int = 0
    failed: int = 0
    tries: int = 0
    person_id: int | None = None
    created_at: int = 0
    finished_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One answer of a run and what the checks said of it."""

    run_id: int
    arm: int
    case_id: int
    repeat: int
    completion_id: int | None
    score: float
    passed: bool
    results: tuple[tuple[Any, ...], ...]  # (score, passed, reason), and False behind where a check could say nothing
    problem: str = ""  # why there is no answer


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a reward model or a judge said of an answer. ``digest`` is of the bytes it read, its settings, and which it is."""

    digest: bytes
    model_id: int
    score: float
    passed: bool | None = None  # None: a score alone
    reason: str = ""
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Label words of a few-shot template scored by a model again and again: in other orders, with other demonstrations, after
    texts that say nothing; or how sure the model is of cases without an answer. All that is asked follows from the row."""

    id: int | None = None
    project_id: int
    template_id: int
    model_id: int
    model_digest: bytes | None  # what is found holds for these weights alone
    kind: MeasurementKind
    settings: dict[str, Any]  # as backend/measuring/plans.py reads them
    state: Literal["running", "stopped", "done"] = "running"
    total: int  # parts there will be
    problem: str = ""
    person_id: int | None = None
    created_at: int = 0
    finished_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredPart:
    """The scores of one part of a measurement: a row per text, a column per label, nats per token."""

    measurement_id: int
    name: str
    logps: tuple[list[float], ...]
    straddling: tuple[str, ...] = ()  # labels that a tokenizer would have joined with what stands before them
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Document:
    """A plain text that a model may learn the language of. It is never changed."""

    id: int | None = None
    project_id: int
    text: str
    source: str
    split: Split
    digest: bytes
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The frozen, hashed list of judgements (or prompts, or texts) one job saw."""

    id: int | None = None
    project_id: int
    name: str
    version: int
    kind: SnapshotKind
    state: Literal["building", "frozen", "withdrawn"] = "building"
    filters: dict[str, Any] = field(default_factory=dict)
    as_of_judgement_id: int
    n: int | None = None
    statistics: dict[str, Any] | None = None
    digest: bytes | None = None
    file: str | None = None
    person_id: int | None = None
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    id: int | None = None
    project_id: int
    kind: Literal["pretrain", "sft", "reward", "dpo", "kto", "ppo", "ift", "generate", "evaluate", "score", "export"]
    state: JobState = "queued"
    settings: dict[str, Any]
    settings_digest: bytes
    seed: int = 0
    key: str | None = None
    snapshot_id: int | None = None
    base_model_id: int | None = None
    start_model_id: int | None = None
    reward_model_id: int | None = None  # what a policy follows; of a reward job: the reward model before it
    policy_model_id: int | None = None  # of a reward job: the policy whose answers it looks at
    output_model_id: int | None = None
    attempt: int = 0
    max_attempts: int = 3
    worker: str | None = None  # "pid:start time", never the pid alone
    heartbeat_at: int | None = None
    step: int = 0
    total_steps: int | None = None
    error: str | None = None
    person_id: int | None = None
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """A reward job and the policy job that follows it: one row of the log of a series."""

    id: int | None = None
    project_id: int
    series: str
    number: int
    wanted: int
    kind: Literal["cooperative", "adversarial"]
    settings: dict[str, Any]
    seed: int = 0
    reward_job_id: int
    policy_job_id: int | None = None
    state: RoundState = "training_reward"
    reason: str = ""  # a code: why the series went no further
    facts: dict[str, Any] = field(default_factory=dict)
    person_id: int | None = None
    created_at: int = 0
    finished_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Who moved which model to which stage, and why."""

    id: int | None = None
    model_id: int
    from_stage: Stage
    to_stage: Stage
    evaluation_id: int | None = None
    reason: str
    person_id: int | None = None
    at: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A report on a model."""

    id: int | None = None
    model_id: int
    job_id: int | None = None
    kind: str
    snapshot_id: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any]
    n: int
    created_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Bake:
    """A long prompt's answers learnt under a short one, then both tested on cases that neither saw."""

    id: int | None = None
    project_id: int
    suite_id: int  # whose test cases and checks decide
    long_id: int
    short_id: int
    model_id: int
    settings: dict[str, Any]  # {"passed", "seed", "sampling", "sft"}
    state: BakeState = "asking"
    why: str = ""  # it failed
    run_id: int  # the long prompt's answers
    job_id: int | None = None
    test_run_id: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    person_id: int | None = None
    created_at: int = 0
    finished_at: int | None = None


TABLES: dict[type, str] = {
    Person: "people",
    Project: "projects",
    Guideline: "guidelines",
    Template: "templates",
    Demonstration: "demonstrations",
    Comment: "comments",
    Case: "cases",
    Prompt: "prompts",
    Model: "models",
    RemoteEngine: "engines",
    Sampling: "samplings",
    Completion: "completions",
    Comparison: "comparisons",
    Assignment: "assignments",
    Judgement: "judgements",
    ApiToken: "tokens",
    Report: "reports",
    Suite: "suites",
    SuiteRun: "runs",
    Measurement: "measurements",
    MeasuredPart: "measured_parts",
    Cell: "cells",
    Bake: "bakes",
    Verdict: "verdicts",
    Document: "documents",
    Snapshot: "snapshots",
    Job: "jobs",
    Round: "rounds",
    Promotion: "promotions",
    Evaluation: "evaluations",
}
