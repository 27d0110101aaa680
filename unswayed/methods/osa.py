"""One-step anti-noise: a frozen model's judgement of every label becomes its weight, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unswayed import losses
from unswayed.data.columns import Column
from unswayed.errors import UnswayedError
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.semi import body_of
from unswayed.prediction import predict
from unswayed.stats.neighbours import prototype_agreement
from unswayed.stats.rows import register_rows

Judge = Literal["body", "rows"]
Scale = Literal["batch", "none"]
Curve = Literal["published", "program", "linear"]


class OSA(Method):
    """Weights every sample, once, by how well its features agree with its label (OSA, arXiv 2410.01944).

    s = cosine of the sample and its label; b = mean cosine of unrelated pairs; t = s - b. The weight is 0 for t <= 0,
    else t^2 (1 - t). Then one network is trained with these weights: no second pass, nothing to tune.

    judge   who makes the features: "body", the network's body as it is before training (pretrained, or the identity
            over frozen features); "rows", the stored numbers themselves (tables, frozen features under an MLP).
    anchors embeddings of the classes in the same space [K, d], for example of their names by the text side of a
            multimodal model, as published. "names" (in experiments): the names of the classes, by the sentence encoder
            that made the rows; it sets judge to "rows": `--encoder NAME --arm "osa(anchors=names)"`. None: class
            prototypes, the mean direction of the rows given that label; a row takes no part in its own prototype.
    curve   "published": t^2 (1 - t); "program": u^2 (1 - u^2) with u = t over the largest t of the batch, as in the
            authors' program; or "linear", max(t, 0), ours. The published one peaks at t = 2/3 and falls to 0 at 1: made
            for multimodal cosines, which stay far below. The program's gives the best row of every batch the weight 0,
            whatever its agreement, so it is not the default. Where prototypes agree almost fully, "linear" is natural.
    scale   "none": weights as they are; "batch", ours and the default: divided by the largest weight of the batch,
            because t^2 (1 - t) is at most 4/27 and u^2 (1 - u^2) at most 1/4, which would shrink the learning rate.

    Our choices: b is the mean over all pairs of a row and a class, exact and cheaper than random pairs (program: the
    mean over pairs of noise pictures and random words, which have no counterpart among K classes); the judgement is
    made once, of rows as stored (program: again in every step, in that step's view); where no sample has a weight
    above 0, all have 1; `loss` may be any.
    """

    agreement: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        judge: Judge = "body",
        anchors: Tensor | list[list[float]] | Literal["names"] | None = None,
        scale: Scale = "batch",
        curve: Curve = "published",
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, choices in (("judge", judge, Judge), ("scale", scale, Scale), ("curve", curve, Curve)):
            if value not in get_args(choices):
                raise UnswayedError(f"{name} is one of {', '.join(get_args(choices))}", got=repr(value))
        if isinstance(anchors, str):
            do = "embed the names with unswayed.data.encode, or run it as an arm on texts with --encoder"
            raise UnswayedError(f"anchors [{info.classes}, d] as numbers", got=repr(anchors), do=do)
        super().__init__(make_net, info)
        self.judge, self.scale, self.curve, self.classes = judge, scale, curve, info.classes
        self.anchors = None if anchors is None else torch.as_tensor(anchors).float()
        if self.anchors is not None and (self.anchors.dim() != 2 or len(self.anchors) != info.classes):
            raise UnswayedError(f"anchors [{info.classes}, d], one row a class", got=list(self.anchors.shape))
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))
        register_rows(self, "agreement", torch.zeros(info.samples))  # t of each sample

    def plan(self, epochs: int) -> list[Stage]:
        """One stage, whose weights are computed when it starts."""
        return [Stage("train", epochs, self.loss, self.weigh)]

    def loss(self, batch: Batch) -> Tensor:
        """The weighted mean of the losses."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        weight = batch.weight
        if self.curve == "program":
            weight = shared_weight(weight)
        if self.scale == "batch":
            weight = weight / weight.max().clamp_min(1e-12)
        loss: Tensor = self.criterion(logits, batch.y, batch.index, weight)
        return loss + self.criterion.penalty(self.net.parameters())

    def weigh(self, data: Data) -> Data:
        """Judge all rows and weigh them."""
        t = self.judge_rows(data)
        self.agreement[data.index] = t
        weight = agreement_weight(t) if self.curve == "published" else t.clamp_min(0)  # the program's needs its batch
        weight = torch.where(weight.amax() > 0, weight, torch.ones_like(weight))
        return data.replace(weight=data.weight * weight)

    def judge_rows(self, data: Data) -> Tensor:
        """t of every row, [N]."""
        features = predict(body_of(self.net), data.x) if self.judge == "body" else stored_features(data.x)
        features = features.to(data.y.device)
        labels = data.y if data.y.dim() == 1 else data.y.argmax(1)
        if self.anchors is None:
            return prototype_agreement(features, labels, self.classes)
        anchors = normalize(self.anchors.to(features.device), dim=1)
        if anchors.shape[1] != features.shape[1]:
            raise UnswayedError(f"anchors of width {features.shape[1]}, as the features", got=anchors.shape[1])
        unit = normalize(torch.nan_to_num(features, 0.0, 0.0, 0.0), dim=1)
        return (unit * anchors[labels]).sum(1) - unit.mean(0) @ anchors.mean(0)

    def suspicion(self) -> Tensor | None:
        """(1 - t) / 2 of every sample, [N] in [0, 1]; before the first epoch: not known."""
        return (0.5 - self.agreement / 2).clamp(0, 1) if bool(self.agreement.any()) else super().suspicion()


def agreement_weight(t: Tensor) -> Tensor:
    """t^2 (1 - t) where t is in 0..1, else 0: elementwise.

    >>> agreement_weight(torch.tensor([-0.5, 0.0, 0.5, 1.0]))
    tensor([0.0000, 0.0000, 0.1250, 0.0000])
    """
    t = t.clamp(0, 1)
    return t.square() * (1 - t)


def shared_weight(t: Tensor) -> Tensor:
    """u^2 (1 - u^2) with u = t / max t, 0 for t <= 0: agreements of one batch `[B]` -> weights `[B]` in [0, 1/4].

    >>> shared_weight(torch.tensor([-0.1, 0.1, 0.2]))
    tensor([0.0000, 0.1875, 0.0000])
    """
    u = t.clamp_min(0) / t.max().clamp_min(1e-12)
    return u.square() * (1 - u.square())


def stored_features(x: Column) -> Tensor:
    """The stored rows as vectors, [N, d]; word numbers, which are no coordinates, raise."""
    rows = torch.cat([x.rows(torch.arange(at, min(at + 4096, len(x)))).flatten(1) for at in range(0, len(x), 4096)])
    if not rows.is_floating_point() and rows.dtype != torch.uint8:
        raise UnswayedError("rows of measurements for judge='rows'", got=str(rows.dtype), do="use judge='body'")
    return rows.float()
