"""How many labels are wrong and which become which: what several estimates agree on, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unswayed.auditing.table import Interval, Noise

USUAL = (0.08, 0.385)
"""Shares of wrong labels in real data sets, from the survey arXiv 2007.08199; taken for the middle 80 %."""


class Rate(NamedTuple):
    """A noise rate on the scale of log-odds: a normal distribution."""

    centre: float
    deviation: float
    spread: float  # variance between the estimates that it was made of

    @property
    def value(self) -> float:
        """The estimate itself, a share."""
        return 1 / (1 + math.exp(-self.centre))

    def interval(self, rows: int) -> Interval:
        """Where the share of wrong labels among `rows` is with 95 %."""
        wide = 1.96 * self.total_deviation(rows)
        low, high = (1 / (1 + math.exp(-self.centre + sign * wide)) for sign in (1, -1))
        return Interval(self.value, low, high)

    def total_deviation(self, rows: int) -> float:
        """The deviation with what so few rows leave open."""
        share = self.value
        return math.hypot(self.deviation, 1 / math.sqrt(max(rows * share * (1 - share), 1.0)))


def agree(estimates: Mapping[str, float], weights: Mapping[str, float]) -> Rate:
    """One rate from the voices' mean suspicions: by position, by clouds and by transition matrix.

    The transition matrix counts twice its weight, the clouds theirs; position alone, which takes every hard row for a
    wrong label, bounds from above and tells only of the spread. How far the three lie apart says how little the labels
    tell: then what is usual for real data (8 to 38.5 % wrong) counts. Where they agree it counts nothing.
    """
    odds = {name: _logit(value) for name, value in estimates.items()}
    share = {name: weights[name] * (2 if name == "noise" else 1) for name in odds if name != "position"}
    centre = sum(share[name] * odds[name] for name in share) / sum(share.values())
    middle = sum(odds.values()) / len(odds)
    spread = sum((value - middle) ** 2 for value in odds.values()) / max(len(odds) - 1, 1)
    spread = max(spread, 1e-4)
    low, high = map(_logit, USUAL)
    usual, wide = (low + high) / 2, ((high - low) / 2 / 1.2816) ** 2
    precision = 1 / spread + 1 / wide
    return Rate((centre / spread + usual / wide) / precision, precision**-0.5, spread)


def _logit(value: float) -> float:
    value = min(max(value, 1e-4), 1 - 1e-4)
    return math.log(value / (1 - value))


def shift_to(odds: Tensor, rate: float, weight: Tensor | None = None) -> float:
    """What to add to log-odds [N] so that their probabilities have the (weighted) mean `rate`; by bisection."""
    low, high = -25.0, 25.0
    share = torch.full_like(odds, 1 / len(odds)) if weight is None else weight / weight.sum()
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float((odds + middle).sigmoid() @ share) < rate else (low, middle)
    return (low + high) / 2


def estimate_noise(
    odds: Tensor,
    classes: Callable[[Tensor], Tensor],
    labels: Tensor,
    rate: Rate,
    *,
    draws: int = 100,
    most: int = 20_000,
    seed: int = 0,
) -> Noise:
    """Rate and transition matrix with 95 % intervals: log-odds of being wrong [N], labels [N], of `most` drawn rows.

    `classes` gives P(true class) [n, K] of the rows at some places, `__getitem__` of a tensor [N, K].
    The matrix is the expected count of (true class, given label), scaled by row. Its intervals are quantiles over
    `draws`, in each of which rows are drawn anew (a bootstrap, Poisson weights), the rate is drawn from what is known
    of it, each given class departs from it by half as much, and each pair of classes by a factor of that spread: a
    bootstrap alone knows how few rows there are, but not how little labels without truth can tell.
    """
    generator = torch.Generator().manual_seed(seed)
    known = (labels >= 0).nonzero()[:, 0]
    part = known[torch.randperm(len(known), generator=generator)[:most]]
    odds, y, wide = odds[part].double(), labels[part], rate.total_deviation(len(known))
    rest = classes(part).double().scatter(1, y[:, None], 0.0)
    rest = rest / rest.sum(1, keepdim=True).clamp_min(1e-12)
    count = rest.shape[1]
    matrix = _matrix(odds.sigmoid(), rest, y, torch.ones(len(part), dtype=torch.float64))
    found = []
    for _ in range(max(20, min(draws, 10_000_000 // (count * count)))):
        weight = torch.poisson(torch.ones(len(part), dtype=torch.float64), generator=generator)
        by_class = wide / 2 * torch.randn(count, generator=generator, dtype=torch.float64)
        value = rate.centre + wide * float(torch.randn((), generator=generator))
        moved = odds + by_class[y]
        moved = moved + shift_to(moved, 1 / (1 + math.exp(-value)), weight)
        pairs = (wide * torch.randn(count, count, generator=generator, dtype=torch.float64)).exp()
        found.append(_matrix(moved.sigmoid(), rest, y, weight, pairs).float())
    low, high = torch.stack(found).quantile(torch.tensor([0.025, 0.975]), dim=0)
    matrix = matrix.float()
    return Noise(rate.interval(len(known)), matrix, torch.minimum(low, matrix), torch.maximum(high, matrix))


def _matrix(wrong: Tensor, rest: Tensor, y: Tensor, weight: Tensor, pairs: Tensor | None = None) -> Tensor:
    """Expected counts of (true class, given label), rows scaled to one; a class without any gets the identity's row."""
    count = rest.shape[1]
    joint = rest.new_zeros(count, count).index_add_(0, y, rest * (weight * wrong)[:, None])
    joint = joint if pairs is None else joint * pairs
    joint += torch.diag(rest.new_zeros(count).index_add_(0, y, weight * (1 - wrong)))
    by_truth = joint.T
    total = by_truth.sum(1, keepdim=True)
    return torch.where(total > 1e-9, by_truth / total.clamp_min(1e-9), torch.eye(count, dtype=rest.dtype))
