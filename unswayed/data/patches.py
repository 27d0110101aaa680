"""Frozen features of pictures and sounds without a pre-trained network: k-means on patches. No label takes part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from unswayed.data.columns import Column
from unswayed.errors import UnswayedError

PATCH, SIDE = 6, 2  # pixels of a patch; the pooled map is SIDE x SIDE
LOOK, AT_A_TIME = 4000, 50  # rows that the patches are drawn from, and rows encoded at a time

Tell = Callable[[int, int], None]


def patch_features(
    train: Column,
    test: Column | None = None,
    *,
    centroids: int = 200,
    width: int | None = 128,
    seed: int = 0,
    tell: Tell | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Single-layer features of Coates, Lee and Ng (AISTATS 2011): rows [C, H, W] -> [N, width] float32 on the CPU.

    Whitened 6 x 6 patches, k-means, the "triangle" activation, means over the four quadrants, which are
    4 * centroids numbers; of these the first `width` principal components of the training rows (None: all), but half
    as many as there are rows at most, since the last ones would be rounding. Sounds are pictures of one channel.
    Our choices: 200 centroids and 128 components, with which 10,000 pictures take a minute; rows that are not 8-bit are
    scaled to 0..255, by the training rows. `tell(done, total)` is called on the way. Raises UnswayedError for rows
    smaller than a patch.
    """
    if len(train.shape) != 3 or min(train.shape[1:]) < PATCH + SIDE - 1:
        do = "make them larger (--size), or choose another encoder"
        raise UnswayedError(f"pictures or sounds of {PATCH + SIDE - 1} pixels or more a side", got=train.shape, do=do)
    generator = torch.Generator().manual_seed(seed)
    drawn = train.rows(torch.randperm(len(train), generator=generator)[:LOOK])
    low, unit = _scale(drawn)
    patches = _patches((drawn.float() - low) * unit)
    patches = _contrast(patches[torch.randperm(len(patches), generator=generator)[:100_000]])
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    whiten = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    centres = _k_means((patches - mean) @ whiten, min(centroids, len(patches)), generator)

    parts = [part for part in (train, test) if part is not None]
    total, made, done = sum(map(len, parts)), [], 0
    for part in parts:
        chunks = []
        for at in torch.split(torch.arange(len(part)), AT_A_TIME):
            chunks.append(_encode((part.rows(at).float() - low) * unit, mean, whiten, centres))
            done += len(at)
            if tell is not None:
                tell(done, total)
        made.append(torch.cat(chunks))
    if width is not None and (width := min(width, (len(train) + 1) // 2)) < made[0].shape[1]:
        centre = made[0].mean(0)
        axes = torch.linalg.eigh(torch.cov((made[0] - centre).T)).eigenvectors[:, -width:]
        made = [(part - centre) @ axes for part in made]
    return made[0], made[1] if test is not None else None


def _scale(rows: Tensor) -> tuple[float, float]:
    """What to take off rows, and what to multiply them by, so that they lie about 0..255: (0, 1) for 8-bit ones."""
    if rows.dtype == torch.uint8:
        return 0.0, 1.0
    low, high = float(rows.min()), float(rows.max())
    return low, 255 / (high - low) if high > low else 1.0


def _patches(images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N * places, C * 36]."""
    return F.unfold(images, PATCH).transpose(1, 2).reshape(-1, images.shape[1] * PATCH * PATCH)


def _contrast(patches: Tensor) -> Tensor:
    return (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 10).sqrt()


def _k_means(points: Tensor, count: int, generator: torch.Generator, rounds: int = 15) -> Tensor:
    centres = points[torch.randperm(len(points), generator=generator)[:count]]
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in torch.split(points, 10_000)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centres)
    return centres


def _encode(images: Tensor, mean: Tensor, whiten: Tensor, centres: Tensor) -> Tensor:
    places = images.shape[-2] - PATCH + 1, images.shape[-1] - PATCH + 1
    distance = torch.cdist((_contrast(_patches(images)) - mean) @ whiten, centres)
    active = F.relu(distance.mean(1, keepdim=True) - distance)
    grid = active.reshape(len(images), *places, -1).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(grid, SIDE).flatten(1)
