"""Columns with roles -> a Dataset: labels encoded, features made, rows that cannot be used left out with a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.data.dataset import Dataset, Split
from unswayed.data.images import Images, fit_images, to_pixels
from unswayed.data.labels import (
    Labels,
    agree_on_classes,
    check_training,
    compare_test,
    read_labels,
)
from unswayed.data.media import Contents, Made
from unswayed.data.raw import Cells, Raw, choose, is_text, stamp
from unswayed.data.roles import Roles, media_cells
from unswayed.data.sounds import Sounds, fit_sounds
from unswayed.data.store import Job, content_key
from unswayed.data.tables import Missing, TableRows, fit_table
from unswayed.data.texts import Texts, fit_texts, plain_texts
from unswayed.errors import UnswayedError


@dataclass(frozen=True)
class Settings:
    """What the user asked of the features: see `read`."""

    size: int | None
    missing: Missing
    features: Mapping[str, Any]
    extra: tuple[str, ...]


@dataclass(frozen=True)
class _Rows:
    """The rows of one split that have a label, and their labels as class numbers."""

    raw: Raw
    given: np.ndarray
    truth: np.ndarray | None
    extra: Mapping[str, np.ndarray]

    def choose(self, at: np.ndarray) -> _Rows:
        truth = None if self.truth is None else self.truth[at]
        return _Rows(
            self.raw.choose(at), self.given[at], truth, {name: codes[at] for name, codes in self.extra.items()}
        )


def build(
    name: str, train: Raw, test: Raw | None, roles: Roles, settings: Settings, notes: Sequence[str], job: Job
) -> Dataset:
    """The data set that the columns `roles` of `train` and `test` make."""
    told = [*notes, *roles.notes]
    declared = train.names.get(roles.label) or train.names.get(roles.truth or "")
    given = _labels(train, roles.label, declared)
    truth = _labels(train, roles.truth, declared) if roles.truth else None
    classes = agree_on_classes(given, truth, declared)
    extra = {column: _labels(train, column, declared).encode(classes) for column in settings.extra}
    rows = _Rows(train, given.encode(classes), truth.encode(classes) if truth else None, extra)
    check_training(rows.given, classes, roles.label)
    rows, dropped = _labelled(rows, rows.given)
    if dropped:
        told.append(f"{dropped} of {len(train)} training rows have no label: left out")
    tested = None
    if test is not None:
        tested, more = _test_rows(test, roles, rows, classes, declared)
        told += more
    made, made_test, more = _features(rows.raw, tested.raw if tested is not None else None, roles, settings, job)
    told += more
    rows = rows.choose(made.kept) if len(made.kept) < len(rows.given) else rows
    check_training(rows.given, classes, roles.label)
    test_split = None
    if tested is not None and made_test is not None:
        tested = tested.choose(made_test.kept) if len(made_test.kept) < len(tested.given) else tested
        test_split = _split(tested, made_test, roles)
    seen = np.concatenate([rows.given, tested.given if tested else rows.given])
    if unused := [name for number, name in enumerate(classes) if not (seen == number).any()]:
        told.append(f"no row is labelled {', '.join(map(repr, unused[:10]))}" + ", ..." * (len(unused) > 10))
    kept = {column: _tensor(codes) for column, codes in rows.extra.items()}
    return Dataset(name, roles.kind, classes, _split(rows, made, roles), test_split, tuple(dict.fromkeys(told)), kept)


def _labels(raw: Raw, column: str, declared: Sequence[str] | None) -> Labels:
    cells = raw.column(column, "label")
    numbered = isinstance(cells, np.ndarray) and cells.dtype.kind in "iu"
    return read_labels(cells, raw.names.get(column) or (declared if numbered else None), column=column)


def _labelled(rows: _Rows, codes: np.ndarray) -> tuple[_Rows, int]:
    kept = np.flatnonzero(codes >= 0)
    return (rows, 0) if len(kept) == len(codes) else (rows.choose(kept), len(codes) - len(kept))


def _test_rows(
    test: Raw, roles: Roles, train: _Rows, classes: Sequence[str], declared: Sequence[str] | None
) -> tuple[_Rows, list[str]]:
    """The test rows with a label: the true one where its column is there, else the observed one."""
    column = roles.truth if roles.truth in test.columns else roles.label
    if column is None or column not in test.columns:
        wanted = repr(roles.label) + (f" or {roles.truth!r}" if roles.truth else "")
        raise UnswayedError(
            f"the label column {wanted} in the test data {test.where}",
            got=f"the columns {', '.join(test.columns)}",
            do="name the column of true labels (truth=NAME, --truth), or call the label column alike in both",
        )
    scored = _labels(test, column, declared)
    codes = scored.encode(classes)
    if not (scored.codes >= 0).any():
        raise UnswayedError(f"labels in the test data {test.where}", got=f"none: column {column!r} is empty")
    notes = compare_test(train.given, scored, classes, column)
    given = _labels(test, roles.label, declared).encode(classes) if roles.label in test.columns else codes
    truth = codes if column == roles.truth else None
    rows, dropped = _labelled(_Rows(test, np.where(given >= 0, given, codes), truth, {}), codes)
    if dropped:
        notes.append(f"{dropped} of {len(test)} test rows have no label: left out")
    return rows, notes


def _features(
    train: Raw, test: Raw | None, roles: Roles, settings: Settings, job: Job
) -> tuple[Made, Made | None, list[str]]:
    """The rows of both splits as columns, made the way that the training rows decide."""
    if settings.features and roles.kind not in ("audio", "text"):
        raise UnswayedError("feature settings for sounds or texts", got=f"{roles.kind} data", do="leave out features=")
    if settings.size is not None and roles.kind != "image":
        raise UnswayedError("a size for images", got=f"{roles.kind} data", do="leave out size= (--size)")
    if roles.kind == "table":
        table, notes = fit_table(train, roles.input, settings.missing, chosen=roles.named)
        return table.rows(train, "training"), table.rows(test, "test") if test is not None else None, list(notes)
    cells = _cells(train, roles)
    mark = _mark(train, roles, cells)
    maker: Images | Sounds | Texts
    if roles.kind == "image":
        maker, told = fit_images(cells, mark, settings.size, job)
    elif roles.kind == "audio":
        maker, told = fit_sounds(cells, mark, settings.features, job)
    else:
        maker, told = fit_texts(cells, mark, settings.features)
    made = maker.rows(cells, mark, "training", job)
    made_test = None
    if test is not None:
        cells = _cells(test, roles)
        made_test = maker.rows(cells, _mark(test, roles, cells), "test", job)
    return made, made_test, [*told, *made.notes, *(made_test.notes if made_test else ())]


def _cells(raw: Raw, roles: Roles) -> Cells:
    raw.column(roles.input[0], "input")
    cells = media_cells(raw, roles.input[0], roles.kind)
    if roles.kind == "image" and isinstance(cells, np.ndarray) and cells.ndim > 1:
        return to_pixels(cells, roles.input[0])
    return cells


def _mark(raw: Raw, roles: Roles, cells: Cells) -> str:
    """A fingerprint of the rows, of the files that the cells name too."""
    files = (cell for cell in cells if cell) if roles.kind in ("image", "audio") and is_text(cells) else ()
    return content_key(raw.stamp, raw.numbers(), roles.input, stamp(files))


def _split(rows: _Rows, made: Made, roles: Roles) -> Split:
    truth = None if rows.truth is None else _tensor(rows.truth)
    source = source_of(rows.raw, roles)
    return Split(made.column, _tensor(rows.given), truth, _tensor(rows.raw.numbers()), source, rows.raw.count())


def source_of(raw: Raw, roles: Roles) -> Sequence[object] | None:
    """What a person would look at: the texts, the encoded sounds, the rows of the table; nothing for images."""
    if roles.kind == "table":
        return TableRows({name: raw.columns[name] for name in raw.columns if name not in (roles.label, roles.truth)})
    if roles.kind == "audio":
        cells = media_cells(raw, roles.input[0], roles.kind)
        return Contents(choose(cells, np.arange(len(cells))))
    return plain_texts(raw.columns[roles.input[0]]) if roles.kind == "text" else None


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
