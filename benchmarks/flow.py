"""The flow's price: continuous training against the same work as a plain script.

    python -m benchmarks.flow [overhead] [memory] [--quick]

overhead: ``python -m flows continuous_training …`` on a Prefect server that runs already, against
``benchmarks.bare_script``, whole processes from start to end, in turns, on the flights of 2013 and
on every fifth and every tenth of them. Then the flow again with nothing changed (all cached), and
what it takes to start either one (interpreter and imports). Both sides must come to the same
parameters and the same metrics, to the last bit, or the comparison is refused.

memory: the peak of a training run, stage by stage, on the flights of 2013 repeated in later years.
A stage's peak is that of the flow's process, files mapped into memory included.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Measured, console, show
from perennial.bundle.read import open_bundle
from perennial.contracts.verdicts import EvaluationReport

AS_OF = "2014-01-01T00:00:00+00:00"
PARTS = ("overhead", "memory")
EVERY = (10, 5, 1)
YEARS = (1, 3, 9)
_Changes = dict[str, dict[str, Any]]
_NO_TIMEOUT: _Changes = {
    "tuning": {"timeout": "4h"}
}  # a busy machine must not make a shorter study
_FEW_TRIALS: _Changes = {"tuning": {"trials": 2, "timeout": "4h"}, "training": {"rounds": 50}}


@dataclass
class Pair:
    """One flow and one script on the same rows, and the flow again."""

    flow: Measured
    script: Measured
    cached: Measured


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print tables, return the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="of each size of the overhead")
    parser.add_argument("--trials", type=int, help="of the search; the model's own by default")
    parser.add_argument("--every", type=int, nargs="+", default=list(EVERY), metavar="NTH")
    parser.add_argument("--years", type=int, nargs="+", default=list(YEARS))
    parser.add_argument("--quick", action="store_true", help="small sizes, once: that it works")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if arguments.quick:
        arguments.repeats, arguments.every, arguments.years = 1, [20, 10], [1]
    parts = arguments.parts or PARTS
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-flow-", dir=arguments.folder) as name:
        folder = Path(name)
        flights = harness.write_flights(folder / "flights")
        with harness.prefect_server(folder / "server") as environment:
            console.print(harness.machine())
            if "overhead" in parts:
                found["overhead"] = overhead(
                    folder,
                    flights,
                    environment,
                    arguments.every,
                    arguments.repeats,
                    arguments.trials,
                )
            if "memory" in parts:
                found["memory"] = memory(folder, flights, environment, arguments.years)
    return found


def overhead(
    folder: Path,
    flights: Sequence[Path],
    environment: Mapping[str, str],
    every: Sequence[int],
    repeats: int,
    trials: int | None = None,
) -> list[dict[str, Any]]:
    """Both sides in turns on every so manieth flight."""
    changes = _NO_TIMEOUT
    if trials:
        changes = {"tuning": {**_NO_TIMEOUT["tuning"], "trials": trials}}
    sizes = {nth: _thinned(flights, nth, folder / f"every-{nth}") for nth in every}
    pairs: dict[int, list[Pair]] = {nth: [] for nth in every}
    for repeat in range(repeats):
        for nth in every:
            pair = _pair(
                folder / "pair", sizes[nth], environment, changes, flow_first=repeat % 2 == 0
            )
            pairs[nth].append(pair)
            console.print(
                f"  one flight in {nth}: flow {pair.flow.seconds:.1f} s, "
                f"script {pair.script.seconds:.1f} s, again {pair.cached.seconds:.1f} s"
            )
    results = [_overhead_of(measured) for measured in pairs.values()]
    show(
        f"The whole flow against a plain script, medians of {repeats}",
        ("rows", "flow", "script", "ratio", "more", "CPU flow", "CPU script", "CPU ratio"),
        [
            (
                f"{r['rows']:,}",
                f"{r['flow']:.1f} s",
                f"{r['script']:.1f} s",
                f"{r['ratio']:.2f}",
                f"{r['flow'] - r['script']:+.1f} s",
                f"{r['cpu_flow']:.1f} s",
                f"{r['cpu_script']:.1f} s",
                f"{r['cpu_ratio']:.2f}",
            )
            for r in results
        ],
    )
    show(
        "The flow again, everything cached",
        ("rows", "cached", "share of the first run", "CPU"),
        [
            (
                f"{r['rows']:,}",
                f"{r['cached']:.1f} s",
                f"{r['cached'] / r['flow']:.1%}",
                f"{r['cpu_cached']:.1f} s",
            )
            for r in results
        ],
    )
    show(
        "Where the flow's time goes, by its own records (medians)",
        ("rows", *results[0]["stages"], "rest"),
        [
            (
                f"{r['rows']:,}",
                *(f"{seconds:.1f} s" for seconds in r["stages"].values()),
                f"{r['flow'] - sum(r['stages'].values()):.1f} s",
            )
            for r in results
        ],
    )
    starts = _starts(folder, environment, repeats)
    show(
        "Interpreter and imports",
        ("", "seconds", "CPU"),
        [(name, f"{s:.1f} s", f"{cpu:.1f} s") for name, (s, cpu) in starts.items()],
    )
    return results


def _thinned(flights: Sequence[Path], nth: int, folder: Path) -> list[Path]:
    """Every nth line of each file."""
    if nth == 1:
        return list(flights)
    folder.mkdir()
    for path in flights:
        head, *lines = path.read_bytes().splitlines(keepends=True)
        (folder / path.name).write_bytes(b"".join([head, *lines[::nth]]))
    return sorted(folder.glob("*.csv"))


def _pair(
    place: Path,
    data: Sequence[Path],
    environment: Mapping[str, str],
    changes: _Changes,
    *,
    flow_first: bool,
) -> Pair:
    """Both sides from nothing in a project of their own, and the flow again in its project."""
    root, output = place / "project", place / "script"
    harness.write_project(root, data, changes)
    model = root / "models" / harness.EXAMPLE.name
    command = ["-m", "benchmarks.bare_script", str(model), str(output), AS_OF]
    if flow_first:
        flow = harness.run_flow(root, environment, AS_OF)
        script = harness.run(command, root, environment)
    else:
        script = harness.run(command, root, environment)
        flow = harness.run_flow(root, environment, AS_OF)
    cached = harness.run_flow(root, environment, AS_OF)
    check_same(flow.result(), script.result())
    again = cached.result()
    worked = {stage["stage"] for stage in again["stages"] if not stage["cached"]}
    if worked - {"validate", "register"}:  # there is a champion now, to be compared with
        raise RuntimeError(f"not cached: {', '.join(sorted(worked))}")
    shutil.rmtree(place)
    return Pair(flow, script, cached)


def check_same(summary: Mapping[str, Any], script: Mapping[str, Any]) -> None:
    """That the flow and the script found the same parameters and measured the same."""
    bundle = open_bundle(Path(summary["bundle_uri"]), summary["bundle_digest"])
    study = bundle.lineage["study"]
    report = Path(summary["report_uri"]).with_name("evaluation.json").read_text(encoding="utf-8")
    estimates = EvaluationReport.model_validate_json(report).estimates
    flow = {
        "params": study["best_params"],
        "rounds": study["best_rounds"],
        "metrics": {estimate.metric: estimate.value for estimate in estimates},
        "identical": True,
    }
    compared = {name: script[name] for name in flow}
    if flow != compared:
        raise RuntimeError(f"not the same work: the flow made {flow}, the script {compared}")


def _overhead_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    records = [pair.flow.result()["stages"] for pair in pairs]
    return {
        "rows": pairs[0].flow.result()["rows"],
        "flow": median(pair.flow.seconds for pair in pairs),
        "script": median(pair.script.seconds for pair in pairs),
        "cached": median(pair.cached.seconds for pair in pairs),
        "ratio": median(pair.flow.seconds / pair.script.seconds for pair in pairs),
        "cpu_flow": median(pair.flow.cpu_seconds for pair in pairs),
        "cpu_script": median(pair.script.cpu_seconds for pair in pairs),
        "cpu_cached": median(pair.cached.cpu_seconds for pair in pairs),
        "cpu_ratio": median(pair.flow.cpu_seconds / pair.script.cpu_seconds for pair in pairs),
        "stages": {
            stages[0]["stage"]: median(float(stage["seconds"] or 0) for stage in stages)
            for stages in zip(*records, strict=True)
        },
    }


def _starts(
    folder: Path, environment: Mapping[str, str], repeats: int
) -> dict[str, tuple[float, float]]:
    starts = {}
    for name, module in (
        ("flow", "flows.continuous_training"),
        ("script", "benchmarks.bare_script"),
    ):
        runs = [
            harness.run(["-c", f"import {module}"], folder, environment) for _ in range(repeats)
        ]
        starts[name] = (median(r.seconds for r in runs), median(r.cpu_seconds for r in runs))
    return starts


def memory(
    folder: Path, flights: Sequence[Path], environment: Mapping[str, str], years: Sequence[int]
) -> list[dict[str, Any]]:
    """Peaks of the stages of a training run with few trials, for so many years of flights."""
    results = []
    for count in years:
        root = folder / "memory"
        data = [*flights, *_later_years(flights, count, folder / "later")]
        harness.write_project(root, data, _FEW_TRIALS)
        as_of = f"{2013 + count}-01-01T00:00:00+00:00"
        measured = harness.run_flow(root, environment, as_of)
        summary = measured.result()
        peaks = {s["stage"]: s["peak_memory_mib"] for s in summary["stages"]}
        source = sum(path.stat().st_size for path in data) / 2**20
        results.append(
            {
                "rows": summary["rows"],
                "source_mib": source,
                "seconds": measured.seconds,
                "peak_mib": max(peaks.values()),
                "stages": peaks,
            }
        )
        console.print(f"  {summary['rows']:,} rows: {measured.seconds:.0f} s")
        shutil.rmtree(root)
        shutil.rmtree(folder / "later")
    show(
        "Peak memory of a training run, MiB",
        ("rows", "CSV", "seconds", "peak", *results[0]["stages"]),
        [
            (
                f"{r['rows']:,}",
                f"{r['source_mib']:.0f}",
                f"{r['seconds']:.0f}",
                f"{r['peak_mib']:.0f}",
                *(f"{peak:.0f}" for peak in r["stages"].values()),
            )
            for r in results
        ],
    )
    if len(results) > 1:
        million = [r["rows"] / 1e6 for r in results]
        slope, base = np.polyfit(million, [r["peak_mib"] for r in results], 1)
        console.print(f"slope: {slope:.0f} MiB a million rows over {base:.0f} MiB")
    return results


def _later_years(flights: Sequence[Path], years: int, folder: Path) -> list[Path]:
    """The same flights one, two, … years later, a file a month."""
    folder.mkdir()
    paths = []
    for later in range(1, years):
        for path in flights:
            content = path.read_bytes()
            for year in (2014, 2013):  # the last evening of 2013 is in 2014 by UTC
                content = content.replace(b"\n%d-" % year, b"\n%d-" % (year + later))
            month = path.stem.rpartition("-")[2]
            paths.append(folder / f"flights-{2013 + later}-{month}.csv")
            paths[-1].write_bytes(content)
    return paths


if __name__ == "__main__":
    main()
