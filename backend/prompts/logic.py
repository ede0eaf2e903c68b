"""The ``logic`` mode: the part of Jinja that cannot call, assign, reach into objects or run for long.

Jinja's sandbox stops code but not cost. So the tree is checked against a list of allowed nodes before it is compiled,
and rewritten so that loops, ``~``, comparisons and slices go through filters that count what they do.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NoReturn

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2 import filters as stock
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context

from .problem import (
    MAX_DEPTH,
    MAX_LOOP_DEPTH,
    MAX_NODES,
    MAX_OUTPUT,
    MAX_STEPS,
    MAX_WORK,
    TemplateProblem,
)

FILTERS = "trim upper lower title capitalize length default first last int string tojson truncate list join".split()
TESTS = "defined undefined none string number boolean true false mapping sequence odd even eq ne lt le gt ge in".split()

_ALLOWED = (
    "Template Output TemplateData Name Const If For Filter Test Getattr Getitem Compare Operand And Or Not CondExpr "
    "Concat Tuple List Slice Neg Keyword"
).split()
_LOOP_FACTS = ("index", "index0", "first", "last", "length")
_BUDGET = "budget of this rendering"  # not a name that a template can write
_USER_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RecursionError)


@dataclass(frozen=True)
class LogicPart:
    """A compiled stretch of a logic template; ``first_line`` is where it begins in the body."""

    template: Template
    first_line: int
    variables: dict[str, int]  # name -> line of its first use

    def render(self, values: Mapping[str, Any]) -> str:
        shared = values.get(_BUDGET)
        budget = shared if isinstance(shared, _Budget) else _Budget()
        context = self.template.new_context({**values, _BUDGET: budget})
        pieces, size = [], 0
        try:
            for piece in self.template.root_render_func(context):
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise TemplateProblem(
                        f"the prompt grows beyond {MAX_OUTPUT:,} characters. Shorten it.",
                        None,
                        "template_grows",
                        most=f"{MAX_OUTPUT:,}",
                    )
                pieces.append(piece)
        except TemplateProblem as problem:
            raise TemplateProblem(problem.sentence, self._line_of(problem), problem.code, **problem.values) from None
        except UndefinedError as error:
            raise self._undefined(error) from None
        except _USER_ERRORS as error:
            line = self._line_of(error)
            raise TemplateProblem(
                f"this cannot be filled in: {error}.", line, "template_unfilled", error=error
            ) from None
        return "".join(pieces)

    def _undefined(self, error: UndefinedError) -> TemplateProblem:
        line = self._line_of(error)
        name = re.fullmatch(r"'(\w+)' is undefined", str(error))
        if name:
            return TemplateProblem.undefined(name[1], line)
        return TemplateProblem(f"{error}. Check the name, or give it a default.", line, "template_no_name", error=error)

    def _line_of(self, error: BaseException) -> int:
        """The line of the body that was running, read from the traceback."""
        line, step = 1, error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == "<template>":
                line = self.template.get_corresponding_lineno(step.tb_lineno)
            step = step.tb_next
        return line + self.first_line - 1


def with_one_budget(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that let several texts be filled within the work of one."""
    return {**values, _BUDGET: _Budget()}


def own_budget(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with which a text is filled within its own work."""
    return {name: value for name, value in values.items() if name != _BUDGET}


def compile_logic(source: str, first_line: int = 1) -> LogicPart:
    """Parse, check, rewrite and compile. Raises TemplateProblem."""
    environment = _environment()
    try:
        tree = environment.parse(source)
        _check(tree, first_line)
        used = find_undeclared_variables(tree)
        lines: dict[str, int] = {}
        for name in tree.find_all(nodes.Name):
            if name.name in used:
                lines.setdefault(name.name, name.lineno + first_line - 1)
        rewritten = _counted_tree(tree)
        rewritten.set_environment(environment)
        code = environment.compile(rewritten, None, None)
        template = Template.from_code(environment, code, {}, None)
    except TemplateSyntaxError as error:
        raise TemplateProblem(
            f"{(error.message or '').rstrip('.')}. To write braces as they are, use mode plain or {{% raw %}}.",
            error.lineno + first_line - 1,
            "template_syntax",
            error=(error.message or "").rstrip("."),
        ) from None
    except TemplateProblem:
        raise
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError):
        raise TemplateProblem(
            "The template is nested too deeply or holds a number too long. Simplify it.", None, "template_deep"
        ) from None
    return LogicPart(template, first_line, lines)


# ---- checking the tree


def _check(tree: nodes.Template, first_line: int) -> None:
    """Refuse every node that is not on the list. Iterative: a hostile tree may be deep."""
    count = 0
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        count += 1
        line = node.lineno + first_line - 1 if node.lineno else first_line
        if count > MAX_NODES:
            raise TemplateProblem(
                f"The template has more than {MAX_NODES:,} parts. Shorten it.",
                None,
                "template_parts",
                most=f"{MAX_NODES:,}",
            )
        if depth > MAX_DEPTH:
            raise TemplateProblem("this is nested too deeply. Simplify it.", line, "template_nested")
        loops += isinstance(node, nodes.For)
        if loops > MAX_LOOP_DEPTH:
            raise TemplateProblem(
                f"loops may be nested {MAX_LOOP_DEPTH} deep. Flatten the list first.",
                line,
                "template_loops",
                most=MAX_LOOP_DEPTH,
            )
        refusal = _refusal(node)
        if refusal:
            raise TemplateProblem(refusal.sentence, line, refusal.code, **refusal.values)
        waiting += [(child, depth + 1, loops) for child in node.iter_child_nodes()]


def _refusal(node: nodes.Node) -> TemplateProblem | None:
    """Why this node may not stand in a template, without its line, or None."""
    kind = type(node).__name__
    if kind not in _ALLOWED:
        name = _SPOKEN.get(kind, kind)
        return TemplateProblem(
            f"{name} cannot be used in a template. Conditions, loops and filters can.",
            None,
            "template_refused",
            name=name,
        )
    if isinstance(node, nodes.Name) and (node.name.startswith("_") or node.name in ("self", "super", "caller")):
        said = f'the name "{node.name}" is not available. Choose another.'
        return TemplateProblem(said, None, "template_hidden_name", name=node.name)
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return TemplateProblem(
            f'the field "{node.attr}" is not available.', None, "template_hidden_field", name=node.attr
        )
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("_"):
        said = f'the field "{node.arg.value}" is not available.'
        return TemplateProblem(said, None, "template_hidden_field", name=node.arg.value)
    if isinstance(node, nodes.Const) and isinstance(node.value, float) and not math.isfinite(node.value):
        return TemplateProblem("this number is too large.", None, "template_number")
    if isinstance(node, nodes.For) and node.recursive:
        return TemplateProblem("a loop cannot be recursive.", None, "template_recursive")
    if isinstance(node, nodes.Filter | nodes.Test):
        known = FILTERS if isinstance(node, nodes.Filter) else TESTS
        if node.name not in known:
            listed = ", ".join(known)
            return TemplateProblem(
                f'there is no {kind.lower()} "{node.name}". There are: {listed}.', None,
                "template_no_filter" if kind == "Filter" else "template_no_test", name=node.name, known=listed,
            )  # fmt: skip
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            said = "arguments cannot be unpacked with *. Write them one by one."
            return TemplateProblem(said, None, "template_unpacked")
    return None


_SPOKEN = {
    "Call": "a call",
    "Assign": "set",
    "AssignBlock": "set",
    "Mul": "*",
    "Pow": "**",
    "Add": "+ (use ~ to join texts)",
    "Dict": "a table in braces",
    "Macro": "macro",
    "Include": "include",
    "Import": "import",
    "FromImport": "import",
}


# ---- rewriting the tree


def _counted_tree(tree: nodes.Template) -> nodes.Template:
    for node in list(tree.find_all((nodes.For, nodes.Concat, nodes.Compare, nodes.Test, nodes.Getitem))):
        if isinstance(node, nodes.For):
            size = sum(1 for _ in node.find_all(nodes.Node))
            node.iter = _through(".loop", node.iter, nodes.Const(size, lineno=node.lineno))
        elif isinstance(node, nodes.Compare):
            node.expr = _through(".weigh", node.expr)
            for operand in node.ops:
                operand.expr = _through(".weigh", operand.expr)
        elif isinstance(node, nodes.Test):
            node.node = _through(".weigh", node.node)
            node.args = [_through(".weigh", argument) for argument in node.args]
    _replace_below(tree)
    return tree


def _replace_below(node: nodes.Node) -> None:
    """Put filters in the place of ``~`` and of slices, everywhere below a node."""
    for field, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, field, [_replacement(item) for item in value])
        elif isinstance(value, nodes.Node):
            setattr(node, field, _replacement(value))


def _replacement(node: Any) -> Any:
    if not isinstance(node, nodes.Node):
        return node
    _replace_below(node)
    if isinstance(node, nodes.Concat):
        return _through(".concat", nodes.List(node.nodes, lineno=node.lineno))
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        ends = [node.arg.start, node.arg.stop, node.arg.step]
        return _through(".slice", node.node, *[end or nodes.Const(None, lineno=node.lineno) for end in ends])
    return node


def _through(filter_name: str, node: nodes.Node, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, filter_name, list(arguments), [], None, None, lineno=node.lineno)


# ---- what runs while a template is filled


class _Budget:
    """What one rendering has spent."""

    def __init__(self) -> None:
        self.steps = 0
        self.work = 0

    def step(self, count: int) -> None:
        self.steps += count
        if self.steps > MAX_STEPS:
            raise TemplateProblem(
                f"the loops take more than {MAX_STEPS:,} steps. Shorten the lists.",
                None,
                "template_steps",
                most=f"{MAX_STEPS:,}",
            )

    def spend(self, amount: int) -> None:
        self.work += amount
        if self.work > MAX_WORK:
            raise TemplateProblem(
                "filling this in takes too much work. Shorten the values or use fewer filters.", None, "template_work"
            )


def _size(value: Any) -> int:
    """About how many characters a value has when written. Raises as soon as that passes the cap."""
    if type(value) is str:
        size = len(value)
    else:
        size, waiting = 0, [iter((value,))]
        while waiting and size <= MAX_OUTPUT:
            item = next(waiting[-1], waiting)
            if item is waiting:
                waiting.pop()
            elif isinstance(item, str):
                size += len(item)
            elif isinstance(item, list | tuple | dict):
                size += 2
                waiting.append(_parts(item))
            elif item is None or isinstance(item, int | float | Undefined):
                size += 1
            else:
                raise TemplateProblem(
                    "this cannot be written as text. Only texts, numbers, lists and tables can.",
                    None,
                    "template_no_text",
                )
    if size > MAX_OUTPUT:
        raise TemplateProblem(
            f"a text grows beyond {MAX_OUTPUT:,} characters here. Shorten it.",
            None,
            "template_text_grows",
            most=f"{MAX_OUTPUT:,}",
        )
    return size


def _parts(container: Any) -> Iterator[Any]:
    for item in container:
        yield item
        if isinstance(container, dict):
            yield container[item]


class _Environment(ImmutableSandboxedEnvironment):
    """Looks up items only: ``q.items`` is the item named items, never a method."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, LoopContext) and argument in _LOOP_FACTS:
            return getattr(obj, argument)
        if isinstance(obj, dict) and isinstance(argument, str | int) and argument in obj:
            return obj[argument]
        if isinstance(obj, list | tuple | str) and type(argument) is int and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def handle_exception(self, source: str | None = None) -> NoReturn:
        raise  # noqa: PLE0704  (called by Jinja inside its except blocks)


def _written(value: Any) -> Any:
    _size(value)
    return value


def _capped(function: Callable[..., Any], weight: int = 1) -> Callable[..., Any]:
    """A filter whose input and result count against the budget."""

    @pass_context
    def run(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        budget: _Budget = context[_BUDGET]
        budget.spend(weight * (_size(value) + sum(map(_size, arguments)) + sum(map(_size, named.values()))))
        result = function(value, *arguments, **named)
        budget.spend(_size(result))
        return result

    return run


@pass_context
def _loop(context: Context, value: Any, nodes_in_loop: int) -> Any:
    """What a ``for`` runs over, paid for before the first step."""
    if isinstance(value, Undefined):
        iter(value)  # raises the error that names it
    if not isinstance(value, list | tuple | dict | str):
        kind = type(value).__name__
        raise TemplateProblem(f"a loop needs a list; this is of the kind {kind}.", None, "template_no_list", kind=kind)
    context[_BUDGET].step(len(value))
    context[_BUDGET].spend(4 * nodes_in_loop * len(value))
    return value


@pass_context
def _weigh(context: Context, value: Any) -> Any:
    """The value itself; comparing it costs its size."""
    if not isinstance(value, LoopContext):
        context[_BUDGET].spend(_size(value))
    return value


def _as_list(value: Any) -> list[Any]:
    if len(value) > MAX_STEPS:
        raise TemplateProblem(
            f"a list may have {MAX_STEPS:,} items.", None, "template_long_list", most=f"{MAX_STEPS:,}"
        )
    return list(value)


def _joined(value: Any, d: str = "") -> str:
    items = _as_list(value)
    if sum(map(_size, items)) + _size(str(d)) * len(items) > MAX_OUTPUT:
        raise TemplateProblem(
            f"a text grows beyond {MAX_OUTPUT:,} characters here. Shorten it.",
            None,
            "template_text_grows",
            most=f"{MAX_OUTPUT:,}",
        )
    return str(d).join(map(str, items))


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as people write it: Chinese and < stay as they are."""
    if indent is not None and not 0 <= indent <= 8:
        raise TemplateProblem("tojson takes an indent of 0 to 8.", None, "template_indent")
    if isinstance(value, Undefined):
        str(value)  # raises the error that names it
    return json.dumps(value, ensure_ascii=False, indent=indent)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_written,
    )
    environment.globals.clear()
    environment.tests = {name: test for name, test in environment.tests.items() if name in TESTS}
    environment.filters = {
        "trim": _capped(stock.do_trim),
        "upper": _capped(lambda value: str(value).upper()),
        "lower": _capped(lambda value: str(value).lower()),
        "title": _capped(stock.do_title, weight=6),
        "capitalize": _capped(stock.do_capitalize),
        "length": _capped(len),
        "default": _capped(stock.do_default),
        "first": _capped(partial(stock.do_first, environment)),
        "last": _capped(partial(stock.do_last, environment)),
        "int": _capped(stock.do_int),
        "string": _capped(str),
        "tojson": _capped(_tojson, weight=2),
        "truncate": _capped(partial(stock.do_truncate, environment)),
        "list": _capped(_as_list, weight=8),
        "join": _capped(_joined, weight=4),
        ".loop": _loop,
        ".weigh": _weigh,
        ".concat": _capped(_joined),
        ".slice": _capped(lambda value, start, stop, step: value[slice(start, stop, step)]),
    }
    return environment
