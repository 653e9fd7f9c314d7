"""References: what steps hand each other instead of data. Small, frozen, JSON.

Times are UTC. Windows are half open: ``start <= t < end``. URIs are absolute paths or
``scheme://`` addresses and never hold credentials.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
RowsBy = Literal["content", "position"]


class Value(BaseModel):
    """Base of all contract values: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(Value):
    """A model's definition as it was read: its folder and the digest of model.yaml + features.py.

    ``spec_digest`` covers the parsed spec (comments and order don't matter), ``code_digest`` the
    text of features.py ("" when there is none).
    """

    name: str
    directory: str
    spec_digest: str
    code_digest: str


class SourceRef(Value):
    """What a source held when it was looked at; ``fingerprint`` changes when its content may have,
    but for values that a database changes in rows that it has.

    ``since`` is where reading starts (the last event ingested minus lateness and label delay; None:
    from the beginning), ``until`` where it ends (exclusive; None: no bound).

    ``seen`` is how many ingestions the table had taken in by then (None: not known). It says when
    the source was looked at, not what it held, so it is left out of what is written, and of keys.
    """

    kind: str
    uri: str
    fingerprint: str
    since: datetime | None
    until: datetime | None
    seen: int | None = Field(default=None, exclude=True)


class StagedRef(Value):
    """Rows read, typed and checked, not yet published.

    Folder: ``good/*.parquet``, ``bad/*.parquet`` (the row as JSON text + reason), ``stats.json``.
    """

    uri: str
    digest: str
    rows: int
    bad_rows: int


class ValidationRef(Value):
    """The audit of one staged batch: where its JSON report is, whether it may be published, and
    what somebody may have to mend all the same."""

    uri: str
    digest: str
    passed: bool
    warnings: tuple[str, ...] = ()


class DatasetRef(Value):
    """Rows of one version of a model's Delta table inside an event-time window.

    ``as_of`` is the moment of knowledge: labels of events later than ``as_of - label.delay`` are
    taken as unknown. It is normalised to the data (never later than the last event + label delay),
    so the same data gives the same reference whenever it is looked at, until a label of it becomes
    known. Sources without event time have ``start = end = as_of = None``. ``content_digest`` is of
    the rows themselves: the same rows have the same one in any version of any table. ``rows_by`` is
    how a split tells rows apart that have no identity: by what they hold; versions on record that
    don't say were drawn by position.
    """

    uri: str
    version: int
    start: datetime | None
    end: datetime | None
    as_of: datetime | None
    rows: int
    schema_digest: str
    content_digest: str
    rows_by: RowsBy = "position"


class SplitRef(Value):
    """One int8 a row of the dataset in canonical order.

    0 train, 1 validation, 2 test, -1 unused (gap, unknown label, outside the window).
    """

    uri: str
    digest: str
    rows: dict[Part, int]
    unused_rows: int


class FeaturesRef(Value):
    """The model matrix. Folder:

    ``{part}.x.npy`` float32 (rows, features), ``{part}.y.npy`` float32 (rows,),
    ``test.rows.parquet`` (raw rows of the test part, label included), ``reference.parquet`` (raw
    sample of the training part), ``schema.json`` (FeatureSchema), ``state.json``
    (fitted values), ``graph.dot`` and ``graph.svg`` (what the features are made from).
    """

    uri: str
    digest: str
    rows: dict[Part, int]
    features: int


class StudyRef(Value):
    """A finished Optuna study: the best parameters, not where the database is."""

    study: str
    best_params: dict[str, float | int | str]
    best_rounds: int
    best_value: float
    metric: str
    trials: int
    pruned: int
    tracking_group: str


class BundleRef(Value):
    """An immutable model bundle, addressed by the digest of its content."""

    uri: str
    digest: str


class ReportRef(Value):
    """A written report: the JSON (EvaluationReport) and the HTML page beside it."""

    uri: str
    html_uri: str
    digest: str


class Member(Value):
    """A version that an ensemble is made of; ``name`` is what the ensemble's model.yaml calls it:
    the model, or ``model@version`` where it is pinned."""

    name: str
    model: str
    version: int
    digest: str


class MemberRef(Member):
    """A member and where its bundle is."""

    uri: str


class VersionRef(Value):
    """A registered version of a model; ``version`` counts from 1 within the model."""

    model: str
    version: int
    digest: str
    uri: str
