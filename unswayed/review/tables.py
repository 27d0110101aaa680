"""Tables written back with some labels changed and some rows left out; all else stays as it was."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from unswayed.data.arrays import load, name_parts
from unswayed.errors import UnswayedError
from unswayed.writing import replacing


@dataclass(frozen=True)
class Edits:
    """What changes in a table, by row number from 0 on: cells of one column, and rows that are left out."""

    column: str
    values: Mapping[int, Any]
    dropped: Collection[int]

    def of(self, start: int, count: int) -> Edits:
        """The edits of `count` rows from `start` on, counted anew from 0."""
        span = range(start, start + count)
        values = {row - start: value for row, value in self.values.items() if row in span}
        return Edits(self.column, values, {row - start for row in self.dropped if row in span})


def write_parquet(source: Path, out: Path, edits: Edits) -> int:
    """A Parquet file with the schema, metadata, row groups and compression of the old one; its rows before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file, replacing(out) as target:
        codec = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "SNAPPY"
        with pq.ParquetWriter(
            target, file.schema_arrow, compression="NONE" if codec == "UNCOMPRESSED" else codec
        ) as writer:
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                here = edits.of(start, len(table))
                start += len(table)
                if here.values:
                    place = table.schema.get_field_index(edits.column)
                    cells = table.column(place).to_pylist()
                    for row, value in here.values.items():
                        cells[row] = value
                    field = table.schema.field(place)
                    table = table.set_column(place, field, pa.array(cells, type=field.type))
                if here.dropped:
                    table = table.take(np.setdiff1d(np.arange(len(table)), np.fromiter(here.dropped, np.int64)))
                writer.write_table(table, row_group_size=max(1, len(table)))
    return start


def write_text_table(source: Path, out: Path, edits: Edits) -> int:
    """A CSV or TSV file: lines without a change stay as they are, byte by byte; its rows before.

    In a changed line only the label's cell is other, in quotes where it was or where it must be.
    """
    with source.open(encoding="utf-8", newline="") as lines:
        head = lines.readline().removeprefix("\ufeff")
    separator = "\t" if source.suffix.casefold() == ".tsv" else max(",;\t", key=head.count)
    row = -1  # the line with the names
    with source.open(encoding="utf-8", newline="") as lines, replacing(out) as target:
        place = 0
        for record, cells in _records(lines, separator):
            if not record.strip(" \r\n"):  # readers skip empty lines
                target.write(record.encode())
                continue
            if row < 0:
                names = [_unquoted(cell.removeprefix("\ufeff")) for cell in cells()]
                place = names.index(edits.column) if edits.values else 0
            elif row in edits.dropped:
                row += 1
                continue
            elif row in edits.values:
                changed = cells()
                changed[place] = _quoted(str(edits.values[row]), separator, always=changed[place].startswith('"'))
                end = record[len(record.rstrip("\r\n")) :]
                record = separator.join(changed) + end
            target.write(record.encode())
            row += 1
    return max(0, row)


def write_json(source: Path, out: Path, edits: Edits) -> int:
    """JSON lines, or one JSON list of objects; lines without a change stay as they are; its rows before."""
    with source.open(encoding="utf-8", newline="") as file:
        text = file.read()
    if text.lstrip().startswith("["):
        rows = json.loads(text)
        for row, value in edits.values.items():
            rows[row][edits.column] = value
        kept = [each for row, each in enumerate(rows) if row not in edits.dropped]
        indent = 1 if "\n" in text.strip() else None
        with replacing(out) as target:
            target.write((json.dumps(kept, ensure_ascii=False, indent=indent) + "\n").encode())
        return len(rows)
    row = 0
    with replacing(out) as target:
        for line in io.StringIO(text, newline=""):  # not splitlines, which cuts at more than ends of lines
            if not line.strip():
                target.write(line.encode())
                continue
            if row in edits.values:
                end = line[len(line.rstrip("\r\n")) :]
                line = json.dumps(json.loads(line) | {edits.column: edits.values[row]}, ensure_ascii=False) + end
            if row not in edits.dropped:
                target.write(line.encode())
            row += 1
    return row


WRITERS: Mapping[str, Callable[[Path, Path, Edits], int]] = {
    ".parquet": write_parquet,
    ".csv": write_text_table,
    ".tsv": write_text_table,
    ".jsonl": write_json,
    ".ndjson": write_json,
    ".json": write_json,
}


def edit_array(labels: np.ndarray, edits: Edits) -> np.ndarray:
    """An array of labels with some changed, of a wider type where their texts are longer; no row is left out."""
    values = [str(value) for value in edits.values.values()] if labels.dtype.kind in "US" else []
    made = labels.astype(np.result_type(labels.dtype, np.array(values).dtype)) if values else np.array(labels)
    for row, value in edits.values.items():
        made[row] = value
    return made


def write_array(path: Path, array: np.ndarray) -> None:
    """One .npy file."""
    with replacing(path) as target:
        np.save(target, array, allow_pickle=False)


def edit_arrays(arrays: Mapping[str, np.ndarray], edits: Edits, count: int) -> dict[str, np.ndarray]:
    """Arrays by name (x_train, y_train, ...) with the labels of one split changed and its rows left out in all."""
    labels = [name for name in arrays if name_parts(name)[1] == edits.column and len(arrays[name]) == count]
    label = next((name for name in labels if name_parts(name)[0] == "train"), labels[0] if labels else None)
    if label is None:
        raise UnswayedError(f"an array {edits.column} of {count} labels", got=", ".join(arrays))
    split, kept = name_parts(label)[0], np.setdiff1d(np.arange(count), np.fromiter(edits.dropped, np.int64))
    made = dict(arrays) | {label: edit_array(arrays[label], edits)}
    thinned = {name for name in arrays if name_parts(name)[0] == split and len(arrays[name]) == count}
    return {name: array[kept] if edits.dropped and name in thinned else array for name, array in made.items()}


def write_npz(source: Path, out: Path, edits: Edits, count: int) -> None:
    """An .npz file with the arrays of the old one, compressed if it was."""
    import zipfile

    with zipfile.ZipFile(source) as inside:
        packed = any(info.compress_type != zipfile.ZIP_STORED for info in inside.infolist())
    with np.load(source, allow_pickle=False) as arrays:
        made = edit_arrays({name: arrays[name] for name in arrays.files}, edits, count)
    with replacing(out) as target:
        (np.savez_compressed if packed else np.savez)(target, **made)  # type: ignore[arg-type]


def write_npy_files(files: Mapping[str, Path], folder: Path, edits: Edits, count: int) -> None:
    """A folder of .npy files by the names of their arrays."""
    made = edit_arrays({name: load(file) for name, file in files.items()}, edits, count)
    for name, array in made.items():
        write_array(folder / files[name].name, np.asarray(array))


def _records(lines: IO[str], separator: str) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The records of a table of text as they stand, and a function that cuts each into its cells."""
    pattern = re.compile(rf'"(?:[^"]|"")*"[^{separator}]*|[^{separator}"][^{separator}]*|')
    record = ""
    for line in lines:
        record += line
        body = record.rstrip("\r\n")
        if '"' not in record or _cells(body, separator, pattern) is not None:
            yield record, lambda body=body: _cells(body, separator, pattern) or [body]  # type: ignore[misc]
            record = ""
    if record:  # a quote that is never closed
        raise UnswayedError("quotes that are closed", got=repr(record[:80]), do="repair the table")


def _cells(body: str, separator: str, pattern: re.Pattern[str]) -> list[str] | None:
    """The cells of a record with their quotes; None where it ends within one."""
    cells, at = [], 0
    while True:
        found = pattern.match(body, at)
        assert found is not None  # the pattern takes nothing, too
        at = found.end()
        if at < len(body) and body[at] != separator:
            return None
        cells.append(found.group())
        if at == len(body):
            return cells
        at += 1


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') and cell.endswith('"') and len(cell) > 1 else cell


def _quoted(text: str, separator: str, *, always: bool) -> str:
    needed = always or any(mark in text for mark in (separator, '"', "\n", "\r"))
    return '"' + text.replace('"', '""') + '"' if needed else text
