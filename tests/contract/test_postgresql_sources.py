"""What PostgreSQL may hold and Python, or a table, may not: told of its row or its column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from perennial.contracts.errors import InputError
from perennial.contracts.refs import StagedRef
from perennial.spec import parse_spec
from perennial.stores import sources, staging
from tests.contract import postgres
from tests.contract.databases import postgres_server  # noqa: F401  (fixture)

pytestmark = pytest.mark.skipif(not postgres.binaries(), reason="needs PostgreSQL's server")

Stage = Callable[..., StagedRef]


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Make a table ``orders`` by statements and stage it as the source of a model."""
    server = request.getfixturevalue("postgres_server")
    with postgres.database(server, "orders") as url:
        engine = sa.create_engine(url)
        monkeypatch.setenv("ORDERS_URL", url)

        def run(
            *statements: str, query: str = "orders", x: str = "float", since: datetime | None = None
        ) -> StagedRef:
            with engine.begin() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
            spec = parse_spec(
                "name: m\nobjective: binary\n"
                f'source: {{kind: sql, uri: "env:ORDERS_URL", query: "{query}", '
                "event_time: at, entity: [id], lateness: 0d}\nlabel: {column: paid}\n"
                f"columns: {{id: {{type: integer}}, x: {{type: {x}}}, paid: {{type: boolean}}}}"
            )
            source = sources.inspect(spec, tmp_path, since, None)
            return staging.stage(spec, tmp_path, source, tmp_path / "staging")

        yield run
        engine.dispose()


def orders(at: str = "timestamptz", x: str = "numeric") -> str:
    return f"CREATE TABLE orders (at {at}, id int, x {x}, paid boolean)"


def bad(staged: StagedRef) -> dict[str, str]:
    """The reason of each bad row, by its place."""
    found = pq.read_table(Path(staged.uri) / "bad").to_pylist()
    return {row["place"]: row["reason"] for row in found}


def good(staged: StagedRef) -> list[int]:
    return list(pq.read_table(Path(staged.uri) / "good")["id"].to_pylist())


def test_an_infinite_number_is_a_fault_of_its_row_alone(stage: Stage) -> None:
    staged = stage(
        orders(),
        "INSERT INTO orders VALUES ('2024-01-01', 1, 1.5, true), ('2024-01-01', 2, 'Infinity', "
        "true), ('2024-01-01', 3, 'NaN', true), ('2024-01-01', 4, '-Infinity', false)",
    )
    assert good(staged) == [1, 3]
    assert bad(staged) == {
        "orders row 2": "column x: 'Infinity' is not a number",
        "orders row 4": "column x: '-Infinity' is not a number",
    }


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("since", [None, datetime(2023, 12, 1, tzinfo=UTC)])
def test_a_moment_that_is_none_of_the_calendar_is_a_fault_of_its_row_alone(
    stage: Stage, kind: str, since: datetime | None
) -> None:
    moments = ["-infinity", "0044-03-15 BC", "2024-01-01", "12024-01-01", "infinity"]
    rows = ", ".join(f"('{moment}', {n}, 1, true)" for n, moment in enumerate(moments))
    staged = stage(
        "SET TIME ZONE 'UTC'",
        orders(kind),
        f"INSERT INTO orders VALUES {rows}",
        since=since,
    )
    assert good(staged) == [2]
    told = {reason.split("'")[1][:5] for reason in bad(staged).values()}
    early = {"-infi", "0044-"} if since is None or kind == "date" else set()
    assert told == {"12024", "infin"} | early


def test_other_moments_are_what_they_were_before_infinite_ones_were_heeded(stage: Stage) -> None:
    staged = stage(
        orders(),
        "ALTER DATABASE orders SET TIME ZONE 'Europe/Berlin'",
        "INSERT INTO orders VALUES ('2024-07-01 10:00:00.1234+00', 1, 1, true), "
        "('1999-12-31 23:59:59.999999-05:30', 2, 1, true), (NULL, 3, 1, true)",
    )
    found = pq.read_table(Path(staged.uri) / "good")["at"].to_pylist()
    assert found == [
        datetime(2000, 1, 1, 5, 29, 59, 999999, UTC), datetime(2024, 7, 1, 10, 0, 0, 123400, UTC),
    ]  # fmt: skip
    assert len(bad(staged)) == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("jsonb", ["'{\"a\": 1}'", "NULL"]),
        ("json", ["'{\"a\": 1}'", "'7'"]),
        ("jsonb", ["'7'", "'[1]'", "'\"text\"'"]),
        ("text[]", ["ARRAY['a']", "NULL"]),
    ],
)
@pytest.mark.parametrize("query", ["orders", "SELECT * FROM orders"])
def test_a_column_of_objects_or_lists_is_refused_as_a_whole(
    stage: Stage, kind: str, values: list[str], query: str
) -> None:
    rows = ", ".join(f"('2024-01-01', {n}, {value}, true)" for n, value in enumerate(values))
    with pytest.raises(InputError) as caught:
        stage(orders(x=kind), f"INSERT INTO orders VALUES {rows}", query=query, x="string")
    (problem,) = caught.value.problems
    where = "table orders" if query == "orders" else "source.query"
    assert problem.where.endswith(f", {where}, column 'x'")
    assert problem.what == "holds objects or lists, such as JSON or arrays"
    assert "SELECT x->>'a' AS a" in problem.fix


def test_values_taken_out_of_objects_are_read(stage: Stage) -> None:
    staged = stage(
        orders(x="jsonb"),
        "INSERT INTO orders VALUES ('2024-01-01', 1, '{\"a\": 1.5}', true)",
        query="SELECT at, id, paid, x->>'a' AS x FROM orders",
    )
    assert pq.read_table(Path(staged.uri) / "good")["x"].to_pylist() == [1.5]
