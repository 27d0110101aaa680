"""The time of small pieces of work."""

from __future__ import annotations

import time
from collections.abc import Callable

Call = Callable[[], object]


def best_seconds(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Processor time of each call: the best of so many rounds, in which they take turns, after one to warm up."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - start)
    return best
