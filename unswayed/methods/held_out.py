"""Rows held out with their given labels, and the network that predicts these best: early stopping without the truth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.method import Data
from unswayed.prediction import predict
from unswayed.stats.dynamics import Dynamics
from unswayed.stats.rows import register_rows
from unswayed.stats.snapshot import Snapshot

Measure = Callable[[Tensor, Tensor], Tensor]  # logits [B, K] and labels -> losses [B]


class HeldOut(nn.Module):
    """A share of the rows, drawn once, and the best network so far in predicting their given labels.

    `best` is (score on these rows, trial, epochs); the score, an accuracy or exp(-loss), is -1 before the first look.
    Of equal networks the first is kept.
    """

    rows: Tensor
    best: Tensor

    def __init__(self, net: nn.Module, samples: int, share: float) -> None:
        if not 0 < share < 1:
            raise UnswayedError("hold_out is a share in (0, 1)", got=share)
        super().__init__()
        self.share, self.net = share, Snapshot(net)
        register_rows(self, "rows", torch.zeros(samples, dtype=torch.int8))
        self.register_buffer("best", torch.tensor([-1.0, 0.0, 0.0]))

    def rest(self, data: Data) -> Data:
        """The rows to train on; the first call draws those that are held out."""
        if not bool(self.rows.any()):
            chosen = torch.randperm(len(data))[: max(1, round(self.share * len(data)))]
            self.rows[data.index[chosen.to(data.index.device)]] = 1
        return data.rows(self.rows[data.index] == 0)

    def judge(
        self, net: nn.Module, data: Data, dynamics: Dynamics, trial: int, epochs: int, loss: Measure | None = None
    ) -> None:
        """Score `net` after `epochs` of this `trial` on the rows held out of `data`, and keep it if it is the best.

        The score is the accuracy; or with a `loss`, how small its mean is.
        """
        held = data.rows(self.rows[data.index] == 1)
        labels = held.y if held.y.dim() == 1 else held.y.argmax(1)
        logits = predict(net, held.x)
        found = (logits.argmax(1) == labels).float().mean() if loss is None else loss(logits, held.y).mean().neg().exp()
        score = float(found)
        dynamics.update(logits, held.y, held.index)  # held-out rows are never seen in training
        if score > float(self.best[0]):
            self.best.copy_(torch.tensor([score, trial, epochs]))
            self.net.take(net)

    def take_best(self, net: nn.Module) -> None:
        """Make `net` the best network so far, and forget all scores."""
        self.net.put_back(net)
        self.best.copy_(torch.tensor([-1.0, 0.0, 0.0]))
