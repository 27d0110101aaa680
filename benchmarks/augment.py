"""Batched views against a loop over samples: ratios of CPU time in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.augment [batch]

The loop does to each picture what published single-sample pipelines do, on tensors; each figure is the best of many
interleaved rounds, so the ratios survive a busy machine better than the absolute figures do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import best_seconds
from unswayed.data import pixels
from unswayed.data.augment import Augment, Params, augmentation


def crop_one_by_one(x: Tensor, params: Params, pad: int = 4) -> Tensor:
    """Pad, cut out and mirror each picture."""
    (height, width), shown = x.shape[2:], []
    places = zip(params["top"].tolist(), params["left"].tolist(), params["flip"].tolist(), strict=True)
    for row, (top, left, flip) in zip(x, places, strict=True):
        cut = F.pad(row, (pad,) * 4)[:, pad + top : pad + top + height, pad + left : pad + left + width]
        shown.append(cut.flip(-1) if flip else cut)
    return torch.stack(shown)


def one_by_one(view: Augment) -> Callable[[Tensor, Params], Tensor]:
    """The view itself, on batches of one."""

    def apply(x: Tensor, params: Params) -> Tensor:
        parts = [{name: value[i : i + 1] for name, value in params.items()} for i in range(len(x))]
        return torch.cat([view.apply(x[i : i + 1], part) for i, part in enumerate(parts)])

    return apply


def compare(title: str, x: Tensor, view: Augment, slow: Callable[[Tensor, Params], Tensor]) -> None:
    params = view.draw(len(x), torch.Generator().manual_seed(0))
    if not torch.equal(view.apply(x, params), slow(x, params)):
        raise SystemExit(f"{title}: the loop and the batch disagree")
    calls = {
        "draw": lambda: view.draw(len(x), torch.Generator().manual_seed(0)),
        "batch": lambda: view.apply(x, params),
        "loop": lambda: slow(x, params),
    }
    seconds = best_seconds(calls, rounds=15)
    rate = {name: len(x) / taken / 1000 for name, taken in seconds.items()}
    ratio = seconds["loop"] / (seconds["draw"] + seconds["batch"])
    print(f"{title:34} {rate['loop']:9.1f} {rate['batch']:9.1f} {rate['draw']:9.0f} {ratio:7.1f} x")


def main() -> None:
    torch.set_num_threads(1)
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    shape = (3, 32, 32)
    x = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
    print(f"thousand samples a CPU-second, batch {batch}; the ratio is loop / (draw + batch)")
    print(f"{'':34} {'loop':>9} {'batch':>9} {'draw':>9} {'ratio':>9}")
    weak = augmentation("image", shape, "weak")
    compare("crop and flip, 8 bit", x, weak, crop_one_by_one)
    compare("crop and flip, float32", x / 255, weak, crop_one_by_one)
    for title, settings in (
        ("crop, flip, turn of 20 degrees", {"rotate": 20}),
        ("strong: 2 operations, cutout", {"ops": 2, "cutout": 0.5}),
        ("strong, shapes only", {"ops": 2, "cutout": 0.5, "among": pixels.OPERATIONS[8:]}),
    ):
        view = augmentation("image", shape, "weak", **settings)
        compare(title, x, view, one_by_one(view))
    for kind, size in (("audio", (1, 40, 100)), ("table", (30,))):
        view = augmentation(kind, size, "strong")  # type: ignore[arg-type]
        compare(f"strong {kind} {list(size)}", torch.rand(batch, *size), view, one_by_one(view))


if __name__ == "__main__":
    main()
