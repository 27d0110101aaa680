"""Label noise learned beside the network, with two terms that make more of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet, Method, Stage
from unswayed.stats.semi import prior_penalty, soft_labels


class SOPPlus(Method):
    """SOP with consistency over views and balance over classes (SOP+, arXiv 2202.14026).

    Loss: SOP on the weak view, + consistency * KL(weak || strong), the weak prediction as the target, + balance *
    KL(uniform || mean prediction of the batch).

    consistency  published .9.  balance  published .1.
    variant      "paper": the mean of the network's predictions is balanced; "code": the mean of the predictions with
                 the learned noise added, as in the authors' program. The paper is the default, because its term says
                 what it is for.
    sop          settings of the loss SOP; its published ones otherwise. `lr_u` and `lr_v` are 10 and 10 by default; in
                 the program 1 and 10 for CIFAR-100, .1 and 100 there for asymmetric noise. No schedule lowers them.
                 `joint=True` lets the squared error teach u as well, as the program does since its last revision.

    Published with SGD .02, weight decay 1e-3, momentum .9, batch 128, 300 epochs, cosine to 2e-4, AutoAugment with
    cutout as the strong view. Both views go through the network in one pass, as in the program. Where all views show
    rows as stored (tables), the consistency term is zero.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        consistency: float = 0.9,
        balance: float = 0.1,
        variant: Literal["paper", "code"] = "paper",
        sop: Mapping[str, Any] | None = None,
    ) -> None:
        if variant not in ("paper", "code"):
            raise UnswayedError("variant is paper or code", got=repr(variant))
        super().__init__(make_net, info)
        self.consistency, self.balance = (
            number("consistency", consistency, least=0),
            number("balance", balance, least=0),
        )
        self.variant = variant
        made = losses.tailored("sop", classes=info.classes, samples=info.samples, **(sop or {}))
        self.criterion: Any = made  # a SOP, with u, v and floor

    def plan(self, epochs: int) -> list[Stage]:
        """One stage, every row in two views."""
        return [Stage("train", epochs, self.loss, views=("weak", "strong"))]

    def loss(self, batch: Batch) -> Tensor:
        """SOP, consistency and balance."""
        weak, strong = self.net(torch.cat(batch.views)).float().chunk(2)
        self.observe(weak, batch)
        target = weak.detach().log_softmax(1)
        apart = kl_div(strong.log_softmax(1), target, reduction="batchmean", log_target=True)
        even = prior_penalty(weak) if self.variant == "paper" else self._balance(weak, batch)
        fit: Tensor = self.criterion(weak, batch.y, batch.index, batch.weight)
        return fit + self.consistency * apart + self.balance * even

    def _balance(self, logits: Tensor, batch: Batch) -> Tensor:
        hot = soft_labels(batch.y, logits.shape[1])
        u, v = self.criterion.u[batch.index], self.criterion.v[batch.index]
        noise = (u.square() * hot).clamp(0, 1) - (v.square() * (1 - hot)).clamp(0, 1).detach()
        shifted = (logits.softmax(1) + noise).clamp(min=self.criterion.floor)
        mean = (shifted / shifted.sum(1, keepdim=True)).mean(0).clamp(min=1e-4)
        even: Tensor = -mean.log().mean()
        return even
