"""How reluctantly a label was learned: scores from training dynamics, `[N]` each, higher is more suspicious.

They take what a loop filled by `dynamics.update(logits, y, ids)`, a `Trajectories` (or a `Dynamics`, for those that
need no more). Samples never seen get the mean of the others, which neither accuses nor acquits them. All raise
UnswayedError where nothing was seen at all.

>>> from unswayed.stats import Trajectories
>>> dynamics = Trajectories(samples=2, classes=2)
>>> for _ in range(3):
...     dynamics.update(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([0, 1]))
>>> wrong_events(dynamics).tolist(), aum(dynamics).tolist()
([0.0, 1.0], [-2.0, 2.0])
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.stats.dynamics import Dynamics
from unswayed.stats.mixtures import gaussian_mixture
from unswayed.stats.predictions import Rows, check_labels
from unswayed.stats.trajectories import Trajectories

When = Literal["for good", "first"]


class Cartography(NamedTuple):
    """A map of the data (arXiv 2009.10795): mean and standard deviation of p_y, and how often it was the largest."""

    confidence: Tensor  # [N] in [0, 1]
    variability: Tensor  # [N] in [0, .5]
    correctness: Tensor  # [N] in [0, 1]


def wrong_events(dynamics: Dynamics) -> Tensor:
    """The share of predictions that differed from the given label (IDO, arXiv 2505.00812): -> `[N]` in [0, 1].

    For the probability that the label is wrong: `stats.ido_weights(dynamics.wrong, labels).doubt`.
    """
    return _mean(dynamics, dynamics.wrong.float())


def aum(dynamics: Trajectories) -> Tensor:
    """Minus the area under the margin, the mean of z_y - max z_k over other classes (arXiv 2001.10528): -> `[N]`."""
    return -_mean(_full(dynamics), dynamics.margin)


def forgetting(dynamics: Trajectories) -> Tensor:
    """How often the label was forgotten once learned (arXiv 1812.05159): -> `[N]`.

    A label that was never learned counts as forgotten at every prediction: above all that were learned and seen as
    often (published: as forgotten infinitely often).
    """
    seen = _full(dynamics).seen
    count = torch.where(dynamics.first > 0, dynamics.forgotten, seen)
    return _fill(dynamics, count.float())


def loss_mixture(dynamics: Trajectories, labels: Rows | None = None) -> Tensor:
    """The posterior of the upper of two Gaussians on the mean loss: -> `[N]` in [0, 1]; with `labels`, two a class.

    The evidence of DivideMix (arXiv 2002.07394), over all of training instead of one epoch.
    """
    loss = _mean(_full(dynamics), dynamics.loss)
    groups = None
    if labels is not None:
        y = check_labels(labels, len(loss), len(loss))
        groups = torch.from_numpy(y.astype("int64")).to(loss.device)
    return 1 - gaussian_mixture(loss, groups).posterior(loss, groups)


def cartography(dynamics: Trajectories) -> Cartography:
    """Confidence, variability and correctness of every sample (arXiv 2009.10795)."""
    confidence = _mean(_full(dynamics), dynamics.confidence)
    variance = _mean(dynamics, dynamics.square) - confidence.square()
    return Cartography(confidence, variance.clamp_min(0).sqrt(), 1 - wrong_events(dynamics))


def hard_to_learn(dynamics: Dynamics) -> Tensor:
    """One minus the confidence of `cartography`: -> `[N]` in [0, 1]; its authors find wrong labels by it."""
    return 1 - _mean(dynamics, dynamics.confidence)


def learning_time(dynamics: Trajectories, *, when: When = "for good") -> Tensor:
    """How late in training the label was learned, as a share of the predictions: -> `[N]` in [0, 1].

    "for good": the last prediction that was wrong (arXiv 2106.09647): 0 for a label right from the start and never
    lost, 1 for one that is wrong at the end. "first": the predictions before the first right one; 1 for none. Networks
    learn right labels before wrong ones (arXiv 2007.00151).
    """
    if when not in get_args(When):
        raise UnswayedError("when is 'for good' or 'first'", got=repr(when))
    seen = _full(dynamics).seen
    late = dynamics.unlearned if when == "for good" else torch.where(dynamics.first > 0, dynamics.first - 1, seen)
    return _mean(dynamics, late.float())


def _full(dynamics: Dynamics) -> Trajectories:
    if not isinstance(dynamics, Trajectories):
        do = "gather with unswayed.stats.Trajectories, which is used in the same way"
        raise UnswayedError("dynamics with margins and losses", got=type(dynamics).__name__, do=do)
    return dynamics


def _mean(dynamics: Dynamics, total: Tensor) -> Tensor:
    return _fill(dynamics, total / dynamics.seen.clamp_min(1))


def _fill(dynamics: Dynamics, values: Tensor) -> Tensor:
    """The same values, but the mean of the others for samples never seen."""
    known = dynamics.seen > 0
    if not bool(known.any()):
        raise UnswayedError("dynamics of a training", got="none seen", do="call dynamics.update(logits, y, ids) in it")
    return torch.where(known, values, values[known].mean())
