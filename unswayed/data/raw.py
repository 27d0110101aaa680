"""Rows as their source holds them: columns by name, nothing interpreted yet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unswayed.data.dataset import Chosen
from unswayed.errors import UnswayedError, suggest

Cells = np.ndarray | Sequence[Any]
"""One column: an array, or a sequence of strings, of encoded bytes, or of absolute file paths."""


def choose(cells: Cells, at: np.ndarray) -> Cells:
    """The cells numbered `at`; those of arrays are copied, all others looked up when asked for."""
    if len(at) == len(cells) and (at == np.arange(len(cells))).all():
        return cells
    return cells[at] if isinstance(cells, np.ndarray) else Chosen(cells, torch.from_numpy(at))


@dataclass(frozen=True)
class Raw:
    """One split of a source: equally long columns by name, and where they came from."""

    columns: Mapping[str, Cells]
    where: str  # for messages: the file or set that a person knows
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # class names that the source declares
    stamp: str = ""  # differs whenever the content may differ; empty: do not cache what is made of it
    folder: Path | None = None  # file names in the columns are relative to it
    at: np.ndarray | None = None  # [N] the rows' numbers in the source, where some were left out
    whole: int | None = None  # and how many rows the source has then
    files: tuple[Path, ...] = ()  # the tables or arrays that hold the rows, one after the other

    def __post_init__(self) -> None:
        lengths = {name: len(cells) for name, cells in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise UnswayedError(f"columns of one length in {self.where}", got=lengths)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def column(self, name: str, role: str) -> Cells:
        """The column called `name`; an unknown name raises and tells the nearest ones."""
        if name not in self.columns:
            do = suggest(name, self.columns, f"choose the {role} column from these")
            raise UnswayedError(
                f"the {role} column is one of {', '.join(self.columns)} in {self.where}", got=repr(name), do=do
            )
        return self.columns[name]

    def choose(self, at: np.ndarray) -> Raw:
        """The rows numbered `at`, in that order."""
        columns = {name: choose(cells, at) for name, cells in self.columns.items()}
        return replace(self, columns=columns, at=self.numbers()[at], whole=self.count())

    def count(self) -> int:
        """How many rows the source has, with those that were left out."""
        return len(self) if self.whole is None else self.whole

    def numbers(self) -> np.ndarray:
        """The rows' numbers in the source: [N] int64."""
        return np.arange(len(self)) if self.at is None else self.at


@dataclass(frozen=True)
class Found:
    """What a source holds: splits by name, and the columns that it would use where the user names none."""

    name: str
    splits: Mapping[str, Raw]
    notes: tuple[str, ...] = ()
    label: str | None = None
    truth: str | None = None


def stamp(files: Iterable[str | Path], *more: object) -> str:
    """A fingerprint of files by path, size and time of change, and of what else matters."""
    digest = hashlib.blake2b(repr(more).encode(), digest_size=16)
    for file in files:
        try:
            status = os.stat(file)
            known = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:
            known = "missing"
        digest.update(f"{os.path.abspath(file)}\0{known}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def is_text(cells: Cells) -> bool:
    """Whether the cells are strings (the first one that is not missing decides)."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind != "O":
        return cells.dtype.kind == "U"
    return isinstance(first(cells), str)


def first(cells: Cells) -> Any:
    """The first cell that is not missing, or None; looks at a thousand cells at most."""
    return next((cells[i] for i in range(min(len(cells), 1000)) if cells[i] is not None), None)
