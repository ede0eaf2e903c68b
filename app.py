"""Whetstone: `python app.py` serves the app; `python app.py --help` lists what else it can do."""

import sys

from backend import alternating, baking, cli, comparing, opening, prioritising, signing_in, starting, testing
from backend.jobs.repeating import Repeating
from backend.measuring import running as measuring
from backend.settings import Settings
from backend.suites import running
from feedback_db import prompts


def serve(settings: Settings) -> int:
    """Open the house, start what runs beside the pages, and answer until a signal ends it."""
    with opening.opened(settings) as house:
        opening.refuse_exposure(settings, house.store)
        starting.ensure_sample(house.store)
        from ui.context import Ui  # gradio takes seconds to import: only after everything that may be refused
        from ui.serving import answer
        from ui.text import Text
        from ui.web import create_app

        pages = create_app(Ui(store=house.store, engine=house.engine, jobs=house.jobs, settings=settings, text=Text()))
        beside = [
            Repeating("supervisor", lambda: _work(house), every_seconds=1),
            Repeating("refill", lambda: _refill(house), every_seconds=3),
            Repeating("ordering", lambda: prioritising.advance(house.store), every_seconds=60),
            Repeating("suites", lambda: _test(house), every_seconds=0.5),
            Repeating("measuring", lambda: measuring.advance(house.store, house.engine), every_seconds=0.5),
        ]

        def started() -> None:
            for repeating in beside:
                repeating.start()
            _greet(settings, signing_in.first_admin_token(house.store))

        try:
            answer(pages, settings, started)
        finally:
            for repeating in beside:
                repeating.end()
    return 0


def _greet(settings: Settings, first_admin_token: str | None) -> None:
    address = f"http://{settings.host}:{settings.port}"
    print(f"Whetstone answers at {address}", flush=True)
    if first_admin_token is not None:
        print(f"One-time sign-in link of the first admin:\n  {address}/invite/{first_admin_token}", flush=True)


def _work(house: opening.House) -> None:
    house.jobs.tick()
    alternating.advance(house.store)


def _test(house: opening.House) -> None:
    testing.follow(house.store)
    running.advance(house.store, house.engine)
    baking.advance(house.store, house.engine)


def _refill(house: opening.House) -> None:
    for project in prompts.projects(house.store):
        if project.id is not None:
            comparing.refill(house.store, house.engine, project_id=project.id, target=house.settings.queue_target)
    for wanted in alternating.wanted_answers(house.store):
        comparing.ask_about(
            house.store, house.engine, project_id=wanted.project_id, model_id=wanted.model_id, count=wanted.missing
        )


if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:], serve))
