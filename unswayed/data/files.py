"""Files and folders -> columns, through the `datasets` library: Parquet, CSV, TSV, JSON lines, saved sets, folders."""

from __future__ import annotations

import csv
import errno
import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import numpy as np

from unswayed.data.media import PICTURES, SOUNDS
from unswayed.data.parquet import read_parquet
from unswayed.data.raw import Cells, Found, Raw, stamp
from unswayed.data.store import no_room, writable
from unswayed.errors import UnswayedError

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".arrow")
SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_RUN_FILES = {"metrics.jsonl", "checkpoint.safetensors"}  # what training left in a folder of data is no data
_HEAD_BYTES = 1 << 20


def split_of(name: str) -> str | None:
    """The split that a name speaks of, by whole words: "train-00001" -> "train"; None where it speaks of none.

    >>> split_of("X_test"), split_of("train-00000-of-00002"), split_of("trainer")
    ('test', 'train', None)
    """
    words = re.split(r"[^a-z]+", name.casefold())
    return next((split for split, known in SPLIT_WORDS.items() if any(word in known for word in words)), None)


def holds_data(folder: Path) -> bool:
    """Whether there are tables, images or sounds in a folder or below."""
    return any(_sorted_out(folder).values())


def read_table(files: Sequence[Path], cache: Path) -> Raw:
    """The rows of one or several files of one format, one after the other."""
    first = files[0]
    where = str(first) if len(files) == 1 else f"{first.parent} ({len(files)} files)"
    for file in files:
        if not file.stat().st_size:
            raise UnswayedError("a file with rows", got=f"{file}, which is empty")
    if first.suffix.casefold() == ".parquet" and find_spec("datasets") is None and find_spec("pyarrow") is not None:
        rows: Any = read_parquet(files)
    else:
        with _library(cache, where) as datasets:
            rows = _load(datasets, files, cache / "datasets")
    return replace(_raw(rows, where, stamp(files), first.parent), files=tuple(files))


def read_folder(folder: Path, cache: Path) -> Found:
    """A folder of tables, of pictures or of sounds (one sub-folder a class, or with a metadata file), or a saved set.

    Splits are sub-folders or files with train, test or validation in their names; without such, all is for training.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _read_saved(folder, cache)
    parts = _split_folders(folder) or {"train": folder}
    splits: dict[str, Raw] = {}
    notes: list[str] = []
    for split, part in parts.items():
        metadata = [
            part / f"metadata{end}" for end in (".csv", ".jsonl", ".parquet") if (part / f"metadata{end}").exists()
        ]
        if metadata:
            splits[split] = read_table(metadata[:1], cache)
            continue
        sort, files = _files_of(part)
        if sort == "table":
            grouped, more = _group(files, None if len(parts) == 1 else split)
            splits |= {name: read_table(some, cache) for name, some in grouped.items()}
            notes += more
        else:
            splits[split], more = _class_folders(part, files, sort)
            notes += more
    return Found(folder.name, splits, tuple(notes))


class ArrowCells(Sequence[Any]):
    """A column of an Arrow table, typically memory-mapped; a cell is read when asked for.

    Cells that hold bytes and a path, as the library keeps media, become the bytes, or else the path.
    """

    def __init__(self, column: Any, folder: Path | None) -> None:
        self.column, self.folder = column, folder

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Any]: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self._plain(value) for value in self.column[i].to_pylist()] if i.step is None else self._steps(i)
        return self._plain(self.column[i].as_py())

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.column.chunks:
            yield from map(self._plain, chunk.to_pylist())

    def _steps(self, i: slice) -> list[Any]:
        return [self[k] for k in range(*i.indices(len(self)))]

    def _plain(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("bytes") is not None or value.get("path") is None:
            return value.get("bytes")
        path = Path(value["path"])
        return str(path if path.is_absolute() or self.folder is None else self.folder / path)


@contextmanager
def _library(cache: Path, where: str) -> Iterator[Any]:
    """The `datasets` library, silent and away from the network; what it raises becomes one clear error."""
    try:
        import datasets
    except ImportError as error:
        raise UnswayedError(
            "the library datasets, which reads files", got="none", do="pip install 'unswayed[files]'"
        ) from error
    writable(cache)
    level = datasets.logging.get_verbosity()
    hidden = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # pandas only warns where it drops what stands behind the last column
            warnings.filterwarnings("error", message="Length of header or names")
            yield datasets
    except UnswayedError:
        raise
    except Exception as error:  # the library wraps the errors of pandas and Arrow in its own, differently by version
        reason = error.__cause__ or error
        if isinstance(reason, OSError) and reason.errno == errno.ENOSPC:
            raise no_room(cache) from error
        if "corresponds to no data" in str(reason):
            raise UnswayedError("a file with rows", got=f"{where}, which has none") from error
        came = f"{type(reason).__name__}: {str(reason).strip()}"
        raise UnswayedError(f"a readable file, {where}", got=came, do="repair it there, or save it anew") from error
    finally:
        datasets.logging.set_verbosity(level)
        if not hidden:
            datasets.enable_progress_bars()


def _load(datasets: Any, files: Sequence[Path], cache: Path) -> Any:
    end = files[0].suffix.casefold()
    names = [glob.escape(str(file.absolute())) for file in files]
    settings: dict[str, Any] = {"cache_dir": str(cache)}
    if end == ".parquet":
        return datasets.Dataset.from_parquet(names, **settings)
    if end in (".csv", ".tsv"):
        separator, header = _header(files[0], end)
        # Strings first: the library guesses types piece by piece, and would turn a class called "NA" into nothing.
        features = datasets.Features({name: datasets.Value("string") for name in header})
        return datasets.Dataset.from_csv(
            names, features=features, sep=separator, keep_default_na=False, index_col=False, **settings
        )
    if end == ".arrow":
        return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
    return datasets.Dataset.from_json(names, **settings)


def _header(file: Path, end: str) -> tuple[str, list[str]]:
    """The separator of a table of text, and the names of its columns."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            head = lines.read(_HEAD_BYTES)
        except UnicodeDecodeError as error:
            raise UnswayedError(f"text in UTF-8, {file}", got=str(error), do="save it as UTF-8") from error
    line = next(iter(head.splitlines()), "")
    separator = "\t" if end == ".tsv" else max(",;\t", key=line.count)
    header = next(csv.reader(head.splitlines(keepends=True), delimiter=separator), [])
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UnswayedError(f"columns of different names in {file}", got=f"{twice[0]!r} twice", do="rename one")
    if not header or all(re.fullmatch(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*", name) for name in header):
        raise UnswayedError(
            f"the names of the columns in the first line of {file}",
            got=repr(line[:80]),
            do="put a line with names on top",
        )
    return separator, header


def _read_saved(folder: Path, cache: Path) -> Found:
    with _library(cache, str(folder)) as datasets:
        saved = datasets.load_from_disk(str(folder))
        splits = dict(saved) if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
        mark = stamp(sorted(folder.rglob("*.arrow")))
        raws = {
            split_of(name) or name: _raw(rows, f"{folder} ({name})", f"{mark}{name}", folder)
            for name, rows in splits.items()
        }
    return Found(folder.name, raws)


def _raw(rows: Any, where: str, mark: str, folder: Path) -> Raw:
    """A data set of the library as columns; class names that it declares are kept."""
    table = rows.with_format("arrow")[:]
    if not table.num_rows:
        raise UnswayedError("a file with rows", got=f"{where}, which has none")
    names = {name: tuple(kind.names) for name, kind in rows.features.items() if hasattr(kind, "names")}
    columns = {str(name): _cells(table.column(name), folder) for name in table.column_names}
    return Raw(columns, where, names, mark, folder)


def _cells(column: Any, folder: Path) -> Cells:
    import pyarrow as pa

    if isinstance(column.type, pa.ExtensionType):
        return np.stack([np.array(cell.as_py()) for cell in column])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(column.cast(pa.timestamp("s"), safe=False).to_numpy())
    if pa.types.is_floating(kind) or (pa.types.is_boolean(kind) and not column.null_count):
        return np.asarray(column.to_numpy())
    if pa.types.is_integer(kind):
        values = np.asarray(column.to_numpy())  # with gaps: fractions, which hold whole numbers up to 2**53
        exact = not column.null_count or bool((np.abs(values[~np.isnan(values)]) < 2**53).all())
        return values if exact else ArrowCells(column, folder)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return _vectors(column, folder)
    return ArrowCells(column, folder)


def _vectors(column: Any, folder: Path) -> Cells:
    """Lists of one length of numbers as an array [N, d]; other lists cell by cell."""
    import pyarrow as pa

    inner = column.type.value_type
    if column.null_count or not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        return ArrowCells(column, folder)
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    lengths = {len(cell) for cell in column}
    return flat.reshape(len(column), -1) if len(lengths) == 1 and flat.size else ArrowCells(column, folder)


def _split_folders(folder: Path) -> dict[str, Path]:
    """Sub-folders by split, where one is for training; none where they are classes, as trains beside cars would be."""
    found: dict[str, Path] = {}
    for part in sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith((".", "__"))):
        split = split_of(part.name)
        if split and part.name.casefold() in SPLIT_WORDS[split]:
            found.setdefault(split, part)
        elif any(file.suffix.casefold() in (*PICTURES, *SOUNDS) for file in part.iterdir()):
            return {}
    return found if "train" in found else {}


def _sorted_out(folder: Path) -> dict[str, list[Path]]:
    """The images, sounds and tables in a folder and below, but for what training runs wrote there."""
    sorts: dict[str, list[Path]] = {"image": [], "audio": [], "table": []}
    ends = {end: sort for sort, some in (("image", PICTURES), ("audio", SOUNDS), ("table", TABLES)) for end in some}
    for base, inner, files in os.walk(folder):
        if not _RUN_FILES.isdisjoint(files):
            inner.clear()
            continue
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
        for name in files:
            sort = ends.get(os.path.splitext(name)[1].casefold())
            if sort and not name.startswith(".") and name not in ("dataset_info.json", "dataset_infos.json"):
                sorts[sort].append(Path(base, name))
    return sorts


def _files_of(folder: Path) -> tuple[str, list[Path]]:
    """The commonest sort of file in a folder (image, audio or table), and all files of it in order of their names."""
    sorts = _sorted_out(folder)
    sort = max(sorts, key=lambda name: len(sorts[name]))
    if not sorts[sort]:
        raise UnswayedError(
            f"tables ({', '.join(TABLES)}), images or sounds in {folder}",
            got="none",
            do="name a file or a folder that holds data",
        )
    return sort, sorted(sorts[sort])


def _group(files: Sequence[Path], split: str | None) -> tuple[dict[str, list[Path]], list[str]]:
    """Files by the split in their names (or all in `split`), of the format that most have; the rest is noted."""
    end = Counter(file.suffix.casefold() for file in files).most_common(1)[0][0]
    grouped: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.casefold() == end:
            grouped.setdefault(split or split_of(file.stem) or split_of(file.parent.name) or "", []).append(file)
    if set(grouped) == {""}:
        grouped = {"train": grouped[""]}
    grouped.pop("", None)
    used = {file for some in grouped.values() for file in some}
    return grouped, [f"{file} is not used" for file in files if file not in used]


def _class_folders(folder: Path, files: Sequence[Path], sort: str) -> tuple[Raw, list[str]]:
    """Media files labelled by the first folder below `folder`.

    Listed by us, not by the library's folder builder: that takes 300 microseconds a file, a walk takes five.
    """
    labelled = [file for file in files if file.parent != folder]
    loose = len(files) - len(labelled)
    if not labelled:
        raise UnswayedError(
            f"one sub-folder a class in {folder}, or a file metadata.csv with the columns file_name and label",
            got=f"{loose} files without a class",
        )
    columns: Mapping[str, Cells] = {
        sort: [str(file.absolute()) for file in labelled],
        "label": [file.relative_to(folder).parts[0] for file in labelled],
    }
    notes = [f"{loose} files of {folder} lie in no class folder: not used"] if loose else []
    return Raw(columns, str(folder), stamp=str(folder.absolute()), folder=folder), notes
