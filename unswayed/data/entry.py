"""The one way in: a name, a file, a folder or arrays -> a Dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unswayed.data import arrays, files, sources
from unswayed.data.build import Settings, build
from unswayed.data.dataset import Dataset, Kind
from unswayed.data.raw import Found, Raw
from unswayed.data.roles import Roles, find_roles, lacks_labels, split_rows
from unswayed.data.store import Job, Progress, cache_folder, memory_budget, silent
from unswayed.data.tables import Missing
from unswayed.errors import UnswayedError, suggest


def read(
    source: str | Path,
    *,
    input: str | Sequence[str] | None = None,
    label: str | None = None,
    truth: str | None = None,
    test: str | Path | Literal[False] | None = None,
    split: str | None = None,
    root: str | Path | None = None,
    kind: Kind | None = None,
    size: int | None = None,
    missing: Missing = "error",
    features: Mapping[str, Any] | None = None,
    extra: Sequence[str] = (),
    strict: bool = False,
    cache: str | Path | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read a labelled data set: a name ("digits", "cifar10n:FOLDER"), a file or a folder (`./digits`, if called so).

    Columns are found by convention, or named: `input` (several make a table), `label` (as observed, possibly wrong),
    `truth` (clean, for scoring only), `extra` (further label columns to keep). Test rows come from `test` (a file or
    folder), else from a split called test, a neighbour test.* of a file train.*, or a column that says so (`split`:
    that column, or the split to train on); where there are none, or with `test=False`, `Dataset.test` is None.

    `root` is the folder of a named set; `kind` overrides what the data look like; `size` is the side of images in
    pixels; `missing` says what becomes of missing numbers in a table; `features` are settings of the text and sound
    features; `strict` makes unreadable images and sounds an error instead of a note; `cache` is where prepared rows are
    kept; rows of more than `memory` bytes (default: a quarter of what is available, at most 4 GiB) stay on disk,
    memory-mapped; `progress(what, done, total)` is called during long work.

    Raises UnswayedError for anything that cannot be read or learned from.

    >>> wine = read("wine")
    >>> wine.kind, wine.classes, len(wine.train)
    ('table', ('class_0', 'class_1', 'class_2'), 178)
    """
    job = Job(cache_folder(cache), memory_budget() if memory is None else memory, strict, progress or silent)
    name, train, tested, roles, notes = _find(
        source, job, input=input, label=label, truth=truth, test=test, split=split, root=root, kind=kind, extra=extra
    )
    return build(name, train, tested, roles, Settings(size, missing, features or {}, tuple(extra)), notes, job)


def look(
    source: str | Path,
    *,
    input: str | Sequence[str] | None = None,
    label: str | None = None,
    truth: str | None = None,
    test: str | Path | Literal[False] | None = None,
    split: str | None = None,
    root: str | Path | None = None,
    kind: Kind | None = None,
    extra: Sequence[str] = (),
    cache: str | Path | None = None,
) -> tuple[Raw, Roles]:
    """The training rows as their source holds them, and what their columns are: where `read` starts from.

    Nothing is decoded. Rows without a label are still there.

    >>> raw, roles = look("digits")
    >>> len(raw), roles.kind, roles.label
    (1797, 'image', 'label')
    """
    job = Job(cache_folder(cache), memory_budget())
    _, train, _, roles, _ = _find(
        source, job, input=input, label=label, truth=truth, test=test, split=split, root=root, kind=kind, extra=extra
    )
    return train, roles


def _find(
    source: str | Path,
    job: Job,
    *,
    input: str | Sequence[str] | None,
    label: str | None,
    truth: str | None,
    test: str | Path | Literal[False] | None,
    split: str | None,
    root: str | Path | None,
    kind: Kind | None,
    extra: Sequence[str],
) -> tuple[str, Raw, Raw | None, Roles, tuple[str, ...]]:
    """The name, the training and the test rows, the roles of their columns, and notes."""
    found, label = _open(source, root, label, job, truth)
    truth = "truth" if truth is not None and truth.casefold().endswith(".npy") else truth
    train, tested, notes = _choose_splits(found, source, test, split, job)
    aside = (*extra, *((split,) if split in train.columns else ()))
    roles = find_roles(
        train, input=input, label=label or found.label, truth=truth or found.truth, aside=aside, kind=kind
    )
    if tested is not None and test is None and lacks_labels(tested, roles):
        tested = None
        notes.append("the test rows have no labels: not used")
    return found.name, train, tested, roles, (*found.notes, *notes)


def from_arrays(
    x: arrays.Array | Mapping[str, arrays.Array],
    given: arrays.Array,
    *,
    truth: arrays.Array | None = None,
    test: tuple[Any, ...] | None = None,
    kind: Kind | None = None,
    name: str = "arrays",
    size: int | None = None,
    missing: Missing = "error",
    features: Mapping[str, Any] | None = None,
    strict: bool = False,
    cache: str | Path | None = None,
    memory: int | None = None,
) -> Dataset:
    """A data set from arrays in memory; the other settings are those of `read`.

    `x` is [N, d] (a table), [N, H, W], [N, C, H, W] or [N, H, W, C] (images), a list of texts or of encoded files, or a
    mapping of columns; `given` the N labels; `test` is (x, labels) or (x, labels, true labels).

    >>> data = from_arrays([[0.0], [1.0], [2.0]], ["no", "yes", "yes"])
    >>> data.kind, data.classes, data.train.given.tolist()
    ('table', ('no', 'yes'), [0, 1, 1])
    """
    job = Job(cache_folder(cache), memory_budget() if memory is None else memory, strict)
    train = arrays.columns_of(x, given, truth, name)
    if test is not None and len(test) not in (2, 3):
        raise UnswayedError("test as (x, labels) or (x, labels, true labels)", got=f"{len(test)} parts")
    tested = (
        arrays.columns_of(test[0], test[1], test[2] if len(test) == 3 else None, f"{name} (test)") if test else None
    )
    roles = find_roles(train, input=None, label="given", truth="truth" if truth is not None else None, kind=kind)
    return build(name, train, tested, roles, Settings(size, missing, features or {}, ()), (), job)


def _open(
    source: str | Path, root: str | Path | None, label: str | None, job: Job, truth: str | None = None
) -> tuple[Found, str | None]:
    """What the source holds, and the label column (labels given as files become the columns y and truth)."""
    name, _, folder = str(source).partition(":")
    if name in sources and isinstance(source, str):
        place = folder or root
        return sources.get(name)(Path(place).expanduser() if place else None), label
    path = Path(source).expanduser()
    if not path.exists():
        here = suggest(
            path.name, [p.name for p in _neighbours(path)], f"names of data sets: {', '.join(sources.names())}"
        )
        do = suggest(name, sources.names(), here)
        raise UnswayedError(
            "the name of a data set, a file or a folder", got=f"{str(source)!r}, which is not there", do=do
        )
    if path.is_dir():
        path = path if path.name not in ("", "..") else path.resolve()  # the data set is called like its folder
        if next(path.glob("*.npy"), None) is not None and not files.holds_data(path):
            return arrays.read_npy_folder(path), label
        return files.read_folder(path, job.cache), label
    end = path.suffix.casefold()
    if end == ".npz":
        return arrays.read_npz(path), label
    if end == ".npy":
        return arrays.read_npy(path, label, truth)
    if end not in files.TABLES:
        expected = f"a file that ends in {', '.join((*files.TABLES, '.npz', '.npy'))}"
        raise UnswayedError(expected, got=str(path), do="convert it, or name its folder")
    split = files.split_of(path.stem)
    name = path.absolute().parent.name if split else path.stem
    return Found(name, {split or "train": files.read_table([path], job.cache)}), label


def _neighbours(path: Path) -> list[Path]:
    return sorted(path.parent.iterdir()) if path.parent.is_dir() else []


def _sibling(file: Path) -> Path | None:
    """The file of test rows beside a file of training rows: test.csv beside train.csv."""
    if not file.is_file() or files.split_of(file.stem) != "train":
        return None
    stem = re.sub(r"(?i)(?<![a-z])(training|train|trn)(?![a-z])", "test", file.stem)
    others = [
        path for path in _neighbours(file) if path.stem == stem and path.suffix.casefold() in (*files.TABLES, ".npy")
    ]
    return min(others, key=lambda path: path.suffix != file.suffix, default=None)


def _choose_splits(
    found: Found, source: str | Path, test: str | Path | Literal[False] | None, split: str | None, job: Job
) -> tuple[Raw, Raw | None, list[str]]:
    """The training and the test rows, and notes on where they came from."""
    notes: list[str] = []
    splits = dict(found.splits)
    chosen = split is not None and split in splits
    train = splits.pop(split if split is not None and chosen else "train", None)
    if train is None and len(splits) == 1:
        train = splits.popitem()[1]
    if train is None:
        raise UnswayedError(
            f"a split called train in {found.name}", got=", ".join(splits), do="name one: split=NAME (--split)"
        )
    if not chosen and (parts := split_rows(train, split)):
        splits |= {name: train.choose(at) for name, at in parts.items() if name != "train"}
        train = train.choose(parts["train"])
    if test is False:
        return train, None, notes
    if test is not None:
        others = _open(test, None, None, job)[0].splits
        return train, others["test"] if "test" in others else next(iter(others.values())), notes
    if "test" not in splits and (sibling := _sibling(Path(source))) is not None:
        notes.append(f"test rows from the neighbour {sibling.name}")
        return train, next(iter(_open(sibling, None, None, job)[0].splits.values())), notes
    tested = splits.pop("test", None)
    if tested is None and "validation" in splits:
        tested = splits.pop("validation")
        notes.append("no split is called test: the validation rows are for testing")
    notes += [f"the split {name!r} ({len(rest)} rows) is not used" for name, rest in splits.items()]
    return train, tested, notes
