"""From scores to masks: the best edges, or a draw, with exactly the share asked for. Shapes [out, in] -> [out, in]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def keep_best(scores: Tensor, keep: float, scope: str = "class") -> Tensor:
    """The mask (1 = kept, else 0) of the share `keep` of the edges that score highest, [out, in] -> [out, in].

    Of n competing edges exactly max(1, keep * n rounded to the nearest whole number, halves up) are kept. Equal scores:
    the lowest index is kept, on every device. NaN counts as 0.

    >>> keep_best(torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]]), 0.5).tolist()
    [[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    """
    if scope == "input":
        return _best_of_rows(scores.t().contiguous(), keep).t().contiguous()
    if scope == "global":
        return _best_of_rows(scores.reshape(1, -1), keep).reshape(scores.shape)
    return _best_of_rows(scores.contiguous(), keep)


def draw_keys(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Random keys whose k highest are a draw of k edges without replacement, [out, in] -> [out, in].

    The chance of an edge is proportional to score ** (1 / temperature) (the Gumbel top-k trick). An edge of score 0 is
    drawn only when no other is left; which one is then random. NaN counts as 0.
    """
    tiny = torch.finfo(scores.dtype).tiny
    scores = scores.nan_to_num(nan=0.0, posinf=torch.inf)
    chance = scores.clamp_min(tiny).log_().div_(temperature).sub_((scores <= 0).to(scores.dtype), alpha=_LAST)
    return chance.sub_(torch.empty_like(chance).exponential_().log_())


def fewest(scores: Tensor, mass: float, scope: str = "class") -> Tensor:
    """How few edges of each competing group hold the share `mass` of its total score, [out, in] -> [groups, 1].

    One at least. Scores below 0, and NaN, count as 0.

    >>> fewest(torch.tensor([[6.0, 3.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), 0.9).tolist()
    [[2], [4], [1]]
    """
    table = _groups(scores, scope).nan_to_num(nan=0.0, posinf=torch.finfo(scores.dtype).max).clamp_min(0)
    table = table / table.amax(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)  # so that no sum overflows
    larger = table.sort(1, descending=True).values.cumsum(1)
    enough = mass * larger[:, -1:] * (1 - _ROUNDING)
    return ((larger < enough).sum(1, keepdim=True) + 1).clamp_max(table.shape[1])


def keep_counted(keys: Tensor, counts: Tensor, scope: str = "class") -> Tensor:
    """The mask of as many edges as `counts` [groups, 1] says, those with the highest keys; else as `keep_best`.

    >>> keep_counted(torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]]), torch.tensor([[2], [1]])).tolist()
    [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    table = _groups(keys, scope).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    order = table.argsort(stable=True, dim=1, descending=True)
    rank = torch.arange(table.shape[1], device=table.device)
    kept = torch.empty_like(table).scatter_(1, order, (rank < counts).to(table.dtype))
    return kept.t().contiguous() if scope == "input" else kept.view(keys.shape)


def _groups(table: Tensor, scope: str) -> Tensor:
    """The edges that compete in one row each."""
    return table.t() if scope == "input" else table.reshape(1, -1) if scope == "global" else table


_ROUNDING = 1e-6  # a sum of float32 may fall this much short
_COUNTABLE = 2**24  # beyond it a float32 sum of ones is not exact
# Far below every log-chance that matters, yet near enough to 0 for float32 to still tell two Gumbel draws apart.
_LAST = 1e3


def _best_of_rows(table: Tensor, keep: float) -> Tensor:
    count = max(1, int(keep * table.shape[1] + 0.5))
    if count >= table.shape[1]:
        return torch.ones_like(table)
    if _on_cpu(table):
        # Straight into floating point: a step multiplies by it, and comparing to bool alone takes three times as long.
        kept = torch.ge(table, _kth_largest(table, count), out=torch.empty_like(table))
        if table.shape[1] < _COUNTABLE and bool((kept.sum(1) == count).all()):
            return kept
    # Ties or NaN. On a GPU always: to ask whether there are any would make the host wait.
    table = table.nan_to_num(nan=0.0)
    threshold = _kth_largest(table, count)
    above, equal = table > threshold, table == threshold
    room = count - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= room))).to(table.dtype)


def _kth_largest(table: Tensor, count: int) -> Tensor:
    if not _on_cpu(table):
        return table.topk(count, dim=1, sorted=False).values.amin(1, keepdim=True)
    place = table.shape[1] - count
    if table.dtype == torch.float32:
        # Floats above 0 are ordered as their bits are, and NumPy partitions whole numbers twice as fast.
        found = _partitioned(table.view(torch.int32), place)
        if bool((found > 0).all()):
            return found.view(torch.float32)
    return _partitioned(table, place)


def _partitioned(table: Tensor, place: int) -> Tensor:
    """[rows, n] -> [rows, 1], what would stand there if the rows were sorted; a fifth of topk's time."""
    return torch.from_numpy(np.partition(table.numpy(), place, axis=1)[:, place : place + 1].copy())  # frees the rest


def _on_cpu(table: Tensor) -> bool:
    return table.device.type == "cpu"
