"""Figures that others published, from data files with their sources, beside ours."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from unswayed.bench.results import Results, Score
from unswayed.errors import UnswayedError, suggest
from unswayed.report.statistics import interval

MEASURES = ("accuracy", "auroc")
KEYS = ("title", "arxiv", "where", "read", "setting", "epoch", "measure", "values")


@dataclass(frozen=True)
class Figure:
    """A published figure in percent, its spread where told, and its source."""

    task: str
    arm: str
    value: float
    spread: float  # NaN where not told
    measure: str
    epoch: str  # "last", or what else was reported
    setting: str
    title: str
    arxiv: str
    where: str
    read: str  # what was read of the source to take it from


@dataclass(frozen=True)
class Beside:
    """A published figure and ours, in percent."""

    figure: Figure
    ours: float
    seeds: int
    low: float  # where one further seed of ours would fall, 19 times of 20; NaN below two seeds
    high: float

    @property
    def difference(self) -> float:
        """Ours less theirs, in points."""
        return self.ours - self.figure.value

    @property
    def said(self) -> str:
        """Whether the published figure lies within the spread of our seeds."""
        if not math.isfinite(self.low):
            return "one seed: no spread"
        return "within our seeds' spread" if self.low <= self.figure.value <= self.high else "outside of it"


def shipped() -> list[str]:
    """The names of the files that come with the package."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


def _folder() -> Any:
    return resources.files("unswayed.bench").joinpath("published")


def read_figures(name: str) -> list[Figure]:
    """The figures of a shipped file, or of a file of one's own."""
    if name in shipped():
        text = _folder().joinpath(f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        do = suggest(name, shipped(), f"there are {', '.join(shipped())}, or files .toml")
        raise UnswayedError("published figures by name, or a file of them", got=repr(name), do=do)
    return parse_figures(text, name)


def parse_figures(text: str, name: str) -> list[Figure]:
    """Figures from TOML: a list `sources`, each with what all of its `values` (by arm, by task) share."""
    try:
        sources = tomllib.loads(text).get("sources", [])
    except tomllib.TOMLDecodeError as error:
        raise UnswayedError(f"TOML in the published figures {name}", got=error) from error
    found = []
    for source in sources:
        for key in source:
            if key not in KEYS:
                raise UnswayedError(f"a key of a source in {name}", got=repr(key), do=suggest(key, KEYS))
        about = {key: str(source.get(key, "")) for key in KEYS if key not in ("values", "measure")}
        measure = source.get("measure", "accuracy")
        if measure not in MEASURES or not about["where"] or not about["title"]:
            raise UnswayedError(f"title, where and measure ({', '.join(MEASURES)}) of a source in {name}", got=about)
        for arm, tasks in source.get("values", {}).items():
            for task, value in tasks.items():
                mean, spread = value if isinstance(value, list) else (value, math.nan)
                found.append(Figure(task, arm, float(mean), float(spread), measure, **about))
    return found


def beside(results: Results) -> list[Beside]:
    """The published figures of the suite whose task and arm have run here."""
    names = [n for n in results.suite.published if n in shipped() or n != results.suite.name]
    return [_beside(figure, own) for name in names for figure in read_figures(name) if (own := _ours(figure, results))]


def _ours(figure: Figure, results: Results) -> Mapping[int, float]:
    def value(score: Score) -> float:
        return score.auroc if figure.measure == "auroc" else score.accuracy

    return results.seeds(figure.task, figure.arm, value)


def _beside(figure: Figure, own: Mapping[int, float]) -> Beside:
    """Our choice: the spread is the 95 % prediction interval of one further seed, mean ± t s sqrt(1 + 1/n).

    The interval of our mean would shrink with our seeds, and then no figure with a spread of its own could lie in it.
    """
    ours = interval(100 * value for value in own.values())
    if not ours.known:
        return Beside(figure, ours.mean, ours.n, math.nan, math.nan)
    wide = ours.half * math.sqrt(ours.n + 1)  # half is t s / sqrt n
    return Beside(figure, ours.mean, ours.n, ours.mean - wide, ours.mean + wide)
