"""One epoch of batches, as a pure function of the seed: nothing random has to be remembered between steps."""

from __future__ import annotations

import hashlib
import math
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from unswayed.data.columns import send
from unswayed.data.orders import Order, ReadAhead, Shuffle, draw_order
from unswayed.errors import UnswayedError
from unswayed.machine import Place
from unswayed.method import Batch, Data

T = TypeVar("T")
TOGETHER, MOST_BYTES = 16, 2**26  # steps whose rows a GPU fetches at once, and bytes of these


class Augment(Protocol):
    """A way to show a row: parameters are drawn for all processes at once, then applied to this one's rows."""

    def draw(self, n: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Parameters for n rows, [n, ...] each."""
        ...

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Rows [B, ...] shown as the parameters, [B, ...] each, say."""
        ...


def seed_of(*numbers: int) -> int:
    """One seed from several numbers (run, epoch, step, ...): any change gives an unrelated one.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def count_steps(parts: tuple[Data, ...], size: int, world: int = 1) -> int:
    """The steps of an epoch: the longest part is seen once, in batches of `size` rows at the most.

    Two rows a process are the least, for batch normalisation: where `size` is that small, a batch may have one more.
    """
    return max(min(-(-len(part) // size), max(1, len(part) // (2 * world))) for part in parts)


def epoch_batches(
    parts: tuple[Data, ...],
    size: int,
    views: tuple[str, ...],
    augment: Mapping[str, Augment],
    seed: int,
    place: Place,
    *,
    epoch: int,
    progress: Callable[[float], float],
    first: int = 0,
    shuffle: Shuffle = "rows",
) -> Generator[tuple[tuple[Batch, ...], float, int]]:
    """One epoch from step `first` on: one batch a part, this process's share of the rows, and how many these are.

    The longest part is cut into steps of nearly equal size (no tiny last batch, which would upset batch
    normalisation); shorter parts go round again. All processes draw the same orders and augmentations and take their
    slice. The share, world * own rows / all rows, makes the mean of the processes' gradients the gradient of the whole
    (with several parts nearly so: each has a share of its own, which differs where its rows do not divide evenly).
    `shuffle`: see `draw_order`.
    """
    steps, device = count_steps(parts, size, place.world), parts[0].y.device
    drawn = [_order(part, size, steps, seed_of(seed, number), place, shuffle) for number, part in enumerate(parts)]
    ahead = [
        ReadAhead(part.x, order, len(order.shown) * first // steps) for part, order in zip(parts, drawn, strict=True)
    ]
    orders = [send(order.shown, device) for order in drawn]
    together = steps_together(parts, size, place)
    for begin in range(first, steps, together):
        chunk = range(begin, min(begin + together, steps))
        generators = [torch.Generator().manual_seed(seed_of(seed, step, 1)) for step in chunk]
        columns = []  # a part each: its rows, and what is shown of them, step by step
        for part, order, reader in zip(parts, orders, ahead, strict=True):
            cuts = [_Cut.of(len(order), step, steps, place) for step in chunk]
            reader.upto(cuts[-1].first + cuts[-1].rows)
            columns.append((cuts, _shown(part, order, cuts, views, augment, generators, place)))
        for number, step in enumerate(chunk):
            clock, mine = progress(step / steps), sum(cuts[number].mine for cuts, _ in columns)
            rows = sum(cuts[number].rows for cuts, _ in columns)
            group = tuple(Batch(*shown[number], epoch, clock) for _, shown in columns)
            yield group, mine * place.world / rows, rows


def steps_together(parts: tuple[Data, ...], size: int, place: Place) -> int:
    """How many steps' rows are fetched and augmented in one pass: several where passes cost more than their work.

    On a GPU 16, so that an epoch launches a sixteenth of the small kernels and copies, within 64 MiB of rows; one on a
    processor, and one where rows come from outside memory. What is shown is the same: each row has its own parameters.
    """
    if place.device.type == "cpu" or not all(part.x.in_memory for part in parts):
        return 1
    row = max(math.prod(part.x.shape) * part.x.dtype.itemsize for part in parts)
    return max(1, min(TOGETHER, MOST_BYTES // max(1, row * size)))


@dataclass(frozen=True)
class _Cut:
    """The rows of a step in an epoch's order: all of them, and this process's share."""

    first: int
    rows: int
    own: slice  # among the rows of the step

    @classmethod
    def of(cls, total: int, step: int, steps: int, place: Place) -> _Cut:
        first = total * step // steps
        rows = total * (step + 1) // steps - first
        return cls(first, rows, slice(rows * place.rank // place.world, rows * (place.rank + 1) // place.world))

    @property
    def mine(self) -> int:
        return int(self.own.stop - self.own.start)

    def take(self, order: Tensor) -> Tensor:
        return order[self.first + self.own.start : self.first + self.own.stop]


Shown = tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]  # views, y, index, weight


def _shown(
    part: Data,
    order: Tensor,
    cuts: Sequence[_Cut],
    views: tuple[str, ...],
    augment: Mapping[str, Augment],
    generators: Sequence[torch.Generator],
    place: Place,
) -> list[Shown]:
    """What several steps show of a part: fetched and augmented in one pass, then cut."""
    at = _joined([cut.take(order) for cut in cuts])
    x = send(part.x.rows(at), place.device)
    shown = [_show(x, augment.get(view), cuts, generators) for view in views]
    columns = (part.y[at], part.index[at], part.weight[at])
    if len(cuts) == 1:
        return [(tuple(shown), *columns)]
    sizes = [cut.mine for cut in cuts]
    once = {id(view): torch.split(view, sizes) for view in shown}  # a view that is shown twice stays one tensor
    pieces = [once[id(view)] for view in shown]
    y, index, weight = (torch.split(column, sizes) for column in columns)
    return [(tuple(piece[n] for piece in pieces), y[n], index[n], weight[n]) for n in range(len(cuts))]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def look_ahead(items: Iterator[T], depth: int = 2) -> Generator[T]:
    """The same items, made by a thread up to `depth` ahead: reading and decoding go on while the network learns.

    The thread ends with the items, or when the generator is closed.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="look-ahead") as thread:
        waiting = deque(thread.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, items, None))
            yield item


def _order(part: Data, size: int, steps: int, seed: int, place: Place, shuffle: Shuffle) -> Order:
    rows, generator = len(part), torch.Generator().manual_seed(seed)
    wanted = rows if count_steps((part,), size, place.world) == steps else steps * min(size, rows)
    return draw_order(part.x, wanted, generator, shuffle)


def _show(x: Tensor, augment: Augment | None, cuts: Sequence[_Cut], generators: Sequence[torch.Generator]) -> Tensor:
    if augment is None:
        return x
    drawn = [augment.draw(cut.rows, generator) for cut, generator in zip(cuts, generators, strict=True)]
    own = [{name: values[cut.own] for name, values in params.items()} for cut, params in zip(cuts, drawn, strict=True)]
    return augment.apply(x, {name: _joined([params[name] for params in own]) for name in own[0]})


def check_parts(parts: Data | tuple[Data, ...], stage: str, place: Place) -> tuple[Data, ...]:
    """The parts of a stage as a tuple; a part too small to train on raises."""
    parts = parts if isinstance(parts, tuple) else (parts,)
    for number, part in enumerate(parts):
        if len(part) < 2 * place.world:
            raise UnswayedError(
                f"at least 2 rows a process in part {number + 1} of stage '{stage}'",
                got=len(part),
                do="give more data, or let the method fall back on all rows where its selection is empty",
            )
    return parts
