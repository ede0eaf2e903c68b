"""A small house for UI tests: a store with people and comparisons, and a server on a free port."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from backend import signing_in
from backend.labels.form import Form
from backend.settings import Settings
from feedback_db import Store, people
from feedback_db.types import Case, Comparison, Completion, Guideline, Model, Person, Project, Prompt, Sampling
from ui.context import Ui
from ui.text import Text

PASSWORD = "correct horse battery staple"
SECRET_MODEL = "secret-policy-7"
LONG = (
    "To reset the router without losing your settings, use the restart function rather than the reset button.\n\n"
    "1. Open http://192.168.1.1 and sign in with the password printed under the device.\n"
    "2. Choose Administration > Restart, then confirm.\n3. Wait about two minutes until the power light is steady again."
)
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'> ${window.hacked=1} {{constructor}}"


ALL = Form(
    steps=6, both_good=True, aspects=("truthful", "kind"), points=True, span_tags=("false", "odd"), confidence=True
)


@dataclass(frozen=True)
class House:
    store: Store
    settings: Settings
    project: Project
    ann: Person
    eve: Person
    bob: Person
    admin: Person


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def build(folder: Path, comparisons: int = 12, overlap: int = 1, **clock: Any) -> House:
    store = Store(folder / "feedback.db", **clock)
    settings = Settings(data_dir=folder, port=0)
    ann, eve, bob, admin = (
        store.add(Person(pseudonym=name, name=name, role=role))
        for name, role in [("ann", "annotator"), ("eve", "annotator"), ("bob", "engineer"), ("root", "admin")]
    )
    project = store.add(Project(name="Helpfulness", overlap=overlap))
    store.add(Guideline(project_id=project.id, body="Choose the answer that helps more.\nThen the shorter one."))
    add_comparisons(store, project, comparisons, overlap)
    return House(store, settings, project, ann, eve, bob, admin)


def add_comparisons(
    store: Store,
    project: Project,
    number: int,
    overlap: int = 1,
    first: int = 0,
    texts: tuple[str, ...] = (f"{LONG}\n", f"{HOSTILE} "),
) -> list[Comparison]:
    """Pairs, or rankings of more, of these texts, each with the number of its case at the end."""
    made, size = [], len(texts)
    with store.write() as db:
        found = store.find(Model, "name = ?", [SECRET_MODEL])
        model = found[0] if found else store.add(Model(name=SECRET_MODEL, kind="external", base="x", source="test"))
        samplings = store.find(Sampling)
        sampling = samplings[0] if samplings else store.add(Sampling(digest=digest("s"), settings={"temperature": 1.0}))
        for n in range(first, first + number):
            question = ({"role": "system", "content": "You are a support agent. Be brief and exact."},) + (
                {"role": "user", "content": f"Question {n}: how do I restart without losing my settings?"},
            )
            case = store.add(
                Case(project_id=project.id, conversation=question, split="train", digest=digest(f"case {n}"))
            )
            prompt = store.add(
                Prompt(project_id=project.id, case_id=case.id, messages=question, digest=digest(f"prompt {n}"))
            )
            comparison = store.add(
                Comparison(
                    project_id=project.id, case_id=case.id, overlap=overlap, slots_left=overlap,
                    queue_key=0 if n % 2 else n, arm="random", kind="pair" if size == 2 else "rank", size=size,
                )
            )  # fmt: skip
            for position, text in enumerate(f"{one}{n}" for one in texts):
                completion = store.add(
                    Completion(
                        prompt_id=prompt.id, model_id=model.id, sampling_id=sampling.id, seed=position, text=text,
                        finish_reason="stop",
                    )
                )  # fmt: skip
                db.conn.execute("insert into comparison_items values (?,?,?)", [comparison.id, position, completion.id])
            made.append(comparison)
    return made


def token_for(house: House, person: Person) -> str:
    """A session without a password: for tests that are not about signing in."""
    with house.store.write():
        token = people.invite(house.store, person, None)
    return signing_in.accept(house.store, token, None).token


def app_of(house: House, engine: Any = None, **options: Any) -> Any:
    from ui.web import create_app

    return create_app(Ui(store=house.store, engine=engine, jobs=None, settings=house.settings, text=Text()), **options)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a free port of this machine, in a thread; yields its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))  # and is handed on: a port that was let go of may be another's by now
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
