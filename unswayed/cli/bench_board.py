"""What a person sees while cells are under way."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from unswayed.bench.running import News

_MARKS = {"done": "", "failed": "[bold red]failed[/] ", "stopped": "[yellow]stopped[/] ", "taken": "elsewhere "}


class Board:
    """One bar over all cells, and a line for every cell that ends."""

    def __init__(self, console: Console, cells: int, done: int) -> None:
        self.console, self.cells, self.done = console, cells, done
        self.under_way: dict[str, float] = {}
        self.read: set[tuple[str, str]] = set()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def __enter__(self) -> Board:
        self.bar.start()
        self.task = self.bar.add_task("cells", total=self.cells, completed=self.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, news: News) -> None:
        """Take note of what becomes of a cell."""
        cell = news.cell
        if news.what == "reading":
            if (cell.task, news.words) not in self.read:  # it may take minutes, and is done once
                self.read.add((cell.task, news.words))
                self.console.print(f"  {escape(f'{cell.task}: {news.words}')} ...", highlight=False, style="dim")
            self.bar.update(self.task, description=f"{news.words} {100 * news.done:.0f} %")
            return
        self.bar.update(self.task, description="cells")
        if news.what == "epoch":
            self.under_way[cell.key] = news.done
        else:
            self.under_way.pop(cell.key, None)
            self.done += 1
            trial = "" if cell.trial is None else f", setting {cell.trial + 1}"
            last = (news.words.strip().splitlines() or [""])[-1]
            line = f"{_MARKS[news.what]}{escape(f'{cell.task}, {cell.arm}, seed {cell.seed}{trial}: {last}')}"
            self.console.print(f"  {self.done}/{self.cells} {line}", highlight=False, soft_wrap=True)
        self.bar.update(self.task, completed=self.done + sum(self.under_way.values()))
