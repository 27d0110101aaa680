"""What a person sees while data are read and runs are under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from unswayed import methods
from unswayed.data.dataset import Kind
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.pool import Cell, News


def _progress(console: Console, *, disable: bool = False) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Outside a terminal a bar that moves and vanishes leaves nothing but empty lines.
    return Progress(*columns, console=console, transient=True, disable=disable or not console.is_terminal)


@contextmanager
def reading(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for the reader: call it with what is done, how much of it, and of how much."""
    with _progress(console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show


class Board:
    """One bar over all epochs of all runs, and a line for every finished run."""

    def __init__(self, console: Console, cells: Sequence[Cell], kind: Kind, *, enabled: bool = True) -> None:
        self.console, self.cells, self.enabled = console, cells, enabled
        self.expected = [_epochs(cell, kind) for cell in cells]
        self.done = [0] * len(cells)
        self.last = ["fitted"] * len(cells)  # what a method without epochs has to tell
        self.progress = _progress(console, disable=not enabled)

    def __enter__(self) -> Board:
        self.progress.start()
        self.task = self.progress.add_task("training", total=sum(self.expected))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, news: News) -> None:
        """Take note of an epoch or of the end of a run."""
        cell, record = self.cells[news.cell], news.record
        if record is None:
            self.done[news.cell] = self.expected[news.cell]
            if self.enabled:
                line = f"  {cell.config.arm}, seed {cell.config.seed}: {self.last[news.cell]}"
                self.console.print(line, highlight=False, markup=False)
        else:
            self.done[news.cell] = min(record.epoch + 1, self.expected[news.cell])
            test = record.scores.get("test_accuracy")
            accuracy = "" if test is None else f", test {test:.3f}"
            self.last[news.cell] = f"loss {record.loss:.3f}{accuracy}"
        about = f"{cell.config.arm}, seed {cell.config.seed}: {self.last[news.cell]}"
        self.progress.update(self.task, completed=sum(self.done), description=about.replace("[", r"\["))


def _epochs(cell: Cell, kind: Kind) -> int:
    epochs = cell.config.training(kind).epochs
    return round(epochs * max(1.0, methods.get(parse_arm(cell.config.arm).method).budget))
