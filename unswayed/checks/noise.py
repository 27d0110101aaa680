"""The contract that every noise keeps. `check_noise(name)` runs it all on small label sets in seconds.

What a noise should do to the labels stands in `TRIALS`; a noise of your own that is not there is expected to turn the
share `rate` of the labels wrong, in any direction.
"""

from __future__ import annotations

import inspect
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.noise import NoiseModel, noises
from unswayed.noise.classwise import CIFAR10_CONFUSIONS, CIFAR100_COARSE

Expected = Callable[[float, int], Tensor]  # rate, classes -> transition matrix [K, K], NaN where nothing is promised


def any_wrong(rate: float, classes: int) -> Tensor:
    """The share `rate` of each class becomes wrong; nothing is said of where it goes."""
    return torch.full((classes, classes), torch.nan).fill_diagonal_(1 - rate)


def evenly(rate: float, classes: int) -> Tensor:
    """The share `rate` of each class, spread evenly over the other classes."""
    return torch.full((classes, classes), rate / (classes - 1)).fill_diagonal_(1 - rate)


def evenly_with_itself(rate: float, classes: int) -> Tensor:
    """The share `rate` of each class, spread evenly over all classes."""
    return evenly(rate * (classes - 1) / classes, classes)


def following(rate: float, classes: int) -> Tensor:
    """The share `rate` of each class becomes the next class."""
    return mapped(rate, classes, {c: (c + 1) % classes for c in range(classes)})


def mapped(rate: float, classes: int, to: dict[int, int]) -> Tensor:
    """The share `rate` of each class c in `to` becomes `to[c]`."""
    matrix = torch.eye(classes)
    for here, there in to.items():
        matrix[here, here], matrix[here, there] = 1 - rate, rate
    return matrix


def in_groups(rate: float, classes: int) -> Tensor:
    """The share `rate` of each CIFAR-100 class becomes the next one of its coarse class."""
    to = {}
    for c, coarse in enumerate(CIFAR100_COARSE):
        group = [other for other in range(classes) if CIFAR100_COARSE[other] == coarse]
        to[c] = next((other for other in group if other > c), group[0])
    return mapped(rate, classes, to)


def lopsided(classes: int) -> Tensor:
    """A transition matrix with no symmetry: class c keeps the share (c + 1) / (K + 1), the rest goes one or two on."""
    keep = (torch.arange(classes) + 1) / (classes + 1)
    eye = torch.eye(classes)
    onward = 0.75 * eye.roll(1, 1) + 0.25 * eye.roll(2, 1)
    return keep.diag() + (1 - keep)[:, None] * onward


def straying(rate: float, classes: int) -> Tensor:
    """The share `rate` of each class goes where `lopsided` sends what it does not keep."""
    onward = lopsided(classes).fill_diagonal_(0)
    return (1 - rate) * torch.eye(classes) + rate * onward / onward.sum(1, keepdim=True)


def planted(classes: int) -> NoiseModel:
    """A noise model that no data made: of the directions of `straying`, and features that do not matter."""
    nothing = torch.zeros(classes, classes, dtype=torch.float64)
    return NoiseModel(straying(0.4, classes).double(), nothing, torch.zeros(classes, 101, dtype=torch.float64))


def leaning(rate: float, classes: int) -> Tensor:
    """As `any_wrong`, with the mean of a normal distribution around `rate` truncated to [0, 1]."""
    if rate in (0, 1):
        return any_wrong(rate, classes)
    low, high = -rate / 0.1, (1 - rate) / 0.1
    inside = (math.erf(high / 2**0.5) - math.erf(low / 2**0.5)) / 2
    lean = (math.exp(-(low**2) / 2) - math.exp(-(high**2) / 2)) / (2 * math.pi) ** 0.5 / inside
    return any_wrong(rate + 0.1 * lean, classes)


@dataclass(frozen=True)
class Trial:
    """How a noise is tried: numbers of classes, settings for each, and what should come out."""

    expected: Expected = any_wrong
    within: float | None = (
        None  # samples by which the kept labels of a class may miss the expected number; None: chance
    )
    classes: tuple[int, ...] = (2, 3, 10)
    settings: Callable[[int], dict[str, Any]] = field(default=lambda classes: {})


TRIALS: dict[str, Trial] = {
    "symmetric": Trial(evenly, 0.5),
    "symmetric-inclusive": Trial(evenly_with_itself),
    "pair": Trial(following, 0.5),
    "asymmetric": Trial(following, 0.5),
    "asymmetric-cifar10": Trial(lambda rate, k: mapped(rate, k, CIFAR10_CONFUSIONS), 0.5, (10,)),
    "asymmetric-cifar100": Trial(in_groups, 0.5, (100,)),
    "matrix": Trial(
        lambda rate, k: (1 - rate) * torch.eye(k) + rate * lopsided(k), 1.0, settings=lambda k: {"matrix": lopsided(k)}
    ),
    "instance": Trial(leaning),
    "learned": Trial(straying, settings=lambda k: {"model": planted(k)}),
}


def labels(classes: int, count: int = 1200, seed: int = 0) -> Tensor:
    """Labels of unequal classes in random order; the last of three or more classes never occurs: [N].

    From a seed that no trial uses: one stream for labels and noise would make the noise depend on the class.
    """
    used = classes - (classes > 2)
    weight = torch.arange(1.0, used + 1)
    return torch.multinomial(weight, count, replacement=True, generator=torch.Generator().manual_seed(10_000 + seed))


def features(count: int) -> Tensor:
    """Standard normal features: [N, 2, 3]."""
    return torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(20_000))


def turn(name: str, y: Tensor, rate: float, classes: int, seed: int = 0) -> Tensor:
    """The labels under a noise with the settings of its trial."""
    settings = _trial(name).settings(classes)
    generator = torch.Generator().manual_seed(seed)
    return noises.get(name)(y, features(len(y)), rate, classes, generator, **settings)


def check_docstring_names_source(name: str) -> None:
    """The first line of the docstring is a sentence that names the paper."""
    first = inspect.cleandoc(noises.get(name).__doc__ or "").split("\n")[0]
    assert first.endswith("."), "the first line is not a sentence"
    assert re.search(r"arXiv \d{4}\.\d{4,5}|doi|No paper", first), "the first line names no source"


def check_settings_are_keywords(name: str) -> None:
    """Settings follow (y, x, rate, classes, generator), are keyword-only and all have defaults."""
    parameters = list(inspect.signature(noises.get(name)).parameters.values())
    assert [p.name for p in parameters[:5]] == ["y", "x", "rate", "classes", "generator"], "not called as a noise is"
    for p in parameters[5:]:
        assert p.kind is p.KEYWORD_ONLY, f"setting {p.name} is not keyword-only"
        assert p.default is not p.empty, f"setting {p.name} has no default"


def check_labels_are_valid(name: str) -> None:
    """[N] int64 in 0..K-1, whatever the rate, with one sample, and with classes that never occur."""
    for classes in _trial(name).classes:
        some = labels(classes)
        for y in (some, some[:1], some[:2], torch.full((7,), classes - 1)):
            for rate in (0.0, 0.03, 0.5, 1.0):
                for seed in range(3):
                    given = turn(name, y, rate, classes, seed)
                    assert given.dtype == torch.int64, f"labels of {given.dtype}"
                    assert given.shape == y.shape, f"{list(given.shape)} labels for {len(y)} samples"
                    low, high = int(given.min()), int(given.max())
                    assert low >= 0, f"label {low}"
                    assert high < classes, f"label {high} of {classes} classes"


def check_counts_are_exact(name: str) -> None:
    """Where the definition is exact: the number of kept labels of each class, for any seed."""
    trial = _trial(name)
    if trial.within is None:
        return
    for classes in trial.classes:
        y = labels(classes)
        sizes = torch.bincount(y, minlength=classes)
        for rate in (0.0, 0.1, 0.37, 0.5, 0.8, 1.0):
            wanted = sizes * trial.expected(rate, classes).diagonal()
            for seed in range(3):
                kept = torch.bincount(y[turn(name, y, rate, classes, seed) == y], minlength=classes)
                off = float((kept - wanted).abs().max())
                assert off <= trial.within + 1e-3, f"a class of {classes} misses its count by {off:.2f} at rate {rate}"


def check_transitions(name: str) -> None:
    """Over seeds, labels go where the definition says, and nowhere else, within 5 standard deviations."""
    trial, seeds = _trial(name), 12
    for classes in trial.classes:
        y = labels(classes)
        sizes = seeds * torch.bincount(y, minlength=classes)[:, None].double()
        for rate in (0.3, 1.0):
            counts = torch.zeros(classes, classes, dtype=torch.float64)
            for seed in range(seeds):
                pairs = y * classes + turn(name, y, rate, classes, seed)
                counts += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
            share = trial.expected(rate, classes).double()
            spread = (sizes * share * (1 - share)).clamp(min=0).sqrt()
            slack = torch.where(share > 0, 5 * spread + 2 * seeds**0.5, 0.0)  # rounding shifts half a sample each time
            wrong = ((counts - sizes * share).abs() > slack).nonzero().tolist()  # false where nothing is promised: NaN
            assert not wrong, (
                f"classes {wrong[0][0]} -> {wrong[0][1]} of {classes} at rate {rate} come too often or rarely"
            )


def check_rate_zero_changes_nothing(name: str) -> None:
    """Without noise the labels come back as they were."""
    for classes in _trial(name).classes:
        y = labels(classes)
        assert torch.equal(turn(name, y, 0.0, classes), y), "a rate of 0 changed labels"


def check_seed_decides(name: str) -> None:
    """One seed gives the same labels, another seed others."""
    classes = _trial(name).classes[-1]
    y = labels(classes)
    assert torch.equal(turn(name, y, 0.4, classes, 5), turn(name, y, 0.4, classes, 5)), "one seed gave two results"
    assert not torch.equal(turn(name, y, 0.4, classes, 5), turn(name, y, 0.4, classes, 6)), "two seeds gave one result"


def check_global_random_numbers_are_left_alone(name: str) -> None:
    """Global random states neither matter nor move: the generator alone decides."""
    classes = _trial(name).classes[-1]
    y = labels(classes)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
        results.append(turn(name, y, 0.4, classes))
        after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
        assert torch.equal(before[0], after[0]), "the global state of torch moved"
        assert np.array_equal(before[1], after[1]), "the global state of NumPy moved"
        assert before[2] == after[2], "the global state of random moved"
    assert torch.equal(*results), "global random numbers decide labels"


def check_inputs_untouched(name: str) -> None:
    """Neither labels nor features are changed, and the result shares no memory with the labels."""
    for classes in _trial(name).classes:
        y, x = labels(classes), features(1200)
        before = y.clone(), x.clone()
        for rate in (0.0, 0.5):
            generator = torch.Generator().manual_seed(0)
            given = noises.get(name)(y, x, rate, classes, generator, **_trial(name).settings(classes))
            given.fill_(-7)
            assert torch.equal(y, before[0]), "the labels given were changed"
            assert torch.equal(x, before[1]), "the features were changed"


def check_rows_are_drawn_at_random(name: str) -> None:
    """Wrong labels lie in both halves of the rows alike, within 5 standard deviations."""
    classes = _trial(name).classes[-1]
    early = late = 0
    for seed in range(4):
        y = labels(classes, seed=seed)
        wrong = turn(name, y, 0.3, classes, seed) != y
        early, late = early + int(wrong[:600].sum()), late + int(wrong[600:].sum())
    assert abs(early - late) <= 5 * (early + late) ** 0.5, f"{early} wrong labels in one half, {late} in the other"


def check_bad_input_raises(name: str) -> None:
    """Rates outside [0, 1], labels outside the classes, no labels, labels that are no integers: an UnswayedError."""
    classes = _trial(name).classes[-1]
    y = labels(classes)
    for rate in (-0.1, 1.1, float("nan")):
        _raises(name, y, rate, classes, f"a rate of {rate}")
    first = torch.arange(len(y)) == 0
    _raises(name, torch.where(first, classes, y), 0.3, classes, "a label above the classes")
    _raises(name, torch.where(first, -1, y), 0.3, classes, "a label below 0")
    _raises(name, y[:0], 0.3, classes, "no labels")
    _raises(name, y.float(), 0.3, classes, "labels of floating point")
    _raises(name, y[:, None], 0.3, classes, "labels in two dimensions")
    _raises(name, y * 0, 0.3, 1, "a single class")


def _raises(name: str, y: Tensor, rate: float, classes: int, what: str) -> None:
    try:
        turn(name, y, rate, classes)
    except UnswayedError:
        return
    raise AssertionError(f"{what} is taken without an UnswayedError")


def _trial(name: str) -> Trial:
    return TRIALS.get(name, Trial())


Check = Callable[[str], None]
NOISE: list[Check] = [value for key, value in list(globals().items()) if key.startswith("check_")]


def check_noise(name: str) -> None:
    """Run the whole contract on a registered noise; the first broken rule raises an AssertionError that names it."""
    for check in NOISE:
        try:
            check(name)
        except Exception as error:
            raise AssertionError(f"{name} breaks {check.__name__}: {error}") from error
