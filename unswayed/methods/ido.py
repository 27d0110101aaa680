"""Instance-level difficulty: count how often the network contradicts a label, then let the counts weigh the loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.stats.label_wave import LabelWave
from unswayed.stats.rows import register_rows
from unswayed.stats.snapshot import Snapshot
from unswayed.stats.wrong_events import DynamicWeights, Shape, Weights

Evidence = Literal["wrong events", "loss", "mean loss"]
FIRST_ROUNDS, FLOOR = 20, 1e-4  # as published: rounds of EM in the first fit, and the least probability in H(q)


class IDO(Method):
    """Counts wrong events, then trains with weights that they dictate to every sample (IDO, arXiv 2505.00812).

    First third of the epochs: cross-entropy on one weak view; a wrong event is a prediction that differs from the
    given label. The network goes back to what it was before the number of changed predictions first rose (Label Wave,
    arXiv 2502.07551). Then, on a weak and a strong view, with a fresh optimiser:
    p1 (CE weak + CE strong) + [p1 F1 + (1 - p2)(1 - F2)] MSE(logits) + (1 - p1) max(q) H(q), where p1, p2, F1, F2 are
    posteriors and distribution functions of a clean and a noisy Beta distribution of the counts, one pair a given
    label, renewed every epoch, and q is the mean prediction of the two views. Nothing is to be tuned.

    evidence: "wrong events"; ablations: "loss" (when last seen) or "mean loss" (of all views so far).
    mixture: "beta"; ablation: "gaussian".
    weights: "dynamic"; ablation: "fixed", the weight of the consistency term is 1 for every sample.
    scope: "class", one mixture a given label; ablation: "all", one over all samples.
    base: "before", the network at the end of the epoch before the count of changed predictions first rose, as published
        (a copy); "rise", the one at the end of that very epoch, which is what the authors' program saves, because it
        keeps a reference that training goes on to change. Without a rise both are the last of the first stage.
    certainty: "row", max(q) of each sample, as published; "batch", the mean over the batch, which is what the authors'
        program comes to, because two shapes are broadcast there.
    current: whether a count includes the predictions of the very batch that it weighs, as in the authors' program.
        False leaves them out until the next fit: counts then stay within the range that the mixture knows.
    counted: "both" views give wrong events (and losses), as published; "weak", ours: the weak one alone does. Where
        strong operations make most clean rows unreadable, their counts say little about labels.
    second: "strong", how the second view is augmented; "weak" where strong operations would destroy what rows mean.
        Digits of 8 x 8 pixels are such rows: plain training's network misreads .6 of them in a strong view, .13 in a
        weak one. With 40 % symmetric noise and 12 epochs (3 seeds) plain reaches 89.0 % of test rows, IDO 70.1,
        counted="weak" 80.9, second="weak" 84.1; with 30 epochs (2 seeds) plain 91.2, IDO 88.5, second="weak" 93.6.
    loss, loss_settings: the loss at the given label, "ce" as published, or any other.

    Published: 5 + 10 epochs on pretrained networks, 20 rounds of EM, then 2 an epoch (scope "all": 1). `epochs` are
    divided 1 : 2, at least one each. As in the authors' program MSE is the mean over classes and max(q) has a
    gradient. Unlike it, counts beyond the fitted range are clipped to it (there such samples are trained by their
    entropy alone), and a class with fewer than 4 samples or equal counts is taken as clean. Where rows have no
    augmentation (tables, features) the two views are equal but for dropout, and the consistency term rests.
    `suspicion` is p2 once the mixture is fitted.
    """

    sample_loss: Tensor
    group: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        evidence: Evidence = "wrong events",
        mixture: Shape = "beta",
        weights: Literal["dynamic", "fixed"] = "dynamic",
        scope: Literal["class", "all"] = "class",
        base: Literal["before", "rise"] = "before",
        certainty: Literal["row", "batch"] = "row",
        current: bool = True,
        counted: Literal["both", "weak"] = "both",
        second: Literal["strong", "weak"] = "strong",
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, choices in (
            ("evidence", evidence, get_args(Evidence)),
            ("weights", weights, ("dynamic", "fixed")),
            ("scope", scope, ("class", "all")),
            ("base", base, ("before", "rise")),
            ("certainty", certainty, ("row", "batch")),
            ("counted", counted, ("both", "weak")),
            ("second", second, ("strong", "weak")),
        ):
            if value not in choices:
                raise UnswayedError(f"{name} is one of {', '.join(choices)}", got=repr(value))
        super().__init__(make_net, info)
        self.evidence, self.fixed, self.current = evidence, weights == "fixed", current
        self.counted = 1 if counted == "weak" else 2
        self.on_rise, self.shared = base == "rise", certainty == "batch"
        self.views, self.rounds = ("weak", second), 2 if scope == "class" else 1
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))
        self.wave, self.base = LabelWave(info.samples), Snapshot(self.net)
        self.weights = DynamicWeights(info.classes if scope == "class" else 1, mixture=mixture)
        register_rows(self, "sample_loss", torch.zeros(info.samples if evidence != "wrong events" else 0))
        register_rows(self, "group", torch.full((info.samples,), -1, dtype=torch.int32))  # -1: not trained on

    def plan(self, epochs: int) -> list[Stage]:
        """A third of the epochs to count, the rest to refine: between two epochs mixtures are fitted."""
        first = max(1, round(epochs / 3))
        count = [Stage("count wrong events", 1, self.loss, partial(self._count, e)) for e in range(first)]
        refine = [
            Stage("refine", 1, self.refine, partial(self._refine, e), views=self.views, fresh=e == 0)
            for e in range(max(1, epochs - first))
        ]
        return [*count, *refine, Stage("weigh", 0, self.refine, self._weigh)]

    def loss(self, batch: Batch) -> Tensor:
        """Stage 1: the loss at the given labels."""
        logits = self.net(batch.x)
        self.wave.update(logits, batch.index)
        own = self.criterion.per_sample(logits, batch.y, batch.index)
        self._note(batch, own, logits)
        return (batch.weight * own).mean() + self._regularizer(logits)

    def refine(self, batch: Batch) -> Tensor:
        """Stage 2: the three terms, weighted for each sample."""
        weak, strong = (self.net(view) for view in batch.views)
        own = [self.criterion.per_sample(logits, batch.y, batch.index) for logits in (weak, strong)]
        before = self._weights(batch.index)
        self._note(batch, torch.stack(own[: self.counted]).mean(0), *(weak, strong)[: self.counted])
        weights = self._weights(batch.index) if self.current else before
        values = weigh_terms(own[0] + own[1], weak, strong, weights, shared=self.shared)
        return (batch.weight * values).mean() + self._regularizer(weak, strong)

    def suspicion(self) -> Tensor | None:
        """The posterior of the noisy part, [N]; before the first fit, what the dynamics say; .5 where never seen."""
        if not bool(self.weights.fitted):
            return super().suspicion()
        known, everybody = self.group >= 0, torch.arange(len(self.group), device=self.group.device)
        doubt = self.weights(self._evidence(everybody), self.group.clamp_min(0).long()).doubt
        return torch.where(known, doubt, 0.5)

    # ------------------------------------------------------------------------------------------ between epochs

    def _count(self, epoch: int, data: Data) -> Data:
        if epoch == 0:
            labels = data.y if data.y.dim() == 1 else data.y.argmax(1)
            self.group[data.index] = labels.to(torch.int32) if self.weights.groups > 1 else 0
        else:
            self._follow_wave()
        return data

    def _refine(self, epoch: int, data: Data) -> Data:
        if epoch == 0:
            self._follow_wave()
            self.base.put_back(self.net)
        self._weigh(data)
        return data

    def _follow_wave(self) -> None:
        fallen = not bool(self.wave.turned)
        if not self.wave.end_epoch() or (self.on_rise and fallen):
            self.base.take(self.net)

    def _weigh(self, data: Data) -> None:
        rounds = self.rounds if bool(self.weights.fitted) else FIRST_ROUNDS
        self.weights.fit(self._evidence(data.index), self.group[data.index].long(), rounds=rounds)

    # ------------------------------------------------------------------------------------------ within a step

    def _weights(self, rows: Tensor) -> Weights:
        weights: Weights = self.weights(self._evidence(rows), self.group[rows].long())
        return weights._replace(consistency=torch.ones_like(weights.clean)) if self.fixed else weights

    def _evidence(self, rows: Tensor) -> Tensor:
        if self.evidence == "wrong events":
            return self.dynamics.wrong[rows]
        views = self.dynamics.seen[rows].clamp_min(1) if self.evidence == "mean loss" else 1
        return self.sample_loss[rows] / views

    def _note(self, batch: Batch, own: Tensor, *views: Tensor) -> None:
        for logits in views:
            self.observe(logits, batch)
        if self.evidence == "loss":
            self.sample_loss.index_copy_(0, batch.index, own.detach().float())
        elif self.evidence == "mean loss":
            self.sample_loss.index_add_(0, batch.index, len(views) * own.detach().float())

    def _regularizer(self, *views: Tensor) -> Tensor:
        terms = [self.criterion.regularizer(logits) for logits in views]
        return sum(terms, self.criterion.penalty(self.net.parameters()))


def weigh_terms(own: Tensor, weak: Tensor, strong: Tensor, weights: Weights, *, shared: bool = False) -> Tensor:
    """IDO's loss of each sample: losses at the given label [B], logits of two views [B, K] each, weights -> [B].

    `shared`: the factor max(q) of the entropy is the batch's mean.

    >>> even, sure = torch.zeros(1, 2), Weights(*torch.tensor([[1.0], [1.0], [0.0]]))
    >>> weigh_terms(torch.tensor([0.5]), even, even + torch.tensor([1.0, 0.0]), sure)  # .5 and the mean of 1 and 0
    tensor([1.])
    """
    weak, strong = weak.float(), strong.float()
    distance = (strong - weak).square().mean(1)
    q = (weak.softmax(1).clamp(FLOOR, 1 - FLOOR) + strong.softmax(1).clamp(FLOOR, 1 - FLOOR)) / 2
    certain = q.amax(1)
    entropy = -(q * q.log()).sum(1) * (certain.mean() if shared else certain)
    return weights.clean * own + weights.consistency * distance + weights.doubt * entropy
