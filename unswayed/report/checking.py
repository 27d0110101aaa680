"""What suspicion finds and whether what is said is so: error budgets and reliability diagrams of a section's runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from unswayed.report.curves import SIDE, Chart, Curve, Tick, draw
from unswayed.report.evidence import BINS, Reliability
from unswayed.report.results import Run, Section
from unswayed.report.statistics import interval
from unswayed.report.summary import score

FEWEST = 5  # rows of a bin that is drawn
_RISING = f"M0 {SIDE}L{SIDE} 0"  # what is so is what is said; or rows in no order


@dataclass(frozen=True)
class Checking:
    """The figures, and what to know of them."""

    charts: tuple[Chart, ...]
    notes: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.charts)


def checking(section: Section) -> Checking:
    """All figures that the runs of a section have the numbers for; none where no truth is known."""
    budget = _chart(
        section,
        "Wrong labels found",
        "The most suspicious labels are checked first. The mean over seeds, the band their range; the straight line is "
        "checking in no order.",
        "Labels checked, %",
        lambda run: dict(run.evidence.budget),
    )
    labels = _chart(
        section,
        "Reliability of suspicion",
        "Share of labels that are wrong, where the suspicion is so high. On the straight line it can be taken at its "
        "word; above it, it is too low. Bins of fewer than five rows are left out.",
        "Suspicion, %",
        lambda run: _by_bin(run.evidence.labels),
    )
    test = _chart(
        section,
        "Reliability of predictions",
        "Share of test rows that are predicted right, where the prediction is so sure. Below the straight line it is "
        "too sure of itself.",
        "Probability of the predicted class, %",
        lambda run: _by_bin(run.evidence.test),
    )
    drawn = tuple(chart for chart in (budget, labels, test) if chart is not None)
    return Checking(drawn, tuple(_errors(section)) if drawn else ())


def _by_bin(found: Reliability | None) -> Mapping[int, float]:
    """What is so in each bin, at the bin's middle in percent; a share of a few rows says nothing and is left out."""
    kept = () if found is None else (each for each in found.bins if each.rows >= FEWEST)
    return {round(100 * (each.number + 0.5) / BINS): each.so for each in kept}


def _chart(
    section: Section, title: str, caption: str, axis: str, values: Callable[[Run], Mapping[int, float]]
) -> Chart | None:
    """A figure over 0 to 100 percent, drawn where half of the seeds have a value; None where no run has one."""
    curves = []
    for i, arm in enumerate(section.arms):
        found: dict[int, list[float]] = {}
        for run in arm.runs:
            for at, value in values(run).items():
                found.setdefault(at, []).append(value)
        most = max(map(len, found.values()), default=0)
        kept = {at: each for at, each in sorted(found.items()) if 2 * len(each) >= most}
        points = {at: (min(each), math.fsum(each) / len(each), max(each)) for at, each in kept.items()}
        if points:
            curves.append(Curve(i, arm.name, len(arm.runs), points, (0,)))
    if not curves:
        return None
    drawn = draw(curves, title, caption, cover=(0.0, 1.0), first=0, last=100)
    ticks = tuple(Tick(float(at), str(at)) for at in range(0, 101, 20))
    said = drawn.summary.replace(" over epochs:", f" over {axis[0].lower()}{axis[1:]}:")
    xs = tuple(x - 1 for x in drawn.xs)
    return replace(drawn, axis=axis, diagonal=_RISING, across=ticks, xs=xs, summary=said)


def _errors(section: Section) -> Iterable[str]:
    """The expected calibration errors in words, of suspicion and of predictions."""
    for name, what in (("suspicion", "labels"), ("predictions", "test")):
        each = {
            arm.name: interval(found.error for run in arm.runs if (found := getattr(run.evidence, what)) is not None)
            for arm in section.arms
        }
        said = [f"{arm} {score(error.mean)}" for arm, error in each.items() if error.n]
        if said:
            yield f"Expected calibration error of {name}: {', '.join(said)}."
        missing = [arm for arm, error in each.items() if not error.n]
        if said and missing and what == "labels":
            yield f"Suspicions that are no shares have no such diagram: {', '.join(missing)}."
