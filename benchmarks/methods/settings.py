"""Where the methods meet: data, wrong labels, network and recipe, small enough for two cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.edge_masking import settings as study
from unswayed.data import TensorColumn
from unswayed.data.dataset import Dataset
from unswayed.experiment.config import Config
from unswayed.experiment.task import Task, make_task
from unswayed.noise.inputs import spoil_inputs

MLP = "mlp(widths=256)"  # one hidden layer on features: the head reads 256 numbers
PROBE = "identity"  # an arm with this body reads the frozen features themselves
TRUSTED = " +100 trusted"  # an arm that ends so is given the true labels of 100 rows


@dataclass(frozen=True)
class Setting:
    """Rows, how they are spoilt, and the recipe that all methods share."""

    name: str
    data: Callable[[], Dataset]
    body: str
    recipe: dict[str, Any] = field(default_factory=dict)
    noise: str | None = None
    rate: float = 0.0
    corrupted: float = 0.0  # share of training rows with noise of three standard deviations in their inputs
    shown: str = ""  # what the page calls it

    def config(self, arm: str, seed: int) -> Config:
        """The configuration of one cell."""
        words, told = arm.removesuffix(TRUSTED), 100 if arm.endswith(TRUSTED) else None
        words = words if PROBE in words.split() else f"{words} {self.body}"
        return Config(self.name, arm=words, trusted=told, noise=self.noise, rate=self.rate, seed=seed, **self.recipe)

    def task(self, config: Config) -> Task:
        """The rows of one seed, with its wrong labels or corrupted inputs."""
        task = make_task(config, self.data())
        if not self.corrupted:
            return task
        rows, generator = task.train, torch.Generator().manual_seed(config.seed)
        x, _ = spoil_inputs(rows.x.rows(torch.arange(len(rows))), self.corrupted, strength=3.0, generator=generator)
        return replace(task, train=replace(rows, x=TensorColumn(x)))


@cache
def spoken_features() -> Dataset:
    """Spoken digits as mean log-mel energies: 20 bands x 16 parts of the time, rows of a table."""
    dataset = study.spoken()

    def pooled(split: Any) -> Any:
        energies = F.adaptive_avg_pool2d(split.x.rows(torch.arange(len(split))), (20, 16))
        return replace(split, x=TensorColumn(energies.flatten(1)), truth=split.given)  # they are right as read

    return replace(dataset, kind="table", train=pooled(dataset.train), test=dataset.test and pooled(dataset.test))


def _settings() -> list[Setting]:
    frozen = {"limit": 4000, "epochs": 20, "batch": 128, "lr": 0.05}
    planted = [*(("symmetric", r) for r in (0.2, 0.4, 0.6, 0.8)), ("asymmetric", 0.4), ("instance", 0.4)]
    human = ("aggregate", "random1", "worst")
    return [
        *(
            Setting(f"cifar {label}", partial(study.cifar_features, label), MLP, frozen, shown=f"CIFAR-10N {label}")
            for label in human
        ),
        *(
            Setting(f"fashion {kind[:4]} {rate}", study.fashion_features, MLP, frozen, noise=kind, rate=rate)
            for kind, rate in planted
        ),
        Setting("news", study.news_features, MLP, frozen),
        Setting("hausa", study.hausa, "text-mlp(widths=64)", {"epochs": 12}),
        Setting("spoken labels", spoken_features, MLP, frozen, noise="symmetric", rate=0.4),
        Setting("spoken inputs", spoken_features, MLP, frozen, corrupted=0.5),
    ]


SETTINGS = {setting.name: setting for setting in _settings()}
