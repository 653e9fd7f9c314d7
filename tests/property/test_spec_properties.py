"""What holds for every model.yaml: it reads back as written, and editors agree with the parser."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from perennial.contracts.errors import InputError
from perennial.contracts.metrics import METRICS, metrics_for
from perennial.spec import parse_spec, spec_text
from perennial.spec.cron import check_cron
from perennial.spec.documents import document_text, inline_text, read_document
from perennial.spec.parameters import DOMAINS, TUNABLE
from perennial.spec.publish import json_schema
from perennial.spec.rules import why_ours
from perennial.spec.values import format_duration

SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
TRAPS = [
    "on",
    "no",
    "Yes",
    "1e-3",
    "010",
    "2013",
    "~",
    "null",
    "12:30",
    "2013-01-01",
    "a b",
    "é: #",
]

texts = st.sampled_from(TRAPS) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
)
durations = st.builds(
    lambda n, unit: f"{n}{unit}", st.integers(1, 99), st.sampled_from("smhdw")
) | st.just("1.5d")
shares = st.floats(0.01, 0.45)
names_of_columns = st.lists(
    texts.filter(lambda text: not why_ours(text)), min_size=3, max_size=6, unique_by=str.casefold
)
queries = texts.filter(lambda text: ";" not in text and text.strip())


@cache
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["float", "integer", "boolean", "category", "string", "datetime"]))
    column: dict[str, Any] = {"type": kind}
    if kind in ("float", "integer") and draw(st.booleans()):
        low, high = sorted(draw(st.tuples(st.floats(-1e9, 1e9), st.integers(-9, 9))))
        column |= {"min": low, "max": high}
    if kind in ("category", "string") and draw(st.booleans()):
        column["allowed"] = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    if kind == "integer" and draw(st.booleans()):
        column["allowed"] = draw(st.lists(st.integers(-9, 9), min_size=1, unique=True))
    if draw(st.booleans()):
        column["nullable"] = draw(st.booleans())
    if draw(st.booleans()):
        column["feature"] = draw(st.booleans()) and kind not in ("string", "datetime")
    return column


@st.composite
def ranges(draw: st.DrawFn, name: str) -> Any:
    domain = DOMAINS[name]
    top = 1 if domain.high == 1 else 30
    low = draw(st.integers(3, 9) if domain.whole else st.floats(0.01, 0.4))
    high = draw(st.integers(10, 30) if domain.whole else st.floats(0.5, top))
    if draw(st.booleans()):
        return [low, high]
    return {"low": low, "high": high, "log": draw(st.booleans())}


@st.composite
def gates(draw: st.DrawFn, objective: Any, levels: list[str]) -> dict[str, Any]:
    metric = draw(st.sampled_from(sorted(metrics_for(objective))))
    limit = "min" if METRICS[metric].greater_is_better else "max"
    kinds: list[dict[str, Any]] = [
        {"metric": metric, limit: draw(st.floats(0, 1))},
        {"beats": "champion", "metric": metric, "first_version": "passed", "min_rows": 9},
        {"p99_ms": draw(st.integers(1, 99))},
    ]
    if levels:
        kinds.append({"slices": levels, "metric": metric, "max_regression": 0})
    gate = draw(st.sampled_from(kinds))
    return {**gate, "confidence": 0.9} if "p99_ms" not in gate and draw(st.booleans()) else gate


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A right model.yaml of any shape, as a user may write it."""
    objective = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    label, time, *others = draw(names_of_columns)
    described = {name: draw(columns()) for name in others}
    timed = draw(st.booleans())
    kind = draw(st.sampled_from(["csv", "parquet", "delta", "sql"]))
    document: dict[str, Any] = {
        "name": draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)),
        "objective": objective,
        "source": {"kind": kind, "uri": draw(texts)},
        "label": {"column": label},
        "columns": described,
    }
    assume("://" not in document["source"]["uri"])
    if kind == "sql":
        document["source"]["query"] = draw(queries) + draw(st.sampled_from(["", ";", " ; "]))
    if kind == "csv" and draw(st.booleans()):
        document["source"]["delimiter"] = draw(st.sampled_from([";", "\t", "|"]))
    if objective == "binary" and draw(st.booleans()):
        document["label"]["positive"] = draw(texts | st.integers() | st.booleans())
    if draw(st.booleans()):
        document["source"]["entity"] = others[:1]
    if timed:
        document["source"]["event_time"] = time
        document["label"]["delay"] = draw(durations)
        document["split"] = {"kind": "time", "validation": draw(durations), "gap": draw(durations)}
    else:
        kinds = ["group", "random"] + (["stratified"] if objective != "regression" else [])
        split = draw(st.sampled_from(kinds))
        document["split"] = {"kind": split, "validation": draw(shares), "test": draw(shares)}
        if split == "group":
            document["split"]["group"] = others[0]
    levels = [name for name in others if described[name]["type"] not in ("float", "datetime")]
    searched = draw(st.lists(st.sampled_from(TUNABLE), max_size=4, unique=True))
    document["tuning"] = {
        "trials": draw(st.integers(1, 99)),
        "space": {name: draw(ranges(name)) for name in searched if name != "scale_pos_weight"},
    }
    document["gates"] = draw(st.lists(gates(objective, levels), max_size=3))
    if draw(st.booleans()):
        document["retrain"] = {"schedule": "0 6 * * 1", "on": ["data", "drift"]}
        document["rollout"] = draw(st.sampled_from(ROLLOUTS))
        document["training"] = {
            "params": {"max_depth": 4, "grow_policy": "lossguide"},
            "rounds": 9.0,
        }
    return document


ROLLOUTS: list[dict[str, Any]] = [
    {"strategy": "canary", "steps": [1, 10, 100], "approval": [100], "guards": {"p99_ms": 50}},
    {
        "strategy": ["shadow", "canary"],
        "bake": "0s",
        "approval": True,
        "limits": {"inconclusive": 9, "error": 0},
        "guards": {"error_rate": 0, "prediction_shift": 0.1},
    },
    {
        "strategy": "ab_test",
        "split": 10,
        "timeout": "100w",
        "guards": {"business": [{"column": "x", "max_loss": 1}]},
    },
]


@SETTINGS
@given(documents())
def test_a_spec_reads_back_from_its_text_as_it_was(document: dict[str, Any]) -> None:
    spec = parse_spec(document_text(document))
    text = spec_text(spec)
    assert parse_spec(text) == spec
    assert spec_text(parse_spec(text)) == text


@SETTINGS
@given(documents())
def test_what_the_parser_accepts_is_valid_for_editors(document: dict[str, Any]) -> None:
    spec = parse_spec(document_text(document))
    assert list(validator().iter_errors(document)) == []
    assert list(validator().iter_errors(read_document(spec_text(spec), "F"))) == []


def sections(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every section of a document with its path."""
    return [
        ("", document),
        *((name, document[name]) for name in ("source", "label", "split", "tuning")),
        *((f"columns.{name}", column) for name, column in document["columns"].items()),
        *((f"gates.{i}", gate) for i, gate in enumerate(document["gates"])),
    ]


@SETTINGS
@given(documents(), st.data())
def test_one_unknown_key_anywhere_is_refused_by_parser_and_editors(
    document: dict[str, Any], data: st.DataObject
) -> None:
    path, section = data.draw(st.sampled_from(sections(document)))
    section["unheard_of"] = 1
    with pytest.raises(InputError) as error:
        parse_spec(document_text(document), "F")
    [problem] = error.value.problems
    assert problem.where == f"F, {path}.unheard_of".replace(", .", ", ")
    assert not validator().is_valid(document)


WORDS = [
    "name", "objective", "source", "kind", "uri", "columns", "type", "label", "column", "gates",
    "metric", "beats", "slices", "split", "validation", "tuning", "space", "low", "high", "trials",
    "rollout", "steps", "guards", "retrain", "on", "training", "params", "max_depth", "features",
]  # fmt: skip
scalars = (
    st.sampled_from([*WORDS, "csv", "binary", "float", "2d", "time", "random", "champion"])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | scalars, inner, max_size=6)
    ),
    max_leaves=25,
)


@settings(SETTINGS, max_examples=100)
@given(documents(), st.data())
def test_whatever_a_file_holds_it_is_read_or_refused_with_problems(
    document: dict[str, Any], data: st.DataObject
) -> None:
    for _, section in data.draw(st.lists(st.sampled_from(sections(document)), max_size=3)):
        section[data.draw(st.sampled_from([*section, *WORDS]))] = data.draw(anything)
    try:
        parse_spec(document_text(document))
    except InputError as error:
        said = error
    else:
        said = None
    assert said.problems if said else validator().is_valid(document)


@SETTINGS
@given(st.dictionaries(texts, scalars.filter(lambda v: v == v), max_size=5))  # noqa: PLR0124
def test_yaml_reads_back_what_it_wrote(document: dict[str, Any]) -> None:
    assert read_document(document_text({"a": document}), "F") == {"a": document}
    for value in document.values():
        assert read_document(f"a: {inline_text(value)}", "F") == {"a": value}


@SETTINGS
@given(st.timedeltas(timedelta(0), timedelta(days=36_000)))
def test_a_duration_is_written_so_that_it_reads_back_exactly(value: timedelta) -> None:
    text = spec_text(parse_spec(MINIMAL.format(delay=format_duration(value))))
    assert parse_spec(text).label.delay == value


MINIMAL = """\
name: m
objective: binary
source: {{kind: csv, uri: rows.csv, event_time: at}}
label: {{column: late, delay: {delay}}}
columns: {{amount: {{type: float}}}}
"""

fields = st.lists(
    st.sampled_from(
        ["*", "0", "1", "7", "12", "31", "59", "1-5", "5-1", "2/3", "*/7", "mon", "feb"]
    ),
    min_size=1,
    max_size=2,
).map(",".join)


@settings(SETTINGS, max_examples=100)
@given(st.tuples(fields, fields, fields, fields, fields).map(" ".join))
def test_a_schedule_that_is_accepted_is_one_that_prefect_takes(expression: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        check_cron(expression)
    except ValueError:
        return
    assert CronSchedule(cron=expression).cron == expression
