"""One row a request, sixteen at once: ours with features and log, others with the features sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import console, show
from benchmarks.serving import ours
from benchmarks.serving.contenders import Contender, loads
from benchmarks.serving.peers import PEERS, Peer
from benchmarks.serving.project import Flights
from benchmarks.serving.servers import cores


@dataclass(frozen=True)
class Plan:
    """Rounds and seconds of the comparison, and of the choice of each peer's setting before."""

    rounds: int = 7
    seconds: float = 3.0
    trials: int = 2
    trial_seconds: float = 2.0


def compare(
    root: Path, flights: Flights, booster: Path, folder: Path, plan: Plan, only: Sequence[str]
) -> dict[str, Any]:
    """Choose the peers' settings, then measure all in turns. Prints tables, returns the figures."""
    chosen: list[Contender] = []
    tried: list[Contender] = []
    for peer in PEERS:
        if only and peer.name not in only:
            continue
        settings = _settings(peer, flights, booster, folder)
        for contender in settings:
            _try(contender, flights, plan if len(settings) > 1 else Plan(trials=0))
        tried += settings if len(settings) > 1 else []
        chosen.append(max(settings, key=lambda c: c.rate() if c.rounds else 0))
    _show_settings(tried, chosen, plan)

    us = ours.contender(root, flights, folder)
    limit = ours.limit(us, folder, cores()[0])
    field = [us, *chosen, limit]
    for contender in field:
        contender.rounds.clear()
    with ExitStack() as running:
        for contender in field:
            contender.server.start(cores()[0])
            running.callback(contender.server.stop)
        for contender in [us, *chosen]:
            contender.check(flights.predictions)
        for number in range(plan.rounds):
            turn = number % len(field)
            for contender in [*field[turn:], *field[:turn]]:
                with ExitStack() as paused:
                    for other in field:
                        if other is not contender:
                            paused.enter_context(other.server.paused())
                    contender.measure(plan.seconds)
            rates = ", ".join(f"{c.title} {c.rounds[-1].rate:,.0f}" for c in field)
            console.print(f"  round {number + 1} (load {loads()}): {rates}")
    return _show(us, chosen, limit, plan)


def _settings(peer: Peer, flights: Flights, booster: Path, folder: Path) -> list[Contender]:
    binaries = peer.install(folder / "environments")
    bodies = [json.dumps(peer.body(row)).encode() for row in flights.matrix_rows()]
    return [
        Contender(
            title=peer.title,
            setting=setting,
            server=peer.server(setting, binaries, booster, folder / "work" / f"{peer.title}-{i}"),
            path=peer.path,
            bodies=bodies,
            prediction=peer.prediction,
        )
        for i, setting in enumerate(peer.settings)
    ]


def _try(contender: Contender, flights: Flights, plan: Plan) -> None:
    contender.server.start(cores()[0])
    try:
        contender.check(flights.predictions)
        for _ in range(plan.trials):
            contender.measure(plan.trial_seconds)
    finally:
        contender.server.stop()


def _show_settings(tried: Sequence[Contender], chosen: Sequence[Contender], plan: Plan) -> None:
    show(
        f"Settings tried, medians of {plan.trials} times {plan.trial_seconds:g} s",
        ("server", "setting", "requests/s", "p50 ms", "p99 ms", "failed", ""),
        [
            (
                c.title,
                c.setting,
                f"{c.rate():,.0f}",
                f"{c.milliseconds(50):.2f}",
                f"{c.milliseconds(99):.2f}",
                str(_failed(c)),
                "taken" if c in chosen else "",
            )
            for c in tried
        ],
    )


def _show(
    us: Contender, peers: Sequence[Contender], limit: Contender, plan: Plan
) -> dict[str, Any]:
    figures = {
        c.title: {
            "setting": c.setting,
            "rate": c.rate(),
            "times": _times(us, c),
            "p50_ms": c.milliseconds(50),
            "p99_ms": c.milliseconds(99),
            "cpu_us": median(r.cpu_microseconds for r in c.rounds),
            "failed": _failed(c),
            "client_busy": median(r.outcome.busy for r in c.rounds),
        }
        for c in [us, *peers, limit]
    }
    show(
        f"One row a request, 16 connections, medians of {plan.rounds} times {plan.seconds:g} s",
        ("server", "requests/s", "ours is", "p50 ms", "p99 ms", "CPU µs a request", "failed",
         "client busy"),
        [
            (
                title,
                f"{f['rate']:,.0f}",
                f"{f['times']:.2f} times",
                f"{f['p50_ms']:.2f}",
                f"{f['p99_ms']:.2f}",
                f"{f['cpu_us']:.0f}",
                str(f["failed"]),
                f"{f['client_busy']:.0%}",
            )
            for title, f in figures.items()
        ],
    )  # fmt: skip
    console.print(f"share of the limit: {figures[limit.title]['times']:.0%}")
    return figures


def _times(us: Contender, other: Contender) -> float:
    """How many times the other's rate ours is: the median over rounds, for what else runs on the
    machine weighs on both sides of a round alike."""
    pairs = zip(us.rounds, other.rounds, strict=True)
    return median(mine.rate / its.rate for mine, its in pairs)


def _failed(contender: Contender) -> int:
    return sum(round.outcome.failed for round in contender.rounds)
