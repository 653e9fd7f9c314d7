"""Inject faults for as long as you like: ``python -m tests.faults --seconds 600 --seed 7``."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.running import Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults, in each run")
    parser.add_argument("--seed", type=int, default=None, help="by default drawn, and told")
    parser.add_argument("--runs", type=int, default=1, help="with seeds that count on from SEED")
    parser.add_argument("--registry", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--storage", choices=["local", "s3"], default="local")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds for rollouts to end")
    parser.add_argument("--pipeline", action="store_true", help="data, flows and training too")
    parser.add_argument("--keep", action="store_true", help="keep the folder also when all is well")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the world is to be taken down
    seed = int.from_bytes(os.urandom(3), "big") if arguments.seed is None else arguments.seed
    failed = 0
    for number in range(seed, seed + arguments.runs):
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{number}-"))
        print(f"seed {number}, in {folder}", flush=True)
        began = time.monotonic()
        result = run(
            folder, number, arguments.seconds, database=arguments.registry,
            storage=arguments.storage, settle_seconds=arguments.settle,
            pipeline=arguments.pipeline,
        )  # fmt: skip
        if result.violations:
            failed += 1
            print(result.told())
        _show(result, time.monotonic() - began)
        if not result.violations and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def _show(result: Result, wall: float) -> None:
    story = result.story
    print(result.history[-1])
    ends = Counter(rollout.state.phase for rollout in story.rollouts)
    print(f"{'VIOLATED' if result.violations else 'well'} after {wall:.0f} s; "
          f"faults: {dict(result.faults)}\n"
          f"answers {len(story.answers):,}, labels {len(story.labels):,}, replies "
          f"{dict(result.statuses)}, longest silence {result.longest_silence:.1f} s\n"
          f"rows: predictions {len(story.predictions):,}, labels {len(story.labelled):,}, "
          f"failures {len(story.failures):,}\n"
          f"versions {len(story.versions)}, rollouts {dict(ends)}, decisions "
          f"{len(story.decisions)}, generation {story.route.generation}, orders "
          f"{sum(order.obeyed for order in story.orders)} of {len(story.orders)}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
