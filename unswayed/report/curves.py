"""Learning curves as plain SVG paths.

Our choice: paths in a square of 1000 by 1000 that the page stretches, with ticks as text around it, because then one
drawing serves every width, follows the colours of the page from light to dark, and prints; a charting bundle that does
as much would weigh 0.9 MB a page, need a looser content policy, and draw again at each change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unswayed.report.results import Arm, Epoch, Section
from unswayed.report.summary import percent

SIDE = 1000
MOST_POINTS = 400
LONG_STAGE = 3  # epochs; shorter stages alternate, and gaps would leave nothing of their line


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in percent of its length, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One arm: the mean over seeds as a path, their range as a closed path ("" for one seed), and the means to read."""

    arm: int
    name: str
    path: str
    band: str
    means: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """One figure: lines over an axis, ticks in percent of each side, and a level worth knowing.

    `xs` are the places along the axis at which lines have values: epochs counted from 1, or what `axis` says.
    """

    title: str
    caption: str
    summary: str
    xs: tuple[int, ...]
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    upwards: tuple[Tick, ...]
    level: Tick | None
    unit: str  # "%": values are shares, shown in percent; "": plain numbers
    axis: str = "Epoch"
    diagonal: str = ""  # a path that is worth knowing


@dataclass(frozen=True)
class Curve:
    """Per epoch: least, mean and greatest value of the seeds that have one; and where stages start."""

    arm: int
    name: str
    seeds: int
    points: dict[int, tuple[float, float, float]]
    starts: tuple[int, ...]

    @property
    def pieces(self) -> list[list[int]]:
        """The epochs between starts, in order: a fresh start is no fall, so no line leads there."""
        ends = (*self.starts[1:], math.inf)
        pieces = [[e for e in self.points if start <= e < end] for start, end in zip(self.starts, ends, strict=True)]
        return [piece for piece in pieces if piece]


def charts(section: Section) -> list[Chart]:
    """Test accuracy, and accuracy against the given training labels; a figure without any value is left out."""
    known = section.wrong
    right = 1 - math.fsum(known) / len(known) if known else None
    memory = "What climbs here while test accuracy falls has learnt wrong labels by heart."
    if known:
        memory = "What climbs above the line has learnt wrong labels by heart."
    spread = "Mean over seeds; the band is their range; a gap is where a new stage begins."
    drawn = [
        chart_of(section, "Test accuracy", spread, lambda epoch: epoch.test_accuracy),
        chart_of(
            section,
            "Training accuracy, against the given labels",
            f"Predictions made in training. {memory}",
            lambda epoch: epoch.train_accuracy,
            level=right,
            level_label=f"right labels: {percent(right)} %" if right is not None else "",
        ),
    ]
    return [chart for chart in drawn if chart is not None]


def chart_of(
    section: Section,
    title: str,
    caption: str,
    value: Callable[[Epoch], float],
    *,
    unit: str = "%",
    level: float | None = None,
    level_label: str = "",
) -> Chart | None:
    """The figure of one value over epochs, a line an arm; None where no run has it."""
    curves = [curve for i, arm in enumerate(section.arms) if (curve := _curve(i, arm, value)).points]
    return draw(curves, title, caption, unit=unit, level=level, level_label=level_label) if curves else None


def draw(
    curves: list[Curve],
    title: str,
    caption: str,
    *,
    unit: str = "%",
    level: float | None = None,
    level_label: str = "",
    cover: Sequence[float] = (),
    first: int | None = None,
    last: int | None = None,
) -> Chart:
    """One figure of some curves, one at least; its axis covers the values in `cover` too, for figures side by side.

    `first` and `last` are the ends of the other axis, where they are not those of the curves.
    """
    seen = sorted({epoch for curve in curves for epoch in curve.points})
    values = [v for curve in curves for triple in curve.points.values() for v in triple]
    values += [*cover, *([] if level is None else [level])]
    low, high, step = _axis(min(values), max(values))
    first = seen[0] if first is None else first
    last = max(seen[-1], first + 1) if last is None else last

    def place(epoch: int, y: float) -> str:
        return f"{SIDE * (epoch - first) / (last - first):.0f} {SIDE * (high - y) / (high - low):.0f}"

    def at(y: float) -> float:
        return round(100 * (high - y) / (high - low), 2)

    every = range(round((high - low) / step) + 1)
    return Chart(
        title=title,
        caption=caption,
        summary=_in_words(title, curves, unit),
        xs=tuple(epoch + 1 for epoch in seen),
        lines=tuple(_line(curve, seen, place) for curve in curves),
        across=tuple(
            Tick(round(100 * (e - first) / (last - first), 2), str(e + 1))
            for e in _whole_ticks(first, max(first, seen[-1]))
        ),
        upwards=tuple(Tick(at(low + i * step), _tick_label(low + i * step, unit)) for i in every),
        level=None if level is None else Tick(at(level), level_label),
        unit=unit,
    )


def _curve(index: int, arm: Arm, value: Callable[[Epoch], float]) -> Curve:
    found: dict[int, list[float]] = {}
    for run in arm.runs:
        for epoch in run.history:
            if math.isfinite(value(epoch)):
                found.setdefault(epoch.epoch, []).append(value(epoch))
    epochs = sorted(found)
    stride = max(1, math.ceil(len(epochs) / MOST_POINTS))
    kept = {*epochs[::-1][::stride]}  # counted from the end, so that the last epoch is always there
    points = {e: (min(found[e]), math.fsum(found[e]) / len(found[e]), max(found[e])) for e in epochs if e in kept}
    return Curve(index, arm.name, len(arm.runs), points, _starts(arm))


def _starts(arm: Arm) -> tuple[int, ...]:
    """The epochs at which a stage starts that lasts, as does the one before it."""
    longest = max(arm.runs, key=lambda run: len(run.history)).history
    stages = [list(epochs) for _, epochs in itertools.groupby(longest, key=lambda epoch: epoch.stage)]
    lasting = [
        after[0].epoch for before, after in itertools.pairwise(stages) if min(len(before), len(after)) >= LONG_STAGE
    ]
    return (0, *lasting)


def _line(curve: Curve, seen: list[int], place: Callable[[int, float], str]) -> Line:
    points, path, band = curve.points, "", ""
    for piece in curve.pieces:
        path += "M" + "L".join(place(epoch, points[epoch][1]) for epoch in piece)
        if len(piece) == 1:
            path += "h0"  # a line of no length with round ends: a dot
        elif curve.seeds > 1:
            tops = [place(epoch, points[epoch][2]) for epoch in piece]
            bottoms = [place(epoch, points[epoch][0]) for epoch in piece]
            band += "M" + "L".join([*tops, *bottoms[::-1]]) + "Z"
    means = tuple(round(points[epoch][1], 4) if epoch in points else None for epoch in seen)
    return Line(curve.arm, curve.name, path, band, means)


def _in_words(title: str, curves: list[Curve], unit: str) -> str:
    """What a reader who cannot see the figure should know of it: each line's last and highest value."""
    said = []
    for curve in curves:
        means = [mean for _, mean, _ in curve.points.values()]
        said.append(f"{curve.name} ends at {_say(means[-1], unit)} (highest {_say(max(means), unit)})")
    return f"{title} over epochs: {'; '.join(said)}."


def _say(value: float, unit: str) -> str:
    return f"{percent(value)} %" if unit == "%" else f"{value:.2f}".replace("-", "−")


def _tick_label(value: float, unit: str) -> str:
    shown = f"{round((100 if unit == '%' else 1) * value, 9):.4g}"
    return "0" if shown == "-0" else shown.replace("-", "−")


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Round ends around [low, high] and the step between about five ticks, 0.005 at least.

    >>> [round(value, 3) for value in _axis(0.12, 0.93)], _axis(-3, 19)
    ([0.0, 1.0, 0.2], (-5.0, 20.0, 5.0))
    """
    wide = max(high - low, 0.02)
    step = next(s * 10.0**p for p in range(-3, 300) for s in (1, 2, 5) if wide / (s * 10.0**p) <= 5.5)
    start, end = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    while end - start < 0.02 - step / 2:  # a flat line is drawn in the midst of something
        start, end = (start - step, end) if start >= step / 2 else (start, end + step)
    return start, end, step


def _whole_ticks(first: int, last: int) -> list[int]:
    """About six epochs with round numbers (as counted from 1), the first and the last among them."""
    step = next(s for p in range(9) for s in (10**p, 2 * 10**p, 5 * 10**p) if (last - first) / s <= 6)
    between = [e for e in range(first, last + 1) if (e + 1) % step == 0 and min(e - first, last - e) > 0.6 * step]
    return [first, *between, last] if last > first else [first]
