"""What the client is told to do, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST_FAILURES = 5


@dataclass(frozen=True)
class Job:
    """``bodies`` are bytes written as Latin-1 text. ``samples`` is where the times go: a NumPy
    file, two columns, a row an answer after the warm-up: when it was complete, and the seconds
    since its request was written. The clock is ``time.monotonic``, one for all processes.
    ``mark`` is the text before a version's number in an answer; "": versions are not watched."""

    port: int
    path: str
    content_type: str
    bodies: list[str]
    samples: str
    connections: int = 16
    warm_up_seconds: float = 0.5
    seconds: float = 3.0
    accept: str = "*/*"
    mark: str = ""

    def requests(self) -> list[bytes]:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: {self.content_type}\r\nAccept: {self.accept}\r\n"
        )
        bodies = [body.encode("latin-1") for body in self.bodies]
        return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


@dataclass
class Outcome:
    """``answers`` with status 200 in ``seconds``, and ``warm_up_answers`` before; ``failed`` counts
    all others and lost connections, ``failures`` shows some. ``marks`` are the moments at which
    another version began to answer. ``busy``: the share of a core that the client itself took."""

    answers: int = 0
    warm_up_answers: int = 0
    seconds: float = 0.0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    busy: float = 0.0

    def fail(self, what: str) -> None:
        self.failed += 1
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(what)
