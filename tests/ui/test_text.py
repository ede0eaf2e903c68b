"""Every string people read exists in every language."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from backend.exchange.cases_file import cases_in
from backend.prompts.chat import PromptProblem, refuse_special_tokens
from backend.prompts.problem import TemplateProblem
from backend.prompts.rows import within
from backend.prompts.template import compile_template
from backend.suites.checks import BadCheck
from backend.suites.kinds import KINDS
from backend.suites.pasted import BadCases, cases_of
from backend.suites.written import checks_of
from feedback_db.types import Demonstration
from ui.strings import FILES, STRINGS
from ui.text import LANGUAGES, Text, choose_language

UI = Path(__file__).parents[2] / "ui"
CALLS = re.compile(r"""(?:\btext|\blabel|\bsay|\bself\.text|Text\(\))\(\s*"([a-z_]+\.[\w.]+)\"""")
PROBLEMS = re.compile(r"(Cannot\w+|No[A-Z]\w+|Denied|BadForm|DoesNotFit|\w+Problem)$")
SCRIPT_CALLS = re.compile(r"""\bt\("([a-z_0-9.]+)\"""")


def test_every_string_exists_in_every_language():
    for key, texts in STRINGS.items():
        assert len(texts) == len(LANGUAGES) and all(text.strip() for text in texts), key
        names = [set(re.findall(r"{(\w+)[|}]", text)) for text in texts]
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
            wanted = set(re.findall(r"{(\w+)[|}]", STRINGS[key][0]))
            assert None in given or wanted <= given, f"{file}:{call.lineno} gives {given}, {key} needs {wanted}"
    assert found > 100


ROOMS = (
    "engines/*.py", "prompts/*.py", "training/*settings.py", "training/options.py", "jobs/ordering.py", "suites/*.py",
    "exchange/cases_file.py", "testing.py", "serving.py",
)  # fmt: skip
CODE_AT = {
    "EngineError": 1,
    "BadSettings": 1,
    "BadCases": 1,
    "BadCheck": 1,
    "BudgetProblem": 1,
    "PromptProblem": 1,
    "FewShotProblem": 1,
    "TemplateProblem": 2,
    "CannotServe": 2,
}  # among the arguments


def test_what_the_rooms_refuse_has_a_code_and_speaks_every_language():
    """But for what passes on somebody else's words."""
    found = 0
    backend = UI.parent / "backend"
    for file in [file for room in ROOMS for file in backend.glob(room)]:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name not in CODE_AT or not any(isinstance(one, ast.JoinedStr) or _is_text(one) for one in call.args):
                continue
            if file.name == "scripted.py":  # stands in for an engine in tests
                continue
            code = call.args[CODE_AT[name]] if len(call.args) > CODE_AT[name] else None
            either = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
            codes = [one.value for one in either if isinstance(one, ast.Constant) and one.value]
            if name == "PromptProblem" and isinstance(code, ast.Name):  # of control tokens: a test below says each
                continue
            assert codes, f"{file}:{call.lineno} has no code"
            found += 1
            given = {keyword.arg for keyword in call.keywords}
            for code in codes:
                wanted = set(re.findall(r"{(\w+)[|}]", STRINGS[f"problem.{code}"][0])) - {"demonstrations", "input"}
                assert None in given or wanted <= given, f"{file}:{call.lineno} gives {given}, {code} needs {wanted}"
    assert found > 110


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_a_line_and_an_error_within_an_error_are_said_in_the_same_language():
    text = Text()
    inner = TemplateProblem("this number is too large.", 3, "template_number")
    assert text.problem(inner, "en") == str(inner) == "Line 3: this number is too large."
    assert text.problem(inner, "zh-CN") == "第 3 行:此数字过大。"
    assert text.problem(within(2, inner), "zh-CN") == "第 2 条消息第 3 行:此数字过大。"
    deep = within(2, TemplateProblem("x", None, "template_deep"))
    assert text.problem(deep, "zh-CN").startswith("第 2 条消息:模板嵌套过深") and str(deep) == "Row 2: x"
    assert text.problem(within(2, inner), "en") == str(within(2, inner)) == "Row 2, line 3: this number is too large."


@pytest.mark.parametrize(
    "body", ["{{a", "{% for x in y %}{{x.__class__}}{% endfor %}", "{{ x|upper|nofilter }}", "{{ f() }}", "{{ 1 * 2 }}"]
)
def test_what_is_wrong_with_a_template_is_said_in_both_languages(body):
    with pytest.raises(TemplateProblem) as raised:
        compile_template(f"{{{{input}}}}\n{body}", "logic")
    text = Text()
    assert text.problem(raised.value, "en") == str(raised.value)
    assert text.problem(raised.value, "zh-CN").startswith("第 2 行:")


CASES = [
    "", "a,a\nb,c", "a,\nb,c", "input,b\na", 'input\n"a"b', "input\n ,", '{"a": 1}\n{"b": 1}', '{"a": 1}\n[1]', '{"a": 1}\n{',
    '{"a": ' * 100_000, "q,_expected\na,b", "q,__prefix\na,b", "q,__config:__expected2:threshold\na,1", "__expected\nb",
    "q,__expected,__threshold\na,b,2", "q,__expected,__threshold\na,b,much", "q,__expected2\na,contains-any:",
    "q,__expected\na,contain:x", "q,__expected\na,zzzz:x", "q,__expected\na,python:x",
    '{"vars": {"q": "a"}, "assert": "x"}', '{"vars": {"q": ["a"]}}', '{"vars": {"q": "a"}, "options": {}}',
    '{"vars": {"q": "a"}, "assert": [{"type": "equals"}, {"type": "contain"}]}',
    '{"vars": {"q": "a"}, "assert": [7]}', '{"vars": {"q": "a"}, "assert": [{"type": "equals", "more": 1, "value": "b"}]}',
]  # fmt: skip
CHECKS = [
    "is-json\ncontain:x", "contains-any", "\n{broken", "levenshtein(.):a", "regex:(", '{"type": "equals", "weight": -1}',
    '{"type": "equals", "threshold": "high"}', "contains:x {{demonstrations}}", "\n".join(f"contains:{i}" for i in range(65)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "given"),
    [
        *((cases_of, one) for one in CASES),
        *((checks_of, one) for one in CHECKS),
        (lambda data: cases_in("a.yaml", data), b"a: 1"),
        (lambda data: cases_in("a.yaml", data), b"a: [1"),
        (lambda data: cases_in("a.doc", data), b""),
        (cases_of, "x" * 5_000_001),
    ],
)
def test_what_is_wrong_with_checks_and_cases_is_said_in_both_languages(read, given):
    with pytest.raises((BadCheck, BadCases)) as raised:
        read(given)
    text = Text()
    assert text.problem(raised.value, "en") == str(raised.value)
    chinese = text.problem(raised.value, "zh-CN")
    assert re.search("[\u4e00-\u9fff]", chinese) and not re.search("Line|Check [0-9]|(?<!{){[a-z]+}", chinese), chinese
    assert raised.value.at is None or chinese.startswith(f"第 {raised.value.at.number} ")


def test_what_every_kind_of_check_asks_for_is_said_in_both_languages():
    text, asked = Text(), {kind.asks for kind in KINDS.values() if kind.asks}
    assert len(asked) > 10
    for asks in asked:
        assert text.problem(asks, "en") == asks != text.problem(asks, "zh-CN")


@pytest.mark.parametrize(
    "parts",
    [
        ({"a": ["<|end|>"]}, (), ()),
        ({}, [Demonstration(project_id=1, digest="", input="<|end|>", output="b")], ()),
        ({}, [Demonstration(project_id=1, digest="", input="a", output="<|end|>")], ()),
        ({}, (), [{"role": "user", "content": "<|end|>"}]),
    ],
)
def test_a_control_token_is_refused_in_both_languages(parts):
    with pytest.raises(PromptProblem) as raised:
        refuse_special_tokens(*parts, ["<|end|>"])
    text = Text()
    assert text.problem(raised.value, "en") == str(raised.value)
    assert "'<|end|>',模型会将其视为控制词元" in text.problem(raised.value, "zh-CN")


def test_values_are_filled_in_as_they_are():
    text = Text({"x": ("{a} and {b}", "{b}{a}")})
    assert text("x", a="{b}", b="1.0") == "{b} and 1.0"
    assert text("x", a="{a.__class__}", b="") == "{a.__class__} and "


MANY = {  # what they count are always several, or a list of counts
    "tune.unfit", "suites.many", "compare.stored", "compare.stored_others", "order.repeats", "order.by_itself", "order.by_itself_later",
    "order.gain_gain", "order.gain_none", "order.gain_loss", "bake.saved", "exchange.why.assert_many",
}  # fmt: skip
COUNTED = "answer|case|check|column|comparison|demonstration|field|judgement|model|pair|suite|template|test|token|turn"


def test_a_number_stands_with_the_word_for_one_or_for_several():
    text = Text({"x": ("{n|case waits|cases wait}, {t|token|tokens}", "{n} 个用例,{t} 个词元")})
    assert text("x", n=1, t="1,001") == "1 case waits, 1,001 tokens"
    assert text("x", n="0", t="1") == "0 cases wait, 1 token"
    assert text("x", "zh-CN", n=1, t=2) == "1 个用例,2 个词元"
    assert text("x", t="{n|a|b}") == "{n|case waits|cases wait}, {n|a|b} tokens"


def test_no_page_says_1_checks():
    """Refusals name limits, of which there are always several."""
    told = {key: texts[0] for key, texts in STRINGS.items() if not key.startswith("problem.")}
    wrong = {key: found[0] for key, said in told.items() if (found := re.search(rf"{{\w+}} (?:{COUNTED})s\b", said))}
    assert not set(wrong) - MANY, wrong


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
