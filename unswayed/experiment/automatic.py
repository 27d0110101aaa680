"""The arm "auto": the method that the estimated noise and the number of rows speak for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from unswayed.auditing import Interval, audit, choose_method
from unswayed.batches import seed_of
from unswayed.data.dataset import Dataset, Split
from unswayed.experiment.arms import AUTO
from unswayed.experiment.config import Config
from unswayed.experiment.features import frozen
from unswayed.experiment.task import Task, draw_evenly

MOST = 20_000  # rows, drawn evenly over the classes, that the noise is estimated from
_DRAW = 8  # what a seed is used for


@dataclass(frozen=True)
class Choice:
    """What to train, and why: one sentence for a person."""

    arm: str
    why: str
    noise_rate: Interval

    def as_json(self) -> dict[str, Any]:
        """The choice as plain data."""
        return {**asdict(self), "noise_rate": self.noise_rate._asdict()}


def choose_arm(config: Config, task: Task) -> Choice:
    """Estimate the noise of the task's given labels from features that saw none, and choose the arm by it.

    The other words of the arm stay: "auto identity" becomes "sce identity". True labels and test rows take no part.
    """
    dataset, train = task.dataset, task.train
    at = draw_evenly(train.given, MOST, seed_of(config.seed, _DRAW)) if len(train) > MOST else torch.arange(len(train))
    blind = Split(train.x, train.given, None, train.rows).take(at)
    rows = frozen(Dataset(dataset.name, dataset.kind, dataset.classes, blind, None), config)
    features = rows.train.x.rows(torch.arange(len(at)))
    noise = audit(blind.given, features=features, classes=dataset.classes).noise
    method, why = choose_method(noise.rate, len(train), len(dataset.classes), dataset.kind, matrix=noise.matrix)
    return Choice(" ".join([method, *(word for word in config.arm.split() if word != AUTO)]), why, noise.rate)


def settle(config: Config, task: Task) -> tuple[Config, Choice | None]:
    """The configuration with its arm chosen where it is "auto", and why; any other stays as it is."""
    if AUTO not in config.arm.split():
        return config, None
    choice = choose_arm(config, task)
    return replace(config, arm=choice.arm), choice
