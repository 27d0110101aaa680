"""Given labels and predicted probabilities, from memory or from a file: checked, and read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.errors import UnswayedError

RUNS, RUN = 64, 16  # rows looked at where not all are
GATHERED = 2**13  # single probabilities gathered at a time
CHUNK = 2**18  # probabilities read at a time: 1 MiB of float32, which a processor's cache holds
ROW_BITS = 40  # of a sorting key: the rest is the label

Array = np.ndarray[Any, Any]
Rows = Tensor | Array
"""Numbers of N rows: a tensor on any device, an array, or a memory-mapped array."""


class Predictions:
    """Labels `[N]` and probabilities `[N, K]`: nothing is copied but a chunk of rows at a time.

    Half and single precision are read as float32, double as float64. Raises UnswayedError for shapes and labels that
    do not fit; and while reading, for a row that is no distribution (to 1e-2 in its sum and 1e-6 below zero, as half
    precision rounds).

    >>> Predictions(np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]])).own().tolist()
    [0.9, 0.6]
    """

    def __init__(self, labels: Rows, probs: Rows) -> None:
        self.probs = as_array(probs)
        if self.probs.ndim != 2 or 0 in self.probs.shape or self.probs.dtype.kind != "f":
            got = f"{self.probs.dtype} of shape {list(self.probs.shape)}"
            raise UnswayedError("probabilities are floating point of shape [N, K]", got=got)
        self.dtype = np.dtype(np.float64 if self.probs.dtype.itemsize > 4 else np.float32)
        do = "give probabilities for every class, in the order of the labels' numbers"
        self.labels = check_labels(labels, len(self.probs), self.classes, do)

    def __len__(self) -> int:
        return len(self.probs)

    @property
    def classes(self) -> int:
        """K."""
        return int(self.probs.shape[1])

    def chunks(self) -> Iterator[tuple[slice, Array, Array]]:
        """Where these rows are, their probabilities `[n, K]` (not to be written to), and their labels `[n]` int64."""
        size = max(1, CHUNK // self.classes)
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            block = self.probs[rows].astype(self.dtype, copy=False)
            self._check(block, start)
            yield rows, block, self.labels[rows].astype(np.int64, copy=False)

    def check(self) -> None:
        """Read everything, and raise UnswayedError where a row is no distribution."""
        for _ in self.chunks():
            pass

    def sample(self) -> None:
        """Read 1,024 rows, in 64 runs drawn from all, and raise UnswayedError where one is no distribution."""
        if len(self) <= RUNS * RUN:
            self.check()
            return
        for start in np.random.default_rng(0).choice(len(self) - RUN + 1, RUNS, replace=False).tolist():
            self._check(self.probs[start : start + RUN].astype(self.dtype, copy=False), start)

    def own(self) -> Array:
        """The probability of each row's given label, as it is: `[N]`; nothing else is read."""
        found = np.empty(len(self), dtype=self.dtype)
        for start in range(0, len(self), GATHERED):
            y = self.labels[start : start + GATHERED]
            found[start : start + len(y)] = self.probs[start : start + len(y)][np.arange(len(y)), y]
        return found

    def at(self, rows: Array, classes: Array) -> Array:
        """The probabilities of some classes in some rows: `[n]`, `[k]` -> `[k, n]`."""
        return self.probs[rows[None, :], classes[:, None]].astype(self.dtype, copy=False)

    def _check(self, block: Array, start: int) -> None:
        with np.errstate(all="ignore"):  # what is not finite is told of in words
            # A product is four times as fast for short rows, a sum a little faster for long ones.
            sums = block @ np.ones(self.classes, self.dtype) if self.classes < 64 else block.sum(1)
            if block.min() >= -1e-6 and np.abs(sums - 1).max() <= 1e-2:  # false for NaN as well
                return
            bad = ~((block >= -1e-6).all(1) & np.isfinite(block).all(1))
            if bad.any():
                first = start + int(bad.argmax())
                got = f"a negative or non-finite one in row {first}"
                raise UnswayedError("probabilities are at least 0", got=got, do="pass a softmax")
            first = int((~(np.abs(sums - 1) <= 1e-2)).argmax())
            got = f"row {start + first}, which sums to {float(sums[first]):.4g}"
            raise UnswayedError("each row of probabilities sums to one", got=got, do="pass a softmax")


class Groups:
    """The rows of every label, in their order, by one sort in place: 8 bytes a row.

    >>> groups = Groups(np.array([1, 0, 1]), classes=2)
    >>> groups.rows(1).tolist(), groups.sizes.tolist()
    ([0, 2], [1, 2])
    """

    def __init__(self, labels: Array, classes: int) -> None:
        self._keys = np.empty(len(labels), dtype=np.int64)
        for start in range(0, len(labels), CHUNK // 4):
            part = labels[start : start + CHUNK // 4].astype(np.int64)
            self._keys[start : start + len(part)] = (part << ROW_BITS) + np.arange(start, start + len(part))
        self._keys.sort()
        self._ends = np.searchsorted(self._keys, np.arange(classes + 1, dtype=np.int64) << ROW_BITS)

    @property
    def sizes(self) -> Array:
        """How many rows have each label: `[K]`."""
        return np.diff(self._ends)

    def rows(self, label: int) -> Array:
        """The numbers of the rows with this label, ascending: `[n]` int64."""
        keys = self._keys[self._ends[label] : self._ends[label + 1]]
        return keys & ((1 << ROW_BITS) - 1)


def as_array(values: Any) -> Array:
    """A view in NumPy where there is one; a copy of what lies on another device or in a type that NumPy lacks."""
    if isinstance(values, Tensor):
        values = values.detach()
        values = values.float() if values.dtype == torch.bfloat16 else values
        return np.asarray(values.cpu().numpy())
    return np.asarray(values)


NUMBER = "number the classes: names, labels = numpy.unique(labels, return_inverse=True)"


def check_labels(labels: Rows, rows: int, classes: int, do: str = NUMBER) -> Array:
    """Labels as an array of integers 0..K-1, one a row; raises UnswayedError, with `do` where they are larger."""
    y = as_array(labels)
    if y.shape != (rows,) or y.dtype.kind not in "iu":
        do = NUMBER if y.dtype.kind not in "iu" else "give one label a row"
        raise UnswayedError(f"labels are integers of shape [{rows}]", got=f"{y.dtype} of shape {list(y.shape)}", do=do)
    low, high = int(y.min()), int(y.max())
    if low < 0:
        got = f"{low} in {int((y < 0).sum())} rows"
        raise UnswayedError(f"labels are in 0..{classes - 1}", got=got, do="leave rows without a label out")
    if high >= classes:
        if low == 1 and high == classes:
            do = "subtract 1: these labels count from 1"
        raise UnswayedError(f"labels are in 0..{classes - 1}", got=f"{low}..{high}", do=do)
    return y
