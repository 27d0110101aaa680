"""Pieces of semi-supervised learning: guessing and sharpening labels, mixing rows, and the penalties that go with them.

Probabilities are `[B, K]` with rows that sum to one. Random numbers come from `generator`, or else from torch's global
generator of the processor, whatever the device: one seed gives the same mixture everywhere.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from unswayed.data.columns import send
from unswayed.errors import UnswayedError


def soft_labels(y: Tensor, classes: int) -> Tensor:
    """Labels `[B]` as one-hot rows, soft ones `[B, K]` as they are -> `[B, K]` float32."""
    return one_hot(y, classes).float() if y.dim() == 1 else y.float()


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p^(1/T), scaled to sum one: `[B, K]` -> `[B, K]` (MixMatch, arXiv 1905.02249); 1 changes nothing.

    Relative to each row's largest entry, so that no power of small numbers becomes 0 / 0.

    >>> sharpen(torch.tensor([[0.75, 0.25]]), temperature=0.5)
    tensor([[0.9000, 0.1000]])
    """
    if temperature <= 0:
        raise UnswayedError("a temperature above 0", got=temperature)
    sharp = (p / p.amax(1, keepdim=True)).pow(1 / temperature)
    return sharp / sharp.sum(1, keepdim=True)


def co_refine(p: Tensor, y: Tensor, clean: Tensor, temperature: float) -> Tensor:
    """Labels corrected where they are doubted (arXiv 2002.07394): `[B, K]`, `[B]` or `[B, K]`, `[B]` -> `[B, K]`.

    clean * label + (1 - clean) * prediction, sharpened; `clean` is the probability that the label is right.

    >>> co_refine(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), clean=torch.tensor([0.5]), temperature=1.0)
    tensor([[0.7500, 0.2500]])
    """
    trust = clean[:, None].to(p.dtype)
    return sharpen(trust * soft_labels(y, p.shape[1]).to(p.dtype) + (1 - trust) * p, temperature)


def co_guess(*predictions: Tensor, temperature: float) -> Tensor:
    """The sharpened mean of several predictions of the same rows (arXiv 2002.07394): `[B, K]` each -> `[B, K]`.

    >>> co_guess(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), temperature=0.5)
    tensor([[0.9000, 0.1000]])
    """
    return sharpen(torch.stack(predictions).mean(0), temperature)


def ramp_up(progress: float, start: float, length: float) -> float:
    """0 until `start`, then linearly up to 1 over `length` (all in shares of training).

    >>> ramp_up(0.1, start=0.2, length=0.4), ramp_up(0.3, start=0.2, length=0.4), ramp_up(0.9, start=0.2, length=0.4)
    (0.0, 0.25, 1.0)
    """
    if progress <= start:
        return 0.0
    return min(1.0, round((progress - start) / length, 12)) if length > 0 else 1.0


def draw_share(alpha: float, generator: Generator | None = None) -> float:
    """A share of Beta(alpha, alpha), or one minus it, whichever is larger: in [.5, 1]; alpha 0 gives 1."""
    if alpha < 0:
        raise UnswayedError("an alpha of 0 or more", got=alpha)
    if alpha == 0:
        return 1.0
    one, other = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator).tolist()
    total = one + other
    # Of a tiny alpha both come out as the smallest number there is, and one row is all.
    return max(one, other) / total if total > 1e-290 else 1.0


def mixup(
    x: Tensor,
    target: Tensor,
    alpha: float,
    *,
    generator: Generator | None = None,
    ngrams: bool = False,
) -> tuple[Tensor, Tensor]:
    """Every row and its soft label mixed with another of the batch (MixUp, arXiv 1710.09412), itself the larger part.

    Rows `[B, ...]` and targets `[B, K]` -> the same shapes, one share for the batch, drawn by `draw_share`.
    `ngrams`, and which rows cannot be mixed: see `mix`.
    """
    share = draw_share(alpha, generator)
    order = send(torch.randperm(len(x), generator=generator), x.device)
    if not can_mix(x, ngrams):
        return x, target
    return mix(x, x[order], share, ngrams=ngrams), torch.lerp(target[order], target, share)


def can_mix(x: Tensor, ngrams: bool = False) -> bool:
    """Whether a mean of two such rows is a row. It is for floats and bytes (pictures), and for weighted n-grams.

    Other whole numbers are numbers of things (words of a vocabulary), whose mean is another thing: not mixed, and
    neither are their labels (our choice, since nothing else is true of every model that reads them).
    """
    return ngrams or x.is_floating_point() or x.dtype == torch.uint8


def mix(x: Tensor, other: Tensor, share: float, *, ngrams: bool = False) -> Tensor:
    """share * x + (1 - share) * other: `[B, ...]`, `[B, ...]` -> `[B, ...]` as floats; bytes are read as 0..1.

    With `ngrams`, rows `[B, 2, L]` are n-gram numbers and weights, sparse vectors in truth. Their mixture holds the
    n-grams of both, weights scaled: `[B, 2, 2 L]`, the very mixture of the dense vectors.

    >>> text = torch.tensor([[[3.0, 7.0], [0.8, 0.6]]])
    >>> mix(text, text.flip(2), 0.75, ngrams=True)[0]
    tensor([[3.0000, 7.0000, 7.0000, 3.0000],
            [0.6000, 0.4500, 0.1500, 0.2000]])
    """
    if ngrams:
        numbers = torch.cat([x[:, 0], other[:, 0]], dim=1)
        weights = torch.cat([x[:, 1] * share, other[:, 1] * (1 - share)], dim=1)
        return torch.stack([numbers, weights], dim=1)
    if x.dtype == torch.uint8:
        return torch.lerp(other.float(), x.float(), share) / 255
    return torch.lerp(other, x, share)


def consistency(logits: Tensor, target: Tensor) -> Tensor:
    """(p - target)^2, the mean over rows and classes, a scalar: what guessed labels ask for (arXiv 1905.02249)."""
    return (logits.float().softmax(1) - target).square().mean()


def prior_penalty(logits: Tensor, prior: Tensor | None = None) -> Tensor:
    """KL(prior || mean prediction), a scalar: keeps a network from calling everything one class (arXiv 1412.6596).

    `prior` `[K]` is uniform unless given.

    >>> round(prior_penalty(torch.tensor([[0.0, 0.0], [0.0, 0.0]])).item(), 6)
    0.0
    """
    log_p = logits.float().log_softmax(1)
    mean = log_p.logsumexp(0) - torch.log(log_p.new_full((), len(log_p)))  # of p, in logarithms: no log of 0
    prior = torch.full_like(mean, 1 / len(mean)) if prior is None else prior
    return (torch.xlogy(prior, prior) - prior * mean).sum()


def negative_entropy(logits: Tensor) -> Tensor:
    """sum p log p, the mean over rows, a scalar: as a penalty it holds confidence down (arXiv 1701.06548)."""
    log_p = logits.float().log_softmax(1)
    return (log_p.exp() * log_p).sum(1).mean()


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence in bits: `[B, K]`, `[B, K]` -> `[B]` in [0, 1].

    >>> jensen_shannon(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    tensor([1., 0.])
    """
    mean = (p + q) / 2
    nats = (torch.xlogy(p, p) + torch.xlogy(q, q)).sum(1) / 2 - torch.xlogy(mean, mean).sum(1)
    return (nats / torch.log(nats.new_full((), 2.0))).clamp(0, 1)


def keep_both(chosen: Tensor, score: Tensor, least: int | None = None) -> Tensor:
    """`chosen` `[N]` bool, changed only where it leaves fewer than `least` rows in or out: then the best (worst) join.

    Best by `score` `[N]`. Our choice: `least` is a hundredth of the rows and 8 at least, but never more than a half,
    because training needs both parts, and the papers do not say what to do with an empty one.

    >>> keep_both(torch.tensor([False] * 4), torch.tensor([0.1, 0.4, 0.2, 0.3]))
    tensor([False,  True, False,  True])
    """
    least = min(len(chosen) // 2, max(8, len(chosen) // 100)) if least is None else least
    kept = chosen.clone()
    if int(chosen.sum()) < least:
        kept[score.argsort(descending=True, stable=True)[:least]] = True
    elif int((~chosen).sum()) < least:
        kept[score.argsort(stable=True)[:least]] = False
    return kept


def smallest_of_class(score: Tensor, y: Tensor, classes: int, most: int) -> Tensor:
    """The up to `most` rows of every class with the smallest score: `[N]`, labels `[N]` or `[N, K]` -> `[N]` bool.

    >>> smallest_of_class(torch.tensor([0.3, 0.1, 0.2, 0.9]), torch.tensor([0, 0, 0, 1]), classes=2, most=2)
    tensor([False,  True,  True,  True])
    """
    y = y if y.dim() == 1 else y.argmax(1)
    order = score.argsort(stable=True)
    order = order[y[order].argsort(stable=True)]
    counts = torch.bincount(y, minlength=classes)
    rank = torch.arange(len(y), device=y.device) - (counts.cumsum(0) - counts)[y[order]]
    chosen = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    chosen[order] = rank < most
    return chosen


def partners(among: Tensor, generator: Generator | None = None) -> Tensor:
    """For every row one of those that `among` `[B]` names, at random: numbers `[B]`; of all rows where it names none.

    Each of them serves equally often (up to one), and nothing waits for the device to count them.
    """
    chance = send(torch.rand(2, len(among), generator=generator), among.device)
    first = (chance[0] + 2 * ~among).argsort()  # those named come first, in a random order
    count = torch.where(among.any(), among.sum(), len(among))
    turn = chance[1].argsort().argsort() % count
    return first[turn]


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of `values` `[B]` over the rows `chosen` `[B]`, a scalar; 0 of none."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
