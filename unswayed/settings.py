"""How to train, whatever the method: the loop's settings, its optimiser and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from unswayed.errors import UnswayedError
from unswayed.method import Stage


@dataclass(frozen=True)
class Settings:
    """How to train, whatever the method."""

    epochs: int = 30
    batch: int = 128  # rows a step, over all processes
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine to 0 over the stages that share an optimiser
    clip: float | None = 5.0  # largest gradient norm of each child of the method; None: no clipping
    shuffle: Literal["rows", "blocks"] = "rows"  # blocks: rows from disk in blocks of neighbours (data.orders)
    seed: int = 0
    save_seconds: float = 30.0  # time between two checkpoints

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch", self.batch >= 2, "2 or more rows"),
            ("optimizer", self.optimizer in ("sgd", "adamw"), "sgd or adamw"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("schedule", self.schedule in ("cosine", "constant"), "cosine or constant"),
            ("shuffle", self.shuffle in ("rows", "blocks"), "rows or blocks"),
            ("clip", self.clip is None or self.clip > 0, "above 0, or none"),
        ):
            if not good:
                raise UnswayedError(f"{name} is {wanted}", got=repr(getattr(self, name)))


def make_optimizer(method: nn.Module, settings: Settings, stage: Stage | None = None) -> torch.optim.Optimizer:
    """The optimiser for all parameters of `method`; `stage` may bring its own learning rate and weight decay."""
    lr = stage.lr if stage and stage.lr is not None else settings.lr
    decay = stage.weight_decay if stage and stage.weight_decay is not None else settings.weight_decay
    groups = parameter_groups(method, lr, decay)
    fused: dict[str, Any] = {"fused": True} if _fuses(method) else {}
    if settings.optimizer == "adamw":
        return _AdamW(groups, lr=lr, weight_decay=decay, **fused)
    kind = FusedSGD if fused else torch.optim.SGD
    return kind(groups, lr=lr, momentum=settings.momentum, weight_decay=decay, **fused)


class FusedSGD(torch.optim.SGD):
    """SGD whose one kernel takes weights that already have a momentum together with some that have none yet.

    PyTorch's takes either. Networks begin to learn at different stages of a plan; a momentum of zeros is the same.
    """

    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            for p in group["params"] if group["momentum"] else ():
                if p.grad is not None and self.state[p].get("momentum_buffer") is None:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return super().step(closure)


def _fuses(method: nn.Module) -> bool:
    """Whether one kernel may step all parameters: on a GPU, where a kernel for each would cost more than its work."""
    return all(p.is_cuda and p.is_floating_point() and not hasattr(p, "full_tensor") for p in method.parameters())


class _AdamW(torch.optim.AdamW):
    """AdamW, but plain gradient descent for groups that come with a momentum of 0.

    A loss's own parameters (SOP's) are published for the slope itself, which AdamW would scale away.
    """

    def step(self, closure: Any = None) -> Any:
        """One step of both kinds."""
        with torch.no_grad():
            for group in self.param_groups:
                if group.get("momentum") == 0:
                    for p in (p for p in group["params"] if p.grad is not None):
                        p.add_(p.grad, alpha=-group["lr"])
                        p.grad = None  # AdamW passes by what has no gradient
        return super().step(closure)


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: all parameters alike, but for those that a module's `parameter_settings` single out."""
    special = {
        id(child.get_parameter(name)): own
        for child in module.modules()
        for name, own in getattr(child, "parameter_settings", {}).items()
    }
    common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    groups = [{"params": [p for p in module.parameters() if id(p) not in special], **common}]
    groups += [{"params": [p], **common, **special[id(p)]} for p in module.parameters() if id(p) in special]
    return [{**group, "initial_lr": group["lr"]} for group in groups]


def rate_factor(plan: Sequence[Stage], stage: int, epochs: float, schedule: str) -> float:
    """The learning rate as a share of its first value, `epochs` into the stage numbered `stage`.

    The cosine runs to 0 over all stages that share an optimiser: from the last restart to the next.
    """
    return factor_at(cosine_span(plan, stage), epochs, schedule)


def cosine_span(plan: Sequence[Stage], stage: int) -> tuple[int, int]:
    """Epochs of the cosine that runs in the stage numbered `stage`: those before the stage, and all."""
    first = max((i for i in range(1, stage + 1) if plan[i].restarts), default=0)
    last = min((i for i in range(stage + 1, len(plan)) if plan[i].restarts), default=len(plan))
    return sum(s.epochs for s in plan[first:stage]), sum(s.epochs for s in plan[first:last])


def factor_at(span: tuple[int, int], epochs: float, schedule: str) -> float:
    """The factor `epochs` into a stage whose `cosine_span` is known: a plan may have hundreds of stages."""
    before, whole = span
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * (before + epochs) / whole))
