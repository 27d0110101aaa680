"""Columns: rows of one kind that the training loop asks for by number, wherever they lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.data.scattered import ScatteredRows, place_in_file
from unswayed.errors import UnswayedError

BLOCK_BYTES = 2**20  # a disk reads a megabyte at nearly its full speed


def send(values: Tensor, device: torch.device) -> Tensor:
    """The same numbers on `device`, without waiting for it: to a GPU by way of pinned memory."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


class Column(ABC):
    """Rows that the loop asks for by number; every row has the same `shape` and `dtype`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    in_memory: bool = False
    device: torch.device = torch.device("cpu")  # where numbers of rows are best given
    block: int = 1  # neighbours that are best read in one piece

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, at: Tensor) -> Tensor:
        """The rows numbered `at`: [B] -> [B, *shape]."""

    def take(self, at: Tensor) -> Column:
        """A column of the rows `at`, in that order, without a copy of their contents."""
        return Selection(self, at)

    def expect(self, at: Tensor) -> None:  # noqa: B027 most columns have nothing to do
        """The rows numbered `at` will be asked for soon: a column may begin to read them."""

    def to(self, device: torch.device) -> Column:
        """The column where `device` can use it best; columns outside memory stay where they are."""
        return self


class TensorColumn(Column):
    """Rows in memory, as one tensor; moves to the device once."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape, self.dtype, self.in_memory = values, tuple(values.shape[1:]), values.dtype, True
        self.device = values.device

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, at: Tensor) -> Tensor:
        """The rows numbered `at`: [B] -> [B, *shape]."""
        return self.values.index_select(0, at.to(self.device))  # on a processor a tenth of the time of values[at]

    def to(self, device: torch.device) -> Column:
        """The same rows on `device`."""
        return TensorColumn(self.values.to(device))


class ArrayColumn(Column):
    """Rows of a NumPy array, typically memory-mapped: only the rows asked for are read, all of them at once."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, tuple(values.shape[1:])
        self.dtype = torch.from_numpy(np.empty(0, values.dtype)).dtype
        self.block = max(1, BLOCK_BYTES // max(1, values[:1].nbytes))
        self._scattered: ScatteredRows | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes the place in the file, not the contents: the mapped array may be a view of it."""
        place = place_in_file(self.values)
        return (ArrayColumn, (self.values,)) if place is None else (_reopen, place)

    def rows(self, at: Tensor) -> Tensor:
        """The rows numbered `at`, read in the order of the file: [B] -> [B, *shape]."""
        order = at.cpu().argsort()
        read = np.ascontiguousarray(self._file().read(at.cpu()[order].numpy()))
        return torch.from_numpy(read)[order.argsort()]

    def expect(self, at: Tensor) -> None:
        """Have the system read the rows numbered `at`, neighbours in one piece, while others are looked at."""
        self._file().expect(at.cpu().sort().values.numpy())

    def _file(self) -> ScatteredRows:
        if self._scattered is None:
            self._scattered = ScatteredRows(self.values)
        return self._scattered


def _reopen(
    path: str, start: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]
) -> ArrayColumn:
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    return ArrayColumn(np.ndarray(shape, dtype, buffer=mapped, offset=start, strides=strides))


class EncodedColumn(Column):
    """Rows kept encoded (image files, bytes) and decoded by threads when asked for."""

    def __init__(self, items: Sequence[object], decode: Callable[[object], Tensor], *, workers: int = 4) -> None:
        if not len(items):
            raise UnswayedError("at least one encoded row", got="none", do="check that the folder or file holds data")
        first = decode(items[0])
        self.items, self.decode, self.shape, self.dtype = items, decode, tuple(first.shape), first.dtype
        self._workers, self._threads = workers, ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __reduce__(self) -> tuple[Any, ...]:
        """Threads do not travel to another process; it starts its own."""
        return partial(EncodedColumn, workers=self._workers), (self.items, self.decode)

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, at: Tensor) -> Tensor:
        """The rows numbered `at`, decoded side by side: [B] -> [B, *shape]."""
        return torch.stack(list(self._threads.map(lambda i: self.decode(self.items[i]), at.tolist())))


class Selection(Column):
    """Some rows of another column, by number; nothing is copied."""

    def __init__(self, source: Column, at: Tensor) -> None:
        self.source, self.at, self.shape, self.dtype = source, at, source.shape, source.dtype
        self.in_memory, self.device, self.block = source.in_memory, at.device, source.block

    def __len__(self) -> int:
        return len(self.at)

    def rows(self, at: Tensor) -> Tensor:
        """The rows numbered `at` of this selection: [B] -> [B, *shape]."""
        return self.source.rows(self.at[at.to(self.at.device)])

    def expect(self, at: Tensor) -> None:
        """The rows numbered `at` of this selection will be asked for soon."""
        self.source.expect(self.at[at.to(self.at.device)])

    def take(self, at: Tensor) -> Column:
        """A selection of this selection, one step deep."""
        return Selection(self.source, self.at[at.to(self.at.device)])

    def to(self, device: torch.device) -> Column:
        """The same selection of the moved source."""
        return Selection(self.source.to(device), self.at.to(device))
