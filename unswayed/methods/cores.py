"""A sieve that leaves out the labels that are worse than an average one."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from unswayed.errors import UnswayedError
from unswayed.losses import cores, cross_entropy
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import ramp_up
from unswayed.stats.snapshot import Snapshot


class CORES(Method):
    """Confidence-regularised learning with a dynamic sample sieve (CORES, arXiv 2010.02347).

    Loss: CE - beta times the cross-entropy of an average label, which asks for confidence. A sample whose CE is above
    the mean of its losses over all labels is left out; every sample is looked at anew in every epoch.

    beta         rises from 0, after a tenth of the epochs, to 2 after four tenths: published, 10 and 40 of 100 epochs.
    sieve_from   the share of the epochs after which the sieve works; published 30 of 100.
    prior        how often each label occurs in the average: "kept", among the samples that the last epoch kept, as in
                 the program and so the default; "given", among all, as in the paper; or "uniform".
    consistency  the weight of a second phase, in the program .2, .4, .9 at 20, 40, 60 % noise (then called CORES*); 0:
                 none. There the labels of samples left out are forgotten; they only have to be predicted alike in a
                 weak and a strong view.
    settle       how far the first phase then gets in its own schedule before it settles which samples are left out; in
                 the program .41, its epoch 40. Our choice: 1, all of it, because the network goes on.
    supervise    the view in which samples kept are learnt there, "weak", our choice, or "strong", as in the program: a
                 strong view needs epochs by the hundred to pay.
    restart      begin the second phase anew, as the authors do with 1600 further epochs. By default it goes on, with a
                 fresh learning rate; our choice, because here both phases share the epochs, half each.

    Published with SGD .1, from half the epochs on .01, both divided by 1 + beta (here the loss is, which is the same
    but for momentum and weight decay: .9 and 5e-4 in the paper, none in the program), batch 64, 100 epochs; the second
    phase with Nesterov momentum, weight decay 5e-4, cosine, 320 rows kept and 80 to 240 left out a step. Where all
    views show rows as stored (tables), the second phase is training on the samples kept; it wants many epochs: on
    digits with 40 % symmetric noise it cost 8 points of a run of 20 epochs, 1 of one of 60. A sieve that keeps fewer
    than two samples keeps all.
    """

    kept: Tensor
    prior: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        beta: float = 2.0,
        sieve_from: float = 0.3,
        prior: Literal["kept", "given", "uniform"] = "kept",
        consistency: float = 0.0,
        settle: float = 1.0,
        supervise: Literal["weak", "strong"] = "weak",
        restart: bool = False,
    ) -> None:
        if prior not in ("kept", "given", "uniform"):
            raise UnswayedError("prior is kept, given or uniform", got=repr(prior))
        if supervise not in ("weak", "strong"):
            raise UnswayedError("supervise is weak or strong", got=repr(supervise))
        super().__init__(make_net, info)
        self.beta, self.sieve_from = number("beta", beta, least=0), number("sieve_from", sieve_from, least=0, most=1)
        self.average, self.consistency = prior, number("consistency", consistency, least=0)
        self.reach = number("settle", settle, above=0, most=1) if consistency else 1.0
        self.supervise = supervise
        self.initial = Snapshot(self.net) if restart and consistency else None
        register_rows(self, "kept", torch.ones(info.samples, dtype=torch.int8))
        self.register_buffer("prior", torch.full((info.classes,), 1 / info.classes))

    def plan(self, epochs: int) -> list[Stage]:
        """The sieve epoch by epoch, because the prior is renewed between two; then the second phase, if any."""
        first = max(1, epochs // 2) if self.consistency else epochs
        done = [self.reach * epoch / first for epoch in range(first)]
        plan = [Stage("sieve", 1, partial(self.sieve_loss, share), self._count) for share in done]
        if not self.consistency:
            return plan
        views, second = ("weak", "strong"), max(1, epochs - first)
        return [*plan, Stage("consistency", second, self.consistency_loss, self._settle, views=views, fresh=True)]

    def sieve_loss(self, done: float, batch: Batch) -> Tensor:
        """The mean loss of the samples that pass the sieve, `done` of the way through the first phase."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        beta = self.beta * ramp_up(done, start=0.1, length=0.3)
        values = cores(logits, batch.y, beta=beta, prior=self.prior) / (1 + beta)
        passed = torch.ones_like(batch.index, dtype=torch.bool)
        if done >= self.sieve_from:
            passed = cores(logits.detach(), batch.y, beta=1.0) <= 0
        self.kept[batch.index] = passed.to(torch.int8)
        return mean_over(values * batch.weight, passed)

    def consistency_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the samples kept, and for the others the divergence between their two views."""
        weak, strong = self.net(batch.views[0]).float(), self.net(batch.views[1]).float()
        self.observe(weak, batch)
        passed = self.kept[batch.index] > 0
        target = weak.detach().log_softmax(1)
        apart = kl_div(strong.log_softmax(1), target, reduction="none", log_target=True).sum(1)
        shown = strong if self.supervise == "strong" else weak
        supervised = mean_over(cross_entropy(shown, batch.y) * batch.weight, passed)
        return supervised + self.consistency * mean_over(apart, ~passed)

    def _count(self, data: Data) -> Data:
        """Renew the prior from the labels of the samples kept."""
        if self.average != "uniform":
            rows = data.rows(self.kept[data.index] > 0) if self.average == "kept" else data
            classes = len(self.prior)
            counts = torch.bincount(rows.y, minlength=classes).float() if rows.y.dim() == 1 else rows.y.float().sum(0)
            if bool(counts.sum() > 0):
                self.prior.copy_(counts / counts.sum())
        return data

    def _settle(self, data: Data) -> Data:
        if int(self.kept[data.index].sum()) < 2:
            self.kept.fill_(1)
        if self.initial is not None:
            self.initial.put_back(self.net)
        return data

    def chosen(self) -> dict[str, float]:
        """The share of samples that passed the sieve last."""
        return {"kept": float((self.kept > 0).float().mean())}


def mean_over(values: Tensor, rows: Tensor) -> Tensor:
    """The mean of the values of those rows, 0 without one: [B], truth values [B] -> scalar."""
    return torch.where(rows, values, 0).sum() / rows.sum().clamp(min=1)
