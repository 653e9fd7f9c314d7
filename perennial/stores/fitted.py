"""Which rows of a candidate's test part another version was fitted to, or tuned on.

On those it looks better than it is, so the two are compared on the others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from perennial.bundle.read import Bundle
from perennial.contracts.refs import DatasetRef
from perennial.data.overlap import RowKey, maybe_fitted, timed_by
from perennial.data.splits import assign, narrowed, split_columns
from perennial.spec import ModelSpec
from perennial.stores import tables
from perennial.stores.project import Project
from perennial.stores.trained import dataset_of


def fitted_rows(
    project: Project,
    version: Bundle,
    spec: ModelSpec,
    test: pd.DataFrame,
    dataset: DatasetRef,
    parts: np.ndarray,
) -> np.ndarray:
    """bool a row of ``test``, the canonical rows that ``parts`` puts into the test part of a
    ``dataset`` of ``spec``.

    Where the version's lineage doesn't settle it, its own rows are split again as they were: then
    just those it was fitted to are found. Where they are gone, all are that it may have been fitted
    to. Raises UnavailableError when the table's storage doesn't answer.
    """
    own = dataset_of(project, version)
    found = maybe_fitted(version.spec, own.as_of or own.end, own.rows_by, spec, test)
    if found.any() and tables.intact(own):
        found = found & _by_its_rows(own, version.spec, spec, test, dataset, parts)
    for member in _judged_members(version):
        its = dataset_of(project, member)
        found = found | maybe_fitted(member.spec, its.as_of or its.end, its.rows_by, spec, test)
    return found


def _by_its_rows(
    own: DatasetRef,
    version: ModelSpec,
    spec: ModelSpec,
    test: pd.DataFrame,
    dataset: DatasetRef,
    parts: np.ndarray,
) -> np.ndarray:
    key, time = RowKey.of(version, spec), timed_by(version, spec)
    by_time = version.split.kind == "time" and time is not None
    drawn = split_columns(version, own.rows_by)
    columns = drawn if by_time else tuple(dict.fromkeys((*drawn, *key.columns)))
    narrow, hashes = [], []
    for rows in tables.scan(own, version, columns):
        narrow.append(narrowed(rows, version, own.rows_by))
        if not by_time:
            hashes.append(key.hashes(rows))
    frame = pd.concat(narrow, ignore_index=True)
    then = assign(frame, version, own.as_of, own.rows_by)
    fitted = (then == 0) | (then == 1)
    if by_time:
        earlier: np.ndarray = (test[time] <= frame.loc[fitted, time].max()).to_numpy()
        return earlier
    theirs = key.keys(np.concatenate(hashes), frame[version.label.column])[fitted]
    known: np.ndarray = np.isin(_test_keys(key, spec, test, dataset, parts), theirs)
    return known


def _test_keys(
    key: RowKey, spec: ModelSpec, test: pd.DataFrame, dataset: DatasetRef, parts: np.ndarray
) -> np.ndarray:
    if not key.numbered:
        return key.hashes(test)
    label = spec.label.column
    hashes, labels = [], []
    for rows in tables.scan(dataset, spec, tuple(dict.fromkeys((*key.columns, label)))):
        hashes.append(key.hashes(rows))
        labels.append(rows[label])
    keys = key.keys(np.concatenate(hashes), pd.concat(labels, ignore_index=True))
    tested: np.ndarray = keys[parts == 2]
    return tested


def _judged_members(version: Bundle) -> list[Bundle]:
    """All that an ensemble is made of, each with a clock of its own; none of any other version, nor
    where ``overlap: keep`` says not to ask."""
    ensemble = version.spec.ensemble
    if ensemble is None or ensemble.overlap == "keep":
        return []
    return list(version.whole())[1:]
