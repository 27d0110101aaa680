"""Progressive early stopping: late layers, which wrong labels spoil first, learn for a shorter time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.losses import cross_entropy
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.semi import body_of, head_of, mixmatch, reads_ngrams, row_probabilities, shown, warm_up_epochs
from unswayed.stats.semi import co_guess, keep_both, ramp_up, soft_labels
from unswayed.stats.snapshot import Snapshot

Renewed = Literal["learn", "rest"]


class PES(Method):
    """Early layers learn longer than late ones; then only rows that the network agrees with (PES, arXiv 2106.15853).

    1. The whole network learns for `warmup` epochs, with cross-entropy. 2. With the rest fixed, the late layers and
    the head begin anew and learn for `late` epochs; then the head alone, for `late_head` epochs. 3. In every epoch,
    rows whose given label is the predicted one are confident. Without `semi`, the network learns from them, each class
    weighted by mean size / size. With it (the default, the authors' better one), MixMatch learns from them under the
    same weights (at most `largest_weight`), and from the other rows without their labels.

    Settings, the authors' for CIFAR-10:

    - with `semi`, `warmup` 20 of 300 epochs (35 for CIFAR-100), `late` 0 and `late_head` 5: only the head begins anew.
      Without, 25 of 200 (30), 7 and 5. None, the default, takes these; a warm-up lasts at most a third of the epochs,
      and the others shrink with it
    - `temperature` .5; `alpha` 4 and in the second half of training .75, as in the code (`late_alpha`)
    - `lambda_u` 15 (5 to 150, chosen by noise rate and type), rising over `ramp` 16 epochs, at most a third of them
    - SGD .1 and weight decay 1e-4; with `semi` .02 and 5e-4; batches of 128 rows, both parts together

    Where paper and code differ: in the program the optimiser of the last part still holds the layers that were thrown
    away, so that those begun anew never learn again (`renewed="rest"`). The paper trains the whole network on, and so
    does the default, because the program says nowhere that it means otherwise ("learn").

    Our choices: the late layers are the last quarter of the body's layers (of ResNet-18: its last stage, as in the
    code). They begin anew from their own first values. They learn by the run's optimiser, where the code takes Adam at
    1e-4; what is fixed keeps its batch-norm averages. Confidence is judged on rows as stored, where the code takes two
    augmented views. A part that would be (nearly) empty is filled from the other. Views of tables and features are
    alike unless augmented; the guess is then what the network says now.
    """

    class_weight: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        semi: bool = True,
        warmup: int | None = None,
        late: int | None = None,
        late_head: int = 5,
        temperature: float = 0.5,
        alpha: float = 4.0,
        late_alpha: float = 0.75,
        lambda_u: float = 15.0,
        ramp: int = 16,
        largest_weight: float = 3.0,
        renewed: Renewed = "learn",
    ) -> None:
        if renewed not in get_args(Renewed):
            raise UnswayedError("renewed is 'learn' or 'rest'", got=repr(renewed))
        super().__init__(make_net, info)
        self.semi, self.classes, self.ngrams, self.renewed = semi, info.classes, reads_ngrams(self.net), renewed
        self.warmup = int(number("warmup", (20 if semi else 25) if warmup is None else warmup, least=1))
        self.late = number("late", (0 if semi else 7) if late is None else late, least=0)
        self.late_head = number("late_head", late_head, least=0)
        self.temperature, self.lambda_u = number("temperature", temperature, above=0), number("lambda_u", lambda_u)
        self.alpha, self.late_alpha = number("alpha", alpha, least=0), number("late_alpha", late_alpha, least=0)
        self.ramp = number("ramp", ramp, least=0)
        self.largest_weight = number("largest_weight", largest_weight, above=0)
        self.first_late, self.first_head = Snapshot(self.last_layers()), Snapshot(head_of(self.net))
        self.register_buffer("class_weight", torch.ones(info.classes))

    def last_layers(self) -> nn.ModuleList:
        """The late layers of the body, and the head."""
        return nn.ModuleList([*late_layers(body_of(self.net)), head_of(self.net)])

    def plan(self, epochs: int) -> list[Stage]:
        """All layers, the late ones, the head; then one stage an epoch, since rows are chosen between epochs."""
        first = warm_up_epochs(epochs, self.warmup)
        spans = [max(1, round(span * first / self.warmup)) if span else 0 for span in (self.late, self.late_head)]
        if first + sum(spans) >= epochs:
            spans = [0, 0]  # too short a run to spare epochs for them
        layers, head, rest = self.last_layers(), head_of(self.net), epochs - first - sum(spans)
        stages = [Stage("all layers", first, self.loss)]
        if spans[0]:
            stages.append(
                Stage("late layers", spans[0], self.loss, partial(self.renew, self.first_late, layers), layers)
            )
        if spans[1]:
            stages.append(Stage("head", spans[1], self.loss, partial(self.renew, self.first_head, head), head))
        learners = self.early_layers(late=bool(spans[0])) if self.renewed == "rest" and any(spans) else None
        if self.semi:
            learn, views = (
                partial(self.learn, (epochs - rest) / epochs, min(self.ramp, epochs / 3) / epochs),
                ("weak", "weak"),
            )
            return stages + [Stage("confident rows", 1, learn, self.split, learners, views)] * rest
        return stages + [Stage("confident rows", 1, self.fit, self.confident, learners)] * rest

    def early_layers(self, late: bool) -> nn.ModuleList:
        """The layers of the body; without the late ones if these began anew too."""
        body = body_of(self.net)
        anew = set(late_layers(body)) if late else set()
        return nn.ModuleList([layer for layer in _layers(body) if layer not in anew])

    def loss(self, batch: Batch) -> Tensor:
        """The cross-entropy with the given labels."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        return cross_entropy(logits, batch.y).mean()

    def fit(self, batch: Batch) -> Tensor:
        """The mean cross-entropy of confident rows by their weights."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        return (cross_entropy(logits, batch.y) * batch.weight).sum() / batch.weight.sum()

    def learn(self, start: float, ramp: float, confident: Batch, others: Batch) -> Tensor:
        """MixMatch on confident rows with their labels, and on the others with the network's own guesses."""
        with torch.no_grad():
            guesses = self.net(torch.cat(others.views)).float().softmax(1).chunk(2)
            guess = co_guess(*guesses, temperature=self.temperature)
            self.observe((sum(guesses) / 2).log(), others)
        alpha = self.alpha if confident.progress < 0.5 else self.late_alpha
        target, weight = soft_labels(confident.y, self.classes), self.class_weight
        terms = mixmatch(
            self.net, confident.views, target, others.views, guess,
            alpha=alpha, ngrams=self.ngrams, class_weight=weight,
        )  # fmt: skip
        return terms.fit + self.lambda_u * ramp_up(confident.progress, start, ramp) * terms.consistency

    def renew(self, first: Snapshot, layers: nn.Module, data: Data) -> Data:
        """Give `layers` their first values back."""
        first.put_back(layers)
        return data

    def confident(self, data: Data) -> Data:
        """The rows whose label is predicted, with the weights of their classes."""
        chosen = self._judge(data)
        weight = class_weights(data.y[chosen], self.classes)
        y = data.y if data.y.dim() == 1 else data.y.argmax(1)
        return data.replace(weight=weight[y]).rows(chosen)

    def split(self, data: Data) -> tuple[Data, Data]:
        """Confident rows and the others, as many as there are rows, one half of each, as in the authors' program."""
        chosen = self._judge(data)
        weight = class_weights(data.y[chosen], self.classes).clamp_max(self.largest_weight)
        self.class_weight.copy_(weight)
        return shown(data.rows(chosen), data.rows(~chosen), "together")

    def _judge(self, data: Data) -> Tensor:
        p = row_probabilities(self.net, data)
        self.dynamics.update(p.log(), data.y, data.index)
        y = data.y if data.y.dim() == 1 else data.y.argmax(1)
        return keep_both(p.argmax(1) == y, p.gather(1, y[:, None])[:, 0])


def class_weights(y: Tensor, classes: int) -> Tensor:
    """Mean size of the classes that occur / size of the class, 0 for one that does not: labels [N] -> [K].

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 3)
    tensor([0.6667, 2.0000, 0.0000])
    """
    sizes = torch.bincount(y if y.dim() == 1 else y.argmax(1), minlength=classes).float()
    mean = sizes.sum() / (sizes > 0).sum().clamp_min(1)
    return torch.where(sizes > 0, mean / sizes.clamp_min(1), 0.0)


def late_layers(body: nn.Module) -> list[nn.Module]:
    """The last quarter of a body's layers (one at least where there are two), norms going with what they follow."""
    groups: list[list[nn.Module]] = []
    for layer in _layers(body):
        if _is_norm(layer) and groups:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    count = max(len(groups) // 4, 1) if len(groups) > 1 else 0
    return [layer for group in groups[len(groups) - count :] for layer in group]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Layers with parameters, in order; only plain chains of layers are taken apart."""
    chain = getattr(module, "layers", module)
    if isinstance(chain, nn.Sequential):
        for child in chain:
            yield from _layers(child)
    elif any(True for _ in module.parameters()):
        yield module


def _is_norm(layer: nn.Module) -> bool:
    return all(parameter.dim() == 1 for parameter in layer.parameters())
