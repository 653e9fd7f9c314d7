"""A request's rows in parts, one for each version that answers some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from perennial.bundle.predictor import own_fault
from perennial.contracts.errors import InputError
from perennial.data.row_numbers import renumbered
from perennial.serving.batching import INLINE_ROWS, Batcher, Job
from perennial.serving.models import Loaded
from perennial.serving.replies import Request


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a request on their way to one version. ``places`` are their numbers in it from 0,
    None when they are all."""

    loaded: Loaded
    batcher: Batcher
    job: Job
    places: Sequence[int] | None


async def predicted(parts: Sequence[Part]) -> list[np.ndarray]:
    """The predictions of each part.

    One row that its version can't read refuses the whole request before anything of it is predicted
    and logged. What fails after that doesn't take back what other versions have answered by then.
    Raises what the first part raised, as ``blaming`` tells it. Who is cancelled gets them all the
    same when nothing is left to wait for.
    """
    jobs = [part.job for part in parts]
    if len(parts) > 1:
        await _read(parts)
    for part in parts:
        part.batcher.submit(part.job)
    try:
        return await _answers(parts)
    except asyncio.CancelledError:  # the time is over
        late = [(job.version, job.arm) for job in jobs if job.answer.cancelled()]
        if late:
            jobs[0].request.answered = late
            raise
        return await _answers(parts)  # all are there, and logged


async def _answers(parts: Sequence[Part]) -> list[np.ndarray]:
    if len(parts) == 1:  # nobody else to blame, and its rows have the request's numbers
        return [await parts[0].job.answer]
    # Each is heard to its end, also after another's failure.
    await asyncio.gather(*(part.job.answer for part in parts), return_exceptions=True)
    values = []
    for part in parts:
        job = part.job
        with blaming(job.request, job.version, job.arm, part.places):
            values.append(await job.answer)
    return values


async def _read(parts: Sequence[Part]) -> None:
    for part in parts:
        read, job = part.loaded.predictor.read, part.job
        with blaming(job.request, job.version, job.arm, part.places):
            if job.count > INLINE_ROWS:  # not on the version's own threads, which may hang
                await asyncio.to_thread(read, job.rows)
            else:
                read(job.rows)


@contextmanager
def blaming(
    request: Request, version: int, arm: str, places: Sequence[int] | None
) -> Iterator[None]:
    """What is raised here counts against this version alone, and names rows by their numbers in the
    whole request, of which ``places`` are this version's."""
    try:
        yield
    except Exception as error:
        request.answered = [(version, arm)]
        if places is None or not isinstance(error, InputError) or own_fault(error):
            raise
        told = [renumbered(problem, places.__getitem__) for problem in error.problems]
        raise InputError(told) from None
