"""What the tune page draws: measurements, orders, the curve over numbers of demonstrations, calibration, bars, what to label next."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from backend import prompting
from backend.measuring.findings import Calibrated, Claim, Curve, Method, Order, Orders
from backend.measuring.sure import Sure
from backend.prompts.chat import text_of
from backend.stats.agreement import Estimate
from backend.tuning import Bars, NextCases, Progress, Told
from feedback_db.types import Case
from ui.context import Ui
from ui.views.drawn import badge, bars, budget, cards, curve, drawing, heading, note, strip, table
from ui.views.words import clipped, clock, duration, figure, in_words, share

TONES = {"running": "info", "stopped": "warn", "done": "ok"}
RISKY = 0.05  # of accuracy: a spread over orders beyond which a warning is shown; our choice
MOST_ORDERS = 24


def earlier_shown(ui: Ui, found: Sequence[Progress], chosen: int | None, names: dict[int, str]) -> dict[str, Any]:
    """The measurements of one kind; ``names`` are the models'."""
    say = ui.guard.say
    rows = [
        (
            one.measurement.id or 0,
            [
                str(one.measurement.id),
                names.get(one.measurement.model_id, str(one.measurement.model_id)),
                clock(one.measurement.created_at),
                f"{one.done} / {one.measurement.total}",
                badge(say(f"tune.state.{one.measurement.state}"), TONES[one.measurement.state]),
            ],
        )
        for one in found
    ]
    columns = [say(f"tune.{name}") for name in ("which", "model", "when", "parts", "state")]
    return drawing(
        table(
            columns, rows, caption=say("tune.earlier"), empty=say("tune.none"), chosen=chosen, selects=True, numbers=[3]
        )
    )


def told_shown(
    ui: Ui, told: Told, cases: Sequence[Case], place: int | None = None, waiting: Collection[int] = ()
) -> dict[str, Any]:
    """A measurement, also while it is under way; ``place``: the order, or the case, that is chosen in the table; ``waiting``:
    cases that have no answer yet."""
    found = told.found
    if isinstance(found, Sure):
        return drawing(*_progress(ui, told), *_sure(ui, found, told, cases, place, waiting))
    if isinstance(found, Orders):
        parts = _orders(ui, found, place)
    elif isinstance(found, Curve):
        parts = _curve(ui, found, told)
    else:
        parts = _calibrated(ui, found, told)
    return drawing(*_progress(ui, told), *parts, *_rests_on(ui, told, cases))


def _progress(ui: Ui, told: Told) -> list[Any]:
    say, one = ui.guard.say, told.progress
    text = say("tune.progress", done=one.done, total=one.measurement.total)
    if one.seconds_left is not None:
        text += " · " + say("tune.left", time=duration(one.seconds_left))
    is_open = one.measurement.state != "done"
    return [
        note(in_words(ui, one.measurement.problem), "bad"),
        budget(one.done, one.measurement.total, text) if is_open else None,
    ]


def _rests_on(ui: Ui, told: Told, cases: Sequence[Case]) -> list[Any]:
    say, plan = ui.guard.say, told.plan
    searched = [case for case in cases if case.id in set(plan.search)]
    val = sum(case.split == "val" for case in searched)
    said = say(
        "tune.rests_on", search=len(plan.search), val=val, train=len(plan.search) - val, test=len(plan.test),
        looks=told.looks, left_out=plan.left_out,
    )  # fmt: skip
    return [
        note(said),
        note(say("tune.no_test"), "warn") if not plan.test else None,
        note(say("tune.straddles", labels=" · ".join(told.straddling)), "warn") if told.straddling else None,
    ]


def _orders(ui: Ui, found: Orders, place: int | None) -> list[Any]:
    say = ui.guard.say
    own = next((one for one in found.orders if one.is_own), None)
    parts: list[Any] = []
    if found.accuracy and own is not None:
        low, high = found.accuracy[0], found.accuracy[-1]
        mean = sum(found.accuracy) / len(found.accuracy)
        points = f"{100 * (high - low):.1f}"
        parts += [
            cards(
                [
                    (
                        say("tune.spread"),
                        f"{points} %",
                        say("tune.spread_hint", low=share(low), high=share(high), n=len(found.accuracy)),
                    ),
                    (say("tune.own"), share(own.accuracy.value), _interval(own.accuracy)),
                    (say("tune.mean"), share(mean), say("tune.mean_hint")),
                ]
            ),
            note(say("tune.spread_warning", points=points), "warn") if high - low > RISKY else None,
            strip(
                say("tune.strip"),
                [
                    (
                        round(one.accuracy.value, 4),
                        "own" if one.is_own else "kept" if one.is_kept else "other",
                        f"{_ids(ui, one)}: {_estimate(one.accuracy)}",
                    )
                    for one in found.orders
                ],
            ),
        ]
    if found.orders and not any(one.entropy for one in found.orders):
        parts.append(note(say("tune.one_label"), "warn"))
    parts += _claimed(ui, found.claims, {name: say(f"tune.claim.{name}") for name in ("own", "entropy", "best")})
    is_case_wise = any(not one.ids for one in found.orders)
    if is_case_wise:
        parts.append(note(say("tune.order_by_case")))
    rows = [
        (at, [_ids(ui, one), _estimate(one.accuracy), f"{one.entropy:.3f}", _marks(ui, one)])
        for at, one in enumerate(found.orders)
    ]
    parts.append(
        table(
            [say(f"tune.{name}") for name in ("choices" if is_case_wise else "order", "accuracy", "entropy", "marks")], rows, caption=say("tune.orders"),
            empty="", chosen=place, selects=True, numbers=[1, 2],
        )
    )  # fmt: skip
    return parts


def _marks(ui: Ui, one: Order) -> Any:
    said = [ui.guard.say("tune.is_own")] if one.is_own else []
    said += [ui.guard.say("tune.is_kept")] if one.is_kept else []
    return badge(" · ".join(said), "warn" if one.is_own else "ok") if said else ""


def _ids(ui: Ui, one: Order) -> str:
    """Which demonstrations, or which choices, from first to last."""
    return " · ".join(map(str, one.ids or one.places)) or ui.guard.say("tune.as_nearest_last")


def _curve(ui: Ui, found: Curve, told: Told) -> list[Any]:
    say, unfit = ui.guard.say, " · ".join(map(str, told.plan.unfit))
    points = [
        {
            "name": str(one.shown), "value": one.accuracy.value, "low": one.accuracy.low, "high": one.accuracy.high,
            "lowest": one.lowest, "highest": one.highest, "chosen": one.shown == found.best,
            "hint": f"k = {one.shown}: {_estimate(one.accuracy)}",
        }
        for one in found.points
    ]  # fmt: skip
    rows = [
        (
            one.shown,
            [str(one.shown), _estimate(one.accuracy), f"{share(one.lowest)} – {share(one.highest)}", str(one.draws)],
        )
        for one in found.points
    ]
    return [
        curve(say("tune.curve"), say("tune.k"), points),
        note(say("tune.curve_note")) if points else None,
        note(say("tune.unfit", counts=unfit), "warn") if unfit else None,
        *_claimed(ui, found.claims, {claim.name: say("tune.shows", n=claim.name) for claim in found.claims}),
        table(
            [say(f"tune.{name}") for name in ("k", "accuracy", "range", "draws")],
            rows,
            caption=say("tune.curve"),
            empty="",
            numbers=[0, 1, 2, 3],
        ),
    ]


def _claimed(ui: Ui, claims: Sequence[Claim], names: dict[str, str]) -> list[Any]:
    say = ui.guard.say
    if not claims:
        return []
    rows = [
        (at, [names[one.name], _estimate(one.accuracy), _points(one.gain) if one.gain else "–"])
        for at, one in enumerate(claims)
    ]
    columns = [say(f"tune.{name}") for name in ("choice", "accuracy", "gain")]
    return [
        heading(say("tune.claims")),
        table(columns, rows, caption=say("tune.claims"), empty="", numbers=[1, 2]),
    ]


def _calibrated(ui: Ui, found: Calibrated, told: Told) -> list[Any]:
    say, parts = ui.guard.say, []
    for where, methods in (("test", found.test), ("search", found.search)):
        if methods:
            parts += [
                heading(say(f"tune.on_{where}")),
                _methods(ui, methods, told.plan.labels, say(f"tune.on_{where}")),
            ]
    return parts


def _methods(ui: Ui, methods: Sequence[Method], labels: Sequence[str], caption: str) -> Any:
    say = ui.guard.say
    rows = [
        (
            at,
            [
                say(f"tune.method.{one.name}"),
                _estimate(one.accuracy),
                _points(one.gain) if one.gain else "–",
                "–" if math.isnan(one.error) else f"{one.error:.3f}",
                "–"
                if one.name == "plain"
                else " · ".join(f"{name} {share(part)}" for name, part in zip(labels, one.prior, strict=True)),
            ],
        )
        for at, one in enumerate(methods)
    ]
    columns = [say(f"tune.{name}") for name in ("method", "accuracy", "gain", "error", "prior")]
    return table(columns, rows, caption=caption, empty="", numbers=[1, 2, 3])


def _sure(
    ui: Ui, found: Sure, told: Told, cases: Sequence[Case], chosen: int | None, waiting: Collection[int]
) -> list[Any]:
    say, known = ui.guard.say, {case.id: case for case in cases}
    if not found.picks:
        return []
    asked, picks = sorted(found.confidences), found.picks
    rows = [
        (
            one.case_id,
            [
                clipped(text_of(known[one.case_id]), 110), share(one.confidence), str(one.group), figure(one.votes),
                "" if one.case_id in waiting else badge(say("tune.labelled"), "ok"),
            ],
        )
        for one in picks
    ]  # fmt: skip
    columns = [say(f"tune.{name}") for name in ("case", "confidence", "group", "votes", "state")]
    said = say("tune.sure", n=len(asked), left_out=found.left_out, groups=len(picks))
    return [
        note(said),
        cards(
            [
                (say("tune.least_sure"), share(asked[0]), ""),
                (
                    say("tune.half_sure"),
                    share(asked[len(asked) // 2]),
                    say("tune.confidence_hint_labels" if told.plan.labels else "tune.confidence_hint"),
                ),
                (say("tune.most_sure"), share(asked[-1]), ""),
            ]
        ),
        note(say("tune.straddles", labels=" · ".join(told.straddling)), "warn") if told.straddling else None,
        table(columns, rows, caption=say("tune.unsure"), empty="", chosen=chosen, selects=True, numbers=[1, 2, 3]),
    ]


def bars_shown(ui: Ui, found: Bars | None) -> dict[str, Any]:
    say = ui.guard.say
    if found is None:
        return drawing(note(say("tune.measure_first")))
    groups = [
        (
            say(f"tune.method.{name}"),
            [(label, own[at], at == found.truth) for at, label in enumerate(found.labels)],
        )
        for name, own in found.shares.items()
    ]
    return drawing(heading(say("tune.bars"), clipped(found.text, 80)), bars(say("tune.bars"), groups))


def next_shown(ui: Ui, found: NextCases, chosen: int | None) -> dict[str, Any]:
    say = ui.guard.say
    rows = [
        (one.case.id or 0, [clipped(text_of(one.case), 110), str(one.stands_for), figure(one.score)])
        for one in found.cases
    ]
    columns = [say(f"tune.{name}") for name in ("case", "stands_for", "votes")]
    told = say("tune.next", n=len(found.cases), waiting=found.waiting, bank=found.bank)
    return drawing(
        note(told) if rows else None,
        table(
            columns,
            rows,
            caption=say("tune.tab.next"),
            empty=say("tune.nothing_next"),
            chosen=chosen,
            selects=True,
            numbers=[1, 2],
        ),
    )


def case_choices(told: Told, cases: Sequence[Case]) -> list[tuple[str, int]]:
    """The cases of a measurement, test cases first."""
    known = {case.id: case for case in cases}
    wanted = [known[id] for id in (*told.plan.test, *told.plan.search) if id in known]
    return [(f"{case.id} · {case.split} · {clipped(prompting.case_text(case), 70)}", case.id or 0) for case in wanted]


def _estimate(value: Estimate) -> str:
    return f"{share(value.value)} ({share(value.low)}–{share(value.high)}, n = {value.n})" if value.n else "–"


def _interval(value: Estimate) -> str:
    return f"{share(value.low)}–{share(value.high)}, n = {value.n}"


def _points(value: Estimate) -> str:
    """A difference of shares in points."""
    if not value.n:
        return "–"
    return f"{100 * value.value:+.1f} ({100 * value.low:+.1f} – {100 * value.high:+.1f})"
