"""From a data set to what a method may see, and apart from it what only scoring may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unswayed import data as readers
from unswayed import noise
from unswayed.batches import seed_of
from unswayed.data.dataset import Dataset, Split
from unswayed.data.encoder import encode_data
from unswayed.errors import UnswayedError
from unswayed.experiment.config import Config

_SPLIT, _LIMIT, _NOISE, _IMBALANCE, _TRUSTED = 0, 1, 2, 3, 5  # what a seed is used for (4: a run)


@dataclass(frozen=True)
class Task:
    """Rows to train on and to be tested on; `train.truth` is for scoring and never reaches a method."""

    dataset: Dataset  # with these two splits
    train: Split
    test: Split | None
    against: str  # "truth" or "given": which labels the test is scored on
    noise: dict[str, Any] | None  # name, rate asked for, rate reached
    trusted: Tensor  # [M] positions in `train` whose given labels were checked: they are the true ones

    @property
    def test_labels(self) -> Tensor | None:
        """The labels that the test is scored on, [M]."""
        if self.test is None:
            return None
        return self.test.truth if self.against == "truth" and self.test.truth is not None else self.test.given


def read_data(config: Config, progress: Callable[[str, int, int], None] | None = None) -> Dataset:
    """The data set that a configuration names, read and, if it says so, encoded or given other rows."""
    dataset = readers.read(config.data, progress=progress, **config.reader)
    if config.features:
        return readers.with_features(dataset, tuple(config.features), cache=config.reader.get("cache"))
    if config.encoder is None:
        return dataset
    return encode_data(dataset, config.encoder, cache=config.reader.get("cache"), progress=progress)


def make_task(config: Config, dataset: Dataset) -> Task:
    """Hold rows out where there is no test part, thin, unbalance and spoil the training labels as configured.

    Where labels are spoilt, the labels as read (or the truth, if known) become the truth.
    """
    train, test = dataset.train, dataset.test
    if test is None:
        train, test = hold_out(train, config.hold_out, seed_of(config.seed, _SPLIT))
    train, planted = prepare(train, config, len(dataset.classes))
    train, trusted = check_labels(train, config.trusted, seed_of(config.seed, _TRUSTED))
    known = planted is not None if test.truth is None else bool((test.truth >= 0).all())
    dataset = replace(dataset, train=train, test=test)
    return Task(dataset, train, test, "truth" if known else "given", planted, trusted)


def prepare(train: Split, config: Config, classes: int) -> tuple[Split, dict[str, Any] | None]:
    """The training rows thinned, unbalanced and with labels spoilt as configured, and what noise was planted."""
    if config.limit is not None and config.limit < len(train):
        train = train.take(draw_evenly(train.given, config.limit, seed_of(config.seed, _LIMIT)))
    if config.imbalance is not None:
        generator = torch.Generator().manual_seed(seed_of(config.seed, _IMBALANCE))
        labels = train.given if train.truth is None else train.truth
        kept = noise.imbalance(labels, config.imbalance, generator=generator, classes=classes)
        train = train.take(kept)
    return _spoil(train, config, classes) if config.noise is not None else (train, None)


def _spoil(train: Split, config: Config, classes: int) -> tuple[Split, dict[str, Any]]:
    assert config.noise is not None
    truth = train.given if train.truth is None else train.truth
    if bool((truth < 0).any()):
        raise UnswayedError(
            "a true label for every row that gets a planted wrong label",
            got=f"{int((truth < 0).sum())} rows without one",
            do="leave out --noise, or --truth",
        )
    seed, settings = seed_of(config.seed, _NOISE), config.noise_settings
    given = noise.corrupt(config.noise, truth, x=train.x, rate=config.rate, classes=classes, seed=seed, **settings)
    actual = float((given != truth).float().mean())
    return replace(train, given=given, truth=truth), {"name": config.noise, "rate": config.rate, "actual": actual}


def check_labels(train: Split, rows: int | None, seed: int) -> tuple[Split, Tensor]:
    """As if a person had checked `rows` rows, drawn evenly over the true classes: their true labels become the given.

    Returns the split and the rows' positions, [rows]. Every method gets the same labels; those that ask for trusted
    rows are told which these are, the others only have fewer wrong labels.
    """
    if rows is None:
        return train, torch.zeros(0, dtype=torch.int64)
    known = torch.zeros(0, dtype=torch.int64) if train.truth is None else (train.truth >= 0).nonzero()[:, 0]
    if train.truth is None or rows > len(known):
        do = "name a --truth column, spoil labels with --noise, or trust fewer rows"
        raise UnswayedError(f"{rows} rows of known truth to be trusted", got=len(known), do=do)
    trusted = known[draw_evenly(train.truth[known], rows, seed)]
    given = train.given.clone()
    given[trusted] = train.truth[trusted]
    return replace(train, given=given), trusted


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Two parts of a split, the second with `share` of the rows of every class; one row at least stays in the first."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in torch.unique(split.given):
        rows = order[split.given[order] == label]
        held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not bool(held.any()):
        raise UnswayedError(
            f"enough rows to hold out {share:.0%} of each class", got=len(split), do="name a --test file"
        )
    return split.take((~held).nonzero()[:, 0]), split.take(held.nonzero()[:, 0])


def draw_evenly(labels: Tensor, most: int, seed: int) -> Tensor:
    """`most` rows, drawn so that every class keeps its share, in their old order: [N] -> [most]."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    place = torch.empty(len(labels))
    for label in torch.unique(labels):
        rows = order[labels[order] == label]
        place[rows] = (torch.arange(len(rows)) + 0.5) / len(rows)
    return place.argsort(stable=True)[:most].sort().values
