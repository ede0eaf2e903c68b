"""The documents against the disk: commands exist, paths exist, every top-level folder has its place in the tree."""

import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHELLS = {"", "bash", "sh", "shell", "console", "text"}
COMMANDS = ("make", "python", "python3", "pip", "./.ci/run", ".ci/run", "git", "cd")


class Block(NamedTuple):
    document: Path
    language: str
    lines: list[str]


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document."""
    found: list[Block] = []
    current: Block | None = None
    for line in document.read_text(encoding="utf-8").splitlines():
        if fence := re.match(r"\s*```\s*([\w-]*)", line):
            if current is None:
                current = Block(document, fence[1].lower(), [])
            else:
                found.append(current)
                current = None
        elif current is not None:
            current.lines.append(line)
    assert current is None, f"{document.name}: a fenced block is not closed"
    return found


def commands(document: Path) -> list[str]:
    """The commands in a document's fenced blocks, one by one, without prompts and remarks."""
    found = []
    for block in blocks(document):
        if block.language in SHELLS:
            for line in "\n".join(block.lines).replace("\\\n", " ").splitlines():
                for part in re.split(
                    r"\s(?:&&|\|\||[|;])\s", re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ")
                ):
                    if part.split(" ")[0].rsplit("/", 1)[-1] in {name.rsplit("/", 1)[-1] for name in COMMANDS}:
                        found.append(part.strip())
    return found


ALL_COMMANDS = [
    pytest.param(command, id=f"{document.name}: {command}") for document in DOCUMENTS for command in commands(document)
]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@cache
def help_of(*verbs: str) -> str:
    command = [sys.executable, "app.py", *verbs, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"app.py {' '.join(verbs)} --help: {done.stderr}"
    return done.stdout


def check_app(arguments: list[str]) -> None:
    """The verbs have a help, and every option used stands in it."""
    verbs = []
    for argument in arguments:
        if not re.fullmatch(r"[a-z][a-z-]*", argument) or not re.search(
            rf"(^ +{argument}\b|[{{,]{argument}[,}}])", help_of(*verbs), re.MULTILINE
        ):
            break
        verbs.append(argument)
    if arguments and re.fullmatch(r"[a-z-]+", arguments[0]) and not arguments[0].startswith("-"):
        assert verbs, f"app.py has no verb {arguments[0]}"
    for argument in arguments:
        if argument.startswith("--"):
            assert argument.split("=")[0] in help_of(*verbs)


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_a_command_in_the_documents_exists(command):
    words = [word for word in shlex.split(command) if word not in ("&",)]
    program = words[0].rsplit("/", 1)[-1]
    if program == "make":
        named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert set(named) <= targets()
    elif program in ("python", "python3") and words[1:2] == ["app.py"]:
        check_app(words[2:])
    elif program in ("python", "python3") and words[1:2] == ["-m"]:
        assert importlib.util.find_spec(words[2]), f"there is no module {words[2]}"
        if words[2] == "bench" and len(words) > 3:
            assert (ROOT / "bench" / f"{words[3]}.py").exists()
    elif program in ("python", "python3") and len(words) > 1 and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
    elif program == "pip" and "-r" in words:
        assert (ROOT / words[words.index("-r") + 1]).exists()
    elif program == "run":
        assert (ROOT / ".ci" / "run").exists()


def tree(document: Path) -> list[str]:
    """The paths of the tree in a document: its first block that names app.py and a folder."""
    for block in blocks(document):
        if any(re.match(r"\W*app\.py\b", line) for line in block.lines) and any(
            "feedback_db/" in line for line in block.lines
        ):
            return tree_paths(block.lines)
    raise AssertionError(f"{document.name} has no tree of the repository")


def tree_paths(lines: list[str]) -> list[str]:
    """Paths by indentation. Words after two spaces are meanings; more names on a line stand between single spaces."""
    found: list[str] = []
    above: list[tuple[int, str]] = []
    for line in lines:
        plain = re.sub(r"[│├└─|`]", " ", line.rstrip())
        names = re.split(r"\s{2,}", plain.strip())[0].split(" ")
        if not plain.strip() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", names[0]):
            continue
        indent = len(plain) - len(plain.lstrip())
        above = [(depth, folder) for depth, folder in above if depth < indent]
        prefix = above[-1][1] if above else ""
        found += [prefix + name for name in names if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", name)]
        if names[0].endswith("/"):
            above.append((indent, prefix + names[0]))
    return found


def test_every_path_in_the_tree_of_the_readme_exists():
    missing = [path for path in tree(ROOT / "README.md") if not (ROOT / path).exists()]
    assert not missing


def test_every_folder_at_the_top_has_its_place_in_the_tree():
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    if not files:
        pytest.skip("not a git checkout: ignored folders cannot be told apart")
    folders = {path.split("/")[0] for path in files if "/" in path}
    assert folders <= {path.split("/")[0] for path in tree(ROOT / "README.md")}


def test_the_tree_is_read_by_its_indentation():
    lines = [
        "app.py          entry",
        "LICENSE README.md    two files",
        "backend/        what is done",
        "  prompts/      a room",
        "    chat.py     x",
        "ui/",
    ]
    assert tree_paths(lines) == [
        "app.py",
        "LICENSE",
        "README.md",
        "backend/",
        "backend/prompts/",
        "backend/prompts/chat.py",
        "ui/",
    ]
    drawn = ["├── backend/   x", "│   └── cli.py", "└── ui/"]
    assert tree_paths(drawn) == ["backend/", "backend/cli.py", "ui/"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", link):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_the_generated_documents_are_those_of_this_code():
    from docs import generate

    assert (ROOT / "docs" / "schema.md").read_text(encoding="utf-8") == generate.schema(), "run make docs"
    if sys.version_info[:2] != (3, 11):
        pytest.skip("argparse words its help differently in this version of Python")
    assert (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8") == generate.command_line(), "run make docs"


def test_the_commands_of_the_pipeline_are_the_ones_in_the_makefile():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert {"setup", "run", "demo", "test", "check", "bench", "docs", "screenshots"} <= targets()
