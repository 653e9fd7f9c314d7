"""Predict with an opened bundle: raw rows → features → matrix → booster, as in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perennial.bundle.heads import head_of
from perennial.bundle.members import MemberProgram
from perennial.bundle.read import Bundle
from perennial.contracts.errors import FeatureError, InputError, IntegrityError, Problem
from perennial.contracts.features import InputColumn
from perennial.data.encoding import Encoder
from perennial.data.features import FeatureProgram
from perennial.data.frames import Canonical, Framed, Layout, Rows, Typed
from perennial.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Predictions:
    """float32, one entry a row: binary (n,) the probability of the positive class, multiclass
    (n, classes), regression (n,). ``unseen`` counts, for each categorical feature that had any, the
    values that training never saw; they were predicted as missing."""

    values: np.ndarray
    unseen: dict[str, int]


class Predictor:
    """One version's prediction, loaded once. Several versions live side by side in a process.

    ``columns`` are what ``frame`` gives, in order: the bundle's inputs, then those of ``also`` that
    are no inputs. What ``read`` gives holds all of ``also`` exactly, for whoever writes down what
    was predicted.

    Safe to share between threads: nothing changes after loading, and XGBoost's in-place prediction
    is made for it. ``threads`` is what one prediction may use: 1 suits requests (more made small
    batches no quicker and their slowest much slower), all cores suit batches of thousands of rows.
    The values are the same.

    Raises IntegrityError when the bundle's parts don't fit each other, InputError when its feature
    code doesn't load.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 1,
        also: Mapping[str, InputColumn] | None = None,
    ) -> None:
        schema = bundle.schema
        self._layout = Layout({column.name: column for column in schema.inputs}, carried=also)
        self._encoder = Encoder(schema)
        self.columns: Mapping[str, Typed] = self._layout.columns | self._layout.carried
        self._state = bundle.state
        self._program = (
            member_program(bundle.members, bundle.spec, threads)
            if bundle.members
            else FeatureProgram.load(bundle.features_source, bundle.spec)
        )
        self._head = head_of(bundle, threads)
        self._shape = (bundle.class_count,) if bundle.class_count else ()
        names = tuple(feature.name for feature in schema.features)
        if names != self._program.features or len(names) != self._head.features:
            maker = "its members make" if bundle.members else "features.py makes"
            reader = "the booster reads" if bundle.weights is None else "the weights are for"
            what = (
                f"{maker} {len(self._program.features)} features, schema.json has "
                f"{len(names)}, {reader} {self._head.features}"
            )
            where = f"bundle {bundle.path}"
            raise IntegrityError(Problem(where, what, "train again with this Perennial"))

    def frame(self, rows: Rows) -> pd.DataFrame:
        """The rows' ``columns`` in canonical form; other columns are ignored.

        Values may come in any type that training reads from a source: a JSON request's, a Parquet
        file's. A Mapping of lists of plain values is the quickest way for a few rows. Columns of
        ``also`` may be absent or have missing values, and come in their table type (ArrowDtype).
        Raises InputError naming every column that is absent, doesn't parse (with value and row,
        counted from 1; infinity is no number), or is missing where it must not be.
        """
        return self.read(rows).frame

    def read(self, rows: Rows) -> Canonical:
        """``frame`` without its frame, which takes as long to make as a row to predict. Raises as
        ``frame`` does."""
        return self._layout.read(rows)

    def matrix(self, frame: Framed) -> np.ndarray:
        """What the booster reads of the rows that ``frame`` or ``read`` made, in order: float32
        (n, features), NaN where a value is missing or a category was never seen in training.

        Raises as ``predict_frame``.
        """
        return self._matrix(frame)[0]

    def predict_frame(self, frame: Framed) -> Predictions:
        """Predictions for the rows that ``frame`` or ``read`` made, in order.

        Raises FeatureError for feature code that fails on them, InputError for features that come
        out infinite.
        """
        matrix, unseen = self._matrix(frame)
        if not len(matrix):
            return Predictions(np.empty((0, *self._shape), dtype=np.float32), unseen)
        return Predictions(self._head.predict(matrix), unseen)

    def predict(self, rows: Rows) -> Predictions:
        """``predict_frame`` of ``frame``."""
        return self.predict_frame(self.read(rows))

    def _matrix(self, frame: Framed) -> tuple[np.ndarray, dict[str, int]]:
        if isinstance(self._program, MemberProgram):
            answers, unseen = self._program.answers(frame)
            return self._encoder.encode(answers)[0], unseen
        return self._encoder.encode(self._program.arrays(frame, self._state))


def own_fault(error: BaseException) -> bool:
    """Whether what predicting raised is the version's fault and not that of the rows: its feature
    code fails on rows that are in order, or nobody foresaw it."""
    return isinstance(error, FeatureError | IntegrityError) or not isinstance(error, InputError)


def member_program(
    members: Mapping[str, Bundle], spec: ModelSpec, threads: int = 1
) -> MemberProgram:
    """The features of an ensemble whose model.yaml is ``spec``, from its members' bundles."""
    predictors = {name: Predictor(bundle, threads) for name, bundle in members.items()}
    return MemberProgram(members, predictors, spec)
