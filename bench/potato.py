"""Potato's side of the labelling measurement: its own server and files, the same pairs, the same clients."""

import collections
import json
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
VERSION = "2.12.1"
SCHEME = {
    "annotation_type": "radio",
    "name": "better",
    "description": "Which answer is better?",
    "labels": ["left", "right", "tie"],
}
PATIENCE_SECONDS = 180


def measure(
    clients: Sequence[int],
    seconds: float,
    pairs: int,
    texts: Callable[[int], tuple[str, str, str]],
    ask: Callable[[dict[str, Any]], dict[str, Any]],
) -> list["Run"]:
    """One new server for each number of clients, a person per client, overlap 1."""
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
        place = Path(folder)
        _write_task(place, clients, pairs, texts)
        port = start.free_port()
        command = [str(python.parent / "potato"), "start", str(place / "config.yaml"), "-p", str(port)]
        with start.running([*command, "--host", "127.0.0.1"], port, "/health", None, PATIENCE_SECONDS, place):
            _warmed_up(port)
            tokens = [_signed_in(port, f"c{n}") for n in range(clients)]
            plan = {"side": "potato", "host": "127.0.0.1", "port": port, "project": 0, "tokens": tokens}
            found = ask({**plan, "seconds": seconds})
        kept = stored(place / "annotation_output")
    return Run(clients=clients, **found, stored=sum(kept.values()), doubled=sum(n > 1 for n in kept.values()))


def stored(folder: Path) -> collections.Counter[str]:
    """How many people's judgement each pair has, from the files that Potato keeps of everybody whom we measured."""
    kept: collections.Counter[str] = collections.Counter()
    for file in folder.glob("c*/user_state.json"):
        labels = json.loads(file.read_text(encoding="utf-8"))["instance_id_to_label_to_value"]
        kept.update(item for item, said in labels.items() if said)
    return kept


def _write_task(place: Path, clients: int, pairs: int, texts: Callable[[int], tuple[str, str, str]]) -> None:
    """A task as its documents have it. Everybody is given an equal part: without a limit the first person is given all."""
    (place / "data").mkdir()
    with (place / "data" / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for n in range(pairs):
            question, left, right = texts(n)
            file.write(json.dumps({"id": f"{n}", "text": f"{question}<hr>{left}<hr>{right}"}) + "\n")
    config = {
        "annotation_task_name": "bench",
        "task_dir": ".",
        "output_annotation_dir": "annotation_output/",
        "output_annotation_format": "jsonl",
        "data_files": ["data/pairs.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "text"},
        "user_config": {"allow_all_users": True, "users": []},
        "require_password": False,
        "annotation_schemes": [SCHEME],
        "max_annotations_per_item": 1,
        "max_annotations_per_user": pairs // (clients + 1),
        "assignment_strategy": "fixed_order",
    }
    (place / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML


def _warmed_up(port: int) -> None:
    """One save that is not measured: the first loads what saving needs, for many seconds."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as browser:
        browser.post("/auth", data={"email": "warm", "pass": ""})
        browser.get("/annotate").raise_for_status()
        item = browser.get("/api/current_instance").json()["instance_id"]
        said = {"instance_id": item, "annotations": {"better:::left": "on"}, "span_annotations": []}
        browser.post("/updateinstance", json=said).raise_for_status()


def _signed_in(port: int, name: str) -> str:
    """A session, with the work that the first look at the page hands out; returns its cookie."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as browser:
        browser.post("/auth", data={"email": name, "pass": ""})
        browser.get("/annotate").raise_for_status()
        return str(browser.cookies["session"])


def _installed() -> Path:
    """The interpreter of a folder of its own with Potato in it; it is under the GPL and is not installed beside us."""
    place = ROOT / ".bench" / f"potato-{VERSION}"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"potato-annotation=={VERSION}"], check=True)
        (place / "done").touch()
    return python
