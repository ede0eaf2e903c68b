"""All strings, gathered: each file holds {"key": ("English", "中文")} for one page."""

from ui.strings import (
    bake,
    boards,
    build,
    compare,
    engines,
    exchange,
    found,
    gallery,
    label,
    models,
    order,
    people,
    problems,
    quality,
    refusals,
    refused_cases,
    review,
    rounds,
    rows,
    serve,
    shell,
    suites,
    train,
    tune,
    views,
    work,
)

FILES = (
    shell, problems, refusals, refused_cases, work, views, label, build, rows, serve, gallery, tune, suites, found, compare, quality, boards, order, review, train, rounds,
    bake, models, engines, people, exchange,
)  # fmt: skip

STRINGS: dict[str, tuple[str, ...]] = {key: texts for file in FILES for key, texts in file.STRINGS.items()}
