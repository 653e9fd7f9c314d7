"""Run the benchmarks: ``python -m benchmarks [NAME …] [--quick]``. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from benchmarks.harness import console, machine

BENCHMARKS = {
    "flow": "the whole flow against a plain script, its cached rerun, its memory",
    "tuning": "time to the best score of the ordinary way to search",
    "ingestion_memory": "peak memory of ingestion against the size of the source",
    "external_memory": "training on a matrix larger than a limit of memory, in pages",
    "drift": "the verdict on a million rows against Evidently's preset; memory",
    "serving": "requests a second against other servers, alone, in batches, in a switch; memory",
    "stack": "the embedded stack: processor time when idle, and how soon a flow runs",
    "registry": "what each question costs after 10,000 versions of 100 models",
    "scale": "many models on one server and one stack; a prediction log that grows",
    "rollouts": "the traffic guards need to catch a harm, against tests of a fixed size",
}
_QUICK = {
    "flow": ["--quick"],
    "tuning": ["--quick"],
    "ingestion_memory": ["--rows", "100000", "300000"],
    "external_memory": ["--rows", "200000", "--limit-mib", "512", "--rounds", "2"],
    "drift": ["--rows", "20000", "--rounds", "1"],
    "serving": ["--quick"],
    "stack": ["--quick"],
    "registry": ["--models", "10", "--versions", "200"],
    "scale": ["--quick"],
    "rollouts": ["--rollouts", "100"],
}


def main() -> int:
    listed = "\n".join(f"  {name:<18}{what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Runnable comparisons:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all by default")
    parser.add_argument("--quick", action="store_true", help="small and once: that they work")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    console.print(machine())
    for name in arguments.names or BENCHMARKS:
        console.rule(f"{name}: {BENCHMARKS[name]}", align="left")
        started = time.monotonic()
        benchmark = importlib.import_module(f"benchmarks.{name}")
        benchmark.main(_QUICK[name] if arguments.quick else [])
        console.print(f"{name} took {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
