"""What the shape of the data says of a row's class: a mixture of heavy-tailed clouds that labels merely name."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TAIL = 5.0  # degrees of freedom of a cloud
MOST_AXES = 20
ROUNDS = 50


class Clouds(NamedTuple):
    """The true class by position alone, and how labels go wrong."""

    log_probs: Tensor  # [N, K]
    transition: Tensor  # [K, K], row = true class
    distance: Tensor  # [N] squared, to the nearest cloud, in units of its covariance, over the number of axes


def fit_clouds(scores: Tensor, labels: Tensor, classes: int, *, most: int = 20_000, seed: int = 0) -> Clouds:
    """EM of a t-mixture with a cloud a class on discriminant scores [N, K]; labels [N] are -1 where missing.

    x | z ~ t_5(mean_z, cov_z), label | z ~ T[z]: labels name the clouds but may be wrong, so that a cloud is where the
    rows are and not where the labels say. Covariances are shrunk towards their mean by 2 pseudo-rows an axis. Scores
    are rotated to K - 1 axes, at most 20. Fitted on `most` drawn rows. The idea is that of the robust kernel
    discriminant (Lawrence and Schoelkopf, ICML 2001); the heavy tails are our choice, because rows of no class must
    not pull.
    """
    points = _axes(scores, classes)
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:most]
    drawn = drawn[labels[drawn] >= 0]
    x, y = points[drawn], labels[drawn]
    named = F.one_hot(y, classes).to(x)
    flip = torch.full((classes, classes), 0.2 / classes, dtype=x.dtype) + 0.8 * torch.eye(classes, dtype=x.dtype)
    belief, pull = named.clone(), torch.ones_like(named)
    for _ in range(ROUNDS):
        clouds = _clouds(x, belief, pull)
        own, squared = _log_density(x, *clouds)
        pull = (TAIL + x.shape[1]) / (TAIL + squared)
        counts = belief.T @ named + torch.eye(classes, dtype=x.dtype) + 0.1
        flip = counts / counts.sum(1, keepdim=True)
        renewed = (own + flip.T[y].log()).softmax(1)
        moved = float((renewed - belief).abs().sum(1).mean())
        belief = renewed
        if moved < 1e-4:
            break
    found = [_log_density(part, *clouds) for part in torch.split(points, 8192)]
    distance = torch.cat([squared for _, squared in found]).amin(1) / points.shape[1]
    log_probs = torch.cat([own for own, _ in found]).log_softmax(1)
    return Clouds(log_probs.float(), flip.float(), distance.float())


def _axes(scores: Tensor, classes: int) -> Tensor:
    centred = (scores - scores.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = min(classes - 1, MOST_AXES, scores.shape[1])
    points: Tensor = centred @ vectors[:, -kept:]
    return points / points.std(0).clamp_min(1e-12)


def _clouds(x: Tensor, belief: Tensor, pull: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means [K, a], Cholesky factors of covariances [K, a, a], log-shares [K]."""
    axes, size = x.shape[1], belief.sum(0)
    weight = belief * pull
    means = (weight.T @ x) / weight.sum(0).clamp_min(1e-9)[:, None]
    spread = torch.stack([((x - m) * w[:, None]).T @ (x - m) for m, w in zip(means, weight.T, strict=True)])
    shared = spread.sum(0) / size.sum() + 1e-6 * torch.eye(axes, dtype=x.dtype)
    covariance = (spread + 2 * axes * shared) / (size + 2 * axes)[:, None, None]
    return means, torch.linalg.cholesky(covariance), (size / size.sum()).clamp_min(1e-12).log()


def _log_density(x: Tensor, means: Tensor, factors: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Log-densities up to a constant, and squared distances: [N, K] each."""
    axes = x.shape[1]
    squared = torch.stack(
        [
            torch.linalg.solve_triangular(factor, (x - mean).T, upper=False).square().sum(0)
            for mean, factor in zip(means, factors, strict=True)
        ],
        1,
    )
    volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)
    return shares - volume - (TAIL + axes) / 2 * torch.log1p(squared / TAIL), squared
