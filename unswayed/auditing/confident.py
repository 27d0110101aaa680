"""Confident learning (arXiv 1911.00068): which labels are wrong, by counts of true classes and given labels."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unswayed.auditing.probabilities import normalised_margin
from unswayed.errors import UnswayedError
from unswayed.stats.confident import SLACK, Rule, calibrated, joint_counts, keep_diagonal, survey, thresholds
from unswayed.stats.predictions import CHUNK, Array, Groups, Predictions, Rows

__all__ = ["Filter", "find_issues", "joint_counts"]

Filter = Literal[
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
]


def find_issues(
    labels: Rows,
    probs: Rows,
    *,
    filter_by: Filter = "prune_by_noise_rate",
    share: float = 1.0,
    least: int = 1,
    rule: Rule = "program",
) -> Tensor:
    """Which labels are probably wrong, `[N]`, `[N, K]` -> `[N]` bool, by one of the filters of confident learning.

    prune_by_noise_rate   for each pair of given label i and other class j, as many rows as the calibrated joint counts
                          have there: those with the largest p_j - p_i
    prune_by_class        for each label, as many rows as its counts have off the diagonal: those with the smallest p_y
    both                  what both of these name
    confident_learning    rows that count off the diagonal of the joint counts
    predicted_neq_given   rows whose likeliest class is another one
    low_normalized_margin, low_self_confidence
                          as many rows as confident_learning names: those with the lowest of this score

    But for the last two, only rows for which another class is likelier than the given label are named. `share` scales
    the counts off the diagonal, and classes keep `least` rows (both for the first three filters). `rule`: see
    `joint_counts`. Equal to cleanlab's find_label_issues; of equally suspicious rows at a cut the earlier ones are
    named (our choice: the program's depends on its sort). Read in chunks, it holds about 20 bytes a row besides.
    Raises UnswayedError for a filter it does not know, and for labels or probabilities that do not fit.

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
    >>> find_issues(torch.tensor([0, 0, 0, 1, 1]), probs)
    tensor([False, False,  True, False, False])
    """
    for name, value, choices in (("filter_by", filter_by, Filter), ("rule", rule, Rule)):
        if value not in get_args(choices):
            raise UnswayedError(f"{name} is one of {', '.join(get_args(choices))}", got=repr(value))
    if not 0 <= share <= 1 or least < 0:
        raise UnswayedError("share is in [0, 1] and least 0 or more", got=f"{share} and {least}")
    predictions = Predictions(labels, probs)
    groups = Groups(predictions.labels, predictions.classes)
    own = predictions.own()
    counts, suspects, confident = survey(predictions, own, thresholds(own, groups), rule)
    if filter_by == "predicted_neq_given":
        return torch.from_numpy(suspects)
    confident &= suspects
    if filter_by == "confident_learning":
        return torch.from_numpy(confident)
    if filter_by in ("low_normalized_margin", "low_self_confidence"):
        quality = own if filter_by == "low_self_confidence" else 1 - normalised_margin(labels, probs).numpy()
        return torch.from_numpy(lowest(quality, int(confident.sum())))
    prune = prune_counts(calibrated(keep_diagonal(counts), groups.sizes), share, least)
    found = np.zeros(len(own), dtype=bool)
    for label in np.flatnonzero(groups.sizes > least).tolist():
        rows = groups.rows(label)
        if filter_by == "prune_by_noise_rate":
            _prune_by_noise_rate(found, predictions, rows, own[rows], suspects[rows], prune[:, label], label)
            continue
        low = lowest(own[rows], len(rows) - prune[label, label]) & suspects[rows]
        if filter_by == "both" and low.any():
            _prune_by_noise_rate(found, predictions, rows, own[rows], suspects[rows], prune[:, label], label)
            low &= found[rows]
        found[rows] = low
    return torch.from_numpy(found)


def prune_counts(joint: Array, share: float, least: int) -> Array:
    """How many rows of each label (column) to name for each class: `[K, K]` int64; the diagonal is what stays.

    A diagonal below `least` is raised, at the others' cost, and `share` of the rest is named. Fractions are dropped.
    """
    stay = np.maximum(joint.diagonal(), least)
    others = np.maximum((joint > 0).sum(0) - 1.0, 1.0)
    kept = np.maximum(joint - (stay - joint.diagonal()) / others, 0)
    np.fill_diagonal(kept, stay)
    named = kept * share
    np.fill_diagonal(named, stay)
    np.fill_diagonal(named, stay + (kept - named).sum(0))
    return np.asarray(named, dtype=np.int64)


def lowest(values: Array, many: int) -> Array:
    """The `many` lowest of `values` `[n]` -> `[n]` bool; of equal ones the first.

    >>> lowest(np.array([0.5, 0.1, 0.5, 0.9]), 2).tolist()
    [True, True, False, False]
    """
    if many <= 0 or many >= len(values):
        return np.full(len(values), many > 0)
    cut = np.partition(values, many - 1)[many - 1]
    chosen: Array = values <= cut
    spare = int(chosen.sum()) - many
    if spare:
        chosen[np.flatnonzero(values == cut)[-spare:]] = False
    return chosen


def _prune_by_noise_rate(
    found: Array, predictions: Predictions, rows: Array, own: Array, suspect: Array, prune: Array, label: int
) -> None:
    """Name suspects among the rows of one label, for each class j the prune[j] rows with the largest p_j - p_label.

    Most classes ask for fewer rows than there are suspects with p_j above p_label: their cut lies among suspects, and
    no other row need be read. A class that asks for more names all of these; what else it names has p_j below, and is
    looked for only where a suspect is left.
    """
    suspects = rows[suspect]
    named = np.zeros(len(suspects), dtype=bool)
    hungry = []
    for classes in _some(np.flatnonzero((prune > 0) & (np.arange(len(prune)) != label)), len(suspects)):
        margin = predictions.at(suspects, classes) - own[suspect]
        ahead = (margin > 2 * SLACK).sum(1)  # each of these rows is a suspect, whatever the rounding
        asked = prune[classes]
        enough = asked <= ahead
        hungry.extend(classes[~enough])
        named |= (margin[~enough] > 2 * SLACK).any(0)
        if enough.any():
            named |= _largest(margin[enough], asked[enough])
    for j in hungry:
        if named.all():
            break
        margin = predictions.at(rows, np.array([j]))[0] - own
        named |= lowest(-margin, int(prune[j]))[suspect]
    found[suspects] = named


def _largest(margin: Array, many: Array) -> Array:
    """Columns of `margin` `[k, n]` that are among the `many[i]` largest of some row i: `[n]` bool."""
    cut = np.sort(margin, axis=1)[np.arange(len(many)), margin.shape[1] - many]
    chosen = margin >= cut[:, None]
    for i in np.flatnonzero(chosen.sum(1) > many):  # equal ones at the cut
        chosen[i] = lowest(-margin[i], int(many[i]))
    return np.asarray(chosen.any(0))


def _some(classes: Array, rows: int) -> list[Array]:
    """The classes in parts, so that rows times classes stay within a few chunks."""
    size = max(1, 4 * CHUNK // max(1, rows))
    return [classes[start : start + size] for start in range(0, len(classes), size)]
