"""Rows as features that no label took part in: what neighbours and probes of an audit look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from unswayed.data.dataset import Dataset
from unswayed.data.encoder import encode_data
from unswayed.data.features import with_rows
from unswayed.data.latent import latent_features
from unswayed.data.patches import PATCH, SIDE
from unswayed.experiment.config import Config

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The progress of those who do not look."""


def frozen(dataset: Dataset, config: Config, progress: Progress = silent) -> Dataset:
    """The data set with features as its rows that no label took part in.

    Pictures and sounds: k-means on patches, smaller ones their standardised pixels; texts: latent semantic analysis;
    tables, ready-made features and those of a named encoder: their columns. All are scaled to mean 0, deviation 1.
    """
    rows, cache = replace(dataset, test=None), config.reader.get("cache")
    if dataset.kind == "text":
        progress("analysing texts", 0, 1)
        found = latent_features(dataset.train.x)
        progress("analysing texts", 1, 1)
        return with_rows(rows, [found], f"texts as {found.shape[1]} latent features")
    if dataset.kind == "table":
        return with_rows(rows, [dataset.train.x.rows(torch.arange(len(dataset.train))).float()], "")
    if min(dataset.train.x.shape[1:]) >= PATCH + SIDE - 1:
        return encode_data(rows, "patches", cache=cache, progress=progress)
    pixels = torch.cat([dataset.train.x.rows(at) for at in torch.split(torch.arange(len(dataset.train)), 4096)])
    return with_rows(rows, [pixels.float().flatten(1)], "too small for patches: pixels as features")
