"""NumPy arrays, in files or in memory, as data sets."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unswayed.data.raw import Cells, Found, Raw, is_text, stamp
from unswayed.data.store import content_key
from unswayed.errors import UnswayedError

_SPLIT_WORDS = {
    "train": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
_LABEL_FILES = ("y", "labels", "label", "targets", "given")
_DAMAGED = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
INPUT_WORDS = ("x", "images", "features", "data", "inputs")

Array = np.ndarray | torch.Tensor | Sequence[Any]
"""What `from_arrays` takes as a column: an array, a tensor, or a list of numbers, texts or encoded bytes."""


def read_npz(file: Path) -> Found:
    """An .npz file of arrays called x, images, ... and y, labels, ..., some with train, test or val."""
    splits: dict[str, dict[str, Cells]] = {}
    with _opened(file) as arrays:
        for name in arrays.files:
            split, column = name_parts(name)
            splits.setdefault(split, {})[column] = _array(arrays, name, file)
    if not splits:
        raise UnswayedError("arrays in an .npz file", got=f"{file}, which has none")
    mark = stamp([file])
    return Found(
        file.stem,
        {name: Raw(columns, f"{file} ({name})", {}, mark, files=(file,)) for name, columns in splits.items()},
    )


def read_safetensors(file: Path) -> Found:
    """A .safetensors file of tensors, called like the arrays of an .npz file."""
    splits: dict[str, dict[str, Cells]] = {}
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UnswayedError(f"a safetensors file, {file}", got=error, do="save it anew") from error
    for name, tensor in tensors.items():
        split, column = name_parts(name)
        splits.setdefault(split, {})[column] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return Found(file.stem, {name: Raw(cells, f"{file} ({name})", {}, stamp([file])) for name, cells in splits.items()})


def read_npy(file: Path, label: str | None, truth: str | None = None) -> tuple[Found, str]:
    """An .npy file of features and one of labels: `label`, or the neighbour by name (y_train beside x_train).

    `truth` may be a third one, of true labels.
    """
    if label is not None and not label.casefold().endswith(".npy"):
        raise UnswayedError(f"a .npy file of labels for {file}", got=label, do="save the labels with numpy.save")
    found = Path(label) if label is not None else _neighbour(file)
    if found is not None and not found.exists():
        found = file.parent / found
    if found is None or not found.exists():
        names = ", ".join(f"{name}.npy" for name in _LABEL_FILES)
        raise UnswayedError(
            f"a file of labels beside {file} ({names})", got=found or "none", do="name it: label=FILE.npy (--label)"
        )
    column = name_parts(file.stem)[1]
    column = column if column.casefold() in INPUT_WORDS else "x"
    columns, mark = {column: load(file), "y": load(found)}, [file, found]
    if truth is not None:
        mark.append(Path(truth) if Path(truth).exists() else file.parent / truth)
        columns["truth"] = load(mark[-1])
    raw = Raw(columns, str(file), {}, stamp(mark), files=tuple(mark))
    return Found(file.stem, {name_parts(file.stem)[0]: raw}), "y"


def read_npy_folder(folder: Path) -> Found:
    """A folder of .npy files, each one array of an .npz file: x_train.npy, y_train.npy, x_test.npy, ..."""
    splits: dict[str, dict[str, Cells]] = {}
    for file in sorted(folder.glob("*.npy")):
        split, column = name_parts(file.stem)
        splits.setdefault(split, {})[column] = load(file)
    files = tuple(sorted(folder.glob("*.npy")))
    mark = stamp(files)
    return Found(
        folder.name,
        {name: Raw(columns, f"{folder} ({name})", {}, mark, files=files) for name, columns in splits.items()},
    )


def columns_of(x: Array | Mapping[str, Array], given: Array, truth: Array | None, where: str) -> Raw:
    """Arrays in memory as columns: x (or the columns of a mapping), given and truth."""
    inputs = {str(name): _cells(cells) for name, cells in x.items()} if isinstance(x, Mapping) else {"x": _cells(x)}
    if taken := {"given", "truth"} & set(inputs):
        raise UnswayedError("input columns that are not called given or truth", got=", ".join(sorted(taken)))
    columns: dict[str, Cells] = {**inputs, "given": _cells(given)}
    if truth is not None:
        columns["truth"] = _cells(truth)
    encoded = [cell for cells in inputs.values() if not isinstance(cells, np.ndarray) for cell in cells]
    return Raw(
        columns, where, stamp=content_key(*(np.frombuffer(c, np.uint8) for c in encoded if isinstance(c, bytes)))
    )


def _cells(values: Array) -> Cells:
    if isinstance(values, torch.Tensor):
        return np.asarray(values.detach().cpu().numpy())
    if isinstance(values, np.ndarray) or (len(values) and (is_text(values) or isinstance(values[0], bytes))):
        return values
    if any(value is None for value in values):
        return list(values)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UnswayedError("rows of one shape", got=error) from error


def _opened(file: Path) -> Any:
    try:
        if not zipfile.is_zipfile(file):  # told by us, since NumPy would leave the file open
            raise zipfile.BadZipFile("a file that is cut off or no .npz file")
        return np.load(file, allow_pickle=False)
    except _DAMAGED as error:
        raise _unreadable(file, error) from error


def _array(arrays: Any, name: str, file: Path) -> np.ndarray:
    try:
        return np.asarray(arrays[name])
    except _DAMAGED as error:
        raise _unreadable(f"{file} ({name})", error) from error


def load(file: Path) -> np.ndarray:
    """The array of an .npy file, mapped into memory; Python objects raise."""
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        return array
    except _DAMAGED as error:
        raise _unreadable(file, error) from error


def _unreadable(file: object, error: Exception) -> UnswayedError:
    objects = "allow_pickle" in str(error) or "pickle" in str(error)
    do = "save numbers or texts, not Python objects: these could run any code" if objects else "save it anew"
    return UnswayedError(f"a NumPy file of plain arrays, {file}", got="Python objects" if objects else error, do=do)


def name_parts(name: str) -> tuple[str, str]:
    """The split and the column that a name like x_train or test_images speaks of.

    >>> name_parts("x_train"), name_parts("test_images"), name_parts("labels")
    (('train', 'x'), ('test', 'images'), ('train', 'labels'))
    """
    words = re.split(r"[_\-. ]+", name)
    split = next((_SPLIT_WORDS[word.casefold()] for word in words if word.casefold() in _SPLIT_WORDS), "train")
    rest = "_".join(word for word in words if word.casefold() not in _SPLIT_WORDS)
    return split, rest or name


def _neighbour(file: Path) -> Path | None:
    """The label file that belongs to a feature file by name: y_train.npy to X_train.npy."""
    for word in INPUT_WORDS:
        for label in _LABEL_FILES:
            name = re.sub(rf"(?i)(?<![a-z]){word}(?![a-z])", label, file.name)
            if name != file.name and (file.parent / name).exists():
                return file.parent / name
    return None
