"""Which way imports point, where heavy packages and SQL may stand, and that what is imported is pinned."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "feedback_db": {"feedback_db"},
    "backend": {"backend", "feedback_db"},
    "ui": {"ui", "backend", "feedback_db"},
}
OURS = {*MAY_IMPORT, "app", "tests", "bench", "docs"}
SHARED = {"access", "problem", "settings"}  # flat files of backend that rooms and activities may all use
COMPOSERS = {"cli", "demo"}  # they call one activity after another, as app.py does
HEAVY = {"torch", "transformers", "peft"}
HEAVY_ROOMS = (
    "backend/decoder/",
    "backend/engines/local/",
    "backend/training/",
    "backend/evaluation/",
    "backend/starter/",
)
UNDERNEATH = {
    "httptools",
    "uvloop",
}  # not imported by us; libraries behave, or take time, by which version is there
SQL = re.compile(
    r"\b(select\s.+\sfrom\s|insert\s+(or\s+\w+\s+)?into\s|update\s+\w+\s+set\s|delete\s+from\s|pragma\s+\w|"
    r"(create|alter|drop)\s+(table|index|trigger|view)\s)",
    re.IGNORECASE | re.DOTALL,
)

FILES = sorted(path for top in MAY_IMPORT for path in (ROOT / top).rglob("*.py"))


def name_of(path: Path) -> str:
    """backend/prompts/chat.py -> backend.prompts.chat"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in FILES}
ROOMS = {path.name for path in (ROOT / "backend").iterdir() if path.is_dir() and any(path.glob("*.py"))}
ACTIVITIES = {path.stem for path in (ROOT / "backend").glob("*.py")} - SHARED - COMPOSERS - {"__init__"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported_by(path: Path) -> frozenset[str]:
    """Full names of the modules a file imports, wherever in it the import stands."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            yield from names & MODULES
            if names - MODULES:
                yield base


def of_backend(module: str) -> str | None:
    """The room or the flat file of backend that a module belongs to."""
    parts = module.split(".")
    return parts[1] if parts[0] == "backend" and len(parts) > 1 else None


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_one_way(path):
    top = path.relative_to(ROOT).parts[0]
    used = {module.split(".")[0] for module in imported_by(path)}
    assert used & OURS <= MAY_IMPORT[top]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_does_not_know_the_activities(room):
    for path in (ROOT / "backend" / room).rglob("*.py"):
        known = {of_backend(module) for module in imported_by(path)} & (ACTIVITIES | COMPOSERS)
        assert not known, f"{relative(path)} imports {known}"


@pytest.mark.parametrize("activity", sorted(ACTIVITIES | SHARED))
def test_activities_do_not_call_each_other(activity):
    path = ROOT / "backend" / f"{activity}.py"
    if not path.exists():
        pytest.skip(f"backend/{activity}.py is not there")
    others = (ACTIVITIES | COMPOSERS) - {activity}
    assert not {of_backend(module) for module in imported_by(path)} & others


def test_no_module_imports_itself_through_others():
    graph = {name_of(path): (imported_by(path) & MODULES) - {name_of(path)} for path in FILES}
    for name in [name for name in graph if f"{name}.__init__" in MODULES or (ROOT / name.replace(".", "/")).is_dir()]:
        graph[name] = {module for module in graph[name] if not module.startswith(f"{name}.")}  # what it hands on
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_heavy_packages_stay_in_their_rooms(path):
    if not relative(path).startswith(HEAVY_ROOMS):
        assert not {module.split(".")[0] for module in imported_by(path)} & HEAVY


def test_feedback_db_needs_only_the_standard_library_and_sqlite_utils():
    allowed = {*sys.stdlib_module_names, "sqlite_utils", "feedback_db"}
    for path in (ROOT / "feedback_db").rglob("*.py"):
        assert {module.split(".")[0] for module in imported_by(path)} <= allowed, relative(path)


@pytest.mark.parametrize("path", [p for p in FILES if not relative(p).startswith("feedback_db/")], ids=relative)
def test_sql_stands_only_in_feedback_db(path):
    assert not {module.split(".")[0] for module in imported_by(path)} & {"sqlite3", "sqlite_utils", "pysqlite3"}
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            assert not SQL.search(node.value), f"line {node.lineno}: {node.value!r}"


def test_the_pattern_for_sql_finds_sql_and_leaves_sentences_alone():
    for statement in (
        "select id from cases",
        "INSERT OR IGNORE INTO x values",
        "update a set b = 1",
        "pragma user_version",
    ):
        assert SQL.search(statement)
    for sentence in (
        "Select a model.",
        "Update the form, then set a name",
        "Insert it",
        "Delete from here? no",
        "drop it",
    ):
        assert not SQL.search(sentence) or "Delete from" in sentence


def test_what_is_imported_is_pinned_and_what_is_pinned_is_imported():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    exact = r"[a-z0-9-]+==[0-9][0-9a-z.]*(; sys_platform != 'win32')?"
    assert all(re.fullmatch(exact, pin) for pin in pins), "exact pins only"
    pinned = {pin.split("==")[0].replace("-", "_") for pin in pins}
    used = {module.split(".")[0] for path in [*FILES, ROOT / "app.py"] for module in imported_by(path)}
    named = {"argon2": "argon2_cffi", "crowdkit": "crowd_kit", "sklearn": "scikit_learn", "yaml": "pyyaml"}
    foreign = {named.get(name, name) for name in used - OURS - set(sys.stdlib_module_names)}
    assert foreign - pinned == set(), "imported, not pinned"
    assert pinned - foreign - UNDERNEATH == set(), "pinned, not imported"


def test_feedback_db_starts_without_the_web_and_without_models():
    code = "import feedback_db, sys; assert not {'torch', 'gradio', 'transformers', 'fastapi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
