"""What a run is: everything that decides its result, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unswayed import losses
from unswayed.data.dataset import Kind
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.losses.presets import PUBLISHED
from unswayed.settings import Settings


@dataclass(frozen=True)
class Config:
    """One run: the data and how its labels are spoilt, the arm, the training, the seed.

    Fields that are None take the default for the kind of data (`training`). Two runs with equal configurations on one
    machine have equal results.
    """

    data: str
    arm: str = "plain"
    seed: int = 0
    reader: dict[str, Any] = field(default_factory=dict)  # arguments of data.read: input, label, truth, test, ...
    encoder: str | None = None  # a frozen encoder: "patches", or a sentence encoder by name or folder
    features: Sequence[str] = ()  # files of ready-made features in place of the rows: one, or of train and of test rows
    noise: str | None = None
    rate: float = 0.0
    noise_settings: dict[str, Any] = field(default_factory=dict)
    imbalance: float | None = None  # smallest class as a share of the largest
    trusted: int | None = None  # so many training rows, drawn evenly over the classes, are given their true labels
    limit: int | None = None  # train on at most so many rows, drawn evenly over the classes
    hold_out: float = 0.2  # share of rows kept for testing where the data have no test part
    epochs: int | None = None
    batch: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    clip: float | None = None
    shuffle: str | None = None  # rows, or blocks: rows from disk in blocks of neighbours
    flip: bool | None = None  # mirror images left to right in training; None: colour images only
    device: str = "auto"
    precision: str = "fp32"
    compile: str | None = None  # how torch.compile makes the networks: default, reduce-overhead (CUDA graphs), ...
    shard: bool = False  # spread networks over the processes of `torchrun`; it decides no result
    analyse: bool = False  # measure gradients, confidence and masks after every epoch; the model is the same

    def __post_init__(self) -> None:
        for name, value, good, wanted in (
            ("rate", self.rate, 0 <= self.rate <= 1, "a share in [0, 1]"),
            ("hold_out", self.hold_out, 0 < self.hold_out < 1, "a share in (0, 1)"),
            ("imbalance", self.imbalance, self.imbalance is None or 0 < self.imbalance <= 1, "a share in (0, 1]"),
            ("limit", self.limit, self.limit is None or self.limit > 1, "2 rows or more"),
            ("trusted", self.trusted, self.trusted is None or self.trusted > 0, "1 row or more"),
            ("seed", self.seed, 0 <= self.seed < 2**31, "0 or more"),
        ):
            if not good or (isinstance(value, float) and math.isnan(value)):
                raise UnswayedError(f"{name} is {wanted}", got=value)
        if self.shard and self.analyse:
            raise UnswayedError("either shard or analyse", got="both: an analysis looks at whole networks")
        if self.features and self.encoder is not None:
            raise UnswayedError("either features or an encoder", got="both", do="leave one out")
        if self.rate > 0 and self.noise is None:
            raise UnswayedError("a noise model for --rate", got="none", do="for example --noise symmetric")

    def training(self, kind: Kind, rows: int = 0) -> Settings:
        """The loop's settings for data of `kind`, of which there are `rows` to train on."""
        names = ("epochs", "batch", "optimizer", "lr", "momentum", "weight_decay", "schedule", "clip", "shuffle")
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self._loss_has_penalty():  # published with the penalty in place of weight decay
            chosen.setdefault("weight_decay", 0.0)
        defaults = DEFAULTS[kind] | ({"batch": table_batch(rows)} if kind == "table" else {})
        return Settings(**{**defaults, **chosen, "seed": self.seed})

    def _loss_has_penalty(self) -> bool:
        loss = parse_arm(self.arm).loss
        return loss in PUBLISHED and losses.published(loss, classes=10).get("weight_decay") == 0

    def as_json(self) -> dict[str, Any]:
        """The configuration as plain data; what came later (`LATER`) only where given: else runs are as ever.

        Without `shard`: a run may go on in one process, or in several that share its networks or do not.
        """
        given = {name: value for name, value in asdict(self).items() if name != "shard"}
        return {name: value for name, value in given.items() if name not in LATER or value}


LATER = ("analyse", "compile", "features", "shuffle")  # fields that came when runs had been kept already


def table_batch(rows: int) -> int:
    """Rows a step for a table or features of so many rows: 32, doubled until an epoch has at most 400 steps.

    Our choice: a step of a small head costs nearly the same whatever its batch. On 20,000 rows of 512 features with
    40 % wrong labels, 20 epochs of a linear probe end at 99.7 % with batches of 32, at 100 % with 128 and 512, in a
    third and a fifth of the time.

    >>> [table_batch(rows) for rows in (150, 12_800, 20_000, 100_000, 10**7)]
    [32, 32, 64, 256, 1024]
    """
    batch = 32
    while batch < 1024 and rows > 400 * batch:
        batch *= 2
    return batch


# Our choice, from short runs: texts and tables are learned by heart within a few epochs, so few it is.
DEFAULTS: dict[Kind, dict[str, Any]] = {
    "image": {"epochs": 30, "batch": 128, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4},
    "audio": {"epochs": 20, "batch": 64, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4},
    "text": {"epochs": 6, "batch": 128, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
    "table": {"epochs": 20, "batch": 32, "optimizer": "sgd", "lr": 0.02, "weight_decay": 5e-4},
}
