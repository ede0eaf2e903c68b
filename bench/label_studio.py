"""Label Studio's side of the labelling measurement: its own server and SQLite file, set up over its API, the same clients."""

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench import start

if TYPE_CHECKING:
    from bench.labelling import Run

ROOT = Path(__file__).resolve().parent.parent
VERSION = "1.23.2"
ADMIN, PASSWORD, TOKEN = "admin@example.com", "correct horse battery staple", "0123456789abcdef0123456789abcdef01234567"
FORM = (
    '<View><Text name="q" value="$q"/><Pairwise name="pw" toName="left,right"/>'
    '<Text name="left" value="$left"/><Text name="right" value="$right"/></View>'
)
PATIENCE_SECONDS = 180


def measure(
    clients: Sequence[int],
    seconds: float,
    pairs: int,
    texts: Callable[[int], tuple[str, str, str]],
    ask: Callable[[dict[str, Any]], dict[str, Any]],
) -> list["Run"]:
    """One new server for each number of clients, a person per client, overlap 1 as it is by default."""
    python = _installed()
    return [_measured(python, n, seconds, pairs, texts, ask) for n in clients]


def _measured(
    python: Path,
    clients: int,
    seconds: float,
    pairs: int,
    texts: Callable[[int], tuple[str, str, str]],
    ask: Callable[[dict[str, Any]], dict[str, Any]],
) -> "Run":
    from bench.labelling import Run

    with tempfile.TemporaryDirectory() as folder:
        port = start.free_port()
        command = [
            str(python.parent / "label-studio"),
            "start",
            "--no-browser",
            "--port",
            str(port),
            "--data-dir",
            folder,
        ]
        command += ["--username", ADMIN, "--password", PASSWORD, "--user-token", TOKEN]
        variables = {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false", "SENTRY_DSN": ""}
        with start.running(command, port, "/health", variables, PATIENCE_SECONDS):
            file = Path(folder) / "label_studio.sqlite3"
            _allow_tokens(file)
            project = _call(port, "/api/projects", {"title": "bench", "label_config": FORM})["id"]
            rows = [dict(zip(("q", "left", "right"), texts(n), strict=True)) for n in range(pairs)]
            for first in range(0, pairs, 500):
                _call(port, f"/api/projects/{project}/import", [{"data": row} for row in rows[first : first + 500]])
            tokens = [_person(port, file, n) for n in range(clients)]
            plan = {"side": "label-studio", "host": "127.0.0.1", "port": port, "project": project, "tokens": tokens}
            found = ask({**plan, "seconds": seconds})
            with sqlite3.connect(file) as store:
                (stored,) = store.execute("select count(*) from task_completion").fetchone()
                twice = "select count(*) from (select 1 from task_completion group by task_id having count(*) > 1)"
                (doubled,) = store.execute(twice).fetchone()
    return Run(clients=clients, **found, stored=stored, doubled=doubled)


def _allow_tokens(file: Path) -> None:
    """The plain tokens that its older clients use; new installations have them switched off."""
    with sqlite3.connect(file, timeout=30) as store:
        store.execute("update jwt_auth_jwtsettings set legacy_api_tokens_enabled = 1")


def _person(port: int, file: Path, n: int) -> str:
    """Adds a person; returns their token."""
    email = f"c{n}@example.com"
    made = _call(port, "/api/users/", {"email": email, "username": f"c{n}", "password": PASSWORD})
    with sqlite3.connect(file, timeout=30) as store:
        found = store.execute("select key from authtoken_token where user_id = ?", [made["id"]]).fetchone()
        if found is None:
            found = (f"{n:040x}",)
            store.execute(
                "insert into authtoken_token(key, created, user_id) values (?, datetime('now'), ?)",
                [*found, made["id"]],
            )
    return str(found[0])


def _call(port: int, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Token {TOKEN}"}
    reply = httpx.post(f"http://127.0.0.1:{port}{path}", json=body, headers=headers, timeout=PATIENCE_SECONDS)
    reply.raise_for_status()
    return reply.json()


def _installed() -> Path:
    """The interpreter of a folder of its own with Label Studio in it; it brings Django and is not installed beside us."""
    place = ROOT / ".bench" / f"label-studio-{VERSION}"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"label-studio=={VERSION}"], check=True)
        (place / "done").touch()
    return python
