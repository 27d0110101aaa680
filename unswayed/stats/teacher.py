"""Mean teachers: a network whose weights are the running mean of another's."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.sharding import whole


class Teacher(nn.Module):
    """An exponential moving average of a network (arXiv 1703.01780), always in evaluation mode.

    Weights and the running statistics of batch norms are averaged; all other buffers (masks, counters) are copied, for
    the mean of two masks is none. All of it is held in buffers: saved, moved and merged with whoever holds the
    teacher, and never seen by an optimiser.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> teacher = Teacher(net)
    >>> before = teacher(torch.ones(1, 1)).item()
    >>> _ = nn.init.constant_(net.weight, before + 1.0)
    >>> teacher.update(net, momentum=0.75)
    >>> round(teacher(torch.ones(1, 1)).item() - before, 6), len(list(teacher.parameters()))
    (0.25, 0)
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).eval()
        for module in self.net.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    del module._parameters[name]
                    module.register_buffer(name, weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """What the mean network says: rows [B, ...] -> logits [B, K], without a gradient to its weights."""
        logits: Tensor = self.net(x)
        return logits

    def train(self, mode: bool = True) -> Teacher:
        """A teacher stays in evaluation mode: it neither drops units nor gathers statistics of its own."""
        return super().train(False)

    @torch.no_grad()
    def update(self, net: nn.Module, momentum: float) -> None:
        """Keep `momentum` of what is here and take the rest from `net`: 1 keeps all, 0 copies."""
        if not 0 <= momentum <= 1:
            raise UnswayedError("momentum is a share in [0, 1]", got=momentum)
        mine = dict(self.net.named_buffers())
        for name, weight in net.named_parameters():
            mine[name].lerp_(whole(weight).to(mine[name].dtype), 1 - momentum)
        averaged = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in net.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for name in ("running_mean", "running_var")
        }
        for name, value in net.named_buffers():
            if name in averaged:
                mine[name].lerp_(value, 1 - momentum)
            else:
                mine[name].copy_(value)
