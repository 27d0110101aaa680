"""Choosing settings without the truth and without test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """Which of the settings was taken, and what each of them scored on held-out given labels, in [0, 1]."""

    index: int
    scores: tuple[float, ...]


def choose(scores: Sequence[float]) -> Choice:
    """The first of the best.

    Our choice: every seed chooses for itself, because then the luck of tuning is part of the spread over seeds, and
    seeds stay independent of each other; the score is that of the last epoch, as everywhere.

    >>> choose([0.6, 0.7, 0.7]).index
    1
    """
    return Choice(max(range(len(scores)), key=lambda i: (scores[i], -i)), tuple(scores))
