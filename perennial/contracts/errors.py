"""What can go wrong, in words a person can act on.

Exit codes of the command line: 0 done, 1 the work failed or a gate said no, 2 the input is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    ``where`` is a place (``file.csv, column 'x', row 12`` or a path in model.yaml), ``what`` the
    rule and the value that broke it, ``fix`` the next action (may be empty).
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        if not self.fix:
            return head
        return f"{head}\n  ({self.fix})" if "\n" in head else f"{head} ({self.fix})"


class PerennialError(Exception):
    """The work failed. The message is complete for a person; no trace is needed."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        return (self.__class__, (self.message,))


class InputError(PerennialError):
    """The user's input is wrong. Carries every problem that was found, shown bounded."""

    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = Problem("", problems)
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        hidden = len(self.problems) - MAX_SHOWN
        if hidden > 0:
            lines.append(f"… and {hidden} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        return (self.__class__, (self.problems,))


class FeatureError(InputError):
    """A model's feature code failed on rows that were in order, or gave what is no feature."""


class IntegrityError(InputError):
    """Stored state is damaged or was tampered with: a bundle, a table's log, a report."""


class UnavailableError(PerennialError):
    """A store did not answer: worth retrying."""
