"""One look of the drift watch at a window of predictions, and what it makes of it."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from perennial.contracts.drift import Change, DriftVerdict
from perennial.contracts.performance import JoinCounts, LabelCounts, PerformanceChange
from perennial.contracts.refs import Value, VersionRef
from perennial.contracts.retraining import Finding, Trigger


class LookReports(Value):
    """Where a look is written down. ``html_uri`` is its page, ``json_uri`` the Look itself.

    ``evidently`` are the pages that Evidently drew by what they show (``drift``, ``performance``);
    each has its JSON beside it. They rest on at most ``sampled_rows`` rows a side. ``workspace`` is
    the folder that ``evidently ui --workspace`` shows, "" when nothing was drawn.
    """

    html_uri: str
    json_uri: str
    evidently: dict[str, str] = Field(default_factory=dict)
    sampled_rows: int = 0
    workspace: str = ""


class Look(Value):
    """What the drift watch saw of a model in ``window``, half open and of prediction time.

    ``version`` is the champion, whose own answers were looked at, ``rows`` of them; None without
    one. ``finding`` with its ``reason`` is the verdict, drift and performance taken together.

    ``realised`` (late labels) and ``estimated`` (inputs alone) are one metric of the version
    against what its evaluation promised, ``unexplained`` is the realised against the estimated one
    on the same rows; None where there was nothing to compare. ``labels`` counts the version's
    predictions (also those it made as a shadow) and their labels, ``joined`` the whole join.
    ``notes`` are sentences on what could not be told, and why. ``pictures`` are the shares of
    values before and after, of the columns that matter most.

    ``trigger`` asks for a retraining, whatever the finding: the policy says no to most.
    """

    model: str
    version: VersionRef | None
    window: tuple[AwareDatetime, AwareDatetime]
    rows: int
    finding: Finding
    reason: str
    drift: DriftVerdict | None = None
    realised: PerformanceChange | None = None
    estimated: PerformanceChange | None = None
    unexplained: PerformanceChange | None = None
    labels: LabelCounts | None = None
    joined: JoinCounts | None = None
    notes: tuple[str, ...] = ()
    pictures: dict[str, tuple[Change, ...]] = Field(default_factory=dict)
    reports: LookReports | None = None
    trigger: Trigger
