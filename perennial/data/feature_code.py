"""Read the text of a model's features.py: compile it, find its functions, refuse what can't work.

Code is compiled into a module of its own under a name made from the text's digest, so two versions
of a model's features live side by side in one process and nothing is searched on ``sys.path``.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import threading
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from perennial.contracts.errors import InputError, Problem
from perennial.spec import ModelSpec

FITTED_TAG = "perennial.fitted"
FILE = "features.py"

_Function = TypeVar("_Function", bound=Callable[..., object])
_loading: dict[str, threading.Lock] = {}
"""By module name: what hangs while it is run keeps nothing else from being loaded."""


def fitted(function: _Function) -> _Function:
    """Mark a function of features.py as fitted state.

    It is computed once, on the training rows only, and its value is kept in the bundle; every other
    function that names it as a parameter gets that value, in training and in serving. It returns a
    number, text, list, or dict with text keys (JSON), without NaN or infinity.
    """
    from hamilton.function_modifiers import tag

    marked: _Function = tag(**{FITTED_TAG: "true"})(function)
    return marked


@dataclass(frozen=True, slots=True)
class FeatureCode:
    """A compiled features.py. ``functions`` are its public functions in order of definition,
    ``lines`` where each begins."""

    module: ModuleType
    functions: tuple[Callable[..., object], ...]
    lines: dict[str, int]

    def place(self, function: str, line: int | None = None) -> str:
        """``features.py, line 12, hour()``: the function's first line, or one inside it."""
        line = line or self.lines.get(function)
        return f"{FILE}, line {line}, {function}()" if line else f"{FILE}, {function}()"

    def failure(self, function: str, error: BaseException) -> Problem:
        """What a function raised, at the deepest line of features.py that was running."""
        line = _line_in(error, self.module)
        return Problem(self.place(function, line), f"raised {_first_line(error)}")


def read_code(source: str, spec: ModelSpec) -> FeatureCode:
    """Compile features.py and check its functions' names and types.

    Raises InputError with every mistake and its line: text that is not Python, an import that
    fails, a name given twice, a name that is a column's, a parameter or return without a type.
    """
    name = "perennial_features_" + hashlib.sha256(source.encode()).hexdigest()[:16]
    filename = f"<{name}>"
    try:
        tree = ast.parse(source, filename)
        compiled = compile(tree, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"{FILE}, line {error.lineno}" if error.lineno else FILE
        raise InputError(Problem(where, f"not valid Python: {error.msg}")) from None
    except ValueError as error:
        raise InputError(Problem(FILE, f"not valid Python: {error}")) from None

    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    lines: dict[str, int] = {}
    problems = []
    for node in definitions:
        if node.name in lines:
            what = f"{node.name}() is defined twice; the first is at line {lines[node.name]}"
            problems.append(Problem(f"{FILE}, line {node.lineno}", what, "rename one of them"))
        lines.setdefault(node.name, node.lineno)
    module = _execute(name, filename, compiled)
    functions = tuple(
        value
        for value in vars(module).values()
        if inspect.isfunction(value)
        and value.__module__ == name
        and not value.__name__.startswith("_")
    )
    code = FeatureCode(module, functions, lines)
    for function in functions:
        problems += _signature_problems(code, function, spec)
    if problems:
        raise InputError(problems)
    return code


def _execute(name: str, filename: str, compiled: typing.Any) -> ModuleType:
    """The module of this text; the same text shares one. Registered under its unique name, which
    Hamilton and ``typing`` use to resolve types, and only if running it succeeded."""
    with _loading.setdefault(name, threading.Lock()):
        if name in sys.modules:
            return sys.modules[name]
        module = ModuleType(name)
        module.__file__ = filename
        sys.modules[name] = module
        try:
            exec(compiled, module.__dict__)
        except BaseException as error:
            del sys.modules[name]
            if not raised_by_code(error):
                raise
            line = _line_in(error, module)
            where = f"{FILE}, line {line}" if line else FILE
            raise InputError(Problem(where, f"raised {_first_line(error)}")) from None
        return module


def raised_by_code(error: BaseException) -> bool:
    """Whether feature code failed by itself, rather than that it was interrupted from outside: by
    Ctrl-C, or by whoever runs it. A panic of a library in Rust is no Exception either."""
    of_rust = type(error).__module__ == "pyo3_runtime"
    return of_rust or isinstance(error, Exception | SystemExit)


def _signature_problems(
    code: FeatureCode, function: Callable[..., object], spec: ModelSpec
) -> Iterator[Problem]:
    name = function.__name__
    where = code.place(name)
    if name == "<lambda>":
        line = function.__code__.co_firstlineno
        yield Problem(f"{FILE}, line {line}", "a lambda has no name", "write it with def")
        return
    if name in {*spec.columns, spec.label.column, spec.source.event_time}:
        yield Problem(where, f"{name!r} is a column's name", "rename the function")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:
        yield Problem(where, f"its types can't be read: {_first_line(error)}")
        return
    parameters = inspect.signature(function).parameters
    if not parameters:
        yield Problem(where, "reads no column", "write a constant at the top of the file instead")
    for parameter in parameters:
        if parameter not in hints:
            fix = f"write {parameter}: pd.Series"
            yield Problem(where, f"the parameter {parameter!r} has no type", fix)
    if "return" not in hints:
        fix = "write -> pd.Series; for @fitted float, str, list or dict"
        yield Problem(where, "no return type", fix)


def _line_in(error: BaseException, module: ModuleType) -> int | None:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == module.__file__), None)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
