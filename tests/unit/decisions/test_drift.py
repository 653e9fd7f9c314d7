"""Verdicts on windows of real rows: what is drift, what is a fault, and what can't be told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.contracts.drift import (
    Bins,
    ColumnDrift,
    ColumnOutcome,
    DriftOutcome,
    DriftVerdict,
    Fault,
    ReferenceStatistics,
)
from perennial.data.drift.counting import count_window
from perennial.data.drift.reference import combined, reference_statistics
from perennial.decisions.binned import joined, named
from perennial.decisions.drift import judge_drift
from perennial.decisions.wording import figure
from perennial.spec.inputs import Column
from perennial.spec.production import Drift

FLOAT, TEXT = Column(type="float"), Column(type="category")
COLUMNS = {
    "speed": Column(type="float", min=-1000, max=1000),
    "doors": Column(type="integer"),
    "port": TEXT,
    "rain": FLOAT,
    "sent": Column(type="datetime"),
}
EQUAL = dict.fromkeys(COLUMNS, 1.0)


def rows(number: int, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    rain = random.gamma(0.5, 2, number)
    rain[random.random(number) < 0.9] = 0.0
    return {
        "speed": random.normal(50, 10, number),
        "doors": random.integers(2, 6, number),
        "port": random.choice(["north", "south", "west"], number, p=[0.5, 0.3, 0.2]),
        "rain": rain,
        "sent": pa.array(np.arange(number) * 10**6, pa.timestamp("us", "UTC")),
    }


@pytest.fixture(scope="module")
def reference() -> ReferenceStatistics:
    return reference_statistics(pa.table(rows(10_000, seed=0)), COLUMNS)


def judged(
    reference: ReferenceStatistics,
    window: dict[str, Any],
    importance: dict[str, float] | None = None,
    **settings: float,
) -> DriftVerdict:
    counted = count_window(reference.bins, [pa.table(window)])
    return judge_drift(
        reference,
        counted,
        importance=EQUAL if importance is None else importance,
        settings=Drift.model_validate(settings),
        seed=3,
    )


def column(verdict: DriftVerdict, name: str) -> ColumnDrift:
    return next(each for each in verdict.columns if each.column == name)


def test_a_window_like_the_training_rows_is_stable(reference: ReferenceStatistics) -> None:
    verdict = judged(reference, rows(5000))
    assert verdict.outcome is DriftOutcome.STABLE
    assert verdict.reason == "none of 5 columns drifted in 5,000 rows"
    assert verdict.drifted_share == 0
    assert column(verdict, "sent").reason == "times move on"
    assert (verdict.rows, verdict.reference_rows) == (5000, 7500)


def test_columns_with_more_of_the_importance_than_allowed_are_drift(
    reference: ReferenceStatistics,
) -> None:
    window = rows(5000)
    window["speed"] += 6
    importance = {"speed": 3.0, "doors": 2.0, "port": 3.0, "rain": 2.0}
    verdict = judged(reference, window, importance, max_drifted_share=0.29)
    assert verdict.outcome is DriftOutcome.DRIFTED
    assert verdict.drifted_share == pytest.approx(0.3)
    assert verdict.reason == (
        "1 of 5 columns with 30 % of the importance, more than the 29 % allowed: speed"
    )
    within = judged(reference, window, importance, max_drifted_share=0.3)
    assert within.outcome is DriftOutcome.STABLE
    assert within.reason == (
        "1 of 5 columns drifted with 30 % of the importance, within the 30 % allowed: speed"
    )
    assert [c.column for c in within.drifted] == ["speed"]


def test_what_the_model_does_not_use_is_told_and_is_no_drift_of_the_window(
    reference: ReferenceStatistics,
) -> None:
    window = rows(5000)
    window["speed"] += 100
    verdict = judged(reference, window, {"doors": 1.0})
    assert [c.column for c in verdict.drifted] == ["speed"]
    assert verdict.outcome is DriftOutcome.STABLE


def test_a_drifted_column_says_by_how_much_and_where(reference: ReferenceStatistics) -> None:
    window = rows(5000)
    window["speed"] += 5
    found = column(judged(reference, window), "speed")
    assert found.shift == pytest.approx(0.5, abs=0.06)
    assert found.effect == pytest.approx(0.21, abs=0.03)
    assert found.limit == pytest.approx(0.1)
    assert found.p_value is not None
    assert found.p_value < 1e-30
    above = max(found.changes, key=lambda change: change.after)
    assert above.after > 1.5 * above.before
    assert found.reason.startswith(
        f"effect {found.effect:.2g}, {found.shift:.2g} spreads up, limit 0.1 on 5,000 rows ("
    )


@pytest.mark.parametrize("by", [25, 40, 100, -30, -100])
@pytest.mark.parametrize("outlier", [None, 1e9, -1e9, np.inf, -np.inf])
def test_of_values_beyond_the_training_s_it_says_how_far_they_went_at_least(
    by: float, outlier: float | None
) -> None:
    """An outlier is one row in 5,000, whatever its value."""
    known = reference_statistics(pa.table({"x": rows(10_000, seed=0)["speed"]}), {"x": FLOAT})
    window = rows(5000)["speed"] + by
    plain = judged(known, {"x": window}).columns[0]
    if outlier is not None:
        window[0] = outlier
    found = judged(known, {"x": window}).columns[0]
    assert found.shift == pytest.approx(plain.shift, abs=0.001)
    assert found.shift is not None
    assert found.shift_at_least
    assert 2 < found.shift * np.sign(by) < abs(by) / 10 + 0.05
    told = f"at least {figure(abs(found.shift), 2)} spreads {'up' if by > 0 else 'down'}"
    assert f", {told}, limit 0.1 on" in found.reason


def test_values_beyond_both_ends_of_the_training_s_have_no_direction(
    reference: ReferenceStatistics,
) -> None:
    window = rows(5000)
    window["speed"] = 50 + 4 * (window["speed"] - 50)
    found = column(judged(reference, window), "speed")
    assert (found.outcome, found.shift) == (ColumnOutcome.DRIFTED, None)
    assert "spreads" not in found.reason


def test_the_spread_of_a_number_that_is_mostly_one_value_is_that_of_all_its_values(
    reference: ReferenceStatistics,
) -> None:
    window = rows(5000)
    window["rain"] += 1
    found = column(judged(reference, window), "rain")
    assert found.shift == pytest.approx(1 / rows(10_000, seed=0)["rain"].std(), rel=0.4)


def test_a_shift_to_the_end_of_all_numbers_is_told_as_far_as_it_is_known() -> None:
    known = reference_statistics(pa.table({"x": np.linspace(0, 1, 400)}), {"x": FLOAT})
    verdict = judged(known, {"x": np.linspace(1e308, 1.7e308, 400)})
    assert verdict.outcome is DriftOutcome.DRIFTED
    assert verdict.columns[0].shift == pytest.approx(1.349, abs=0.1)  # half its range
    assert verdict.columns[0].shift_at_least
    assert DriftVerdict.model_validate_json(verdict.model_dump_json()) == verdict


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((0.0, 1.0), ["below 0", "0", "1", "above 1", "missing"]),  # of a boolean, too
        ((0.0,), ["below 0", "0", "above 0", "missing"]),
        ((0.0, 2.0, 5.0), ["below 0", "0 to 1", "2 to 4", "5", "above 5", "missing"]),
        ((0.5, 2.25), ["below 0.5", "0.5 to 2.25", "2.25", "above 2.25", "missing"]),
    ],
)
def test_a_bin_of_one_value_is_called_by_it(values: tuple[float, ...], names: list[str]) -> None:
    bins = Bins(kind="number", edges=(*values, float(np.nextafter(values[-1], np.inf))))
    places = joined(bins, 8)
    assert [named(bins, places, place) for place in range(places[-1] + 1)] == names


def test_a_figure_is_a_plain_number_where_that_is_short() -> None:
    assert [figure(value, 2) for value in (0.123, 9.96, 99.7, 170.4, 999.9)] == [
        "0.12", "10", "100", "170", "1000",
    ]  # fmt: skip
    assert figure(-170.4, 2) == "-170"


def test_levels_that_gained_and_lost_rows_are_named(reference: ReferenceStatistics) -> None:
    window = rows(5000)
    window["port"] = np.where(window["port"] == "south", "west", window["port"])
    found = column(judged(reference, window), "port")
    shares = {change.values: (change.before, change.after) for change in found.changes}
    assert shares["south"] == (pytest.approx(0.3, abs=0.02), 0)
    assert shares["west"] == (pytest.approx(0.2, abs=0.02), pytest.approx(0.5, abs=0.03))


def test_a_certain_but_tiny_change_is_no_drift(reference: ReferenceStatistics) -> None:
    window = rows(300_000)
    window["speed"] += 1.0
    found = column(judged(reference, window), "speed")
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.outcome is ColumnOutcome.STABLE
    assert column(judged(reference, window, min_effect=0.02), "speed").outcome == "drifted"


def test_predictions_that_drifted_are_drift_whatever_the_columns_did(
    reference: ReferenceStatistics,
) -> None:
    random = np.random.default_rng(5)
    scores = {"_prediction": Column(type="float", min=0, max=1)}
    held_out = pa.table({"_prediction": random.beta(2, 5, 4000)})
    both = combined(reference, reference_statistics(held_out, scores))
    window = rows(3000) | {"_prediction": random.beta(3, 5, 3000)}
    verdict = judged(both, window)
    assert verdict.outcome is DriftOutcome.DRIFTED
    assert verdict.reason.startswith("the predictions drifted: effect ")
    assert " of the importance" not in verdict.reason
    assert verdict.drifted_share == 0
    assert judged(both, rows(3000) | {"_prediction": random.beta(2, 5, 3000)}).outcome == "stable"


def test_predictions_that_drifted_hide_no_columns_that_did(reference: ReferenceStatistics) -> None:
    random = np.random.default_rng(5)
    scores = {"_prediction": Column(type="float", min=0, max=1)}
    held_out = pa.table({"_prediction": random.beta(2, 5, 4000)})
    both = combined(reference, reference_statistics(held_out, scores))
    window = rows(3000) | {"_prediction": random.beta(3, 5, 3000)}
    window["speed"] += 6
    importance = {"speed": 3.0, "doors": 2.0, "port": 3.0, "rain": 2.0}
    more = "; 1 of 6 columns with 30 % of the importance, more than the 29 % allowed: speed"
    reason = judged(both, window, importance, max_drifted_share=0.29).reason
    assert reason.startswith("the predictions drifted: effect ")
    assert reason.endswith(more)
    within = judged(both, window, importance, max_drifted_share=0.3).reason
    assert within == reason.removesuffix(more)


def broken(name: str, values: Any) -> dict[str, Any]:
    return rows(2000) | {name: values}


@pytest.mark.parametrize(
    ("window", "fault", "reason"),
    [
        (
            {name: values for name, values in rows(2000).items() if name != "port"},
            Fault.GONE,
            "port: 2,000 of 2,000 rows don't have it",
        ),
        (
            broken("speed", ["fast"] * 2000),
            Fault.TYPE,
            "speed: 2,000 of 2,000 rows have string, not a number",
        ),
        (
            broken("speed", np.full(2000, np.nan)),
            Fault.MISSING,
            "speed: all of 2,000 values are missing, 0 % in training",
        ),
        (
            broken("doors", pa.array(rows(2000)["doors"], mask=np.arange(2000) % 2 == 0)),
            Fault.MISSING,
            "doors: 50 % of 2,000 values are missing, 0 % in training",
        ),
        (
            broken("speed", np.full(2000, 48.0)),
            Fault.CONSTANT,
            "speed: all 2,000 values are the same one, which at most ",
        ),
        (
            broken("port", ["north"] * 2000),
            Fault.CONSTANT,
            "port: all 2,000 values are the same one, which at most ",
        ),
        (
            broken("port", [f"x{i % 7}" for i in range(2000)]),
            Fault.UNSEEN,
            "port: 100 % of 2,000 values were never seen in training, where 0 % were as new",
        ),
        (
            broken("speed", rows(2000)["speed"] * 1000),
            Fault.IMPOSSIBLE,
            "speed: 2,000 of 2,000 values are not possible by model.yaml",
        ),
        (
            broken("rain", np.full(2000, np.inf)),
            Fault.IMPOSSIBLE,
            "rain: 2,000 of 2,000 values are infinite",
        ),
        (broken("sent", pa.nulls(2000)), Fault.MISSING, "sent: all of 2,000 values are missing"),
    ],
)
def test_a_broken_upstream_is_a_fault_with_its_reason(
    reference: ReferenceStatistics, window: dict[str, Any], fault: Fault, reason: str
) -> None:
    verdict = judged(reference, window)
    assert verdict.outcome is DriftOutcome.FAULT
    assert [each.fault for each in verdict.faults] == [fault]
    assert verdict.reason.startswith(reason)
    assert not verdict.drifted


def test_a_fault_in_one_column_does_not_hide_drift_in_another(
    reference: ReferenceStatistics,
) -> None:
    window = rows(2000) | {"port": ["?"] * 2000}
    window["speed"] += 50
    verdict = judged(reference, window)
    assert verdict.outcome is DriftOutcome.FAULT
    assert [c.column for c in verdict.drifted] == ["speed"]
    assert [c.column for c in verdict.columns[:2]] == ["port", "speed"]


def test_a_dry_week_and_a_calm_one_are_no_faults(reference: ReferenceStatistics) -> None:
    found = column(judged(reference, rows(3000) | {"rain": np.zeros(3000)}), "rain")
    assert found.fault is None
    random = np.random.default_rng(2)
    gust = pa.array(random.normal(20, 5, 8000), mask=random.random(8000) < 0.75)
    calm = pa.array(random.normal(20, 5, 2000), mask=random.random(2000) < 0.95)
    known = reference_statistics(pa.table({"gust": gust}), {"gust": FLOAT})
    assert judged(known, {"gust": calm}).faults == ()


def test_identifiers_are_always_new_and_no_fault() -> None:
    known = reference_statistics(
        pa.table({"id": [f"order {i}" for i in range(8000)]}), {"id": Column(type="string")}
    )
    verdict = judged(known, {"id": [f"order {i}" for i in range(9000, 12000)]})
    assert verdict.outcome is DriftOutcome.STABLE


def test_a_few_rows_of_many_columns_are_inconclusive_and_a_high_limit_is_not() -> None:
    random = np.random.default_rng(6)
    names = [f"x{i}" for i in range(100)]

    def table(number: int) -> Any:
        return pa.table({name: random.normal(0, 1, number) for name in names})

    known = reference_statistics(table(400), dict.fromkeys(names, FLOAT))
    few = count_window(known.bins, [table(30)])
    verdict = judge_drift(known, few, importance={}, settings=Drift(), seed=1)
    assert verdict.outcome is DriftOutcome.INCONCLUSIVE
    assert verdict.reason.startswith("30 rows can't tell of 100 of 100 columns with 100 % of")
    assert verdict.columns[0].found is not None
    assert verdict.columns[0].found > 0.5
    many = count_window(known.bins, [table(2000)])
    insensitive = Drift(min_effect=0.9)
    verdict = judge_drift(known, many, importance={}, settings=insensitive, seed=1)
    assert verdict.outcome is DriftOutcome.STABLE


def test_a_column_that_never_had_but_one_value_is_stable() -> None:
    known = reference_statistics(pa.table({"year": [2026] * 400}), {"year": FLOAT})
    verdict = judged(known, {"year": [2026] * 50})
    assert verdict.outcome is DriftOutcome.STABLE
    assert verdict.columns[0].reason == "one value in all rows"
    assert judged(known, {"year": [2027] * 50}).outcome is DriftOutcome.DRIFTED


def weeks(levels: list[float], number: int, seed: int) -> dict[str, Any]:
    """Rows of consecutive weeks, each with its own weather and month, and one column of no time."""
    random = np.random.default_rng(seed)
    at = np.sort(random.integers(0, len(levels) * WEEK_S, number))
    week = at // WEEK_S
    return {
        "at": pa.array(at * 10**6, pa.timestamp("us", "UTC")),
        "temperature": np.array(levels)[week] + random.normal(0, 3, number),
        "month": week // 4,
        "length": random.gamma(2, 5, number),
    }


WEEK_S = 7 * 24 * 3600
WEATHER = dict.fromkeys(["temperature", "month", "length"], FLOAT)


def test_a_week_is_not_compared_with_a_year_as_if_its_rows_were_strangers() -> None:
    levels = np.random.default_rng(3).normal(10, 5, 24).tolist()
    training = pa.table(weeks(levels, 9000, seed=1))
    naive = reference_statistics(training, WEATHER)
    known = reference_statistics(training, WEATHER, time="at", window=timedelta(weeks=1))
    ordinary = weeks([8.0], 3000, seed=2)
    assert judged(naive, ordinary, {}).outcome is DriftOutcome.FAULT  # one month in six
    verdict = judged(known, ordinary, {})
    assert verdict.outcome is DriftOutcome.STABLE
    assert verdict.drifted == ()
    assert column(verdict, "temperature").usual > 0.5
    assert column(verdict, "length").usual < 0.1

    hot = judged(known, weeks([60.0], 3000, seed=2), {})
    assert [c.column for c in hot.drifted] == ["temperature"]
    longer = weeks([8.0], 3000, seed=2)
    longer["length"] *= 1.3
    assert [c.column for c in judged(known, longer, {}).drifted] == ["length"]


@pytest.mark.parametrize("number", [0, 1, 29])
def test_of_a_few_rows_nothing_is_said(reference: ReferenceStatistics, number: int) -> None:
    verdict = judged(reference, rows(number))
    assert verdict.outcome is DriftOutcome.INCONCLUSIVE
    assert {c.outcome for c in verdict.columns} == {ColumnOutcome.INCONCLUSIVE}
    assert (
        verdict.reason
        == {
            0: "the window has no rows",
            1: "1 row can't tell of 5 of 5 columns with 100 % of the importance: "
            "doors, port, rain, sent, speed",
            29: "29 rows can't tell of 5 of 5 columns with 100 % of the importance: "
            "doors, port, rain, sent, speed",
        }[number]
    )
    gone = judged(reference, {"speed": rows(number)["speed"]})
    assert gone.outcome is (DriftOutcome.FAULT if number else DriftOutcome.INCONCLUSIVE)


def test_an_empty_reference_says_nothing() -> None:
    known = reference_statistics(pa.table(rows(0)), COLUMNS)
    verdict = judged(known, rows(1000))
    assert verdict.outcome is DriftOutcome.INCONCLUSIVE
    assert "0 rows of training, fewer than the 30 needed" in verdict.columns[0].reason


def test_the_verdict_depends_on_the_seed_and_not_on_the_order_of_columns(
    reference: ReferenceStatistics,
) -> None:
    counted = count_window(reference.bins, [pa.table(rows(900))])
    turned = ReferenceStatistics(
        bins=dict(reversed(reference.bins.items())), window=reference.window
    )
    verdicts = [
        judge_drift(each, counted, importance=EQUAL, settings=Drift(), seed=9)
        for each in (reference, reference, turned)
    ]
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_200_undrifted_columns_of_900_rows_give_no_alarm() -> None:
    random = np.random.default_rng(0)
    names = [f"x{i}" for i in range(200)]
    before, after = (pa.table({n: random.normal(0, 1, 900) for n in names}) for _ in range(2))
    known = reference_statistics(before, dict.fromkeys(names, FLOAT))
    verdict = judge_drift(
        known, count_window(known.bins, [after]), importance={}, settings=Drift(), seed=1
    )
    assert verdict.outcome is DriftOutcome.STABLE
    assert verdict.drifted == ()


def test_500_undrifted_levels_at_2000_rows_give_no_alarm() -> None:
    random = np.random.default_rng(0)
    columns = {f"c{i}": TEXT for i in range(20)}

    def levels() -> Any:
        return pa.table({name: random.integers(0, 500, 2000).astype(str) for name in columns})

    known = reference_statistics(levels(), columns)
    verdict = judge_drift(
        known, count_window(known.bins, [levels()]), importance={}, settings=Drift(), seed=1
    )
    assert verdict.outcome is DriftOutcome.STABLE
    assert verdict.drifted == ()


@pytest.mark.parametrize("number", [300, 2000])
def test_one_column_of_50_that_moves_by_5_sigma_is_found(number: int) -> None:
    random = np.random.default_rng(0)
    names = [f"x{i}" for i in range(50)]
    before = {n: random.normal(0, 1, 5000) for n in names}
    after = {n: random.normal(0, 1, number) for n in names}
    after["x7"] += 5
    known = reference_statistics(pa.table(before), dict.fromkeys(names, FLOAT))
    verdict = judge_drift(
        known,
        count_window(known.bins, [pa.table(after)]),
        importance={},
        settings=Drift(),
        seed=1,
    )
    assert verdict.outcome is DriftOutcome.DRIFTED
    assert [c.column for c in verdict.drifted] == ["x7"]
    assert verdict.reason.startswith("x7 is hardly the same: effect 0.9")
