"""The command line: every verb is one call of an activity; without a verb the app is served."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from backend import (
    administering,
    alternating,
    exchanging,
    exporting,
    importing,
    opening,
    promoting,
    retraining,
    scenarios,
    signing_in,
    starting,
)
from backend.exchange.scenario import LANGUAGES
from backend.problem import Problem
from backend.settings import Settings, load
from backend.training.settings import KINDS, IFTSettings, RewardSettings, RoundsSettings, options
from feedback_db import NotFound, Store, StoreProblem, people, prompts
from feedback_db.types import Job, Model, Person, Project

FOR_PEOPLE = (
    Problem,
    NotFound,
    StoreProblem,
)  # their messages say what to do; anything else is a bug and keeps its traceback

ROUND_JOBS = {
    "reward": RewardSettings,
    "ift": IFTSettings,
}  # whose settings a series of rounds takes, under their names

# What stands before a verb holds: without this the verb's own options would put "not given" over it.
KEPT: dict[str, Any] = {"argument_default": argparse.SUPPRESS}


class NoSuch(Problem):
    """A name given on the command line is not known."""


def main(argv: list[str], serve: Callable[[Settings], int]) -> int:
    """Run one verb. Returns the exit status: 0 done, 1 the work failed, 2 it could not begin."""
    args = _parser().parse_args(argv)
    given = {f.name: getattr(args, f.name, None) for f in fields(Settings)}
    try:
        settings = load(given)
        return args.run(args, settings) if hasattr(args, "run") else serve(settings)
    except FOR_PEOPLE as problem:
        print(f"whetstone: {problem}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Whetstone. Without a verb the app is served.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    _serving_options(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    _serving_options(verbs.add_parser("serve", help="serve the app (the same as no verb)", **KEPT))
    engine = _verb(verbs, "engine", _engine, "run only the engine: an OpenAI-compatible server on loopback")
    engine.add_argument("--port", dest="engine_port", type=int, default=0, help="0 takes a free one")
    demo = _verb(verbs, "demo", _demo, "run the whole loop with a scripted annotator and print its figures")
    demo.add_argument("--seed", type=int, default=0)
    imported = _verb(
        verbs, "import", _import, "take in preference data, plain texts, or prompts and tests of other tools"
    )
    imported.add_argument("file", type=Path, nargs="+", help="the main file, then files that it names")
    imported.add_argument(
        "--format",
        default="",
        choices=(*exchanging.FORMATS, *importing.FORMATS),
        help="told by the file itself when left out",
    )
    imported.add_argument("--project", required=True, help="made when it does not exist")
    imported.add_argument(
        "--dry-run",
        dest="dry_run",
        action="store_true",
        default=False,
        help="only say what would be taken, mapped and refused",
    )
    _scenario_verbs(verbs)
    exported = _verb(verbs, "export", _export, "write a template, a suite or a run for other tools")
    exported.add_argument("what", choices=("template", "suite", "run"))
    exported.add_argument("id", type=int)
    exported.add_argument("--format", required=True, choices=exporting.FORMATS)
    exported.add_argument(
        "--template",
        dest="templates",
        type=int,
        action="append",
        default=[],
        help="of a suite: written in this template too",
    )
    exported.add_argument("--out", type=Path, help="the file to write (named after what is exported, in this folder)")
    user = _verb(verbs, "user", _user, "add a person, or give one a new sign-in link")
    user.add_argument("name")
    user.add_argument("--role", choices=("annotator", "engineer", "admin"), default="annotator")
    _training_verb(verbs)
    promote = _verb(verbs, "promote", _promote, "put a model live")
    promote.add_argument("model_id", type=int)
    promote.add_argument("--reason", default="promoted from the command line")
    roll_back = _verb(verbs, "roll-back", _roll_back, "put the model back that was live before this one")
    roll_back.add_argument("model_id", type=int)
    return parser


def _serving_options(parser: argparse.ArgumentParser) -> None:
    _common_options(parser)
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (7860)")
    parser.add_argument("--allowed-hosts", dest="allowed_hosts", help="names this server is reached by, with commas")
    parser.add_argument(
        "--engine-hosts", dest="engine_hosts", help="remote engines that may be called: host or host:port, with commas"
    )
    parser.add_argument(
        "--behind-proxy", dest="behind_proxy", action="store_const", const=True, help="a proxy does TLS"
    )


def _common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", dest="data_dir", type=Path, help="folder of the database and the models (data)")
    parser.add_argument("--model", help="base model: a folder or a hub id (the embedded starter model)")
    parser.add_argument("--device", help="the engine's: auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", help="the engine's: auto, float32, bfloat16, float16")
    parser.add_argument("--attention", help="the engine's: auto, sdpa, eager, flash_attention_2")
    parser.add_argument(
        "--quantisation", help="of the engine's weights: none, int8 on a processor, 8bit or 4bit by bitsandbytes"
    )


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace, Settings], int], help: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=help, description=help, **KEPT)
    _common_options(parser)
    parser.set_defaults(run=run)
    return parser


def _scenario_verbs(verbs: Any) -> None:
    """``scenario list`` and ``scenario add``."""
    of = verbs.add_parser("scenario", help="ready scenarios: list them, add one to a project").add_subparsers(
        required=True, metavar="ACT"
    )
    listed = _verb(of, "list", _list_scenarios, "what the gallery holds")
    listed.add_argument("--language", choices=LANGUAGES, help="only this one (both)")
    added = _verb(of, "add", _add_scenario, "take a scenario into a project")
    added.add_argument("scenario", help='its name, such as "service intent"')
    added.add_argument("--language", choices=LANGUAGES, default=LANGUAGES[0])
    added.add_argument("--project", required=True, help="made when it does not exist")


def _training_verb(verbs: Any) -> None:
    """``train reward``, ``train ppo`` and so on; their options are the fields of the settings."""
    train = verbs.add_parser("train", help="train a model and wait for it").add_subparsers(
        required=True, metavar="KIND"
    )
    for kind, settings in KINDS.items():
        parser = _verb(train, kind, _train, f"train with {kind}")
        parser.set_defaults(kind=kind)
        parser.add_argument("--project", default=starting.SAMPLE)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument(
            "--despite", default="", help="why to go on with a weak reward model; for kinds that follow one"
        )
        _setting_options(parser, settings)
    parser = _verb(train, "rounds", _train_rounds, "train reward model and policy in turns, in rounds")
    parser.add_argument("--project", default=starting.SAMPLE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--despite", default="", help="why to go on with a weak reward model")
    _setting_options(parser, RoundsSettings)
    for kind, settings in ROUND_JOBS.items():
        _setting_options(parser, settings, f"{kind}-")


def _setting_options(parser: argparse.ArgumentParser, settings: type[Any], prefix: str = "") -> None:
    """One option per setting."""
    for option in options(settings):
        flag, name = "--" + prefix + option.name.replace("_", "-"), prefix.replace("-", "_") + option.name
        said: dict[str, Any] = {"dest": f"set_{name}", "help": f"{option.help} ({option.default})"}
        if option.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **said)
        else:
            parser.add_argument(flag, metavar="VALUE", **said)


# ---- verbs


def _engine(args: argparse.Namespace, settings: Settings) -> int:
    from backend.engines.local.__main__ import main as run_engine
    from backend.registry import bases
    from backend.settings import STARTER

    base = bases.locate(settings.model, STARTER)
    with opening.opened(settings):  # makes the data folder, the database and the row of the base
        pass
    return run_engine(
        ["--data-dir", str(settings.data_dir), "--base", str(base.folder), "--port", str(args.engine_port)]
        + ["--device", settings.device, "--dtype", settings.dtype]
        + ["--attention", settings.attention, "--quantisation", settings.quantisation]
    )


def _demo(args: argparse.Namespace, settings: Settings) -> int:
    from backend import demo

    return demo.run(settings, seed=args.seed, own_folder=args.data_dir is None)


def _import(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        starting.ensure_sample(house.store)
        person = _operator(house.store)
        if args.format in exchanging.FORMATS:
            return _import_rows(args, house.store, person)
        plan = importing.plan_import(person, args.file, format=args.format)
        _say_plan(plan)
        if args.dry_run:
            return 0
        project = importing.project_for(house.store, person, args.project)
        assert project.id is not None
        kept = importing.apply_import(house.store, person, project.id, plan).kept
    print(
        f"New in {project.name}: {kept.new_templates} templates, {kept.new_cases} cases, {kept.new_suites} suites, "
        f"{kept.new_demonstrations} demonstrations, {kept.new_pairs} judged comparisons."
    )
    return 0


def _import_rows(args: argparse.Namespace, store: Store, person: Person) -> int:
    if args.dry_run or len(args.file) > 1:
        raise NoSuch(f"The format {args.format} takes one file and has no dry run. Leave the others and --dry-run out.")
    report = exchanging.import_file(store, person, args.file[0], format=args.format, project=args.project)
    for refusal in report.refused:
        print(f"line {refusal.line}: {refusal.field}: {refusal.reason}")
    print(f"{report.taken} rows taken, {len(report.refused)} refused, {report.duplicates} duplicates.")
    return 0


def _list_scenarios(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        found = scenarios.gallery(_operator(house.store), language=getattr(args, "language", None))
    for one in found:
        print(f"{one.area:10} {one.key:24} {one.language}  {one.title}: {len(one.cases)} cases")
    return 0


def _add_scenario(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        starting.ensure_sample(house.store)
        person = _operator(house.store)
        chosen = scenarios.scenario(person, args.scenario, args.language)
        project = prompts.project_named(house.store, args.project.strip())
        if project is None:
            added = scenarios.add_to_new(house.store, person, chosen, args.project)
        else:
            added = scenarios.add(house.store, person, chosen, project.id or 0)
    print(
        f"{chosen.title} is in {added.project.name}: {added.templates} template versions, "
        f"{added.demonstrations} demonstrations and {added.cases} cases are new."
    )
    return 0


def _say_plan(plan: importing.Plan) -> None:
    print(
        f"{plan.source} ({plan.format}): {plan.count('taken')} taken, {plan.count('mapped')} mapped, {plan.count('refused')} refused"
    )
    for note in plan.notes:
        place = f"{note.file}:{note.line}" if note.line else note.file
        print(f"{note.fate:8} {place}: {note.field}: {note.reason}")
        for line in note.shown.splitlines()[:20] if note.fate == "refused" else ():
            print(f"         | {line}")


def _export(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        person = _operator(house.store)
        made = exporting.export(
            house.store, person, args.what, args.id, args.format, template_ids=args.templates, engine=house.engine
        )
    path = getattr(args, "out", None) or Path(made.name)
    path.write_bytes(made.data)
    for remark in made.remarks:
        print(f"{remark.fate:8} {remark.field}: {remark.reason}")
    print(f"{path} written, {len(made.data):,} bytes.")
    return 0


def _user(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        known = people.by_name(house.store, args.name)
        if known is not None and known.id is not None:
            invited = administering.new_invite(house.store, _operator(house.store), known.id)
        else:
            invited = administering.add_person(house.store, _operator(house.store), args.name, args.role)
    print(f"One-time sign-in link of {args.name} ({invited.person.role}), good for 72 hours:")
    print(f"  http://{settings.host}:{settings.port}/invite/{invited.token}")
    return 0


def _train(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        project = _project(house.store, args.project)
        assert project.id is not None
        person = _operator(house.store)
        job = retraining.train(
            house.store, person, project.id, args.kind, changes=changes_of(args), seed=args.seed, despite=args.despite
        )
        job = house.jobs.run_to_end(job, _say_step)
    print(json.dumps({"job": job.id, "state": job.state, "model_id": job.output_model_id, "error": job.error}))
    return 0 if job.state == "done" else 1


def _train_rounds(args: argparse.Namespace, settings: Settings) -> int:
    """Until the series ends, or waits for people: they need the pages, and the served app goes on with it."""
    given = changes_of(args)
    of_jobs = {
        kind: {k.removeprefix(f"{kind}_"): v for k, v in given.items() if k.startswith(f"{kind}_")}
        for kind in ROUND_JOBS
    }
    changes = {k: v for k, v in given.items() if not k.startswith(tuple(f"{kind}_" for kind in ROUND_JOBS))}
    with opening.opened(settings) as house:
        project = _project(house.store, args.project)
        assert project.id is not None
        person = _operator(house.store)
        first = alternating.start_rounds(
            house.store,
            person,
            project.id,
            changes=changes,
            reward=of_jobs["reward"],
            ift=of_jobs["ift"],
            seed=args.seed,
            despite=args.despite,
        )
        last = alternating.run_to_rest(house.store, house.jobs, person, first, _say_round).round
        log = [view.round for view in alternating.round_log(house.store, person, project.id)]
    done = [round for round in reversed(log) if round.series == first.series]
    told = [{"round": r.number, "state": r.state, "reason": r.reason, **r.facts} for r in done]
    print(json.dumps({"series": first.series, "rounds": told}))
    return 1 if last.state in ("failed", "stopped") else 0


def changes_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names, as it means them."""
    named = {name.removeprefix("set_"): value for name, value in vars(args).items() if name.startswith("set_")}
    return {name: _number(value) for name, value in named.items() if value is not None}


def _say_round(view: alternating.RoundView) -> None:
    round, job = view.round, view.jobs[1] or view.jobs[0]
    step = f", job {job.id}: step {job.step} of {job.total_steps or '?'}" if job and not round.finished_at else ""
    owed = f", {view.waits_for} judgements are missing: serve the app, it goes on there" if view.waits_for else ""
    print(f"round {round.number} of {round.wanted}: {round.state.replace('_', ' ')}{step}{owed}", flush=True)


def _say_step(job: Job) -> None:
    print(f"job {job.id}: step {job.step} of {job.total_steps or '?'}", flush=True)


def _promote(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        person = _operator(house.store)
        model = promoting.promote(house.store, settings.models_dir, person, args.model_id, reason=args.reason)
    return _say_live(model)


def _roll_back(args: argparse.Namespace, settings: Settings) -> int:
    with opening.opened(settings) as house:
        model = promoting.roll_back(house.store, settings.models_dir, _operator(house.store), args.model_id)
    return _say_live(model)


def _say_live(model: Model) -> int:
    print(f"{model.name} (model {model.id}) is live.")
    return 0


def _operator(store: Store) -> Person:
    """Whoever can run this program on the data folder may do what an admin may; acts are written down as theirs."""
    signing_in.first_admin_token(store)  # makes the first admin where there is none; the link itself is not shown here
    return people.active_admins(store)[0]


def _project(store: Store, name: str) -> Project:
    starting.ensure_sample(store)
    found = prompts.project_named(store, name)
    if found is None:
        known = ", ".join(project.name for project in prompts.projects(store))
        raise NoSuch(f"There is no project {name!r}. Known: {known}.")
    return found


def _number(text: str | bool) -> Any:
    if isinstance(text, bool):  # a switch is no number, though Python counts with it
        return text
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text
