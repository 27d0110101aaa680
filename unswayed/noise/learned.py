"""Noise learned from people: fitted to rows with both true and given labels, it draws new labels of that kind.

`learn_noise` fits a `NoiseModel`, q(given label | features, true label); the noise `learned` uses one from its file.
How it is done and how well it does: docs/noise.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from unswayed.checkpoint import read_state, write_state
from unswayed.data.columns import Column, TensorColumn
from unswayed.errors import UnswayedError
from unswayed.noise.labels import checked

FORM = "noise model 1"
_NUMBERS_AT_ONCE = 2**24
_WIDE = 5.0  # deviations from the mean beyond which a feature says no more
_FAR = 30.0  # log-odds beyond which nothing is believed
_DEEP = -10.0  # logarithm of the least likeness: an unlikely class is not judged more unlikely than that


@dataclass(frozen=True)
class Reader:
    """How rows become features: shifted and scaled to mean 0 and deviation 1, within +-5, on the principal axes."""

    shift: Tensor  # [d]
    scale: Tensor  # [d]; 0 drops a column
    axes: Tensor  # [d, r], or [0, 0] where all d columns are taken as they are

    def read(self, x: Column | Tensor) -> Tensor:
        """[N, ...] -> [N, r] float64, in parts; raises on another width and on what is not finite."""
        parts = []
        for part in in_parts(x):
            if part.shape[1] != len(self.shift):
                do = "take the encoder that the model was fitted with, or by='classes'"
                raise UnswayedError(f"features of {len(self.shift)} numbers a row", got=part.shape[1], do=do)
            near = ((part - self.shift) * self.scale).clamp(-_WIDE, _WIDE)
            parts.append(near @ self.axes if self.axes.numel() else near)
        return torch.cat(parts)


def in_parts(x: Column | Tensor) -> Iterator[Tensor]:
    """The rows as numbers, some at a time: [N, ...] -> [n, d] float64; 8-bit pixels as shares of 255."""
    column = TensorColumn(x) if isinstance(x, Tensor) else x
    size = max(1, _NUMBERS_AT_ONCE // max(1, torch.Size(column.shape).numel()))
    for at in torch.split(torch.arange(len(column)), size):
        rows = column.rows(at).cpu().reshape(len(at), -1)
        part = rows.double() / (255 if rows.dtype == torch.uint8 else 1)
        if not bool(part.isfinite().all()):
            raise UnswayedError("finite features", got="NaN or infinity", do="clean or impute the features first")
        yield part


@dataclass(frozen=True)
class Likeness:
    """How features change the labels of a row: it is mistaken for what it looks like."""

    reader: Reader
    classifier: Tensor  # [r + 1, K]: which class a row looks like; the last row is the bias
    centre: Tensor  # [K, K]: the mean likeness of the rows of each true class
    pull: Tensor  # [K, K]: from likeness to the label
    direct: Tensor  # [r, K]: from features to the label
    trust: Tensor  # [K]: in [0, 1), small for true classes with few rows

    def effect(self, x: Column | Tensor, truth: Tensor) -> Tensor:
        """What is added to the class-wise log-probabilities: [N, ...], [N] -> [N, K]."""
        rows = self.reader.read(x)
        return effect_of(rows, likeness(rows, self.classifier), truth, self)


@dataclass(frozen=True)
class NoiseModel:
    """How people turned true labels into given ones; `learn_noise` makes it."""

    transition: Tensor  # [K, K] float64, no entry is 0
    bias: Tensor  # [K, K]: corrects it where features take part
    quantiles: Tensor  # [K, 101]: the log-odds of a wrong label among the rows of each true class, rising
    agreement: float = 0.0  # correlation in [0, 1) between two annotators at one row, beyond what features explain
    likeness: Likeness | None = None  # None: the class alone decides
    about: dict[str, Any] = field(default_factory=dict)  # rows, rate, held-out scores; plain data

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.transition)

    def probabilities(
        self,
        truth: Tensor,
        x: Column | Tensor | None = None,
        *,
        rate: float | None = None,
        difficulty: Tensor | None = None,
    ) -> Tensor:
        """The probability of each label for each row: true labels [N], features [N, ...] -> [N, K] float64.

        x           features from the same encoder as those that were fitted. Without them (or for a model without
                    features) wrong labels go where they go for the class, as often as they do for the class.
        difficulty  instead of features: [N] in any unit, higher is harder. The ranks within each class decide:
                    the hardest row gets the highest learned log-odds of a wrong label, and so on down.
        rate        the mean probability of a wrong label is brought to it by one shift of all log-odds, so that the
                    order of the rows stays; None: as learned.
        """
        truth = checked(truth.cpu(), 0.0 if rate is None else rate, self.classes)
        if difficulty is not None:
            logits = self._by_rank(truth, difficulty)
        elif x is None or self.likeness is None:
            logits = self.transition.log()[truth]
        else:
            if len(x) != len(truth):
                raise UnswayedError(f"features of {len(truth)} samples", got=len(x))
            logits = (self.transition.log() + self.bias)[truth] + self.likeness.effect(x, truth)
        return tilt(logits, truth, rate)

    def sample(
        self,
        truth: Tensor,
        x: Column | Tensor | None = None,
        *,
        seed: int | Generator = 0,
        rate: float | None = None,
        difficulty: Tensor | None = None,
        annotators: int | None = None,
    ) -> Tensor:
        """New human-like labels: true labels [N] -> [N], or [N, annotators] who agree as the real ones did.

        Each annotator's labels have the `probabilities` of the same arguments; several stumble over the same rows.
        """
        generator = seed if isinstance(seed, Generator) else torch.Generator().manual_seed(seed)
        logits = self.probabilities(truth, x, rate=rate, difficulty=difficulty).log()
        drawn = draw(logits, annotators or 1, self.agreement, generator)
        return drawn[:, 0] if annotators is None else drawn

    def save(self, path: Path | str) -> None:
        """Write the model as one safetensors file."""
        tensors = {name: getattr(self, name) for name in ("transition", "bias", "quantiles")}
        if self.likeness is not None:
            part = {name: getattr(self.likeness, name) for name in _PARTS}
            reader = {f"reader/{name}": value for name, value in vars(self.likeness.reader).items()}
            tensors |= {f"likeness/{name}": value for name, value in {**part, **reader}.items()}
        write_state(Path(path), tensors, {"form": FORM, "agreement": self.agreement, "about": self.about})

    @classmethod
    def load(cls, path: Path | str) -> NoiseModel:
        """Read what `save` wrote; a file of another kind raises UnswayedError."""
        tensors, about = read_state(Path(path))
        if about.get("form") != FORM:
            raise UnswayedError("a noise model", got=f"{path}, another file", do="make one: unswayed learn-noise")
        part = {name.removeprefix("likeness/"): t for name, t in tensors.items() if name.startswith("likeness/")}
        likeness = None
        if part:
            reader = Reader(**{n.removeprefix("reader/"): t for n, t in part.items() if n.startswith("reader/")})
            likeness = Likeness(reader, **{name: part[name] for name in _PARTS})
        whole = {name: tensors[name] for name in ("transition", "bias", "quantiles")}
        return cls(**whole, agreement=about["agreement"], likeness=likeness, about=about["about"])

    def _by_rank(self, truth: Tensor, difficulty: Tensor) -> Tensor:
        """Class-wise directions, and log-odds of a wrong label by rank within the class: [N], [N] -> [N, K]."""
        if difficulty.shape != truth.shape or bool(difficulty.isnan().any()):
            raise UnswayedError(f"a difficulty without NaN for each of {len(truth)} rows", got=list(difficulty.shape))
        odds = torch.empty(len(truth), dtype=torch.float64)
        for label in torch.unique(truth).tolist():
            rows = (truth == label).nonzero()[:, 0]
            order = rows[difficulty.cpu()[rows].argsort(stable=True)]
            at = (torch.arange(len(rows), dtype=torch.float64) + 0.5) / len(rows) * (self.quantiles.shape[1] - 1)
            low = at.long()
            odds[order] = torch.lerp(self.quantiles[label][low], self.quantiles[label][low + 1], at - low)
        return _with_odds(self.transition.log()[truth], truth, odds)


_PARTS = [part.name for part in fields(Likeness) if part.name != "reader"]


def learned(
    y: Tensor,
    x: Tensor | Column | None,
    rate: float,
    classes: int,
    generator: Generator,
    *,
    model: str | Path | NoiseModel | None = None,
    by: Literal["features", "classes"] = "features",
    as_learned: bool = False,
) -> Tensor:
    """Human-like noise learned from data with both labels (the idea of learning noise: arXiv 2305.14022).

    `model` is the file that `unswayed learn-noise` wrote (or a `NoiseModel`). The expected share of wrong labels is
    `rate`: [N], [N, ...] -> [N].

    by          "features": x must come from the encoder whose features were fitted. "classes": for other data; wrong
                labels go where they go for the class.
    as_learned  `rate` is then the share of the rows that the model works on, as for the noise 'matrix': 1 takes the
                model as it is.
    """
    y = checked(y, rate, classes)
    if model is None:
        do = "make one: unswayed learn-noise DATA --label given --truth label --out model.safetensors"
        raise UnswayedError("a model of the noise 'learned'", got="none", do=do)
    if by not in ("features", "classes"):
        raise UnswayedError("by is 'features' or 'classes'", got=repr(by))
    found = model if isinstance(model, NoiseModel) else NoiseModel.load(model)
    if found.classes != classes:
        raise UnswayedError(f"a noise model of {classes} classes", got=found.classes)
    if by == "classes":
        x = None
    elif found.likeness is not None and x is None:
        raise UnswayedError("the features of the samples", got="none", do="pass x=, or by='classes'")
    given = found.sample(y, x, seed=generator, rate=None if as_learned else rate)
    if not as_learned:
        return given
    return torch.where(torch.rand(len(y), generator=generator, dtype=torch.float64) < rate, given, y)


def likeness(rows: Tensor, classifier: Tensor) -> Tensor:
    """The log-probability that a row is of each class, by its looks, not below -10: [N, r], [r + 1, K] -> [N, K]."""
    return (rows @ classifier[:-1] + classifier[-1]).log_softmax(1).clamp_min(_DEEP)


def effect_of(rows: Tensor, looks: Tensor, truth: Tensor, part: Likeness) -> Tensor:
    """[N, r], [N, K], [N] -> [N, K]."""
    pulled = (looks - part.centre[truth]) @ part.pull + rows @ part.direct
    return part.trust[truth][:, None] * pulled


def wrong_odds(logits: Tensor, truth: Tensor) -> Tensor:
    """The log-odds of a wrong label, within +-30: [N, K], [N] -> [N].

    >>> wrong_odds(torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([0]))
    tensor([0.])
    """
    own = torch.nn.functional.one_hot(truth, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return (others - logits[own]).clamp(-_FAR, _FAR)


def tilt(logits: Tensor, truth: Tensor, rate: float | None) -> Tensor:
    """Probabilities whose mean share of wrong labels is `rate`, by one shift of all log-odds: [N, K], [N] -> [N, K].

    Where a wrong label goes stays as it was, and so does the order of the rows. None: no shift.
    """
    if rate is None:
        return logits.softmax(1)
    own = torch.nn.functional.one_hot(truth, logits.shape[1]).bool()
    if rate == 0:
        return own.double()
    odds = wrong_odds(logits, truth)
    low, high = torch.tensor([-4 * _FAR, 4 * _FAR], dtype=torch.float64)
    for _ in range(100):
        middle = (low + high) / 2
        below = bool((odds + middle).sigmoid().mean() < rate)
        low, high = (middle, high) if below else (low, middle)
    chance = torch.ones_like(odds) if rate == 1 else (odds + (low + high) / 2).sigmoid()
    aims = logits.masked_fill(own, -torch.inf).softmax(1)
    return torch.where(own, (1 - chance)[:, None], chance[:, None] * aims)


def draw(logits: Tensor, annotators: int, agreement: float, generator: Generator) -> Tensor:
    """Labels with softmax probabilities, correlated between annotators: [N, K] -> [N, annotators].

    The largest of logits + Gumbel noise (an exact draw); the noise of two annotators at one row has a Gaussian copula
    of correlation `agreement`, so that they stumble over the same rows while each keeps the same probabilities.
    """

    def normal() -> Tensor:
        return torch.randn(logits.shape, generator=generator, dtype=torch.float64)

    shared = normal() * agreement**0.5 if agreement else 0.0
    labels = []
    for _ in range(annotators):
        log_share = torch.special.log_ndtr(shared + normal() * (1 - agreement) ** 0.5)
        labels.append((logits - (-log_share).log()).argmax(1))
    return torch.stack(labels, 1)


def _with_odds(logits: Tensor, truth: Tensor, odds: Tensor) -> Tensor:
    """The same directions of wrong labels, other log-odds of one: [N, K], [N], [N] -> [N, K]."""
    own = torch.nn.functional.one_hot(truth, logits.shape[1]).bool()
    return logits + torch.where(own, (wrong_odds(logits, truth) - odds)[:, None], 0.0)
