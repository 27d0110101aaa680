"""What wrong labels do to training, epoch by epoch, where runs were analysed (figures 3 to 5 of arXiv 2508.09697)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from unswayed.report.curves import Chart, chart_of
from unswayed.report.histograms import Histogram, histograms
from unswayed.report.matrices import ArmMatrices, overlaps
from unswayed.report.pictures import Strip, strips
from unswayed.report.results import Epoch, Section
from unswayed.report.summary import count, percent


@dataclass(frozen=True)
class Measure:
    """How a measure of every epoch is shown; `unit` is "%" for shares and "" for plain numbers."""

    name: str
    title: str
    caption: str
    unit: str = "%"

    def of(self, epoch: Epoch) -> float:
        """The measure's value in an epoch; NaN where it was not measured."""
        return epoch.measures.get(self.name, math.nan)


MEASURES = (
    Measure(
        "gradient_cosine",
        "Gradient cosine",
        "Between the gradients under the given and under the true labels, at the last layer before the head. At 1 "
        "wrong labels do not turn the gradient; below 0 it points away from the true one.",
        unit="",
    ),
    Measure(
        "gradient_error",
        "Relative gradient error",
        "Length of what wrong labels add to the gradient, as a multiple of the gradient under the true labels. It "
        "grows as the latter vanishes.",
        unit="",
    ),
    Measure(
        "confidence_clean",
        "Confidence in right labels",
        "Mean probability of the given label over training rows that are labelled right.",
    ),
    Measure(
        "confidence_wrong",
        "Confidence in wrong labels",
        "The same over training rows that are labelled wrong: low is good.",
    ),
    Measure(
        "memorisation",
        "Wrong labels learnt by heart",
        "Share of the wrongly labelled training rows that are predicted as their wrong label.",
    ),
    Measure("mask_density", "Edges kept", "Share of the head's edges that the mask keeps."),
    Measure("mask_turnover", "Edges exchanged", "Share of the edges kept that were masked at the epoch before."),
    Measure(
        "mask_overlap",
        "Edges shared by two classes",
        "Edges that two classes both keep, as a share of those that either keeps; mean over all pairs.",
    ),
)
CHANCE: dict[str, Callable[[float], float]] = {  # what random masks that keep a share p reach
    "mask_turnover": lambda p: 1 - p,
    "mask_overlap": lambda p: p / (2 - p),
}


@dataclass(frozen=True)
class Analyses:
    """The figures of a section's analysed runs, pictures of their masks, and what to know of them."""

    charts: tuple[Chart, ...]
    histograms: tuple[Histogram, ...]
    strips: tuple[Strip, ...]
    overlaps: tuple[ArmMatrices, ...]
    notes: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.charts or self.histograms or self.strips or self.overlaps or self.notes)


def analyses(section: Section) -> Analyses:
    """All figures that the runs of a section have the numbers for; empty where none was analysed."""
    drawn = (measure_chart(section, measure) for measure in MEASURES)
    return Analyses(
        tuple(chart for chart in drawn if chart),
        tuple(histograms(section)),
        tuple(strips(section)),
        tuple(overlaps(section)),
        tuple(_notes(section)),
    )


def measure_chart(section: Section, measure: Measure) -> Chart | None:
    """One measure over epochs, and for masks the level that chance would reach where all keep one share."""
    level = _chance(section, measure.name)
    label = "" if level is None else f"by chance: {percent(level)} %"
    return chart_of(
        section, measure.title, measure.caption, measure.of, unit=measure.unit, level=level, level_label=label
    )


def _chance(section: Section, name: str) -> float | None:
    ends = [run.history[-1].measures for run in section.runs if run.history]
    kept = {round(end["mask_density"], 2) for end in ends if "mask_density" in end}
    if name not in CHANCE or len(kept) != 1:
        return None
    (share,) = kept
    return CHANCE[name](share)


def _notes(section: Section) -> list[str]:
    looked = [(arm.name, run.analysis) for arm in section.arms for run in arm.runs if run.analysis]
    sizes = [each.rows for _, each in looked if each.rows]
    said: dict[str, dict[str, None]] = {}
    for name, each in looked:
        for note in each.notes:
            said.setdefault(note, {})[name] = None
    everyone = {name for name, _ in looked}
    notes = [note if set(names) == everyone else f"{', '.join(names)}: {note}" for note, names in said.items()]
    if not sizes:
        return notes
    low, high = count(min(sizes)), count(max(sizes))
    rows = low if low == high else f"{low} to {high}"
    measured = f"Measured after every epoch on {rows} training rows whose truth is known; no arm saw the truth."
    return [measured, *notes]
