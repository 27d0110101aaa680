"""Rows read from anywhere in a file: the system hears of all of them before the first is touched.

A memory map reads when a page is touched, one after the other, and 128 KB around each: for rows of 3 KB in random order
that is forty times too much, one request at a time. Announced (madvise) they are read side by side, and they alone.
Python's lock is free meanwhile, or a network that learns beside it would wait for the disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
import warnings
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

Place: TypeAlias = tuple[str, int, tuple[int, ...], tuple[int, ...], "np.dtype[np.generic]"]
"""Path, first byte, shape, strides in bytes, type."""


def place_in_file(values: np.ndarray) -> Place | None:
    """Where a memory-mapped array, or a view of one, lies in its file; None for any other."""
    whole = values
    while isinstance(whole, np.memmap) and isinstance(whole.base, np.ndarray):
        whole = whole.base
    if not isinstance(whole, np.memmap) or not whole.filename:
        return None
    start = whole.offset + values.ctypes.data - whole.ctypes.data
    return str(whole.filename), start, values.shape, values.strides, values.dtype


class ScatteredRows:
    """The rows of an array; of a mapped one through a second map, which does not read ahead."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = self._apart = values
        self._map: mmap.mmap | None = None
        self._tensor: torch.Tensor | None = None
        place, row = place_in_file(values), values[:1]
        if place is None or not hasattr(mmap, "MADV_RANDOM") or not len(values):
            return
        path, self._start, shape, strides, dtype = place
        self._stride, self._length = strides[0], row.nbytes
        if not row.flags.c_contiguous or (len(values) > 1 and self._stride < self._length):
            return  # a row is not one piece of the file
        try:
            with open(path, "rb") as file:
                again = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            again.madvise(mmap.MADV_RANDOM)
            apart = np.ndarray(shape, dtype, buffer=again, offset=self._start, strides=strides)
            with warnings.catch_warnings(action="ignore"):  # that it cannot be written to, which nobody will
                tensor = torch.from_numpy(apart)
        except (OSError, ValueError, TypeError):
            return  # the file is gone or cut, and only the old map still holds it
        if all(apart[i].tobytes() == values[i].tobytes() for i in (0, len(values) // 2, -1)):  # else it is another one
            self._map, self._apart, self._tensor = again, apart, tensor
            self._first = apart.ctypes.data - self._start

    def read(self, at: np.ndarray) -> np.ndarray:
        """The rows numbered `at`, which ascend: [B] -> [B, ...]."""
        found: np.ndarray
        if self._map is not None and len(at):
            starts, ends = self._pieces(at)
            if len(starts) == 1:  # there reading ahead is what one wants
                found = self.values[at]
                return found
            announce(self._map, self._first, starts, ends)
            if self._tensor is not None:  # torch lets go of Python's lock while it copies
                found = self._tensor.index_select(0, torch.from_numpy(at)).numpy()
                return found
        found = self._apart[at]
        return found

    def expect(self, at: np.ndarray) -> None:
        """Let the system read the rows numbered `at`, which ascend, while something else goes on."""
        if self._map is not None and len(at):
            announce(self._map, self._first, *self._pieces(at))

    def _pieces(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First bytes and ends of the pieces of the file that hold the rows; neighbours are one piece."""
        first = self._start + at.astype(np.int64) * self._stride
        begin, end = first // mmap.PAGESIZE * mmap.PAGESIZE, first + self._length
        apart = np.flatnonzero(begin[1:] > end[:-1])
        return begin[np.r_[0, apart + 1]], end[np.r_[apart, len(at) - 1]]


def announce(mapped: mmap.mmap, first: int, starts: np.ndarray, ends: np.ndarray) -> None:
    """Tell the system that these pieces of a map will be read: [n] first bytes and [n] ends, `first` is the address."""
    pieces = np.stack([starts + first, ends - starts], 1)
    for some in np.split(pieces, range(_AT_ONCE, len(pieces), _AT_ONCE)):
        if not _announce_all(some):
            for here, length in some.tolist():
                mapped.madvise(mmap.MADV_WILLNEED, here - first, length)


def _announce_all(pieces: np.ndarray) -> bool:
    """By one call for all of them (process_madvise, Linux 5.10 and later), without Python's lock."""
    handle = _handle(os.getpid())
    if handle < 0:
        return False
    table = np.ascontiguousarray(pieces, np.uint64)
    told = _SYSTEM.syscall(
        _PROCESS_MADVISE,
        ctypes.c_int(handle),
        ctypes.c_void_p(table.ctypes.data),
        ctypes.c_size_t(len(table)),
        ctypes.c_int(mmap.MADV_WILLNEED),
        ctypes.c_uint(0),
    )
    return bool(told >= 0)


@cache
def _handle(process: int) -> int:
    """A handle of this very process, which a fork of it has not; -1 where the system has none, or another call."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"):
        return -1
    try:
        return os.pidfd_open(process)
    except OSError:
        return -1


_PROCESS_MADVISE, _AT_ONCE = 440, 1024  # the call's number, and the most pieces that it takes
_SYSTEM: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
