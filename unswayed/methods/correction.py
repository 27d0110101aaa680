"""Loss correction with a transition matrix that is estimated on the way."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.losses import cross_entropy
from unswayed.losses.base import number
from unswayed.losses.correction import BackwardCorrection, ForwardCorrection
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.held_out import HeldOut, Measure
from unswayed.prediction import predict
from unswayed.stats.snapshot import Snapshot
from unswayed.stats.transition import How, estimate_transition


class Correction(Method):
    """Learn with cross-entropy, estimate the transition matrix T, learn with the corrected loss (arXiv 1609.03683).

    direction  "forward": -log (p T)_y; "backward": the losses of all labels mixed by T^-1, unbiased but without a lower
               bound. The paper finds forward the better one; so it is the default.
    estimate   "anchor", as in the paper: row i of T is the prediction at the sample that looks most like class i; or
               "confident", confident learning's calibrated counts (arXiv 1911.00068): the default, our choice, because
               it does not hang on one sample a class.
    quantile   for anchors: 1, the formula as it stands, which the program uses for CIFAR-100 alone; or .97, against
               outliers, which it uses for all other data.
    evidence   "last": the predictions of the network at the end of the first stage, as in the paper; "mean": the mean
               of those it made while it learned, which remember labels learnt by heart less: our choice.
    warmup     the share of epochs for the first stage. The paper trains twice alike, so half of them.
    restart    begin anew with the corrected loss, as in the paper. By default the first stage's network goes on,
               because the paper spends the epochs twice and here they are shared: on digits (one set of seeds) with
               40 % symmetric noise the restart costs 4 points.
    hold_out   a share of the rows, .1 in the program, that only measure each stage's loss after every epoch; the
               network where it is least is the stage's result. By default none, and a stage's result is its last
               network: our choice, because "mean" evidence serves the same end without losing rows.

    Published with SGD .1 (a tenth after epoch 40, again after 80), momentum .9, weight decay 1e-4, batch 128, 120
    epochs each (the program, CIFAR-10, ResNet).
    A T that cannot well be inverted is blended with the identity for the backward loss, as little as is needed; our
    choice, because two classes that are confused alike should not end a run.
    """

    transition: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        direction: Literal["forward", "backward"] = "forward",
        estimate: How = "confident",
        quantile: float = 1.0,
        evidence: Literal["last", "mean"] = "mean",
        warmup: float = 0.5,
        restart: bool = False,
        hold_out: float = 0.0,
    ) -> None:
        for name, value, known in (
            ("direction", direction, ("forward", "backward")),
            ("estimate", estimate, ("anchor", "confident")),
            ("evidence", evidence, ("last", "mean")),
        ):
            if value not in known:
                raise UnswayedError(f"{name} is {known[0]} or {known[1]}", got=repr(value))
        super().__init__(make_net, info)
        self.estimate: How = estimate
        self.quantile, self.evidence = number("quantile", quantile, above=0, most=1), evidence
        self.warmup = number("warmup", warmup, above=0, below=1)
        self.initial = Snapshot(self.net) if restart else None
        self.held_out = HeldOut(self.net, info.samples, hold_out) if hold_out else None
        corrected = ForwardCorrection if direction == "forward" else BackwardCorrection
        self.criterion: ForwardCorrection | BackwardCorrection = corrected(classes=info.classes)
        self.register_buffer("transition", torch.eye(info.classes))

    def plan(self, epochs: int) -> list[Stage]:
        """The first stage, and from the estimate on the second."""
        first = max(1, round(self.warmup * epochs))
        second, anew = max(1, epochs - first), self.initial is not None
        if self.held_out is None:
            return [
                Stage("cross-entropy", first, self.plain_loss),
                Stage("corrected", second, self.loss, self._prepare, fresh=anew),
            ]
        learn, correct = (partial(self._go_on, self.held_out, m) for m in (cross_entropy, self.criterion.per_sample))
        return [
            *(Stage("cross-entropy", 1, self.plain_loss, partial(learn, epoch)) for epoch in range(first)),
            Stage("corrected", 1, self.loss, partial(self._turn, self.held_out, first), fresh=anew),
            *(Stage("corrected", 1, self.loss, partial(correct, epoch)) for epoch in range(1, second)),
            Stage("take the best", 0, self.loss, partial(self._finish, self.held_out, second)),
        ]

    def plain_loss(self, batch: Batch) -> Tensor:
        """The mean cross-entropy with the given labels."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        return (cross_entropy(logits, batch.y) * batch.weight).mean()

    def loss(self, batch: Batch) -> Tensor:
        """The mean corrected loss."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        loss: Tensor = self.criterion(logits, batch.y, batch.index, batch.weight)
        return loss

    def _go_on(self, held_out: HeldOut, measure: Measure, epoch: int, data: Data) -> Data:
        if epoch > 0:
            held_out.judge(self.net, data, self.dynamics, 0, epoch, measure)
        return held_out.rest(data)

    def _turn(self, held_out: HeldOut, first: int, data: Data) -> Data:
        rest = self._go_on(held_out, cross_entropy, first, data)
        held_out.take_best(self.net)
        self._prepare(data)
        return rest

    def _finish(self, held_out: HeldOut, second: int, data: Data) -> None:
        self._go_on(held_out, self.criterion.per_sample, second, data)
        held_out.take_best(self.net)

    def _prepare(self, data: Data) -> Data:
        mean = self.dynamics.mean_probabilities() if self.evidence == "mean" else None
        probabilities = predict(self.net, data.x).softmax(1) if mean is None else mean[data.index]
        labels = data.y if data.y.dim() == 1 else data.y.argmax(1)
        found = estimate_transition(probabilities, labels, how=self.estimate, quantile=self.quantile)
        if isinstance(self.criterion, BackwardCorrection):
            found = invertible(found)
        self.transition.copy_(found)
        self.criterion.set_transition(found)
        if self.initial is not None:
            self.initial.put_back(self.net)
        return data

    def chosen(self) -> dict[str, float]:
        """The mean diagonal of the estimated T: how probably a label is right, averaged over classes."""
        return {"label_accuracy": float(self.transition.diagonal().mean())}


def invertible(transition: Tensor, worst: float = 100.0) -> Tensor:
    """The matrix nearest to `transition`, on the way to the identity in steps of a twentieth, of condition `worst`.

    `[K, K]` -> `[K, K]`, rows still sum to one. `worst` bounds how much the inverse enlarges errors; our choice.
    """
    identity = torch.eye(len(transition), dtype=transition.dtype, device=transition.device)
    for step in range(20):
        blended = torch.lerp(transition, identity, step / 20)
        if float(torch.linalg.cond(blended.double())) <= worst:
            return blended
    return identity
