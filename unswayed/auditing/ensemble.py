"""Several voices on every label, and one calibrated belief made of them. No truth, and nothing to tune."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unswayed.auditing.clusters import fit_clouds
from unswayed.auditing.noise_rate import Rate, agree, shift_to
from unswayed.auditing.pooling import MOST, fit_pool, posterior
from unswayed.stats.mixtures import beta_mixture

SURE = 1e-4  # no voice is surer than this
NATS = 0.1  # a voice that explains labels so much worse counts 1/e


@dataclass(frozen=True)
class Belief:
    """What the voices together believe of every row."""

    log_odds: Tensor  # [N] of the label being wrong
    classes: Tensor  # [N, K] P(true class | all); of the given class 1 - suspicion
    voices: dict[str, Tensor]  # [N] each, P(label wrong)
    probs: Tensor  # [N, K] P(class) by the views alone, calibrated on the given labels
    rate: Rate
    distance: Tensor  # [N] to the nearest cloud


def believe(
    views: list[Tensor], scores: Tensor, labels: Tensor, others: dict[str, Tensor], annotated: Tensor | None = None
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

    `others`: further suspicions [N] in any unit (of training dynamics), heard as voices by their ranks.
    `annotated`: log-probabilities [N, K] of the true class by the votes of several annotators.
    """
    known = labels >= 0
    y = labels[known]
    stacked = torch.stack([_unit(view) for view in views])
    seen = stacked[:, known]
    part = _drawn(len(y))
    noisy = fit_pool(seen[:, part], y[part], noise=True)
    plain = fit_pool(seen[:, part], y[part], noise=False)
    clouds = fit_clouds(scores, labels, scores.shape[1])
    own = noisy.log_probs(stacked)
    filled = labels.clamp_min(0)
    heard = {
        "noise": posterior(own, noisy.transition, filled),
        "position": own,
        "clouds": posterior(clouds.log_probs, clouds.transition, filled),
    }
    if annotated is not None:
        heard["annotators"] = (own + annotated).log_softmax(1)
    voices = {name: 1 - each.exp().gather(1, filled[:, None])[:, 0] for name, each in heard.items()}
    weights = _weights(
        _explained(own[known], noisy.transition, y), _explained(clouds.log_probs[known], clouds.transition, y)
    )
    rate = agree({name: _mean(value[known]) for name, value in voices.items()}, weights)
    odds = _together(voices, weights)
    for name, score in others.items():
        voices[name] = by_rank(score, odds, known)
    odds = _together(voices, weights) / math.sqrt(1 + math.pi / 8 * rate.spread)
    odds = odds + shift_to(odds[known], rate.value)
    weight = torch.tensor([weights[name] for name in heard])
    together = torch.einsum("v,vnk->nk", weight / weight.sum(), torch.stack(list(heard.values()))).log_softmax(1)
    classes = _with_given(together, labels, odds.sigmoid())
    return Belief(odds, classes, voices, plain.log_probs(stacked).exp(), rate, clouds.distance)


def believe_dynamics(score: Tensor, labels: Tensor, classes: int) -> Belief:
    """Beliefs from a suspicion in any unit and nothing else: [N], labels [N] -> the given label or any other.

    A mixture of two Betas (arXiv 2505.00812) says which part a row belongs to. Its share of wrong labels counts as
    known within a factor of two in odds, our choice.
    """
    known = labels >= 0
    y = labels.clamp_min(0)[:, None]
    chance = beta_mixture(score[known]).posterior(score).neg().add(1).clamp(SURE, 1 - SURE).float()
    rate = Rate(float(_logit(chance[known].mean())), 0.7, 0.0)
    shared = (chance / max(classes - 1, 1))[:, None].expand(-1, classes).clone()
    probs = shared.scatter(1, y, 1 - chance[:, None])
    probs[~known] = 1 / classes
    return Belief(_logit(chance), probs, {"dynamics": chance}, probs, rate, torch.zeros(len(labels)))


def _explained(log_probs: Tensor, transition: Tensor, labels: Tensor) -> float:
    """The mean log-likelihood of given labels [N]: [N, K], [K, K]."""
    return _mean(torch.logsumexp(log_probs + transition.T[labels].clamp_min(1e-12).log(), 1))


def _weights(noise: float, clouds: float) -> dict[str, float]:
    """How much each voice counts, by the log-likelihoods of the two that explain labels."""
    best = max(noise, clouds)
    behind = {"noise": math.exp((noise - best) / NATS), "clouds": math.exp((clouds - best) / NATS)}
    return {"position": 1.0, **behind, "annotators": 3.0, "dynamics": 1.0}


def _together(voices: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    total = sum(weights[name] for name in voices)
    return torch.stack([weights[name] / total * _logit(value) for name, value in voices.items()]).sum(0)


def _unit(view: Tensor) -> Tensor:
    """Logits whose spread within a row is 1 on average."""
    return view / view.std(1).mean().clamp_min(1e-12)


def _drawn(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:MOST]


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


def _with_given(together: Tensor, labels: Tensor, suspicion: Tensor) -> Tensor:
    """Class probabilities whose entry at the given label is 1 - suspicion; the others share the rest, [N, K]."""
    classes = together.exp()
    known = (labels >= 0).nonzero()[:, 0]
    y = labels[known, None]
    rest = classes[known].scatter(1, y, 0.0).clamp_min(1e-12).scatter(1, y, 0.0)
    rest = rest / rest.sum(1, keepdim=True) * suspicion[known, None]
    classes[known] = rest.scatter(1, y, 1 - suspicion[known, None])
    return classes
