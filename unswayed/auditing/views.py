"""What features say of every row's class without looking at its own label: two cheap and different models."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unswayed.stats.neighbours import Neighbours, label_vote, nearest, neighbours, unit_rows

FOLDS = 5
LANDMARKS, ENTRIES = 1000, 2**27  # and so many numbers at most: half a GiB, 1,000 landmarks up to 134,000 rows
STRENGTHS = (0.1, 1.0, 10.0)
VOTERS = 30
COMPARED = 30_000  # rows that all rows are compared with
WIDTH = 512  # features beyond so many are rotated to so many principal axes


class Views(NamedTuple):
    """What two models say, and who is near whom."""

    kernel: Tensor  # [N, K] scores, about 0..1
    vote: Tensor  # [N, K] log-probabilities
    near: Neighbours  # the VOTERS nearest other rows


def look(features: Tensor, labels: Tensor, classes: int, *, seed: int = 0) -> Views:
    """Out-of-fold scores of every row: features [N, d], labels [N] (-1 takes no part) -> [N, K] each.

    Kernel: ridge regression on a Gaussian kernel of the median squared distance, through 1,000 landmarks
    (Nyström), 5 folds, in closed form; of three strengths the one whose scores predict the given labels best. Vote: the
    30 nearest others by cosine. Features are centred and, beyond 512, reduced to their principal axes. More than
    30,000 rows are compared with 30,000 drawn ones. O(N 1000^2 + N min(N, 30,000) d) operations.
    """
    rows = _centred(features)
    near = _near(rows, VOTERS, seed)
    kernel = kernel_scores(rows, labels, classes, seed=seed)
    known = (labels >= 0)[near.rows].float()
    share = label_vote(labels.clamp_min(0), near.rows, classes, known)
    voters = known.sum(1, keepdim=True)
    return Views(kernel, ((share * voters + 1 / classes) / (voters + 1)).log(), near)


def _centred(features: Tensor) -> Tensor:
    rows = features - features.mean(0)
    if rows.shape[1] > WIDTH:
        generator = torch.Generator().manual_seed(0)
        if rows.shape[1] > 8 * WIDTH:  # distances survive a random projection
            rows = rows @ (torch.randn(rows.shape[1], 2 * WIDTH, generator=generator) / (2 * WIDTH) ** 0.5)
        part = rows[torch.randperm(len(rows), generator=generator)[:COMPARED]]
        axes = torch.linalg.eigh(part.T @ part / len(part)).eigenvectors
        rows = rows @ axes[:, -WIDTH:]
    scaled: Tensor = rows / rows.norm(dim=1).mean().clamp_min(1e-12)
    return scaled


def _near(rows: Tensor, k: int, seed: int) -> Neighbours:
    if len(rows) <= COMPARED:
        return neighbours(rows, k)
    unit = unit_rows(rows)
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:COMPARED]
    found = nearest(unit, unit[drawn], k + 1)
    place = drawn[found.rows]
    own = place == torch.arange(len(rows))[:, None]
    own[:, -1] |= ~own.any(1)  # the last one goes where the row itself was not drawn
    keep = (~own).nonzero()[:, 1].view(len(rows), k)
    return Neighbours(found.similarity.gather(1, keep), place.gather(1, keep))


def kernel_scores(rows: Tensor, labels: Tensor, classes: int, *, seed: int = 0) -> Tensor:
    """Out-of-fold ridge regression of the labels on landmarks, [N, d] -> [N, K]; see `look`."""
    generator = torch.Generator().manual_seed(seed)
    mapped = _landmark_features(rows, generator)
    known = labels >= 0
    target = F.one_hot(labels.clamp_min(0), classes).float() * known[:, None]
    fold = torch.randperm(len(rows), generator=generator) % min(FOLDS, len(rows))
    whole, joint = mapped[known].T @ mapped[known], mapped.T @ target
    scores = rows.new_zeros(len(STRENGTHS), len(rows), classes)
    for part in range(int(fold.max()) + 1):
        held = fold == part
        out = mapped[held & known]
        values, vectors = torch.linalg.eigh(whole - out.T @ out)
        turned = vectors.T @ (joint - mapped[held].T @ target[held])
        seen = mapped[held] @ vectors
        for number, strength in enumerate(STRENGTHS):
            scores[number, held] = seen @ (turned / (values.clamp_min(0) + strength)[:, None])
    losses = [best_temperature(one[known], labels[known])[1] for one in scores]
    return scores[losses.index(min(losses))]


def _landmark_features(rows: Tensor, generator: torch.Generator) -> Tensor:
    """[N, d] -> [N, D + 1], whose products are about the kernel's values; the last column is the intercept."""
    most = min(LANDMARKS, max(100, ENTRIES // len(rows)))
    marks = rows[torch.randperm(len(rows), generator=generator)[:most]]
    width = _squared(marks[:500], marks).median().clamp_min(1e-12)
    within = torch.exp(-_squared(marks, marks) / width).double()
    values, vectors = torch.linalg.eigh(within)
    kept = values > 1e-5 * values[-1]
    turn = (vectors[:, kept] * values[kept].rsqrt()).float()
    mapped = rows.new_empty(len(rows), turn.shape[1] + 1)
    mapped[:, -1] = 1.0
    for at in torch.split(torch.arange(len(rows)), 8192):
        mapped[at, :-1] = torch.exp(-_squared(rows[at], marks) / width) @ turn
    return mapped


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


def best_temperature(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The factor of scores [N, K] whose softmax predicts labels best, and the mean cross-entropy then.

    By golden section over factors .1 to 1000: the cross-entropy is convex in the factor.
    """
    low, high = -2.3, 6.9

    def loss(power: float) -> float:
        return float(F.cross_entropy(scores * 2.718281828459045**power, labels))

    ratio = 0.6180339887
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(16):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return 2.718281828459045 ** ((low + high) / 2), min(at_a, at_b)
