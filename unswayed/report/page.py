"""A study as one HTML page that needs nothing but itself; a policy in the page forbids it any network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from unswayed.report import summary
from unswayed.report.analyses import Analyses, analyses
from unswayed.report.checking import Checking, checking
from unswayed.report.curves import Chart, charts
from unswayed.report.gallery import Shelf, shelve
from unswayed.report.matrices import ArmMatrices, cut_note, matrices
from unswayed.report.results import Arm, Section, Study
from unswayed.report.settings import Settings, settings, surroundings
from unswayed.report.statistics import Interval, Verdict, verdict
from unswayed.version import __version__
from unswayed.writing import replacing

HUES = 7
DASHES = ("", "7 4", "2 4", "10 3 2 3")


@dataclass(frozen=True)
class Ink:
    """How an arm looks everywhere on the page: a hue of the style sheet, and a dash once the hues are used up."""

    colour: str
    dash: str


@dataclass(frozen=True)
class Scale:
    """Places in percent along a small axis from `low` to `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value lies, kept within the axis."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 2)

    @classmethod
    def over(cls, values: Iterable[float], least: float = 0.01) -> Scale | None:
        """An axis around the finite values with some room at both ends; None without any."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None
        room = max(0.06 * (max(finite) - min(finite)), least / 2)
        return cls(min(finite) - room, max(finite) + room)


@dataclass(frozen=True)
class Line:
    """One row of the table of arms, with the places of its marks on the small axes."""

    row: summary.Row
    ink: Ink
    dots: tuple[float, ...]
    bar: tuple[float, float] | None
    mean: float | None
    gap: tuple[float, float] | None
    gap_mean: float | None
    verdict: str
    tone: str


@dataclass(frozen=True)
class Part:
    """One section as the template shows it."""

    key: str
    section: Section
    ran: str
    claim: str
    evidence: str
    lines: tuple[Line, ...]
    zero: float
    accuracies: Scale | None
    notes: tuple[str, ...]
    inks: tuple[Ink, ...]
    charts: tuple[Chart, ...]
    analyses: Analyses
    checking: Checking
    matrices: tuple[ArmMatrices, ...]
    cut: str
    shelf: Shelf
    settings: Settings

    @property
    def first_matrices(self) -> int:
        """The arm whose matrices are shown first: not the control, and chosen without looking at any score."""
        arms = [each.arm for each in self.matrices]
        return next((arm for arm in arms if not self.section.arms[arm].control), arms[0])

    @property
    def noise(self) -> str:
        """The share of wrong labels where it is known: `40.1 % (symmetric, planted)`."""
        known, noise = self.section.wrong, self.section.data.noise
        if not known:
            return ""
        low, high = summary.percent(min(known)), summary.percent(max(known))
        return f"{low if low == high else f'{low} to {high}'} %" + (f" ({noise.name}, planted)" if noise else "")

    @property
    def against(self) -> str:
        """What the test labels are."""
        found = {run.test.against for run in self.section.runs if run.test}
        return {frozenset({"truth"}): "true labels", frozenset({"given"}): "given labels"}.get(frozenset(found), "")

    def as_json(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "classes": self.section.data.classes,
            "arms": [arm.name for arm in self.section.arms],
            "charts": [
                {
                    "xs": c.xs,
                    "axis": c.axis,
                    "unit": c.unit,
                    "lines": [{"arm": line.arm, "means": line.means} for line in c.lines],
                }
                for c in (*self.charts, *self.checking.charts, *self.analyses.charts)
            ],
            **self.shelf.as_json(),
        }


def write(study: Study, path: Path | str) -> Path:
    """Write the study as one HTML page and return its path; a folder gets `report.html`.

    The file appears whole or not at all. Raises UnswayedError where it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.html"
    content = render(study).encode("utf-8", errors="replace")  # lone surrogates in labels have no UTF-8
    with replacing(path) as file:
        file.write(content)
    return path


def render(study: Study) -> str:
    """The page's HTML."""
    shelves = shelve(study.sections)
    parts = [_part(i, section, shelf) for i, (section, shelf) in enumerate(zip(study.sections, shelves, strict=True))]
    versions, machine = surroundings(run for section in study.sections for run in section.runs)
    script = _asset("page.js")
    return (
        environment("report", summary.epochs_of)
        .get_template("page.html")
        .render(
            parts=parts,
            title=study.folder.resolve().name,
            started=max((run.started for section in study.sections for run in section.runs), default="")[:10],
            unfinished=[folder.relative_to(study.folder).as_posix() for folder in study.unfinished],
            versions=versions,
            machine=machine,
            version=__version__,
            style=Markup(style("unswayed.report")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            data=_as_data([part.as_json() for part in parts]),
        )
    )


def _asset(name: str) -> str:
    return _read("unswayed.report", name)


def style(*rooms: str) -> str:
    """The colours of all pages, then the style of each room's page."""
    return "".join([_asset("palette.css"), *(_read(room, "page.css") for room in rooms)])


def _read(room: str, name: str) -> str:
    return resources.files(room).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _as_data(value: Any) -> Markup:
    """JSON that can stand in a script element: no `<` is left that could end it."""
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def environment(room: str, *filters: Callable[..., Any]) -> jinja2.Environment:
    """Templates of a room, and the report's pieces: they escape what they are given and know filters by name."""
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("unswayed", each) for each in (room, "report")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    common = (summary.count, summary.duration, summary.percent, summary.plural, summary.score, summary.signed)
    for filter_ in (*common, summary.span, summary.tied, *filters):
        made.filters[filter_.__name__] = filter_
    return made


def _part(index: int, section: Section, shelf: Shelf) -> Part:
    table = summary.rows(section)
    claim, evidence = summary.what_came_out(section, table)
    inks = _inks(section.arms)
    accuracies = Scale.over(value for row in table for value in _last_marks(row))
    gaps = Scale.over([0.0, *(value for row in table if row.difference for value in _ends(row.difference))])
    return Part(
        key=f"s{index + 1}",
        section=section,
        ran=summary.what_ran(section),
        claim=claim,
        evidence=evidence,
        lines=tuple(_line(row, ink, accuracies, gaps) for row, ink in zip(table, inks, strict=True)),
        zero=gaps.at(0.0) if gaps else 50.0,
        accuracies=accuracies,
        notes=(*summary.footnotes(section, table), *section.notes),
        inks=inks,
        charts=tuple(charts(section)),
        analyses=analyses(section),
        checking=checking(section),
        matrices=tuple(matrices(section)),
        cut=cut_note(section),
        shelf=shelf,
        settings=settings(section),
    )


def _inks(arms: tuple[Arm, ...]) -> tuple[Ink, ...]:
    inks, used = [], 0
    for arm in arms:
        if arm.control:
            inks.append(Ink("control", ""))
        else:
            inks.append(Ink(f"hue-{used % HUES}", DASHES[used // HUES % len(DASHES)]))
            used += 1
    return tuple(inks)


def _last_marks(row: summary.Row) -> list[float]:
    low, high = _ends(row.last)
    return [*(run.last for run in row.arm.runs), max(low, 0.0), min(high, 1.0)]


def _ends(value: Interval) -> tuple[float, float]:
    """The ends of an interval, or its mean twice; ends beyond a difference of 100 points say nothing and are cut."""
    return (max(value.low, -1.0), min(value.high, 1.0)) if value.known else (value.mean, value.mean)


def _line(row: summary.Row, ink: Ink, accuracies: Scale | None, gaps: Scale | None) -> Line:
    difference = row.difference
    said = verdict(difference) if difference else None
    return Line(
        row=row,
        ink=ink,
        dots=tuple(accuracies.at(run.last) for run in row.arm.runs if math.isfinite(run.last)) if accuracies else (),
        bar=_bar(row.last, accuracies),
        mean=accuracies.at(row.last.mean) if accuracies and row.last.n else None,
        gap=_bar(difference, gaps) if difference else None,
        gap_mean=gaps.at(difference.mean) if gaps and difference and difference.n else None,
        verdict=said.value if said else "",
        tone={Verdict.BETTER: "better", Verdict.WORSE: "worse"}.get(said, "") if said else "",
    )


def _bar(value: Interval, scale: Scale | None) -> tuple[float, float] | None:
    """Start and width of an interval in percent of its axis."""
    if scale is None or not value.known:
        return None
    start = scale.at(value.low)
    return start, round(scale.at(value.high) - start, 2)
