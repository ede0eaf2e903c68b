"""What prompt engineers do: run prompts on models side by side, keep the answers, and send them to be judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from backend import access
from backend.engines.client import Answer, Client
from backend.engines.kept import SamplingSettings, engine_name, keep_answer, keep_prompt, keep_sampling
from backend.labels.making import add_comparison
from backend.labels.turns import CannotGoOn, follows, keep_turn, next_case
from backend.problem import Problem
from backend.prompts.chat import why_unfit
from backend.prompts.digest import case_digest, demonstration_digest
from feedback_db import Store, audit, cases, comparisons, models, prompts
from feedback_db.types import (
    Case,
    Comparison,
    Completion,
    Demonstration,
    Judgement,
    Model,
    Person,
    Prompt,
    Sampling,
    Template,
)

MOST_AT_ONCE = 500  # cases one click may generate comparisons for; our choice
AT_ONCE = 8  # requests kept in flight: enough for the engine to batch


class CannotCompare(Problem):
    """These answers cannot become a comparison; the message says why."""


class Engine(Protocol):
    def client(self) -> Any: ...

    def client_for(self, model: Model) -> Client: ...


def send_to_labelling(
    store: Store, person: Person, completion_ids: list[int], *, overlap: int | None = None
) -> Comparison:
    """Make a comparison of answers to one case. Who wrote what is not shown to annotators, and the order is theirs.

    Answers with the same text are one answer: the first of them is sent. Raises CannotCompare.
    """
    access.require(person, "compare")
    with store.write():
        found = [store.get(Completion, i) for i in completion_ids]
        asked = [store.get(Prompt, c.prompt_id) for c in found]
        if len({p.case_id for p in asked}) != 1:
            raise CannotCompare("Only answers to the same case can be compared.", "different_cases")
        first: dict[str, int] = {}
        for one in found:
            first.setdefault(one.text, one.id or 0)
        sent = list(first.values())
        if len(sent) < 2:
            raise CannotCompare(
                "All wrote the same: there is nothing to choose between. Use another seed.", "all_the_same"
            )
        made = add_comparison(
            store, asked[0].project_id, asked[0].case_id, sent, overlap=overlap, reason="sent by an engineer"
        )
        audit.record(store, person, "send_to_labelling", "comparison", made.id, {"completions": sent})
        return made


def next_turn(
    store: Store, person: Person, judgement_id: int, text: str, completion_ids: Sequence[int] = ()
) -> tuple[Case, list[int]]:
    """The next turn of a conversation: what was judged best alone, and what is said to it, is asked of every column again.

    ``completion_ids``: what each column had answered, where one answer stands in several; else the columns are as they were judged.
    Returns the case and, by column, the prompt of each: its own scaffolding, and the same conversation. Raises CannotGoOn.
    """
    access.require(person, "compare")
    found = store.find(Judgement, "id = ? and person_id = ?", [judgement_id, person.id])
    said = found[0] if found else None
    answers = comparisons.completions_of(store, said.comparison_id) if said else []
    judged = [answers[position] for position in said.shown] if said else []
    best = [one for one, rank in zip(judged, (said and said.ranks) or (), strict=False) if rank == 1]
    by_id = {one.id: one for one in judged}
    if said is None or len({one.text for one in best}) != 1 or said.both_bad or not by_id.keys() >= set(completion_ids):
        raise CannotGoOn("Say first which answer is the best: the conversation goes on from it.", "not_the_best")
    shown = [by_id[id] for id in completion_ids] or judged
    then = follows(best[0], text)
    before = store.get(Case, store.get(Comparison, said.comparison_id).case_id)
    with store.write():
        case = next_case(store, person, before, said, then)
        case = case if case.id else store.add(case)
        asked = [comparisons.prompt_of(store, one.id or 0) for one in shown]
        return case, [keep_turn(store, person, case, one, then).id or 0 for one in asked]


def keep_as_demonstration(store: Store, person: Person, completion_id: int) -> Demonstration:
    """An answer becomes a worked example for few-shot prompts, if its case is one question. Raises CannotCompare."""
    access.require(person, "compare")
    kept, case = _answered(store, completion_id)
    asked = cases.conversation(case.values, case.conversation)
    if len([message for message in asked if message["role"] != "system"]) != 1:
        raise CannotCompare("A demonstration shows one question; this is a conversation.", "many_questions")
    digest = demonstration_digest(input=asked[-1]["content"], output=kept.text)
    with store.write():
        return prompts.demonstration_with(store, case.project_id, digest) or store.add(
            Demonstration(
                project_id=case.project_id, input=asked[-1]["content"], output=kept.text, source="winner", digest=digest,
                tags=(case.scenario,) if case.scenario else (), completion_id=kept.id, person_id=person.id,
                language=next((tag[5:] for tag in case.tags if tag.startswith("lang:")), None),
            )
        )  # fmt: skip


def keep_as_case(store: Store, person: Person, completion_id: int) -> Case:
    """The case with this answer as the expected one; it keeps its split, so that nothing held out is learned from."""
    access.require(person, "compare")
    kept, case = _answered(store, completion_id)
    key = case_digest(values=case.values, conversation=case.conversation, expected=kept.text)
    with store.write():
        return prompts.case_with(store, case.project_id, key) or store.add(
            Case(
                project_id=case.project_id, values=case.values, conversation=case.conversation, expected=kept.text,
                scenario=case.scenario, tags=case.tags, split=case.split, digest=key, source="answer", person_id=person.id,
            )
        )  # fmt: skip


def _answered(store: Store, completion_id: int) -> tuple[Completion, Case]:
    kept = store.get(Completion, completion_id)
    return kept, store.get(Case, store.get(Prompt, kept.prompt_id).case_id)


def ask_to_write(store: Store, person: Person, case_id: int, *, overlap: int = 1) -> Comparison:
    """Ask annotators for the ideal answer to a case, with nothing to compare it to. One that waits already is returned."""
    access.require(person, "compare")
    with store.write():
        case = store.get(Case, case_id)
        waiting = comparisons.waiting_to_be_written(store, case_id)
        if waiting is not None:
            return waiting
        made = comparisons.add_comparison(
            store,
            Comparison(
                project_id=case.project_id, case_id=case_id, kind="demonstration", size=0, overlap=overlap,
                slots_left=overlap, reason="an answer asked for by an engineer", arm="priority",
            ),
            [],
        )  # fmt: skip
        audit.record(store, person, "ask_to_write", "comparison", made.id, {"case": case_id})
        return made


class Made(NamedTuple):
    """What a request for comparisons came to."""

    comparisons: list[Comparison]
    alike: int  # pairs left out because both answers had the same text


def make_comparisons(
    store: Store,
    engine: Engine,
    person: Person,
    *,
    requests: list[tuple[int, int]],
    model_id: int,
    sampling: SamplingSettings = SamplingSettings(),
    overlap: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Made:
    """Two answers of one model to each (template id, case id), each pair as a comparison."""
    access.require(person, "compare")
    reason = "asked for by an engineer"
    return _make(store, engine, requests, model_id, sampling, overlap, person.id, reason, progress)


def generate(
    store: Store,
    engine: Engine,
    person: Person,
    *,
    project_id: int,
    template_id: int,
    model_id: int,
    count: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Made:
    """Comparisons for ``count`` cases of a template, those this model answered least first. Raises CannotCompare."""
    access.require(person, "compare")
    if not 1 <= count <= MOST_AT_ONCE:
        raise CannotCompare(
            f"Ask for 1 to {MOST_AT_ONCE} cases at a time, not {count}.", "many_cases", most=MOST_AT_ONCE, count=count
        )
    template = store.get(Template, template_id)
    requests = _least_asked(store, project_id, model_id, count, [template])
    if not requests:
        raise CannotCompare("This template has no cases. Add some on the Build page.", "no_cases")
    return make_comparisons(store, engine, person, requests=requests, model_id=model_id, progress=progress)


def refill(store: Store, engine: Engine, *, project_id: int, target: int) -> int:
    """Keep ``target`` comparisons waiting, with answers of the live policy to the cases asked least so far.

    The app itself calls this, not a person. Returns how many comparisons were made.
    """
    live = models.live(store, "policy")
    missing = target - comparisons.open_count(store, project_id, target)
    if live is None or live.id is None or missing <= 0:
        return 0
    requests = _least_asked(store, project_id, live.id, missing, _open_ended(store, project_id))
    made = _make(
        store,
        engine,
        requests,
        live.id,
        SamplingSettings(),
        None,
        None,
        "answers of the live policy",
        lambda done, of: None,
    )
    return len(made.comparisons)


def ask_about(store: Store, engine: Engine, *, project_id: int, model_id: int, count: int) -> int:
    """Keep ``count`` comparisons of this policy's answers waiting, to be judged before others; it need not be live.

    The app itself calls this for a series of rounds. Returns how many comparisons were made.
    """
    missing = count - comparisons.open_of(store, project_id, model_id)
    if missing <= 0:
        return 0
    requests = _least_asked(store, project_id, model_id, missing, _open_ended(store, project_id))
    sampling, reason = SamplingSettings(), "answers of the newest policy of a series"
    made = _make(store, engine, requests, model_id, sampling, None, None, reason, lambda done, of: None, arm="priority")
    return len(made.comparisons)


def _open_ended(store: Store, project_id: int) -> list[Template]:
    """The newest version of each template whose answers people can prefer: one without a closed set of labels."""
    newest: dict[str, Template] = {}
    for template in prompts.templates(store, project_id):
        if template.labels is None:
            newest.setdefault(template.name, template)
    return list(newest.values())


def _least_asked(
    store: Store, project_id: int, model_id: int, count: int, templates: list[Template]
) -> list[tuple[int, int]]:
    """(template id, case id) pairs for these templates: the cases the model answered least first, each case once,
    under the template it saw least, of those that ask for nothing the case lacks."""
    answered = comparisons.times_answered(store, project_id, model_id)
    offers: dict[int, list[tuple[int, int, int]]] = {}  # case id -> (times answered, turn, template id)
    places: dict[int, int] = {}
    case_of: dict[int, Case] = {}
    for turn, template in enumerate(templates):
        found = prompts.cases(store, project_id, scenario=template.scenario, language=template.language)
        for place, case in enumerate(found):
            if case.id is not None and template.id is not None:
                places[case.id], case_of[case.id] = place, case
                times = answered.get((template.id, case.id), 0)
                offers.setdefault(case.id, []).append((times, (place + turn) % len(templates), template.id))
    ordered = sorted(offers, key=lambda case_id: (sum(offer[0] for offer in offers[case_id]), places[case_id], case_id))
    by_id = {template.id: template for template in templates}
    fitting = (
        (
            next((offer[-1] for offer in sorted(offers[id]) if why_unfit(by_id[offer[-1]], case_of[id]) is None), None),
            id,
        )
        for id in ordered
    )
    return list(islice(((template_id, id) for template_id, id in fitting if template_id is not None), count))


def _make(
    store: Store,
    engine: Engine,
    requests: list[tuple[int, int]],
    model_id: int,
    sampling: SamplingSettings,
    overlap: int | None,
    person_id: int | None,
    reason: str,
    progress: Callable[[int, int], None],
    arm: Literal["random", "priority"] = "random",
) -> Made:
    model = store.get(Model, model_id)
    client = engine.client_for(model)
    kept_sampling = keep_sampling(store, sampling)
    asked = _asked(store, engine, client, requests, model_id, sampling.max_tokens, person_id)

    def answered(one: tuple[Prompt, int]) -> list[Answer]:
        prompt, seed = one
        return client.complete(
            list(prompt.messages),
            model=engine_name(model),
            n=2,
            seed=seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
        )

    made: list[Comparison] = []
    alike = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="compare") as pool:
        both = zip(asked, pool.map(answered, asked), strict=True)  # in order: equal seeds, equal rows
        for done, ((prompt, seed), answers) in enumerate(both, 1):
            comparison = _keep_pair(store, prompt, model, kept_sampling, seed, answers, overlap, reason, arm)
            if comparison is None:
                alike += 1
            else:
                made.append(comparison)
            progress(done, len(requests))
    return Made(made, alike)


def _asked(
    store: Store,
    engine: Engine,
    client: Client,
    requests: list[tuple[int, int]],
    model_id: int,
    answer_tokens: int,
    person_id: int | None,
) -> list[tuple[Prompt, int]]:
    """The prompt of each (template id, case id), with the next seed this model was not asked with; a request that
    comes twice gets two seeds."""
    asked: list[tuple[Prompt, int]] = []
    known: dict[tuple[int, int], Prompt] = {}
    newest: dict[int, int] = {}  # prompt id -> the highest seed used
    for request in requests:
        if request not in known:
            template, case = store.get(Template, request[0]), store.get(Case, request[1])
            known[request] = keep_prompt(store, engine, client, template, case, answer_tokens, person_id)
        prompt = known[request]
        assert prompt.id is not None
        if prompt.id not in newest:
            newest[prompt.id] = max(comparisons.seeds_used(store, prompt.id, model_id), default=-1)
        newest[prompt.id] += 1
        asked.append((prompt, newest[prompt.id]))
    return asked


def _keep_pair(
    store: Store,
    prompt: Prompt,
    model: Model,
    sampling: Sampling,
    seed: int,
    answers: list[Answer],
    overlap: int | None,
    reason: str,
    arm: Literal["random", "priority"] = "random",
) -> Comparison | None:
    """Both completions, and a comparison of them unless their texts are the same: one transaction."""
    with store.write():
        kept = [
            keep_answer(store, prompt, model, sampling, answer, seed=seed, repeat=repeat)
            for repeat, answer in enumerate(answers)
        ]
        if kept[0].text == kept[1].text:
            return None
        ids = [c.id for c in kept if c.id is not None]
        return add_comparison(store, prompt.project_id, prompt.case_id, ids, overlap=overlap, reason=reason, arm=arm)
