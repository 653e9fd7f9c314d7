"""The features of an ensemble: what its members predict, each with its own feature code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd

from perennial.bundle.read import Bundle
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import FeatureGraph, GraphNode
from perennial.data.frames import Framed, as_frame, same_form, table_columns
from perennial.data.rows import Rows
from perennial.spec import ModelSpec


class Answer(Protocol):
    """Predictions: float32 (n,) or (n, classes), and unseen values by feature."""

    @property
    def values(self) -> np.ndarray: ...

    @property
    def unseen(self) -> dict[str, int]: ...


class Answering(Protocol):
    """A member's ``Predictor``."""

    def predict(self, rows: Rows) -> Answer: ...

    def predict_frame(self, frame: Framed) -> Answer: ...


class MemberProgram:
    """Stands where a model's feature code does (``data.programs.Program``).

    A member's prediction is one feature, ``predicted by member``; of a multiclass model it is one
    for each class, ``class predicted by member``. ``inputs`` are the columns any member reads, in
    the order of the ensemble's model.yaml. Nothing is fitted: members are what they were.
    """

    def __init__(
        self, bundles: Mapping[str, Bundle], predictors: Mapping[str, Answering], spec: ModelSpec
    ) -> None:
        declared = table_columns(spec)
        self._predictors = predictors
        self._alike = {  # whose frame is also the member's
            name
            for name, bundle in bundles.items()
            if all(same_form(declared[c.name], c) for c in bundle.schema.inputs)
        }
        self._digests = {name: bundle.digest for name, bundle in bundles.items()}
        self._reads = {
            name: tuple(column.name for column in bundle.schema.inputs)
            for name, bundle in bundles.items()
        }
        self._columns = {
            name: tuple(f"{c} predicted by {name}" for c in bundle.schema.classes or ())
            if bundle.class_count
            else (f"predicted by {name}",)
            for name, bundle in bundles.items()
        }
        self.features = tuple(name for names in self._columns.values() for name in names)
        read = {column for columns in self._reads.values() for column in columns}
        order = dict.fromkeys((*spec.columns, spec.source.event_time))
        self.inputs = tuple(name for name in order if name in read)
        self.fit_inputs: tuple[str, ...] = ()
        self.fitted: tuple[str, ...] = ()

    def fit(self, frame: pd.DataFrame) -> dict[str, Any]:  # noqa: ARG002 (nothing to learn)
        """Nothing."""
        return {}

    def answers(self, frame: Framed) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Each feature's float32 array for the rows of a canonical frame, and how many values each
        member's features had not seen, by ``member: feature``.

        Raises as a member's prediction does, saying which member's.
        """
        arrays: dict[str, np.ndarray] = {}
        unseen: dict[str, int] = {}
        for member, names in self._columns.items():
            try:
                answer = self._answer(member, frame)
            except InputError as error:  # the kind tells whose fault it is
                raise type(error)(
                    [Problem(f"member {member}, {p.where}", p.what, p.fix) for p in error.problems]
                ) from None
            values = answer.values.reshape(len(frame), len(names))
            arrays |= {name: values[:, place] for place, name in enumerate(names)}
            unseen |= {f"{member}: {name}": count for name, count in answer.unseen.items()}
        return arrays, unseen

    def _answer(self, member: str, frame: Framed) -> Answer:
        predictor = self._predictors[member]
        if member in self._alike:
            return predictor.predict_frame(frame)
        return predictor.predict(as_frame(frame))

    def compute(self, frame: pd.DataFrame, state: Mapping[str, Any]) -> pd.DataFrame:  # noqa: ARG002
        """The features as a frame under the index of ``frame``. Raises as ``answers`` does."""
        return pd.DataFrame(self.answers(frame)[0], index=frame.index)

    def place(self, feature: str) -> str:
        """The member, for messages."""
        return f"member {self.member(feature)}"

    def feeds(self, feature: str) -> set[str]:
        """The columns its member reads, and itself."""
        return {feature, *self._reads[self.member(feature)]}

    def graph(self) -> FeatureGraph:
        """Each member's predictions, from the columns it reads."""
        columns = [GraphNode(name=name, kind="column", feature=False) for name in self.inputs]
        made = [
            GraphNode(
                name=feature,
                kind="feature",
                feature=True,
                summary=f"Prediction of {member}, {self._digests[member][:12]}.",
                reads=self._reads[member],
            )
            for member, features in self._columns.items()
            for feature in features
        ]
        return FeatureGraph(nodes=(*columns, *made))

    def member(self, feature: str) -> str:
        """The member whose prediction a feature is."""
        return next(member for member, names in self._columns.items() if feature in names)
