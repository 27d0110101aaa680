"""TURN: let a linear probe on frozen features find the clean rows, then fine-tune everything on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.semi import head_of, row_losses
from unswayed.stats.mixtures import gaussian_mixture
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import smallest_of_class

Quota = Literal["median", "least"]


class TURN(Method):
    """Probes a pretrained body, keeps each class's low losses, then tunes all on them (TURN, arXiv 2310.17668).

    1. The body is frozen, batch normalisation's statistics included; the head learns all rows by GCE, which bears
    wrong labels. 2. Per given label, two Gaussians are fitted to the losses; rows of the lower one by a probability
    above `threshold` are clean, and equally many of every class are kept, the smallest losses first. 3. Body and
    head learn the kept rows by cross-entropy, with a fresh optimiser. Fine-tuning at once would distort the features.

    probe           the share of the epochs that goes to the probe, at least one epoch.
    threshold       of the probability of being clean.
    quota           how many rows of a class are kept at most: "least", as many as the class with the fewest clean rows
                    has, so that all are equal, as published; "median", the median of their numbers, of which smaller
                    classes give all, our default: one rare class would otherwise leave nothing of the others.
    probe_loss      "gce", with its published q .7, or any other.
    loss            of the fine-tuning.

    Our choices, where our sources are silent (we found no program of the authors): `probe` .5 and `threshold` .5; the
    losses that are compared are cross-entropies; a class without clean rows gives none and does not count for the
    quota, and fewer than two rows in all keep everybody. It is made for pretrained bodies and for frozen features; an
    untrained body is probed as it was drawn.
    """

    clean: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        probe: float = 0.5,
        threshold: float = 0.5,
        quota: Quota = "median",
        probe_loss: str = "gce",
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        if quota not in get_args(Quota):
            raise UnswayedError("quota is 'median' or 'least'", got=repr(quota))
        super().__init__(make_net, info)
        self.quota = quota
        self.probe, self.classes = number("probe", probe, above=0, below=1), info.classes
        self.threshold = number("threshold", threshold, least=0, below=1)
        size = {"classes": info.classes, "samples": info.samples}
        self.probe_criterion = losses.tailored(probe_loss, **size)
        self.criterion = losses.tailored(loss, **{**size, **(loss_settings or {})})
        register_rows(self, "clean", torch.full((info.samples,), -1.0))  # probability; -1: not judged

    def plan(self, epochs: int) -> list[Stage]:
        """The probe, then the fine-tuning on what it keeps."""
        first = max(1, round(self.probe * epochs))
        return [
            Stage("linear probe", first, self.learn_head, train=head_of(self.net)),
            Stage("fine-tune", max(1, epochs - first), self.loss, self.select, fresh=True),
        ]

    def learn_head(self, batch: Batch) -> Tensor:
        """The robust loss of all rows."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        loss: Tensor = self.probe_criterion(logits, batch.y, batch.index, batch.weight)
        return loss + self.probe_criterion.penalty(head_of(self.net).parameters())

    def loss(self, batch: Batch) -> Tensor:
        """The loss of the rows kept."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        loss: Tensor = self.criterion(logits, batch.y, batch.index, batch.weight)
        return loss + self.criterion.penalty(self.net.parameters())

    def select(self, data: Data) -> Data:
        """The clean rows, equally many of every class."""
        losses_now, labels = row_losses(self.net, data), data.y if data.y.dim() == 1 else data.y.argmax(1)
        clean = gaussian_mixture(losses_now, labels, classes=self.classes).posterior(losses_now, labels)
        self.clean[data.index] = clean
        kept = even_selection(losses_now, labels, clean > self.threshold, self.classes, self.quota)
        return data.rows(kept) if int(kept.sum()) >= 2 else data

    def suspicion(self) -> Tensor | None:
        """One minus the probability of being clean that the probe gave, [N]; .5 where not judged."""
        known = self.clean >= 0
        return torch.where(known, 1 - self.clean, 0.5) if bool(known.any()) else super().suspicion()


def even_selection(losses_now: Tensor, y: Tensor, clean: Tensor, classes: int, quota: Quota = "median") -> Tensor:
    """The clean rows of smallest loss, of every class the median (or least) of their numbers at most: `[N]` -> `[N]`.

    >>> y = torch.tensor([0, 0, 0, 1, 1, 2])
    >>> even_selection(torch.tensor([0.3, 0.1, 0.2, 0.5, 9.0, 0.4]), y, torch.tensor([1, 1, 1, 1, 0, 1]) > 0, classes=3)
    tensor([False,  True, False,  True, False,  True])
    """
    counts = torch.bincount(y[clean], minlength=classes)
    if not bool(counts.any()):
        return clean
    most = int(counts[counts > 0].median() if quota == "median" else counts[counts > 0].min())
    return clean & smallest_of_class(losses_now.masked_fill(~clean, torch.inf), y, classes, most)
