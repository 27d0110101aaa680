"""Two networks that choose samples for each other: Co-teaching, and Co-teaching+, only where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet
from unswayed.methods.pair import Pair, choose_smallest, count_kept, mean_of_smallest

Variant = Literal["paper", "code"]


class CoTeaching(Pair):
    """Two networks; each learns from the samples with the smallest loss in the other (Co-teaching, arXiv 1804.06872).

    forget  the share left out, the true noise rate in the paper, which nobody knows; our choice is a fixed .3.
    ramp    the share of training over which `forget` rises linearly from 0; published 10 of 200 epochs (.05). Our
            choice is .1, because in short runs a twentieth is less than an epoch.
    variant "paper"; or "code", whose program divides the mean of the chosen losses by their number once more, so that
            its steps are smaller, and cuts that number to the whole number below. The division is a slip by what the
            paper says, which its Adam hardly feels but SGD does; so the paper is the default.

    Published with Adam 1e-3, falling linearly to 0 from epoch 80 on (first moment .9, then .1), batch 128, 200 epochs
    of 400 batches, no augmentation. The program changes the share once an epoch, ours at every step. Evaluation: paper
    and program report each network; our choice is the mean of their probabilities (`ensemble=False`: the first alone).
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        forget: float = 0.3,
        ramp: float = 0.1,
        variant: Variant = "paper",
        ensemble: bool = True,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        pair: dict[str, Any] = {"forget": forget, "ramp": ramp, "ensemble": ensemble}
        super().__init__(make_net, info, **pair, loss=loss, loss_settings=loss_settings)
        self.as_code = _as_code(variant)

    def loss(self, batch: Batch) -> Tensor:
        """The mean of each network's losses over the samples that the other finds easiest."""
        logits, peer_logits = self.net(batch.x), self.peer(batch.x)
        self.observe((logits.detach() + peer_logits.detach()) / 2, batch)
        own = self.criterion.per_sample(logits, batch.y, batch.index)
        peers = self.peer_criterion.per_sample(peer_logits, batch.y, batch.index)
        keep = self.kept(len(batch), batch.progress, cut=self.as_code)
        swapped = choose_smallest(own, peers, keep).mean() + choose_smallest(peers, own, keep).mean()
        return (swapped / keep if self.as_code else swapped) + self.extras(logits, peer_logits)


class CoTeachingPlus(Pair):
    """Co-teaching on those samples alone about which the two networks disagree (Co-teaching+, arXiv 1901.04215).

    warmup  the share of training that is Co-teaching on all samples. Published: 20 of 200 epochs on CIFAR-10 (.1),
            5 of 200 on CIFAR-100 (.025), 100 of 200 on Tiny ImageNet (.5), none on MNIST and text.
    forget  the share of the disagreement samples left out, the true noise rate in the paper; our choice, as in
            Co-teaching, is .3. It rises from 0 over `ramp` of training, published 10 of 200 epochs (.05).
    rising  the second schedule, which stands in the program but is switched off there: from the ramp's end on the share
            left out rises further, to twice `forget` at the end of training.
    variant "paper"; or "code", whose program takes the softmax twice, divides the mean of the chosen losses by their
            number once more, so that its steps are smaller, and cuts that number to the whole number below (all, where
            that is none). The first two are slips by what the paper says, so the paper is the default.

    Published with Adam 1e-3, falling linearly to 0 from epoch 80 on, batch 128, 200 epochs. A batch without
    disagreement teaches nothing after the warm-up; our choice, as in the program, which first learns from such batches
    whole while epoch times batch number is below 5000. Evaluation as in Co-teaching.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        warmup: float = 0.1,
        forget: float = 0.3,
        ramp: float = 0.05,
        rising: bool = False,
        variant: Variant = "paper",
        ensemble: bool = True,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        pair: dict[str, Any] = {"forget": forget, "ramp": ramp, "ensemble": ensemble}
        super().__init__(make_net, info, **pair, loss=loss, loss_settings=loss_settings)
        self.warmup = number("warmup", warmup, least=0, most=1)
        self.rising, self.as_code = rising, _as_code(variant)

    def loss(self, batch: Batch) -> Tensor:
        """The mean of each network's losses over the disputed samples that the other finds easiest."""
        logits, peer_logits = self.net(batch.x), self.peer(batch.x)
        self.observe((logits.detach() + peer_logits.detach()) / 2, batch)
        early = batch.progress < self.warmup
        disputed = logits.argmax(1) != peer_logits.argmax(1)
        among = torch.ones_like(disputed) if early else disputed
        keep = count_kept(among, 1 - self.forget_rate(batch.progress), cut=self.as_code)
        seen, peer_seen = logits, peer_logits
        if self.as_code and not early:
            seen, peer_seen = logits.softmax(1), peer_logits.softmax(1)
        own = self.criterion.per_sample(seen, batch.y, batch.index)
        peers = self.peer_criterion.per_sample(peer_seen, batch.y, batch.index)
        swapped = mean_of_smallest(own, peers, among, keep) + mean_of_smallest(peers, own, among, keep)
        return (swapped / keep.clamp(min=1) if self.as_code else swapped) + self.extras(logits, peer_logits)

    def forget_rate(self, progress: float) -> float:
        """The share of the disputed samples left out at this point of training, in [0, 1]."""
        rate = super().forget_rate(progress)
        if not self.rising or progress <= self.ramp:
            return rate
        return min(1.0, rate * (1 + (progress - self.ramp) / (1 - self.ramp)))


def _as_code(variant: Variant) -> bool:
    if variant not in ("paper", "code"):
        raise UnswayedError("variant is 'paper' or 'code'", got=repr(variant))
    return variant == "code"
