"""What a cell stands on: data read once a process, wrong labels or corrupted inputs, and for trials no test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unswayed.batches import seed_of
from unswayed.bench.grid import Cell
from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset
from unswayed.errors import UnswayedError
from unswayed.experiment.config import Config
from unswayed.experiment.task import Task, hold_out, make_task, read_data
from unswayed.noise.inputs import spoil_inputs

ROOT = "{root}"
KEPT = 3  # data sets in memory
Progress = Callable[[str, int, int], None]
"""What is being done, how much of it, out of how much."""
_kept: dict[str, Dataset] = {}
_TRIAL, _INPUTS = 6, 7  # what a seed is used for (0 to 5: the task and the run)


def read_once(config: Config, root: Path | None, progress: Progress | None = None) -> Dataset:
    """The data of a cell; those of the last few cells of this process are still there."""
    asked = {
        "data": _placed(config.data, root),
        "reader": config.reader,
        "encoder": config.encoder,
        "features": [_placed(file, root) for file in config.features],
    }
    name = json.dumps(asked, sort_keys=True)
    if name not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[name] = read_data(Config(**json.loads(name)), progress)
    return _kept[name]


def check_root(cells: Iterable[Cell], root: Path | None) -> None:
    """Raise where cells ask for a folder of data sets that is not given: once, rather than cell by cell."""
    for cell in cells:
        for path in (cell.config.data, *cell.config.features):
            _placed(path, root)


def _placed(path: str, root: Path | None) -> str:
    if ROOT not in path:
        return path
    if root is None:
        do = "give --root, the folder that holds the data sets (or set UNSWAYED_DATA), or choose other --tasks"
        raise UnswayedError(f"the folder of {path}", got="none", do=do)
    return path.replace(ROOT, str(root))


def make_ground(cell: Cell, dataset: Dataset) -> tuple[Task, Tensor | None]:
    """The task of a cell, and where inputs are corrupted which rows are, [N] bool.

    For a trial of tuning the training rows fall in two: the second part, with its given labels, takes the place of the
    test rows. Neither test rows nor true labels are there any more, so no choice can hang on them.
    """
    task = make_task(cell.config, dataset)
    bad: Tensor | None = None
    if share := cell.more.get("corrupted"):
        rows, generator = task.train, torch.Generator().manual_seed(seed_of(cell.seed, _INPUTS))
        whole = rows.x.rows(torch.arange(len(rows)))
        x, at = spoil_inputs(whole, share, strength=cell.more["strength"], generator=generator)
        bad = torch.zeros(len(rows), dtype=torch.bool)
        bad[at] = True
        train = replace(rows, x=TensorColumn(x))
        task = replace(task, train=train, dataset=replace(task.dataset, train=train))
    held = cell.more.get("hold_out_given")
    return (task, bad) if held is None else (_validate(task, held, cell.seed), None)


def _validate(task: Task, share: float, seed: int) -> Task:
    blind = replace(task.train, truth=None)
    rest, held = hold_out(blind, share, seed_of(seed, _TRIAL))
    trusted = torch.isin(rest.rows, task.train.rows[task.trusted]).nonzero()[:, 0]
    dataset = replace(task.dataset, train=rest, test=held)
    return Task(dataset, rest, held, "given", task.noise, trusted)
