"""What is still to be computed, in seconds: from cells that are done, else from a step measured on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from unswayed import methods
from unswayed.bench.grid import Cell
from unswayed.bench.ground import read_once
from unswayed.bench.store import Store
from unswayed.data.dataset import Dataset
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.run import build, train
from unswayed.experiment.task import make_task
from unswayed.machine import find_place

SAME, SIMILAR, MEASURED, UNKNOWN = (
    "other seeds of this arm on this task",
    "other arms on this task (methods of several networks or views differ)",
    "a measured step of plain training x steps (methods of several networks or views take more)",
    "not known",
)


@dataclass(frozen=True)
class Estimate:
    """Seconds of a cell (NaN where unknown), and where they come from."""

    seconds: float
    how: str


def estimate(
    cells: Sequence[Cell], finished: Iterable[Cell], store: Store, root: Path | None, device: str = "auto"
) -> dict[str, Estimate]:
    """By key, what each of `cells` will cost; `finished` are cells of the grid whose seconds are known."""
    same: dict[tuple[str, str], list[float]] = {}
    similar: dict[str, list[float]] = {}
    for cell in finished:
        seconds = float((store.result(cell) or {}).get("wall_seconds", math.nan))
        if math.isfinite(seconds):
            same.setdefault((cell.task, cell.arm), []).append(seconds)
            similar.setdefault(cell.task, []).append(seconds)
    measured: dict[tuple[Any, ...], float | str] = {}
    found = {}
    for cell in cells:
        if (cell.task, cell.arm) in same:
            found[cell.key] = Estimate(fmean(same[cell.task, cell.arm]), SAME)
        elif cell.task in similar:
            found[cell.key] = Estimate(fmean(similar[cell.task]), SIMILAR)
        else:
            found[cell.key] = _measured(cell, root, device, measured)
    return found


def _measured(cell: Cell, root: Path | None, device: str, known: dict[tuple[Any, ...], float | str]) -> Estimate:
    config, arm = cell.config, parse_arm(cell.config.arm)
    parts = (config.data, repr(config.reader), config.encoder, config.batch, arm.body, arm.head, config.precision)
    try:
        dataset = read_once(config, root)
        rows = _rows(cell, dataset)
        if parts not in known:
            known[parts] = seconds_a_step(cell, dataset, device)
        seconds = known[parts]
    except (UnswayedError, OSError) as error:
        return Estimate(math.nan, f"{UNKNOWN}: {error}")
    assert isinstance(seconds, float)
    settings = config.training(dataset.kind, rows)
    steps = math.ceil(rows / settings.batch) * settings.epochs * methods.get(arm.method).budget
    return Estimate(seconds * steps, MEASURED)


def _rows(cell: Cell, dataset: Dataset) -> int:
    kept = 1 - (cell.config.hold_out if dataset.test is None else 0)
    rows = min(kept * len(dataset.train), cell.config.limit or math.inf)
    return round(rows * (1 - float(cell.more.get("hold_out_given", 0))))


def seconds_a_step(cell: Cell, dataset: Dataset, device: str = "auto") -> float:
    """Seconds of a step of plain training of the cell's network, with augmentation: the second of two short epochs."""
    batch = cell.config.training(dataset.kind, _rows(cell, dataset)).batch
    changes: dict[str, Any] = {
        "noise": None,
        "rate": 0.0,
        "imbalance": None,
        "trusted": None,
        "limit": 2 * batch,
        "batch": batch,
    }
    few = replace(cell.config, **changes, epochs=2)
    task, place = make_task(few, dataset), find_place(device, few.precision, compile=few.compile)
    arm = parse_arm(few.arm)
    parts = {part: given for part, given in arm.settings.items() if part in ("head", "body")}
    method = build(few, replace(arm, method="plain", loss=None, settings=parts), task)
    outcome = train(few, method, replace(task, test=None), place)
    return outcome.records[-1].seconds / (outcome.steps / 2)
