"""What the shape of the data says of a row's class: a mixture of heavy-tailed clouds that labels merely name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TAIL = 5.0  # degrees of freedom of a cloud
MOST_AXES = 20
ROUNDS = 50
ENTRIES = 2**20  # numbers held at a time: 8 MiB


class Axes(NamedTuple):
    """Directions in which scores differ most, scaled to a variance of one."""

    centre: Tensor  # [K]
    turn: Tensor  # [K, a]

    def points(self, scores: Tensor) -> Tensor:
        """[n, K] -> [n, a] float64."""
        return (scores.double() - self.centre) @ self.turn


class Shape(NamedTuple):
    """Where the clouds are: K normal-like heaps in a dimensions."""

    means: Tensor  # [K, a]
    whiten: Tensor  # [K, a, a]: inverse Cholesky factors of the covariances
    shares: Tensor  # [K] logarithms of their sizes

    def log_density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities up to a constant, and squared distances: [n, a] -> [n, K] each."""
        count, axes = self.means.shape
        flat = self.whiten.reshape(count * axes, axes)
        shift = (self.whiten @ self.means[:, :, None]).reshape(-1)
        size = max(1, ENTRIES // (count * axes))
        squared = torch.cat(
            [torch.addmm(-shift, part, flat.T).square_().view(-1, count, axes).sum(2) for part in torch.split(x, size)]
        )
        volume = -self.whiten.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.shares - volume - (TAIL + axes) / 2 * torch.log1p(squared / TAIL), squared


class Clouds(NamedTuple):
    """The true class by position alone, and how labels go wrong."""

    axes: Axes
    shape: Shape
    transition: Tensor  # [K, K], row = true class

    def log_probs(self, scores: Tensor) -> Tensor:
        """What position says of the true class: discriminant scores [n, K] -> [n, K]."""
        return self.shape.log_density(self.axes.points(scores))[0].log_softmax(1).float()


def fit_clouds(scores: Tensor, labels: Tensor, axes: Axes) -> Clouds:
    """EM of a t-mixture with a cloud a class on discriminant scores [n, K] of rows with labels [n].

    x | z ~ t_5(mean_z, cov_z), label | z ~ T[z]: labels name the clouds but may be wrong, so that a cloud is where the
    rows are and not where the labels say. Covariances are shrunk towards their mean by 2 pseudo-rows an axis. The idea
    is that of the robust kernel discriminant (Lawrence and Schoelkopf, ICML 2001); the heavy tails are our choice,
    because rows of no class must not pull. `axes`: see `find_axes`.
    """
    x, classes = axes.points(scores), scores.shape[1]
    named = F.one_hot(labels, classes).to(x)
    flip = torch.full((classes, classes), 0.2 / classes, dtype=x.dtype) + 0.8 * torch.eye(classes, dtype=x.dtype)
    belief, pull = named.clone(), torch.ones_like(named)
    products = (x[:, :, None] * x[:, None, :]).flatten(1)
    for _ in range(ROUNDS):
        shape = _shape(x, products, belief, pull)
        own, squared = shape.log_density(x)
        pull = (TAIL + x.shape[1]) / (TAIL + squared)
        counts = belief.T @ named + torch.eye(classes, dtype=x.dtype) + 0.1
        flip = counts / counts.sum(1, keepdim=True)
        renewed = (own + flip.T[labels].log()).softmax(1)
        moved = float((renewed - belief).abs().sum(1).mean())
        belief = renewed
        if moved < 1e-4:
            break
    return Clouds(axes, shape, flip.float())


def find_axes(parts: Iterable[Tensor], classes: int) -> Axes:
    """The K - 1 principal axes of scores, at most 20, read in parts [n, K]; an axis without spread counts nothing."""
    rows, total, products = 0, torch.zeros(classes).double(), torch.zeros(classes, classes).double()
    for part in parts:
        wide = part.double()
        rows, total, products = rows + len(wide), total + wide.sum(0), products + wide.T @ wide
    centre = total / rows
    values, vectors = torch.linalg.eigh(products / rows - torch.outer(centre, centre))
    kept = min(classes - 1, MOST_AXES)
    values, vectors = values[-kept:] * rows / max(rows - 1, 1), vectors[:, -kept:]
    spread = values > 1e-10 * values[-1].clamp_min(1e-12)
    return Axes(centre, vectors * torch.where(spread, values.clamp_min(1e-24).rsqrt(), 0.0))


def _shape(x: Tensor, products: Tensor, belief: Tensor, pull: Tensor) -> Shape:
    """The clouds of weighted rows [n, a], whose `products` x x' are [n, a * a]."""
    axes, size = x.shape[1], belief.sum(0)
    weight = belief * pull
    means = (weight.T @ x) / weight.sum(0).clamp_min(1e-9)[:, None]
    spread = (weight.T @ products).view(-1, axes, axes)
    spread = spread - weight.sum(0)[:, None, None] * means[:, :, None] * means[:, None, :]
    shared = spread.sum(0) / size.sum() + 1e-6 * torch.eye(axes, dtype=x.dtype)
    covariance = (spread + 2 * axes * shared) / (size + 2 * axes)[:, None, None]
    unit = torch.eye(axes, dtype=x.dtype).expand_as(covariance)
    whiten = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), unit, upper=False)
    return Shape(means, whiten, (size / size.sum()).clamp_min(1e-12).log())
