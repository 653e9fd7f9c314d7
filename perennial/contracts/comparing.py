"""What a rollout's two versions did in one of its steps, side by side, for people to read."""

from __future__ import annotations

from pydantic import AwareDatetime

from perennial.contracts.refs import Value


class ArmFacts(Value):
    """One arm's answers. Quantiles of milliseconds are approximate: ``latency`` as who asked felt
    it (in shadow: what scoring took), ``compute`` what computing a row's batch took. None where
    nothing was logged. ``mean`` is of the predictions, None with several classes."""

    arm: str
    version: int
    rows: int = 0
    requests: int = 0
    failed: int = 0
    mean: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    compute_p50_ms: float | None = None
    compute_p99_ms: float | None = None


class Apart(Value):
    """A row that the two versions predict differently; ``inputs`` as text, as the log has them."""

    id: str
    champion: str
    challenger: str
    difference: float
    inputs: dict[str, str]


class Bin(Value):
    """How many rows have a difference in ``low <= difference < high``, in the last bin also
    ``high`` itself."""

    low: float
    high: float
    rows: int


class SideBySide(Value):
    """Both versions' predictions of the same rows. ``agree`` is the share with the same class (a
    binary one: on the same side of 0.5), None in a regression. A difference is challenger less
    champion; with several classes the total variation distance of their probabilities."""

    rows: int
    agree: float | None = None
    mean: float | None = None
    p01: float | None = None
    p50: float | None = None
    p99: float | None = None
    bins: tuple[Bin, ...] = ()
    apart: tuple[Apart, ...] = ()


class StepComparison(Value):
    """``same_rows`` in a shadow step only: otherwise nobody's row is predicted twice."""

    step: int
    start: AwareDatetime
    end: AwareDatetime
    champion: ArmFacts
    challenger: ArmFacts
    same_rows: SideBySide | None = None
