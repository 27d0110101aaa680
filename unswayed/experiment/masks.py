"""The edge masks of a run in one small file, masks.npz: `epochs` [E], `shape` [2] and `bits` [E, bytes], packed.

Or as plain data for JSON, which holds those that are pictured.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unswayed.writing import replacing

ROOM = 2**16  # bytes for the latest masks, beside those of the first, the middle and the last epoch

Mask = NDArray[np.bool_]


class MaskBook:
    """Masks by epoch: the first, the middle and the last, and the latest, so that a resumed run finds the one before.

    Without a `path` nothing is written. With `resume` the book goes on from its file.
    """

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        self.path = path
        self.masks: dict[int, Mask] = read_masks(path) if path is not None and resume else {}

    def add(self, epoch: int, epochs: int, mask: Tensor) -> Mask | None:
        """Keep the mask of an epoch (of so many), `[K, d]`; the one of the epoch before comes back, if it is known."""
        earlier = {e: kept for e, kept in self.masks.items() if e < epoch}  # a resumed run does later ones again
        self.masks = {**earlier, epoch: mask.cpu().numpy().astype(np.bool_)}
        latest = sorted(self.masks)[-max(2, ROOM // -(-mask.numel() // 8)) :]
        pictured = pictured_epochs(epochs)
        self.masks = {e: kept for e, kept in self.masks.items() if e in pictured or e in latest}
        if self.path is not None:
            write_masks(self.path, self.masks)
        return self.masks.get(epoch - 1)


def pictured_epochs(epochs: int) -> tuple[int, int, int]:
    """The first, the middle and the last of so many epochs."""
    return 0, (epochs - 1) // 2, epochs - 1


def pack_masks(masks: dict[int, Mask], epochs: int, most: int = 2**14) -> dict[str, Any] | None:
    """Masks of the pictured epochs as plain data: `shape` [K, d], and by epoch `bits` in base 64; None without any.

    Only as many classes as have `most` edges together are kept, 2 kB an epoch; `classes` tells of how many.
    """
    kept = {epoch: masks[epoch] for epoch in sorted(set(pictured_epochs(epochs))) if epoch in masks}
    if not kept:
        return None
    classes, width = next(iter(kept.values())).shape
    rows = max(1, min(classes, most // width))
    bits = {str(e): base64.b64encode(np.packbits(mask[:rows]).tobytes()).decode() for e, mask in kept.items()}
    return {"shape": [rows, width], "classes": classes, "bits": bits}


def write_masks(path: Path, masks: dict[int, Mask]) -> None:
    """Replace the file; all masks have one shape."""
    epochs = sorted(masks)
    bits = np.stack([np.packbits(masks[epoch]) for epoch in epochs])
    with replacing(path) as file:
        np.savez_compressed(file, epochs=np.array(epochs), shape=np.array(masks[epochs[0]].shape), bits=bits)


def read_masks(path: Path) -> dict[int, Mask]:
    """The masks by epoch; none where there is no file or a damaged one, for it holds pictures and no results."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            shape, size = tuple(file["shape"].tolist()), int(file["shape"].prod())
            masks = [np.unpackbits(bits, count=size).astype(np.bool_).reshape(shape) for bits in file["bits"]]
            return dict(zip(file["epochs"].tolist(), masks, strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}
