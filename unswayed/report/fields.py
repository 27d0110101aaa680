"""Reading JSON objects field by field: every error names the file, the field, what was expected and what came."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unswayed.errors import UnswayedError

Matrix = NDArray[np.float64]
ROUNDING = 1e-5  # what single precision leaves of a sum that should be 0 or 1
_MISSING: Any = object()


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises UnswayedError naming the file where it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UnswayedError(f"{path}: expected a readable file", got=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise UnswayedError(
            f"{path}: expected JSON",
            got=f"a damaged file ({error})",
            do="run that arm and seed again, or remove its folder",
        ) from error


class Fields:
    """One JSON object of a file. Numbers that are null or absent by permission come back as NaN."""

    def __init__(self, path: Path, place: str, value: Any) -> None:
        self.path, self.place = path, place
        if not isinstance(value, dict):
            raise self._error(place or "the file", "an object", value)
        self._value: dict[str, Any] = value

    def _error(self, place: str, expected: str, got: Any) -> UnswayedError:
        shown = "nothing" if got is _MISSING else repr(got)
        return UnswayedError(
            f"{self.path}: {place} should be {expected}",
            got=shown if len(shown) <= 80 else shown[:77] + "...",
            do="run that arm and seed again, or remove its folder",
        )

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _take(self, key: str, expected: str, kinds: tuple[type, ...], default: Any = _MISSING) -> Any:
        value = self._value.get(key, _MISSING)
        if (value is _MISSING or value is None) and default is not _MISSING:
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self._error(self._name(key), expected, value)
        return value

    def text(self, key: str, default: str = _MISSING) -> str:
        """A string."""
        return str(self._take(key, "text", (str,), default))

    def flag(self, key: str) -> bool | None:
        """True, false, or None where null or absent."""
        value = self._take(key, "true, false or null", (bool,), None)
        return None if value is None else bool(value)

    def whole(self, key: str, default: int = _MISSING) -> int:
        """A whole number; 3.0 counts as one."""
        value = self._take(key, "a whole number", (int, float), default)
        if value != value or value in (math.inf, -math.inf) or value != int(value):
            raise self._error(self._name(key), "a whole number", value)
        return int(value)

    def number(self, key: str, default: float = _MISSING) -> float:
        """A number, NaN and infinities included."""
        return float(self._take(key, "a number", (int, float), default))

    def share(self, key: str, default: float = _MISSING) -> float:
        """A number in [0, 1], up to rounding, or NaN."""
        value = self.number(key, default)
        if value < -ROUNDING or value > 1 + ROUNDING:
            raise self._error(self._name(key), "a share in [0, 1]", value)
        return min(max(value, 0.0), 1.0)

    def names(self, key: str) -> tuple[str, ...]:
        """A list of strings; numbers in it are turned into text. Empty where absent."""
        values = self._take(key, "a list of texts", (list,), [])
        for value in values:
            if not isinstance(value, (str, int, float)):
                raise self._error(self._name(key), "a list of texts", values)
        return tuple(str(value) for value in values)

    def table(self, key: str) -> dict[str, Any]:
        """An object of any content; empty where absent."""
        return dict(self._take(key, "an object", (dict,), {}))

    def inner(self, key: str) -> Fields | None:
        """The object under `key`, or None where null or absent."""
        value = self._take(key, "an object or null", (dict,), None)
        return None if value is None else Fields(self.path, self._name(key), value)

    def rows(self, key: str) -> Iterator[Fields]:
        """The objects of a list; nothing where absent."""
        values = self._take(key, "a list of objects", (list,), [])
        return (Fields(self.path, f"{self._name(key)}[{i}]", value) for i, value in enumerate(values))

    def numbers(self, key: str, width: int) -> list[tuple[float, ...]]:
        """A list of rows of `width` finite numbers (0: of single numbers, as rows of one); empty where absent."""
        found = []
        for value in self._take(key, "a list of numbers", (list,), []):
            row = value if width and isinstance(value, list) else [value]
            good = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in row)
            if not good or len(row) != max(1, width):
                raise self._error(self._name(key), f"rows of {width} numbers" if width else "a list of numbers", value)
            found.append(tuple(float(v) for v in row))
        return found

    def matrix(self, key: str, size: int) -> Matrix | None:
        """A matrix `[size, size]` of numbers that are not negative; None where null or absent."""
        values = self._take(key, "a matrix or null", (list,), None)
        if values is None:
            return None
        try:
            matrix = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._error(self._name(key), "a matrix of numbers", values) from None
        if matrix.shape != (size, size):
            raise self._error(self._name(key), f"{size} rows of {size} numbers", f"a shape of {matrix.shape}")
        if not (np.nan_to_num(matrix) >= -ROUNDING).all():
            raise self._error(
                self._name(key), "a matrix without negative numbers", f"a least entry of {np.nanmin(matrix)}"
            )
        clipped: Matrix = matrix.clip(0)
        return clipped
