"""Mixtures of two one-dimensional distributions: which of N numbers belong to the lower part, and how surely.

One mixture over all values, or one for each group (class) of them, all fitted at once: x [N], groups [N] in 0..G-1.
Everything runs on the device of `x`, in double precision where it has one, and gives the same bits every time.

What nothing can be learnt from (fewer than 4 values, or all of them equal) counts as wholly of the lower part: taken
as clean, it is trained on as if nobody had asked. NaN and infinite values take no part in a fit; afterwards a value
beyond the fitted range counts as its nearer end, and NaN belongs to either part with .5.

Up to 100,000 values a fit is exact. More are sorted and gathered into bins of equally many neighbours, 100,000 over
all groups and at least 512 a group; since bins keep their mean and variance, so does the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor

from unswayed.errors import UnswayedError

CELLS, BINS = 100_000, 512  # bins over all groups, and the least a group
LEAST = 4  # values; fewer say nothing
EDGE = 1e-6  # Beta densities have poles at 0 and 1: values stay that far away from them


@dataclass(frozen=True)
class GaussianMixture:
    """Two normal distributions; number 0 is the one of LOWER mean. With groups, every field has a row a group."""

    mean: Tensor  # [2] or [G, 2], in units of x
    variance: Tensor  # [2] or [G, 2]
    weight: Tensor  # [2] or [G, 2], sums to one
    low: Tensor  # the fitted range, [] or [G]
    high: Tensor

    def posterior(self, x: Tensor, groups: Tensor | None = None) -> Tensor:
        """The probability that a value is of the lower part (for losses: clean), `[N]` -> `[N]` in [0, 1].

        It falls with x, but for one well-known flaw: far below the mean of a lower part that is much the narrower one
        it falls again on that side.
        """
        at = _rows(groups, self.mean)
        value = _wide(x).clamp(self.low[at], self.high[at])[..., None]
        return _answer(_share(_log_normal(value, self.mean[at], self.variance[at]), self.weight[at]), x)

    def distribution(self, x: Tensor, groups: Tensor | None = None) -> Tensor:
        """F1(x) and F2(x), the shares of the lower and of the upper part that lie below x: `[N]` -> `[N, 2]`."""
        at = _rows(groups, self.mean)
        value = _wide(x).clamp(self.low[at], self.high[at])[..., None]
        below: Tensor = torch.special.ndtr((value - self.mean[at]) / self.variance[at].sqrt())
        return below.to(_kind(x))


@dataclass(frozen=True)
class BetaMixture:
    """Two Beta distributions on (x - low) / (high - low); number 0 is clean. With groups, a row a group."""

    alpha: Tensor  # [2] or [G, 2]
    beta: Tensor  # [2] or [G, 2]
    weight: Tensor  # [2] or [G, 2], sums to one
    low: Tensor  # the fitted range, [] or [G]
    high: Tensor

    def posterior(self, x: Tensor, groups: Tensor | None = None) -> Tensor:
        """The probability p1 that a value is of the clean part, `[N]` -> `[N]` in [0, 1]; p2 is 1 - p1."""
        at = _rows(groups, self.alpha)
        return _answer(_share(_log_beta(self._unit(x, at), self.alpha[at], self.beta[at]), self.weight[at]), x)

    def distribution(self, x: Tensor, groups: Tensor | None = None) -> Tensor:
        """F1(x) and F2(x), the shares of the clean and of the noisy part that lie below x: `[N]` -> `[N, 2]`."""
        at = _rows(groups, self.alpha)
        return betainc(self.alpha[at], self.beta[at], self._unit(x, at)).to(_kind(x))

    def _unit(self, x: Tensor, at: Tensor | EllipsisType) -> Tensor:
        return _scale(_wide(x), self.low[at], self.high[at]).clamp(EDGE, 1 - EDGE)[..., None]


@torch.no_grad()
def gaussian_mixture(
    x: Tensor,
    groups: Tensor | None = None,
    *,
    classes: int | None = None,
    count: Tensor | None = None,
    rounds: int = 30,
    floor: float = 5e-4,
    start: GaussianMixture | None = None,
) -> GaussianMixture:
    """The mixture of two normal distributions that EM finds in x `[N]`, or in each group of it.

    `classes` is the number of groups (None: the largest of `groups` plus one); `count` `[N]` says how often each value
    occurs (None: once). `floor` is added to each variance in every round, in units of (range of x) squared, as in
    DivideMix (arXiv 2002.07394), which stops after 10 rounds. EM starts from the split in two that leaves the least
    variance within (what 2-means looks for, found exactly), or from the mixture `start`. Raises UnswayedError for
    shapes and numbers that do not fit.

    >>> mixture = gaussian_mixture(torch.tensor([0.1, 0.2, 0.15, 2.0, 2.2, 0.1]))
    >>> mixture.posterior(torch.tensor([0.1, 2.1])).round(decimals=3)
    tensor([1., 0.])
    """
    table = _gather(x, groups, classes, count)
    width = torch.where(table.high > table.low, table.high - table.low, 1.0)[:, None]
    if start is None:
        fit = _moments(table, _best_split(table))
        fit = fit._replace(variance=fit.variance + floor)
    else:
        mean, variance, weight = (_wide(field).reshape(-1, 2) for field in (start.mean, start.variance, start.weight))
        fit = _Moments(weight, (mean - table.low[:, None]) / width, variance / width**2)
    for _ in range(rounds):
        density = _log_normal(table.value[..., None], fit.mean[:, None], fit.variance[:, None])
        fit = _moments(table, _share(density, fit.weight[:, None]), fit)
        fit = fit._replace(variance=fit.variance + floor)
    order = torch.where(table.flat[:, None], torch.arange(2, device=x.device), fit.mean.argsort(dim=1, stable=True))
    weight, mean, variance = (field.gather(1, order) for field in fit)
    mean, variance = table.low[:, None] + mean * width, variance * width**2
    variance = torch.where(table.flat[:, None], torch.ones_like(variance), variance)
    fields = (mean, variance, _trusting(weight, table), table.low, table.high)
    return GaussianMixture(*(field if groups is not None else field[0] for field in fields))


@torch.no_grad()
def beta_mixture(
    x: Tensor,
    groups: Tensor | None = None,
    *,
    classes: int | None = None,
    count: Tensor | None = None,
    rounds: int = 20,
    start: BetaMixture | None = None,
) -> BetaMixture:
    """The mixture of two Beta distributions that EM by moments finds in x `[N]`, or in each group (arXiv 2505.00812).

    `count` `[N]` says how often each value occurs (None: once). `classes` is the number of groups (None: the largest
    of `groups` plus one). Values are scaled to [0, 1] by their range. As published: the start is a clean Beta(1, 2)
    and a noisy Beta(2, 1) of weight 1/2 each, or `start`; densities are at least 1e-6; variances are at least 1e-6;
    and where the clean beta or the noisy alpha falls below 1.02 it is set to 1.1, so that the clean part keeps to the
    low values and the noisy part to the high ones. Raises UnswayedError for shapes and numbers that do not fit.

    >>> counts = torch.tensor([9963, 9469, 6097, 4579, 5578, 14314])  # how many samples were wrong 0, 1, ... 5 times
    >>> mixture = beta_mixture(torch.arange(6), count=counts)
    >>> mixture.posterior(torch.arange(6)).round(decimals=3)
    tensor([1.0000, 0.9450, 0.8810, 0.7680, 0.5260, 0.0000])
    """
    table = _gather(x, groups, classes, count)
    rows, value = len(table.low), table.value.clamp(EDGE, 1 - EDGE)
    first = value.new_tensor([1.0, 2.0]).repeat(rows, 1)
    if start is None:
        alpha, beta, weight = first, first.flip(1), torch.full_like(first, 0.5)
    else:
        alpha, beta, weight = (_wide(field).reshape(-1, 2) for field in (start.alpha, start.beta, start.weight))
    lowest, table = math.log(EDGE), table._replace(value=value)
    fit = _Moments(weight, alpha / (alpha + beta), torch.zeros_like(alpha))
    for _ in range(rounds):
        density = (_log_beta(value[..., None], alpha[:, None], beta[:, None]) + weight[:, None].log()).clamp_min(lowest)
        fit = _moments(table, torch.sigmoid(density[..., 0] - density[..., 1]), fit)
        common = (fit.mean * (1 - fit.mean) / fit.variance.clamp_min(EDGE) - 1).clamp_min(EDGE)
        alpha, beta, weight = (fit.mean * common).clamp_min(EDGE), ((1 - fit.mean) * common).clamp_min(EDGE), fit.weight
        beta[:, 0] = torch.where(beta[:, 0] < 1.02, 1.1, beta[:, 0])
        alpha[:, 1] = torch.where(alpha[:, 1] < 1.02, 1.1, alpha[:, 1])
    alpha = torch.where(table.flat[:, None], first, alpha)
    beta = torch.where(table.flat[:, None], first.flip(1), beta)
    fields = (alpha, beta, _trusting(weight, table), table.low, table.high)
    return BetaMixture(*(field if groups is not None else field[0] for field in fields))


@torch.no_grad()
def betainc(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """The regularised incomplete beta function I_x(a, b), a, b > 0, elementwise with broadcasting -> in [0, 1].

    Lentz's form of the continued fraction, on the side of the mean where it converges fast.

    >>> betainc(torch.tensor(2.0), torch.tensor(1.0), torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """
    a, b, x = (_wide(values).expand_as(a + b + x) for values in (a, b, x))
    upper = x > (a + 1) / (a + b + 2)
    a, b, x = torch.where(upper, b, a), torch.where(upper, a, b), torch.where(upper, 1 - x, x)
    front = torch.xlogy(a, x) + torch.xlogy(b, 1 - x) - _log_beta_function(a, b) - a.log()
    tail = front.exp() * _continued_fraction(a, b, x)
    return torch.where(upper, 1 - tail, tail).clamp(0, 1)


def _continued_fraction(a: Tensor, b: Tensor, x: Tensor, most: int = 3000) -> Tensor:
    tiny, close = torch.finfo(x.dtype).tiny * 1e10, 4 * torch.finfo(x.dtype).eps
    c, d = torch.ones_like(x), 1 / _off_zero(1 - (a + b) * x / (a + 1), tiny)
    h = d
    for m in range(1, most):  # the number of terms grows with the root of the larger parameter
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _off_zero(1 + even * d, tiny), _off_zero(1 + even / c, tiny)
        h = h * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _off_zero(1 + odd * d, tiny), _off_zero(1 + odd / c, tiny)
        h = h * d * c
        if m % 8 == 0 and bool(((d * c - 1).abs() < close).all()):
            break
    return h


def _off_zero(x: Tensor, tiny: float) -> Tensor:
    return torch.where(x.abs() < tiny, tiny, x)


# ---------------------------------------------------------------------------------------------- tables of values


class _Table(NamedTuple):
    """Bins of equally many neighbouring values, a row a group: [G, V], scaled to [0, 1] by the group's range."""

    value: Tensor  # mean of the bin
    spread: Tensor  # variance within it
    often: Tensor  # how many values it holds
    low: Tensor  # [G], 0 where a group is empty
    high: Tensor
    flat: Tensor  # [G] whether nothing can be learnt from this group


class _Moments(NamedTuple):
    """Share, mean and variance of both parts of each group, [G, 2] each."""

    weight: Tensor
    mean: Tensor
    variance: Tensor


def _gather(x: Tensor, groups: Tensor | None, classes: int | None, count: Tensor | None) -> _Table:
    _check(x, groups, classes, count)
    many = 1 if groups is None else classes if classes is not None else int(groups.max()) + 1 if len(groups) else 1
    group = torch.zeros_like(x, dtype=torch.long) if groups is None else groups.long()
    if count is None and not x.is_floating_point() and len(x):
        x, group, count = _tally(x.long(), group)
    wide = _wide(x)
    often = torch.ones_like(wide) if count is None else count.to(wide.dtype)
    good = wide.isfinite() & (often > 0)
    wide, group, often = wide[good], group[good], often[good]
    low = wide.new_full((many,), math.inf).scatter_reduce(0, group, wide, "amin")
    high = wide.new_full((many,), -math.inf).scatter_reduce(0, group, wide, "amax")
    low, high = torch.where(low.isfinite(), low, 0.0), torch.where(low.isfinite(), high, 0.0)
    wide = _scale(wide, low[group], high[group])

    order = wide.argsort()
    if many > 1:
        order = order[group[order].argsort(stable=True)]
    sizes = torch.bincount(group, minlength=many)[:, None]
    bins = min(max(1, int(sizes.max())), max(BINS, CELLS // many))
    lengths = (sizes * torch.arange(bins + 1, device=x.device) // bins).diff(dim=1)
    value, often = wide[order], often[order]
    n = _sums(often, lengths)
    mean = _sums(often * value, lengths) / n.clamp_min(1e-300 if n.dtype == torch.float64 else 1e-30)
    spread = _sums(often * (value - mean.flatten().repeat_interleave(lengths.flatten())) ** 2, lengths) / n.clamp_min(1)
    flat = (n.sum(1) < LEAST) | (high <= low)
    return _Table(mean, spread, n, low, high, flat)


def _tally(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different whole numbers in each group, their groups, and how often each of them occurs."""
    least, span = x.min(), x.max() - x.min() + 1
    keys, count = torch.unique(group * span + x - least, return_counts=True)
    return keys % span + least, keys // span, count


def _sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of successive stretches of `values`: [N], [G, V] -> [G, V]. In one order, so to the same bits on any day."""
    sums: Tensor = torch.segment_reduce(values, "sum", lengths=lengths.flatten(), initial=0.0)
    return sums.view(lengths.shape)


def _best_split(table: _Table) -> Tensor:
    """1 for the bins below the cut that leaves the least variance on its two sides, else 0: [G, V]."""
    below, total = table.often.cumsum(1), table.often.sum(1, keepdim=True)
    moment = (table.often * table.value).cumsum(1)
    gap = moment * total - moment[:, -1:] * below
    between = gap**2 / (below * (total - below)).clamp_min(0.5)
    cut = between.argmax(1, keepdim=True)
    return (torch.arange(table.value.shape[1], device=cut.device) <= cut).to(table.value.dtype)


def _moments(table: _Table, share: Tensor, before: _Moments | None = None) -> _Moments:
    """The moments of both parts, `share` [G, V] of each bin being in part 0; a part without values stays as before."""
    found = []
    for part in (table.often * share, table.often * (1 - share)):
        n = part.sum(1)
        mean = (part * table.value).sum(1) / n.clamp_min(EDGE)
        found.append((n, mean, (part * ((table.value - mean[:, None]) ** 2 + table.spread)).sum(1) / n.clamp_min(EDGE)))
    n, mean, variance = (torch.stack(column, 1) for column in zip(*found, strict=True))
    weight = n / n.sum(1, keepdim=True).clamp_min(EDGE)
    if before is not None:
        mean = torch.where(n > EDGE, mean, before.mean)
        variance = torch.where(n > EDGE, variance, before.variance)
    return _Moments(weight, mean, variance)


def _trusting(weight: Tensor, table: _Table) -> Tensor:
    """The weights, but all on the lower part where there was nothing to learn from."""
    return torch.where(table.flat[:, None], weight.new_tensor([1.0, 0.0]), weight)


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -((x - mean) ** 2 / variance + variance.log()) / 2


def _log_beta(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (a - 1) * x.log() + (b - 1) * torch.log1p(-x) - _log_beta_function(a, b)


def _log_beta_function(a: Tensor, b: Tensor) -> Tensor:
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def _share(density: Tensor, weight: Tensor) -> Tensor:
    """The posterior of part 0 from the log densities of both parts, [..., 2] -> [...]."""
    both = density + weight.log()
    return torch.sigmoid(both[..., 0] - both[..., 1])


def _answer(posterior: Tensor, x: Tensor) -> Tensor:
    return torch.where(x.isnan(), 0.5, posterior).to(_kind(x))


def _scale(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """To [0, 1]; the middle for NaN, and where there is no range."""
    known = (high > low) & ~x.isnan()
    return torch.where(known, (x - low) / torch.where(known, high - low, 1.0), 0.5).clamp(0, 1)


def _rows(groups: Tensor | None, field: Tensor) -> Tensor | EllipsisType:
    if (groups is None) != (field.dim() == 1):
        raise UnswayedError(
            "groups for a mixture of groups, and none for a single mixture",
            got="no groups" if groups is None else f"groups of shape {list(groups.shape)}",
        )
    return ... if groups is None else groups.long()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def _kind(x: Tensor) -> torch.dtype:
    """What answers about `x` are given in: single precision at least."""
    return torch.promote_types(x.dtype, torch.float32)


def _check(x: Tensor, groups: Tensor | None, classes: int | None, count: Tensor | None) -> None:
    if x.dim() != 1 or x.dtype == torch.bool or x.is_complex():
        raise UnswayedError("numbers of shape [N]", got=f"{x.dtype} of shape {list(x.shape)}")
    if classes is not None and (classes < 1 or groups is None):
        raise UnswayedError("classes is the number of groups, at least 1", got=classes, do="give groups with it")
    if groups is not None:
        if groups.shape != x.shape or groups.is_floating_point() or groups.dtype == torch.bool:
            got = f"{groups.dtype} of shape {list(groups.shape)}"
            raise UnswayedError(f"groups are integers of shape [{len(x)}]", got=got)
        if len(groups) and (int(groups.min()) < 0 or (classes is not None and int(groups.max()) >= classes)):
            most = "" if classes is None else f"..{classes - 1}"
            raise UnswayedError(f"groups from 0{most}", got=f"{int(groups.min())}..{int(groups.max())}")
    if count is not None and (count.shape != x.shape or bool((count < 0).any())):
        raise UnswayedError(f"counts of 0 or more, of shape [{len(x)}]", got=f"shape {list(count.shape)}")
