"""LCCN: the label that should have been given is a latent variable, drawn anew at every step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.losses import cross_entropy
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.dividemix import DivideMix, clean_probability
from unswayed.prediction import predict
from unswayed.stats.rows import register_rows

Split = Literal["mixture", "posterior"]


class LCCN(Method):
    """Draws each row's true class from prediction and confusion, and learns what it drew (LCCN, arXiv 2302.09595).

    Counts C[z, y] say how often latent class z occurs with given label y; T = (C + 1) / its row sums. After a warm-up
    z = argmax p. Then, in every batch: z is drawn from p(z | x) T[z, y], the network learns z, C follows.

    warmup  the share of the epochs that learns the given labels. Our choice: .3, at least one epoch.
    renew   T is renewed after so many steps, published 200, and at the start of every epoch (our choice, since an
            epoch of small data is shorter).
    loss    any; published: cross-entropy.

    The authors' program begins with a network trained to its end, and keeps a T of another run for the first 20,000 of
    46,875 steps. Our choice: warm-up and latent labels share the epochs asked for, and T is renewed from the first on.
    The further latent class for outliers of the paper is not here: it would take a network of one class more.
    `suspicion` is one minus the probability, by p and T, that z is the given label, when last seen.
    """

    latent: Tensor
    right: Tensor
    counts: Tensor
    transition: Tensor
    steps: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        warmup: float = 0.3,
        renew: int = 200,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(make_net, info)
        self.warmup, self.renew = number("warmup", warmup, above=0, below=1), int(number("renew", renew, least=1))
        self.classes = info.classes
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))
        register_rows(self, "latent", torch.full((info.samples,), -1))  # -1: not drawn yet
        register_rows(self, "right", torch.full((info.samples,), -1.0))
        self.register_buffer("counts", torch.zeros(info.classes, info.classes))
        self.register_buffer("transition", torch.full((info.classes, info.classes), 1 / info.classes))
        self.register_buffer("steps", torch.tensor(0))

    def plan(self, epochs: int) -> list[Stage]:
        """A warm-up, then one stage an epoch, because counts are taken anew between them."""
        warm = max(1, round(self.warmup * epochs))
        later = [Stage("latent labels", 1, self.loss, partial(self.count, e == 0)) for e in range(epochs - warm)]
        return [Stage("warm-up", warm, self.warm_up), *later]

    def warm_up(self, batch: Batch) -> Tensor:
        """The loss at the given labels."""
        return self._learn(self._look(batch), batch.y, batch)

    def loss(self, batch: Batch) -> Tensor:
        """The loss at labels drawn for this step."""
        logits, given = self._look(batch), hard(batch.y)
        with torch.no_grad():
            log_p = log_posterior(logits, given, self.transition)
            drawn = draw(log_p)
            self.right[batch.index] = log_p.gather(1, given[:, None])[:, 0].exp()
            self._move(batch.index, given, drawn)
        return self._learn(logits, drawn, batch)

    def count(self, first: bool, data: Data) -> Data:
        """Count latent classes against given labels; at first, what is predicted stands for what is drawn."""
        if first:
            self.latent[data.index] = predict(self.net, data.x).argmax(1)
        self.counts.copy_(confusion(self.latent[data.index], hard(data.y), self.classes))
        self.transition.copy_(transition_of(self.counts))
        return data

    def _look(self, batch: Batch) -> Tensor:
        logits: Tensor = self.net(batch.x)
        self.observe(logits, batch)
        return logits

    def _learn(self, logits: Tensor, y: Tensor, batch: Batch) -> Tensor:
        loss: Tensor = self.criterion(logits, y, batch.index, batch.weight)
        return loss + self.criterion.penalty(self.net.parameters())

    def _move(self, rows: Tensor, given: Tensor, drawn: Tensor) -> None:
        one = torch.ones(len(rows), device=rows.device)
        self.counts.index_put_((self.latent[rows], given), -one, accumulate=True)
        self.counts.index_put_((drawn, given), one, accumulate=True)
        self.latent[rows] = drawn
        self.steps += 1
        due = self.steps % self.renew == 0  # decided on the device: asking would wait for it
        self.transition.copy_(torch.where(due, transition_of(self.counts), self.transition))

    def suspicion(self) -> Tensor | None:
        """One minus the probability that the given label is the true one, [N]; .5 where not known."""
        known = self.right >= 0
        return torch.where(known, 1 - self.right, 0.5) if bool(known.any()) else super().suspicion()


class LCCNDivideMix(DivideMix):
    """DivideMix that sees predictions through the confusion of latent and given labels (LCCN, arXiv 2302.09595).

    For each network, T is counted from argmax p after the warm-up. Before every epoch q = p(z | x) T[z, y], scaled to
    sum one, is what the network believes of the latent labels z; z is drawn from q, counted, and T renewed. The split
    judges by q in place of p, and so does co-refinement. All else, and all other settings, as in DivideMix.

    warmup  30 of 300 epochs, the program's; at most a third of the epochs here.
    split   "mixture" (the default, because the published figures come of it): two Gaussians on the cross-entropy of
            q, which the authors' program puts through a softmax once more. "posterior": q itself at the given label,
            above `threshold`.

    The paper has a table of results but few words. The program keeps the first T for 50 of 300 epochs; ours renews it
    from the first on, because a short run would never reach the second.
    """

    # As in DivideMix, a large weight can make classes change places on the contract's 3 classes at a rate of .1.
    test_settings: ClassVar[dict[str, Any]] = {"lambda_u": 1.0}
    transition: Tensor

    def __init__(
        self, make_net: MakeNet, info: Info, *, warmup: int = 30, split: Split = "mixture", **settings: Any
    ) -> None:
        if split not in get_args(Split):
            raise UnswayedError("split is 'mixture' or 'posterior'", got=repr(split))
        super().__init__(make_net, info, warmup=warmup, **settings)
        self.split = split
        self.register_buffer("transition", torch.zeros(2, info.classes, info.classes))  # 0: not counted yet

    def judge(self, judge: int, data: Data) -> Tensor:
        """How probably each given label is right, by this network's latent labels, [N]; draws these and renews T."""
        logits, given = predict(self.both()[judge], data.x), hard(data.y)
        if not bool(self.transition[judge].any()):
            self.transition[judge] = transition_of(confusion(logits.argmax(1), given, self.classes))
        log_q = log_posterior(logits, given, self.transition[judge])
        self.transition[judge] = transition_of(confusion(draw(log_q), given, self.classes))
        if self.split == "mixture":
            return clean_probability(cross_entropy(log_q.exp(), given))
        return log_q.gather(1, given[:, None])[:, 0].exp()

    def believe(self, turn: int, p: Tensor, labelled: Batch) -> Tensor:
        """The latent labels' probabilities, [B, K]."""
        return log_posterior(p.log(), hard(labelled.y), self.transition[turn]).exp()


def hard(y: Tensor) -> Tensor:
    """Labels [B], of soft ones [B, K] the likeliest."""
    return y if y.dim() == 1 else y.argmax(1)


def confusion(latent: Tensor, given: Tensor, classes: int) -> Tensor:
    """How often latent class z occurs with given label y: `[N]`, `[N]` -> `[K, K]`.

    >>> confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), classes=2)
    tensor([[1., 1.],
            [0., 1.]])
    """
    return torch.bincount(latent * classes + given, minlength=classes**2).view(classes, classes).float()


def transition_of(counts: Tensor) -> Tensor:
    """(C + 1) / its row sums, `[K, K]` -> `[K, K]`.

    >>> transition_of(torch.tensor([[7.0, 1.0], [0.0, 0.0]]))
    tensor([[0.8000, 0.2000],
            [0.5000, 0.5000]])
    """
    return (counts + 1) / (counts + 1).sum(1, keepdim=True)


def log_posterior(logits: Tensor, given: Tensor, transition: Tensor) -> Tensor:
    """log p(z | x, y), of which p(z | x) T[z, y] is a multiple: `[B, K]`, `[B]`, `[K, K]` -> `[B, K]`."""
    return (logits.float().log_softmax(1) + transition.log().T[given]).log_softmax(1)


def draw(log_p: Tensor) -> Tensor:
    """One class a row, with these probabilities: `[B, K]` -> `[B]`; without waiting for the device."""
    return (log_p - torch.empty_like(log_p).exponential_().log()).argmax(1)
