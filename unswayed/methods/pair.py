"""Two networks that learn side by side, and how they choose samples by small loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unswayed import losses
from unswayed.losses.base import number
from unswayed.method import Info, MakeNet, Method


class Pair(Method):
    """Abstract: two networks with a loss each, and a share of samples to leave out that rises in early training.

    Children define `loss`. Evaluation is the mean of the networks' probabilities, or with `ensemble=False` the first
    network alone. `forget` is the share left out from `ramp` of training on; it rises linearly from 0.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        forget: float,
        ramp: float,
        ensemble: bool,
        loss: str,
        loss_settings: Mapping[str, Any] | None,
    ) -> None:
        self.forget, self.ramp = number("forget", forget, least=0, most=1), number("ramp", ramp, least=0, most=1)
        super().__init__(make_net, info)
        self.peer, self.ensemble = make_net(), ensemble
        settings = {"classes": info.classes, "samples": info.samples, **(loss_settings or {})}
        self.criterion, self.peer_criterion = losses.tailored(loss, **settings), losses.tailored(loss, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """Rows [B, ...] -> the logarithm of the two networks' mean probabilities, [B, K]."""
        return mean_of_two(self.net(x), self.peer(x)) if self.ensemble else super().forward(x)

    def forget_rate(self, progress: float) -> float:
        """The share of samples left out at this point of training, in [0, forget]."""
        return self.forget * min(1.0, progress / self.ramp) if self.ramp else self.forget

    def kept(self, rows: int, progress: float, *, cut: bool = False) -> int:
        """How many of `rows` are kept at this point of training, rounded or `cut` to a whole number; one at least."""
        share = (1 - self.forget_rate(progress)) * rows
        return max(1, int(share) if cut else round(share))

    def extras(self, logits: Tensor, peer_logits: Tensor) -> Tensor:
        """The losses' terms over the whole batch and over the networks' parameters, a scalar."""
        terms: Tensor = self.criterion.regularizer(logits) + self.peer_criterion.regularizer(peer_logits)
        penalties = self.criterion.penalty(self.net.parameters()) + self.peer_criterion.penalty(self.peer.parameters())
        return terms + penalties


def mean_of_two(logits: Tensor, peer_logits: Tensor) -> Tensor:
    """The logarithm of the mean of two predictions' probabilities: [B, K], [B, K] -> [B, K].

    >>> mean_of_two(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]])).exp()
    tensor([[0.7500, 0.2500]])
    """
    both = torch.stack([logits.log_softmax(1), peer_logits.log_softmax(1)])
    return both.logsumexp(0) - torch.log(both.new_full((), 2.0))


def count_kept(among: Tensor, share: float, *, cut: bool = False) -> Tensor:
    """How many rows that `share` of the rows `among` is, rounded: truth values [B] -> scalar; one where there is one.

    With `cut` it is the whole number below, and all rows where that is none, as in the program of Co-teaching+.
    """
    rows = among.sum()
    kept = (share * rows).floor() if cut else torch.minimum(rows, (share * rows).round().clamp(min=1))
    return torch.where(kept > 0, kept, rows)


def mean_of_smallest(losses: Tensor, judge: Tensor, among: Tensor, keep: Tensor) -> Tensor:
    """The mean of the `losses` of those `keep` of the rows `among` whose `judge` is smallest -> scalar.

    [B], [B], truth values [B] and a number; of no row the mean is 0. Nothing here waits for the device.

    >>> losses, judge = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    >>> among = torch.tensor([False, True, True, True])
    >>> mean_of_smallest(losses, judge, among, count_kept(among, 0.67))
    tensor(2.5000)
    """
    order = judge.detach().masked_fill(~among, torch.inf).argsort(stable=True)
    chosen = torch.arange(len(losses), device=losses.device) < keep
    return torch.where(chosen, losses[order], 0).sum() / keep.clamp(min=1)


def choose_smallest(losses: Tensor, judge: Tensor, keep: int) -> Tensor:
    """The `losses` of the `keep` samples whose loss is smallest according to `judge`: [B], [B] -> [keep].

    >>> choose_smallest(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.3, 0.1, 0.2]), 2)
    tensor([2., 3.])
    """
    return losses[judge.detach().topk(keep, largest=False).indices]
