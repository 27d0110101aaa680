"""Rows read from anywhere in a file: the system hears of all of them before the first is touched.

A memory map reads when a page is touched, one after the other, and 128 KB around each: for rows of 3 KB in random order
that is forty times too much, one request at a time. Announced (madvise) they are read side by side, and they alone.
"""

from __future__ import annotations

import mmap
from typing import TypeAlias

import numpy as np

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
        except (OSError, ValueError, TypeError):
            return  # the file is gone or cut, and only the old map still holds it
        if all(apart[i].tobytes() == values[i].tobytes() for i in (0, len(values) // 2, -1)):  # else it is another one
            self._map, self._apart = again, apart

    def read(self, at: np.ndarray) -> np.ndarray:
        """The rows numbered `at`, which ascend: [B] -> [B, ...]."""
        found: np.ndarray
        if self._map is not None and len(at):
            first = self._start + at.astype(np.int64) * self._stride
            begin, end = first // mmap.PAGESIZE * mmap.PAGESIZE, first + self._length
            apart = np.flatnonzero(begin[1:] > end[:-1])  # neighbours are read in one piece
            if not len(apart):  # one piece: there reading ahead is what one wants
                found = self.values[at]
                return found
            starts, ends = begin[np.r_[0, apart + 1]], end[np.r_[apart, len(at) - 1]]
            for here, there in zip(starts.tolist(), ends.tolist(), strict=True):
                self._map.madvise(mmap.MADV_WILLNEED, here, there - here)
        found = self._apart[at]
        return found
