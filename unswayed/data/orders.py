"""In which order an epoch shows the rows of a column, and what is read ahead for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from unswayed.data.columns import Column

Shuffle = Literal["rows", "blocks"]
POOL = 256  # blocks whose rows are shuffled among each other: 256 MiB, which the system's cache holds, and not we


@dataclass(frozen=True)
class Order:
    """The rows of an epoch as they are shown, and as they are read."""

    shown: Tensor  # [n] numbers of rows
    reading: Tensor | None = None  # [n] the same rows, in blocks of neighbours; None: they are read when they are shown
    pool: int = 0  # rows that are shuffled among each other


def draw_order(x: Column, wanted: int, generator: Generator, shuffle: Shuffle = "rows") -> Order:
    """The order of `wanted` rows: all of `x` once, again and again until there are enough.

    "rows": any order is as probable as any other. "blocks": where `x` is read in blocks (rows of a file beyond memory),
    blocks of neighbours come in any order and 256 of them are shuffled among each other, from a border that differs
    each time, so that the file is read in pieces of a megabyte. What lies in memory is shuffled by rows all the same.
    """
    rows, block = len(x), x.block
    rounds = range(-(-wanted // rows))
    if shuffle == "rows" or not 1 < block < rows:
        return Order(torch.cat([torch.randperm(rows, generator=generator) for _ in rounds])[:wanted])
    drawn = [_in_blocks(rows, block, generator) for _ in rounds]
    shown, reading = (torch.cat(parts)[:wanted] for parts in zip(*drawn, strict=True))
    return Order(shown, reading, block * POOL)


def _in_blocks(rows: int, block: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """All rows once, as shown and as read: [rows] each."""
    shift = int(torch.randint(block, (), generator=generator))
    starts = torch.randperm(-(-(rows + shift) // block), generator=generator) * block - shift
    reading = (starts[:, None] + torch.arange(block)).flatten()
    reading = reading[(reading >= 0) & (reading < rows)]
    pools = torch.split(reading, block * POOL)
    return torch.cat([pool[torch.randperm(len(pool), generator=generator)] for pool in pools]), reading


class ReadAhead:
    """Tells a column which rows come: always a pool ahead of those that are shown, a little with every step."""

    def __init__(self, x: Column, order: Order, start: int = 0) -> None:
        self._x, self._order = x, order
        self._done = start - start % order.pool if order.pool else 0

    def upto(self, shown: int) -> None:
        """Announce what is read while the rows before `shown` are."""
        if self._order.reading is not None and shown + self._order.pool > self._done:
            self._x.expect(self._order.reading[self._done : shown + self._order.pool])
            self._done = shown + self._order.pool
