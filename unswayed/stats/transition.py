"""The transition matrix of label noise: T[i, j] = P(given label j | true label i), its estimate and its inverse.

Source of the anchor estimate: arXiv 1609.03683; of confident learning: arXiv 1911.00068.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.stats.confident import joint_counts
from unswayed.stats.predictions import Predictions

How = Literal["anchor", "confident"]


def estimate_transition(probs: Tensor, labels: Tensor, *, how: How = "confident", quantile: float = 1.0) -> Tensor:
    """T from predicted probabilities `[N, K]` and given labels `[N]` -> `[K, K]`, row = true class, rows sum to one.

    Take the probabilities from a model that did not learn these labels by heart (held out, or early in training).

    "anchor": row i is the prediction at the sample that looks most like class i; `quantile` 0.97 takes instead the
    sample at that quantile of p_i, against outliers, as the authors' program does for all data but CIFAR-100 (1.0: the
    very highest).

    "confident": a sample counts as truly of class j where p_j reaches the mean of p_j over samples labelled j (the
    largest such p_j decides), counts are calibrated to the number of samples that carry each label, and each class
    with a label keeps at least one sample on the diagonal. `quantile` has no part in it.

    Our choice: a class that no label names, or that no sample is thought to be of, gets the identity's row, because
    there is no evidence of noise in it, and an invertible T serves both corrections.

    Raises UnswayedError for shapes, labels or probabilities that do not fit. Works in double precision inside.

    >>> probs = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    >>> estimate_transition(probs, torch.tensor([0, 0, 1, 1]), how="anchor")
    tensor([[0.8000, 0.2000],
            [0.1000, 0.9000]])
    """
    if how not in ("anchor", "confident"):
        raise UnswayedError("how is 'anchor' or 'confident'", got=repr(how))
    if not 0 < quantile <= 1:
        raise UnswayedError("quantile is in (0, 1]", got=quantile)
    Predictions(labels, probs).check()
    wide, labels = probs.double(), labels.long()
    given = torch.bincount(labels, minlength=probs.shape[1]).double()
    rows = _anchor_rows(wide, given, quantile) if how == "anchor" else _confident_rows(wide, labels, given)
    sums = rows.sum(1, keepdim=True)
    identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    rows = torch.where(sums > 0, rows / sums.clamp(min=torch.finfo(rows.dtype).tiny), identity)
    return rows.to(torch.promote_types(probs.dtype, torch.float32))


def _anchor_rows(probs: Tensor, given: Tensor, quantile: float) -> Tensor:
    """The prediction at each class's anchor; zero where no label names the class."""
    rank = max(1, round(quantile * len(probs)))
    anchors = torch.stack([column.kthvalue(rank).indices for column in probs.unbind(1)])
    return probs[anchors] * (given > 0).unsqueeze(1)


def _confident_rows(probs: Tensor, labels: Tensor, given: Tensor) -> Tensor:
    """Calibrated counts of (true class, given label); zero rows where no sample is thought to be of a class."""
    joint = joint_counts(labels, probs, rule="paper").to(given)
    return joint / joint.sum(0) * given


def check_transition(transition: Tensor) -> Tensor:
    """`transition`, if it is `[K, K]`, not negative, with rows that sum to one (to 1e-4); raises otherwise."""
    got = f"{transition.dtype} of shape {list(transition.shape)}"
    if transition.dim() != 2 or transition.shape[0] != transition.shape[1] or not transition.is_floating_point():
        raise UnswayedError("a transition matrix is floating point of shape [K, K]", got=got)
    wide = transition.detach().double()
    if not bool(torch.isfinite(wide).all()) or bool((wide < 0).any()):
        raise UnswayedError("a transition matrix holds probabilities", got="a negative or non-finite entry")
    off = (wide.sum(1) - 1).abs().max().item()
    if off > 1e-4:
        raise UnswayedError(
            "each row of a transition matrix (row = true class) sums to one",
            got=f"a row that is off by {off:.2g}",
            do="if columns sum to one, transpose it",
        )
    return transition


def invert_transition(transition: Tensor, *, worst: float = 1e6) -> Tensor:
    """The inverse of T, computed in double precision: `[K, K]` -> `[K, K]`.

    Raises UnswayedError where T is singular, or so nearly that errors would grow more than `worst` times
    (its condition number): the backward-corrected loss would be noise.
    """
    wide = check_transition(transition).double()
    condition = torch.linalg.cond(wide).item()
    if not condition <= worst:
        raise UnswayedError(
            "a transition matrix that can be inverted",
            got=f"one with condition number {condition:.2g} (two classes are confused alike)",
            do="use forward correction, which needs no inverse",
        )
    inverse: Tensor = torch.linalg.inv(wide)
    return inverse.to(transition.dtype)


def log_transition(transition: Tensor) -> Tensor:
    """log T with -inf for impossible flips: `[K, K]` -> `[K, K]`.

    A column without any entry (a label that T says is never given) would make a loss infinite and its gradient NaN;
    our choice: such a column is log 1e-12 throughout, a large constant loss without a gradient.
    """
    check_transition(transition)
    return torch.where((transition > 0).any(0), transition, 1e-12).log()
