"""The contract: a method is a module that knows its loss, and a plan, a list of stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unswayed.data.columns import Column, TensorColumn
from unswayed.errors import UnswayedError
from unswayed.stats.dynamics import Dynamics

MakeNet = Callable[[], nn.Module]


@dataclass(frozen=True)
class Data:
    """Columns of one table: row i is training sample `index[i]`."""

    x: Column
    y: Tensor  # [N] int64, or [N, K] soft targets
    index: Tensor  # [N] int64
    weight: Tensor  # [N] float32

    @classmethod
    def of(cls, x: Column | Tensor, y: Tensor) -> Data:
        """All rows of `x` with labels `y`, numbered from 0, each of weight 1."""
        x = TensorColumn(x) if isinstance(x, Tensor) else x
        if len(x) != len(y):
            raise UnswayedError(f"one label a row, {len(x)} in all", got=len(y))
        return cls(x, y, torch.arange(len(x), device=y.device), torch.ones(len(x), device=y.device))

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, keep: Tensor) -> Data:
        """The rows chosen by a boolean mask [N] or by positions [M]; the contents of `x` are not copied."""
        at = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        at = at.to(self.y.device)
        return Data(self.x.take(at), self.y[at], self.index[at], self.weight[at])

    def replace(self, **columns: Any) -> Data:
        """The same rows with some columns exchanged; `x` may be given as a tensor."""
        if isinstance(columns.get("x"), Tensor):
            columns["x"] = TensorColumn(columns["x"])
        return replace(self, **columns)

    def to(self, device: torch.device) -> Data:
        """The same rows on `device`."""
        return Data(self.x.to(device), self.y.to(device), self.index.to(device), self.weight.to(device))


@dataclass(frozen=True)
class Batch:
    """Some rows plus the clock.

    Under several processes these are the rows of this process: what a method ranks, mixes or contrasts within a batch,
    it does among its share of the whole batch.
    """

    views: tuple[Tensor, ...]  # [B, ...] each, one for every name in `Stage.views`
    y: Tensor  # [B] or [B, K]
    index: Tensor  # [B]
    weight: Tensor  # [B]
    epoch: int  # of the stage, from 0
    progress: float  # of the whole plan, 0 to 1

    @property
    def x(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def __len__(self) -> int:
        return len(self.y)


def identity(data: Data) -> Data:
    """All rows as they are."""
    return data


@dataclass(frozen=True)
class Stage:
    """A stretch of training: which rows, which loss, who learns, for how long."""

    name: str
    epochs: int  # 0: the stage only calls `data`
    loss: Callable[..., Tensor]  # one batch, or one a part of the data -> scalar
    data: Callable[[Data], Data | tuple[Data, ...] | None] = identity  # called when the stage starts; None skips it
    train: nn.Module | None = None  # who learns; None: the whole method
    views: tuple[str, ...] = ("weak",)  # "stored", "weak", "strong": how each row is shown
    fresh: bool = False  # begin with a fresh optimiser and learning-rate schedule
    lr: float | None = None  # a fresh optimiser, with this instead of the run's learning rate
    weight_decay: float | None = None  # likewise: instead of the run's weight decay

    @property
    def restarts(self) -> bool:
        """Whether the stage begins with a fresh optimiser and learning-rate schedule."""
        return self.fresh or self.lr is not None or self.weight_decay is not None


@dataclass(frozen=True)
class Info:
    """What a method may know of its task: never the noise, never a true label."""

    samples: int
    classes: int


class Method(nn.Module):
    """A way of training: a network, its loss and its plan. All state is in parameters and buffers.

    Children define `loss(batch)`, or a `plan` of stages with losses of their own, and call `observe` so that
    the sample-wise dynamics (`suspicion`, `mean_probabilities`) know what was predicted.
    """

    budget: ClassVar[float] = 1.0  # epochs of the plan as a multiple of the epochs asked for
    test_settings: ClassVar[dict[str, Any]] = {}  # settings that make the contract's toy runs quick
    skip_checks: ClassVar[dict[str, str]] = {}  # check name -> the reason why it cannot hold

    def __init__(self, make_net: MakeNet, info: Info) -> None:
        super().__init__()
        self.net = make_net()
        self.dynamics = Dynamics(info.samples, info.classes)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar."""
        raise UnswayedError(f"{type(self).__name__} defines loss(batch), or a plan whose stages have losses")

    def forward(self, x: Tensor) -> Tensor:
        """What every evaluation uses: rows [B, ...] -> logits [B, K]."""
        logits: Tensor = self.net(x)
        return logits

    def plan(self, epochs: int) -> list[Stage]:
        """The stages that make up `epochs` epochs of training; computes nothing."""
        return [Stage("train", epochs, self.loss)]

    def observe(self, logits: Tensor, batch: Batch) -> None:
        """Take note of the predictions made in training: logits [B, K]."""
        self.dynamics.update(logits, batch.y, batch.index)

    def suspicion(self) -> Tensor | None:
        """How probably each given label is wrong, [N], higher is more suspicious; None: not known."""
        return self.dynamics.suspicion()

    def chosen(self) -> dict[str, float]:
        """Settings that the method chose by itself, for the report."""
        return {}
