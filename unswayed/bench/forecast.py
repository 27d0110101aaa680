"""What a run of a suite would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unswayed.bench.grid import Cell, entries
from unswayed.bench.running import cell_of
from unswayed.bench.store import Store
from unswayed.bench.suite import Suite

State = Literal["done", "begun", "failed before", "to do", "after its trials"]


@dataclass(frozen=True)
class Line:
    """A cell, and how it stands."""

    cell: Cell
    state: State


def forecast(suite: Suite, store: Store) -> list[Line]:
    """Every cell once, in the order in which they run; a cell that trials will choose is shown with the first setting.

    Two entries may ask for the same cell; it is there once.
    """
    lines: dict[str, Line] = {}
    for entry in entries(suite):
        for trial in entry.trials:
            lines.setdefault(trial.key, Line(trial, _state(trial, store)))
        chosen = cell_of(entry, store)
        cell = chosen or entry.options[0]
        lines.setdefault(cell.key, Line(cell, "after its trials" if chosen is None else _state(cell, store)))
    return sorted(lines.values(), key=lambda line: line.cell.trial is None)


def _state(cell: Cell, store: Store) -> State:
    if store.done(cell):
        return "done"
    if store.failure(cell) is not None:
        return "failed before"
    return "begun" if store.begun(cell) else "to do"
