"""Cells as the report's runs, so that bench and report draw what happens inside of a run from the same code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unswayed.report.analyses import Analyses, analyses
from unswayed.report.checking import Checking, checking
from unswayed.report.fields import Fields
from unswayed.report.page import Ink
from unswayed.report.results import Arm, Run, Section, parse_run


@dataclass(frozen=True)
class Inside:
    """One task: its arms as a section of the report, how they look, and the figures."""

    task: str
    title: str
    section: Section
    inks: tuple[Ink, ...]
    checking: Checking
    analyses: Analyses


def as_run(result: dict[str, Any], arm: str, *, control: bool, file: Path) -> Run:
    """A cell's result as a run of the report, under the suite's name of the arm."""
    data = result.get("data") or {}
    size, names = int(data.get("classes") or 0), [str(name) for name in data.get("names") or ()]
    classes = [*names, *(str(i) for i in range(len(names), size))]
    told = {**result, "name": arm, "control": control, "data": {**data, "classes": classes}}
    return parse_run(Fields(file, "", told), file.parent)


def inside(
    runs: Iterable[tuple[str, Run]], titles: dict[str, str], arms: Iterable[str], looks: dict[str, Ink]
) -> list[Inside]:
    """The figures task by task, in the order of `titles`, arms in that of `arms`; without tasks that have none."""
    by_task: dict[str, dict[str, dict[int, Run]]] = {}
    for task, run in runs:
        by_task.setdefault(task, {}).setdefault(run.name, {})[run.seed] = run
    order, found = list(arms), []
    for task in titles:
        names = sorted(by_task.get(task, {}), key=lambda arm: order.index(arm) if arm in order else len(order))
        grouped = tuple(_arm(name, by_task[task][name]) for name in names)
        if not grouped:
            continue
        section = Section(grouped[0].runs[0].data, grouped)
        inks = tuple(looks.get(arm.name, Ink("control", "")) for arm in grouped)
        drawn = Inside(task, titles[task], section, inks, checking(section), analyses(section))
        if drawn.checking.found or drawn.analyses.found:
            found.append(drawn)
    return found


def _arm(name: str, runs: dict[int, Run]) -> Arm:
    each = tuple(runs[seed] for seed in sorted(runs))
    return Arm(name, each[0].control, each)
