"""Augmentation of whole batches where they lie: parameters are drawn apart from being applied.

`draw(n, generator)` makes the parameters of n rows on the CPU, `apply(x, params)` shows the rows of `x` accordingly, on
the device of `x`. So several processes can draw for the global batch from one generator and apply their slice of it.
Pictures move by whole pixels and whole numbers only: the same draw gives 8-bit pictures that agree to the bit on every
device; floating-point rows agree up to rounding.

>>> weak = augmentation("image", (3, 32, 32), "weak")
>>> params = weak.draw(8, torch.Generator().manual_seed(0))
>>> x = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
>>> weak.apply(x, params).shape, weak.apply(x[2:4], {name: value[2:4] for name, value in params.items()}).shape
(torch.Size([8, 3, 32, 32]), torch.Size([2, 3, 32, 32]))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import inf
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from unswayed.data import pixels
from unswayed.data.columns import send
from unswayed.data.dataset import Kind
from unswayed.errors import UnswayedError
from unswayed.registry import check_settings, keyword_settings

Params = Mapping[str, Tensor]  # [n, ...] each, on the CPU
View = Literal["none", "weak", "strong"]


class Augment(ABC):
    """A way to show rows of one `shape`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)

    @abstractmethod
    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        """Parameters for n rows, [n, ...] each, from a CPU generator; slice them like rows."""

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """The rows [B, *shape] as their parameters ([B, ...] each) say; `x` itself is never changed."""
        if tuple(x.shape[1:]) != self.shape:
            raise UnswayedError(f"rows of shape {list(self.shape)}", got=list(x.shape[1:]))
        for name, value in params.items():
            if len(value) != len(x):
                raise UnswayedError(f"one {name} for each of {len(x)} rows", got=len(value), do="slice the parameters")
        return self._apply(x, params) if len(x) else x

    @abstractmethod
    def _apply(self, x: Tensor, params: Params) -> Tensor: ...


class Unchanged(Augment):
    """Rows as they are stored."""

    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        """No parameters at all."""
        return {}

    def _apply(self, x: Tensor, params: Params) -> Tensor:
        return x


class Image(Augment):
    """Pictures [C, H, W], 8-bit or floating point in [0, 1]: crop and flip, then random operations, then a cutout.

    `pad` is the frame in pixels from which a crop of the old size is taken (None: 1/8 of the shorter side, 4 of 32),
    filled with black ("zero") or by "reflect". `flip` is left-right, for half of the pictures (None: colour pictures
    only. Our choice, because grey sets are mostly characters, which a mirror spoils). `rotate` turns by up to so
    many degrees either way. `ops` random operations of `among` follow, each at a strength up to `strength` of the
    published range (RandAugment, arXiv 1909.13719, in the ranges of FixMatch, arXiv 2001.07685). `cutout` blanks a
    grey square of that share of the shorter side, its centre anywhere (arXiv 1708.04552).

    Our choice: operations on colours come before those on shapes, which are merged into one, because each resampling
    costs sharpness; and the nearest pixel is taken, as in the published pipelines.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        pad: int | None = None,
        fill: Literal["zero", "reflect"] = "zero",
        flip: bool | None = None,
        rotate: float = 0.0,
        ops: int = 0,
        strength: float = 1.0,
        among: tuple[str, ...] = pixels.OPERATIONS,
        cutout: float = 0.0,
    ) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise UnswayedError("pictures of shape [channels, height, width]", got=list(shape))
        super().__init__(shape)
        side = min(shape[1:])
        self.pad = round(side / 8) if pad is None else pad
        self.flip = shape[0] == 3 if flip is None else flip
        self.fill, self.rotate, self.ops, self.strength, self.among = fill, rotate, ops, strength, tuple(among)
        self.hole = round(_within("cutout", cutout, 0, 1) * side)
        _within("pad, in pixels,", self.pad, 0, side - 1)
        _within("rotate, in degrees,", rotate, 0, 180)
        _within("ops", ops, 0, inf)
        _within("strength", strength, 0, 1)
        if fill not in ("zero", "reflect"):
            raise UnswayedError("fill is 'zero' or 'reflect'", got=repr(fill))
        if not self.among or not set(self.among) <= set(pixels.OPERATIONS):
            raise UnswayedError(f"among names operations of {', '.join(pixels.OPERATIONS)}", got=self.among)

    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        """Where to crop, whether to flip, which operations how strongly, where to cut out."""
        height, width = self.shape[1:]
        params = {
            "top": torch.randint(-self.pad, self.pad + 1, (n,), generator=generator),
            "left": torch.randint(-self.pad, self.pad + 1, (n,), generator=generator),
            "flip": torch.rand(n, generator=generator) < 0.5 * self.flip,
        }
        angle = (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1) * self.rotate
        if self.ops:
            pick = torch.randint(len(self.among), (n, self.ops), generator=generator)
            params["op"] = torch.tensor([pixels.OPERATIONS.index(name) for name in self.among])[pick]
            params["level"] = torch.rand(n, self.ops, generator=generator) * self.strength
            sign = torch.randint(0, 2, (n, self.ops), generator=generator) * 2 - 1
            params["warp"] = pixels.warp_of(angle, params["op"], params["level"] * sign, (height, width))
        elif self.rotate:
            params["warp"] = pixels.warp_of(angle, angle.new_zeros(n, 0).long(), angle.new_zeros(n, 0), (height, width))
        if self.hole:
            params["hole_top"] = torch.randint(height, (n,), generator=generator) - self.hole // 2
            params["hole_left"] = torch.randint(width, (n,), generator=generator) - self.hole // 2
        return params

    def _apply(self, x: Tensor, params: Params) -> Tensor:
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise UnswayedError("pictures as uint8, or as floating point in [0, 1]", got=x.dtype)
        if self.pad or self.flip:
            place = {name: _send(params[name], x) for name in ("top", "left", "flip")}
            x = pixels.crop(x, **place, reflect=self.fill == "reflect")
        if "op" in params:
            x = pixels.recolour(x, params["op"], params["level"])
        if "warp" in params:
            x = pixels.warp(x, params["warp"])
        if self.hole:
            x = pixels.blank(x, _send(params["hole_top"], x), _send(params["hole_left"], x), self.hole)
        return x


class Spectrogram(Augment):
    """Sounds as log-mel or MFCC pictures [1, bands, frames]: shift, gain and masks (SpecAugment, arXiv 1904.08779).

    `shift` is the largest shift as a share of the frames; the frame at the end is repeated. `gain` is the largest
    constant added, in standard deviations of the sound's own picture. `time_masks` and `band_masks` stripes of up to
    `time_width` and `band_width` (shares) are set to the picture's mean. Our choice: widths relative to the picture,
    because the published ones (27 bands, 100 frames) belong to one size.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        shift: float = 0.1,
        gain: float = 0.1,
        time_masks: int = 0,
        time_width: float = 0.15,
        band_masks: int = 0,
        band_width: float = 0.15,
    ) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise UnswayedError("spectrograms of shape [1, bands, frames]", got=list(shape))
        super().__init__(shape)
        bands, frames = shape[1:]
        self.shift, self.gain = round(_within("shift", shift, 0, 1) * (frames - 1)), _within("gain", gain, 0, inf)
        self.time_masks, self.band_masks = time_masks, band_masks
        self.time_width = round(_within("time_width", time_width, 0, 1) * frames)
        self.band_width = round(_within("band_width", band_width, 0, 1) * bands)
        _within("time_masks", time_masks, 0, inf)
        _within("band_masks", band_masks, 0, inf)

    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        """How far to shift, how much gain, and the masks' first and last lines."""
        bands, frames = self.shape[1:]
        params = {
            "shift": torch.randint(-self.shift, self.shift + 1, (n,), generator=generator),
            "gain": (2 * torch.rand(n, generator=generator) - 1) * self.gain,
        }
        for name, masks, width, size in (
            ("frames", self.time_masks, self.time_width, frames),
            ("bands", self.band_masks, self.band_width, bands),
        ):
            if masks:
                length = torch.randint(0, width + 1, (n, masks), generator=generator)
                free = torch.rand(n, masks, generator=generator, dtype=torch.float64) * (size - length + 1)
                params[name] = torch.stack([free.long(), free.long() + length], 2)
        return params

    def _apply(self, x: Tensor, params: Params) -> Tensor:
        frames = x.shape[3]
        at = (torch.arange(frames, device=x.device) - _send(params["shift"], x)[:, None]).clamp(0, frames - 1)
        spread, mean = torch.std_mean(x.float(), (1, 2, 3), correction=0, keepdim=True)
        x = x.gather(3, at[:, None, None].expand_as(x)) + (_send(params["gain"], x)[:, None, None, None] * spread).to(x)
        for name, dim in (("frames", 3), ("bands", 2)):
            if name in params:
                line = torch.arange(x.shape[dim], device=x.device)
                first, end = _send(params[name], x)[..., None, :].unbind(-1)
                masked = ((line >= first) & (line < end)).any(1)
                x = torch.where(masked[:, None, None, :] if dim == 3 else masked[:, None, :, None], mean.to(x), x)
        return x


class NGrams(Augment):
    """Texts as weighted n-grams [2, L] (numbers, 0 = padding, and weights): drops each n-gram with chance `drop`.

    A dropped one gets weight 0. Our choice: one n-gram, the same for every `drop`, always stays, because an empty text
    teaches nothing; and the other weights are not scaled up, because a shorter text has smaller counts too.
    """

    def __init__(self, shape: tuple[int, ...], *, drop: float = 0.1) -> None:
        if len(shape) != 2 or shape[0] != 2:
            raise UnswayedError("texts of shape [2, L]: n-gram numbers and weights", got=list(shape))
        super().__init__(shape)
        self.drop = _within("drop", drop, 0, 1)

    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        """A number for each place; those below `drop` go."""
        return {"chance": torch.rand(n, self.shape[1], generator=generator)}

    def _apply(self, x: Tensor, params: Params) -> Tensor:
        numbers, weights = x.unbind(1)
        chance = _send(params["chance"], x).masked_fill(numbers == 0, -1)
        kept = (chance >= self.drop) | (chance == chance.amax(1, keepdim=True))
        return torch.stack([numbers, weights * kept], 1)


class Features(Augment):
    """Table rows [F], standardised: Gaussian noise of standard deviation `noise`, and features set to 0, their mean.

    Each feature is blanked with chance `mask`.
    """

    def __init__(self, shape: tuple[int, ...], *, noise: float = 0.05, mask: float = 0.0) -> None:
        super().__init__(shape)
        self.noise, self.mask = _within("noise", noise, 0, inf), _within("mask", mask, 0, 1)

    def draw(self, n: int, generator: Generator) -> dict[str, Tensor]:
        """What to add, and what to keep."""
        params = {}
        if self.noise:
            params["noise"] = torch.randn(n, *self.shape, generator=generator) * self.noise
        if self.mask:
            params["kept"] = torch.rand(n, *self.shape, generator=generator) >= self.mask
        return params

    def _apply(self, x: Tensor, params: Params) -> Tensor:
        if "noise" in params:
            x = x + _send(params["noise"], x).to(x.dtype)
        return x * _send(params["kept"], x) if "kept" in params else x


# Our choices, but for the crop, the two operations and the cutout, which are published for 32-pixel pictures.
_VIEWS: dict[str, tuple[type[Augment], dict[str, dict[str, Any]]]] = {
    "image": (Image, {"weak": {}, "strong": {"ops": 2, "cutout": 0.5}}),
    "audio": (Spectrogram, {"weak": {}, "strong": {"time_masks": 2, "band_masks": 2}}),
    "text": (NGrams, {"weak": {"drop": 0.1}, "strong": {"drop": 0.3}}),
    "table": (Features, {"weak": {"noise": 0.05}, "strong": {"noise": 0.1, "mask": 0.2}}),
    "embedding": (Features, {"weak": {"noise": 0.0, "mask": 0.1}, "strong": {"noise": 0.0, "mask": 0.3}}),
}


def augmentation(kind: Kind, shape: tuple[int, ...], name: View, **settings: Any) -> Augment:
    """The view called "none", "weak" or "strong" of rows of a kind: "image", "audio", "text" or "table".

    | kind | weak | strong, besides |
    |---|---|---|
    | image | crop from a frame of 1/8, flip (colour only) | 2 operations of RandAugment, cutout of 1/2 |
    | audio | shift by up to .1 of the time, gain by .1 standard deviations | 2 masks in time, 2 in bands, up to .15 |
    | text | a tenth of the n-grams dropped | three tenths instead |
    | table | noise of .05 standard deviations | of .1, and a fifth of the features blanked |

    Texts as vectors [D] (embeddings) lose features as n-grams are lost; their scale is unknown, so no noise is added.
    `settings` are those of `Image`, `Spectrogram`, `NGrams` and `Features`, and win over the table. Raises on an
    unknown kind, name or setting and on a shape that does not fit the kind.
    """
    if kind not in get_args(Kind):
        raise UnswayedError(f"kind is one of {', '.join(get_args(Kind))}", got=repr(kind))
    if name == "none":
        return Unchanged(shape)
    augment, views = _VIEWS["embedding" if kind == "text" and len(shape) == 1 else kind]
    if name not in views:
        raise UnswayedError("a view is called none, weak or strong", got=repr(name))
    check_settings(settings, keyword_settings(augment), f"{kind} views")
    return augment(shape, **views[name] | settings)


def _send(params: Tensor, x: Tensor) -> Tensor:
    return send(params, x.device)


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise UnswayedError(f"{name} in [{low}, {high:g}]", got=value)
    return value
