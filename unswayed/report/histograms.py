"""How sure a trained arm is of the given labels: rows labelled right upwards, rows labelled wrong downwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unswayed.report.curves import SIDE, Tick
from unswayed.report.results import Arm, Section
from unswayed.report.summary import percent

_GAP = 6  # between two bars


@dataclass(frozen=True)
class Histogram:
    """One arm: bars as closed paths in a square of 1000 by 1000, the range over seeds, and what it says in words."""

    arm: int
    name: str
    right: str
    wrong: str
    range: str
    upwards: tuple[Tick, ...]
    words: str


def histograms(section: Section) -> list[Histogram]:
    """The histogram of every arm that was looked at; all share one scale."""
    shares = {i: _shares(arm) for i, arm in enumerate(section.arms)}
    known = {i: pair for i, pair in shares.items() if pair[0] or pair[1]}
    if not known:
        return []
    most = max(max(bars) for pair in known.values() for seeds in pair for bars in zip(*seeds, strict=True))
    high = next(top for top in (0.25, 0.5, 1.0) if most <= top + 1e-9)
    return [_histogram(i, section.arms[i].name, *pair, high) for i, pair in known.items()]


def _shares(arm: Arm) -> tuple[list[list[float]], list[list[float]]]:
    """By seed, the share of rows in each bin: of those labelled right, and of those labelled wrong."""
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    for run in arm.runs:
        for counts, place in zip((run.evidence.right, run.evidence.wrong), found, strict=True):
            if total := sum(counts):
                place.append([count / total for count in counts])
    return found


def _histogram(
    index: int, name: str, right: Sequence[Sequence[float]], wrong: Sequence[Sequence[float]], high: float
) -> Histogram:
    half = SIDE / 2
    bars, ranges, said = list[str](), "", list[str]()
    for seeds, way, what in ((right, -1, "right"), (wrong, 1, "wrong")):
        path = ""
        means = [math.fsum(values) / len(values) for values in zip(*seeds, strict=True)]
        wide = SIDE / max(1, len(means))
        for i, (mean, values) in enumerate(zip(means, zip(*seeds, strict=True), strict=True)):
            x0, x1 = i * wide + _GAP / 2, (i + 1) * wide - _GAP / 2
            if mean > 0:
                path += f"M{x0:.0f} {half:.0f}V{half + way * half * mean / high:.0f}H{x1:.0f}V{half:.0f}Z"
            if len(values) > 1 and max(values) > min(values):
                ends = [half + way * half * end / high for end in (min(values), max(values))]
                ranges += f"M{(x0 + x1) / 2:.0f} {ends[0]:.0f}V{ends[1]:.0f}"
        bars.append(path)
        if means:
            sure = math.fsum(means[len(means) // 2 :])
            said.append(f"{percent(sure, 0)} % of the rows labelled {what} have a label of probability .5 or more")
    ticks = tuple(
        Tick(at, f"{100 * value:g}") for at, value in ((0.0, high), (25.0, high / 2), (50.0, 0.0), (75.0, high / 2))
    )
    upwards = (*ticks, Tick(100.0, f"{100 * high:g}"))
    return Histogram(index, name, bars[0], bars[1], ranges, upwards, f"{name}: {'; '.join(said)}")
