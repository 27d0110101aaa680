"""MixUp: learn straight lines between samples, which wrong labels bend less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unswayed import losses
from unswayed.data.columns import send
from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet, Method
from unswayed.methods.semi import reads_ngrams
from unswayed.stats.semi import can_mix, draw_share, mix


class MixUp(Method):
    """One network that learns mixtures of two samples under mixtures of their labels (MixUp, arXiv 1710.09412).

    With s of Beta(alpha, alpha), once a batch: s * loss(mixture, one label) + (1 - s) * loss(mixture, other label);
    for cross-entropy, and for every loss that is linear in the label, this is the loss under the mixed label.

    - `alpha` 8: the authors' for 20 % wrong labels, and 32 for more (1 where labels are right). Our choice: the
      smaller one, since the rate is unknown and a short run underfits with the larger.
    - `loss`: any loss, the authors' is cross-entropy
    - the authors' training: 200 epochs, SGD .1, a tenth of it from epoch 100 and again from 150, weight decay 1e-4,
      batches of 128

    Paper and program agree. Here the row itself is always the larger part, so that its predictions can be noted as its
    own; the mixtures are distributed alike, because the inverse of a random order is as probable.

    Texts as n-grams are mixed exactly, as sparse vectors; rows of word numbers cannot be, and are learnt as they are.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        alpha: float = 8.0,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(make_net, info)
        self.alpha, self.ngrams = number("alpha", alpha, least=0), reads_ngrams(self.net)
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))

    def loss(self, batch: Batch) -> Tensor:
        """The mean of the losses under both labels, weighted by their shares."""
        share = draw_share(self.alpha) if can_mix(batch.x, self.ngrams) else 1.0
        order = send(torch.randperm(len(batch)), batch.x.device)
        x = mix(batch.x, batch.x[order], share, ngrams=self.ngrams) if share < 1 else batch.x
        logits = self.net(x)
        self.observe(logits, batch)
        own = self.criterion(logits, batch.y, batch.index, batch.weight)
        other = self.criterion(logits, batch.y[order], batch.index[order], batch.weight[order]) if share < 1 else own
        loss: Tensor = torch.lerp(other, own, share)
        return loss + self.criterion.penalty(self.net.parameters())
