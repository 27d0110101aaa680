"""The rows of an audit as a person looks at them: pictures, sounds, texts, cells; read when first asked for."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from unswayed.auditing.table import Audit
from unswayed.data.build import source_of
from unswayed.data.dataset import Kind, Preview
from unswayed.data.entry import look
from unswayed.data.images import to_pixels, to_png
from unswayed.data.labels import read_labels
from unswayed.data.media import content
from unswayed.data.raw import Raw
from unswayed.data.roles import Roles, media_cells
from unswayed.data.show import show_item
from unswayed.errors import UnswayedError

THUMBNAIL = 112  # pixels, twice what the list shows
_EXCERPT = 160
_LONGEST = 20_000
_READER = ("input", "label", "truth", "test", "split", "root", "kind", "extra", "cache")
_WEB = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"BM": "image/bmp"}


@dataclass(frozen=True)
class Source:
    """The training rows of the data that were audited, and what of them is shown."""

    raw: Raw
    roles: Roles
    items: Sequence[object]


class Rows:
    """What a person sees of the rows of an audit. `data` is where the data lie now, if not where the audit says."""

    def __init__(self, audit: Audit, data: str | None = None) -> None:
        self.audit, self.data = audit, data
        self._lock = threading.Lock()
        self.thumbnail: Callable[[int], Preview] = lru_cache(2_000)(self._thumbnail)

    @property
    def config(self) -> dict[str, Any] | None:
        """How the data are read; None where the audit was of labels and probabilities alone."""
        found = self.audit.about.get("config")
        return None if found is None else dict(found)

    @property
    def source(self) -> Source:
        """The data, read now; raises UnswayedError where they cannot be read, or are not those that were audited."""
        with self._lock:
            return self._source

    @property
    def kind(self) -> Kind:
        """Image, audio, text or table."""
        return self.source.roles.kind

    def show(self, at: int) -> Preview:
        """The row at a position of the audit, as large as it is."""
        source = self.source
        item = source.items[self.position(at)]
        return _picture(item) if source.roles.kind == "image" else show_item(item, source.roles.kind)

    def excerpt(self, at: int) -> str:
        """A line of text for the list: the start of a text, the first cells of a table's row; "" for other kinds."""
        if self.kind not in ("text", "table"):
            return ""
        item = self.source.items[self.position(at)]
        words = ", ".join(f"{k} {_short(v)}" for k, v in item.items()) if isinstance(item, dict) else str(item)
        return " ".join(words[: 4 * _EXCERPT].split())[:_EXCERPT]

    def reading(self, at: int) -> dict[str, Any]:
        """What a card says of a row in words: {"text": ...}, {"cells": {name: text}}, or nothing for other kinds."""
        if self.kind not in ("text", "table"):
            return {}
        item = self.source.items[self.position(at)]
        if isinstance(item, dict):
            return {"cells": {str(name): _short(value) for name, value in item.items()}}
        return {"text": str(item)[:_LONGEST]}

    def position(self, at: int) -> int:
        """Where the row at a position of the audit lies among the rows of the source."""
        return int(self._places[at])

    @cached_property
    def _places(self) -> np.ndarray:
        raw = self.source.raw
        numbers = raw.numbers()
        rows = self.audit.rows.numpy()
        found = np.searchsorted(numbers, rows)
        found[found == len(numbers)] = 0
        if not np.array_equal(numbers[found], rows):
            raise _changed(raw.where, f"{len(numbers)} rows, without row {rows[numbers[found] != rows][0]}")
        return np.asarray(found)

    @cached_property
    def _source(self) -> Source:
        config = self.config
        if config is None:
            raise UnswayedError("data to show", got="an audit of labels and probabilities alone")
        settings = {name: value for name, value in config.get("reader", {}).items() if name in _READER}
        raw, roles = look(self.data or config["data"], **settings | {"test": False})
        items: Any = source_of(raw, roles)
        if roles.kind == "image":
            items = media_cells(raw, roles.input[0], roles.kind)
            if isinstance(items, np.ndarray) and items.ndim > 1:
                items = to_pixels(items, roles.input[0])
        return Source(raw, roles, items)

    def codes(self) -> np.ndarray:
        """The labels that the source holds now, as numbers of the audit's classes, -1 where missing: [rows]."""
        raw, roles = self.source.raw, self.source.roles
        labels = read_labels(raw.columns[roles.label], declared_names(raw, roles), column=roles.label)
        return labels.encode(self.audit.classes)

    def check(self) -> None:
        """Raise UnswayedError where the data are no longer those that were audited.

        Where the audit planted wrong labels itself, given labels differ by intention: only rows are compared.
        """
        places, config = self._places, self.config or {}
        if config.get("noise") is None and config.get("trusted") is None:
            differing = np.flatnonzero(self.codes()[places] != self.audit.given.numpy())
            if len(differing):
                raise _changed(self.source.raw.where, f"other labels in {len(differing)} rows")

    def _thumbnail(self, at: int) -> Preview:
        shown = self.show(at)
        if not shown.mime.startswith("image/"):
            return shown
        with Image.open(io.BytesIO(shown.content)) as image:
            if max(image.size) <= THUMBNAIL:
                return shown
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=85)
        return Preview("image/jpeg", buffer.getvalue())


def declared_names(raw: Raw, roles: Roles) -> tuple[str, ...] | None:
    """The class names that the source declares for its numbered labels."""
    cells = raw.columns[roles.label]
    numbered = isinstance(cells, np.ndarray) and cells.dtype.kind in "iu"
    return raw.names.get(roles.label) or (raw.names.get(roles.truth or "") if numbered else None)


def _picture(item: object) -> Preview:
    """A picture as browsers show it: its own bytes where they can, else a PNG."""
    if isinstance(item, np.ndarray):
        return Preview("image/png", to_png(item))
    data = content(item)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Preview("image/webp", data)
    for head, mime in _WEB.items():
        if data.startswith(head):
            return Preview(mime, data)
    with Image.open(io.BytesIO(data)) as image:
        buffer = io.BytesIO()
        ImageOps.exif_transpose(image).convert("RGB").save(buffer, "PNG")
    return Preview("image/png", buffer.getvalue())


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _changed(where: str, got: str) -> UnswayedError:
    return UnswayedError(f"the data that were audited, {where}", got=got, do="audit them anew, or name them by --data")
