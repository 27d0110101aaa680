"""Labels by several annotators `[N, A]`, -1 where one gave none: what the true label is, and who can be trusted.

The table may be as sparse as crowds are: all costs grow with the labels that are there, and with K.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.stats.predictions import Array, Rows, as_array

CHUNK = 2**22  # probabilities gathered at a time: 32 MiB of float64
TINY = 1e-12  # the smallest probability that a logarithm is taken of


class Consensus(NamedTuple):
    """What several annotators say together."""

    label: Tensor  # [N] int64: the likeliest class; of equals the most frequent one; -1 where nobody gave a label
    posterior: Tensor  # [N, K] float64: the probability of every class
    prior: Tensor  # [K] how frequent every class is
    confusion: Tensor  # [A, K, K]: P(given label j | true class i) of every annotator
    quality: Tensor  # [A]: the share of an annotator's labels that are right, as far as known; NaN for who gave none


def majority_vote(labels: Rows, *, classes: int | None = None) -> Consensus:
    """The shares of the votes as probabilities: labels `[N, A]` -> `Consensus`.

    Our choice: a row without a vote gets the shares of all votes, and of classes with equally many votes the one that
    is given more often over all wins (then the first), so that the outcome is the same every time. Confusion and
    quality are those of each annotator against these shares, not smoothed; a class of which one gave no label has
    1 / K everywhere. Raises UnswayedError for labels that do not fit.

    >>> found = majority_vote(torch.tensor([[0, 0, 1], [1, 1, -1]]))
    >>> found.label.tolist(), found.quality.round(decimals=2).tolist()
    ([0, 1], [0.83, 0.83, 0.33])
    """
    votes = _Votes(labels, classes)
    shares = votes.shares()
    return votes.consensus(shares, votes.confusion(shares, 0.0))


def dawid_skene(
    labels: Rows,
    *,
    classes: int | None = None,
    rounds: int = 100,
    tolerance: float = 1e-5,
    smoothing: float = 1.0,
) -> Consensus:
    """Dawid and Skene's model (1979, Applied Statistics 28:20-28): labels `[N, A]` -> `Consensus`.

    Every annotator errs in a way of their own, P(given j | true i), and independently given the truth. EM from the
    shares of the votes, until no probability moves by more than `tolerance`, or for `rounds` rounds.

    Our choice: to the counts of each annotator, `smoothing` labels of every true class are added in every round, given
    as all annotators together give them, because by maximum likelihood somebody with few labels would be believed
    blindly, or not at all; 0 is the published form. An annotator who is worse than chance still counts, as a witness
    for the opposite. Raises UnswayedError for labels and settings that do not fit.

    >>> dawid_skene(torch.tensor([[0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, -1, 0]])).label.tolist()
    [0, 1, 0, 1, 0]
    """
    if rounds < 1 or tolerance < 0 or smoothing < 0:
        got = f"{rounds}, {tolerance} and {smoothing}"
        raise UnswayedError("one round or more, tolerance and smoothing of 0 or more", got=got)
    votes = _Votes(labels, classes)
    posterior = votes.shares()
    for _ in range(rounds):
        confusion = votes.confusion(posterior, smoothing)
        before, posterior = posterior, votes.expect(posterior.mean(0), confusion)
        if float((posterior - before).abs().max()) <= tolerance:
            break
    return votes.consensus(posterior, votes.confusion(posterior, smoothing))


def consensus_suspicion(consensus: Consensus) -> Tensor:
    """The probability that the consensus label is wrong: -> `[N]` in [0, 1]; 1 where nobody gave a label."""
    return label_suspicion(consensus.label[:, None], consensus)[:, 0].nan_to_num(1.0)


def label_suspicion(labels: Rows, consensus: Consensus) -> Tensor:
    """The probability that each given label is wrong: `[N, A]` (or `[N]`) -> the same shape; NaN where it is missing.

    >>> found = majority_vote(torch.tensor([[0, 0, 1, -1]]))
    >>> label_suspicion(torch.tensor([[0, 0, 1, -1]]), found)
    tensor([[0.3333, 0.3333, 0.6667,    nan]])
    """
    y = torch.from_numpy(as_array(labels).astype(np.int64))
    rows, classes = consensus.posterior.shape
    if len(y) != rows or y.dim() > 2 or (y.numel() and int(y.max()) >= classes):
        raise UnswayedError(f"labels of {rows} rows in 0..{classes - 1}", got=f"shape {list(y.shape)}")
    at = y.reshape(rows, -1)
    p = 1 - consensus.posterior.gather(1, at.clamp_min(0))
    return torch.where(at < 0, torch.nan, p).float().reshape(y.shape)


class _Votes:
    """The labels that are there: whose row, whose annotator, which label."""

    def __init__(self, labels: Rows, classes: int | None) -> None:
        table = as_array(labels)
        _check(table, classes)
        rows, who = np.nonzero(table >= 0)
        self.rows, self.who = torch.from_numpy(rows), torch.from_numpy(who)
        self.given = torch.from_numpy(table[rows, who].astype(np.int64))
        self.many, self.annotators = table.shape
        self.classes = int(self.given.max()) + 1 if classes is None else classes
        self.often = torch.bincount(self.given, minlength=self.classes).double()

    def shares(self) -> Tensor:
        """The share of every class among each row's votes, [N, K]; of all votes where there is none."""
        cells = self.rows * self.classes + self.given
        counts = torch.bincount(cells, minlength=self.many * self.classes).view(self.many, -1).double()
        total = counts.sum(1, keepdim=True)
        return torch.where(total > 0, counts / total.clamp_min(1), self.often / self.often.sum())

    def confusion(self, posterior: Tensor, smoothing: float) -> Tensor:
        """P(given j | true i) of every annotator by these beliefs: [N, K] -> [A, K, K]."""
        k = self.classes
        counts = torch.zeros(self.annotators * k, k, dtype=posterior.dtype)  # a row for annotator and label
        for part in self._parts():
            counts.index_add_(0, self.who[part] * k + self.given[part], posterior[self.rows[part]])
        counts = counts.view(self.annotators, k, k).transpose(1, 2)
        if smoothing:
            counts = counts + smoothing * _rates(counts.sum(0))
        return _rates(counts)

    def expect(self, prior: Tensor, confusion: Tensor) -> Tensor:
        """The probability of every class, [N, K]."""
        told = confusion.clamp_min(TINY).log().transpose(1, 2).reshape(-1, self.classes)
        log_p = prior.clamp_min(TINY).log().repeat(self.many, 1)
        for part in self._parts():
            log_p.index_add_(0, self.rows[part], told[self.who[part] * self.classes + self.given[part]])
        return log_p.softmax(1)

    def consensus(self, posterior: Tensor, confusion: Tensor) -> Consensus:
        best = posterior >= posterior.amax(1, keepdim=True) - 1e-9
        label = torch.where(best, self.often + 1, 0).argmax(1)
        label[torch.bincount(self.rows, minlength=self.many) == 0] = -1
        right = torch.zeros(self.annotators, dtype=posterior.dtype)
        right.index_add_(0, self.who, posterior[self.rows, self.given])
        quality = right / torch.bincount(self.who, minlength=self.annotators)  # 0 / 0 for who gave none
        return Consensus(label, posterior, posterior.mean(0), confusion, quality)

    def _parts(self) -> list[slice]:
        size = max(1, CHUNK // self.classes)
        return [slice(start, start + size) for start in range(0, len(self.rows), size)]


def _rates(counts: Tensor) -> Tensor:
    """Counts scaled to sum one over the last dimension; the same everywhere where there are none."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp_min(TINY), 1 / counts.shape[-1])


def _check(table: Array, classes: int | None) -> None:
    if table.ndim != 2 or table.dtype.kind not in "iu":
        got = f"{table.dtype} of shape {list(table.shape)}"
        do = "one column an annotator, whole numbers from 0, -1 where there is no label"
        raise UnswayedError("labels of several annotators are integers of shape [N, A]", got=got, do=do)
    if not (table >= 0).any():
        raise UnswayedError("labels of several annotators", got="no label at all")
    if int(table.min()) < -1 or (classes is not None and int(table.max()) >= classes):
        most = "" if classes is None else f"..{classes - 1}"
        raise UnswayedError(f"labels in 0{most}, or -1 for none", got=f"{int(table.min())}..{int(table.max())}")
