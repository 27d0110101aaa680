"""One prediction out of several, and how labels go wrong, from given labels alone: by maximum likelihood."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST = 20_000  # rows that a handful of numbers are fitted on
PRIOR = 5.0  # pseudo-rows a class


class Pool(NamedTuple):
    """The true class of a row has log-probabilities `sum_m weight_m view_m`; its label then follows `transition`."""

    weight: Tensor  # [M]
    transition: Tensor  # [K, K], row = true class

    def log_probs(self, views: Tensor) -> Tensor:
        """What the views together say of the true class: [M, N, K] -> [N, K]."""
        return torch.einsum("m,mnk->nk", self.weight, views).log_softmax(1)


@torch.enable_grad()
def fit_pool(views: Tensor, labels: Tensor, *, noise: bool, rounds: int = 150) -> Pool:
    """Weights of out-of-fold views [M, N, K] and a transition matrix that make the given labels [N] likeliest.

    The product of experts, whose weights include the temperature. Where views are sure and labels differ all the same,
    the labels are wrong, and the matrix takes it; where views waver, the weights do: that is what tells the two apart.
    Weights are squares: a view that saw all labels but the row's own is a little against it (the own class is rarer
    among the others, and a model that interpolates makes much of that), which a negative weight would turn into the
    label itself. Without `noise` the matrix is the identity. A prior of five rows a class, .9 of them right and the
    others of any class, keeps entries off zero.
    """
    classes, rows = views.shape[2], len(labels)
    usual = torch.full((classes, classes), 0.1 / max(classes - 1, 1)).fill_diagonal_(0.9)
    root = torch.full((len(views),), len(views) ** -0.5).requires_grad_()
    raw = usual.log().clone().requires_grad_(noise)
    free = [root, raw] if noise else [root]
    optimiser = torch.optim.LBFGS(free, max_iter=rounds, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        own = torch.einsum("m,mnk->nk", root.square(), views).log_softmax(1)
        if not noise:
            return -own.gather(1, labels[:, None]).mean()
        flip = raw.log_softmax(1)
        likelihood = torch.logsumexp(own + flip.T[labels], 1).sum()
        return -(likelihood + PRIOR * (usual * flip).sum()) / rows

    def step() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(step)  # type: ignore[no-untyped-call]
    flip = raw.detach().softmax(1) if noise else torch.eye(classes)
    return Pool(root.detach().square(), flip)


def posterior(log_probs: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """P(true class | features, given label), by Bayes: [N, K], [K, K], [N] -> [N, K] log-probabilities."""
    return (log_probs + transition.T[labels].clamp_min(1e-12).log()).log_softmax(1)
