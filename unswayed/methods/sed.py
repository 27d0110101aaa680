"""SED: thresholds that follow the network, labels that a mean teacher corrects, weights that follow confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.semi import row_probabilities, warm_up_epochs
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import mean_over, negative_entropy, soft_labels
from unswayed.stats.teacher import Teacher

Threshold = Literal["mean", "quantile"]
Terms = Literal["three", "two"]
Pace = Literal["batch", "epoch"]
Predict = Literal["student", "teacher"]
QUANTILE, CEILING = 0.8, 0.95  # of the authors' program


class Judged(NamedTuple):
    """What is thought of rows, [B] each."""

    clean: Tensor  # bool
    corrected: Tensor  # the teacher's class
    trust: Tensor  # in it, in [0, 1]


class SED(Method):
    """Sample selection and correction without a setting for the noise: self-adaptive, balanced (SED, arXiv 2407.02778).

    A global threshold T follows the mean probability of given labels, T <- m T + (1 - m) mean p[y], from 1 / K; that
    of class c is T E(c) / max E, with E the running mean prediction. A label is clean where p[y] is at least that of
    its class. A mean teacher's class replaces it elsewhere, with weight exp(-(q - mu)^2 / (2 s^2)) where the teacher's
    confidence q is below the running mean mu of that class (s^2: the running variance), else 1. The loss:
    cross-entropy of clean rows at the given label + weighted, of the others at the corrected one + weighted, of the
    strong view of clean rows at the class that the teacher gives them.

    The authors' program differs from the text in much, at the same time; its forms are settings, and the text's are
    the defaults, because that is the method that was reviewed, and tested part by part:
    threshold         "mean" of p[y]; program: "quantile", the .8 quantile, T at most .95.
    terms             "three", as above; program: "two", the mean over clean rows at the given label + the weighted mean
                      of the strong view of ALL rows at the teacher's class.
    pace              "batch"; program: "epoch", all rows are judged before an epoch, and T, E, mu and s^2 move once.
    sigmas            n in exp(-n^2 (q - mu)^2 / (2 s^2)), 1; program: 2.
    confidence_penalty  whether the warm-up holds confidence down by sum p log p; program: yes.
    momentum          m, of T, E, mu and s^2; published .99; program .999, its scripts .85 to .999 by data and noise.
    teacher_momentum  published .95; the program's scripts .95 and .99.
    warmup            epochs on all given labels; published 20 of 100, at most a third here.
    predict           "student" or "teacher", which network is the result.
    loss              any; published: cross-entropy.

    Published training: SGD .05, cosine, 100 epochs, 7-layer CNN.

    Our choices, where the text is silent: everything moves once a batch, T, E and the teacher from the warm-up on; mu
    starts at 1 / K and s^2 at 1, as in the program, and classes without rows keep theirs (program: they are drawn to 0
    and 1); the teacher averages batch norm's statistics (program: it uses those of the batch); of three terms, each is
    a sum over its rows divided by the whole batch, so that a nearly empty part has no say beyond its rows; with pace
    "epoch" rows are judged as stored; the student is the result. Where the strong view shows rows as stored (tables,
    features), the third term asks clean rows to agree with the teacher.
    """

    threshold: Tensor
    expected: Tensor
    mean: Tensor
    variance: Tensor
    clean: Tensor
    corrected: Tensor
    trust: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        threshold: Threshold = "mean",
        terms: Terms = "three",
        pace: Pace = "batch",
        sigmas: float = 1.0,
        confidence_penalty: bool = False,
        momentum: float = 0.99,
        teacher_momentum: float = 0.95,
        warmup: int = 20,
        predict: Predict = "student",
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, choices in (
            ("threshold", threshold, Threshold),
            ("terms", terms, Terms),
            ("pace", pace, Pace),
            ("predict", predict, Predict),
        ):
            if value not in get_args(choices):
                raise UnswayedError(f"{name} is {' or '.join(map(repr, get_args(choices)))}", got=repr(value))
        super().__init__(make_net, info)
        self.by_quantile, self.two_terms, self.by_epoch = threshold == "quantile", terms == "two", pace == "epoch"
        self.sigmas, self.confidence_penalty = number("sigmas", sigmas, least=0), confidence_penalty
        self.teacher, self.predict = Teacher(self.net), predict
        self.momentum = number("momentum", momentum, least=0, most=1)
        self.teacher_momentum = number("teacher_momentum", teacher_momentum, least=0, most=1)
        self.warmup, self.classes = int(number("warmup", warmup, least=1)), info.classes
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))
        even = torch.full((info.classes,), 1 / info.classes)
        self.register_buffer("threshold", torch.tensor(1 / info.classes))
        self.register_buffer("expected", even)
        self.register_buffer("mean", even.clone())
        self.register_buffer("variance", torch.ones(info.classes))
        rows = info.samples if self.by_epoch else 0
        register_rows(self, "clean", torch.zeros(rows, dtype=torch.int8))
        register_rows(self, "corrected", torch.zeros(rows, dtype=torch.int64))
        register_rows(self, "trust", torch.zeros(rows))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [B, ...] -> logits [B, K]."""
        return self.teacher(x) if self.predict == "teacher" else super().forward(x)

    def plan(self, epochs: int) -> list[Stage]:
        """A warm-up on all labels, then selection and correction."""
        warm = min(epochs, warm_up_epochs(epochs, self.warmup))
        stages, views = [Stage("warm-up", warm, self.warm_up)], ("weak", "strong")
        if self.by_epoch:
            return stages + [Stage("select and correct", 1, self.loss, self.judge, views=views)] * (epochs - warm)
        rest = Stage("select and correct", epochs - warm, self.loss, views=views)
        return [*stages, rest] if rest.epochs else stages

    def warm_up(self, batch: Batch) -> Tensor:
        """The loss at the given labels."""
        logits = self.net(batch.x)
        self._follow(logits, batch)
        if not self.by_epoch:
            self._move_thresholds(logits.float().softmax(1), batch.y)
        loss: Tensor = self.criterion(logits, batch.y, batch.index, batch.weight)
        penalty = negative_entropy(logits) if self.confidence_penalty else 0.0
        return loss + penalty + self.criterion.penalty(self.net.parameters())

    def loss(self, batch: Batch) -> Tensor:
        """The three terms, or the program's two."""
        weak, strong = self.net(torch.cat(batch.views)).chunk(2)
        self._follow(weak, batch)
        clean, corrected, trust = self._judged(weak, batch)
        own, other, again = (
            batch.weight * self.criterion.per_sample(logits, y, batch.index)
            for logits, y in ((weak, batch.y), (weak, corrected), (strong, corrected))
        )
        extras = self.criterion.regularizer(weak) + self.criterion.penalty(self.net.parameters())
        if self.two_terms:
            return mean_over(own, clean) + (trust * again).mean() + extras
        return torch.where(clean, own + trust * again, trust * other).mean() + extras

    def judge(self, data: Data) -> Data:
        """Judge all rows, for the epoch to come."""
        found = self._judge(row_probabilities(self.net, data), row_probabilities(self.teacher, data), data.y)
        for mine, now in zip((self.clean, self.corrected, self.trust), found, strict=True):
            mine[data.index] = now.to(mine.dtype)
        return data

    def class_thresholds(self) -> Tensor:
        """How probable a given label of each class must be to count as clean, [K]."""
        return self.threshold * self.expected / self.expected.max()

    def _judged(self, weak: Tensor, batch: Batch) -> Judged:
        if self.by_epoch:
            return Judged(self.clean[batch.index] > 0, self.corrected[batch.index], self.trust[batch.index])
        return self._judge(weak.detach().float().softmax(1), self.teacher(batch.x).float().softmax(1), batch.y)

    @torch.no_grad()
    def _judge(self, p: Tensor, q: Tensor, y: Tensor) -> Judged:
        """From what student and teacher say of rows, [B, K] each; moves thresholds and confidence first."""
        self._move_thresholds(p, y)
        sure, corrected = q.max(1)
        self._move_confidence(sure, corrected)
        labels = y if y.dim() == 1 else y.argmax(1)
        clean = (p * soft_labels(y, self.classes)).sum(1) >= self.class_thresholds()[labels]
        return Judged(clean, corrected, confidence_weight(sure, self.mean[corrected], self._spread()[corrected]))

    @torch.no_grad()
    def _follow(self, logits: Tensor, batch: Batch) -> None:
        self.observe(logits, batch)
        self.teacher.update(self.net, self.teacher_momentum)

    @torch.no_grad()
    def _move_thresholds(self, p: Tensor, y: Tensor) -> None:
        given, m = (p * soft_labels(y, self.classes)).sum(1), self.momentum
        self.threshold.lerp_(given.quantile(QUANTILE) if self.by_quantile else given.mean(), 1 - m)
        if self.by_quantile:
            self.threshold.clamp_(max=CEILING)
        self.expected.lerp_(p.mean(0), 1 - m)

    @torch.no_grad()
    def _move_confidence(self, sure: Tensor, corrected: Tensor) -> None:
        """Move mean and variance of the classes that occur."""
        hot = soft_labels(corrected, self.classes)
        count = hot.sum(0)
        mean = sure @ hot / count.clamp_min(1)
        variance = (sure - mean[corrected]).square() @ hot / count.clamp_min(1)
        share = (1 - self.momentum) * (count > 0)
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)

    def _spread(self) -> Tensor:
        return self.variance / max(self.sigmas, 1e-6) ** 2


def confidence_weight(sure: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """1 at and above the mean, and falling as a normal density below it: `[B]` each -> `[B]` in [0, 1].

    >>> confidence_weight(torch.tensor([0.9, 0.3]), torch.tensor(0.5), torch.tensor(0.02)).round(decimals=4)
    tensor([1.0000, 0.3679])
    """
    below = (mean - sure).clamp_min(0)
    return torch.exp(-below.square() / (2 * variance.clamp_min(1e-12)))
