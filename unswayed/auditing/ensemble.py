"""Several voices on every label, and one calibrated belief made of them. No truth, and nothing to tune."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unswayed.auditing.clusters import Clouds, find_axes, fit_clouds
from unswayed.auditing.noise_rate import Rate, agree, shift_to
from unswayed.auditing.pooling import MOST, Pool, fit_pool, posterior
from unswayed.stats.mixtures import beta_mixture

SURE = 1e-4  # no voice is surer than this
NATS = 0.1  # a voice that explains labels so much worse counts 1/e
DRAWN = 100_000  # rows that scales, axes and the voices' weights are taken from; matrix and clouds take 20,000
ENTRIES = 2**20  # numbers of a view held at a time: 4 MiB

Places = Tensor | slice
Reader = Callable[[Places], Tensor]
"""Numbers [n, K] of the rows at some places, float32: of a tensor its `__getitem__`, of a file a few rows at a time."""


@dataclass(frozen=True)
class Belief:
    """What the voices together believe of every row."""

    log_odds: Tensor  # [N] of the label being wrong
    other: Tensor  # [N] int64: the likeliest class but the given one
    share: Tensor  # [N] its part of what the given one leaves; without a given one, its probability
    voices: dict[str, Tensor]  # [N] each, P(label wrong)
    classes: Reader  # P(true class | all); of the given class 1 - suspicion
    probs: Reader  # P(class) by the views alone, calibrated on the given labels
    rate: Rate


@dataclass(frozen=True)
class Panel:
    """The voices as they were fitted, to be heard on any rows."""

    views: list[Reader]
    units: list[float]  # what each view is divided by
    scores: Reader
    labels: Tensor
    annotated: Reader | None
    pool: Pool
    clouds: Clouds
    weights: dict[str, float]

    def hear(self, at: Places) -> dict[str, Tensor]:
        """Log-probabilities of the true class by every voice that has some, [n, K] each."""
        own = self.pool.log_probs(stack(self.views, self.units, at))
        position = self.clouds.log_probs(self.scores(at))
        y = self.labels[at].clamp_min(0)
        heard = {
            "noise": posterior(own, self.pool.transition, y),
            "position": own,
            "clouds": posterior(position, self.clouds.transition, y),
        }
        if self.annotated is not None:
            heard["annotators"] = (own + self.annotated(at)).log_softmax(1)
        return heard

    def together(self, heard: dict[str, Tensor]) -> Tensor:
        """P(true class) by the weighted mean of log-probabilities: -> [n, K]."""
        weight = torch.tensor([self.weights[name] for name in heard])
        weight = weight / weight.sum()
        mean = sum(float(part) * one for part, one in zip(weight, heard.values(), strict=True))
        return torch.as_tensor(mean).softmax(1)

    def explained(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of the given labels by the pool's and by the clouds' transition matrix, [n] each."""
        own = self.pool.log_probs(stack(self.views, self.units, at))
        y = self.labels[at]
        position = self.clouds.log_probs(self.scores(at))
        return _likelihood(own, self.pool.transition, y), _likelihood(position, self.clouds.transition, y)


def believe(
    views: list[Reader],
    scores: Reader,
    labels: Tensor,
    count: int,
    others: dict[str, Tensor],
    annotated: Reader | None = None,
) -> Belief:
    """Beliefs from out-of-fold views (logits [N, K] each), discriminant scores [N, K] and labels [N] (-1 missing).

    Three voices are heard, in log-odds:

    noise      Bayes with the transition matrix that makes the given labels likeliest, P(wrong | x, label, T): right
               where wrong labels fall on easy and hard rows alike.
    position   one minus the probability of the given label by position alone, which trusts the label in nothing:
               right where wrong labels lie on hard rows, as people's do.
    clouds     Bayes within a mixture of clouds which labels merely name: right where classes are clusters, and
               where annotators err as the features do.

    Position weighs 1, as does the better of the other two by the likelihood of the given labels; the worse one loses a
    factor e for every .1 nats a label that it explains them worse, our choice. The votes of several annotators weigh 3.
    The mean is flattened as a probability of such an uncertain shift is (by sqrt(1 + pi v / 8), v the variance between
    the voices' rates), and shifted so that its mean is the estimated rate.

    Rows are read a few at a time, and what is held besides is O(N). What is one number or matrix for all rows is
    estimated on drawn ones: transition matrix, pool and clouds on 20,000; scales, axes and weights on 100,000. Our
    choice; docs/audit.md says what that costs.

    `count` is K. `others`: further suspicions [N] in any unit (of training dynamics), heard as voices by their ranks.
    `annotated`: log-probabilities [N, K] of the true class by the votes of several annotators.
    """
    known = labels >= 0
    panel = _fit(views, scores, labels, count, annotated)
    names = ["noise", "position", "clouds", *(["annotators"] if annotated is not None else [])]
    voices = {name: torch.empty(len(labels)) for name in names}
    other, share = torch.empty_like(labels), torch.empty(len(labels))
    for at in parts(len(labels), count):
        heard = panel.hear(at)
        filled = labels[at].clamp_min(0)[:, None]
        for name, each in heard.items():
            voices[name][at] = 1 - each.gather(1, filled)[:, 0].exp()
        share[at], other[at] = _rest(panel.together(heard), labels[at]).max(1)
    rate = agree({name: _mean(value[known]) for name, value in voices.items()}, panel.weights)
    odds = _together(voices, panel.weights)
    for name, score in others.items():
        voices[name] = by_rank(score, odds, known)
    odds = (_together(voices, panel.weights) if others else odds) / math.sqrt(1 + math.pi / 8 * rate.spread)
    odds = odds + shift_to(odds[known], rate.value)
    plain = functools.cache(lambda: _fit_pool(panel, noise=False))
    return Belief(
        odds,
        other,
        share,
        voices,
        lambda at: _with_given(panel.together(panel.hear(at)), labels[at], odds[at].sigmoid()),
        lambda at: plain().log_probs(stack(views, panel.units, at)).exp(),
        rate,
    )


def _fit(views: list[Reader], scores: Reader, labels: Tensor, count: int, annotated: Reader | None) -> Panel:
    drawn = _drawn(len(labels), DRAWN).sort().values
    units = [_unit(view, drawn, count) for view in views]
    axes = find_axes((scores(at) for at in parts(drawn, count)), count)
    picked = _drawn(len(labels), MOST)
    picked = picked[labels[picked] >= 0]
    clouds = fit_clouds(scores(picked), labels[picked], axes)
    weights = {"position": 1.0, "annotators": 3.0, "dynamics": 1.0}
    panel = Panel(views, units, scores, labels, annotated, Pool(torch.ones(len(views)), torch.eye(count)), clouds, {})
    panel = replace(panel, pool=_fit_pool(panel, noise=True))
    told = [panel.explained(at) for at in parts(drawn[labels[drawn] >= 0], count)]
    noise, cloud = (_mean(torch.cat(each)) for each in zip(*told, strict=True))
    return replace(panel, weights=weights | _behind(noise, cloud))


def _fit_pool(panel: Panel, *, noise: bool) -> Pool:
    known = (panel.labels >= 0).nonzero()[:, 0]
    part = known[_drawn(len(known), MOST)]
    return fit_pool(stack(panel.views, panel.units, part), panel.labels[part], noise=noise)


def believe_dynamics(score: Tensor, labels: Tensor, count: int) -> Belief:
    """Beliefs from a suspicion in any unit and nothing else: [N], labels [N] -> the given label or any other of K.

    A mixture of two Betas (arXiv 2505.00812) says which part a row belongs to. Its share of wrong labels counts as
    known within a factor of two in odds, our choice.
    """
    known = labels >= 0
    chance = beta_mixture(score[known]).posterior(score).neg().add(1).clamp(SURE, 1 - SURE).float()
    rate = Rate(float(_logit(chance[known].mean())), 0.7, 0.0)

    def classes(at: Places) -> Tensor:
        y, wrong = labels[at], chance[at]
        probs = (wrong / max(count - 1, 1))[:, None].expand(-1, count).clone()
        probs.scatter_(1, y.clamp_min(0)[:, None], 1 - wrong[:, None])
        probs[y < 0] = 1 / count
        return probs

    share = torch.where(known, 1 / max(count - 1, 1), 1 / count)
    return Belief(_logit(chance), (labels == 0).long(), share, {"dynamics": chance}, classes, classes, rate)


def parts(rows: int | Tensor, classes: int) -> Iterator[Any]:
    """Slices of so many rows, or parts of row numbers, a few rows at a time."""
    size = max(1, ENTRIES // classes)
    if isinstance(rows, Tensor):
        return iter(torch.split(rows, size))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def stack(views: list[Reader], units: list[float], at: Places) -> Tensor:
    """Views of some rows, each in its unit: -> [M, n, K]."""
    return torch.stack([view(at) / unit for view, unit in zip(views, units, strict=True)])


def _rest(together: Tensor, labels: Tensor) -> Tensor:
    """How the other classes share what the given one leaves, [n, K]; unchanged where no label is given."""
    known = (labels >= 0).nonzero()[:, 0]
    y = labels[known, None]
    rest = together[known].scatter(1, y, 0.0).clamp_min(1e-12).scatter(1, y, 0.0)
    together[known] = rest / rest.sum(1, keepdim=True)
    return together


def _with_given(together: Tensor, labels: Tensor, suspicion: Tensor) -> Tensor:
    """Class probabilities whose entry at the given label is 1 - suspicion; the others share the rest, [n, K]."""
    classes = _rest(together, labels)
    known = (labels >= 0).nonzero()[:, 0]
    classes[known] *= suspicion[known, None]
    classes[known, labels[known]] = 1 - suspicion[known]
    return classes


def _likelihood(log_probs: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """The log-likelihood of given labels [n]: [n, K], [K, K] -> [n]."""
    return torch.logsumexp(log_probs + transition.T[labels].clamp_min(1e-12).log(), 1)


def _behind(noise: float, clouds: float) -> dict[str, float]:
    """How much the two voices that explain labels count, by their mean log-likelihoods."""
    best = max(noise, clouds)
    return {"noise": math.exp((noise - best) / NATS), "clouds": math.exp((clouds - best) / NATS)}


def _together(voices: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    total = sum(weights[name] for name in voices)
    return torch.stack([weights[name] / total * _logit(value) for name, value in voices.items()]).sum(0)


def _unit(view: Reader, drawn: Tensor, classes: int) -> float:
    """What makes the spread of logits within a row 1 on average."""
    spread = torch.cat([view(at).std(1) for at in parts(drawn, classes)]).mean()
    return max(float(spread), 1e-12)


def _drawn(count: int, most: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most]


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _logit(values: Tensor) -> Tensor:
    return values.clamp(SURE, 1 - SURE).logit()


def by_rank(score: Tensor, odds: Tensor, known: Tensor) -> Tensor:
    """A score in any unit as a probability: its ranks take the values that the other voices have, [N].

    Our choice: what a score means in probability cannot be known without truth, its order can be heard.
    """
    found = torch.full_like(odds, 0.5)
    order = score[known].argsort()
    values = torch.empty(int(known.sum()), dtype=odds.dtype)
    values[order] = odds[known].sort().values.sigmoid()
    tie = torch.unique(score[known], return_inverse=True)[1]
    total = torch.zeros(int(tie.max()) + 1, dtype=torch.float64).index_add_(0, tie, values.double())
    found[known] = (total / torch.bincount(tie).clamp_min(1))[tie].to(odds.dtype)
    return found
