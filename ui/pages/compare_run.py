"""What happens to the columns of the compare page: they stream, are stopped, judged, kept, and asked the next turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import gradio as gr

from backend import comparing, prompting, streaming
from backend.engines.kept import SamplingSettings
from backend.labels.voting import CannotVote
from backend.streaming import Column, Pane, Run, Runs
from feedback_db.cases import conversation
from feedback_db.types import Case
from ui.context import Ui
from ui.views.drawn import SHOWN_KEY, Part, drawing, messages, note, panes
from ui.views.words import engine_event

LETTERS = "ABCDEFGH"
WORDS = ("best", "stop", "demonstration", "case", "diff", "logps", "markdown")


class Setting(NamedTuple):
    """What is chosen for one column."""

    template: Any
    model: Any
    temperature: Any
    top_p: Any
    max_tokens: Any


class Cases(NamedTuple):
    """The pickers that a project fills."""

    project: Any
    search: Any
    case: Any
    others: list[Any]
    settings: list[Setting]


class Votes(NamedTuple):
    """What is said of all columns at once, and what is said next."""

    tie: Any
    bad: Any
    text: Any
    go_on: Any


class RunRow(NamedTuple):
    cases: Cases
    seed: Any
    seeds: Any
    count: Any
    columns: list[Any]
    run: Any
    stop: Any
    send: Any
    write: Any
    shown: Any
    status: Any
    votes: Votes
    runs: Runs
    on_page: Any  # hidden: the key of the run whose texts are drawn, read from the page at each click


def vote_row(ui: Ui) -> Votes:
    label = ui.text.label
    with gr.Row(elem_classes=["wh-tight", "wh-panel"]):
        tie = gr.Button(label("battle.tie"), size="sm", interactive=False, elem_id="vote-tie", scale=0, min_width=90)
        bad = gr.Button(label("compare.bad"), size="sm", interactive=False, elem_id="vote-bad", scale=0, min_width=110)
        text = gr.Textbox(label=label("compare.next"), elem_id="next-turn", scale=5, min_width=240, max_lines=4)
        go_on = gr.Button(
            label("compare.go_on"), size="sm", interactive=False, elem_id="next-go", scale=0, min_width=200
        )
    return Votes(tie, bad, text, go_on)


def run_events(ui: Ui, row: RunRow) -> None:
    runs = row.runs
    answers = gr.State([])  # ids of the stored completions, one list per seed
    running = gr.State(
        {}
    )  # {"key", "columns", "titles"}, and once it is judged {"judgement", "answers", "places": whose they are}
    votes, shown, status = row.votes, row.shown, row.status

    def show_columns(number: int) -> list[Any]:
        return [gr.update(visible=at < number) for at in range(len(LETTERS))]

    def run_columns(
        request: gr.Request, case_id: int | None, seed: float | None, number: int, seeds: int, *given: Any
    ) -> Iterator[tuple[Any, ...]]:
        size = len(Setting._fields)
        chosen = [Setting(*given[at : at + size]) for at in range(0, len(given), size)][:number]
        columns = streaming.seeded([_column(one) for one in chosen], int(seed or 0), int(seeds or 1))
        yield from stream(request, case_id or 0, columns, titles_of(ui, columns))

    def go_on(request: gr.Request, state: dict[str, Any], text: str) -> Iterator[tuple[Any, ...]]:
        case, prompt_ids = comparing.next_turn(
            ui.store, ui.guard.person(), state.get("judgement") or 0, text or "", state.get("answers") or ()
        )
        asked = [state["columns"][place] for place in state["places"]]
        columns = [
            Column(**{**one, "sampling": SamplingSettings(**one["sampling"]), "prompt_id": prompt})
            for one, prompt in zip(asked, prompt_ids, strict=True)
        ]
        titles = [state["titles"][place] for place in state["places"]]
        yield from stream(request, case.id or 0, columns, titles, turns_of(ui, case))

    def stream(
        request: gr.Request, case_id: int, columns: list[Column], titles: list[str], *before: Part
    ) -> Iterator[tuple[Any, ...]]:
        made = Run(ui.store, ui.engine, ui.guard.person(), case_id=case_id, columns=columns, seed=0)
        run = runs.add(made, request.session_hash)
        on, off = gr.update(interactive=True), gr.update(interactive=False)
        state = {"key": run.key, "columns": [asdict(one) for one in columns], "titles": titles, "judgement": None}
        told = drawing(note(ui.guard.say("compare.running")))

        def drawn(now: Sequence[Pane]) -> dict[str, Any]:
            return drawing(*before, panes_of(ui, titles, now, run.key, _words(ui)))

        last = run.panes()
        yield drawn(last), [], off, told, state, on, on, off
        for now in run.watched():
            last = now
            yield (drawn(last), *[gr.skip()] * 7)
        if run.is_replaced:
            return
        whole = [ids for ids in run.whole() if len({last[at].text for at in _places(last, ids)}) > 1]
        told = gr.skip() if run.was_judged else finished(ui, last)  # what was said of the judgement stays
        skip = gr.skip()
        # The votes once more: what a battle that was replaced said last may have come after the first step.
        can = gr.update(interactive=sum(not pane.is_void for pane in last) > 1)
        yield skip, whole, gr.update(interactive=bool(whole)), told, skip, can, can, skip

    def stop_all(key: str) -> Any:
        run = runs.of(ui.guard.person(), key)
        return drawing(_stopped(ui, run.stop(), run.panes()))

    def act(state: dict[str, Any], event: gr.EventData) -> list[Any]:
        place, what, key = int(event._data["at"]), str(event._data["act"]), str(event._data.get("key", ""))
        run = runs.of(ui.guard.person(), key)
        if what == "stop":
            return [drawing(_stopped(ui, run.stop(place), run.panes(), place)), gr.skip(), gr.skip()]
        if what == "best":
            return judged(state, key, [1 if at == place else 2 for at in range(len(run.panes()))])
        kept = run.panes()[place].completion_id
        if what == "demonstration":
            made: Any = comparing.keep_as_demonstration(ui.store, ui.guard.person(), kept or 0)
        else:
            made = comparing.keep_as_case(ui.store, ui.guard.person(), kept or 0)
        return [drawing(note(ui.guard.say(f"compare.kept.{what}", id=made.id), "ok")), gr.skip(), gr.skip()]

    def judged(state: dict[str, Any], key: str, ranks: list[int], both_bad: bool = False) -> list[Any]:
        try:
            refuse_others(key, state.get("key", ""))
            run = runs.of(ui.guard.person(), key)
            said = streaming.vote(ui.store, ui.guard.person(), run, ranks, both_bad=both_bad)
        except CannotVote as problem:  # said where everything else about the run is said
            return [drawing(note(ui.text.problem(problem, ui.guard.language()), "bad")), gr.skip(), gr.skip()]
        now = run.panes()
        best = streaming.best_places(ui.store, run, said)  # of what is stored: a run is judged once
        told = ui.guard.say(
            "compare.judged_part" if said.partial else "compare.judged", id=said.id, best=letters(best, now) or "–"
        )
        places = [at for at, pane in enumerate(now) if pane.completion_id is not None]
        answers = [now[at].completion_id for at in places]
        state = {**state, "judgement": said.id, "answers": answers, "places": places}
        return [drawing(note(told, "ok"), *_alike(ui, now)), state, gr.update(interactive=bool(best))]

    def vote_tie(state: dict[str, Any], key: str) -> list[Any]:
        return judged(state, key, [1] * len(state.get("columns", ())))

    def vote_bad(state: dict[str, Any], key: str) -> list[Any]:
        return judged(state, key, [1] * len(state.get("columns", ())), both_bad=True)

    def send_to_labelling(ids: list[list[int]]) -> tuple[Any, Any]:
        made = [comparing.send_to_labelling(ui.store, ui.guard.person(), some) for some in ids]
        key = "compare.sent" if len(made) == 1 else "compare.sent_many"
        told = ui.guard.say(key, id=", ".join(str(one.id) for one in made), n=len(made))
        return drawing(note(told, "ok")), gr.update(interactive=False)

    def ask_to_write(case_id: int | None) -> Any:
        made = comparing.ask_to_write(ui.store, ui.guard.person(), case_id or 0)
        return drawing(note(ui.guard.say("compare.asked_to_write", id=made.id), "ok"))

    row.count.input(
        show_columns, row.count, row.columns, api_name="compare_columns", show_progress="hidden", queue=False
    )
    parts = [part for setting in row.cases.settings for part in setting]
    outputs = [shown, answers, row.send, status, running, votes.tie, votes.bad, votes.go_on]
    long: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "generate", "concurrency_limit": 4}
    quick: dict[str, Any] = {"show_progress": "hidden", "queue": False}
    row.run.click(
        run_columns, [row.cases.case, row.seed, row.count, row.seeds, *parts], outputs, api_name="compare_run", **long
    )
    votes.go_on.click(go_on, [running, votes.text], outputs, api_name="compare_go_on", **long)
    row.stop.click(stop_all, row.on_page, status, api_name="compare_stop", js=f"() => {SHOWN_KEY}", **quick)
    told = [status, running, votes.go_on]
    shown.select(
        act, running, told, api_name="compare_act", trigger_mode="multiple", **quick
    )  # a click is never dropped
    of_page: dict[str, Any] = {"js": f"state => [state, {SHOWN_KEY}]", **quick}
    votes.tie.click(vote_tie, [running, row.on_page], told, api_name="compare_tie", **of_page)
    votes.bad.click(vote_bad, [running, row.on_page], told, api_name="compare_bad", **of_page)
    row.send.click(send_to_labelling, answers, [status, row.send], api_name="send_to_labelling")
    row.write.click(ask_to_write, row.cases.case, status, api_name="ask_to_write")


def refuse_others(on_page: str, key: str) -> None:
    """A judgement is of the texts that its person had before their eyes, or of none. Raises CannotVote."""
    if on_page != key:
        raise CannotVote("Other answers stand on the page by now. Read them, and judge again.", "other_answers")


def turns_of(ui: Ui, case: Case) -> Part:
    """What the columns answer: the case's question, or its conversation so far."""
    return messages(
        {"role": turn["role"], "label": ui.guard.say(f"label.role.{turn['role']}"), "text": turn["content"]}
        for turn in conversation(case.values, case.conversation)
    )


def _column(chosen: Setting) -> Column:
    sampling = SamplingSettings(
        temperature=float(chosen.temperature or 0),
        top_p=float(chosen.top_p or 0),
        max_tokens=int(chosen.max_tokens or 0),
    )
    return Column(template_id=chosen.template or 0, model_id=chosen.model or 0, sampling=sampling)


def titles_of(ui: Ui, columns: Sequence[Column]) -> list[str]:
    """Template and model of each column, and its seed where there are several: engineers see them, annotators never do."""
    person = ui.guard.person()
    models = {model.id: model.name for model in streaming.policies(ui.store, person)}
    seeds = len({one.seed for one in columns}) > 1
    titles = []
    for one in columns:
        template = prompting.template(ui.store, person, one.template_id)
        seed = f" · {ui.guard.say('compare.seed')} {one.seed}" if seeds else ""
        titles.append(f"{template.name} · v{template.version} · {models.get(one.model_id, '?')}{seed}")
    return titles


def panes_of(
    ui: Ui,
    titles: Sequence[str],
    now: Sequence[Pane],
    key: str,
    words: dict[str, str] | None = None,
    *,
    is_blind: bool = False,
) -> Part:
    """The columns of the run ``key`` as they stand; with ``words`` they can be judged, stopped and kept. Figures, which may tell
    who writes, are not part of a blind one."""
    return panes(
        (
            {
                "badge": _letter(at, len(titles)),
                "title": titles[at],
                "text": pane.text,
                "state": pane.state,
                "void": pane.is_void,
                "problem": ui.text.problem(pane.problem, ui.guard.language()) if pane.problem else "",
                "foot": _foot(ui, pane, is_blind),
                "logps": [[text, round(logp, 3)] for text, logp in pane.token_logps] if words else [],
                "acts": _acts(pane, now) if words else "",
            }
            for at, pane in enumerate(now)
        ),
        words or {},
        key=key,
    )


def _letter(at: int, columns: int) -> str:
    return LETTERS[at] if columns <= len(LETTERS) else str(at + 1)


def letters(places: Sequence[int], now: Sequence[Pane]) -> str:
    """The columns at these places by their letters."""
    return ", ".join(_letter(at, len(now)) for at in places)


def _acts(pane: Pane, now: Sequence[Pane]) -> str:
    """What can be done with a column now, with spaces between: sent as a list, some columns kept a "stop" that had gone."""
    has_rivals = sum(not one.is_void for one in now) > 1
    acts = ["best"] if pane.text and not pane.is_void and has_rivals else []
    if pane.state in ("waiting", "streaming"):
        acts.append("stop")
    elif pane.state == "done" and pane.completion_id:
        acts += ["demonstration", "case"]
    return " ".join(acts)


def _words(ui: Ui) -> dict[str, str]:
    return {name: ui.guard.say(f"compare.{name}") for name in WORDS}


def _foot(ui: Ui, pane: Pane, is_blind: bool) -> str:
    if is_blind:
        return ui.guard.say(f"battle.{pane.state}") if pane.state in ("done", "streaming") else ""
    if pane.state == "waiting" and pane.place:
        return ui.guard.say("compare.pane.in_line", place=pane.place)
    said = ui.guard.say(f"compare.pane.{pane.state}", tokens=pane.tokens, seconds=f"{pane.seconds:.1f}")
    if pane.state != "done" or not pane.seconds:
        return said
    rate = ui.guard.say(
        "compare.pane.rate", first=f"{pane.first_seconds:.2f}", rate=f"{pane.tokens / pane.seconds:.0f}"
    )
    logp = "" if pane.mean_logp is None else " · " + ui.guard.say("compare.pane.logp", logp=f"{pane.mean_logp:.2f}")
    return f"{said} · {rate}{logp}"


def _places(now: Sequence[Pane], ids: Sequence[int]) -> list[int]:
    return [at for at, pane in enumerate(now) if pane.completion_id in ids]


def _alike(ui: Ui, now: Sequence[Pane]) -> list[Part | None]:
    """Columns of one text, as happens with one seed and prompts that differ little, are told: they are judged as one."""
    same: dict[str, list[int]] = {}
    for at, pane in enumerate(now):
        if pane.text and not pane.is_void:
            same.setdefault(pane.text, []).append(at)
    return [note(ui.guard.say("compare.alike", letters=letters(at, now))) for at in same.values() if len(at) > 1]


def finished(ui: Ui, now: Sequence[Pane]) -> dict[str, Any]:
    """What became of columns that all came to an end, whether by themselves or not."""
    failed = [at for at, pane in enumerate(now) if pane.state == "failed"]
    why = note(ui.guard.say("compare.no_answer", letters=letters(failed, now)), "bad") if failed else None
    alike = _alike(ui, now)
    answers = [pane for pane in now if not pane.is_void]
    stopped = [at for at, pane in enumerate(now) if pane.state == "stopped"]
    if len(answers) > 1 and len({pane.text for pane in answers}) == 1 and all(one.completion_id for one in answers):
        said, alike = note(ui.guard.say("problem.all_the_same"), "warn"), []
    elif stopped:
        said = _stopped(ui, stopped, now)
    elif len(answers) < 2:
        said = note(ui.guard.say("compare.one_stored"), "warn") if answers else None
    else:
        said = note(ui.guard.say("compare.stored_others" if failed else "compare.stored", of=len(answers)), "ok")
    return drawing(why, said, *alike, note(engine_event(ui), "warn"))


def _stopped(ui: Ui, places: Sequence[int], now: Sequence[Pane], wanted: int | None = None) -> Part | None:
    """Which columns stopped, and only those; ``wanted``: the one that was to stop, where not all were."""
    if not places:
        name = "" if wanted is None else letters([wanted], now)
        return note(ui.guard.say("compare.one_ended" if name else "compare.all_ended", letter=name))
    goes_on = any(pane.state in streaming.UNDER_WAY for pane in now)
    is_empty = all(now[at].is_void for at in places)
    key = "compare.one_stopped" if goes_on else "compare.stopped_empty" if is_empty else "compare.stopped"
    return note(ui.guard.say(key, letters=letters(places, now)), "info" if goes_on else "warn")
