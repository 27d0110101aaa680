"""What semi-supervised methods share: a split into labelled and unlabelled rows, and one step of MixMatch on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.losses import cross_entropy
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.pair import mean_of_two
from unswayed.nets.mlps import Bag
from unswayed.prediction import predict
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import co_guess, co_refine, consistency, mixup, negative_entropy, prior_penalty, ramp_up

Consistency = Literal["mean", "sum"]
Ensemble = Literal["probabilities", "logits", "first"]
Epoch = Literal["together", "labelled", "all"]


def reads_ngrams(net: nn.Module) -> bool:
    """Whether the rows of `net` are weighted n-grams, which `mixup` has to be told."""
    return any(isinstance(layer, Bag) for layer in net.modules())


def warm_up_epochs(epochs: int, published: int) -> int:
    """How long to learn from all rows before trusting one's own judgement.

    Our choice: the published number, but at most a third of the epochs, and one at least. Papers train for 200 to 350
    epochs; in their proportion, a short run would have none.

    >>> warm_up_epochs(300, 10), warm_up_epochs(30, 10), warm_up_epochs(3, 10)
    (10, 10, 1)
    """
    return max(1, min(published, epochs // 3))


def row_losses(net: nn.Module, data: Data, *, size: int = 8192) -> Tensor:
    """The cross-entropy of every row at its given label, in evaluation mode -> [N]; in bounded memory."""
    parts = (data.rows(torch.arange(at, min(at + size, len(data)))) for at in range(0, len(data), size))
    return torch.cat([cross_entropy(predict(net, part.x), part.y) for part in parts])


def row_probabilities(net: nn.Module, data: Data) -> Tensor:
    """The prediction for every row, in evaluation mode -> [N, K]."""
    return predict(net, data.x).softmax(1)


def body_of(net: nn.Module) -> nn.Module:
    """What makes the features that the head of `net` reads; a net without body and head raises."""
    return _part(net, "body")


def head_of(net: nn.Module) -> nn.Module:
    """What makes logits of features."""
    return _part(net, "head")


def features_of(net: nn.Module) -> int:
    """How many features lie between body and head."""
    for owner, name in ((net, "features"), (body_of(net), "features"), (head_of(net), "in_features")):
        if isinstance(width := getattr(owner, name, None), int):
            return width
    raise UnswayedError("a net that tells its number of features", got=type(net).__name__, do=_AS_NET)


_AS_NET = "give it the parts of unswayed.nets.Net: a body with an int attribute `features`, and a head"


def _part(net: nn.Module, name: str) -> nn.Module:
    part = getattr(net, name, None)
    if not isinstance(part, nn.Module):
        raise UnswayedError(f"a net with a {name}", got=type(net).__name__, do=_AS_NET)
    return part


class Terms(NamedTuple):
    """What MixMatch adds up, scalars."""

    fit: Tensor  # cross-entropy of the mixed labelled rows
    consistency: Tensor  # squared error of the mixed unlabelled rows
    prior: Tensor  # KL from a uniform prior to the mean prediction


def mixmatch(
    net: nn.Module,
    rows: tuple[Tensor, ...],
    target: Tensor,
    free: tuple[Tensor, ...],
    guess: Tensor,
    *,
    alpha: float,
    ngrams: bool = False,
    class_weight: Tensor | None = None,
) -> Terms:
    """The terms of MixMatch (arXiv 1905.02249): all views of labelled `rows` and unlabelled (`free`) ones, mixed.

    `rows` and `free` are views `[B, ...]` and `[U, ...]`, `target` and `guess` the labels `[B, K]` and `[U, K]` that
    every view of a row has. One forward pass. `class_weight` `[K]` scales the fit of each class.
    """
    targets = torch.cat([target] * len(rows) + [guess] * len(free))
    mixed, targets = mixup(torch.cat([*rows, *free]), targets, alpha, ngrams=ngrams)
    logits, labelled = net(mixed), len(rows) * len(target)
    wanted = targets[:labelled] if class_weight is None else targets[:labelled] * class_weight
    return Terms(
        cross_entropy(logits[:labelled], wanted).mean(),
        consistency(logits[labelled:], targets[labelled:]),
        prior_penalty(logits),
    )


class CoDivided(Method):
    """Abstract: two networks that take turns; each learns, semi-supervised, from rows that are split for it anew.

    Both warm up on all rows, each in an order of its own. Then, epoch by epoch, one learns while the other is fixed,
    and back; an epoch asked for is an epoch for each. Children define `divide`, and may add to the loss by `extra`.
    Labels are guessed on the first two views of a row, learnt on the last two.
    """

    budget = 2.0
    clean: Tensor
    views: tuple[str, ...] = ("weak", "weak")

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        warmup: int = 10,
        confidence_penalty: bool = False,
        temperature: float = 0.5,
        alpha: float = 4.0,
        lambda_u: float = 25.0,
        ramp: int = 16,
        consistency: Consistency = "mean",
        ensemble: Ensemble = "probabilities",
        epoch: Epoch = "together",
    ) -> None:
        if consistency not in get_args(Consistency):
            raise UnswayedError("consistency is 'mean' or 'sum'", got=repr(consistency))
        if ensemble not in get_args(Ensemble):
            raise UnswayedError(f"ensemble is one of {', '.join(get_args(Ensemble))}", got=repr(ensemble))
        if epoch not in get_args(Epoch):
            raise UnswayedError(f"epoch is one of {', '.join(get_args(Epoch))}", got=repr(epoch))
        super().__init__(make_net, info)
        self.peer, self.classes, self.ngrams = make_net(), info.classes, reads_ngrams(self.net)
        self.warmup, self.confidence_penalty = int(number("warmup", warmup, least=1)), confidence_penalty
        self.temperature, self.alpha = number("temperature", temperature, above=0), number("alpha", alpha, least=0)
        self.ramp, self.ensemble, self.epoch = number("ramp", ramp, least=0), ensemble, epoch
        self.lambda_u = number("lambda_u", lambda_u, least=0) * (info.classes if consistency == "sum" else 1)
        # The probability that a label is right, as each network judged it last; -1: not judged yet.
        register_rows(self, "clean", torch.full((info.samples, 2), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [B, ...] -> the logarithm of the two networks' mean probabilities, or their mean logits, [B, K]."""
        if self.ensemble == "first":
            return super().forward(x)
        own, peer = self.net(x), self.peer(x)
        return mean_of_two(own, peer) if self.ensemble == "probabilities" else (own + peer) / 2

    def plan(self, epochs: int) -> list[Stage]:
        """A warm-up of both networks, then one stage a network and epoch."""
        warm = warm_up_epochs(epochs, self.warmup)
        whole, ramp = 2 * epochs - warm, 2 * min(self.ramp, epochs / 3)
        weight = partial(ramp_up, start=warm / whole, length=ramp / whole)
        turns = [
            Stage(
                f"network {turn + 1}",
                1,
                partial(self.learn, turn, weight),
                partial(self.parts, turn),
                train=self.learner(turn),
                views=self.views,
            )
            for turn in (0, 1)
        ]
        return [Stage("warm-up", warm, self.warm_up, twice), *turns * (epochs - warm)]

    def warm_up(self, first: Batch, second: Batch) -> Tensor:
        """The cross-entropy of each network on a batch of its own, and if asked for, their confidence penalties."""
        total = torch.zeros((), device=first.x.device)
        for net, batch in ((self.net, first), (self.peer, second)):
            logits = net(batch.x)
            self.observe(logits, batch)
            total = total + cross_entropy(logits, batch.y).mean()
            if self.confidence_penalty:
                total = total + negative_entropy(logits)
        return total

    def learner(self, turn: int) -> nn.Module:
        """Who learns in this turn."""
        return self.both()[turn]

    def both(self) -> tuple[nn.Module, nn.Module]:
        """The two networks."""
        return self.net, self.peer

    def parts(self, turn: int, data: Data) -> tuple[Data, Data]:
        """What an epoch shows of labelled and of unlabelled rows."""
        return shown(*self.divide(turn, data), self.epoch)

    def divide(self, turn: int, data: Data) -> tuple[Data, Data]:
        """Labelled rows, weighted by the probability that their label is right, and unlabelled rows."""
        raise UnswayedError(f"{type(self).__name__} defines divide(turn, data)")

    def learn(self, turn: int, weight: Callable[[float], float], labelled: Batch, unlabelled: Batch) -> Tensor:
        """The loss of the network whose turn it is: MixMatch on refined and on guessed labels."""
        target, guess = self.label(turn, labelled, unlabelled)
        rows, free = labelled.views[-2:], unlabelled.views[-2:]
        terms = mixmatch(self.both()[turn], rows, target, free, guess, alpha=self.alpha, ngrams=self.ngrams)
        share = self.lambda_u * weight(labelled.progress)
        return terms.fit + share * terms.consistency + terms.prior + self.extra(turn, labelled, unlabelled)

    @torch.no_grad()
    def label(self, turn: int, labelled: Batch, unlabelled: Batch) -> tuple[Tensor, Tensor]:
        """Labels to learn: refined by the network itself [B, K], and guessed by both networks [U, K]."""
        net, peer = self.both()[turn], self.both()[1 - turn]
        rows, free = distinct(labelled.views[:2]), distinct(unlabelled.views[:2])
        # One pass for all that the learning network has to say. It stays in training mode, as in the authors' code.
        said = net(torch.cat([*rows, *free])).float().softmax(1).split([len(part) for part in (*rows, *free)])
        seen, own = torch.stack(said[: len(rows)]).mean(0), said[len(rows) :]
        others = peer(torch.cat(free)).float().softmax(1).chunk(len(free))
        self.observe(seen.log(), labelled)
        self.observe(torch.stack(own).mean(0).log(), unlabelled)
        believed = self.believe(turn, seen, labelled)
        refined = co_refine(believed, labelled.y, labelled.weight, self.temperature)
        return refined, co_guess(*own, *others, temperature=self.temperature)

    def believe(self, turn: int, p: Tensor, labelled: Batch) -> Tensor:
        """What the network whose turn it is makes of its predictions [B, K] before they refine labels."""
        return p

    def extra(self, turn: int, labelled: Batch, unlabelled: Batch) -> Tensor | float:
        """A further term of the loss."""
        return 0.0

    def suspicion(self) -> Tensor | None:
        """One minus the networks' mean probability that the label is right, as judged last, [N]."""
        judged = bool((self.clean >= 0).all())
        return 1 - self.clean.mean(1) if judged else super().suspicion()


def shown(labelled: Data, unlabelled: Data, epoch: Epoch) -> tuple[Data, Data]:
    """As much of both parts as an epoch is to show, drawn anew each time; the shorter one then goes round.

    "together": as many rows as there are, one half of each part; "labelled": each labelled row once; "all": each row of
    the longer part once.
    """
    sizes = len(labelled), len(unlabelled)
    most = {"together": -(-sum(sizes) // 2), "labelled": sizes[0], "all": max(sizes)}[epoch]
    first, second = (
        part if len(part) <= most else part.rows(torch.randperm(len(part))[:most]) for part in (labelled, unlabelled)
    )
    return first, second


def distinct(views: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The views, one of those that are the same tensor: rows without augmentation need not be seen twice."""
    return tuple({id(view): view for view in views}.values())


def twice(data: Data) -> tuple[Data, Data]:
    """All rows, for each of two networks in an order of its own."""
    return data, data
