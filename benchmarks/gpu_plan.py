"""What a GPU is to train, in order of worth, and how cells stop in time and are kept in one file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from unswayed import methods
from unswayed.bench import Cell, News, Store, Suite, entries, read_suite
from unswayed.bench.running import Work, run_cells
from unswayed.engine import Record
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.workers import Tell
from unswayed.writing import write_text


@dataclass(frozen=True)
class Part:
    """Some cells of a suite."""

    suite: str
    tasks: tuple[str, ...] = ()  # patterns; none: all
    arms: tuple[str, ...] = ()
    seeds: int | None = None


# First a cross-section of every protocol with one seed, then the suites as they are.
MASKS = tuple(
    f"{base}{head}"
    for base in ("plain", "gce", "nce+rce")
    for head in ("", " edge-masked", " edge-masked(score=random)")
)
PLAN = (
    Part(
        "anl-cifar10",
        ("symmetric-40", "symmetric-80", "asymmetric-40"),
        ("plain", "tuned", "gce", "nce+rce", "anl-ce"),
        1,
    ),
    Part("sem", ("symmetric-40", "human-worst"), ("tuned", *MASKS), 1),
    Part("dividemix-cifar", ("symmetric-50",), ("plain", "tuned", "dividemix"), 1),
    Part("ido", ("scratch-*",), ("plain", "tuned", "ido", "elr"), 1),
    Part("sem", ("symmetric-40", "human-worst"), ("tuned", *MASKS), 5),
    Part("anl-cifar10"),
    Part("sem"),
    Part("ido", ("scratch-*",)),
    Part("dividemix-cifar"),
    Part("anl-cifar100"),
    Part("ido"),
)

# For an estimate before anything has run: operations (10^9) of a picture's forward and backward pass, epochs of plain
# that a method costs (results/methods_cost.json, rounded), the share of a bf16 product's rate that a loop may reach,
# and the seconds that the launches of a step take whatever its size.
BODIES = {"cnn8": 0.80, "resnet18": 3.33, "resnet34": 6.95, "preact-resnet18": 3.33}
EPOCHS_OF_PLAIN = {
    "dividemix": 6.7,
    "dividemix-lccn": 7.0,
    "co-teaching": 2.0,
    "ido": 1.7,
    "unicon": 8.0,
    "promix": 5.0,
    "tuned": 2.6,
}
RATE, SHARE, LAUNCHES = 790e12, 0.2, 2e-3
ROWS = 50_000


def cells_of(plan: Sequence[Part]) -> list[Cell]:
    """Every cell of the plan once, in its order."""
    found: dict[str, Cell] = {}
    for part in plan:
        suite: Suite = read_suite(part.suite, tasks=part.tasks, arms=part.arms, seeds=part.seeds)
        for entry in entries(suite):
            found.setdefault(entry.options[0].key, entry.options[0])
    return list(found.values())


def there(cell: Cell, root: Path) -> bool:
    """Whether the data of a cell lie under `root`, or need none."""
    where = cell.config.data
    return "{root}" not in where or Path(where.rpartition(":")[2].replace("{root}", str(root))).exists()


def expect(cells: Sequence[Cell], store: Store) -> dict[str, tuple[float, str]]:
    """Seconds of each cell by its key, and whence: from finished cells of the same arm or task, or a guess."""
    same: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        if (result := store.result(cell)) is not None:
            same.setdefault((cell.task, cell.arm), []).append(float(result["wall_seconds"]))
    found = {}
    for cell in cells:
        known = same.get((cell.task, cell.arm))
        found[cell.key] = (fmean(known), "measured") if known else (guess(cell), "guess")
    return found


def guess(cell: Cell) -> float:
    """Seconds of a cell on one H200, from operations and launches."""
    config, arm = cell.config, parse_arm(cell.config.arm)
    passes = EPOCHS_OF_PLAIN.get(arm.method, methods.get(arm.method).budget)
    epochs, batch, rows = config.epochs or 30, config.batch or 128, min(config.limit or ROWS, ROWS)
    arithmetic = rows * 1e9 * BODIES.get(arm.body or "", 0.1) / (RATE * SHARE)
    return 10 + epochs * passes * (arithmetic + LAUNCHES * rows / batch)


# ------------------------------------------------------------------------------------------------ the file


class Kept:
    """Finished cells in one file, a line each, beside the folder in which they run."""

    def __init__(self, file: Path, store: Store) -> None:
        self.file, self.store = file, store

    def unpack(self) -> int:
        """Put the cells of the file into the folder; how many these are."""
        found = self._read()
        for key, result in found.items():
            target = self.store.folder / "cells" / f"{key}.json"
            if not target.exists():
                write_text(target, json.dumps(result))
        return len(found)

    def keep(self, cell: Cell) -> None:
        """Add a finished cell to what is there already; the file is written whole or not at all."""
        found = {**self._read(), cell.key: self.store.result(cell)}
        lines = (json.dumps({"key": key, "result": result}, separators=(",", ":")) for key, result in found.items())
        write_text(self.file, "".join(f"{line}\n" for line in lines))

    def _read(self) -> dict[str, Any]:
        """Results by key; a line that was cut off is left out."""
        found = {}
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else ():
            with contextlib.suppress(ValueError, KeyError):
                read = json.loads(line)
                found[read["key"]] = read["result"]
        return found


# ------------------------------------------------------------------------------------------------ running


@dataclass(frozen=True)
class Timely(Work):
    """Runs a cell in a worker if it can be done by `until` (seconds since 1970); else it leaves it, or stops it.

    A cell that is stopped has its checkpoint and goes on from there, if the folder is kept.
    """

    until: float
    expected: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, cell: Cell, tell: Tell) -> None:
        """Run the cell, unless it is finished, in other hands, or too long."""
        try:
            super().__call__(cell, tell)
        except KeyboardInterrupt:
            if time.time() < self.until:  # somebody else asked to stop
                raise
            tell(News(cell, "stopped", "saved in the midst"))

    def holds_back(self, cell: Cell) -> str | None:
        """A cell that cannot end in time is not begun."""
        late = time.time() + self.expected.get(cell.key, 0.0) > self.until
        return "too long for what is left of the time" if late else None

    def look(self, record: Record) -> None:
        """Ask the loop to save and to leave when the time is over."""
        if time.time() > self.until:
            os.kill(os.getpid(), signal.SIGTERM)


def train(cells: Sequence[Cell], kept: Kept, work: Timely, say: Any = print) -> dict[str, int]:
    """Run what is not finished, `work.how.jobs` at a time; every finished cell is kept at once. How many of what."""
    counts = dict.fromkeys(("done", "stopped", "failed", "taken"), 0)

    def listen(news: News) -> None:
        if news.what not in counts:
            return
        if news.what == "done":
            kept.keep(news.cell)
        counts[news.what] += 1
        last = (news.words.strip().splitlines() or [""])[-1]
        say(f"{news.what}: {news.cell.task}, {news.cell.arm}, seed {news.cell.seed} {last}", flush=True)

    run_cells(cells, kept.store, work.how, listen, work)
    return counts
