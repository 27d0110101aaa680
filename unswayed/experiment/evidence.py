"""Small curves of a finished run for reports: what suspicion finds, and whether what is said is so. They only score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.auditing.reliability import reliability

BINS = 10
CHECKED = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100)  # percent of the rows


def calibration(said: Tensor, so: Tensor) -> dict[str, Any] | None:
    """A reliability diagram of shares `said` [N] against what is `so` [N] bool; None for numbers that are no shares.

    `bins` are [number, mean said, share so, rows] of those of ten equal bins that have rows; `error` is the expected
    calibration error (arXiv 1706.04599).

    >>> calibration(torch.tensor([0.25, 0.25, 0.75]), torch.tensor([False, False, True]))["bins"]
    [[2, 0.25, 0.0, 2], [7, 0.75, 1.0, 1]]
    """
    if not len(said) or not bool(said.isfinite().all()) or float(said.min()) < 0 or float(said.max()) > 1:
        return None
    found = reliability(said, so, bins=BINS)
    each = zip(found.said.tolist(), found.so.tolist(), found.rows.tolist(), strict=True)
    bins = [[i, round(mean, 4), round(share, 4), rows] for i, (mean, share, rows) in enumerate(each) if rows]
    return {"bins": bins, "error": round(found.error, 4)}


def error_budget(suspicion: Tensor, wrong: Tensor) -> dict[str, Any] | None:
    """The share of all wrong labels that lie among the most suspicious ones; None where there are none, or only those.

    [N] in any unit and [N] bool -> `found` at each of `checked` percent of the rows. Rows of equal suspicion are taken
    in no order: each of them counts as the mean of its equals.

    >>> found = error_budget(torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([False, True, False, True]))
    >>> dict(zip(found["checked"], found["found"]))[25]
    0.5
    """
    if not bool(wrong.any()) or bool(wrong.all()):
        return None
    _, place = torch.unique(-suspicion.double().nan_to_num(-torch.inf), return_inverse=True)
    rows, bad = (torch.bincount(place, weights=each).cumsum(0) for each in (torch.ones(len(place)), wrong.double()))
    curve = np.interp(
        [share / 100 * len(wrong) for share in CHECKED], [0.0, *rows.tolist()], [0.0, *(bad / bad[-1]).tolist()]
    )
    return {"checked": list(CHECKED), "found": [round(float(value), 4) for value in curve]}


def of_known(suspicion: Tensor, given: Tensor, truth: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Suspicion and what is wrong, bool, of the rows whose truth is known, [N] -> [M]; None where it is for none."""
    if truth is None or not bool((truth >= 0).any()):
        return suspicion, None
    known = truth >= 0
    return suspicion[known], (given != truth)[known]


def score_evidence(
    suspicion: Tensor, wrong: Tensor | None, probabilities: Tensor | None = None, labels: Tensor | None = None
) -> dict[str, Any]:
    """What a result tells beside its scores: reliability of suspicion and of test predictions, and the error budget.

    suspicion [N] and what is wrong [N] bool (None: not known); probabilities [M, K] of test rows and labels [M].
    """
    said = None if wrong is None else calibration(suspicion, wrong)
    test = None
    if probabilities is not None and labels is not None:
        confidence, predicted = probabilities.max(1)
        test = calibration(confidence.clamp(0, 1), predicted == labels)
    return {
        "reliability": {"labels": said, "test": test},
        "error_budget": None if wrong is None else error_budget(suspicion, wrong),
    }
