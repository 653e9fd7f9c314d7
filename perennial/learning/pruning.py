"""When a trial may be given up: its learning curve, extrapolated generously, ends too badly.

The usual rule compares curves at the same round. It stops slow learners: with a learning rate of
0.05 a curve is worse at round 20 than with 0.3, and often better at its end. What carries over
between learning rates is the shape: the loss falls about evenly in the logarithm of the rounds and
then flattens, so every doubling of the rounds brings at most about what the last one brought.
Extrapolation of learning curves as a stopping rule: Domhan, Springenberg, Hutter, IJCAI 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

EVERY = 10
"""Rounds between two looks; also the first look."""

NEXT_DOUBLING = 0.5
"""The gain that a doubling of the rounds may still bring, as a share of the last doubling's."""


def hopeless(best_losses: Sequence[float], finished: Sequence[float], rounds: int) -> bool:
    """Whether a trial would end worse than the best of the finished ones.

    ``best_losses``: the least loss up to each round so far, so it never rises; ``finished``: the
    final losses of trials that ran to their end, in any order; ``rounds``: the most rounds a trial
    may take, at least ``len(best_losses)``. Without finished trials nothing is hopeless.
    """
    seen = len(best_losses)
    if not finished or seen < 2:
        return False
    gain = best_losses[seen // 2 - 1] - best_losses[-1]
    forecast = best_losses[-1] - NEXT_DOUBLING * gain * math.log2(rounds / seen)
    return forecast > min(finished)
