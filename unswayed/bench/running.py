"""All cells of a suite: in processes of their own, each loss alone, nothing that is finished run twice.

Cells are handed to workers on this machine, or placed elsewhere (`placing`): all that it takes is to call `Work` with
each cell on a machine that sees the same folder, for locks and files do the rest.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unswayed.bench.grid import Cell, Entry, entries
from unswayed.bench.store import Store
from unswayed.bench.suite import Suite
from unswayed.bench.tuning import Choice, choose
from unswayed.bench.work import run_cell
from unswayed.engine import Record
from unswayed.errors import UnswayedError
from unswayed.experiment.workers import LostWorkerError, Tell, work_side_by_side


@dataclass(frozen=True)
class News:
    """What becomes of a cell: data are read, an epoch is over, it ended somehow, or another process works on it."""

    cell: Cell
    what: Literal["reading", "epoch", "done", "failed", "stopped", "taken"]
    words: str = ""
    done: float = 0.0  # share of its epochs, or of what is read


Listener = Callable[[News], None]


@dataclass(frozen=True)
class How:
    """How cells are run: nothing that decides a result."""

    jobs: int = 1
    root: Path | None = None
    device: str = "auto"
    save_seconds: float = 30.0
    on: str = "local"  # or "joblib", "ray", "slurm"
    on_settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a worker does with a cell; it can be sent to any process that sees the folder."""

    folder: Path
    how: How

    def __call__(self, cell: Cell, tell: Tell) -> None:
        """Run the cell, unless it is finished or in other hands."""
        store = Store(self.folder)
        with store.alone(cell) as mine:
            if not mine:
                tell(News(cell, "taken"))
                return
            if not store.done(cell):
                how = self.how
                if (why := self.holds_back(cell)) is not None:
                    tell(News(cell, "stopped", why))
                    return

                def watch(record: Record) -> None:
                    tell(News(cell, "epoch", done=(record.epoch + 1) / max(1, record.epochs)))
                    self.look(record)

                def read(what: str, done: int, total: int) -> None:
                    tell(News(cell, "reading", what, done / max(1, total)))

                result = run_cell(
                    cell,
                    root=how.root,
                    side=store.side(cell),
                    device=how.device,
                    save_seconds=how.save_seconds,
                    watch=[watch],
                    progress=read,
                )
                store.finish(cell, result)
            tell(News(cell, "done", in_words(store.result(cell) or {})))

    def holds_back(self, cell: Cell) -> str | None:
        """Why the cell should not be begun now; None: begin. For a child that has only so much time, say."""
        return None

    def look(self, record: Record) -> None:
        """Called after every epoch; a child may ask the loop to stop (SIGTERM), which then saves and leaves."""


def in_words(result: dict[str, Any]) -> str:
    """A line about a result: accuracy and seconds."""
    test = result.get("test") or {}
    scored = f"{100 * test['last']:.1f} %" if "last" in test else "no test rows"
    against = " of held-out given labels" if result.get("trial") is not None else ""
    return f"{scored}{against}, {result.get('cost', {}).get('seconds', 0):.1f} s"


def run_suite(suite: Suite, store: Store, how: How, listen: Listener = lambda news: None) -> None:
    """Run what is not finished: trials first, then what they chose. Failures are noted in the store, and no more."""
    grid = list(entries(suite))
    run_cells([cell for entry in grid for cell in (entry.trials or entry.options)], store, how, listen)
    if suite.tune is not None:
        run_cells([cell for entry in grid if (cell := cell_of(entry, store)) is not None], store, how, listen)


def cell_of(entry: Entry, store: Store) -> Cell | None:
    """The cell that stands for an entry; None as long as its trials are not all done."""
    if not entry.trials:
        return entry.options[0]
    choice = choice_of(entry, store)
    return None if choice is None else entry.options[choice.index]


def choice_of(entry: Entry, store: Store) -> Choice | None:
    """What tuning chose for an entry; None without tuning, or before all trials are done."""
    results = [store.result(cell) for cell in entry.trials]
    return choose([result["test"]["last"] for result in results if result]) if results and all(results) else None


def run_cells(cells: Sequence[Cell], store: Store, how: How, listen: Listener, work: Work | None = None) -> None:
    """Run the cells that are not finished, each of them once, by `work` (None: the ordinary one)."""
    todo = list({cell.key: cell for cell in cells if not store.done(cell)}.values())
    work = work or Work(store.folder, how)

    def lose(cell: Cell, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):  # asked to stop, which is no fault of its own
            listen(News(cell, "stopped", "stopped from outside; it goes on from its checkpoint"))
            return
        why = said_of(error)
        store.fail(cell, why)
        listen(News(cell, "failed", why))

    def hear(cell: Cell, said: News | BaseException) -> None:
        listen(said) if isinstance(said, News) else lose(cell, said)

    if how.on != "local" and todo:
        from unswayed.bench.placing import place_cells

        place_cells(how.on, work, todo, how.jobs, how.on_settings, hear)
        return
    if how.jobs > 1 and len(todo) > 1:
        work_side_by_side(work, todo, how.jobs, listen, survive=lose)
        return
    for cell in todo:
        try:
            work(cell, listen)
        except Exception as error:
            lose(cell, error)


def said_of(error: BaseException) -> str:
    """What to keep of an error: a user's message as it is, a program's with its place."""
    if isinstance(error, LostWorkerError):
        return f"its worker was lost: {error.how}"
    if isinstance(error, UnswayedError) or error.__traceback__ is None:
        return str(error)
    return "".join(traceback.format_exception(error))
