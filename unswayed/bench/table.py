"""Results as tables in the terminal."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from unswayed.bench.published import beside
from unswayed.bench.results import Results
from unswayed.bench.statistics import Comparison, Ranking, against_control, gains, over_all, over_tasks, rank
from unswayed.bench.words import claim, evidence, footnotes
from unswayed.report.statistics import Interval, Verdict, interval, verdict
from unswayed.report.summary import duration, plural, signed, span, spread

_COLOURS = {Verdict.BETTER: "green", Verdict.WORSE: "red"}
_AT_ONCE = 4  # tasks side by side


def tables(results: Results) -> Group:
    """What there is of a suite: who wins, accuracy task by task, masks, and published figures."""
    if not results.scores:
        return Group(Text("No cell is finished: nothing to report yet.", style="yellow"))
    ranking = rank(results)
    parts: list[Table | Text] = [_arms(results, ranking)]
    compared = {(one.task, one.arm): one for one in against_control(results)}
    parts += [_accuracies(results, some, compared) for some in _few(results.tasks)]
    parts += [part for part in (_gains(results), _published(results)) if part is not None]
    parts += [Text(claim(results), style="bold"), Text(evidence(results, ranking))]
    parts += [Text(note, style="dim") for note in footnotes(results)]
    return Group(*parts, Text())


def _few(tasks: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tasks[i : i + _AT_ONCE] for i in range(0, len(tasks), _AT_ONCE)]


def _new(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, header_style="dim", show_edge=False)
    made.title_style = "bold"
    for i, name in enumerate(columns):
        made.add_column(name, overflow="fold", justify="left" if i == 0 else "right")
    return made


def _arms(results: Results, ranking: Ranking | None) -> Table:
    control = results.control
    made = _new(results.suite.name, "arm", "mean\nrank", "mean\naccuracy %", "over the control,\npoints",
                "tasks better\nworse, open", "seconds")  # fmt: skip
    ranks = dict(zip(ranking.arms, ranking.ranks, strict=True)) if ranking else {}
    compared = against_control(results)
    for arm in results.arms:
        said = [one.said for one in compared if one.arm == arm]
        counts = (said.count(Verdict.BETTER), said.count(Verdict.WORSE))
        seconds = [s for task in results.tasks for s in results.seeds(task, arm, lambda s: s.seconds).values()]
        made.add_row(
            _name(results, arm),
            f"{ranks[arm]:.2f}" if arm in ranks else "–",
            spread(over_all(results, arm)),
            Text("–") if control is None or arm == control else _difference(over_tasks(results, arm, control)),
            f"{counts[0]}, {counts[1]}, {len(said) - sum(counts)}" if said else "–",
            duration(math.fsum(seconds) / len(seconds)) if seconds else "–",
        )
    return made


def _name(results: Results, arm: str) -> Text:
    name = Text(arm)
    return name.append("\ncontrol", style="dim") if arm == results.control else name


def _difference(value: Interval) -> Text:
    if value.n == 0:
        return Text("–")
    said = verdict(value)
    cell = Text(signed(value.mean), style=_COLOURS.get(said, ""))
    return cell.append(f"\n{span(value)}" if value.known else "", "").append(f"\n{said.value}", "dim")


def _accuracies(results: Results, tasks: tuple[str, ...], compared: dict[tuple[str, str], Comparison]) -> Table:
    made = _new("Accuracy, last epoch, %", "arm", *tasks)
    for arm in results.arms:
        cells = []
        for task in tasks:
            own = results.seeds(task, arm)
            cell = Text(spread(interval(own.values())) if own else "–")
            one = compared.get((task, arm))
            if one is not None and one.difference.n:
                cell.append(f"\n{signed(one.difference.mean)}", _COLOURS.get(one.said, "dim"))
            cells.append(cell)
        made.add_row(arm, *cells)
    return made


def _gains(results: Results) -> Table | None:
    found = [gain for gain in gains(results) if gain.over_bare.n]
    if not found:
        return None
    made = _new("What an edge-masked head adds, points", "arm", "over the bare head", "over a random mask")
    for gain in found:
        beyond = _difference(gain.over_random) if gain.over_random is not None else Text("not run")
        made.add_row(gain.arm, _difference(gain.over_bare), beyond)
    return made


def _published(results: Results) -> Table | None:
    found = beside(results)
    if not found:
        return None
    made = _new("Published figures beside ours, %", "task, arm", "published", "ours", "difference", "")
    for one in found:
        figure = one.figure
        source = f"arXiv {figure.arxiv}" if figure.arxiv else figure.title
        made.add_row(
            Text(f"{figure.task}, {figure.arm}").append(f"\n{source}, {figure.setting}", "dim"),
            Text(f"{figure.value:.1f}").append(f"\n{figure.epoch}", "dim"),
            Text(f"{one.ours:.1f}").append(f"\n{plural(one.seeds, 'seed')}", "dim"),
            signed(one.difference / 100),
            one.said,
        )
    return made
