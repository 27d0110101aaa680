"""Nearest neighbours by cosine, exactly and in bounded memory, and what their labels say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from unswayed.errors import UnswayedError
from unswayed.stats.predictions import Rows

ENTRIES = 2**24  # similarities held at a time: 64 MiB of float32


class Neighbours(NamedTuple):
    """The nearest other rows of every row, nearest first."""

    similarity: Tensor  # [N, k] cosines
    rows: Tensor  # [N, k] positions


@torch.no_grad()
def neighbours(features: Tensor, k: int, *, entries: int = ENTRIES) -> Neighbours:
    """The `k` other rows of highest cosine: `[N, d]` -> `[N, k]` each; all N - 1 others where there are fewer.

    Exact: N^2 d multiplications, `entries` similarities at a time. A row is never its own neighbour. A row of
    zeros has a cosine of 0 with all; entries that are not finite count as 0.

    >>> near = neighbours(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 2.0]]), k=1)
    >>> near.rows[:, 0].tolist()
    [1, 0, 1]
    """
    if features.dim() != 2 or len(features) < 2 or not features.is_floating_point():
        got = f"{features.dtype} of shape {list(features.shape)}"
        raise UnswayedError("features of two rows or more, floating point numbers [N, d]", got=got)
    if k < 1:
        raise UnswayedError("one neighbour or more", got=k)
    unit = unit_rows(features)
    return _nearest(unit, unit, min(k, len(unit) - 1), entries, others=True)


@torch.no_grad()
def nearest(queries: Tensor, unit: Tensor, k: int, *, entries: int = ENTRIES) -> Neighbours:
    """The `k` rows of highest cosine for rows that are not among them: `[M, d]`, `unit_rows` `[N, d]` -> `[M, k]` each.

    All N where there are fewer. Exact, and in bounded memory, as `neighbours`.

    >>> nearest(torch.tensor([[3.0, 1.0]]), unit_rows(torch.tensor([[1.0, 0.0], [0.0, 2.0]])), k=1).rows.tolist()
    [[0]]
    """
    return _nearest(unit_rows(queries), unit, min(k, len(unit)), entries, others=False)


def unit_rows(features: Tensor) -> Tensor:
    """Rows of length 1, `[N, d]` -> `[N, d]` float32; a row of zeros stays, entries that are not finite count as 0."""
    return normalize(torch.nan_to_num(features.float(), 0.0, 0.0, 0.0), dim=1)


def _nearest(queries: Tensor, unit: Tensor, most: int, entries: int, *, others: bool) -> Neighbours:
    """`others`: the queries are the rows themselves, and none is its own neighbour."""
    similarity = unit.new_empty(len(queries), most)
    index = torch.empty(len(queries), most, dtype=torch.int64, device=unit.device)
    size = max(1, entries // len(unit))
    with torch.autocast(unit.device.type, enabled=False):  # half precision would tie neighbours that differ
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            cosine = part @ unit.T
            if others:
                at = torch.arange(len(part), device=unit.device)
                cosine[at, start + at] = -torch.inf
            similarity[start : start + size], index[start : start + size] = cosine.topk(most, dim=1)
    return Neighbours(similarity, index)


@torch.no_grad()
def label_vote(y: Tensor, index: Tensor, classes: int, weight: Tensor | None = None) -> Tensor:
    """The share of each class among the neighbours' labels: labels `[N]` or `[N, K]`, `index` `[M, k]` -> `[M, K]`.

    Neighbours count alike, or by `weight` `[M, k]` (0 or more, as of similarities); a row whose weights are all 0
    gets 1 / K everywhere.

    >>> label_vote(torch.tensor([0, 1, 1]), torch.tensor([[0, 1, 2, 1]]), classes=2)
    tensor([[0.2500, 0.7500]])
    """
    if weight is None:
        weight = torch.ones(index.shape, device=index.device)
    votes = torch.zeros(len(index), classes, device=index.device)
    if y.dim() == 1:
        votes.scatter_add_(1, y[index], weight.float())
    else:
        for column in range(index.shape[1]):  # all at once would be [M, k, K]
            votes += weight[:, column, None] * y[index[:, column]]
    total = votes.sum(1, keepdim=True)
    return torch.where(total > 0, votes / total.clamp_min(torch.finfo(votes.dtype).tiny), 1 / classes)


@torch.no_grad()
def prototypes(features: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sums of the unit vectors of each class, and how many: `[N, d]`, labels `[N]` or `[N, K]` -> `[K, d]`, `[K]`.

    The direction of a sum is the class prototype: the one closest, by mean cosine, to the rows of its class.
    """
    unit = unit_rows(features)
    if y.dim() == 2:
        return y.float().T @ unit, y.float().sum(0)
    sums = unit.new_zeros(classes, unit.shape[1]).index_add_(0, y, unit)
    return sums, torch.bincount(y, minlength=classes).to(unit.dtype)


@torch.no_grad()
def prototype_agreement(features: Rows, y: Tensor, classes: int) -> Tensor:
    """Cosine of each row with the prototype of its label, minus the mean over all rows and classes: -> `[N]`.

    The prototype is the direction of the sum of all other unit vectors of that label; the only row of a label agrees
    with nothing, s = 0. Features `[N, d]` may be a memory-mapped array: they are read twice, in chunks.

    >>> x = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> prototype_agreement(x, torch.tensor([0, 0, 1, 1]), 2)
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    sums, counts = torch.zeros(classes, features.shape[1], device=y.device), torch.zeros(classes, device=y.device)
    for rows, unit in unit_chunks(features):
        part, many = prototypes(unit, y[rows], classes)
        sums, counts = sums + part, counts + many
    own = torch.empty(len(y), device=y.device)
    for rows, unit in unit_chunks(features):
        rest = normalize(sums[y[rows]] - unit, dim=1)
        own[rows] = (unit * rest).sum(1) * (counts[y[rows]] > 1)
    occurring = normalize(sums, dim=1)[counts > 0]
    return own - (sums.sum(0) / len(y)) @ occurring.mean(0)


def unit_chunks(features: Rows, entries: int = ENTRIES // 4) -> Iterator[tuple[slice, Tensor]]:
    """Where these rows are, and they as `unit_rows`, so many numbers at a time: of `[N, d]` in memory or in a file."""
    size = max(1, entries // max(1, features.shape[1]))
    for start in range(0, len(features), size):
        rows = slice(start, min(start + size, len(features)))
        part = features[rows]
        yield rows, unit_rows(part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part)))
