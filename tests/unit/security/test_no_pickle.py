"""No pickle: nothing of ours writes one, and nothing of ours reads one."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import Flow, Task

import flows
import tasks

ROOT = Path(__file__).parents[3]
FOLDERS = ("perennial", "tasks", "flows", "deployments", "models", "benchmarks", "docs")
PICKLING = {"pickle", "_pickle", "cloudpickle", "joblib", "marshal", "shelve", "dill"}


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def test_no_module_of_ours_imports_what_pickles() -> None:
    found = [
        f"{place}, line {node.lineno}: {name}"
        for place, module in _sources()
        for node in ast.walk(module)
        for name in _imported(node)
        if name.partition(".")[0] in PICKLING
    ]
    assert found == []


def test_numpy_is_nowhere_told_that_it_may_pickle() -> None:
    found = [
        f"{place}, line {node.lineno}"
        for place, module in _sources()
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
    ]
    assert found == []


def _defined(package: object, kind: type) -> list[object]:
    path = package.__path__  # type: ignore[attr-defined]
    name = package.__name__  # type: ignore[attr-defined]
    modules = [
        importlib.import_module(f"{name}.{found.name}")
        for found in pkgutil.iter_modules(path)
        if found.name != "__main__"
    ]
    return [each for module in modules for each in vars(module).values() if isinstance(each, kind)]


@pytest.fixture(scope="module")
def all_tasks() -> list[Task]:
    found = {task.task_key: task for task in _defined(tasks, Task)}
    assert len(found) > 25
    return list(found.values())


def test_a_task_that_keeps_its_result_keeps_json(all_tasks: list[Task]) -> None:
    """Prefect's own choice would be a pickle."""
    assert [
        task.name for task in all_tasks if task.persist_result and task.result_serializer != "json"
    ] == []


def test_a_result_that_a_setting_makes_prefect_keep_is_json_too() -> None:
    """PREFECT_RESULTS_PERSIST_BY_DEFAULT keeps what tasks say nothing of, as their flow says."""
    found = {flow.name: flow for flow in _defined(flows, Flow)}

    assert len(found) >= 7
    assert [name for name, flow in found.items() if flow.result_serializer != "json"] == []


def test_no_task_says_another_serializer(all_tasks: list[Task]) -> None:
    assert {task.result_serializer for task in all_tasks} <= {None, "json"}
