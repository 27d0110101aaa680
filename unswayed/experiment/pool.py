"""Many runs, several at once: each in a process of its own with its share of the cores, on data kept once in memory."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unswayed.data.dataset import Dataset
from unswayed.engine import Record, Watcher
from unswayed.errors import UnswayedError
from unswayed.experiment.config import Config
from unswayed.experiment.run import run
from unswayed.experiment.workers import work_side_by_side
from unswayed.machine import is_first
from unswayed.watchers import MetricsFile, TensorBoard
from unswayed.writing import explain


@dataclass(frozen=True)
class Cell:
    """A run and the folder of its files."""

    config: Config
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the folder holds the result of this very configuration."""
        stored = _stored_config(self.folder)
        return stored is not None and stored == json.loads(json.dumps(self.config.as_json()))


@dataclass(frozen=True)
class News:
    """What a cell tells while it runs: an epoch's record, or with `record` None that it is done."""

    cell: int
    record: Record | None


Listener = Callable[[News], None]


def make_cells(configs: Sequence[Config], out: Path) -> list[Cell]:
    """One folder a run: `out`/arm/seed-0."""
    return [Cell(config, out / slug(config.arm) / f"seed-{config.seed}") for config in configs]


def slug(text: str) -> str:
    """A text as a folder's name.

    >>> slug("gce edge-masked(keep=.1, score=obd)")
    'gce_edge-masked_keep=.1_score=obd'
    """
    return re.sub(r"[^\w.=+-]+", "_", text).strip("_")


def _stored_config(folder: Path) -> Any:
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError):
        return None


def claim(cells: Sequence[Cell], *, resume: bool, fresh: bool) -> list[Cell]:
    """The cells that are still to run; folders taken by other runs raise, unless `fresh` will empty them.

    A cell that is finished is never run again, but with `fresh`; one that was stopped goes on with `resume`.
    """
    todo = list(cells) if fresh else [cell for cell in cells if not cell.finished]
    for cell in todo:
        if cell.folder.exists() and is_first():  # else `torchrun`'s first process sees to it
            with alone(cell.folder):
                pass
        if fresh:
            continue
        if (cell.folder / "result.json").exists():
            do = "choose another --out, or --fresh to start anew"
            raise UnswayedError("a folder without another run", got=f"a finished run in {cell.folder}", do=do)
        if (cell.folder / "checkpoint.safetensors").exists() and not resume:
            do = "go on with --resume, or start anew with --fresh"
            raise UnswayedError("a folder without a stopped run", got=f"one in {cell.folder}", do=do)
    return todo


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from working in the same folder; the lock goes with the process, however that ends."""
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        do = "wait for it, or choose another --out"
        raise UnswayedError("a folder in which no run is under way", got=f"one in {folder}", do=do) from error
    except OSError as error:
        raise explain(error, folder.parent) from error
    try:
        yield
    finally:
        lock.release()


def run_cells(
    cells: Sequence[Cell],
    dataset: Dataset,
    *,
    jobs: int = 1,
    resume: bool = False,
    fresh: bool = False,
    tensorboard: bool = False,
    save_seconds: float = 30.0,
    listen: Listener = lambda news: None,
) -> None:
    """Run all cells on `dataset`, `jobs` at a time; the first error stops them, and finished cells stay finished.

    `fresh` empties their folders first.
    """
    how: dict[str, Any] = {"resume": resume and not fresh, "save_seconds": save_seconds, "tensorboard": tensorboard}
    work = functools.partial(_run_cell, dataset=dataset, how=how)
    with contextlib.ExitStack() as held:
        for cell in cells if is_first() else ():
            held.enter_context(alone(cell.folder))
            if fresh:
                shutil.rmtree(cell.folder, ignore_errors=True)
        if jobs > 1 and len(cells) > 1:
            work_side_by_side(work, list(enumerate(cells)), jobs, listen)
            return
        for numbered in enumerate(cells):
            work(numbered, listen)


def _run_cell(numbered: tuple[int, Cell], listen: Listener, *, dataset: Dataset, how: dict[str, Any]) -> None:
    number, cell = numbered
    watch: list[Watcher] = [MetricsFile(cell.folder / "metrics.jsonl"), lambda record: listen(News(number, record))]
    if how["tensorboard"]:
        watch.append(TensorBoard(cell.folder / "tensorboard"))
    keep = {name: how[name] for name in ("resume", "save_seconds")}
    run(cell.config, dataset=dataset, folder=cell.folder, watch=watch, **keep)
    listen(News(number, None))
