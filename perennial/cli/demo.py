"""The demo: a year of real flights, month by month, and the loop closed on the embedded stack."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

import perennial
from perennial.cli.context import Context
from perennial.cli.demo_loop import end_stack, run_loop
from perennial.cli.prefect_server import prefect_server
from perennial.contracts.errors import InputError, PerennialError
from perennial.contracts.runs import ReplaySummary, RunSummary
from perennial.spec import load_spec
from perennial.stores.folders import write_file
from perennial.stores.project import Project
from perennial.stores.storage.places import STORAGE_VARIABLE

MODEL = "flight-delay"
_EXAMPLE = Path(perennial.__file__).parents[1] / "models" / "flight_delay"
_METRIC = "roc_auc"


def run_demo(context: Context, quick: bool) -> None:
    """Replay 2013, show a hasty retraining that the gates refuse, then let drift start one. Prints
    what came of it."""
    started = time.monotonic()
    for name in (STORAGE_VARIABLE, f"{STORAGE_VARIABLE}_BLOCK"):  # a demo keeps to its own folder
        os.environ.pop(name, None)
    root = context.project.home / "demo"
    end_stack(Project(root / "loop"))
    project = _prepare(root)
    data = project.model_folder(MODEL) / "data"
    command = [sys.executable, str(data.with_name("data.py")), str(data)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    months = [datetime(2013, month, 1, tzinfo=UTC) for month in range(3, 13)]
    months.append(datetime(2014, 1, 1, tzinfo=UTC))
    moments = [months[0], months[4], months[7], months[-1]] if quick else months
    demo = Context(project=project, verbose=context.verbose)
    console = Console()
    with prefect_server(project.home / "prefect", demo.environment()) as url:
        os.environ.update({"PREFECT_API_URL": url, "PREFECT_HOME": str(project.home / "prefect")})
        console.print(
            f"[bold]1.[/] Replaying 2013 on a Prefect server at {url.removesuffix('/api')}"
        )
        result = demo.run_flow(
            "replay", model=MODEL, moments=[m.isoformat() for m in moments], metric=_METRIC
        )
        summary = ReplaySummary.model_validate(result)
        console.print(_periods_table(summary))
        _print_reasons(console, summary)
        console.print("[bold]2.[/] Somebody trains on the last three months only")
        hasty = _hasty(demo, project, moments[-1])
        outcome = f"  {hasty.decision.action}: {hasty.decision.reason}"
        console.print(outcome, soft_wrap=True, highlight=False, markup=False)
    console.print("[bold]3.[/] Traffic drifts, and a better version earns it by itself")
    loop = _prepare(root / "loop")
    if sys.platform == "linux":
        run_loop(loop, MODEL, data, console)
    else:
        console.print("  left out: the embedded stack needs Linux (docs/stack.md)")
    _pointers(console, project, loop, summary, hasty, time.monotonic() - started)


def _prepare(root: Path) -> Project:
    """A project of its own, with the example model and no data; made anew each time."""
    if not _EXAMPLE.is_dir():
        raise InputError("the demo's model is part of the source tree: run it from a clone")
    shutil.rmtree(root, ignore_errors=True)
    folder = root / "models" / _EXAMPLE.name
    shutil.copytree(_EXAMPLE, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return Project(root)


def _hasty(demo: Context, project: Project, as_of: datetime) -> RunSummary:
    path = project.model_folder(MODEL) / "model.yaml"
    text = path.read_text(encoding="utf-8")
    hasty = text.replace("split: {kind: time,", "split: {kind: time, window: 13w,")
    write_file(path, hasty)
    if load_spec(path).split.window is None:
        raise PerennialError(f"{path}: the demo expects its own split section")
    try:
        result = demo.run_flow(
            "continuous_training", model=MODEL, as_of=as_of.isoformat(), reason="hasty"
        )
    finally:
        write_file(path, text)
    return RunSummary.model_validate(result)


def _periods_table(summary: ReplaySummary) -> Table:
    table = Table(title=f"{summary.model}, {summary.periods[0].metric} on each period's flights")
    for heading, justify in (
        ("period", "left"), ("flights", "right"), ("stale", "right"), ("retrained", "right"),
        ("gain", "right"), ("serving", "right"), ("decision", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for period in summary.periods:
        table.add_row(
            f"{period.start:%d %b} – {period.end:%d %b}",
            f"{period.rows:,}",
            f"{period.stale:.3f}",
            f"{period.current:.3f}",
            f"{period.current - period.stale:+.3f}",
            f"v{period.current_version}",
            period.decision.action,
        )
    return table


def _print_reasons(console: Console, summary: ReplaySummary) -> None:
    for period in summary.periods:
        decision = f"{period.start:%d %b}  {period.decision.action}: {period.decision.reason}"
        console.print(f"  {decision}", soft_wrap=True, highlight=False, markup=False)


def _pointers(
    console: Console,
    project: Project,
    loop: Project,
    summary: ReplaySummary,
    hasty: RunSummary,
    seconds: float,
) -> None:
    where = os.path.relpath(project.root)
    console.print(f"\n[bold]Done in {seconds:.0f} s.[/] Look further:")
    reports = [p.report_uri for p in summary.periods if p.report_uri] + [hasty.report_uri or ""]
    for report in reports:
        console.print(f"  report  {os.path.relpath(report)}", soft_wrap=True)
    for page in loop.folder("drift", MODEL).glob("*/drift.html"):
        console.print(f"  drift   {os.path.relpath(page)}", soft_wrap=True)
    for page in sorted(loop.folder("reports", MODEL).glob("rollout-*.html")):
        console.print(f"  rollout {os.path.relpath(page)}", soft_wrap=True)
    console.print(f"  perennial --project {os.path.relpath(loop.root)} status", soft_wrap=True)
    for command in (
        f"status {MODEL}",
        f"versions {MODEL}",
        f"show {MODEL}@1",
        f"reproduce {MODEL}@1",
    ):
        console.print(f"  perennial --project {where} {command}", soft_wrap=True)
