"""Opening the house: the data folder, the database, the base model, the engine and the supervisor of jobs."""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backend.engines.choosing import Engines
from backend.engines.process import EngineProcess
from backend.jobs.supervisor import Supervisor
from backend.problem import Problem
from backend.registry import bases
from backend.settings import STARTER, Settings
from feedback_db import Store, models, people
from feedback_db.types import Model


class InUse(Problem):
    """Another process owns this data folder."""


class Insecure(Problem):
    """The app would be reachable in a way that is not safe; the message lists what is missing."""


@dataclass(frozen=True)
class House:
    """What every page and verb is given."""

    settings: Settings
    store: Store
    base: bases.Base
    engine: Engines
    jobs: Supervisor


@contextmanager
def opened(settings: Settings) -> Iterator[House]:
    """The house of a data folder, made on first use (0700). Raises InUse, bases.BadBase, feedback_db.StoreProblem."""
    base = bases.locate(settings.model, STARTER)
    for folder in (settings.data_dir, settings.models_dir, settings.runs_dir):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(settings.data_dir, 0o700)
    lock = _locked(settings.database.with_suffix(".db.web"))
    store = Store(settings.database)
    try:
        register_base(store, base)
        local = EngineProcess(
            settings.data_dir,
            str(base.folder),
            device=settings.device,
            dtype=settings.dtype,
            attention=settings.attention,
            quantisation=settings.quantisation,
        )
        engine = Engines(local, store, settings.data_dir, settings.engine_hosts)
        supervisor = Supervisor(
            store, runs_dir=settings.runs_dir, models_dir=settings.models_dir, base=str(base.folder)
        )
        try:
            yield House(settings, store, base, engine, supervisor)
        finally:
            engine.stop()
    finally:
        store.close()
        lock.close()


def _locked(path: Path) -> IO[str]:
    """One process owns a data folder: it holds the one writer and starts the jobs."""
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  it is held open as long as the house
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "an unknown process"
        file.close()
        raise InUse(
            f"This data folder is in use by process {holder}. Stop it first, or choose another --data-dir."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def register_base(store: Store, base: bases.Base) -> Model:
    """The row of the base that is served; when no live policy stands on it, the bare base becomes the live policy."""
    with store.write():
        row = models.base_with(store, base.fingerprint)
        if row is None:
            row = store.add(
                Model(
                    name=_free_name(store, base.name),
                    kind="policy",
                    base=base.name,
                    base_fingerprint=base.fingerprint,
                    source="base",
                )
            )
        live = models.live(store, "policy")
        if live is None or live.base_fingerprint != base.fingerprint:
            row = models.move(store, row, "live", reason=f"{base.name} is the base that is served", person_id=None)
        return row


def _free_name(store: Store, wanted: str) -> str:
    taken = {model.name for model in models.all_models(store)}
    return (
        wanted
        if wanted not in taken
        else next(f"{wanted}-{n}" for n in range(2, len(taken) + 3) if f"{wanted}-{n}" not in taken)
    )


def refuse_exposure(settings: Settings, store: Store) -> None:
    """An address other machines can reach needs an admin's password, a proxy that does TLS, and the names it serves.

    Raises Insecure.
    """
    if ipaddress.ip_address("127.0.0.1" if settings.host == "localhost" else settings.host).is_loopback:
        return
    missing = []
    if not any(admin.password_hash for admin in people.active_admins(store)):
        missing.append("an admin with a password (start on 127.0.0.1 once and open the printed link)")
    if not settings.behind_proxy:
        missing.append("--behind-proxy, for a proxy in front that does TLS")
    if not settings.allowed_hosts:
        missing.append("--allowed-hosts, the names the server is reached by")
    if missing:
        raise Insecure(
            f"Listening on {settings.host} is refused: other machines could reach it. It needs "
            + "; ".join(missing)
            + "."
        )
