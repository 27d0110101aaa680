"""Evaluation: what a module says of rows, without changing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unswayed.data.columns import Column, TensorColumn
from unswayed.machine import Place


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every child is in the mode it was in."""
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child in training:
            child.training = True


def predict(module: nn.Module, x: Column | Tensor, *, size: int = 512, place: Place | None = None) -> Tensor:
    """The outputs of `module` in evaluation mode, in parts of `size` rows: [N, ...] -> [N, K] float32.

    The module's training state and its buffers stay as they were.
    """
    column = TensorColumn(x) if isinstance(x, Tensor) else x
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    place = place or Place(device)
    rows = torch.arange(len(column), device=column.device)
    with evaluating(module), place.autocast():
        parts = [module(column.rows(rows[i : i + size]).to(device)).float() for i in range(0, len(rows), size)]
    return torch.cat(parts)


def accuracy(module: nn.Module, x: Column | Tensor, y: Tensor, *, place: Place | None = None) -> float:
    """The share of rows whose most probable class is `y`: [N, ...], [N] -> in [0, 1]."""
    found = predict(module, x, place=place).argmax(1)
    return float((found == y.to(found.device)).float().mean())
