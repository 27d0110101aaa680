"""Evidence of any form -> checked tensors: labels, probabilities, features, row numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unswayed.data.labels import order_classes, read_labels
from unswayed.errors import UnswayedError
from unswayed.stats.predictions import as_array

SUM = 1e-2  # how far a row of probabilities may be from one
ENTRIES = 2**20  # probabilities looked at at a time: 4 MiB


class Given(NamedTuple):
    """Labels as numbers, and what they are called."""

    labels: Tensor  # [N] int64, -1 where missing
    classes: tuple[str, ...]


def number_labels(labels: Any, *, classes: Sequence[str] | None = None, columns: int | None = None) -> Given:
    """Labels of any form, [N], as numbers 0..K-1 and K names.

    Missing are None, NaN, blank strings and negative numbers. Whole numbers are places in `classes`, or among the
    `columns` of given probabilities; where neither fits, as with 1..K or with gaps, the different values in order are
    the classes. Strings are sorted, numbers by value. Raises UnswayedError for other numbers of classes than columns,
    for unknown names, and for fewer than two classes.

    >>> number_labels(["b", "a", None, "b"])
    Given(labels=tensor([ 1,  0, -1,  1]), classes=('a', 'b'))
    >>> number_labels([1, 2, 3, 1], columns=3).labels.tolist()
    [0, 1, 2, 0]
    """
    values = _array(labels)
    if classes is not None and len(set(classes)) < len(classes):
        raise UnswayedError("different names for different classes", got=", ".join(map(str, classes)))
    names = None if classes is None else tuple(str(name) for name in classes)
    if columns is not None and names is not None and len(names) != columns:
        do = "give the probabilities of all classes, in the order of their names"
        raise UnswayedError(f"a column of probabilities for each of {len(names)} classes", got=columns, do=do)
    found = _whole_numbers(values, len(names) if names else columns)
    if found is None:
        found, names = _named(values, names)
    names = names or tuple(map(str, range(columns or 0)))
    if columns is not None and len(names) != columns:
        got = f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        do = "name all classes in the order of the columns: classes=[...] (--classes a,b,c)"
        if len(names) > columns:
            do = "give a column of probabilities for every class that labels name"
        raise UnswayedError(f"labels of {columns} classes, as there are columns of probabilities", got=got, do=do)
    used = np.unique(found[found >= 0])
    if len(used) < 2:
        got = f"only {names[used[0]]!r}" if len(used) else "none: every label is missing"
        raise UnswayedError("labels of two classes or more", got=got, do="an audit compares classes with each other")
    return Given(torch.from_numpy(found), names)


def _array(labels: Any) -> np.ndarray:
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    elif hasattr(labels, "to_numpy"):
        labels = labels.to_numpy()  # columns of data frames
    if not isinstance(labels, np.ndarray):
        cells = np.empty(len(labels), dtype=object)
        cells[:] = list(labels)
        labels = cells
        if len(cells) and all(cell is None or _is_number(cell) for cell in cells):
            whole = all(isinstance(cell, int | np.integer) for cell in cells)
            labels = cells.astype(np.int64 if whole else np.float64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        do = "rows with a single 1 become labels by argmax(1); labels of several annotators go to annotators="
        do = do if labels.ndim == 2 else "give one label a row"
        raise UnswayedError("labels [N], one a row", got=f"an array {list(labels.shape)}", do=do)
    found: np.ndarray = labels
    return found


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float | np.integer | np.floating) and not isinstance(cell, bool)


def _whole_numbers(values: np.ndarray, count: int | None) -> np.ndarray | None:
    """Places among `count` classes, or None where they cannot be that."""
    if values.dtype.kind not in "iuf" or count is None:
        return None
    gone = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    known = values[~gone]
    if np.isinf(known).any() or (known != np.round(known)).any() or (len(known) and known.max() >= count):
        return None
    places = np.full(len(values), -1, dtype=np.int64)
    places[~gone] = np.maximum(known, -1).astype(np.int64)
    return places


def _named(values: np.ndarray, classes: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    if values.dtype.kind in "if":  # negative ones are missing here, whatever they are called
        values = np.where(values < 0, np.nan, values.astype(np.float64))
    column = read_labels(values)
    if classes is None:
        ordered = order_classes(column.used())
        return column.encode(ordered), ordered
    if unknown := sorted(column.used() - set(classes)):
        got = ", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise UnswayedError(f"labels among the classes {', '.join(map(repr, classes[:10]))}", got=got)
    return column.encode(classes), classes


def columns(probs: Any) -> int:
    """How many classes probabilities [N, K] have; raises UnswayedError for anything else."""
    shape = tuple(getattr(probs, "shape", None) or np.asarray(probs).shape)
    if len(shape) != 2:
        raise UnswayedError("probs [N, K], a column a class", got=f"an array {list(shape)}")
    return int(shape[1])


def check_annotators(annotators: Any, rows: int, classes: tuple[str, ...]) -> Tensor:
    """Labels of several annotators as numbers of classes, [N, A] int64 with -1 where one gave none."""
    values = annotators.detach().cpu().numpy() if isinstance(annotators, Tensor) else annotators
    values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if values.ndim != 2 or len(values) != rows or not values.shape[1]:
        raise UnswayedError(f"labels of annotators [{rows}, A]", got=f"an array {list(values.shape)}")
    made = []
    for column in values.T:
        found = _whole_numbers(column, len(classes))
        made.append(_named(column, classes)[0] if found is None else found)
    return torch.from_numpy(np.stack(made, 1))


class Probs:
    """Out-of-fold probabilities [N, K], in memory or in a mapped file, which is never read as a whole.

    Raises UnswayedError for another shape, NaN, negative entries, and rows further than .01 from a sum of one.

    >>> Probs([[0.5, 0.5], [1.0, 0.0]], 2).at(slice(1, 2))
    tensor([[1., 0.]])
    """

    def __init__(self, probs: Any, rows: int) -> None:
        self._values = _numbers(probs, rows, "probs")
        if self._values.shape[1] < 2:
            do = "give [1 - p, p] for two classes"
            raise UnswayedError("probs of two classes or more", got="one column", do=do)
        self._check()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def classes(self) -> int:
        """K."""
        return int(self._values.shape[1])

    def at(self, places: Tensor | slice) -> Tensor:
        """Those rows as float32 [n, K], scaled to sum to exactly one."""
        part = self._read(places)
        return part / part.sum(1, keepdim=True)

    def _read(self, places: Tensor | slice) -> Tensor:
        part = self._values[places if isinstance(places, slice) else places.numpy()]
        return torch.from_numpy(np.array(part, dtype=np.float32))

    def _check(self) -> None:
        odd = {"not finite": 0, "negative": 0, "sums": 0}
        size = max(1, ENTRIES // self.classes)
        for start in range(0, len(self), size):
            part = self._read(slice(start, start + size))
            sums = part.sum(1)
            wrong = ~((sums - 1).abs() <= SUM)  # true for NaN as well
            if not bool(wrong.any()) and float(part.amin()) >= 0:
                continue
            bad = ~part.isfinite().all(1)
            odd["not finite"] += int(bad.sum())
            odd["negative"] += int(((part < 0).any(1) & ~bad).sum())
            odd["sums"] += int((wrong & ~bad).sum())
        if bad_rows := odd["not finite"]:
            do = "drop these rows, or make their predictions anew"
            raise UnswayedError("finite numbers in probs", got=f"NaN or infinity in {_rows(bad_rows)}", do=do)
        if bad_rows := odd["negative"]:
            got = f"negative ones in {_rows(bad_rows)}"
            raise UnswayedError("probs of 0 or more", got=got, do="pass logits.softmax(1)")
        if bad_rows := odd["sums"]:
            do = "pass logits.softmax(1), or divide each row by its sum"
            raise UnswayedError(
                "probs whose rows sum to one",
                got=f"{_rows(bad_rows)} that {'does' if bad_rows == 1 else 'do'} not",
                do=do,
            )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def check_features(features: Any, rows: int) -> Tensor:
    """Features as float32 [N, d]; pictures and the like are flattened.

    Raises UnswayedError for NaN and other shapes.
    """
    if getattr(features, "ndim", 2) > 2:
        features = features.reshape(features.shape[0], -1)
    found = torch.from_numpy(_numbers(features, rows, "features").astype(np.float32))
    if bad := int((~found.isfinite()).any(1).sum()):
        do = "fill them, or drop these rows"
        raise UnswayedError("finite numbers in features", got=f"NaN or infinity in {_rows(bad)}", do=do)
    return found


def _numbers(values: Any, rows: int, what: str) -> np.ndarray:
    """A view of numbers [N, d] where there is one."""
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    array: np.ndarray = as_array(values)
    if array.dtype.kind not in "biuf":
        raise UnswayedError(f"numbers in {what}", got=f"an array of {array.dtype}")
    if array.ndim != 2 or not array.shape[1]:
        raise UnswayedError(f"{what} [N, ...] with a row a label", got=f"an array {list(array.shape)}")
    if len(array) != rows:
        do = "give them in the order of the labels, also for rows whose label is missing"
        raise UnswayedError(f"a row of {what} for each of {rows:,} labels", got=f"{len(array):,}", do=do)
    return array


def check_rows(rows: Any, count: int) -> Tensor:
    """Row numbers of the user's source, [N] int64, each once; 0..N-1 where none are given."""
    if rows is None:
        return torch.arange(count)
    found = torch.as_tensor(np.asarray(rows))
    if found.shape != (count,) or found.is_floating_point():
        raise UnswayedError(f"a whole number for each of {count} rows", got=f"{found.dtype} {list(found.shape)}")
    values, times = torch.unique(found, return_counts=True)
    if bool((times > 1).any()):
        twice = values[times > 1]
        got = f"{len(twice)} that occur more than once, e.g. {int(twice[0])}"
        raise UnswayedError("a different row number for each row", got=got, do="leave rows= out to number them anew")
    return found.long()
