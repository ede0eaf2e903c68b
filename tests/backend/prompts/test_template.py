"""Templates: what is filled, what is refused, and how long either takes."""

import gc
import time

import jinja2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.prompts.problem import MAX_OUTPUT
from backend.prompts.template import TemplateProblem, compile_template, render, variables

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy

MODES = ("plain", "logic")
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def filled(body, mode="logic", **values):
    return render(compile_template(body, mode), values)


MOST_SECONDS = 0.5
TRIES = 3


def ends_in_time(act):
    """Whether one of a few tries needs less than the limit of this thread's own processor time.

    What takes too long does so every time; a neighbour who empties the caches, or a host that takes the processor away, does not.
    Objects that were there before are kept out of the collector's walks, which would otherwise grow with all other tests.
    """
    gc.freeze()
    try:
        return any(_seconds(act) < MOST_SECONDS for _ in range(TRIES))
    finally:
        gc.unfreeze()


def _seconds(act):
    started = time.thread_time()
    act()
    return time.thread_time() - started


@pytest.mark.parametrize(("seconds", "is_in_time"), [([0.6, 0.6, 0.6, 0.1], False), ([0.6, 0.1], True)])
def test_what_is_too_slow_once_is_tried_again_and_what_is_so_every_time_is_found(monkeypatch, seconds, is_in_time):
    clock = iter([at for one in seconds for at in (0.0, one)])
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    assert ends_in_time(lambda: None) is is_in_time


@pytest.mark.parametrize("mode", MODES)
@UNTIMED
@given(value=text, before=st.text("ab {}\n", max_size=9).filter(lambda t: "{{" not in t and t[-1:] != "{"))
def test_a_value_is_found_byte_for_byte_in_the_prompt(mode, value, before):
    body = (before if mode == "plain" else "Q: ") + "{{x}}!"
    prompt = filled(body, mode, x=value)
    assert prompt == body.removesuffix("{{x}}!") + value + "!"
    assert value.encode() in prompt.encode()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "value", ["{{y}}", "{% if x %}", "{{ 7*7 }}", "{# #}", "{}", "{0}", "%s", "\\1", "\\g<0>", "&<>\"'"]
)
def test_a_value_is_never_rendered_again(mode, value):
    assert filled("[{{x}}]", mode, x=value, y="leak") == f"[{value}]"


@pytest.mark.parametrize("mode", MODES)
def test_a_trailing_newline_and_chinese_survive(mode):
    assert filled("评论：{{评论}}\n情感：\n", mode, 评论="好看") == "评论：好看\n情感：\n"


def test_other_braces_are_text_in_plain_mode():
    body = 'Answer as {"a": 1}, {x}, {{ 1 }}, {{}}, {{"a": 1}}, {% if %}, {# x, }} {{ {{x}}'
    assert filled(body, "plain", x="1") == body.replace("{{x}}", "1")


def test_variables_come_in_the_order_of_their_first_use():
    assert variables("{{b}} {{ a }} {{b}}") == ("b", "a")
    assert variables("{% if b %}{{ a }}{% endif %}{% for d in c %}{{ d.x }}{% endfor %}", "logic") == ("b", "a", "c")


@pytest.mark.parametrize("mode", MODES)
def test_an_undefined_name_reports_its_name_and_line(mode):
    with pytest.raises(TemplateProblem, match='Line 3: the variable "topic" has no value') as caught:
        filled("one\ntwo {{x}}\nthree {{topic}}", mode, x="1")
    assert caught.value.line == 3


def test_an_undefined_name_after_the_marker_reports_its_line_in_the_whole_body():
    with pytest.raises(TemplateProblem, match="Line 4:"):
        filled("one\n{{demonstrations}}\nthree\n{{topic}}")


@pytest.mark.parametrize("mode", MODES)
def test_the_marker_line_vanishes_where_there_are_no_demonstrations(mode):
    assert filled("Do {{x}}:\n\n{{demonstrations}}\nInput:", mode, x="it") == "Do it:\n\nInput:"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("body", ["a {{demonstrations}}", "{{demonstrations}}\n{{demonstrations}}\n"])
def test_the_marker_stands_alone_and_once(mode, body):
    with pytest.raises(TemplateProblem, match="line of its own"):
        compile_template(body, mode)


USUAL = [
    ("{% for d in shots %}Input: {{ d.input }}\nOutput: {{ d.output }}\n\n{% endfor %}Input: {{ x }}\nOutput:", None),
    ("{{ x|upper }} {{ x|title }} {{ x|capitalize }} {{ x|trim }} {{ x|lower }}", None),
    ("{% if labels %}One of: {{ labels|join(', ') }}.{% else %}Free.{% endif %}", None),
    ("{{ 'yes' if x == 'a b' else 'no' }} {{ x is defined }} {{ 'a' in x }} {{ x and not labels }}", None),
    (
        "{% for l in labels if l != 'b' %}{{ loop.index }}/{{ loop.length }} {{ l }}{% if not loop.last %};{% endif %}{% endfor %}",
        None,
    ),
    ("{{ x[0] }}{{ x[1:] }}{{ labels[-1] }}{{ x ~ 1 ~ none }}{{ labels|length }}", None),
    (
        "{{ shots[0]['input'] }} {{ missing|default('-') }} {{ '12'|int }} {{ x|truncate(5) }} {{ labels|first }}{{ labels|last }}",
        None,
    ),
    ("{{ labels }} {{ (1, 2.5) }} {{ x|list }} {{ -n }} {{ n|string }} {{ n >= 3 and n < 9 }}", None),
    ("{% raw %}{{ as it is }}{% endraw %} {{ '{{' }} {# a remark #}\n", None),
]


@pytest.mark.parametrize("body", [body for body, _ in USUAL])
def test_our_subset_renders_what_plain_jinja_renders(body):
    values = {"x": "a bC d", "labels": ["a", "b", "c"], "shots": [{"input": "i1", "output": "o1"}], "n": 3}
    stock = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    assert filled(body, **values) == stock.from_string(body).render(**values)


def test_a_key_named_items_is_looked_up_as_an_item():
    assert filled("{{ q.items }} {{ q['keys'] }}", q={"items": "one", "keys": "two"}) == "one two"


def test_tojson_keeps_chinese_and_angle_brackets():
    assert filled("{{ q|tojson }}", q={"名": "<汉字>"}) == '{"名": "<汉字>"}'


BIG = "a" * 250_000
WIDE = "汉" * 80_000
MANY = list(range(20_000))
ROWS = list(range(141))

HOSTILE = {
    "class by subscript of a filter": ("{{ ('__cl' ~ 'ass__')|attr(x) }}", {"x": ""}),
    "base of a number": ("{{ (0).__class__.__base__ }}", {}),
    "subclasses by item": ("{{ x['__class__']['__subclasses__']() }}", {"x": ""}),
    "dunder in a test": ("{{ x.__len__ is defined }}", {"x": ""}),
    "dunder of a loop": ("{% for i in x %}{{ loop.__class__ }}{% endfor %}", {"x": "a"}),
    "cycle of a loop": ("{% for i in x %}{{ loop.cycle('a', 'b') }}{% endfor %}", {"x": "ab"}),
    "changed of a loop": ("{% for i in x %}{{ loop.changed(i) }}{% endfor %}", {"x": "ab"}),
    "call of a value": ("{{ x() }}", {"x": "a"}),
    "call of an item": ("{{ x.a() }}", {"x": {"a": "b"}}),
    "call of a constant": ("{{ 'a'.join(['b', 'c']) }}", {}),
    "call with stars": ("{{ x(*x, **x) }}", {"x": {}}),
    "filter of a filter name": ("{{ 'a'|string|attr('format') }}", {}),
    "random filter": ("{{ x|random }}", {"x": "ab"}),
    "groupby filter": ("{{ x|groupby('__class__') }}", {"x": "ab"}),
    "batch filter": ("{{ x|batch(999999999, 'a')|list }}", {"x": "ab"}),
    "slice filter": ("{{ x|slice(999999999)|list }}", {"x": "ab"}),
    "wordwrap filter": ("{{ x|wordwrap(1) }}", {"x": "ab"}),
    "indent filter": ("{{ x|indent(999999999) }}", {"x": "a\nb"}),
    "xmlattr filter": ("{{ {'a': x}|xmlattr }}", {"x": "a"}),
    "pprint filter": ("{{ x|pprint }}", {"x": "a"}),
    "urlize filter": ("{{ x|urlize }}", {"x": "http://a"}),
    "dict literal": ("{{ {'a': x} }}", {"x": "a"}),
    "floor division of a tower": ("{{ 9**9**9 // 1 }}", {}),
    "chained multiplication": ("{{ 'a' * 9999 * 9999 }}", {}),
    "debug": ("{% debug %}", {}),
    "trans": ("{% trans %}a{% endtrans %}", {}),
    "name with an underscore": ("{{ _x }}", {}),
    "class": ("{{ ''.__class__ }}", {}),
    "class by item": ("{{ x['__class__'] }}", {"x": ""}),
    "class by joined name": ("{{ x['__cla' ~ 'ss__'] }}", {"x": ""}),
    "mro": ("{{ ().__class__.__mro__ }}", {}),
    "globals": ("{{ x.__init__.__globals__ }}", {"x": ""}),
    "import by lipsum": ("{{ lipsum.__globals__['os'].popen('id') }}", {}),
    "call of cycler": ("{{ cycler('a') }}", {}),
    "joiner": ("{{ joiner }}", {}),
    "namespace": ("{{ namespace(a=1) }}", {}),
    "range": ("{% for i in range(999999999) %}x{% endfor %}", {}),
    "method": ("{{ x.upper() }}", {"x": "a"}),
    "format string": ("{{ '%999999999d'|format(1) }}", {}),
    "method format": ("{{ x.format(1) }}", {"x": "{:>999999999}"}),
    "attr filter": ("{{ x|attr('__class__') }}", {"x": ""}),
    "map filter": ("{{ [x]|map(attribute='__class__')|list }}", {"x": ""}),
    "join by attribute": ("{{ [x]|join(attribute='__class__') }}", {"x": ""}),
    "center": ("{{ 'a'|center(999999999) }}", {}),
    "power": ("{{ 9**9**9 }}", {}),
    "times": ("{{ 'a' * 999999999 }}", {}),
    "list times": ("{{ [0] * 999999999 }}", {}),
    "plus": ("{{ 1 + 1 }}", {}),
    "set": ("{% set x = 'a' %}", {}),
    "doubling": ("{% set x = 'a' %}" + "{% set x = x ~ x %}" * 25 + "{{ x }}", {}),
    "macro": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", {}),
    "include": ("{% include '/etc/passwd' %}", {}),
    "import": ("{% import 'os' as os %}", {}),
    "from import": ("{% from 'os' import system %}", {}),
    "extends": ("{% extends 'x' %}", {}),
    "block": ("{% block a %}{% endblock %}", {}),
    "self": ("{{ self }}", {}),
    "filter block": ("{% filter upper %}a{% endfilter %}", {}),
    "call block": ("{% call x() %}{% endcall %}", {"x": "a"}),
    "with": ("{% with a=1 %}{% endwith %}", {}),
    "autoescape": ("{% autoescape true %}{% endautoescape %}", {}),
    "do": ("{% do x.append(1) %}", {"x": []}),
    "recursive loop": ("{% for i in x recursive %}{{ loop(x) }}{% endfor %}", {"x": [1]}),
    "three loops": ("{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}", {"x": [1]}),
    "loop object": ("{% for a in x %}{{ loop.cycle }}{% endfor %}", {"x": [1]}),
    "loop printed": ("{% for a in x %}{{ loop }}{% endfor %}", {"x": [1]}),
    "loop context": ("{% for a in x %}{{ loop._iterable }}{% endfor %}", {"x": [1]}),
    "unpacked": ("{{ x|join(*y) }}", {"x": "ab", "y": ["-"]}),
    "private filter": ("{{ x|.concat }}", {"x": "ab"}),
    "table": ("{{ {'a': 1} }}", {}),
    "empty": ("{{}}", {}),
    "open": ("{{" * 30_000, {}),
    "open blocks": ("{%" * 30_000, {}),
    "open remarks": ("{#" * 30_000, {}),
    "open raws": ("{% raw %}" * 7_000, {}),
    "parentheses": ("{{" + "(" * 30_000 + "}}", {}),
    "closed parentheses": ("{{" + "(" * 150 + "1" + ")" * 150 + "}}", {}),
    "lists": ("{{" + "[" * 30_000 + "}}", {}),
    "nots": ("{{" + "not " * 15_000 + "x}}", {"x": 1}),
    "minuses": ("{{" + "-" * 60_000 + "1}}", {}),
    "filters in a row": ("{{ x" + "|upper" * 9_000 + "}}", {"x": "a"}),
    "items in a row": ("{{ x" + "[0]" * 9_000 + "}}", {"x": "a"}),
    "a long number": ("{{" + "9" * 60_000 + "}}", {}),
    "a huge float as int": ("{{ 1e400|int }}{{ x.y }}", {"x": {}}),
    "many parts": ("{{x}}" * 10_000, {"x": "a"}),
    "ifs in ifs": ("{% if x %}" * 900 + "{% endif %}" * 900, {"x": 1}),
    "too large": ("x" * 65_537, {}),
    "joined to itself": ("{{ x ~ x }}", {"x": BIG}),
    "joined by itself": ("{{ [1, 2, 3]|join(x) }}", {"x": BIG}),
    "printed list": ("{{ [" + "x," * 1_900 + "] }}", {"x": BIG}),
    "list of lists": ("{{ [" + "[x,x,x]," * 400 + "]|string }}", {"x": BIG}),
    "json of a list": ("{{ [" + "x," * 1_900 + "]|tojson }}", {"x": BIG}),
    "json of control characters": ("{{ [" + "x|tojson," * 600 + "]|length }}", {"x": "\x00" * 250_000}),
    "json indent": ("{{ x|tojson(999999999) }}", {"x": [[1]]}),
    "titles": ("{{ [" + "x|title," * 600 + "]|length }}", {"x": "aB " * 80_000}),
    "uppers": ("{{ [" + "x|upper," * 600 + "]|length }}", {"x": "ß" * 120_000}),
    "lists of characters": ("{{ [" + "x|list," * 600 + "]|length }}", {"x": WIDE}),
    "slices": ("{{ [" + "x[1:]," * 400 + "]|length }}", {"x": WIDE}),
    "long loop": ("{% for i in x %}{% endfor %}", {"x": [*MANY, 1]}),
    "loop over characters": ("{% for i in x %}{% endfor %}", {"x": BIG}),
    "square loop": ("{% for i in x %}{% for j in x %}y{% endfor %}{% endfor %}", {"x": [*ROWS, *ROWS]}),
    "joins in a loop": ("{% for i in x %}{{ (b ~ '')|length }}{% endfor %}", {"x": MANY, "b": BIG}),
    "comparisons in a loop": (
        "{% for i in x %}{% if b == c %}y{% endif %}{% endfor %}",
        {"x": MANY, "b": BIG, "c": BIG[:]},
    ),
    "searches in a loop": ("{% for i in x %}{% if 'aaab' in b %}y{% endif %}{% endfor %}", {"x": MANY, "b": BIG}),
    "tests in a loop": ("{% for i in x %}{% if 'aaab' is in(b) %}y{% endif %}{% endfor %}", {"x": MANY, "b": BIG}),
    "a wide loop": ("{% for i in x %}" + "{% if i %}{% endif %}" * 400 + "{% endfor %}", {"x": MANY}),
    "output in a loop": ("{% for i in x %}{{ b }}{% endfor %}", {"x": MANY, "b": BIG}),
    "truncate backwards": ("{{ x|truncate(-5) }}", {"x": "abc"}),
    "loop over a number": ("{% for i in 999999999 %}{% endfor %}", {}),
    "wrong type": ("{{ x|length }}", {"x": 5}),
    "an object as value": ("{{ x }}", {"x": object()}),
    "a function as value": ("{{ x }}", {"x": print}),
    "half a character pair": ("{{ x }}", {"x": "\ud800"}),
    "a number of many digits": ("{{ x }}", {"x": 10**5000}),
    "a value too large": ("{{ x }}", {"x": "汉" * 100_000}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_within_half_a_second(name):
    body, values = HOSTILE[name]

    def refused():
        with pytest.raises(TemplateProblem) as caught:
            filled(body, **values)
        assert "Traceback" not in str(caught.value) and len(str(caught.value)) < 1000

    assert ends_in_time(refused)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_harmless_in_plain_mode(name):
    body, values = HOSTILE[name]

    def harmless():
        try:
            assert len(filled(body, "plain", **values)) <= MAX_OUTPUT
        except TemplateProblem:
            pass

    assert ends_in_time(harmless)


AMPLIFIERS = {
    "a full loop": ("{% for i in x %}{% if i == 3 %}y{% endif %}{% endfor %}", {"x": MANY}),
    "a full double loop": (
        "{% for i in x %}{% for j in x %}{{ loop.index }}{% endfor %}{% endfor %}",
        {"x": ROWS[:100]},
    ),
    "a long text through filters": ("{{ x|upper|lower|trim|length }}", {"x": BIG}),
    "a long title": ("{{ x|title|length }}", {"x": "aB " * 60_000}),
    "a long json": ("{{ x|tojson|length }}", {"x": "\n" * 120_000}),
    "many searches": ("{{ 'aaaaaaaaab' in x }}" * 14, {"x": BIG}),
    "many outputs": ("{{ x }}" * 600, {"x": "a" * 400}),
}


@pytest.mark.parametrize("name", AMPLIFIERS)
def test_work_within_the_caps_ends_within_half_a_second(name):
    body, values = AMPLIFIERS[name]

    def within_the_caps():
        assert filled(body, **values)

    assert ends_in_time(within_the_caps)


PIECES = st.sampled_from(
    "{{ }} {% %} {# #} {%- -%} for in if else endif endfor elif x y loop . [ ] ( ) | ~ , : ' \" 1 == not is set "
    "upper join default defined tojson truncate raw endraw __class__ \n 汉 * + - demonstrations".split(" ")
)


@UNTIMED
@given(st.lists(PIECES, max_size=40).map(" ".join), st.sampled_from(MODES))
def test_any_text_is_filled_or_refused_with_a_template_problem(body, mode):
    try:
        assert isinstance(filled(body, mode, x="abc", y=["a", "b"] if mode == "logic" else "b"), str)
    except TemplateProblem as problem:
        assert str(problem)


def test_an_unknown_mode_is_refused():
    with pytest.raises(TemplateProblem, match="no template mode"):
        compile_template("x", "jinja")
