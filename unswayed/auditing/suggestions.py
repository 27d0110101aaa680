"""What a row is: right, wrong, ambiguous, of no class, or nearly the same as one with another label."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unswayed.auditing.table import KINDS
from unswayed.stats.neighbours import Neighbours

WRONG = 0.5
BOTH = 0.3  # two classes that are each at least so likely may both be right
SAME = 0.1  # nearer than a tenth of the usual distance to the nearest row
FAR = 6.0  # robust deviations of the log-distance
VAGUE = 0.95  # share of the largest possible entropy


def name_kinds(
    labels: Tensor, suspicion: Tensor, other: Tensor, spread: Tensor, near: Neighbours | None = None
) -> Tensor:
    """Kinds [N] int8 as places in KINDS: labels, suspicion, P(likeliest other class) and `entropy_share`, [N] each.

    Our rules, later ones before earlier ones. wrong: suspicion above .5. ambiguous, "both may be right": the given and
    one other class have .3 each. outlier, "none fits": the mean distance to the five nearest rows is more than six
    robust deviations (of its logarithm) above the median; without features, probabilities with over 95 % of the
    largest possible entropy. duplicate: a neighbour with another label is nearer than a tenth of the median distance
    to the nearest row. A missing label is wrong, whatever else.
    """
    kind = torch.where(suspicion > WRONG, KINDS.index("wrong"), KINDS.index("fine"))
    kind[torch.minimum(1 - suspicion, other) >= BOTH] = KINDS.index("ambiguous")
    kind[spread > VAGUE if near is None else _outliers(near)] = KINDS.index("outlier")
    if near is not None:
        kind[duplicates(labels, near)] = KINDS.index("duplicate")
    kind[labels < 0] = KINDS.index("wrong")
    return kind.to(torch.int8)


def _distances(near: Neighbours) -> Tensor:
    return (2 - 2 * near.similarity.double()).clamp_min(0).sqrt()


def entropy_share(probs: Tensor) -> Tensor:
    """The entropy of probabilities over the largest possible one, [n, K] -> [n]."""
    return -(probs * probs.clamp_min(1e-12).log()).sum(1) / math.log(probs.shape[1])


def _outliers(near: Neighbours) -> Tensor:
    distance = _distances(near)[:, :5].mean(1).clamp_min(1e-6).log()
    middle = distance.median()
    deviation = 1.4826 * (distance - middle).abs().median().clamp_min(1e-3)
    return distance > middle + FAR * deviation


def duplicates(labels: Tensor, near: Neighbours) -> Tensor:
    """Rows with a neighbour at nearly no distance whose label is another one; missing labels do not count: [N] bool."""
    distance = _distances(near)
    limit = (SAME * distance[:, 0].median()).clamp_min(1e-3)  # cosines of equal rows are one only nearly
    other = labels[near.rows]
    conflict = (distance <= limit) & (other >= 0) & (labels >= 0)[:, None] & (other != labels[:, None])
    return conflict.any(1)
