"""Scores of a finished run, and what it believes of the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from unswayed.method import Method
from unswayed.noise import transition_of
from unswayed.stats.transition import estimate_transition


@dataclass(frozen=True)
class Beliefs:
    """What a trained method says of every training row."""

    suspicion: Tensor  # [N] in any unit, higher is more suspicious
    suggested: Tensor  # [N] int64
    probability: Tensor  # [N] of the suggested label, in [0, 1]
    transition: Tensor  # [K, K] estimated, row: true class
    noise_rate: float


def beliefs_of(method: Method, given: Tensor, fallback: Tensor) -> Beliefs:
    """Gather what `method` believes; `fallback` [N, K] stands in where it kept no mean probabilities."""
    probabilities = method.dynamics.mean_probabilities()
    probabilities = fallback if probabilities is None else probabilities.cpu()
    suspicion = method.suspicion()
    if suspicion is None:
        suspicion = 1 - probabilities.gather(1, given[:, None])[:, 0]
    probability, suggested = probabilities.max(1)
    transition = estimate_transition(probabilities, given, how="confident")
    rate = 1 - float((probabilities.mean(0) * transition.diagonal()).sum().clamp(0, 1))  # rounding goes beyond
    return Beliefs(suspicion.cpu(), suggested, probability, transition, rate)


def score_suspicion(suspicion: Tensor, given: Tensor, truth: Tensor | None) -> dict[str, float] | None:
    """How well `suspicion` ranks the wrong labels, where the truth is known and both kinds occur."""
    if truth is None:
        return None
    known = truth >= 0
    wrong = (given != truth)[known].numpy()
    if not wrong.any() or wrong.all():
        return None
    score = suspicion[known].numpy()
    return {
        "auroc": float(roc_auc_score(wrong, score)),
        "average_precision": float(average_precision_score(wrong, score)),
    }


def true_rate(given: Tensor, truth: Tensor | None) -> float | None:
    """The share of wrong labels among those whose truth is known, [N], [N] -> in [0, 1]; None where it is for none."""
    if truth is None or not bool((truth >= 0).any()):
        return None
    return float((given != truth)[truth >= 0].float().mean())


def true_transition(given: Tensor, truth: Tensor | None, classes: int) -> Tensor | None:
    """How true classes became given labels, [K, K] with rows that sum to one; None where the truth is not known."""
    if truth is None or not bool((truth >= 0).any()):
        return None
    return transition_of(truth[truth >= 0], given[truth >= 0], classes)


def count_pairs(rows: Tensor, columns: Tensor, classes: int) -> Tensor:
    """How often each pair occurs: [N], [N] -> [K, K].

    >>> count_pairs(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    return torch.bincount(rows * classes + columns, minlength=classes**2).view(classes, classes)


def score_test(
    predicted: Tensor, labels: Tensor, classes: int, curve: list[float | None], against: str
) -> dict[str, Any]:
    """Accuracy at the end, the best epoch beside it, and the confusion matrix."""
    last = float((predicted == labels).float().mean())
    seen = [(value, -epoch) for epoch, value in enumerate(curve) if value is not None]
    # What a plan does after its last epoch counts as part of it, and so does all of a plan without epochs.
    best, epoch = max([*seen, (last, min(0, 1 - len(curve)))])
    return {
        "last": last,
        "best": best,
        "best_epoch": -epoch,
        "against": against,
        "confusion": count_pairs(labels, predicted, classes).tolist(),
    }
