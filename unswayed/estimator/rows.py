"""Rows as users give them -> rows as the networks take them: one module for training, prediction and export."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unswayed.data.images import to_pixels
from unswayed.errors import UnswayedError

AT_ONCE = 2**24  # numbers converted at a time: 128 MiB of float64
FORMS = "[N, d] (a table), or [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels (images)"


class Rows(nn.Module):
    """Tables are standardised in double precision, images become bytes [N, C, H, W].

    A column of large numbers that differ little (times, in seconds since 1970) keeps its differences only if it is
    centred before it is rounded to single precision: our choice, therefore, to standardise here and not in the network
    alone.
    """

    mean: Tensor  # [d] of a table, in float64; empty for images
    std: Tensor

    def __init__(
        self, shape: tuple[int, ...], *, columns: int = 0, fractions: bool = False, whole: bool = True
    ) -> None:
        super().__init__()
        self.shape = shape  # of one row, as users give it
        self.fractions = fractions  # images of floating point numbers are 0..1, not 0..255
        self.whole = whole  # images were given as bytes
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("std", torch.ones(columns, dtype=torch.float64))

    @classmethod
    def of(cls, x: np.ndarray) -> Rows:
        """The module that fits training rows `x`, [N, ...]."""
        if x.ndim == 2:
            rows = cls(x.shape[1:], columns=x.shape[1])
            rows.mean, rows.std = map(torch.from_numpy, _moments(x))
            return rows
        if x.ndim not in (3, 4):
            raise UnswayedError(f"X as {FORMS}", got=f"shape {list(x.shape)}")
        to_pixels(x[:1] if x.dtype == np.uint8 else x, "X")  # raises for what is no image
        fractions = x.dtype.kind == "b" or (x.dtype.kind == "f" and float(x.max()) <= 1)
        return cls(x.shape[1:], fractions=fractions, whole=x.dtype == np.uint8)

    @property
    def kind(self) -> Literal["table", "image"]:
        """What the rows are."""
        return "table" if len(self.shape) == 1 else "image"

    @property
    def channels_last(self) -> bool:
        """Whether images are given as [N, H, W, C]; where both could be meant, [N, C, H, W] is."""
        return len(self.shape) == 3 and self.shape[2] in (1, 3) and self.shape[0] not in (1, 3)

    def about(self) -> dict[str, Any]:
        """The settings of `__init__`, as plain data."""
        return {
            "shape": list(self.shape),
            "columns": len(self.mean),
            "fractions": self.fractions,
            "whole": self.whole,
        }

    def read(self, x: np.ndarray) -> Tensor:
        """Rows of the shape seen in training, [N, *shape] -> float32 [N, d] or bytes [N, C, H, W]; others raise."""
        if x.shape[1:] != self.shape:
            got, do = f"{list(x.shape)}", "bring rows to the shape that the classifier was fitted on"
            raise UnswayedError(f"X of shape [N, {', '.join(map(str, self.shape))}]", got=got, do=do)
        if self.kind == "image":
            self._check_levels(x)
        step = max(1, AT_ONCE // max(1, x[0].size if len(x) else 1))
        parts = [self(_tensor(x[i : i + step])) for i in range(0, len(x), step)]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.kind == "table" and not bool(rows.isfinite().all()):
            raise UnswayedError("rows within reach of the training rows", got="numbers beyond single precision")
        return rows

    def forward(self, x: Tensor) -> Tensor:
        """Rows of any number type, [N, *shape] -> float32 [N, d] or bytes [N, C, H, W]."""
        if self.kind == "table":
            return ((x.double() - self.mean) / self.std).float()
        if len(self.shape) == 2:
            x = x[:, None]
        elif self.channels_last:
            x = x.permute(0, 3, 1, 2)
        if x.dtype == torch.uint8:
            return x
        scale = 255.0 if self.fractions and (x.is_floating_point() or x.dtype == torch.bool) else 1.0
        return (x.float() * scale).clamp(0, 255).round().to(torch.uint8)

    def _check_levels(self, x: np.ndarray) -> None:
        if x.dtype == np.uint8 or not x.size:
            return
        if self.whole and x.dtype.kind == "f":
            do = "X.astype('uint8'), of 0..255"
            raise UnswayedError("images of bytes, as in fit", got=f"an array of {x.dtype}", do=do)
        high, low, most = float(x.max()), float(x.min()), 1 if self.fractions and x.dtype.kind in "bf" else 255
        if low < 0 or high > most:
            raise UnswayedError(f"images of numbers in 0..{most}, as in fit", got=f"{low:g}..{high:g}")


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of every column, [N, d] -> [d] each in float64; a constant column has a deviation of 1."""
    wide = x.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is told below
        mean = wide.mean(0)
        std = np.sqrt(np.square(wide - mean).mean(0))
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        do = "scale or drop such columns"
        raise UnswayedError("columns whose squares a double can hold", got="numbers beyond 1e150", do=do)
    constant = std <= 1e-12 * np.abs(mean)  # rounding leaves a constant some 1e-16 of its size
    return mean, np.where(constant | (std == 0), 1.0, std)


def _tensor(x: np.ndarray) -> Tensor:
    """A tensor that may share memory with `x`, which nobody writes to."""
    if x.dtype.kind in "ui" and x.dtype not in (np.uint8, np.int64):
        x = x.astype(np.int64)
    if x.dtype == np.float16 or x.dtype == np.longdouble:
        x = x.astype(np.float32 if x.dtype == np.float16 else np.float64)
    if not x.flags.writeable or any(stride < 0 for stride in x.strides) or not x.dtype.isnative:
        x = np.array(x, dtype=x.dtype.newbyteorder("="))  # torch warns of read-only memory, and has no such strides
    return torch.from_numpy(x)
