"""The folder of a bench: one file a finished cell, one a failure, and a side folder while a cell runs."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unswayed.bench.grid import Cell
from unswayed.writing import explain, write_json


class Store:
    """Cells in a folder, which several suites and several processes may share.

    `cells/KEY.json` is a result, `failed/KEY.json` what went wrong, `running/KEY/` the checkpoint of a cell that runs
    or was stopped; files are written whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a finished cell; None where there is none, or none of this very cell."""
        found = _read(self.file(cell))
        return found if found is not None and found.get("cell") == cell.identity else None

    def file(self, cell: Cell) -> Path:
        """Where the result of a cell lies."""
        return self.folder / "cells" / f"{cell.key}.json"

    def done(self, cell: Cell) -> bool:
        """Whether the cell is finished."""
        return self.result(cell) is not None

    def begun(self, cell: Cell) -> bool:
        """Whether a checkpoint of it is there."""
        return (self.side(cell) / "checkpoint.safetensors").exists()

    def side(self, cell: Cell) -> Path:
        """The folder in which it runs."""
        return self.folder / "running" / cell.key

    def finish(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keep a result, and forget how it came about."""
        write_json(self.file(cell), {"cell": cell.identity, **result})
        shutil.rmtree(self.side(cell), ignore_errors=True)
        (self.folder / "failed" / f"{cell.key}.json").unlink(missing_ok=True)

    def fail(self, cell: Cell, why: str) -> None:
        """Note a failure. The next run tries again."""
        about = {"cell": cell.identity, "task": cell.task, "arm": cell.arm, "seed": cell.seed, "error": why}
        write_json(self.folder / "failed" / f"{cell.key}.json", about)

    def failure(self, cell: Cell) -> str | None:
        """What went wrong with a cell that is not finished."""
        found = _read(self.folder / "failed" / f"{cell.key}.json")
        return None if found is None or self.done(cell) else str(found.get("error", "unknown"))

    @contextlib.contextmanager
    def alone(self, cell: Cell) -> Iterator[bool]:
        """Keep other processes from the same cell; False where one works on it. The lock ends with its process."""
        place = self.folder / "running" / f"{cell.key}.lock"
        lock = FileLock(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise explain(error, place.parent) from error
        try:
            yield True
        finally:
            if self.done(cell):
                place.unlink(missing_ok=True)  # who waits for the old file looks for the result first
            lock.release()


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON mapping; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
