"""What a reader returns: splits of rows with their given labels, and how to show a row to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from unswayed.data.columns import Column

Kind = Literal["image", "audio", "text", "table"]


@dataclass(frozen=True)
class Preview:
    """One row for a person's eyes and ears: `mime` says what `content` is."""

    mime: str  # "image/png", "audio/wav", "audio/flac", "text/plain"
    content: bytes


@dataclass(frozen=True)
class Split:
    """Rows ready to train on or to be tested on."""

    x: Column
    given: Tensor  # [N] int64: the labels as observed, possibly wrong
    truth: Tensor | None  # [N] int64, -1 where unknown: for scoring only
    rows: Tensor  # [N] int64: the row's number in the user's source, which readers may have thinned
    source: Sequence[object] | None = None  # [N] what a person would look at: text, encoded sound, dict of a table row
    count: int | None = None  # rows of the source, where the reader left some out

    def __len__(self) -> int:
        return len(self.x)

    def take(self, at: Tensor) -> Split:
        """The rows `at`, in that order; the contents of `x` are not copied."""
        source = None if self.source is None else Chosen(self.source, at)
        truth = None if self.truth is None else self.truth[at]
        return Split(self.x.take(at), self.given[at], truth, self.rows[at], source, self.whole)

    @property
    def whole(self) -> int:
        """How many rows the source has, with those that were left out."""
        return len(self) if self.count is None else self.count


class Chosen(Sequence[object]):
    """Some items of a sequence, looked up when asked for."""

    def __init__(self, items: Sequence[object], at: Tensor) -> None:
        self.items, self.at = items, at.tolist()

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, i: Any) -> Any:
        return [self.items[j] for j in self.at[i]] if isinstance(i, slice) else self.items[self.at[i]]


@dataclass(frozen=True)
class Dataset:
    """A labelled data set: what the readers return and experiments train on."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    train: Split
    test: Split | None
    notes: tuple[str, ...] = ()  # what the reader did that a user should know: rows dropped, images resized, ...
    extra: dict[str, Tensor] = field(default_factory=dict)  # further label columns of the training rows, [N] each
    names: Tensor | None = None  # [K, d]: the classes' names, where one encoder made features of them and of the rows
