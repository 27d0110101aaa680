"""Labels and numbers in files of their own: what an audit takes that somebody else made the evidence for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.data import arrays, files
from unswayed.data.features import FILES, read_arrays
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


def read_column(file: str | Path, column: str | None = None, *, cache: str | Path | None = None) -> Cells:
    """A file of one label a row (.npy, .npz, .safetensors, or the column of a table), as the file holds them.

    Raises UnswayedError where there is no such file or column.
    """
    path = Path(file).expanduser()
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
