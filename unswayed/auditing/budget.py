"""The error budget: how many labels a person must check to find how many of the wrong ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unswayed.auditing.noise_rate import shift_to
from unswayed.auditing.table import Audit, Interval
from unswayed.errors import UnswayedError

GROUPS, DRAWS = 1000, 200


@dataclass(frozen=True)
class Budget:
    """What checking the most suspicious labels first finds, by estimate; `low` and `high` hold the truth with 95 %."""

    checked: Tensor  # [P] int64: labels looked at, most suspicious first
    found: Tensor  # [P] share of all wrong labels among them
    low: Tensor  # [P]
    high: Tensor  # [P]
    precision: Tensor  # [P] share of wrong labels among those looked at
    precision_low: Tensor  # [P]
    precision_high: Tensor  # [P]

    def at(self, count: int) -> Interval:
        """The share of all wrong labels that checking `count` labels finds."""
        where = self._place(count)
        return Interval(*(float(each[where]) for each in (self.found, self.low, self.high)))

    def precision_at(self, count: int) -> Interval:
        """The share of wrong labels among the `count` most suspicious ones."""
        where = self._place(count)
        return Interval(*(float(each[where]) for each in (self.precision, self.precision_low, self.precision_high)))

    def needed(self, share: float) -> int:
        """How many labels to check to find this share of the wrong ones, by estimate."""
        if not 0 < share <= 1:
            raise UnswayedError("a share in (0, 1]", got=share, do="for example .8")
        reached = (self.found >= share - 1e-6).nonzero()
        return int(self.checked[int(reached[0, 0]) if len(reached) else -1])

    def sentence(self, share: float = 0.8) -> str:
        """What to expect, in words."""
        count = self.needed(share)
        value, low, high = (round(100 * each) for each in self.at(count))
        return f"Review {count:,} labels to find {value} % ({low}-{high}) of the errors."

    def _place(self, count: int) -> int:
        return min(int(torch.searchsorted(self.checked, count)), len(self.checked) - 1)


def error_budget(audit: Audit, *, seed: int = 0) -> Budget:
    """The curve of an audit, at up to 1,000 counts of labels checked; rows without a label are left out.

    In each of 200 draws the noise rate comes from its interval, the suspicions move with it, are steeper or flatter by
    a factor of that spread, and labels are wrong by chance: the interval holds 95 % of the curves.
    """
    suspicion = audit.suspicion[audit.given >= 0].double().sort(descending=True).values
    sizes, means = _groups(suspicion)
    generator = torch.Generator().manual_seed(seed)
    low, high = (math.log(each / (1 - each)) for each in _inside(audit.noise.rate))
    middle, wide = (low + high) / 2, (high - low) / 3.92
    odds = means.clamp(1e-6, 1 - 1e-6).logit()
    centre = float((odds * sizes).sum() / sizes.sum())
    found, precision = [], []
    checked = sizes.cumsum(0)
    for _ in range(DRAWS):
        rate = 1 / (1 + math.exp(-middle - wide * float(torch.randn((), generator=generator))))
        slope = math.exp(min(wide, 0.7) * float(torch.randn((), generator=generator)))
        tilted = centre + slope * (odds - centre)
        chance = (tilted + shift_to(tilted, rate, sizes)).sigmoid()
        wrong = torch.binomial(sizes, chance, generator=generator).cumsum(0)
        found.append(wrong / wrong[-1].clamp_min(1))
        precision.append(wrong / checked)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    bounds, likely = torch.stack(found).quantile(ends, dim=0), torch.stack(precision).quantile(ends, dim=0)
    expected = (means * sizes).cumsum(0)
    share, right = expected / expected[-1].clamp_min(1e-9), expected / checked
    return Budget(
        checked.long(),
        *(each.float() for each in (share, torch.minimum(bounds[0], share), torch.maximum(bounds[1], share))),
        *(each.float() for each in (right, torch.minimum(likely[0], right), torch.maximum(likely[1], right))),
    )


def _groups(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes and mean suspicions of up to 1,000 runs of rows, in order."""
    parts = torch.tensor_split(ordered, min(GROUPS, len(ordered)))
    return torch.tensor([float(len(part)) for part in parts]).double(), torch.stack([part.mean() for part in parts])


def _inside(rate: Interval) -> tuple[float, float]:
    return min(max(rate.low, 1e-6), 1 - 1e-6), min(max(rate.high, 1e-6), 1 - 1e-6)
