"""A bench as one HTML page that needs nothing but itself, in the style of the report's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unswayed.bench import figures, words
from unswayed.bench.drawing import inks
from unswayed.bench.published import Beside, beside
from unswayed.bench.results import Results
from unswayed.bench.sections import inside
from unswayed.bench.statistics import Comparison, Gain, Ranking, against_control, gains, over_all, over_tasks, rank
from unswayed.report import summary
from unswayed.report.page import Ink, environment, style
from unswayed.report.statistics import Interval, Verdict, interval, verdict
from unswayed.version import __version__
from unswayed.writing import replacing

_TONES = {Verdict.BETTER: "better", Verdict.WORSE: "worse"}


@dataclass(frozen=True)
class Line:
    """An arm in the first table."""

    arm: str
    ink: Ink
    rank: float
    mean: Interval  # over all tasks
    gain: Interval | None
    said: str
    tone: str
    better: int
    worse: int
    open: int
    seconds: float
    memory: float
    auroc: Interval


@dataclass(frozen=True)
class Spot:
    """An arm on a task."""

    last: Interval
    one: Comparison | None

    @property
    def tone(self) -> str:
        """Green or red where a difference is shown."""
        return _TONES.get(self.one.said, "") if self.one else ""


def write(results: Results, path: Path) -> Path:
    """Write the page; a file that is already there is replaced."""
    content = render(results).encode("utf-8", errors="replace")
    with replacing(path) as file:
        file.write(content)
    return path


def render(results: Results) -> str:
    """The page's HTML."""
    looks = inks(results.arms, results.control)
    ranking, compared, found = rank(results), against_control(results), gains(results)
    by_place = {(one.task, one.arm): one for one in compared}
    drawings = figures.over_axis(results, looks)
    titles = {task.name: task.title for task in results.suite.tasks}
    return (
        environment("bench", summary.spread, ends, megabytes, p_value)
        .get_template("page.html")
        .render(
            suite=results.suite,
            results=results,
            claim=words.claim(results),
            evidence=words.evidence(results, ranking),
            lines=[_line(results, arm, looks[arm], ranking, compared) for arm in results.arms],
            spots=[
                (arm, looks[arm], [_spot(results, task, arm, by_place) for task in results.tasks])
                for arm in results.arms
            ],
            titles=titles,
            inside=inside(results.runs, titles, results.arms, looks),
            compared=compared,
            ranking=ranking,
            diagram=None if ranking is None else figures.ranks(ranking),
            drawings=drawings,
            forest=figures.forest(found, looks),
            gains=_by_task(found),
            cost=figures.cost(results, looks),
            published=_sorted(beside(results)),
            choices=_choices(results),
            failures=[(failure, _cause(failure.why)) for failure in results.failures],
            notes=words.footnotes(results),
            version=__version__,
            style=Markup(style("unswayed.report", "unswayed.bench")),
            tones=_TONES,
        )
    )


def ends(low_high: tuple[float, float]) -> str:
    """The ends of an interval of differences of shares, in points: `+2.1 to +6.9`."""
    low, high = low_high
    return f"{summary.signed(low)} to {summary.signed(high)}" if math.isfinite(low) else "no interval"


def megabytes(value: float) -> str:
    """Bytes as megabytes; a dash where unknown."""
    return f"{value / 1e6:,.0f} MB" if math.isfinite(value) else "–"


def p_value(value: float) -> str:
    """A p value with three digits; a dash where unknown."""
    return "–" if not math.isfinite(value) else "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def _line(results: Results, arm: str, ink: Ink, ranking: Ranking | None, compared: list[Comparison]) -> Line:
    control = results.control
    said = [one.said for one in compared if one.arm == arm]
    better, worse = said.count(Verdict.BETTER), said.count(Verdict.WORSE)
    gain = over_tasks(results, arm, control) if control is not None and arm != control else None
    found = verdict(gain) if gain else None
    scores = [score for score in results.scores if score.arm == arm]
    seconds = [score.seconds for score in scores if math.isfinite(score.seconds)]
    memory = [score.memory for score in scores if math.isfinite(score.memory)]
    return Line(
        arm=arm,
        ink=ink,
        rank=ranking.ranks[ranking.arms.index(arm)] if ranking and arm in ranking.arms else math.nan,
        mean=over_all(results, arm),
        gain=gain,
        said=found.value if found else "",
        tone=_TONES.get(found, "") if found else "",
        better=better,
        worse=worse,
        open=len(said) - better - worse,
        seconds=math.fsum(seconds) / len(seconds) if seconds else math.nan,
        memory=max(memory, default=math.nan),
        auroc=interval(score.auroc for score in scores),
    )


def _spot(results: Results, task: str, arm: str, by_place: dict[tuple[str, str], Comparison]) -> Spot:
    return Spot(interval(results.seeds(task, arm).values()), by_place.get((task, arm)))


def _by_task(found: list[Gain]) -> list[tuple[Gain, Comparison]]:
    return [(gain, one) for gain in found for one in gain.by_task]


def _sorted(found: list[Beside]) -> list[Beside]:
    return sorted(found, key=lambda one: (one.figure.title, one.figure.task))


def _choices(results: Results) -> list[dict[str, Any]]:
    """What each arm chose on each task, over seeds."""
    if results.suite.tune is None:
        return []
    found: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
    for entry, choice in results.choices:
        best = choice.scores[choice.index]
        found.setdefault((entry.task, entry.arm), []).append((entry.seed, choice.index, best))
    made = []
    for (task, arm), chosen in found.items():
        settings = results.suite.tune.settings[arm]
        told = [", ".join(f"{k} {v}" for k, v in setting.items()) or "as it is" for setting in settings]
        counts = [(told[i], sum(1 for _, index, _ in chosen if index == i)) for i in range(len(settings))]
        made.append({"task": task, "arm": arm, "counts": counts, "score": interval(best for *_, best in chosen)})
    return made


def _cause(why: str) -> str:
    """The last line of an error, which names it."""
    return (why.strip().splitlines() or ["unknown"])[-1]
