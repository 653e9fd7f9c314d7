"""Hamilton at work: the graph of a model's functions, and running them with failures as values.

Hamilton reads the functions with their decorators, resolves what each one needs and checks the
types when they are loaded. The nodes it made are then called one after the other in the order in
which its driver would: an execution of the driver takes longer than most features of a few rows.

A column comes as its parameter is declared, a pandas Series or a NumPy array: of one row, a step of
pandas takes ten times as long as one of NumPy. A parameter that is a function gets what that one
returned; Hamilton sees to it that the types agree.

Everything of Hamilton is imported here, and this module only when feature code is loaded. Hamilton
would import every plotting and data library that is installed (3 s); only pandas' part is loaded.
"""

from __future__ import annotations

import copy
import graphlib
import inspect
import logging
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from hamilton import registry

registry.disable_autoload()

from hamilton import driver  # noqa: E402
from hamilton.node import Node, NodeType  # noqa: E402

from perennial.contracts.errors import FeatureError, InputError, Problem  # noqa: E402
from perennial.data.feature_code import (  # noqa: E402
    FILE,
    FITTED_TAG,
    FeatureCode,
    raised_by_code,
)
from perennial.spec import ModelSpec  # noqa: E402
from perennial.spec.values import nearest  # noqa: E402

registry.load_extension("pandas")  # @extract_columns on a DataFrame
logging.getLogger("hamilton.driver").setLevel(logging.CRITICAL)  # errors are ours to report


_LABELLED = (pd.Series, pd.DataFrame)
_watching = ContextVar("watching", default=False)


@contextmanager
def watched() -> Iterator[None]:
    """While this is entered, a function that changes its input in place fails. Others that read the
    same input would see the change or not, depending on who runs first."""
    token = _watching.set(True)
    try:
        yield
    finally:
        _watching.reset(token)


@dataclass(frozen=True, slots=True)
class Failure:
    """The value of a function that failed, and of all that depend on it: several failures are
    reported together."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Functions:
    """The functions in order of definition, and what each one reads (columns and functions).

    ``fitted`` are those marked @fitted; ``tables`` those declared to return a DataFrame (input of
    others, never a feature); ``arrays`` the columns they read as NumPy arrays; ``summaries`` the
    first lines of their docstrings.
    """

    dependencies: Mapping[str, tuple[str, ...]]
    fitted: frozenset[str]
    tables: frozenset[str]
    arrays: frozenset[str]
    places: Mapping[str, str]
    summaries: Mapping[str, str]
    nodes: Mapping[str, Node]
    code: FeatureCode

    def upstream(self, names: Iterable[str], stop: frozenset[str] = frozenset()) -> set[str]:
        """The names themselves and all they depend on, columns included; not what only those in
        ``stop`` depend on."""
        seen: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += () if name in stop else self.dependencies.get(name, ())
        return seen

    def plan(self, names: Iterable[str], given: Iterable[str] = ()) -> Plan:
        """How to compute functions by name, when the values of those ``given`` are known."""
        known = set(given)
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in self.dependencies and name not in known and name not in order:
                for needed in self.dependencies[name]:
                    visit(needed)
                order[name] = None

        wanted = tuple(names)
        for name in wanted:
            visit(name)
        steps = [
            _Step(name, self.nodes[name].callable, self.dependencies[name], name in self.fitted)
            for name in order
        ]
        last = {needed: step.name for step in steps for needed in step.needs}
        done = {
            step.name: [n for n, at in last.items() if at == step.name and n not in wanted]
            for step in steps
        }
        return Plan(tuple(steps), wanted, done, self.code)


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    function: Callable[..., object]
    needs: tuple[str, ...]
    is_fitted: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Functions in the order in which they are called. Immutable: any number of threads may run it.

    ``done`` names the values that nobody needs after a step, so that they are freed.
    """

    steps: tuple[_Step, ...]
    wanted: tuple[str, ...]
    done: Mapping[str, Sequence[str]]
    code: FeatureCode

    @property
    def reads(self) -> frozenset[str]:
        """All that the functions need from outside: columns and given values."""
        made = {step.name for step in self.steps}
        return frozenset(name for step in self.steps for name in step.needs) - made

    def run(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the wanted functions by name, from columns and given values (at least
        ``reads``). Raises FeatureError with all that failed."""
        values = dict(known)
        for step in self.steps:
            values[step.name] = _result(step, {n: values[n] for n in step.needs}, self.code)
            for name in self.done[step.name]:
                del values[name]
        results = {name: values[name] for name in self.wanted}
        failures = [value.problem for value in results.values() if isinstance(value, Failure)]
        if failures:
            raise FeatureError(list(dict.fromkeys(failures)))
        return results


def _result(step: _Step, arguments: dict[str, Any], code: FeatureCode) -> object:
    """What one function gives. What it raises, and a result that isn't aligned with its input rows,
    becomes a Failure that names it."""
    index = None
    for value in arguments.values():
        if isinstance(value, Failure):
            return value
        if index is None and isinstance(value, _LABELLED):
            index = value.index
        elif index is None and isinstance(value, np.ndarray):
            index = pd.RangeIndex(len(value))
    before = copy.deepcopy(arguments) if _watching.get() else {}
    try:
        result = step.function(**arguments)
    except BaseException as error:
        if not raised_by_code(error):
            raise
        return Failure(code.failure(step.name, error))
    for name, value in before.items():
        if not _same(value, arguments[name]):
            what = f"changes its input {name!r} in place"
            return Failure(Problem(code.place(step.name), what, "change a copy of it"))
    if index is None or step.is_fitted:
        return result
    return misaligned(result, index, code.place(step.name)) or result


def build_graph(code: FeatureCode, spec: ModelSpec) -> Functions:
    """The graph of a features.py over a model's columns.

    Raises InputError with every parameter that is the label, or neither a column nor a function, a
    type that doesn't fit, and a circle of functions.
    """
    try:
        built = driver.Builder().with_modules(code.module).build()
    except Exception as error:
        text = str(error).strip().split("\n")[0].strip().removeprefix("Error: ")
        raise InputError(Problem(FILE, text)) from None

    order = {function.__name__: i for i, function in enumerate(code.functions)}
    nodes = [node for node in built.graph.nodes.values() if not node.user_defined]
    origin = {node.name: node.originating_functions[0].__name__ for node in nodes}
    nodes.sort(key=lambda node: order.get(origin[node.name], len(order)))
    places = {node.name: code.place(origin[node.name]) for node in nodes}
    graph = Functions(
        dependencies={node.name: tuple(node.input_types) for node in nodes},
        fitted=frozenset(node.name for node in nodes if FITTED_TAG in node.tags),
        tables=frozenset(node.name for node in nodes if node.type is pd.DataFrame),
        arrays=frozenset(
            name
            for node in nodes
            for name, (hint, _) in node.input_types.items()
            if name not in origin and _is_a(hint, np.ndarray)
        ),
        places=places,
        summaries={n.name: (n.documentation or "").strip().split("\n")[0] for n in nodes},
        nodes={node.name: node for node in nodes},
        code=code,
    )
    problems = [
        problem
        for node in nodes
        for parameter, (hint, _) in node.input_types.items()
        if (problem := _parameter_problem(graph, node.name, parameter, hint, spec))
    ]
    problems += [
        Problem(places[node.name], "expands or collects a list, which no feature can", "use pandas")
        for node in nodes
        if node.node_role in (NodeType.EXPAND, NodeType.COLLECT)
    ]
    try:
        graphlib.TopologicalSorter(graph.dependencies).prepare()
    except graphlib.CycleError as error:
        circle = [name for name in reversed(error.args[1]) if name in places]
        what = f"functions read one another in a circle: {' → '.join(circle)}"
        problems.append(Problem(places[circle[0]], what))
    if problems:
        raise InputError(problems)
    return graph


def _parameter_problem(
    graph: Functions, function: str, parameter: str, hint: Any, spec: ModelSpec
) -> Problem | None:
    where = graph.places[function]
    if parameter in graph.dependencies:
        return None
    if parameter == spec.label.column:
        what = f"the parameter {parameter!r} is the label, which no feature may read"
        return Problem(where, what, "remove it: nobody knows it at prediction time")
    columns = [name for name in (*spec.columns, spec.source.event_time) if name]
    if parameter not in columns:
        names = [c for c in (*columns, *graph.dependencies) if c != spec.label.column]
        what = f"no column or function {parameter!r}{nearest(parameter, names)}"
        return Problem(where, what, "a parameter names a column of model.yaml or a public function")
    if not (hint is Any or _is_a(hint, pd.Series) or _is_a(hint, np.ndarray)):
        kind = getattr(hint, "__name__", hint)
        what = f"the column {parameter!r} is a Series or an array, the parameter's type is {kind}"
        return Problem(where, what, f"write {parameter}: pd.Series")
    return None


def _is_a(hint: Any, kind: type) -> bool:
    """Whether a parameter of this type can be given a ``kind``; for ``object`` it is a Series."""
    declared = typing.get_origin(hint) or hint
    if declared is object:
        return kind is pd.Series
    return inspect.isclass(declared) and issubclass(kind, declared)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, np.ndarray):
        before, after = pd.Series(before), pd.Series(after)
    if isinstance(before, _LABELLED):
        return bool(before.equals(after))
    return bool(before == after)


def misaligned(result: object, index: pd.Index, place: str) -> Failure | None:
    """The failure of a Series, DataFrame or array that isn't one value a row of ``index``, in
    order."""
    if isinstance(result, np.ndarray):
        if result.shape == index.shape:
            return None
        shape = " × ".join(f"{size:,}" for size in result.shape) or "one"
        what = f"returns {shape} values for {len(index):,} rows"
    elif not isinstance(result, _LABELLED):
        return None
    elif len(result) != len(index):
        what = f"returns {len(result):,} values for {len(index):,} rows"
    elif result.index is not index and not result.index.equals(index):
        what = "returns its values under another index than its input's"
    else:
        return None
    return Failure(Problem(place, what, "return one value for each row, in the same order"))
