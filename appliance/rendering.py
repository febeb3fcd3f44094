"""Templates of the site's files: jinja2 in its sandbox, every undefined name an error, every loop and text bounded.

Whoever writes templates is root here; what is bounded are slips of the pen, which must not stop the process that gives
addresses to a whole cluster.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from images.errors import GildError
from netboot.noderange import fold

MAX_TEXT = 1 << 20  # characters of one rendered file
MAX_ROUNDS = 1_000_000  # of all loops of one rendering together: 1000 nodes by 1000 nodes
KEPT = 256  # compiled templates
_TICK = "_tick"


class RenderFailed(GildError):
    """A template cannot be read or filled in; the message names the file and the line."""


class _Environment(ImmutableSandboxedEnvironment):
    """Counts the rounds of loops."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)
        self.filters["fold"] = _fold
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": self.globals["namespace"]}
        self.globals[_TICK] = self.tick
        self.rounds = 0

    def tick(self) -> None:
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise _TooMuch(f"its loops go round more than {MAX_ROUNDS} times")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Products of texts and powers of numbers fill the memory as no loop could."""
        if operator == "**" or not all(isinstance(value, int | float) for value in (left, right)):
            raise _TooMuch(f"{operator} is for numbers" if operator == "*" else "there is no ** in templates")
        return left * right

    def _generate(self, source: nodes.Template, *more: Any, **options: Any) -> str:
        for loop in list(source.find_all(nodes.For)):
            call = nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(call).set_lineno(loop.lineno))
        return super()._generate(source, *more, **options)


class _TooMuch(Exception):
    """What a template may not do."""


class Renderer:
    """Compiles templates once and fills them in as often as wanted. For one thread."""

    def __init__(self) -> None:
        self._environment = _Environment()
        self._compiled: OrderedDict[tuple[str, str], tuple[Template, frozenset[str]]] = OrderedDict()

    def render(
        self, name: str, text: str, context: Mapping[str, Any], struck: Callable[[str], str] = lambda text: text
    ) -> str:
        """`text` with everything in it filled in from `context`; `name` is what the file is called in messages, and
        `struck` takes out of them what nobody may see. Raises RenderFailed with the line."""
        template, _ = self._template(name, text)
        self._environment.rounds = 0
        pieces, size = [], 0
        try:
            for piece in template.generate(context):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_TEXT:
                    raise _TooMuch(f"it comes to more than {MAX_TEXT} characters")
        except Exception as error:  # whatever an expression of somebody's template may raise
            line, said = _line(error, name), _said(error, struck)
            raise RenderFailed(f"{name}, line {line}: {said}" if line else f"{name}: {said}") from None
        return "".join(pieces)

    def names(self, name: str, text: str) -> frozenset[str]:
        """What a template speaks of, without what it makes itself; nothing if it is no template."""
        try:
            return self._template(name, text)[1]
        except RenderFailed:
            return frozenset()

    def _template(self, name: str, text: str) -> tuple[Template, frozenset[str]]:
        key = name, text
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        try:
            # The name is in the code that is compiled: tracebacks, and so _line, show it.
            code = self._environment.compile(text, name, name)
            template = Template.from_code(self._environment, code, dict(self._environment.globals))
            names = frozenset(meta.find_undeclared_variables(self._environment.parse(text)))
        except TemplateSyntaxError as error:
            raise RenderFailed(f"{name}, line {error.lineno}: {error.message or 'not a template'}") from None
        except (RecursionError, ValueError, SyntaxError, OverflowError, MemoryError) as error:
            raise RenderFailed(f"{name}: {_said(error)}") from None
        self._compiled[key] = template, names
        if len(self._compiled) > KEPT:
            self._compiled.popitem(last=False)
        return template, names


def _fold(names: Iterable[Any]) -> str:
    """Filter: names as a noderange, n[01-16]."""
    return fold(str(name) for name in names)


def _line(error: BaseException, name: str) -> int:
    """The line of the template an error comes from, 0 if it cannot be told. jinja2 rewrites tracebacks so that its
    generated code shows as the template."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _said(error: BaseException, struck: Callable[[str], str] = str) -> str:
    text = " ".join(struck(str(error)).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
