"""How little predicted probabilities think of a given label: one number a row, higher is more suspicious.

Take probabilities from a model that did not train on the row it speaks of (out of fold). They may be a memory-mapped
array: rows are read in chunks, and nothing of the size `[N, K]` is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.stats.confident import thresholds
from unswayed.stats.predictions import Array, Groups, Predictions, Rows

LEAST = 1e-6  # the smallest probability of a label that entropy is divided by
Check = Literal["sample", "all"]
Score = Callable[[Array, Array, Array], Array]  # probabilities [n, K], labels [n], their probabilities [n] -> [n]


def self_confidence(labels: Rows, probs: Rows, *, adjust: bool = False, check: Check = "sample") -> Tensor:
    """1 - p_y, one minus the probability of the given label: `[N]`, `[N, K]` -> `[N]` in [0, 1].

    The simplest score, and good at rows that fit no class (arXiv 1911.00068). With `adjust`, each class is measured
    against what its own rows get on average: p_k - t_k + max t, scaled to sum one, where t_k is the mean of p_k over
    rows labelled k (a class without a row: 2), so that rare and hard classes are not suspected as a whole
    (arXiv 2103.14749).

    Only the given labels' probabilities are needed. So with check "sample" they alone are read, and looked at one and
    all, and of the rows' sums those of 1,024 drawn rows (of all where there are fewer): logits are refused, but a
    single row that is no distribution may pass where its p_y is in [0, 1]. With "all", or `adjust`, every row is read.
    Raises UnswayedError for labels or probabilities that do not fit.

    >>> self_confidence(torch.tensor([0, 0]), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    tensor([0.2500, 1.0000])
    """
    if check not in get_args(Check):
        raise UnswayedError(f"check is one of {', '.join(get_args(Check))}", got=repr(check))
    if adjust or check == "all":
        return _score(labels, probs, adjust, lambda block, y, own: 1 - own)
    predictions = _predictions(labels, probs)
    predictions.sample()
    own = predictions.own()
    if not (own.min() >= -1e-6 and own.max() <= 1 + 1e-2):  # true for NaN as well
        predictions.check()
    return torch.from_numpy(np.subtract(1, own, out=own))


def normalised_margin(labels: Rows, probs: Rows, *, adjust: bool = False) -> Tensor:
    """(1 + max p_k over other classes k - p_y) / 2: `[N]`, `[N, K]` -> `[N]` in [0, 1]; above .5 another class leads.

    Good at labels for which another class is clearly better (arXiv 1911.00068). `adjust` and errors: see
    `self_confidence`.

    >>> normalised_margin(torch.tensor([0, 0]), torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]))
    tensor([0.3750, 1.0000])
    """
    return _score(labels, probs, adjust, _margin)


def entropy_weighted(labels: Rows, probs: Rows, *, adjust: bool = False) -> Tensor:
    """1 - log(1 + x) / x with x = H(p) / (p_y log K), confidence-weighted entropy: `[N]`, `[N, K]` -> `[N]` in [0, 1].

    Equal to one minus cleanlab's score but at two corners where that one misses what it means. Our choice: a sure and
    right prediction (x = 0) gets the limit, 0, where the program's clipping makes it the most suspicious of all; and
    the entropy counts as at least -p log p of the given label, p at least 1e-6, which every entropy is anyway unless
    p_y is smaller, so that a sure and wrong prediction (0 / 0) is suspicious. `adjust` and errors: see
    `self_confidence`.

    >>> probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    >>> entropy_weighted(torch.tensor([0, 0, 0]), probs).round(decimals=3)
    tensor([0.0000, 0.4510, 0.8470])
    """
    return _score(labels, probs, adjust, _entropy)


def _margin(block: Array, y: Array, own: Array) -> Array:
    rows = np.arange(len(y))
    if block.shape[1] < 64:  # down the columns where rows are short: the processor works on many rows side by side
        others = np.array(block.T, order="C")
        others[y, rows] = -1
        other = others.max(0)
    else:
        others = block.copy()
        others[rows, y] = -1
        other = others.max(1)
    return np.asarray((1 + other - own) / 2)


def _entropy(block: Array, y: Array, own: Array) -> Array:
    label = np.maximum(own, LEAST)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(block)
    logs[~(block > 0)] = 0
    entropy = 0 - np.einsum("nk,nk->n", block, logs)
    x = np.maximum(entropy, 0 - label * np.log(label)) / label / np.log(block.shape[1])
    return np.asarray(np.where(x > LEAST, 1 - np.log1p(x) / np.maximum(x, LEAST), x / 2))


def _score(labels: Rows, probs: Rows, adjust: bool, score: Score) -> Tensor:
    predictions = _predictions(labels, probs)
    shift = _shift(predictions) if adjust else None
    found = np.empty(len(predictions), dtype=predictions.dtype)
    for rows, block, y in predictions.chunks():
        if shift is not None:
            block = block + shift
            block /= block.sum(1, keepdims=True)
        found[rows] = score(block, y, block[np.arange(len(y)), y])
    return torch.from_numpy(found)


def _predictions(labels: Rows, probs: Rows) -> Predictions:
    predictions = Predictions(labels, probs)
    if predictions.classes < 2:
        raise UnswayedError("probabilities of two classes or more", got=predictions.classes)
    return predictions


def _shift(predictions: Predictions) -> Array:
    """What to add to the probabilities of each class: `[K]`."""
    threshold = thresholds(predictions.own(), Groups(predictions.labels, predictions.classes))
    return np.asarray(threshold.max() - threshold)
