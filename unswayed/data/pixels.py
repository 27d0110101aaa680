"""Pictures moved and recoloured in batches, each row by its own parameters, by whole pixels and whole levels.

Rows are [B, C, H, W], 8-bit or floating point in [0, 1]. What is done to a picture is decided on the CPU, so that a
device is never waited for; operations run on the rows that drew them, not on the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from math import radians

import torch
from torch import Tensor
from torch.nn import functional as F

from unswayed.data.columns import send

_FINE = 16  # binary places of a warp's numbers, whose sums fit 32 bits up to 8,000 pixels a side
_STILL = torch.tensor([1 << _FINE, 0, 0, 0, 1 << _FINE, 0], dtype=torch.int32)
_GREY = 127  # of 255: what a cutout leaves


def crop(x: Tensor, top: Tensor, left: Tensor, flip: Tensor, *, reflect: bool = False) -> Tensor:
    """Move each picture by (-top, -left) pixels, then mirror it left-right where `flip`: [B, C, H, W], [B] -> same.

    What comes in from outside is black, or the picture reflected at its border.

    >>> x = torch.tensor([[[[1, 2, 3]]]])
    >>> crop(x, torch.tensor([0]), torch.tensor([1]), torch.tensor([False])).flatten().tolist()
    [2, 3, 0]
    >>> crop(x, torch.tensor([0]), torch.tensor([1]), torch.tensor([True]), reflect=True).flatten().tolist()
    [2, 3, 2]
    """
    height, width = x.shape[2:]
    column = torch.arange(width, device=x.device)
    column = torch.where(flip[:, None], width - 1 - column, column) + left[:, None]
    row = torch.arange(height, device=x.device) + top[:, None]
    if reflect:
        row, column = _reflect(row, height), _reflect(column, width)
    outside = height * width
    start = torch.where((row >= 0) & (row < height), row * width, outside)
    column = torch.where((column >= 0) & (column < width), column, outside)
    return _pick(x, (start[:, :, None] + column[:, None, :]).clamp_(max=outside))


def warp(x: Tensor, maps: Tensor) -> Tensor:
    """Take each pixel from where an affine map says, the nearest one, black outside: [B, C, H, W], [B, 6] -> same.

    The maps (on the CPU, see `warp_of`) are in whole numbers, so every device finds the same pixel.
    """
    moved = (maps != _STILL).any(1).nonzero().squeeze(1)
    if not len(moved):
        return x
    height, width = x.shape[2:]
    a, b, c, d, e, f = send(maps[moved], x.device)[:, :, None, None].unbind(1)
    across = torch.arange(1 - width, width, 2, device=x.device, dtype=torch.int32)  # half pixels from the middle
    down = torch.arange(1 - height, height, 2, device=x.device, dtype=torch.int32)[:, None]
    column = (a * across + b * down + c + (width << _FINE)) >> (_FINE + 1)
    row = (d * across + e * down + f + (height << _FINE)) >> (_FINE + 1)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = torch.where(inside, row * width + column, height * width).long()
    here = send(moved, x.device)
    return x.index_copy(0, here, _pick(x[here], at))


def warp_of(angle: Tensor, op: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:
    """The map of a turn by `angle` degrees ([n]) and then the shape operations among `op`: [n, ops] -> [n, 6] int32.

    `level` in [-1, 1] is the share of each operation's range. A map (a, b, c, d, e, f) sends (x, y), in half pixels
    from the middle, to (a x + b y + c, d x + e y + f) / 2^16 in the old picture. Made on the CPU, in float64.
    """
    maps = _turn(torch.deg2rad(angle.double()))
    for layer in range(op.shape[1]):
        amount = {name: _amount(name, op[:, layer], level[:, layer]) for name in _RANGES}
        step = _turn(amount["rotate"])
        step[:, 0, 1] += amount["shear-x"]
        step[:, 1, 0] += amount["shear-y"]
        step[:, 0, 2] = amount["translate-x"] * 2 * size[1]
        step[:, 1, 2] = amount["translate-y"] * 2 * size[0]
        maps = maps @ step  # an earlier operation is undone last on the way back to the old picture
    fixed: Tensor = (maps[:, :2] * 2**_FINE).round().int()
    return fixed.flatten(1)


def blank(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Set a square of each picture to middle grey, as far as it lies inside: [B, C, H, W], [B] -> same."""
    row = torch.arange(x.shape[2], device=x.device) - top[:, None]
    column = torch.arange(x.shape[3], device=x.device) - left[:, None]
    hole = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :]
    return x.masked_fill(hole[:, None], _GREY / 255 if x.is_floating_point() else _GREY)


def recolour(x: Tensor, op: Tensor, level: Tensor) -> Tensor:
    """Apply the colour operations of `op` one after another: [B, C, H, W], [B, ops], levels in [0, 1] -> same.

    `op` counts in `OPERATIONS`; the shape operations among them are left to `warp`.
    """
    x = x.clone()
    for layer in range(op.shape[1]):
        for number, operation in enumerate(_COLOURS.values()):
            rows = (op[:, layer] == number).nonzero().squeeze(1)
            if len(rows):
                here = send(rows, x.device)
                share = send(level[rows, layer], x.device)[:, None, None, None]
                x[here] = _settle(operation(_levels(x[here]), share), x)
    return x


def _autocontrast(v: Tensor, share: Tensor) -> Tensor:
    """Stretch each channel to the full range."""
    low, high = v.amin((2, 3), keepdim=True), v.amax((2, 3), keepdim=True)
    return torch.where(high > low, (v - low) * (255 / (high - low).clamp_min(1e-6)), v)


def _equalize(v: Tensor, share: Tensor) -> Tensor:
    """Spread the levels of each channel so that each is about as frequent."""
    level = v.round().clamp(0, 255).long().flatten(2)
    counts = level.new_zeros(*v.shape[:2], 256).scatter_add_(2, level, torch.ones_like(level))
    last = level.amax(2, keepdim=True)
    step = (level.shape[2] - counts.gather(2, last)) // 255
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp_min(1)
    spread = table.gather(2, level).clamp(max=255).to(v.dtype).view_as(v)
    return torch.where(step[..., None] > 0, spread, v)


def _brightness(v: Tensor, share: Tensor) -> Tensor:
    return v * (1 - 0.95 * share)


def _colour(v: Tensor, share: Tensor) -> Tensor:
    """Towards grey; grey pictures stay."""
    return _blend(_grey(v), v, share) if v.shape[1] == 3 else v


def _contrast(v: Tensor, share: Tensor) -> Tensor:
    """Towards the mean grey, a whole level."""
    wide = torch.float32 if v.device.type == "mps" else torch.float64  # Apple's devices have no float64
    return _blend(_grey(v).mean((1, 2, 3), keepdim=True, dtype=wide).round().to(v.dtype), v, share)


def _sharpness(v: Tensor, share: Tensor) -> Tensor:
    """Towards a blur of 3 x 3 pixels with the middle one five times; the border stays."""
    if min(v.shape[2:]) < 3:
        return v
    rows = v[:, :, :-2] + v[:, :, 1:-1] + v[:, :, 2:]
    inner = v[:, :, 1:-1, 1:-1]
    blurred = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    sharp = v.clone()
    sharp[:, :, 1:-1, 1:-1] = _blend(blurred, inner, share)
    return sharp


def _posterize(v: Tensor, share: Tensor) -> Tensor:
    """Keep 8 to 4 of the 8 bits."""
    bits = (4 * share).round().long()
    step = torch.ones_like(bits) << bits  # devices may disagree on the last bit of a power, not on a shift
    return ((v + 1e-3) / step).floor() * step  # 128 / 255 * 255 may fall short of 128


def _solarize(v: Tensor, share: Tensor) -> Tensor:
    """Invert what is brighter than a threshold."""
    return torch.where(v > 255 * (1 - share), 255 - v, v)


# The ranges of FixMatch: a share of 1 leaves 5 % of the old brightness, colour, contrast and sharpness.
_COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "brightness": _brightness,
    "colour": _colour,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
}
# A turn in radians, a shear, a shift as a share of the side.
_RANGES = {"rotate": radians(30), "shear-x": 0.3, "shear-y": 0.3, "translate-x": 0.3, "translate-y": 0.3}
OPERATIONS = (*_COLOURS, *_RANGES, "identity")


def _amount(name: str, op: Tensor, level: Tensor) -> Tensor:
    return torch.where(op == OPERATIONS.index(name), level.double() * _RANGES[name], 0.0)


def _turn(angle: Tensor) -> Tensor:
    """Rotations in homogeneous coordinates: [n] radians -> [n, 3, 3]."""
    turn = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 1, 0] = angle.sin()
    turn[:, 0, 1] = -turn[:, 1, 0]
    return turn


def _pick(x: Tensor, at: Tensor) -> Tensor:
    """The pixels numbered `at` of each picture, H * W being black: [B, C, H, W], [B, H, W] -> [B, C, H, W]."""
    pixels = F.pad(x.flatten(2), (0, 1))
    return pixels.gather(2, at.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)


def _reflect(at: Tensor, size: int) -> Tensor:
    return size - 1 - (size - 1 - at.abs()).abs()


def _levels(x: Tensor) -> Tensor:
    """Pictures as float32 levels of 0 to 255."""
    return x.float() * 255 if x.is_floating_point() else x.float()


def _settle(v: Tensor, x: Tensor) -> Tensor:
    """Levels as pictures of the type of `x`; rounded after every operation, so that no device rounds otherwise."""
    return (v / 255).clamp(0, 1).to(x.dtype) if x.is_floating_point() else v.round().clamp(0, 255).to(x.dtype)


def _grey(v: Tensor) -> Tensor:
    """The perceived brightness (ITU-R 601) of colour pictures, the mean of others: [B, C, H, W] -> [B, 1, H, W]."""
    if v.shape[1] != 3:
        return v.mean(1, keepdim=True)
    return v[:, :1] * 0.299 + v[:, 1:2] * 0.587 + v[:, 2:] * 0.114


def _blend(target: Tensor, v: Tensor, share: Tensor) -> Tensor:
    return v + (target - v) * (0.95 * share)
