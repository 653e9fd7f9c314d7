"""The file as a whole: everything wrong at once, YAML's traps, formats, and writing it back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perennial.contracts.errors import InputError
from perennial.spec import kept_spec, load_spec, parse_spec, spec_text
from perennial.spec.documents import document_text, inline_text, read_document

MINIMAL = """\
name: m
objective: binary
source: {kind: csv, uri: rows.csv, event_time: at}
label: {column: late}
columns:
  amount: {type: float}
"""


def refusal(text: str) -> str:
    with pytest.raises(InputError) as error:
        parse_spec(text, "F")
    return error.value.message


def test_all_mistakes_are_told_at_once_also_by_rules_between_sections() -> None:
    text = """\
name: Flight
objective: binry
source: {kind: csv, ur: x, event_time: at, entity: [idd]}
label: {column: late, delay: 2days}
columns:
  id: {type: string}
  amount: {type: float, min: 10, max: 6}
  country: {type: categry}
splt: {kind: time}
split: {kind: time, validation: 0.2, test: 14d}
gates:
  - {metric: roc_auc, minn: 0.65}
  - {beats: champion, metrc: logloss}
  - {slices: [contry], metric: logloss, max_regression: 0}
tuning: {trials: 0, space: {max_dept: [3, 1]}}
training: {rounds: many, params: {eta: 0.1}}
retrain: {on: [drift, drift], schedule: "0 6 * *"}
"""
    assert refusal(text).split("\n") == [
        "F, name: 'Flight' is not a name; use lowercase letters, digits and dashes, at most 63, "
        "with no dash at either end",
        "F, objective: 'binry' is not one of binary, multiclass, regression; "
        "did you mean 'binary'?",
        "F, source.ur: unknown key 'ur'; did you mean 'uri'?",
        "F, label.delay: '2days' is not a duration; write a number and a unit: "
        "90s, 10m, 6h, 2d, 1w",
        "F, columns.amount: min 10 is above max 6",
        "F, columns.country.type: 'categry' is not one of float, integer, boolean, category, "
        "string, datetime; did you mean 'category'?",
        "F, split.validation: validation of a time split is a duration such as 14d, not 0.2",
        "F, training.rounds: expected a whole number, not 'many'",
        "F, tuning.trials: must be at least 1, not 0",
        "F, tuning.space.max_dept: low 3 is not below high 1",
        "F, gates.0.minn: unknown key 'minn'; did you mean 'min'?",
        "F, gates.1.metrc: unknown key 'metrc'; did you mean 'metric'?",
        "F, retrain.schedule: '0 6 * *' is not a cron expression of five fields: "
        "minute hour day month weekday, such as 0 6 * * 1",
        "F, splt: unknown key 'splt'; did you mean 'split'?",
        "F, training.params.eta: not a parameter that can be set; did you mean 'learning_rate'?",
        "F, tuning.space.max_dept: not a tunable parameter; did you mean 'max_depth'?",
        "F, retrain.on.1: 'drift' is given twice",
        "F, source.entity.0: no column 'idd'; did you mean 'id'?",
        "F, gates.2.slices.0: no column 'contry'; did you mean 'country'?",
    ]


def test_many_mistakes_are_all_kept_and_shown_up_to_a_bound() -> None:
    wrong = "".join(f"  c{i}: {{type: nothing}}\n" for i in range(50))
    with pytest.raises(InputError) as error:
        parse_spec(MINIMAL + wrong, "F")
    assert len(error.value.problems) == 50
    assert error.value.message.split("\n")[20:] == ["… and 30 more"]


def test_a_section_that_is_wrong_starts_no_complaints_about_the_others() -> None:
    text = MINIMAL.replace("{kind: csv, uri: rows.csv, event_time: at}", "rows.csv")
    assert refusal(text + "split: {kind: time, gap: 1d}\ngates: [{slices: [x], metric: y}]") == (
        "F, source: expected keys and values, not 'rows.csv'\n"
        "F, gates.0.max_regression: this key is required\n"
        "F, gates.0.metric: 'y' is no metric of a binary model; "
        "use one of logloss, roc_auc, pr_auc, brier, accuracy"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "F: the file is empty (perennial init NAME --data FILE --label COL)"),
        (
            "# only a comment\n",
            "F: the file is empty (perennial init NAME --data FILE --label COL)",
        ),
        ("- a\n- b\n", "F: expected keys and values at the top level, not ['a', 'b']"),
        ("name", "F: expected keys and values at the top level, not 'name'"),
        (
            "name: [a\n",
            "F, line 2: not valid YAML: expected ',' or ']', but got '<stream end>'",
        ),
        ("name: a\nname: b\n", "F, line 2: not valid YAML: the key 'name' is given twice"),
        (
            "columns:\n  a: {type: float}\n  b: {type: float}\n  a: {type: float}\n",
            "F, line 4: not valid YAML: the key 'a' is given twice",
        ),
        ("? [a, b]\n: 1\n", "F, line 1: not valid YAML: a key must be text"),
        (
            "label:\n\tcolumn: a\n",
            r"F, line 2: not valid YAML: found character '\t' that cannot start any token "
            "(indent with spaces)",
        ),
        (
            "schedule: * * * * *\n",
            "F, line 1: not valid YAML: expected alphabetic or numeric character, but found ' ' "
            '(quote text that starts with * or &, such as a schedule: "* * * * *")',
        ),
        (
            "a: 1\n---\nb: 2\n",
            "F, line 2: not valid YAML: but found another document",
        ),
        ("a: \x00", "F: not valid YAML: special characters are not allowed"),
        (
            "a: !!python/object:os.system x\n",
            "F, line 1: not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("a: !!float x\n", "F: not valid YAML: could not convert string to float: 'x'"),
        ("a: !!int x\n", "F, line 1: not valid YAML: 'x' is not a whole number"),
        ("[" * 2000, "F: not valid YAML: nested too deeply"),
    ],
)
def test_a_text_that_is_no_yaml_mapping_is_refused_with_its_line(text: str, said: str) -> None:
    assert refusal(text) == said


def test_keys_that_are_no_text_are_told_by_name() -> None:
    assert refusal(
        MINIMAL + '  2013: {type: float}\n  ~: {type: float}\n  "": {type: float}\n2: 3\n'
    ).split("\n") == [
        "F, columns: the key 2013 is not text (quote it)",
        "F, columns: the key None is not text (quote it)",
        "F, columns: a key is empty",
        "F: the key 2 is not text (quote it)",
    ]


def test_an_empty_section_is_told_as_such() -> None:
    assert refusal(MINIMAL + "drift:\n") == "F, drift: expected keys and values, not nothing"


def test_on_off_yes_and_no_are_text_as_editors_take_them() -> None:
    spec = parse_spec(
        MINIMAL + "  on: {type: category, allowed: [NO, no, y, off]}\nretrain:\n  on: [data]\n"
    )
    assert spec.columns["on"].allowed == ("NO", "no", "y", "off")
    assert spec.retrain.on == ("data",)


def test_numbers_are_read_as_yaml_1_2_reads_them() -> None:
    text = (
        "{a: 1e-3, b: 010, c: 12:30, d: 0x1F, e: 0o17, f: 1_000, g: .5, h: -1.5E+2, i: 2013-01-01}"
    )
    assert read_document(text, "F") == {
        "a": 0.001,
        "b": 10,
        "c": "12:30",
        "d": 31,
        "e": 15,
        "f": "1_000",
        "g": 0.5,
        "h": -150.0,
        "i": "2013-01-01",
    }


def test_anchors_and_merged_keys_may_save_repetition() -> None:
    text = MINIMAL + "  b: &price {type: float, min: 0}\n  c: {<<: *price, max: 9}\n"
    spec = parse_spec(text)
    assert (spec.columns["c"].min, spec.columns["c"].max) == (0, 9)


def test_a_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_spec(path) == parse_spec(MINIMAL)


def test_the_first_format_loads_with_and_without_its_number() -> None:
    assert parse_spec("format: 1\n" + MINIMAL) == parse_spec(MINIMAL)


def test_a_newer_format_is_refused_before_its_keys_are_judged() -> None:
    assert refusal("format: 2\nunheard_of: 1\n" + MINIMAL) == (
        "F, format: this file has format 2, this Perennial reads formats up to 1 "
        "(upgrade Perennial: pip install --upgrade perennial-ml)"
    )


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "model.yaml"
    with pytest.raises(InputError) as error:
        load_spec(missing)
    assert error.value.message == (
        f"{missing}: no such file (perennial init NAME --data FILE --label COL writes one)"
    )
    with pytest.raises(InputError) as error:
        load_spec(tmp_path)
    assert error.value.message == f"{tmp_path}: can't be read: {os.strerror(21)}"
    missing.write_bytes(b"name: \xff")
    with pytest.raises(InputError) as error:
        load_spec(missing)
    assert error.value.message == f"{missing}: not UTF-8 text at byte 6"


def test_a_spec_is_written_as_it_was_given_without_defaults(spec: Any) -> None:
    text = spec_text(spec(tuning__space={"gamma": [0, 1]}, label__delay="36h"))
    assert "delay: 36h" in text
    assert "low: 0\n" in text
    assert "trials" not in text
    assert spec_text(parse_spec(text)) == text


@pytest.mark.parametrize(
    "value",
    ["on", "1e-3", "010", "", "~", "a: b", "2d", "0 6 * * 1", "* * * * *", 1, 0.5, True, None],
)
def test_a_single_value_is_written_so_that_it_reads_back_the_same(value: object) -> None:
    text = inline_text(value)
    assert "\n" not in text
    assert read_document(f"a: {text}", "F") == {"a": value}


def test_what_is_written_reads_the_same_in_yaml_1_1_too() -> None:
    import yaml

    document = {"a": ["on", "no", "1e-3", "010", "12:30", "2013-01-01", "0o17", "1_000", "=", "<<"]}
    assert yaml.safe_load(document_text(document)) == document


@pytest.mark.parametrize(
    ("then", "refused"),
    [
        ("training: {params: {tree_method: approx}}", "this is always hist"),
        ("training: {params: {monotone_constraints: '(1)'}}", "write names of features"),
        ("training: {params: {base_score: 1}}", "a probability"),
        ("rollout: {timeout: 2h, alpha: 0.1}", "timeout, alpha have"),
        (
            "rollout: {strategy: canary, guards: {business: [{column: city, max_loss: 0}]}}",
            "a category column is not a number",
        ),
    ],
)
def test_what_a_rule_refuses_now_is_read_as_it_was_from_a_bundle(then: str, refused: str) -> None:
    text = MINIMAL + f"  city: {{type: category}}\n{then}\n"
    with pytest.raises(InputError, match=refused):
        parse_spec(text)
    kept = kept_spec(text, "spec.yaml")
    assert kept_spec(spec_text(kept), "spec.yaml") == kept
    assert read_document(spec_text(kept), "F") == read_document(text, "F")
    for wrong in (text.replace("objective: binary", "objective: b"), text + "trainin: 1\n"):
        with pytest.raises(InputError):
            kept_spec(wrong, "spec.yaml")
    assert kept_spec(MINIMAL, "spec.yaml") == parse_spec(MINIMAL)
