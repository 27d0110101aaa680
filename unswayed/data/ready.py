"""Labels and numbers in files of their own: what an audit takes that somebody else made the evidence for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.data import arrays, files
from unswayed.data.features import FILES, read_arrays
from unswayed.data.labels import Labels, order_classes, read_labels
from unswayed.data.raw import Cells
from unswayed.data.store import cache_folder
from unswayed.errors import UnswayedError, suggest


def read_matrix(file: str | Path, what: str = "numbers", *, cache: str | Path | None = None) -> Tensor:
    """A file of numbers [N, d] (.npy, .npz, .safetensors, or a table); .npy files are mapped, not read.

    Raises UnswayedError where there is no such file, or it holds no numbers [N, d].
    """
    path = Path(file).expanduser()
    found = _mapped(path) if path.suffix.casefold() == ".npy" else _single(path, what, cache)
    array = np.asarray(found)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf":
        got = f"an array of {array.dtype} {list(array.shape)}"
        raise UnswayedError(f"{what} [N, d] in {path}", got=got, do="a row a sample")
    return torch.from_numpy(array)


def read_column(file: str | Path, column: str | None = None, *, cache: str | Path | None = None) -> Labels:
    """A file of one label a row (.npy, .npz, or the column of a table); missing ones and negative numbers are -1.

    Raises UnswayedError where there is no such file or column.
    """
    path = Path(file).expanduser()
    cells = _cells(path, column, cache)
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "if":
        cells = np.where(np.nan_to_num(cells, nan=-1) < 0, np.nan, cells)
    return read_labels(cells, column=column or path.name)


def number_classes(
    labels: Labels, width: int | None = None, names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as numbers of classes [N], -1 where missing, and the names of the classes: one a column of probabilities.

    `width` is the number of columns, `names` what they are called. Without names, labels that are whole numbers below
    `width` name their column; other labels name the columns in their order (by value where all are numbers, by spelling
    otherwise), and there have to be as many. Raises UnswayedError where labels and columns do not fit.

    >>> number_classes(Labels(("2", "1"), np.array([0, 1, -1])), 3)
    (tensor([ 2,  1, -1]), ('0', '1', '2'))
    >>> number_classes(Labels(("dog", "cat"), np.array([0, 1, 0])), 2)
    (tensor([1, 0, 1]), ('cat', 'dog'))
    """
    used = order_classes(labels.used())
    counted = tuple(map(str, range(width or 0)))
    if names is not None:
        classes = tuple(names)
    elif width is None or set(used) <= set(counted):
        classes = counted or used
    else:
        classes = used
    if len(used) == 0:
        raise UnswayedError("labels of two classes or more", got="no label at all: every one is missing")
    if strange := [name for name in used if name not in classes]:
        raise UnswayedError(f"labels among {', '.join(classes[:10])}", got=strange[0], do="check --classes")
    if width is not None and len(classes) != width:
        do = "name all classes in the order of the columns: --classes a,b,c"
        raise UnswayedError(f"probabilities of {len(classes)} classes", got=f"{width} columns", do=do)
    return torch.from_numpy(labels.encode(classes)), classes


def _cells(path: Path, column: str | None, cache: str | Path | None) -> Cells:
    end = path.suffix.casefold()
    if end == ".npy":
        return _mapped(path)
    if end not in files.TABLES:
        return np.asarray(_single(path, "labels", cache))
    _there(path, "labels")
    table = files.read_table([path], cache_folder(cache)).columns
    names = [name for name in table if name.casefold() in ("label", "labels", "given", "y", "target")]
    chosen = column or (next(iter(table)) if len(table) == 1 else names[0] if len(names) == 1 else None)
    if chosen is None or chosen not in table:
        do = suggest(column or "label", table, "name it with --label")
        raise UnswayedError(f"the column of labels in {path}, one of {', '.join(table)}", got=column or "none", do=do)
    return table[chosen]


def _single(path: Path, what: str, cache: str | Path | None) -> Any:
    _there(path, what)
    found = read_arrays(path, cache)
    if len(found) != 1:
        raise UnswayedError(f"a file with one array of {what}", got=f"{path} with {', '.join(found)}")
    return next(iter(found.values()))


def _there(path: Path, what: str) -> None:
    if not path.is_file():
        raise UnswayedError(f"a file of {what}", got=f"{str(path)!r}, which is not there", do="check the path")
    if path.suffix.casefold() not in FILES:
        raise UnswayedError(f"{what} in a file that ends in {', '.join(FILES)}", got=str(path), do="save them anew")


def _mapped(path: Path) -> np.ndarray:
    """The array of an .npy file: pages are read when looked at, and what is changed stays in memory."""
    _there(path, "numbers")
    arrays.load(path)  # it names what is wrong with a file
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
