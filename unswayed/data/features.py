"""Ready-made features as the rows of a data set, in place of those that its reader made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from unswayed.data import arrays, files
from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset, Preview, Split
from unswayed.data.raw import Raw
from unswayed.data.show import preview
from unswayed.data.store import cache_folder
from unswayed.data.tables import numbers
from unswayed.errors import UnswayedError

Part = Literal["train", "test"]
Features = str | Path | arrays.Array | tuple[Any, ...] | Mapping[str, Any]
FILES = (".npy", ".npz", ".safetensors", *files.TABLES)


def with_features(dataset: Dataset, features: Features, *, cache: str | Path | None = None) -> Dataset:
    """The same labels, and as rows the features of a frozen encoder, scaled to mean 0 and deviation 1.

    `features` is an array or tensor [N, d], or a file of one (.npy, .npz, .safetensors, or a table of numbers); where
    the data set has a test part, a pair of these, a mapping of "train" and "test", or a file with arrays so called.
    Row i of the features belongs to row i of the source: a part has as many as its source, or as many as its reader
    kept. One array serves both parts where they come from one file with a column that tells them apart. Pictures,
    sounds and texts are still what a person is shown. Raises UnswayedError for what does not fit or is not finite.

    >>> from unswayed.data import read
    >>> found = with_features(read("wine"), np.arange(356.0).reshape(178, 2))
    >>> found.kind, found.train.x.shape, found.classes
    ('table', (2,), ('class_0', 'class_1', 'class_2'))
    """
    parts = _parts(features, cache)
    whole, test = parts.get("whole"), dataset.test
    if whole is not None:
        parts = {"train": whole}
        if test is not None and not bool(torch.isin(test.rows, dataset.train.rows).any()):
            parts["test"] = whole
    if test is not None and "test" not in parts:
        do = "give two files (train, then test), or one with arrays called train and test"
        raise UnswayedError(f"features of the {len(test)} test rows of {dataset.name} too", got="training rows", do=do)
    if test is None and "test" in parts:
        raise UnswayedError(f"features of training rows alone: {dataset.name} has no test part", got="test rows")
    wanted: dict[str, Split] = {"train": dataset.train} | ({} if test is None else {"test": test})
    chosen = [_rows_of(parts[name], split, name) for name, split in wanted.items() if name in parts]
    if len(chosen) < len(wanted):
        raise UnswayedError("features of the training rows", got=", ".join(parts))
    return with_rows(dataset, chosen, f"features [{chosen[0].shape[1]}] given as rows")


def with_rows(dataset: Dataset, parts: Sequence[Tensor], note: str, *, names: Tensor | None = None) -> Dataset:
    """A table of the features [N, d] of the training and, if there is one, the test part, scaled by the former.

    `names` [K, d] are those of the names of the classes, scaled alike.
    """
    std, mean = torch.std_mean(parts[0], 0, correction=1 if len(parts[0]) > 1 else 0)
    # An encoder may leave features all but constant: stretched to deviation 1 they would be nothing but rounding.
    factor = (std > 1e-6) / std.clamp_min(1e-6)
    columns = [TensorColumn((part - mean) * factor) for part in parts]
    names = None if names is None else (names - mean) * factor
    train = replace(dataset.train, x=columns[0], source=_seen(dataset, "train"))
    test = None if dataset.test is None else replace(dataset.test, x=columns[1], source=_seen(dataset, "test"))
    return replace(dataset, kind="table", train=train, test=test, notes=(*dataset.notes, note), names=names)


class Previews(Sequence[object]):
    """What a person sees of the rows of a part, made when asked for."""

    def __init__(self, dataset: Dataset, part: Part) -> None:
        self.dataset, self.part = dataset, part

    def __len__(self) -> int:
        return len(self.dataset.train if self.part == "train" else cast(Split, self.dataset.test))

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[at] for at in range(*i.indices(len(self)))]
        shown: Preview = preview(self.dataset, self.part, i)
        return shown


def _seen(dataset: Dataset, part: Part) -> Sequence[object] | None:
    split = dataset.train if part == "train" else cast(Split, dataset.test)
    return Previews(dataset, part) if dataset.kind in ("image", "audio") else split.source


def _parts(features: Features, cache: str | Path | None) -> dict[str, Tensor]:
    """Features by part; those of no particular part are called whole."""
    if isinstance(features, tuple):
        if len(features) not in (1, 2):
            raise UnswayedError("features as (train, test)", got=f"{len(features)} parts")
        if len(features) == 1:
            return _parts(features[0], cache)
        return {name: _one(one, name, cache) for name, one in zip(("train", "test"), features, strict=True)}
    if isinstance(features, Mapping):
        if strange := set(features) - {"train", "test"}:
            raise UnswayedError('features by part: "train" and "test"', got=", ".join(sorted(map(str, strange))))
        return {name: _one(one, name, cache) for name, one in features.items()}
    if not isinstance(features, str | Path):
        return {"whole": _checked(features, "the features")}
    found = read_arrays(Path(features).expanduser(), cache)
    return {name: _checked(values, f"{features} ({name})") for name, values in found.items()}


def _one(features: Any, part: str, cache: str | Path | None) -> Tensor:
    """Features of one part, from a file with one array or as they are."""
    found = _parts(features, cache)
    if len(found) > 1:
        raise UnswayedError(f"a file with one array, of the {part} rows", got=f"{features} with {', '.join(found)}")
    return next(iter(found.values()))


def read_arrays(file: Path, cache: str | Path | None) -> dict[str, Any]:
    """The arrays of a file by part: train and test where they are called so, else whole."""
    end = file.suffix.casefold()
    if not file.is_file():
        raise UnswayedError("a file of features", got=f"{str(file)!r}, which is not there")
    if end == ".npy":
        return {"whole": arrays.load(file)}
    if end == ".npz":
        return _by_part(arrays.read_npz(file).splits, file)
    if end == ".safetensors":
        return _by_part(arrays.read_safetensors(file).splits, file)
    if end in files.TABLES:
        return {"whole": _numbers(files.read_table([file], cache_folder(cache)))}
    raise UnswayedError(f"features in a file that ends in {', '.join(FILES)}", got=str(file), do="save them anew")


def _by_part(splits: Mapping[str, Raw], file: Path) -> dict[str, Any]:
    found = {}
    for name, raw in splits.items():
        inputs = [column for column in raw.columns if column.casefold() in arrays.INPUT_WORDS] or list(raw.columns)
        if len(inputs) != 1:
            do = "save one array called features, or two called train and test"
            raise UnswayedError(f"one array of {name} features in {file}", got=", ".join(raw.columns), do=do)
        found[name] = raw.columns[inputs[0]]
    return {"whole": found["train"]} if set(found) == {"train"} else found


def _numbers(raw: Raw) -> np.ndarray:
    columns = {name: numbers(cells) for name, cells in raw.columns.items()}
    if other := [name for name, values in columns.items() if values is None]:
        raise UnswayedError(f"columns of numbers in {raw.where}", got=", ".join(map(repr, other)), do="drop the others")
    return np.concatenate([values for values in columns.values() if values is not None], axis=1)


def _checked(values: Any, where: str) -> Tensor:
    """Any array as float32 [N, d] of finite numbers."""
    array = values.detach().cpu() if isinstance(values, Tensor) else values
    if not isinstance(array, Tensor):
        array = np.asarray(array)
        if array.dtype.kind not in "biuf":
            raise UnswayedError(f"features that are numbers in {where}", got=f"an array of {array.dtype}")
        array = torch.from_numpy(np.array(array, dtype=np.float32))
    if array.dim() != 2 or not array.numel():
        do = "pool or flatten the output of the encoder" if array.dim() > 2 else "a row a sample, a column a feature"
        raise UnswayedError(f"features [N, d] in {where}", got=f"an array {list(array.shape)}", do=do)
    array = array.float()
    if bad := int((~array.isfinite()).any(1).sum()):
        raise UnswayedError(f"finite features in {where}", got=f"NaN or infinity in {bad} rows", do="encode them anew")
    return array


def _rows_of(features: Tensor, split: Split, part: str) -> Tensor:
    """The features that belong to the rows of a part, which its reader may have thinned."""
    if len(features) == split.whole:
        return features[split.rows]
    if len(features) == len(split):
        return features
    counts = f"{len(split)}" + (f" (or {split.whole}, with the rows left out)" if split.whole != len(split) else "")
    do = "encode all rows, in the order of the data"
    raise UnswayedError(f"a row of features for each {part} row, {counts} in all", got=len(features), do=do)
