"""A row as a person would look at it: a picture, a text, a sound, the cells of a table."""

from __future__ import annotations

from typing import Literal

import torch

from unswayed.data.dataset import Dataset, Kind, Preview
from unswayed.data.images import to_png
from unswayed.data.sounds import to_playable
from unswayed.errors import UnswayedError


def preview(dataset: Dataset, split: Literal["train", "test"], i: int) -> Preview:
    """Row `i` of a split, to be shown: PNG, a sound that browsers play, or text (UTF-8).

    >>> from unswayed.data import read
    >>> preview(read("wine"), "train", 0).content.decode().splitlines()[0]
    'alcohol: 14.23'
    """
    rows = dataset.train if split == "train" else dataset.test
    if rows is None or not 0 <= i < len(rows):
        raise UnswayedError(f"a row 0..{len(rows) - 1 if rows else -1} of the {split} rows", got=i)
    if dataset.kind == "image":
        return Preview("image/png", to_png(rows.x.rows(torch.tensor([i]))[0].cpu().numpy()))
    if rows.source is None:
        return Preview("text/plain", b"")
    return show_item(rows.source[i], dataset.kind)


def show_item(item: object, kind: Kind) -> Preview:
    """What a row's source holds, to be shown: a sound that browsers play, or text (UTF-8)."""
    if isinstance(item, Preview):
        return item
    if kind == "audio":
        return Preview(*to_playable(item))
    text = "\n".join(f"{name}: {value}" for name, value in item.items()) if isinstance(item, dict) else str(item)
    return Preview("text/plain", text.encode())
