"""What is still to be computed, in seconds: from cells that are done, else from a step measured on this machine."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from unswayed.experiment.automatic import settle
from unswayed.experiment.config import Config
from unswayed.experiment.run import build, train
from unswayed.experiment.task import Task, make_task
from unswayed.machine import Place, find_place
from unswayed.method import Method
from unswayed.prediction import predict

SAME, MEASURED, PLAIN, UNKNOWN = (
    "other seeds of this arm on this task",
    "short runs of the method on a few batches, by steps and rows",
    "short runs of plain training, by steps (methods of several networks or views take more)",
    "not known",
)
BATCHES, MOST_BATCHES, EPOCHS = 4, 32, 3  # of a short run: enough for a warm-up and what follows it
MOMENT = 0.2  # seconds
PATIENCE = 40.0  # seconds for all short runs: methods that come later are taken for plain training


@dataclass(frozen=True)
class Estimate:
    """Seconds of a cell (NaN where unknown), and where they come from."""

    seconds: float
    how: str


@dataclass(frozen=True)
class Pace:
    """What short runs show: seconds to begin, a step of an epoch (of every network and view), and a row looked at."""

    begin: float
    step: float
    row: float
    how: str


def estimate(
    cells: Sequence[Cell], finished: Iterable[Cell], store: Store, root: Path | None, device: str = "auto"
) -> dict[str, Estimate]:
    """By key, what each of `cells` will cost; `finished` are cells of the grid whose seconds are known."""
    same: dict[tuple[str, str], list[float]] = {}
    for cell in finished:
        seconds = float((store.result(cell) or {}).get("wall_seconds", math.nan))
        if math.isfinite(seconds):
            same.setdefault((cell.task, cell.arm), []).append(seconds)
    known: dict[tuple[Any, ...], Pace] = {}
    until, found = time.monotonic() + PATIENCE, dict[str, Estimate]()
    for cell in cells:
        if (cell.task, cell.arm) in same:
            found[cell.key] = Estimate(fmean(same[cell.task, cell.arm]), SAME)
        else:
            found[cell.key] = _measured(cell, root, device, known, until)
    return found


def _measured(cell: Cell, root: Path | None, device: str, known: dict[tuple[Any, ...], Pace], until: float) -> Estimate:
    config, arm = cell.config, parse_arm(cell.config.arm)
    try:
        dataset = read_once(config, root)
        rows = _rows(cell, dataset)
        settings = config.training(dataset.kind, rows)
        body = arm.body or config.encoder, repr(arm.settings.get("body"))
        parts = (config.data, repr(config.reader), *body, settings.batch, arm.head, config.precision, config.compile)
        own = (*parts, arm.method)
        if own not in known and time.monotonic() < until:
            with contextlib.suppress(Exception):  # a few batches may be too few for it
                known[own] = pace(cell, dataset, device)
        if own not in known and parts not in known:
            known[parts] = pace(cell, dataset, device, plain=True)
    except (UnswayedError, OSError) as error:
        return Estimate(math.nan, f"{UNKNOWN}: {error}")
    found = known.get(own) or known[parts]
    epochs = settings.epochs + _repair_epochs(cell, settings.epochs)
    looks = rows + (settings.epochs + 1) * (0 if dataset.test is None else len(dataset.test))
    budget = methods.get(arm.method).budget if found.how == PLAIN else 1.0
    steps = math.ceil(rows / settings.batch) * epochs
    return Estimate(found.begin + budget * found.step * steps + found.row * looks, found.how)


def _repair_epochs(cell: Cell, epochs: int) -> float:
    """Epochs of repair: in eight ways with the controls, and of training anew on the clean part."""
    asked = cell.more.get("repair")
    if asked is None:
        return 0.0
    controls = asked.get("controls", True)
    return float(asked.get("epochs", 30) * (8 if controls else 2) + (epochs if controls else 0))


def _rows(cell: Cell, dataset: Dataset) -> int:
    kept = 1 - (cell.config.hold_out if dataset.test is None else 0)
    rows = min(kept * len(dataset.train), cell.config.limit or math.inf)
    return round(rows * (1 - float(cell.more.get("hold_out_given", 0))))


def pace(cell: Cell, dataset: Dataset, device: str = "auto", *, plain: bool = False) -> Pace:
    """Short runs of the cell's method (or of plain training): a longer less a shorter one is the pace.

    On four batches, or up to 32 where those are gone in a moment, for what an epoch costs beside its steps would count
    too much; the shorter of two runs counts. The machine is taken to be free.
    """
    task, chosen = _few(cell, dataset, BATCHES)
    place = find_place(device, chosen.precision, compile=chosen.compile)
    arm = parse_arm(chosen.arm)
    if plain:
        parts = {part: given for part, given in arm.settings.items() if part in ("head", "body")}
        arm = replace(arm, method="plain", loss=None, settings=parts)

    trained: list[Method] = []

    def run(epochs: int) -> None:
        trained.append(build(chosen, arm, task))
        train(replace(chosen, epochs=epochs), trained[-1], task, place)

    run(1)  # warms up
    if _seconds(lambda: run(1), place) < MOMENT:
        task, _ = _few(cell, dataset, MOST_BATCHES)
    short, long = (min(_seconds(partial(run, epochs), place) for _ in range(2)) for epochs in (1, EPOCHS))
    look = min(_seconds(lambda: predict(trained[-1], task.train.x, place=place), place) for _ in range(3))
    a_row = look / len(task.train)
    an_epoch = max(long - short, 0.1 * long) / (EPOCHS - 1)
    steps = math.ceil(len(task.train) / chosen.training(dataset.kind, len(task.train)).batch)
    return Pace(max(0.0, short - an_epoch), an_epoch / steps, a_row, PLAIN if plain else MEASURED)


def _seconds(do: Callable[[], object], place: Place) -> float:
    """How long it takes; on a CPU without the turns of other programs."""
    start, spent = time.perf_counter(), time.process_time()
    do()
    wall, own = time.perf_counter() - start, time.process_time() - spent
    return min(wall, own) if place.device.type == "cpu" else wall


def _few(cell: Cell, dataset: Dataset, batches: int) -> tuple[Task, Config]:
    """The cell's task on a few batches of rows, without test rows, and its configuration, "auto" settled."""
    batch = cell.config.training(dataset.kind, _rows(cell, dataset)).batch
    changes: dict[str, Any] = {"imbalance": None, "trusted": None, "analyse": False}
    few = replace(cell.config, **changes, limit=batches * batch, batch=batch)
    task = replace(make_task(few, dataset), test=None)
    return task, settle(few, task)[0]
