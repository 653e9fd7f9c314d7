"""Where the boxes of a drawn graph go: layers from left to right, few crossings, short edges.

The classical way (Sugiyama, Tagawa and Toda, 1981): longest paths give the layers, an edge over
several layers is cut into pieces by points of no size, barycentres order the layers, and each point
then moves as near to its neighbours' mean as the order and the gaps allow. Nothing here is random.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

_SWEEPS = 12

Point = str | tuple[str, int]
"""A node by its name, or the place where the edges out of one pass through a later layer: they
share their way for as long as they can."""


@dataclass(frozen=True, slots=True)
class Layered:
    """``layers`` from left to right, each from top to bottom; ``y`` the height of every point's
    middle (the topmost box begins at 0); ``edges`` the points each edge passes, both ends included.
    """

    layers: tuple[tuple[Point, ...], ...]
    y: Mapping[Point, float]
    edges: tuple[tuple[Point, ...], ...]


def lay_out(reads: Mapping[str, Sequence[str]], *, size: float, gap: float) -> Layered:
    """Place a graph without circles. ``reads`` gives each node's sources (all of them keys too);
    ``size`` is a box's height, ``gap`` the free space between two."""
    edges = [(source, name) for name, sources in reads.items() for source in dict.fromkeys(sources)]
    depth = _depths(reads)
    chains = [_chain(source, name, depth) for source, name in edges]
    layers: list[list[Point]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for name in reads:
        layers[depth[name]].append(name)
    for source, layer in dict.fromkeys(p for chain in chains for p in chain if _passes(p)):
        layers[layer].append((source, layer))

    before: dict[Point, list[Point]] = {}
    after: dict[Point, list[Point]] = {}
    for one, two in dict.fromkeys(piece for chain in chains for piece in pairwise(chain)):
        after.setdefault(one, []).append(two)
        before.setdefault(two, []).append(one)
    ordered = _order(layers, before, after)
    y = _heights(ordered, before, after, size, gap)
    return Layered(tuple(map(tuple, ordered)), y, tuple(chains))


def _depths(reads: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """A node's layer: one after its last source. What nothing reads goes to the last layer."""
    depth: dict[str, int] = {}

    def place(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((place(source) for source in reads[name]), default=-1)
        return depth[name]

    last = max((place(name) for name in reads), default=0)
    used = {source for sources in reads.values() for source in sources}
    return {name: layer if name in used else last for name, layer in depth.items()}


def _chain(source: str, name: str, depth: Mapping[str, int]) -> tuple[Point, ...]:
    return (source, *((source, layer) for layer in range(depth[source] + 1, depth[name])), name)


def _passes(point: Point) -> TypeGuard[tuple[str, int]]:
    return not isinstance(point, str)


def _order(
    layers: list[list[Point]],
    before: Mapping[Point, list[Point]],
    after: Mapping[Point, list[Point]],
) -> list[list[Point]]:
    """The order with the fewest crossings that sweeps to and fro come across."""
    now = best = layers
    fewest = _crossings(layers, after)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        swept = _sweep(now if forward else now[::-1], before if forward else after)
        now = swept if forward else swept[::-1]
        crossings = _crossings(now, after)
        if crossings < fewest:
            best, fewest = now, crossings
    return best


def _sweep(
    layers: Sequence[list[Point]], neighbours: Mapping[Point, list[Point]]
) -> list[list[Point]]:
    """Each layer by its points' barycentres in the layer before; a point with none keeps its
    place. Equals stay in order."""
    swept = list(layers[:1])
    for layer in layers[1:]:
        place = {point: position for position, point in enumerate(swept[-1])}
        key = {
            point: _mean((place[n] for n in neighbours.get(point, ())), position)
            for position, point in enumerate(layer)
        }
        swept.append(sorted(layer, key=key.__getitem__))
    return swept


def _crossings(layers: Sequence[Sequence[Point]], after: Mapping[Point, list[Point]]) -> int:
    count = 0
    for one, two in pairwise(layers):
        place = {point: position for position, point in enumerate(two)}
        met: list[int] = []
        for point in one:
            ends = [place[target] for target in after.get(point, ())]
            count += sum(len(met) - bisect_right(met, end) for end in ends)
            for end in ends:
                insort(met, end)
    return count


def _heights(
    layers: Sequence[Sequence[Point]],
    before: Mapping[Point, list[Point]],
    after: Mapping[Point, list[Point]],
    size: float,
    gap: float,
) -> dict[Point, float]:
    y: dict[Point, float] = {}
    for layer in layers:
        steps = _steps(layer, size, gap)
        middle = steps[-1] / 2 if steps else 0.0
        y |= {point: step - middle for point, step in zip(layer, steps, strict=True)}
    for sweep in range(_SWEEPS):
        order = layers if sweep % 2 == 0 else layers[::-1]
        for layer in order:
            wanted = [
                _mean((y[n] for n in (*before.get(p, ()), *after.get(p, ()))), y[p]) for p in layer
            ]
            y |= zip(layer, _spread(wanted, _steps(layer, size, gap)), strict=True)
    top = min(y.values(), default=0.0) - size / 2
    return {point: round(height - top, 1) for point, height in y.items()}


def _steps(layer: Sequence[Point], size: float, gap: float) -> list[float]:
    """The least heights of a layer's points, from 0 on; a passing edge needs half a box."""
    steps = [0.0] if layer else []
    for one, two in pairwise(layer):
        boxes = isinstance(one, str) + isinstance(two, str)
        steps.append(steps[-1] + gap + size * (0.25 + 0.375 * boxes))
    return steps


def _spread(wanted: Sequence[float], steps: Sequence[float]) -> list[float]:
    """The heights nearest to those wanted (least squares) that keep order and distances: isotonic
    regression by pooling adjacent violators."""
    pools: list[tuple[float, int]] = []
    for height, step in zip(wanted, steps, strict=True):
        total, count = height - step, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            more, others = pools.pop()
            total, count = total + more, count + others
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    return [level + step for level, step in zip(flat, steps, strict=True)]


def _mean(values: Iterable[float], otherwise: float) -> float:
    found = list(values)
    return sum(found) / len(found) if found else otherwise
