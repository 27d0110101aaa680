"""How far a review is: errors found, errors that are probably left, and whether going on pays."""

from __future__ import annotations

from typing import Any

import numpy as np

from unswayed.review.case import Case
from unswayed.review.store import CONFLICT, OPEN, SETTLED, SKIPPED

POINTS = 80  # of each curve
NEXT = 50  # labels that the advice looks ahead
_FEW = 0.05  # of the next labels wrong: not worth a person's time
_PRIOR = 10.0  # labels that the calibration of the audit weighs, against what was found


class Progress:
    """The state of a review and its outlook, made anew after every decision."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._suspicion = case.audit.suspicion.double().numpy()
        self._order = case.audit.order().numpy()

    def now(self) -> dict[str, Any]:
        """Figures for the page.

        What is left is estimated by the suspicions of the rows that nobody has settled. Our choice: their sum is scaled
        by how the settled rows turned out, (found + 10) / (expected + 10), so that an audit that is too sure, or not
        sure enough, is put right by the person.
        """
        decisions, suspicion = self.case.decisions, self._suspicion
        decisions.refresh()
        settled = decisions.state == SETTLED
        done = np.flatnonzero(settled)
        done = done[np.argsort(decisions.when[done], kind="stable")]
        found = int(decisions.wrong.sum())
        scale = (found + _PRIOR) / (float(suspicion[settled].sum()) + _PRIOR)
        left = self._order[~settled[self._order]]
        expected = np.minimum(suspicion[left] * scale, 1.0)
        remaining, spread = float(expected.sum()), float(np.sqrt((expected * (1 - expected)).sum()))
        coming = float(expected[:NEXT].mean()) if len(left) else 0.0
        total = found + remaining
        return {
            "rows": len(settled),
            "settled": int(settled.sum()),
            "open": int((decisions.state == OPEN).sum()),
            "skipped": int((decisions.state == SKIPPED).sum()),
            "conflicts": int((decisions.state == CONFLICT).sum()),
            "found": found,
            "precision": found / len(done) if len(done) else None,
            "remaining": [remaining, max(0.0, remaining - 1.96 * spread), remaining + 1.96 * spread],
            "share": found / total if total else 1.0,
            "coming": {"labels": min(NEXT, len(left)), "wrong": coming},
            "stop": not len(left) or coming < _FEW,
            "advice": _advice(len(left), coming),
            "path": _points(np.cumsum(decisions.wrong[done]), 0),
            "ahead": _points(np.cumsum(expected), found, start=len(done), until=0.95),
            "last": decisions.last,
        }


def _advice(left: int, coming: float) -> str:
    if not left:
        return "Every label is settled."
    ahead = min(NEXT, left)
    if coming < _FEW:
        return f"You may stop now: of the next {ahead} labels about {coming * ahead:.1f} are wrong."
    return f"Go on: of the next {ahead} labels about {coming * ahead:.0f} are wrong."


def _points(gains: np.ndarray, base: float, *, start: int = 0, until: float = 1.0) -> list[list[float]]:
    """At most POINTS points (labels checked, errors found) of a curve that rises by `gains` from (start, base).

    It ends where it has reached a share `until` of its height.
    """
    if not len(gains):
        return [[start, base]]
    end = len(gains) if until == 1 else min(int(np.searchsorted(gains, until * gains[-1])) + 1, len(gains))
    at = np.unique(np.linspace(0, end - 1, POINTS).round().astype(int))
    return [[start, base], *([start + int(i) + 1, round(base + float(gains[i]), 2)] for i in at)]
