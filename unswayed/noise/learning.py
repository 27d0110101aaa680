"""How a noise model is fitted; what the held-out rows do not bear out is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from unswayed.data.columns import Column
from unswayed.errors import UnswayedError
from unswayed.noise.labels import checked
from unswayed.noise.learned import Likeness, NoiseModel, Reader, draw, effect_of, in_parts, likeness, wrong_odds

FOLDS = 5
WIDEST, AXES = 4096, 256  # columns that can be read, and principal axes kept of more than so many
FEW = 20.0  # rows of a class at which its features are half trusted
RIDGES = (10.0, 100.0, 1000.0)  # of the classifier of looks
PULLS = (10.0, 100.0, 1000.0)  # ridges of likeness
DIRECTS = (3000.0, 1000.0, 100.0, 10.0)  # ridges of the features themselves, where they take part at all
_PAIRED_ROWS = 20_000  # for the agreement of annotators


Form: TypeAlias = tuple[float, float | None]  # ridge of likeness, ridge of the features or None


class _Rows(NamedTuple):
    """Prepared rows: features [N, r], what they look like [N, K], true labels [N], shares of given labels [N, K]."""

    features: Tensor
    looks: Tensor
    truth: Tensor
    target: Tensor

    def take(self, at: Tensor) -> _Rows:
        return _Rows(*(column[at] for column in self))


def learn_noise(
    x: Column | Tensor | None,
    truth: Tensor,
    given: Tensor,
    *,
    classes: int | None = None,
    prior: float = 1.0,
    seed: int = 0,
) -> NoiseModel:
    """Fit how people mislabel: features [N, ...] or None, true labels [N], given labels [N] or [N, annotators].

    In three steps, each only as far as rows that took no part bear it out.
    1. Class-wise: the transition matrix, each row drawn towards the mean noise of all classes with the weight of
       `prior` * K rows. A class with few or no rows so gets the noise of all.
    2. Likeness: a linear classifier of the truth, cross-fitted in 5 parts, says what a row looks like; the log-odds of
       the labels move with it, and with the features themselves. Ridges are chosen by the log-likelihood of rows held
       out. Where the best of them does not beat the class-wise model by a standard error, features are left out.
    3. With two annotators or more: how much more they agree than independent draws would.

    Features are best those of a good frozen encoder, up to 4,096 numbers a row; 256 principal axes are kept. -1 in
    `given` is a label that an annotator did not give. Our choice throughout: the source (arXiv 2305.14022) learns the
    noise of cameras; only the idea is taken from it. Deterministic by `seed`. Raises UnswayedError on rows without a
    true label and on features that are not finite.

    >>> truth = torch.tensor([0, 1]).repeat(500)
    >>> given = torch.where(torch.arange(1000) < 200, 1 - truth, truth)
    >>> [round(rate, 2) for rate in learn_noise(None, truth, given).transition[0].tolist()]
    [0.8, 0.2]
    """
    truth, given, classes = known_labels(truth, given, classes)
    if prior <= 0:
        raise UnswayedError("prior is above 0", got=prior)
    target = F.one_hot(given.clamp_min(0), classes).double() * (given >= 0)[..., None]
    target = target.sum(1) / (given >= 0).sum(1)[:, None]
    base = class_wise(truth, target, prior)
    rate = float((1 - target.gather(1, truth[:, None])).mean())
    about: dict[str, Any] = {"rows": len(truth), "annotators": given.shape[1], "rate": rate}
    bias, part, logits = torch.zeros_like(base), None, base.log()[truth]
    if x is not None:
        if len(x) != len(truth):
            raise UnswayedError(f"features of {len(truth)} samples", got=len(x))
        rows, reader, classifier = _prepare(x, truth, target, seed)
        form, about["held_out"] = _choose(rows, prior, seed)
        if form is not None:
            bias, part = _fit(rows, base, reader, classifier, form)
            logits = (base.log() + bias)[truth] + effect_of(rows.features, rows.looks, truth, part)
    agreement = _agreement(logits, given, seed)
    return NoiseModel(base, bias, _quantiles(logits, truth, classes), agreement, part, about)


def class_wise(truth: Tensor, target: Tensor, prior: float) -> Tensor:
    """The transition matrix, drawn towards the mean noise by `prior` * K rows a class: [N], [N, K] -> [K, K].

    >>> class_wise(torch.tensor([0, 0, 0, 0]), torch.eye(2).double()[[0, 0, 0, 1]], prior=1.0).round(decimals=2)
    tensor([[0.7300, 0.2700],
            [0.3000, 0.7000]], dtype=torch.float64)
    """
    classes = target.shape[1]
    counts = torch.zeros(classes, classes, dtype=torch.float64).index_add_(0, truth, target)
    wrong = (counts.sum() - counts.diagonal().sum() + 0.5) / (counts.sum() + 1)
    mean = torch.full_like(counts, float(wrong) / (classes - 1)).fill_diagonal_(1 - float(wrong))
    return (counts + prior * classes * mean) / (counts.sum(1, keepdim=True) + prior * classes)


def known_labels(truth: Tensor, given: Tensor, classes: int | None) -> tuple[Tensor, Tensor, int]:
    """Checked labels, given as one column an annotator: [N], [N] or [N, A] -> [N], [N, A], K."""
    given = given[:, None] if given.dim() == 1 else given
    if given.dim() != 2 or truth.shape != given.shape[:1] or not given.shape[1]:
        got = f"{list(truth.shape)} and {list(given.shape)}"
        raise UnswayedError("true labels [N] and given labels [N] or [N, annotators]", got=got)
    if len(truth) < 2 or bool((truth < 0).any()) or not bool((given >= 0).any(1).all()):
        raise UnswayedError("2 rows or more, each with a true and a given label", got="others", do="drop these rows")
    if classes is None:
        classes = max(2, int(torch.maximum(truth.max(), given.max())) + 1)
    return checked(truth.cpu(), 0.0, classes), _checked_columns(given.cpu(), classes), classes


def _checked_columns(given: Tensor, classes: int) -> Tensor:
    checked(given.flatten().clamp_min(0), 0.0, classes)
    return given.long()


def _prepare(x: Column | Tensor, truth: Tensor, target: Tensor, seed: int) -> tuple[_Rows, Reader, Tensor]:
    """Features, their cross-fitted likeness to the classes, and the classifier of all rows for rows to come."""
    reader = _make_reader(x)
    features, classes = reader.read(x), target.shape[1]
    fold = torch.arange(len(truth)) % FOLDS
    fold = fold[torch.randperm(len(truth), generator=Generator().manual_seed(seed))]
    known = F.one_hot(truth, classes).double()

    def tried(ridge: float) -> float:
        found = _classifier(features[fold != 0], known[fold != 0], ridge)
        return float(F.cross_entropy(features[fold == 0] @ found[:-1] + found[-1], truth[fold == 0]))

    ridge = min(RIDGES, key=tried) if len(truth) >= 2 * FOLDS else RIDGES[-1]
    looks = torch.zeros(len(truth), classes, dtype=torch.float64)
    for number in range(FOLDS):
        out = fold == number
        if bool(out.any()) and not bool(out.all()):
            looks[out] = likeness(features[out], _classifier(features[~out], known[~out], ridge))
    return _Rows(features, looks, truth, target), reader, _classifier(features, known, ridge)


def _make_reader(x: Column | Tensor) -> Reader:
    """Mean, deviation and, of many columns, principal axes, in one pass over rows that may lie on disk."""
    count, total, squares = 0, None, None
    for part in in_parts(x):
        width = part.shape[1]
        if width > WIDEST or not width:
            do = "take the features of an encoder, or fit without features"
            raise UnswayedError(f"features of 1 to {WIDEST} numbers a row", got=width, do=do)
        sums, products = part.sum(0), part.T @ part if width > AXES else part.square().sum(0)
        count += len(part)
        total, squares = (sums, products) if total is None or squares is None else (total + sums, squares + products)
    assert total is not None
    assert squares is not None
    mean = total / count
    variance = (squares.diagonal() if squares.dim() == 2 else squares) / count - mean.square()
    scale = torch.where(variance > 1e-12 * (mean.square() + variance), variance.clamp_min(1e-300).rsqrt(), 0.0)
    axes = torch.zeros(0, 0, dtype=torch.float64)
    if squares.dim() == 2:
        correlation = (squares / count - torch.outer(mean, mean)) * torch.outer(scale, scale)
        values, vectors = torch.linalg.eigh(correlation)
        axes = vectors[:, -AXES:] / values[-AXES:].mean().clamp_min(1e-12).sqrt()
    return Reader(mean, scale, axes)


def _classifier(features: Tensor, target: Tensor, ridge: float) -> Tensor:
    """Multinomial logistic regression: [N, r], [N, K] -> [r + 1, K]."""
    weight = torch.zeros(features.shape[1], target.shape[1], dtype=torch.float64)
    bias = torch.zeros(target.shape[1], dtype=torch.float64)

    def loss(weight: Tensor, bias: Tensor) -> Tensor:
        penalty = ridge * weight.square().sum() + bias.square().sum()
        return F.cross_entropy(features @ weight + bias, target) + penalty / len(features)

    weight, bias = _minimise(loss, weight, bias)
    return torch.cat([weight, bias[None]])


def _fit(rows: _Rows, base: Tensor, reader: Reader, classifier: Tensor, form: Form) -> tuple[Tensor, Likeness]:
    """The correction of the class-wise model and the part of the features, by penalised likelihood."""
    classes, width = base.shape[0], rows.features.shape[1]
    sizes = torch.bincount(rows.truth, minlength=classes).double()
    sums = torch.zeros_like(base).index_add_(0, rows.truth, rows.looks)
    centre, trust = sums / sizes.clamp_min(1)[:, None], sizes / (sizes + FEW)
    pull_ridge, direct_ridge = form

    def part(pull: Tensor, direct: Tensor) -> Likeness:
        return Likeness(reader, classifier, centre, pull, direct, trust)

    def loss(bias: Tensor, pull: Tensor, *direct: Tensor) -> Tensor:
        straight = direct[0] if direct else torch.zeros(width, classes, dtype=torch.float64)
        effect = effect_of(rows.features, rows.looks, rows.truth, part(pull, straight))
        penalty = bias.square().sum() + pull_ridge * pull.square().sum()
        if direct and direct_ridge is not None:
            penalty = penalty + direct_ridge * straight.square().sum()
        return F.cross_entropy((base.log() + bias)[rows.truth] + effect, rows.target) + penalty / len(rows.truth)

    nothing = torch.zeros(width, classes, dtype=torch.float64)
    starts = [torch.zeros_like(base), torch.zeros_like(base), *([nothing] if direct_ridge is not None else [])]
    bias, pull, *direct = _minimise(loss, *starts)
    return bias, part(pull, direct[0] if direct else nothing)


def _choose(rows: _Rows, prior: float, seed: int) -> tuple[Form | None, dict[str, Any]]:
    """The form whose held-out log-likelihood is best, or None where the class-wise one is as good; and the scores."""
    order = torch.randperm(len(rows.truth), generator=Generator().manual_seed(seed + 1))
    halves = order[::2], order[1::2]
    nothing = Reader(*(torch.zeros(0, dtype=torch.float64) for _ in range(3)))

    def held_out(form: Form | None) -> Tensor:
        logits = torch.empty_like(rows.target)
        for inside, outside in (halves, halves[::-1]):
            fitted, tested = rows.take(inside), rows.take(outside)
            base = class_wise(fitted.truth, fitted.target, prior)
            logits[outside] = base.log()[tested.truth]
            if form is not None:
                bias, part = _fit(fitted, base, nothing, torch.empty(0), form)
                effect = effect_of(tested.features, tested.looks, tested.truth, part)
                logits[outside] += bias[tested.truth] + effect
        return logits.log_softmax(1)

    def score(found: Tensor) -> float:
        return float((rows.target * found).sum(1).mean())

    plain = held_out(None)
    tried: dict[Form, Tensor] = {(pull, None): held_out((pull, None)) for pull in PULLS}
    pull = max(tried, key=lambda form: score(tried[form]))[0]
    tried |= {(pull, direct): held_out((pull, direct)) for direct in DIRECTS}
    best = max(tried, key=lambda form: score(tried[form]))
    gain = (rows.target * (tried[best] - plain)).sum(1)
    error = float(gain.std() / len(gain) ** 0.5)
    about = {
        "class_wise": _scores(plain, rows),
        "features": _scores(tried[best], rows),
        "gain": float(gain.mean()),
        "standard_error": error,
        "ridges": list(best),
    }
    return (best if float(gain.mean()) > error else None), about


def _scores(log_probability: Tensor, rows: _Rows) -> dict[str, float | None]:
    """Mean log-likelihood, and how well the chance of a wrong label ranks rows that got one."""
    from sklearn.metrics import roc_auc_score

    wrong = (rows.target.argmax(1) != rows.truth).numpy()
    told = wrong.any() and not wrong.all()
    area = float(roc_auc_score(wrong, wrong_odds(log_probability, rows.truth))) if told else None
    return {"log_likelihood": float((rows.target * log_probability).sum(1).mean()), "auroc": area}


def _quantiles(logits: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Of the log-odds of a wrong label: [K, 101]; a class without rows has those of all."""
    odds, at = wrong_odds(logits, truth), torch.linspace(0, 1, 101, dtype=torch.float64)
    found = [odds[truth == c] if bool((truth == c).any()) else odds for c in range(classes)]
    return torch.stack([_quantile(values, at) for values in found])


def _quantile(values: Tensor, at: Tensor) -> Tensor:
    """As torch.quantile, which refuses many values: [N], [q] -> [q]."""
    ordered = values.sort().values
    place = at * (len(ordered) - 1)
    low = place.long().clamp_max(max(0, len(ordered) - 2))
    return torch.lerp(ordered[low], ordered[(low + 1).clamp_max(len(ordered) - 1)], place - low)


def _agreement(logits: Tensor, given: Tensor, seed: int) -> float:
    """The correlation at which two drawn annotators agree as often as two real ones; 0 for one annotator."""
    pairs = [(a, b) for a in range(given.shape[1]) for b in range(a)]
    known = [(given[:, a] >= 0) & (given[:, b] >= 0) for a, b in pairs]
    together = sum(int(rows.sum()) for rows in known)
    if not together:
        return 0.0
    same = sum(int((given[:, a] == given[:, b])[rows].sum()) for (a, b), rows in zip(pairs, known, strict=True))
    some = logits[torch.randperm(len(logits), generator=Generator().manual_seed(seed + 2))[:_PAIRED_ROWS]]

    def drawn(agreement: float) -> float:
        two = draw(some, 2, agreement, Generator().manual_seed(seed + 3))
        return float((two[:, 0] == two[:, 1]).double().mean())

    low, high = 0.0, 0.99
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if drawn(middle) < same / together else (low, middle)
    return low


def _minimise(loss: Callable[..., Tensor], *starts: Tensor, steps: int = 60) -> Sequence[Tensor]:
    """L-BFGS from `starts`: the tensors at which the loss, a convex function of them, is least."""
    free = [start.clone().requires_grad_() for start in starts]
    search = torch.optim.LBFGS(free, max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(*free)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]
    return [each.detach() for each in free]
