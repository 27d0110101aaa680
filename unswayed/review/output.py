"""The corrected data in the form in which they came, and beside them the trail of what was changed by whom."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.auditing.table import ABOUT
from unswayed.data.arrays import load
from unswayed.data.labels import Labels, read_labels
from unswayed.data.raw import Cells, Raw, is_text
from unswayed.data.roles import Roles, media_cells
from unswayed.errors import UnswayedError
from unswayed.review.case import Case
from unswayed.review.correction import Correction, correct
from unswayed.review.rows import declared_names
from unswayed.review.tables import WRITERS, Edits, edit_array, write_array, write_npy_files, write_npz
from unswayed.writing import explain, write_text

TRAIL = ".changes.csv"
HOW = ("copy", "link")
_COLUMNS = ("row", "file", "given", "label", "action", "reviewer", "time", "suspicion")
_NOT_DATA = {ABOUT, "metrics.jsonl", "checkpoint.safetensors"}  # folders that hold them are runs, not data


@dataclass(frozen=True)
class Exported:
    """What was written, and where."""

    path: Path
    trail: Path
    rows: int  # audited ones
    changed: int
    dropped: int
    conflicts: int


def export(
    case: Case,
    out: str | Path,
    *,
    accept_above: float | None = None,
    none_fits: str = "drop",
    conflicts: str = "given",
    files: str = "copy",
) -> Exported:
    """Write the data with the labels that the review settled, in the form in which they came; the input stays.

    `out` is a file, or a folder for the files; beside it `OUT.changes.csv` lists every change. What `accept_above`,
    `none_fits` and `conflicts` mean says `correct`. Media in folders are copied, or linked (`files="link"`: hard links,
    which take no room). Raises UnswayedError where the data are not those that were audited, where `out` is there
    already, and where nothing was decided.
    """
    out = Path(os.path.abspath(out))
    if files not in HOW:
        raise UnswayedError(f"files is {' or '.join(HOW)}", got=repr(files))
    correction = correct(case, accept_above=accept_above, none_fits=none_fits, conflicts=conflicts)
    if accept_above is None and not case.decisions.decided():
        do = "review some rows first, or take suggestions unseen with --accept-above P"
        raise UnswayedError("decisions to export", got=f"none in {case.decisions.path}", do=do)
    trail = out.parent / f"{out.name}{TRAIL}"
    for path in (out, trail):
        if path.exists() and not (path == out and path.is_dir() and not any(path.iterdir())):
            raise UnswayedError(
                "a place where nothing is yet", got=f"{path}, which is there", do="choose another --out"
            )
    sheet = _open(case)
    _keep_apart(sheet, out)
    with _workshop(out) as made:
        moved = _write(sheet, correction, made, out.name, link=files == "link")
        if out.is_dir():
            out.rmdir()
        os.replace(made, out)
    _write_trail(trail, correction, moved)
    dropped = int(correction.dropped.sum())
    return Exported(out, trail, len(case.audit), correction.changed, dropped, correction.conflicts)


@dataclass(frozen=True)
class Sheet:
    """The labels as their source holds them."""

    case: Case
    raw: Raw
    roles: Roles | None  # None: a file of labels alone
    column: str
    place: np.ndarray  # [N] where the audited rows lie in `raw`
    labels: Labels
    home: Path | None  # the file or folder that the user named; None for a data set known by its name

    @property
    def cells(self) -> Cells:
        """The column of labels."""
        return self.raw.columns[self.column]

    def edits(self, correction: Correction) -> Edits:
        """What changes in the source, by row number; labels that stay are not touched."""
        classes = self.case.audit.classes
        now = self.labels.encode(classes)[self.place]
        differing = np.flatnonzero((correction.labels >= 0) & (correction.labels != now) & ~correction.dropped)
        numbers, words = self.raw.numbers()[self.place], self.words()
        values = {int(numbers[at]): words[classes[correction.labels[at]]] for at in differing}
        return Edits(self.column, values, set(numbers[correction.dropped].tolist()))

    def words(self) -> dict[str, Any]:
        """How the source writes each class: as it does most often; as its number or name where no row has it."""
        seen: dict[str, Counter[Any]] = {name: Counter() for name in self.case.audit.classes}
        for code, cell in zip(self.labels.codes.tolist(), self.cells, strict=True):
            if code >= 0 and self.labels.names[code] in seen:
                seen[self.labels.names[code]][cell.item() if isinstance(cell, np.generic) else cell] += 1
        return {name: of.most_common(1)[0][0] if of else self._word(name) for name, of in seen.items()}

    def _word(self, name: str) -> Any:
        if is_text(self.cells):
            return name
        declared = self.raw.names.get(self.column) or (
            declared_names(self.raw, self.roles) if self.roles is not None else None
        )
        try:
            return declared.index(name) if declared else int(name)
        except ValueError as error:
            raise UnswayedError("a class that the label column can hold", got=repr(name)) from error


def _open(case: Case) -> Sheet:
    """The labels of the data that were audited; raises where they have changed since."""
    rows, audit = case.rows, case.audit
    if rows.config is None:
        file = Path(rows.data or dict(audit.about.get("files") or {}).get("labels", ""))
        if file.suffix.casefold() != ".npy":
            do = "name the file of labels by --data FILE.npy; or audit a table of data: unswayed audit FILE"
            raise UnswayedError("labels in an .npy file", got=str(file) or "none", do=do)
        raw = Raw({"labels": load(file)}, str(file), files=(file,))
        labels = read_labels(raw.columns["labels"], column="labels")
        found = labels.encode(audit.classes)
        if len(found) != len(audit) or not np.array_equal(found, audit.given.numpy()):
            raise UnswayedError(f"the labels that were audited in {file}", got="others", do="audit them anew")
        return Sheet(case, raw, None, "labels", np.arange(len(found)), labels, file)
    rows.check()
    source = rows.source
    column = source.roles.label
    labels = read_labels(source.raw.columns[column], declared_names(source.raw, source.roles), column=column)
    place = np.array([rows.position(at) for at in range(len(audit))], dtype=np.int64)
    home = Path(rows.data or rows.config["data"]).expanduser()
    return Sheet(case, source.raw, source.roles, column, place, labels, home if home.exists() else None)


def _keep_apart(sheet: Sheet, out: Path) -> None:
    """Raise where the output would lie in the input, or the input in the output."""
    homes = {Path(os.path.realpath(path)) for path in (sheet.home, *sheet.raw.files) if path is not None}
    real = Path(os.path.realpath(out))
    if any(real == home or home in real.parents or real in home.parents for home in homes):
        raise UnswayedError("a place apart from the data", got=str(out), do="choose another --out")


def _write(sheet: Sheet, correction: Correction, made: Path, name: str, *, link: bool) -> dict[int, str]:
    """Write to `made`, which will be called `name`; the new places of media files by row, where there are such."""
    edits, files = sheet.edits(correction), sheet.raw.files
    end, wanted = (files[0].suffix.casefold() if files else ""), Path(name).suffix.casefold()
    whole = sheet.raw.count()
    if sheet.home is None or (not files and not sheet.home.is_dir()):
        _write_list(sheet, correction, made, wanted)
    elif end == ".npz":
        _fits(wanted, end, sheet)
        write_npz(files[0], made, edits, whole)
    elif end == ".npy":
        _write_npy(sheet, edits, made, wanted)
    elif end in WRITERS and sheet.home.is_file():
        target = made if wanted == end else made / files[0].name
        _fits(wanted, end, sheet) if wanted else made.mkdir()
        _check_count(WRITERS[end](files[0], target, edits), whole, files[0])
    elif sheet.home.is_dir() and (not files or end in WRITERS) and not (sheet.home / "state.json").exists():
        if wanted and wanted in WRITERS:
            raise UnswayedError("a folder, as the data are in one", got=name, do="leave the ending out")
        return _write_folder(sheet, correction, edits, made, link=link)
    else:
        do = "save the data as Parquet or CSV, and audit these"
        raise UnswayedError("data in Parquet, CSV, JSON lines, NumPy files or folders", got=sheet.raw.where, do=do)
    return {}


def _fits(wanted: str, end: str, sheet: Sheet) -> None:
    if wanted != end:
        raise UnswayedError(f"--out FILE{end}, as the data are in {sheet.raw.where}", got=wanted or "no ending")


def _check_count(found: int, whole: int, file: Path) -> None:
    if found != whole:
        raise UnswayedError(f"{whole} rows in {file}", got=found, do="save the table anew with one row a line")


def _write_list(sheet: Sheet, correction: Correction, made: Path, wanted: str) -> None:
    """Row numbers and labels, for data sets that have no file of their own to be written anew."""
    kept = np.flatnonzero(~correction.dropped)
    if wanted == ".npy":
        write_array(made, correction.labels[kept])
        return
    if wanted != ".csv":
        do = "a list of rows and labels: --out FILE.csv, or FILE.npy for class numbers alone"
        raise UnswayedError(f"a file for the labels of {sheet.raw.where}, which has no file of its own", do=do)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label"])
    classes = sheet.case.audit.classes
    labels = [(int(sheet.case.audit.rows[at]), correction.labels[at]) for at in kept]
    writer.writerows((row, classes[code] if code >= 0 else "") for row, code in sorted(labels))
    write_text(made, text.getvalue())


def _write_npy(sheet: Sheet, edits: Edits, made: Path, wanted: str) -> None:
    """Labels alone as a file (with the numbers of the rows that are left, where some are not), or all files."""
    whole, files = sheet.raw.count(), sheet.raw.files
    if wanted == ".npy":
        if edits.dropped:
            do = "name a folder as --out, for features and labels without these rows; or --none-fits keep"
            raise UnswayedError("labels of all rows in one file", got=f"{len(edits.dropped)} rows to drop", do=do)
        source = files[1] if len(files) > 1 and sheet.home is not None and sheet.home.is_file() else files[0]
        write_array(made, edit_array(load(source), edits))
        return
    if wanted:
        _fits(wanted, ".npy", sheet)
    made.mkdir()
    if sheet.home is not None and sheet.home.is_dir():
        write_npy_files({file.stem: file for file in files}, made, edits, whole)
        return
    kept = np.setdiff1d(np.arange(whole), np.fromiter(edits.dropped, np.int64))
    label = files[1] if len(files) > 1 else files[0]
    for file in files:
        array = load(file)
        write_array(made / file.name, (edit_array(array, edits) if file == label else array)[kept])


def _write_folder(sheet: Sheet, correction: Correction, edits: Edits, made: Path, *, link: bool) -> dict[int, str]:
    """The whole folder: tables with new labels, media under their new classes, all else as it was."""
    home = Path(os.path.abspath(sheet.home or ""))
    tables = _tables(sheet, edits)
    media = _media(sheet)
    classed = not tables and bool(media)  # media labelled by their folder
    target, moved = _targets(sheet, correction, media, home) if classed else ({}, {})
    gone = {os.path.abspath(media[at]) for at in np.flatnonzero(correction.dropped).tolist() if at in media}
    for base, inner, names in os.walk(home):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if not _NOT_DATA.isdisjoint(names):
            inner.clear()
            continue
        for name in names:
            file = os.path.join(base, name)
            if file in gone:
                continue
            place = made / target.get(file, os.path.relpath(file, home))
            place.parent.mkdir(parents=True, exist_ok=True)
            if file in tables:
                here, count = tables[file]
                found = WRITERS[Path(file).suffix.casefold()](Path(file), place, here)
                _check_count(found, count, Path(file))
            else:
                _put(file, place, link=link)
    return moved


def _tables(sheet: Sheet, edits: Edits) -> dict[str, tuple[Edits, int]]:
    """The edits of each file of a table in several, and how many rows each has."""
    files, start, found = sheet.raw.files, 0, {}
    for file in files:
        count = sheet.raw.count() if len(files) == 1 else _count(file)
        found[os.path.abspath(file)] = (edits.of(start, count), count)
        start += count
    if files:
        _check_count(start, sheet.raw.count(), files[0].parent)
    return found


def _count(file: Path) -> int:
    """How many rows a table has, found by writing it to nowhere; a Parquet file says it."""
    if file.suffix.casefold() == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(file).num_rows)
    with tempfile.TemporaryDirectory() as folder:
        return WRITERS[file.suffix.casefold()](file, Path(folder) / file.name, Edits("", {}, ()))


def _media(sheet: Sheet) -> dict[int, str]:
    """The file of each audited row, by its position in the audit; none where media are not in files."""
    if sheet.roles is None or sheet.roles.kind not in ("image", "audio"):
        return {}
    cells = media_cells(sheet.raw, sheet.roles.input[0], sheet.roles.kind)
    if not is_text(cells):
        return {}
    return {at: str(cells[place]) for at, place in enumerate(sheet.place.tolist()) if cells[place] is not None}


def _targets(
    sheet: Sheet, correction: Correction, media: Mapping[int, str], home: Path
) -> tuple[dict[str, str], dict[int, str]]:
    """New places, relative to the folder: by old path, and by row of those that move. A name that is taken there gets
    the old class added.
    """
    base = Path(os.path.abspath(sheet.raw.folder or home))
    words, classes = sheet.words(), sheet.case.audit.classes
    now = sheet.labels.encode(classes)[sheet.place]
    target: dict[str, str] = {}
    moved: dict[int, str] = {}
    for at, file in media.items():
        code = int(correction.labels[at])
        if correction.dropped[at] or code < 0 or code == now[at]:
            continue
        folder = str(words[classes[code]])
        if Path(folder).name != folder or folder in ("", ".", ".."):
            raise UnswayedError("classes that can be names of folders", got=repr(folder))
        inner = Path(os.path.abspath(file)).relative_to(base)
        place = base.joinpath(folder, *inner.parts[1:])
        number = 1
        while place.exists() or os.path.relpath(place, home) in target.values():
            mark = f"-from-{inner.parts[0]}" + (f"-{number}" if number > 1 else "")
            place = place.with_name(f"{inner.stem}{mark}{inner.suffix}")
            number += 1
        target[os.path.abspath(file)] = os.path.relpath(place, home)
        moved[int(sheet.case.audit.rows[at])] = target[os.path.abspath(file)]
    return target, moved


def _put(file: str, place: Path, *, link: bool) -> None:
    if link:
        with contextlib.suppress(OSError):  # another disk, or one without links: a copy then
            os.link(file, place)
            return
    shutil.copy2(file, place)


@contextlib.contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """A place beside the output where it is made, so that there is never half of it; removed if something fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise explain(error, out.parent) from error
    try:
        yield folder / out.name
    except OSError as error:
        raise explain(error, out.parent) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_trail(trail: Path, correction: Correction, moved: Mapping[int, str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for change in correction.changes:
        label = "" if change.label is None else change.label
        action = f"{change.action}, dropped" if change.label is None else change.action
        who = (change.reviewer, change.time, change.suspicion)
        writer.writerow((change.row, moved.get(change.row, ""), change.given, label, action, *who))
    write_text(trail, text.getvalue())
