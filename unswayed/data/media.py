"""Encoded pictures and sounds: bytes or files, read in bounded memory, the unreadable ones listed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from unswayed.data.columns import ArrayColumn, Column, TensorColumn
from unswayed.data.raw import Cells
from unswayed.data.store import Job, Prepared
from unswayed.errors import UnswayedError

T = TypeVar("T")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au", ".opus")
_HEADS = {
    "image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6"),
    "audio": (b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"),
}
_GROUP = 64  # items a thread takes at once: small pictures cost less than handing them over one by one
_LISTED = 20


class UnreadableError(Exception):
    """One picture or sound that cannot be used, and why."""


@dataclass(frozen=True)
class Made:
    """The rows of one split: a column of those that could be read, and which of the cells these were."""

    column: Column
    kept: np.ndarray  # [M] int64: numbers of the cells behind the rows of the column
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Read(Generic[T]):
    """A group of neighbours, read: item `start + i` is `values[i]`, None where `bad` says why it could not be read."""

    start: int
    values: list[T | None]
    bad: Mapping[int, str]


def read_all(work: Callable[[Any], T], items: Cells, what: str, job: Job) -> Iterator[Read[T]]:
    """Apply `work` to all items, in order, by threads, a few hundred at a time; exceptions become reasons in `bad`."""

    def group(start: int) -> Read[T]:
        values: list[T | None] = []
        bad: dict[int, str] = {}
        for number in range(start, min(start + _GROUP, len(items))):
            try:
                values.append(work(items[number]))
            except Exception as error:  # decoders raise anything at all on damaged files
                values.append(None)
                bad[number] = str(error).split("\n")[0][:200] or type(error).__name__
        return Read(start, values, bad)

    workers = min(8, os.cpu_count() or 1)
    stride = _GROUP * workers * 2
    job.progress(what, 0, len(items))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as threads:
        for start in range(0, len(items), stride):
            stop = min(start + stride, len(items))
            yield from threads.map(group, range(start, stop, _GROUP))
            job.progress(what, stop, len(items))


def keep_readable(prepared: Prepared, items: Cells, what: str, job: Job) -> Made:
    """The rows that could be read, in memory or mapped; a note of the others, or an error where `job.strict`."""
    bad = {int(number): reason for number, reason in prepared.notes.get("bad", {}).items()}
    kept = np.setdiff1d(np.arange(len(items)), np.fromiter(bad, dtype=np.int64, count=len(bad)))
    if bad:
        listed = "; ".join(f"{call(items[i], i)}: {bad[i]}" for i in sorted(bad)[:_LISTED])
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        trouble = f"{len(bad)} of {len(items)} {what} cannot be read ({listed}{more})"
        if job.strict or not len(kept):
            do = "repair or remove them" + (
                ", or leave out strict (--strict) to go on without them" if job.strict else ""
            )
            raise UnswayedError(f"{what} that can be read", got=trouble, do=do)
    column = column_of(prepared.rows)
    if bad:
        return Made(column.take(_tensor(kept)), kept, (f"{trouble}: left out",))
    return Made(column, kept)


def column_of(rows: np.ndarray) -> Column:
    """A column over rows in memory or memory-mapped ones."""
    return ArrayColumn(rows) if isinstance(rows, np.memmap) else TensorColumn(_tensor(rows))


def call(item: object, number: int) -> str:
    """How to name an item to a person: by its file, else by its row."""
    return item if isinstance(item, str) else f"row {number}"


def opened(item: object) -> io.BytesIO | str:
    """What a decoder can open: the bytes of an item, or its file."""
    if isinstance(item, bytes):
        return io.BytesIO(item)
    if isinstance(item, str):
        if not os.path.exists(item):
            raise UnreadableError("no such file")
        return item
    raise UnreadableError("nothing there")


def content(item: object) -> bytes:
    """The encoded bytes of an item."""
    return item if isinstance(item, bytes) else Path(str(item)).read_bytes()


class Contents(Sequence[bytes]):
    """The encoded bytes of items, read from their files when asked for."""

    def __init__(self, items: Cells) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: Any) -> Any:
        return Contents(self.items[i]) if isinstance(i, slice) else content(self.items[i])


def sort_of(cells: Cells) -> str | None:
    """ "image" or "audio" where the first cells look like it, by their first bytes or the ends of file names.

    Of texts most must be such names: one that ends in ".jpg" by chance makes no column of pictures.
    """
    named: list[str | None] = []
    for i in range(min(len(cells), 20)):
        cell = cells[i]
        if isinstance(cell, bytes):
            if cell[:4] == b"RIFF":
                return "image" if cell[8:12] == b"WEBP" else "audio"
            for kind, heads in _HEADS.items():
                if cell.startswith(heads):
                    return kind
        elif isinstance(cell, str) and cell:
            ends = {"image": PICTURES, "audio": SOUNDS}
            named.append(next((kind for kind, end in ends.items() if cell.lower().endswith(end)), None))
    return next((kind for kind in ("image", "audio") if 2 * named.count(kind) > len(named)), None)


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))
