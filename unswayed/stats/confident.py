"""Confident learning's joint counts of true classes and given labels (arXiv 1911.00068), in two passes of chunks."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.stats.predictions import Array, Groups, Predictions, Rows

Rule = Literal["program", "paper"]
"""Which class a row is thought to be of where several reach their thresholds: "paper", the likeliest of those;
"program", as the authors' cleanlab does, the likeliest of all, be it one that stays below its own threshold."""

SLACK = 1e-6  # so far below its threshold a probability still reaches it, because the mean of equals is rounded
NEVER = 2.0  # the threshold of a class that no row is labelled as


class Survey(NamedTuple):
    """What one pass over all probabilities tells."""

    counts: Array  # [K, K] rows confidently of a class (row) that carry a label (column)
    predicted_other: Array  # [N] bool: another class is likelier than the given label, by more than SLACK
    confident_other: Array  # [N] bool: confidently of another class than the given label


def joint_counts(labels: Rows, probs: Rows, *, rule: Rule = "program", calibrate: bool = False) -> Tensor:
    """How many rows are truly of class i and labelled j, by confident learning: `[N]`, `[N, K]` -> `[K, K]` int64.

    A row counts as of class j where p_j reaches the mean of p_j over rows labelled j; rows that reach no threshold do
    not count. Row = true class, column = given label (cleanlab: the transpose). Each class keeps at least one row on
    the diagonal. `calibrate` scales each column to the number of rows with that label, in whole numbers. `rule` says
    what decides between several classes. Raises UnswayedError for labels or probabilities that do not fit.

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
    >>> joint_counts(torch.tensor([0, 0, 0, 1, 1]), probs)
    tensor([[2, 0],
            [1, 1]])
    """
    if rule not in get_args(Rule):
        raise UnswayedError("rule is 'program' or 'paper'", got=repr(rule))
    predictions = Predictions(labels, probs)
    groups = Groups(predictions.labels, predictions.classes)
    own = predictions.own()
    counts = keep_diagonal(survey(predictions, own, thresholds(own, groups), rule).counts)
    return torch.from_numpy(calibrated(counts, groups.sizes) if calibrate else counts)


def thresholds(own: Array, groups: Groups) -> Array:
    """The mean probability of every class over rows labelled so: `[N]` -> `[K]`, in the precision of `own`."""
    found = np.full(len(groups.sizes), NEVER, dtype=own.dtype)
    for label in np.flatnonzero(groups.sizes).tolist():
        found[label] = own[groups.rows(label)].mean()
    return np.asarray(np.maximum(found, found.dtype.type(2 * SLACK)))


def survey(predictions: Predictions, own: Array, threshold: Array, rule: Rule) -> Survey:
    """One pass over all rows: see `Survey`. All that grows with N is two truth values a row."""
    k, reach = predictions.classes, threshold - threshold.dtype.type(SLACK)
    counts = np.zeros(k * k, dtype=np.int64)
    predicted, confident = np.empty(len(own), dtype=bool), np.empty(len(own), dtype=bool)
    for rows, block, y in predictions.chunks():
        best = block.argmax(1)
        top = block[np.arange(len(block)), best]
        predicted[rows] = top > own[rows] + own.dtype.type(SLACK)
        true = _confident_classes(block, best, top, reach, rule)
        known = true >= 0
        confident[rows] = known & (true != y)
        np.add.at(counts, true[known] * k + y[known], 1)
    return Survey(counts.reshape(k, k), predicted, confident)


def _confident_classes(block: Array, best: Array, top: Array, reach: Array, rule: Rule) -> Array:
    """The class that each row is confidently of, -1 for none: `[n]`, by the likeliest class wherever that suffices."""
    true = np.where(top >= reach[best], best, -1)
    # Any other class has at most what the likeliest one has, or leaves: rarely enough for a threshold.
    left = np.minimum(top, 1.02 - top)
    rest = np.flatnonzero((true < 0) & (left >= reach.min()))
    if len(rest):
        values = block[rest]
        reached = values >= reach
        if rule == "paper":
            found = np.where(reached, values, -1).argmax(1)
        else:
            found = np.where(reached.sum(1) > 1, best[rest], reached.argmax(1))
        true[rest] = np.where(reached.any(1), found, -1)
    return true


def keep_diagonal(counts: Array) -> Array:
    """The same counts, with at least one row on the diagonal of each class."""
    np.fill_diagonal(counts, np.maximum(counts.diagonal(), 1))
    return counts


def calibrated(counts: Array, sizes: Array) -> Array:
    """Counts `[K, K]` scaled so that column j sums to `sizes[j]`, in whole numbers: `[K, K]` int64."""
    share = counts / np.maximum(counts.sum(0), 1) * sizes
    return round_columns(share / share.sum() * sizes.sum())


def round_columns(values: Array) -> Array:
    """Whole numbers next to `values` `[K, K]` whose columns keep their (rounded) sums: those nearest to .5 give way.

    >>> round_columns(np.array([[1.4, 0.2], [0.3, 0.8], [0.3, 2.0]])).tolist()
    [[2, 0], [0, 1], [0, 2]]
    """
    whole = np.rint(values)
    missing = (np.rint(values.sum(0)) - whole.sum(0)).astype(np.int64)
    for column in np.flatnonzero(missing):
        order = np.argsort(values[:, column] - whole[:, column])
        many = missing[column]
        whole[order[-many:] if many > 0 else order[:-many], column] += np.sign(many)
    return whole.astype(np.int64)
