"""Every string people read exists in every language."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ui.strings import FILES, STRINGS
from ui.text import LANGUAGES, Text, choose_language

UI = Path(__file__).parents[2] / "ui"
CALLS = re.compile(r"""(?:\btext|\blabel|\bsay|\bself\.text|Text\(\))\(\s*"([a-z_]+\.[\w.]+)\"""")
PROBLEMS = re.compile(r"(Cannot\w+|No[A-Z]\w+|Denied|BadForm|DoesNotFit|\w+Problem)$")
SCRIPT_CALLS = re.compile(r"""\bt\("([a-z_0-9.]+)\"""")


def test_every_string_exists_in_every_language():
    for key, texts in STRINGS.items():
        assert len(texts) == len(LANGUAGES) and all(text.strip() for text in texts), key
        names = [set(re.findall(r"{(\w+)}", text)) for text in texts]
        assert names[0] == names[1], f"{key} fills in different values in its languages"


def test_no_key_stands_in_two_files():
    assert sum(len(file.STRINGS) for file in FILES) == len(STRINGS)


def test_every_key_in_the_code_has_a_string():
    used = {key for file in UI.rglob("*.py") for key in CALLS.findall(file.read_text(encoding="utf-8"))}
    assert len(used) > 30
    assert used <= set(STRINGS), used - set(STRINGS)
    scripts = {
        f"label.{key}" for file in UI.rglob("*.js") for key in SCRIPT_CALLS.findall(file.read_text(encoding="utf-8"))
    }
    assert len(scripts) > 20
    assert scripts <= set(STRINGS), scripts - set(STRINGS)


def test_every_refusal_with_a_code_speaks_every_language_with_the_values_it_gives():
    """Of the activities and of the pages; what an engine says, and what a file is refused for, has words of its own."""
    found = 0
    for file in [
        *UI.rglob("*.py"),
        *(UI.parent / "backend").glob("*.py"),
        *(UI.parent / "backend" / "labels").glob("*.py"),
    ]:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or len(call.args) < 2:
                continue
            code = call.args[1]
            if (
                not PROBLEMS.match(call.func.id)
                or not isinstance(code, ast.Constant)
                or not isinstance(code.value, str)
            ):
                continue
            if " " in code.value:  # a status and a sentence
                continue
            found += 1
            key, given = f"problem.{code.value}", {keyword.arg for keyword in call.keywords}
            assert key in STRINGS, f"{file}:{call.lineno}"
            wanted = set(re.findall(r"{(\w+)}", STRINGS[key][0]))
            assert None in given or wanted <= given, f"{file}:{call.lineno} gives {given}, {key} needs {wanted}"
    assert found > 100


def test_values_are_filled_in_as_they_are():
    text = Text({"x": ("{a} and {b}", "{b}{a}")})
    assert text("x", a="{b}", b="1.0") == "{b} and 1.0"
    assert text("x", a="{a.__class__}", b="") == "{a.__class__} and "


def test_an_unknown_key_is_an_error():
    with pytest.raises(KeyError):
        Text()("nothing.here")
    with pytest.raises(KeyError):
        Text().label("nothing.here")


@pytest.mark.parametrize(
    ("cookie", "accepted", "chosen"),
    [("zh-CN", "en", "zh-CN"), (None, "zh", "zh-CN"), (None, "zh-TW,zh;q=0.9", "zh-CN"), (None, "fr,en;q=0.5", "en"),
     ("xx", "", "en"), (None, "de", "en"), ("en", "zh-CN", "en")],
)  # fmt: skip
def test_the_language_is_the_cookie_else_the_browsers(cookie, accepted, chosen):
    assert choose_language(cookie, accepted) == chosen
