"""All that keeps state in PostgreSQL at once: registry, studies, and the Prefect server itself."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import sqlalchemy as sa

from perennial.cli import prefect_server as cli_server
from perennial.learning.studies import StudyStore
from perennial.spec import load_spec
from perennial.stores.registry import Registry
from tests.integration.postgresql.conftest import Documented
from tests.workplace import Workplace


class Watch(threading.Thread):
    """How many connections each user had at once, at most."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._engine = sa.create_engine(url)
        self._over = threading.Event()
        self.most: Counter[str] = Counter()

    def run(self) -> None:
        query = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename <> '' GROUP BY 1"
        with self._engine.connect() as connection:
            while not self._over.wait(0.02):
                for user, n in connection.exec_driver_sql(query):
                    self.most[user] = max(self.most[user], n)
                connection.rollback()

    def end(self) -> None:
        self._over.set()
        self.join()
        self._engine.dispose()


def test_a_training_leaves_all_it_knows_in_the_databases_and_no_file_of_sqlite(
    documented: Documented, project: Workplace, tmp_path: Path
) -> None:
    studies = documented.url("perennial_studies", "perennial_studies")
    address = documented.url("prefect", "prefect", "postgresql+asyncpg")
    watch = Watch(documented.server.url)
    environment = {**project.environment, "PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
    with cli_server.prefect_server(tmp_path / "server", environment) as api:
        project.environment.update(
            PREFECT_API_URL=api,
            PERENNIAL_REGISTRY_URL=documented.registry,
            PERENNIAL_STUDIES_URL=studies,
        )
        watch.start()
        summary = project.run(reason="on PostgreSQL")
        watch.end()
    assert summary["decision"]["action"] == "promoted"

    registry = Registry(documented.registry)
    version = registry.version("demand", 1)
    assert [entry.action for entry in registry.decisions("demand")] == ["promoted", "registered"]
    assert registry.audit("demand").faults == ()
    assert registry.retrainings.last("demand")[0].outcome is not None
    registry.close()
    space = load_spec(project.model / "model.yaml").tuning.space
    name = version.links["study"]
    with StudyStore.open(studies, name, space, greater_is_better=False) as store:
        assert len(store.records()) == 4
    engine = sa.create_engine(documented.url("prefect", "prefect", "postgresql+psycopg"))
    with engine.connect() as connection:
        runs = connection.exec_driver_sql(
            "SELECT state_type, count(*) FROM flow_run GROUP BY 1 ORDER BY 1"
        ).all()
    engine.dispose()
    assert [tuple(run) for run in runs] == [("COMPLETED", 1)]
    assert list(tmp_path.rglob("*.db")) == []
    assert watch.most["perennial_app"] <= 2
    assert watch.most["perennial_studies"] <= 2
