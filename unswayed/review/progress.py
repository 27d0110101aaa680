"""How far a review is: errors found, errors that are probably left, and whether going on pays."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from unswayed.auditing.acquire import recalibrate, worth_going_on
from unswayed.auditing.budget import error_budget
from unswayed.auditing.table import Audit
from unswayed.review.case import Case
from unswayed.review.store import CONFLICT, OPEN, SETTLED, SKIPPED

POINTS = 80  # of each curve
NEXT = 50  # labels that the advice looks ahead
_REACHED = 0.95  # of the errors: where the curve of what is expected ends


class Progress:
    """The state of a review and its outlook. Every settled row re-calibrates the suspicion of those that are left."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._lock = threading.Lock()
        self._known: tuple[int, Audit] = (-1, case.audit)
        self._outlook: tuple[int, dict[str, Any]] = (-1, {})

    def brief(self) -> dict[str, Any]:
        """Counts, and the errors that are probably left: what changes with every key, in milliseconds."""
        decisions = self.case.decisions
        decisions.refresh()
        state, found = decisions.state, int(decisions.wrong.sum())
        settled = int((state == SETTLED).sum())
        remaining = float(self._expected().sum())
        return {
            "rows": len(state),
            "settled": settled,
            "open": int((state == OPEN).sum()),
            "skipped": int((state == SKIPPED).sum()),
            "conflicts": int((state == CONFLICT).sum()),
            "found": found,
            "precision": found / settled if settled else None,
            "remaining": remaining,
            "share": found / (found + remaining) if found + remaining else 1.0,
            "last": decisions.last,
        }

    def now(self) -> dict[str, Any]:
        """The same with the interval of what is left, advice, and the curves."""
        brief = self.brief()
        with self._lock:
            if self._outlook[0] != brief["last"]:
                self._outlook = (brief["last"], self._look_ahead())
        return brief | self._outlook[1]

    def budget(self) -> str:
        """What a review is expected to take, before any decision, in words."""
        if not bool((self.case.audit.given >= 0).any()):
            return ""
        return error_budget(self.case.audit).sentence()

    def _look_ahead(self) -> dict[str, Any]:
        decisions = self.case.decisions
        going = worth_going_on(self.case.audit, decided=self._decided(), batch=NEXT)
        done = np.flatnonzero(decisions.state == SETTLED)
        done = done[np.argsort(decisions.when[done], kind="stable")]
        found, expected = int(decisions.wrong.sum()), self._expected()
        ahead = min(NEXT, len(expected))
        wrong = going.found.value * ahead
        if not len(expected):
            advice = "Every label is settled."
        elif going.go:
            advice = f"Go on: about {wrong:.0f} of the next {ahead} labels are wrong."
        else:
            advice = f"You may stop now: about {wrong:.0f} of the next {ahead} labels are wrong."
        return {
            "left": list(going.left),
            "stop": not going.go,
            "advice": advice,
            "path": _points(np.cumsum(decisions.wrong[done]), 0),
            "ahead": _points(np.cumsum(expected), found, start=len(done), until=_REACHED),
        }

    def _expected(self) -> np.ndarray:
        """How probably each label that is there and not settled is wrong, the most suspicious first."""
        audit = self._recalibrated()
        free = (self.case.decisions.state != SETTLED) & (audit.given.numpy() >= 0)
        return np.sort(audit.suspicion.double().numpy()[free])[::-1]

    def _recalibrated(self) -> Audit:
        last, audit = self._known
        if last != self.case.decisions.last:
            last, audit = self._known = self.case.decisions.last, recalibrate(self.case.audit, self._decided())
        return audit

    def _decided(self) -> dict[int, int]:
        """The label of each settled row. Where none fits it is any but the given one: all that counts is that it was
        wrong.
        """
        audit, decisions = self.case.audit, self.case.decisions
        number = {name: i for i, name in enumerate(audit.classes)}
        found = {}
        for at in np.flatnonzero(decisions.state == SETTLED).tolist():
            made = decisions.verdict(at)
            if made is not None:
                other = (int(audit.given[at]) + 1) % len(audit.classes)
                found[at] = other if made.label is None else number[made.label]
        return found


def _points(gains: np.ndarray, base: float, *, start: int = 0, until: float = 1.0) -> list[list[float]]:
    """At most POINTS points (labels checked, errors found) of a curve that rises by `gains` from (start, base).

    It ends where it has reached a share `until` of its height.
    """
    if not len(gains):
        return [[start, base]]
    end = len(gains) if until == 1 else min(int(np.searchsorted(gains, until * gains[-1])) + 1, len(gains))
    at = np.unique(np.linspace(0, end - 1, POINTS).round().astype(int))
    return [[start, base], *([start + int(i) + 1, round(base + float(gains[i]), 2)] for i in at)]
