"""What the test page draws: runs, columns, pairs of columns, cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from backend import prompting
from backend.stats.agreement import Estimate
from backend.suites.agreeing import Agreement
from backend.suites.grading import OF_RUN
from backend.suites.running import Arm
from backend.suites.summary import Column, Pair, Summary
from backend.testing import Progress, Row
from feedback_db.types import Model, SuiteRun
from ui.context import Ui
from ui.views.drawn import badge, drawing, heading, messages, note, table
from ui.views.words import clipped, clock, engine_event, figure, in_words, share

LETTERS = "ABCDEFGH"
SURE = 0.05
CUT = "length"  # the finish reason of an answer that reached the limit of tokens


def runs_shown(ui: Ui, found: Sequence[Progress], titles: Mapping[int, str], chosen: int | None) -> dict[str, Any]:
    """``titles``: of suites, by id."""
    say = ui.guard.say
    tones = {"running": "info", "stopped": "warn", "done": "ok"}
    rows = [
        (
            one.run.id or 0,
            [
                str(one.run.id),
                titles.get(one.run.suite_id, ""),
                clock(one.run.created_at),
                f"{one.done:,} / {one.run.total:,}",
                badge(say(f"suites.state.{one.run.state}"), tones[one.run.state]),
            ],
        )
        for one in found
    ]
    columns = [say(f"suites.{name}") for name in ("which", "suite", "when", "done", "state")]
    return drawing(
        table(
            columns,
            rows,
            caption=say("suites.runs"),
            empty=say("suites.no_runs"),
            chosen=chosen,
            selects=True,
            numbers=[3],
        )
    )


def run_shown(
    ui: Ui,
    progress: Progress,
    arms: Sequence[Arm],
    summary: Summary,
    agreed: Sequence[tuple[Model, Agreement]],
    cut: int = 0,
    worse: int = 0,
) -> dict[str, Any]:
    """``cut``: answers that were cut at the limit of tokens; ``worse``: regressions that stand first."""
    say = ui.guard.say
    against = len(summary.pairs)
    most = max((int(arm.sampling.settings["max_tokens"]) for arm in arms), default=0)
    return drawing(
        note(in_words(ui, progress.run.problem), "bad"),
        note(engine_event(ui), "warn") if progress.run.state == "running" else None,
        note(say("suites.without", n=progress.failed), "warn") if progress.failed else None,
        note(say("suites.cut_off", n=cut, most=most), "warn") if cut else None,
        table(
            [say(f"suites.{name}") for name in ("column", "passed", "score", "flaky", "seconds", "tokens")],
            [(at, _column(at, arms, column)) for at, column in enumerate(summary.columns)],
            caption=say("suites.columns"),
            empty="",
            numbers=[1, 2, 3, 4, 5],
        ),
        heading(say("suites.pairs")) if summary.pairs else None,
        table(
            [say(f"suites.{name}") for name in ("column", "flips", "p", "gain", "says")],
            [(pair.arm, _pair(ui, pair)) for pair in summary.pairs],
            caption=say("suites.pairs"),
            empty="",
            numbers=[1, 2, 3],
        )
        if summary.pairs
        else None,
        note(say("suites.many", n=against, chance=share(1 - (1 - SURE) ** against))) if against > 1 else None,
        note(say("suites.worse_first", n=worse), "bad") if worse else None,
        _sent_by_rule(ui, progress.run),
        heading(say("suites.agreement")) if agreed else None,
        table(
            [say(f"suites.{name}") for name in ("grader", "accuracy", "kappa", "people")],
            [(model.id or 0, _agreement(ui, model, found)) for model, found in agreed],
            caption=say("suites.agreement"),
            empty="",
            numbers=[1, 2, 3],
        )
        if agreed
        else None,
    )


def _sent_by_rule(ui: Ui, run: SuiteRun) -> Any:
    """What went to labelling by itself; nothing of a run that sends nothing, or is not done."""
    if not run.sends or run.state != "done":
        return None
    if run.sent:
        return note(ui.guard.say("suites.sent_by_rule", n=run.sent), "ok")
    return note(ui.guard.say("suites.none_by_rule"), "warn")


def cases_shown(
    ui: Ui, rows: Sequence[Row], n: int, start: int, chosen: int | None, marks: Set[tuple[int, int]] = frozenset()
) -> dict[str, Any]:
    """``marks`` are (case id, column)."""
    say = ui.guard.say
    arms = len(rows[0].cells) if rows else 0
    told = [
        (row.case.id or 0, [clipped(prompting.case_text(row.case), 60), *(_cell(ui, cells) for cells in row.cells)])
        for row in rows
    ]
    where = say("suites.page", first=start + 1, last=start + len(rows), n=n) if rows else ""
    return drawing(
        table(
            [say("suites.case"), *LETTERS[:arms]], told, caption=where or say("suites.show"), empty=say("suites.no_rows"),
            chosen=chosen, selects=True, marks=sorted(marks), marking=(say("suites.mark"), LETTERS[:arms]), tall=True,
        ),
        note(where) if where else None,
    )  # fmt: skip


def case_shown(ui: Ui, row: Row, names: Sequence[str]) -> dict[str, Any]:
    """The case, what is expected, and every answer with what the checks said."""
    say = ui.guard.say
    items = [{"role": "user", "label": say("suites.case"), "text": prompting.case_text(row.case), "foot": ""}]
    if row.case.expected:
        items.append({"role": "system", "label": say("suites.expected"), "text": row.case.expected, "foot": ""})
    for at, cells in enumerate(row.cells):
        for cell, answer in cells:
            foot = " · ".join(
                f"{name} {'?' if len(result) > 3 else '✓' if result[1] else '✗'} {in_words(ui, result[2])}"
                for name, result in zip(names, cell.results, strict=False)
            )
            verdict = say("suites.pass") if cell.passed else say("suites.fail")
            text = answer.text if answer else in_words(ui, cell.problem)
            label = f"{LETTERS[at]} · {verdict if answer else say('suites.no_answer')} · {cell.score:.2f}"
            label += f" · {say('suites.cut')}" if answer and answer.finish_reason == CUT else ""
            items.append({"role": "assistant", "label": label, "text": text, "foot": foot})
    return drawing(messages(items))


def _agreement(ui: Ui, model: Model, found: Agreement) -> list[Any]:
    """With people who judged the same answers; never a figure that rests on nobody."""
    kind = ui.guard.say("suites.is_judge" if found.grader == OF_RUN else "suites.is_reward")
    if not found.kappa.n:
        return [f"{model.name} · {kind}", badge(ui.guard.say("suites.not_known_yet"), "info"), "–", "0"]
    return [
        f"{model.name} · {kind}",
        _share(found.accuracy),
        f"{_range(found.kappa)}, n = {found.kappa.n}",
        str(found.people),
    ]


def _column(at: int, arms: Sequence[Arm], column: Column) -> list[Any]:
    arm = arms[at]
    name = f"{LETTERS[at]}  {arm.template.name} · v{arm.template.version} × {arm.model.name}"
    if len({one.sampling.id for one in arms}) > 1:
        name += f" · T = {arm.sampling.settings['temperature']:g}"
    prompt = "–" if math.isnan(column.prompt_tokens) else f"{column.prompt_tokens:.0f}"
    told, seconds = column.tokens, column.seconds
    return [
        name,
        _share_cell(column.passed),
        _below(f"{column.score.value:.2f}", f"{column.score.low:.2f}–{column.score.high:.2f}", column.score.n),
        _share_cell(column.flaky),
        _below(figure(seconds.value), f"{figure(seconds.low)}–{figure(seconds.high)}", seconds.n),
        _below(f"{prompt} + {told.value:.0f}", f"{told.low:.0f}–{told.high:.0f}", told.n),
    ]


def _share_cell(value: Estimate) -> Any:
    return _below(share(value.value), f"{share(value.low)}–{share(value.high)}", value.n) if value.n else "–"


def _below(text: str, interval: str, n: int) -> Any:
    """A figure with its interval and n below it."""
    return {"text": text, "sub": f"{interval}, n = {n:,}"} if n else "–"


def _pair(ui: Ui, pair: Pair) -> list[Any]:
    flips = pair.flips
    return [
        LETTERS[pair.arm],
        f"{flips.gained} / {flips.lost}",
        f"{pair.adjusted:.3f}",
        _range(pair.gain, "+"),
        _says(ui, pair),
    ]


def _says(ui: Ui, pair: Pair) -> Any:
    say = ui.guard.say
    if pair.adjusted < SURE:
        is_better = pair.flips.gained > pair.flips.lost
        return badge(say("suites.better" if is_better else "suites.worse"), "ok" if is_better else "bad")
    if pair.needed is not None:
        return badge(say("suites.needs", n=f"{pair.needed:,}"), "info")
    moved = pair.gain.low > 0 or pair.gain.high < 0
    return badge(say("suites.more_cases" if moved else "suites.even"), "info")


def _cell(ui: Ui, cells: Sequence[Any]) -> Any:
    if not cells:
        return ""
    passed = sum(cell.passed for cell, _ in cells)
    if all(answer is None for _, answer in cells):
        return badge(ui.guard.say("suites.no_answer"), "warn")
    if len(cells) > 1:
        return badge(f"{passed} / {len(cells)}", "ok" if passed == len(cells) else "bad" if not passed else "warn")
    cell, answer = cells[0]
    word = ui.guard.say("suites.pass" if cell.passed else "suites.fail")
    word += f" · {ui.guard.say('suites.cut')}" if answer.finish_reason == CUT else ""
    return badge(f"{word} · {clipped(answer.text, 28)}", "ok" if cell.passed else "bad")


def _share(value: Estimate) -> str:
    return f"{share(value.value)} ({share(value.low)}–{share(value.high)}, n = {value.n})" if value.n else "–"


def _range(value: Estimate, sign: str = "") -> str:
    return f"{value.value:{sign}.2f} ({value.low:{sign}.2f} – {value.high:{sign}.2f})" if value.n else "–"
