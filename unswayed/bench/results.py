"""Finished cells as a table of scores: task x arm x seed, read from files alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unswayed.bench.grid import Cell, Entry, entries
from unswayed.bench.running import cell_of, choice_of
from unswayed.bench.sections import as_run
from unswayed.bench.store import Store
from unswayed.bench.suite import Suite
from unswayed.bench.tuning import Choice
from unswayed.report.results import Run

NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """What one run gave: accuracy on the test rows after the last epoch, in [0, 1], and its cost; NaN where unknown."""

    task: str
    arm: str
    seed: int
    accuracy: float
    auroc: float = NAN  # of suspicion
    seconds: float = NAN
    steps: float = NAN
    samples: float = NAN
    memory: float = NAN  # bytes


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished, and why."""

    cell: Cell
    why: str


@dataclass(frozen=True)
class Results:
    """What is there of a suite; nothing is estimated or filled in."""

    suite: Suite
    scores: tuple[Score, ...]
    missing: tuple[Entry, ...]
    failures: tuple[Failure, ...]
    choices: tuple[tuple[Entry, Choice], ...]
    versions: tuple[str, ...]
    machines: tuple[str, ...]
    notes: tuple[str, ...]
    runs: tuple[tuple[str, Run], ...] = ()  # by task, what happened inside, for figures

    @cached_property
    def table(self) -> dict[tuple[str, str], dict[int, Score]]:
        """Scores by task and arm, and by seed within."""
        found: dict[tuple[str, str], dict[int, Score]] = {}
        for score in self.scores:
            found.setdefault((score.task, score.arm), {})[score.seed] = score
        return found

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The arms that have a score, the control first, then in the suite's order."""
        seen = list(dict.fromkeys(score.arm for score in self.scores))
        order = [arm.name for arm in self.suite.arms]
        seen.sort(key=lambda arm: (arm != self.suite.control, order.index(arm) if arm in order else len(order)))
        return tuple(seen)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a score, in the suite's order."""
        seen = {score.task for score in self.scores}
        return tuple(task.name for task in self.suite.tasks if task.name in seen)

    @property
    def control(self) -> str | None:
        """The arm that the others are compared with, if it has run."""
        return self.suite.control if self.suite.control in self.arms else None

    def seeds(self, task: str, arm: str, what: Callable[[Score], float] = lambda s: s.accuracy) -> dict[int, float]:
        """One number of every seed of an arm on a task; what is not known is left out."""
        found = {seed: what(score) for seed, score in self.table.get((task, arm), {}).items()}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}


def read_results(suite: Suite, store: Store) -> Results:
    """All that the store holds of the suite."""
    scores: list[Score] = []
    missing, failures, choices = [], [], []
    versions, machines, notes, runs = set(), set(), dict[str, None](), list[tuple[str, Run]]()
    for entry in entries(suite):
        failures += [Failure(trial, why) for trial in entry.trials if (why := store.failure(trial)) is not None]
        if (choice := choice_of(entry, store)) is not None:
            choices.append((entry, choice))
        cell = cell_of(entry, store)
        result = store.result(cell) if cell is not None else None
        if cell is None or result is None:
            missing.append(entry)
            if cell is not None and (why := store.failure(cell)) is not None:
                failures.append(Failure(cell, why))
            continue
        scores.extend(_scores(entry, result, several=len(suite.arms) > 1))
        is_control = entry.arm == suite.control
        runs.append((entry.task, as_run(result, entry.arm, control=is_control, file=store.file(cell))))
        versions.add(_line(result.get("versions")))
        machines.add(_line({k: v for k, v in (result.get("machine") or {}).items() if k != "threads"}))
        notes |= dict.fromkeys(_notes(entry, result))
    return Results(
        suite, tuple(scores), tuple(missing), tuple(failures), tuple(choices), tuple(sorted(versions)),
        tuple(sorted(machines)), tuple(notes), tuple(runs),
    )  # fmt: skip


def _line(about: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in (about or {}).items())


def _scores(entry: Entry, result: dict[str, Any], *, several: bool) -> Iterator[Score]:
    cost = result.get("cost") or {}
    memory = float(max((result.get("memory") or {"": NAN}).values()))
    if "repair" not in result:
        yield Score(
            entry.task, entry.arm, entry.seed, _number(result.get("test"), "last"),
            _number(result.get("suspicion"), "auroc"), _number(cost, "seconds"), _number(cost, "steps"),
            _number(cost, "samples"), memory,
        )  # fmt: skip
        return
    for trial in result["repair"]["trials"]:
        name = f"{entry.arm}: {trial['name']}" if several else str(trial["name"])
        accuracy = NAN if trial["accuracy"] is None else float(trial["accuracy"])
        seconds = float(trial["seconds"]) if trial["name"] != "before" else float(result["repair"]["training_seconds"])
        yield Score(entry.task, name, entry.seed, accuracy, seconds=seconds, memory=memory)


def _number(about: dict[str, Any] | None, name: str) -> float:
    value = (about or {}).get(name)
    return NAN if value is None else float(value)


def _notes(entry: Entry, result: dict[str, Any]) -> Iterator[str]:
    if (result.get("test") or {}).get("against") == "given":
        yield f"{entry.task}: test labels are as given, not verified; they may be wrong too."
    for note in (result.get("data") or {}).get("notes") or ():
        yield f"{entry.task}: {note}"
    for note in result.get("notes") or ():
        yield f"{entry.task}, {entry.arm}, seed {entry.seed}: {note}"
