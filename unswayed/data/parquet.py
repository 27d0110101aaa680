"""Parquet files without the library `datasets`: what pyarrow alone can say of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a file declares of a column: the names of its classes."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """An Arrow table under the names that `datasets.Dataset` has for the same."""

    table: Any
    features: dict[str, Kind]

    def with_format(self, name: str) -> Any:
        """The rows themselves."""
        return self.table


def read_parquet(files: Sequence[Path]) -> Table:
    """All rows of the files, one after the other, with the class names that their first one declares."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.read_table(file) for file in files]
    whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    declared = json.loads((tables[0].schema.metadata or {}).get(b"huggingface", b"{}"))
    features = declared.get("info", {}).get("features") or {}
    return Table(whole, {name: Kind(tuple(kind["names"])) for name, kind in features.items() if "names" in kind})
