"""DISC: every sample has a threshold of its own, which follows how well it has been memorised so far."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from unswayed.losses import cross_entropy, gce
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.semi import reads_ngrams, warm_up_epochs
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import can_mix, draw_share, mean_over, mix, partners, soft_labels

NEITHER, CLEAN, HARD, PURIFIED = range(4)


class DISC(Method):
    """Clean, hard and purified samples, told apart by two views and a threshold for each sample (DISC).

    Source: CVPR 2023, doi 10.1109/CVPR52729.2023.02305. The threshold of a sample and view is the running mean over
    epochs of its largest probability in that view (memorisation strength). After each epoch a sample is clean where
    the probability of its given label is above the threshold in both views, and hard where it is in one. Of the
    others, it is purified where the largest of the views' mean probabilities is above the mean threshold + `sigma`
    (at most `ceiling`), and gets that class as label. Loss, on both views: cross-entropy of clean samples
    + `lambda_h` * generalised cross-entropy of hard ones + cross-entropy of MixUp among clean, hard and purified ones.

    Settings, the authors' for CIFAR-10:

    - `momentum` .99 an epoch of 200 (.95 for asymmetric noise, and for 60 % wrong labels and more)
    - `sigma` .5, `ceiling` .99 (the program's last revision; .9 before it), `alpha` 5, `lambda_h` 1 (.2 from 60 % on),
      `q` .7
    - `warmup` 20 of 200 epochs, with cross-entropy on both views (15 for instance-dependent noise)
    - SGD .1 without momentum, weight decay 1e-3, a tenth after 80 and 160 epochs, batches of 128; Adam .001 above 60 %

    Our choices: the momentum of an epoch is `momentum` to the power 200 / epochs, so that the thresholds of a short
    run rise as far as those of a long one. A batch without any chosen sample teaches nothing. Without strong views
    (tables and features that are not augmented), no sample is hard, and the rest is as published.
    """

    seen: Tensor
    guess: Tensor
    threshold: Tensor
    part: Tensor
    label: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        warmup: int = 20,
        momentum: float = 0.99,
        sigma: float = 0.5,
        ceiling: float = 0.99,
        alpha: float = 5.0,
        lambda_h: float = 1.0,
        q: float = 0.7,
    ) -> None:
        super().__init__(make_net, info)
        self.warmup, self.momentum = (
            int(number("warmup", warmup, least=1)),
            number("momentum", momentum, least=0, most=1),
        )
        self.sigma, self.ceiling = number("sigma", sigma, least=0), number("ceiling", ceiling, above=0)
        self.alpha, self.lambda_h = number("alpha", alpha, least=0), number("lambda_h", lambda_h, least=0)
        self.q, self.classes, self.ngrams = number("q", q, above=0, most=1), info.classes, reads_ngrams(self.net)
        # What the last epoch saw of each sample: p of the given label and the largest p, in the weak and the strong
        # view, then the largest p of their mean.
        register_rows(self, "seen", torch.zeros(info.samples, 5))
        register_rows(self, "guess", torch.zeros(info.samples, dtype=torch.int64))
        register_rows(self, "threshold", torch.full((info.samples, 2), 1 / info.samples))
        register_rows(self, "part", torch.zeros(info.samples, dtype=torch.int8))
        register_rows(self, "label", torch.zeros(info.samples, dtype=torch.int64))

    def plan(self, epochs: int) -> list[Stage]:
        """One stage an epoch: samples are told apart between them."""
        warm, views = warm_up_epochs(epochs, self.warmup), ("weak", "strong")
        sort = partial(self.sort, self.momentum ** (200 / epochs))
        return [
            Stage("warm-up", 1, self.warm_up, views=views),
            *[Stage("warm-up", 1, self.warm_up, sort, views=views)] * (warm - 1),
            *[Stage("three parts", 1, self.loss, sort, views=views)] * (epochs - warm),
        ]

    def warm_up(self, batch: Batch) -> Tensor:
        """The cross-entropy of both views."""
        weak, strong = self.look(batch)
        return (cross_entropy(weak, batch.y) + cross_entropy(strong, batch.y)).mean()

    def loss(self, batch: Batch) -> Tensor:
        """Each part by its own rule."""
        weak, strong = self.look(batch)
        part, given, q = self.part[batch.index], batch.y, self.q
        clean = (cross_entropy(weak, given) + cross_entropy(strong, given)) * (part == CLEAN)
        hard = (gce(weak, given, q=q) + gce(strong, given, q=q)) * (part == HARD)
        return (clean + self.lambda_h * hard).mean() + self.mixed(batch, part)

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits of both views, taken note of."""
        weak, strong = self.net(torch.cat(batch.views)).chunk(2)
        self.observe(weak, batch)
        p = torch.stack([weak, strong]).detach().float().softmax(2)
        given = (p * soft_labels(batch.y, self.classes)).sum(2)
        largest, guess = p.mean(0).max(1)
        self.seen[batch.index] = torch.stack([*given, *p.amax(2), largest], dim=1)
        self.guess[batch.index] = guess
        return weak, strong

    def mixed(self, batch: Batch, part: Tensor) -> Tensor:
        """Cross-entropy of MixUp among the chosen samples, on both views: a scalar."""
        if not can_mix(batch.x, self.ngrams):
            return batch.weight.new_zeros(())
        chosen = part != NEITHER
        target = soft_labels(batch.y, self.classes)
        corrected = soft_labels(self.label[batch.index], self.classes)
        target = torch.where((part == PURIFIED)[:, None], corrected, target)
        rows, targets = [], []
        for view in batch.views:
            share, other = draw_share(self.alpha), partners(chosen)
            rows.append(mix(view, view[other], share, ngrams=self.ngrams))
            targets.append(torch.lerp(target[other], target, share))
        losses = cross_entropy(self.net(torch.cat(rows)), torch.cat(targets)).view(2, -1).sum(0)
        return mean_over(losses, chosen)

    def sort(self, momentum: float, data: Data) -> Data:
        """Tell the samples apart by what the last epoch saw, then move their thresholds."""
        at = data.index
        self.part[at], self.label[at] = tell_apart(
            self.seen[at], self.guess[at], self.threshold[at], self.sigma, self.ceiling
        )
        self.threshold[at] = torch.lerp(self.seen[at, 2:4], self.threshold[at], momentum)
        return data


def tell_apart(seen: Tensor, guess: Tensor, threshold: Tensor, sigma: float, ceiling: float) -> tuple[Tensor, Tensor]:
    """Which part a sample is of, and the label that it gets if it is purified: -> [N] int8, [N] int64.

    `seen` [N, 5]: p of the given label in two views, the largest p of each, and that of their mean, at class `guess`
    [N]; `threshold` [N, 2].
    """
    above = (seen[:, :2] > threshold).sum(1)
    purified = (above == 0) & (seen[:, 4] > (threshold.mean(1) + sigma).clamp_max(ceiling))
    part = torch.where(above == 2, CLEAN, torch.where(above == 1, HARD, torch.where(purified, PURIFIED, NEITHER)))
    return part.to(torch.int8), guess
