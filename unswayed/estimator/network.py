"""What a trained method needs to predict, without what it needed to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unswayed.losses.base import Loss
from unswayed.method import Method
from unswayed.methods.bars import NearestNeighbours
from unswayed.stats.dynamics import Dynamics
from unswayed.stats.snapshot import Snapshot

_FOR_LEARNING = (Loss, Dynamics, Snapshot)


def keep_predictor(method: Method, kind: str) -> Method:
    """The same method, on the processor and ready to predict; its memory of the training rows is gone.

    For a table its numbers become doubles: a row's probabilities then do not depend on the rows that are predicted
    beside it, whatever order the processor adds in, to more digits than anybody compares. Neighbours are compared in
    single precision, as they were in training; their votes are whole numbers anyway.
    """
    for parent in list(method.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _FOR_LEARNING):
                setattr(parent, name, nn.Identity())
        for name in parent.__dict__.get("_row_buffers", ()):
            if name in parent._buffers:
                setattr(parent, name, parent.get_buffer(name)[:0].clone())
    method.cpu().requires_grad_(False).eval()
    return method.double() if kind == "table" and not isinstance(method, NearestNeighbours) else method


class Probabilities(nn.Module):
    """Rows as users give them -> probabilities of the classes: what predicts, and what is exported."""

    def __init__(self, rows: nn.Module, method: nn.Module) -> None:
        super().__init__()
        self.rows, self.method = rows, method

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> [B, K]."""
        logits: Tensor = self.method(self.rows(x))
        return torch.softmax(logits, 1)
