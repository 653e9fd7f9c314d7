"""What is served at this moment: models, their routes, and the versions that are loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

import pyarrow as pa

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle
from perennial.contracts.features import FeatureSchema, InputColumn
from perennial.data.frames import table_columns
from perennial.decisions.routing import assign
from perennial.serving.replies import Refusal
from perennial.serving.state import ModelState, VersionState
from perennial.spec import ModelSpec
from perennial.spec.production import Rollout as RolloutSpec
from perennial.stores.bundles import open_stored
from perennial.stores.project import Project
from perennial.stores.registry import Route, Version

_WARM_UP_ROWS = 50
_SLOW_SECONDS = 0.010
"""A version that takes longer for a single row is computed off the loop."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can answer. Nothing of it changes any more."""

    version: Version
    spec: ModelSpec
    schema: FeatureSchema
    predictor: Predictor
    inline: bool
    warm_ms: float
    loaded_at: datetime

    @property
    def number(self) -> int:
        return self.version.ref.version


def load(version: Version, project: Project) -> Loaded:
    """Open a version's bundle, check every byte of it, and run it until it is warm.

    Raises IntegrityError or InputError when it can't be used, and as ``open_stored``.
    """
    bundle = open_stored(version.ref, project)
    predictor = Predictor(bundle, also=_carried(bundle))
    seconds = _warm_up(predictor, bundle)
    return Loaded(
        version=version,
        spec=bundle.spec,
        schema=bundle.schema,
        predictor=predictor,
        inline=seconds < _SLOW_SECONDS,
        warm_ms=seconds * 1e3,
        loaded_at=datetime.now(UTC),
    )


def _carried(bundle: Bundle) -> dict[str, InputColumn]:
    """Columns that are logged exactly, though no feature may need them: which row of the world it
    was."""
    spec = bundle.spec
    names = (spec.source.event_time, *spec.source.entity)
    declared = table_columns(spec)
    return {
        name: InputColumn(name=name, type=declared[name].type, nullable=True)
        for name in names
        if name is not None and name != spec.label.column
    }


def _warm_up(predictor: Predictor, bundle: Bundle) -> float:
    """Predict rows of the training data one by one. Returns the seconds the quickest took."""
    rows = pa.Table.from_pandas(bundle.reference().head(_WARM_UP_ROWS), preserve_index=False)
    columns = rows.select([name for name in predictor.columns if name in rows.column_names])
    quickest = float("inf")
    for i in range(len(columns)):
        started = perf_counter()
        predictor.predict(columns.slice(i, 1))
        quickest = min(quickest, perf_counter() - started)
        time.sleep(0)  # the loop may serve others in between
    return quickest if len(columns) else 0.0


class LiveModel:
    """A model that is served: who answers, and by which weights. Changed on the loop only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.route = Route(
            model=name, champion=None, arms=(), shadow=(), generation=0, updated_at=None
        )
        self.loaded: dict[int, Loaded] = {}
        self.shadow_classes: tuple[str, ...] = ()
        self.problem = ""
        self._weights: dict[int, int] = {}

    def adopt(
        self, route: Route, loaded: Mapping[int, Loaded], shadow_classes: tuple[str, ...] = ()
    ) -> None:
        """Follow a route whose versions are all loaded. Those of the former route stay loaded: the
        way back is at once, and requests under way end as they began. ``shadow_classes`` are those
        that its shadow versions know, which are not loaded here."""
        former = {number: self.loaded[number] for number in self._weights}
        self.loaded = {**former, **loaded}
        self.shadow_classes = shadow_classes
        self.route = route
        self._weights = {arm.version: arm.weight for arm in route.arms}
        self.problem = ""

    @property
    def ready(self) -> bool:
        return bool(self._weights)

    def only(self) -> Loaded | None:
        """The version that answers all requests, when it is a single one."""
        answering = [number for number, weight in self._weights.items() if weight]
        return self.loaded[answering[0]] if len(answering) == 1 else None

    def champion(self) -> Loaded:
        """The version whose columns a request is read by before its version is known."""
        assert self.route.champion is not None
        return self.loaded[self.route.champion]

    def assign(self, keys: Sequence[str]) -> list[int]:
        """The version that answers each row, by the row's key."""
        return assign(keys, self.route.arms, self.name)

    def pinned(self, version: str) -> Loaded:
        """The version that a request names. Raises Refusal when it is not loaded."""
        if version.isdecimal() and len(version) < 10 and int(version) in self.loaded:
            return self.loaded[int(version)]
        served = ", ".join(str(number) for number in sorted(self.loaded))
        what = f"version {version[:40]!r} of {self.name!r} is not served; served are {served}"
        raise Refusal(404, "unknown_version", what)

    def arm(self, version: int) -> str:
        if not self._weights.get(version):
            return "pinned"
        return "champion" if version == self.route.champion else "challenger"

    def state(self) -> ModelState:
        newest = self.loaded[max(self.loaded)] if self.loaded else None
        return ModelState(
            name=self.name,
            description=newest.spec.description if newest else "",
            objective=newest.spec.objective if newest else "",
            generation=self.route.generation,
            check_every=(newest.spec.rollout if newest else RolloutSpec()).check_every,
            versions=tuple(
                VersionState(
                    version=number,
                    arm=self.arm(number),
                    weight=self._weights.get(number, 0),
                    digest=loaded.version.ref.digest,
                    created_at=loaded.version.created_at,
                    loaded_at=loaded.loaded_at,
                    metrics=dict(loaded.version.metrics),
                    warm_ms=loaded.warm_ms,
                )
                for number, loaded in sorted(self.loaded.items(), reverse=True)
            ),
            problem=self.problem,
        )
