"""Edge masks as pictures: a row a class, a column an input of the head, a mark for every edge that is kept."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from unswayed.errors import UnswayedError
from unswayed.report.evidence import Mask
from unswayed.report.results import Run, Section
from unswayed.report.summary import count, percent

MOST_CELLS = 2**18  # of a picture: some 30 kB
MOST_NAMES = 20  # rows that are high enough for the names of their classes
INK = (58, 132, 214)  # seen on the light and on the dark ground, so that one picture serves both


@dataclass(frozen=True)
class Picture:
    """A mask after an epoch (counted from 1), as a PNG in a data address, and in words."""

    epoch: int
    source: str
    words: str


@dataclass(frozen=True)
class Strip:
    """The pictures of one arm: after the first, the middle and the last epoch of its first seed."""

    arm: int
    name: str
    seed: int
    names: tuple[str, ...]  # of the rows; empty where there are too many
    rows: int
    note: str
    pictures: tuple[Picture, ...]


def strips(section: Section) -> list[Strip]:
    """The pictures of every arm that has masks."""
    found = []
    for i, arm in enumerate(section.arms):
        run = next((run for run in arm.runs if run.masks or run.evidence.masks), None)
        if run is not None and (masks := pick(masks_of(run), len(run.history))):
            found.append(_strip(i, run, masks, section.data.classes))
    return found


def masks_of(run: Run) -> dict[int, Mask]:
    """The masks of a run by epoch (from 0), `[K, d]`: from its result where it has them, else from its masks.npz."""
    return run.evidence.masks or ({} if run.masks is None else read_masks(run.masks))


def read_masks(path: Path) -> dict[int, Mask]:
    """The masks in a run's masks.npz by epoch (from 0), `[K, d]`; raises UnswayedError for a damaged file."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            rows, columns = (int(size) for size in file["shape"])
            flat = np.unpackbits(file["bits"], axis=1, count=rows * columns).astype(np.bool_)
            return dict(zip(file["epochs"].tolist(), flat.reshape(-1, rows, columns), strict=True))
    except (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, BadZipFile) as error:
        do = "run that arm and seed again, or remove the file"
        raise UnswayedError(f"{path}: expected packed masks", got=f"a damaged file ({error})", do=do) from error


def pick(masks: dict[int, Mask], epochs: int) -> dict[int, Mask]:
    """The masks after the first, the middle and the last of so many epochs, those of them that there are."""
    return {epoch: masks[epoch] for epoch in sorted({0, (epochs - 1) // 2, epochs - 1}) if epoch in masks}


def png(mask: Mask) -> bytes:
    """A mask `[K, d]` as a PNG of d x K pixels, one bit each: kept edges in ink, masked ones transparent."""
    from PIL import Image  # only where there are masks: it takes a while to import

    image = Image.frombytes("P", mask.shape[::-1], mask.astype(np.uint8).tobytes())
    image.putpalette([0, 0, 0, *INK])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=1, transparency=0, optimize=True)
    return buffer.getvalue()


def _strip(arm: int, run: Run, masks: dict[int, Mask], classes: tuple[str, ...]) -> Strip:
    whole = next(iter(masks.values()))
    rows, all_classes = max(1, min(len(whole), MOST_CELLS // whole.shape[1])), max(len(whole), run.evidence.classes)
    cut = f"The first {count(rows)} of {count(all_classes)} classes are shown." if rows < all_classes else ""
    names = classes[:rows] if len(classes) == all_classes and rows <= MOST_NAMES else ()
    pictures = [_picture(run, epoch + 1, mask, rows) for epoch, mask in masks.items()]
    return Strip(arm, run.name, run.seed, names, rows, cut, tuple(pictures))


def _picture(run: Run, epoch: int, mask: Mask, rows: int) -> Picture:
    source = f"data:image/png;base64,{base64.b64encode(png(mask[:rows])).decode()}"
    busy = mask.any(0).mean()
    words = (
        f"Mask of {run.name} after epoch {epoch}: {count(len(mask))} classes by {count(mask.shape[1])} inputs, "
        f"{percent(float(mask.mean()))} % of the edges kept; {percent(float(busy))} % of the inputs serve some class."
    )
    return Picture(epoch, source, words)
