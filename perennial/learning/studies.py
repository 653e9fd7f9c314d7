"""A study's ended trials in a database (SQLite or PostgreSQL), in Optuna's own tables.

A trial is written once, whole, when it has ended: a process that is killed leaves nothing half
done and nothing that looks as if it still ran, and following a curve costs no writes (12 ms each on
SQLite). Trials count by their place in the study, so a second process that runs the same study does
no harm: it finds the same trials, and a place counts once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perennial.contracts.addresses import database_address
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, Problem, UnavailableError
from perennial.learning.space import Params, distributions
from perennial.spec.schema import Range

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    from sqlalchemy import URL

State = Literal["complete", "pruned", "failed"]

_KEPT = "perennial"

BUSY_SECONDS = 30
"""How long SQLite waits for another writer."""
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class TrialRecord:
    """One ended trial.

    ``number`` is its place in the study, from 0; ``origin`` where its parameters came from
    (``former version``, ``defaults``, ``search``). ``value`` is the best of the metric and
    ``rounds`` the boosting rounds that reached it (None and 0 for a failed one); ``curve`` maps
    rounds to the best value up to there, at a few places; ``stopped`` says why it ended before its
    last round, ``error`` why it failed; ``importance`` is the share of the gain of its main
    features; ``seconds`` what it took.
    """

    number: int
    origin: str
    params: Params
    state: State
    value: float | None
    rounds: int
    curve: Mapping[int, float]
    stopped: str
    error: str
    importance: Mapping[str, float]
    seconds: float


class StudyStore:
    """The record of one study; not to be shared between threads."""

    def __init__(self, study: optuna.Study, space: Mapping[str, Range]) -> None:
        self._study = study
        self._space = space

    @classmethod
    @contextmanager
    def open(
        cls, url: str, name: str, space: Mapping[str, Range], *, greater_is_better: bool
    ) -> Iterator[StudyStore]:
        """The study of this name, made when it is new.

        Raises UnavailableError when the database does not answer, also later inside the ``with``.
        """
        import optuna

        with _database(url) as storage:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                direction="maximize" if greater_is_better else "minimize",
                load_if_exists=True,
            )
            yield cls(study, space)

    def get(self, key: str) -> Any:
        """A JSON value kept with the study; None when there is none."""
        return self._study.user_attrs.get(key)

    def put(self, key: str, value: Any) -> None:
        self._study.set_user_attr(key, value)

    def records(self) -> dict[int, TrialRecord]:
        """The trials that count, by number: failed ones are tried anew."""
        from optuna.trial import TrialState

        counting = (TrialState.COMPLETE, TrialState.PRUNED)
        records: dict[int, TrialRecord] = {}
        for trial in self._study.get_trials(deepcopy=False, states=counting):
            record = _thawed(trial)
            records.setdefault(record.number, record)
        return records

    def add(self, record: TrialRecord) -> None:
        self._study.add_trial(frozen([record], self._space)[0])


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's tables, made when they are missing; two processes may both find them missing."""
    import optuna
    from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

    address = _address(url)
    sqlite = address.get_backend_name() == "sqlite"
    if sqlite and address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_SECONDS}}
        if sqlite
        else {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_SECONDS}}
    )
    whole = address.render_as_string(hide_password=False)
    for attempt in range(5):
        try:
            storage = optuna.storages.RDBStorage(whole, engine_kwargs=options)
            break
        except DBAPIError as error:
            race = isinstance(error, IntegrityError) or "already exists" in str(error)
            if attempt == 4 or not race:
                raise
            time.sleep(0.1 * 2**attempt)
        except RuntimeError as error:  # Optuna's word for tables of another version of it
            shown = str(address.database) if sqlite else f"{address.host}/{address.database}"
            what = f"the tables of studies are not of Optuna {optuna.__version__}"
            fix = "optuna storage upgrade --storage with this address upgrades older ones; back up"
            raise InputError(Problem(shown, what, f"{fix} the database first")) from error
    if sqlite:  # readers don't wait for the writer; the file keeps it, and works without
        with suppress(OperationalError), storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _address(url: str) -> URL:
    """The address of a database that studies may be in. Raises InputError."""
    address = database_address(url, "studies")
    backend = address.get_backend_name() if address else ""
    if address and backend == "sqlite":
        return address
    if not address or backend != "postgresql":
        fix = "use sqlite:///FILE or postgresql://USER@HOST/DATABASE in PERENNIAL_STUDIES_URL"
        raise InputError(Problem("studies", "their address is not one of a database", fix))
    if find_spec("psycopg") is None:
        fix = pip_install("postgres")
        raise InputError(Problem("studies", "PostgreSQL needs the package psycopg", fix))
    return address.set(drivername="postgresql+psycopg")


def frozen(records: Sequence[TrialRecord], space: Mapping[str, Range]) -> list[FrozenTrial]:
    """Records as Optuna's trials; what Optuna has no field for is in one user attribute, as every
    row of a trial costs SQLite some 2 ms."""
    from optuna.trial import TrialState, create_trial

    states = {
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    domains = distributions(space)
    kept = ("number", "origin", "rounds", "stopped", "error", "seconds", "importance")
    return [
        create_trial(
            state=states[record.state],
            value=record.value,
            params=dict(record.params),
            distributions=domains,
            intermediate_values=dict(record.curve),
            user_attrs={_KEPT: {key: getattr(record, key) for key in kept}},
        )
        for record in records
    ]


def _thawed(trial: FrozenTrial) -> TrialRecord:
    """The record that ``frozen`` was given; only for trials that count."""
    from optuna.trial import TrialState

    return TrialRecord(
        params=dict(trial.params),
        state="complete" if trial.state == TrialState.COMPLETE else "pruned",
        value=trial.value,
        curve=dict(trial.intermediate_values),
        **trial.user_attrs[_KEPT],
    )


def best_curve(url: str, name: str) -> dict[int, float]:
    """Rounds → the metric's best value up to there, of a study's best trial; {} when there is no
    such study, or none of its trials is complete. Raises UnavailableError when the database does
    not answer."""
    import optuna

    with _database(url) as storage:
        try:
            best = optuna.load_study(study_name=name, storage=storage).best_trial
        except (KeyError, ValueError):
            return {}
        return dict(sorted(best.intermediate_values.items()))


@contextmanager
def _database(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's storage, given back in the end. Raises UnavailableError when the database does not
    answer, also later inside the ``with``."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: optuna.storages.RDBStorage | None = None
    try:
        storage = _storage(url)
        yield storage
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
        raise UnavailableError(f"the database of studies does not answer: {cause}") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
