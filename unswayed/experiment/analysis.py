"""Analyses of a run (the figures of arXiv 2508.09697): what wrong labels do to it, epoch by epoch, and its masks.

They look and change nothing: the trained model is the same to the last bit. True labels serve to score only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unswayed.batches import seed_of
from unswayed.data.columns import Column, TensorColumn
from unswayed.engine import Record
from unswayed.errors import UnswayedError
from unswayed.experiment.config import Config
from unswayed.experiment.evidence import BINS
from unswayed.experiment.masks import MaskBook
from unswayed.experiment.task import Task
from unswayed.heads.inspection import (
    density,
    find_masks,
    label_gradients,
    last_layer,
    overlap,
    overlap_matrix,
    turnover,
)
from unswayed.machine import Place
from unswayed.method import Batch, Method, Stage
from unswayed.prediction import predict
from unswayed.stats.gradients import gradient_cosine, gradient_error
from unswayed.stats.memorisation import confidence, memorisation_rate

ROWS = 2048  # our choice: enough for a steady mean, few enough to cost some percent of an epoch
MOST_CLASSES = 20  # of which a matrix is kept
_DRAW = 5  # what a seed is used for (0 to 3: the task; 4: the weights)


class Analysis:
    """Measures a method after every epoch on up to 2,048 training rows, drawn by the run's seed, whose truth is known.

    gradient_cosine, gradient_error   of the gradient under the given labels against the one under the true labels, at
                                      the last layer of `method.net` before its head: cosine, and |g - g'| / |g'|.
                                      By `method.loss` on rows as stored (no augmentation), its penalties included, in
                                      training mode, in parts of the run's batch size, in stages that train by it
    confidence_clean, confidence_wrong  mean probability of the given label, by what evaluation uses
    memorisation                      share of wrongly labelled rows that are predicted as their wrong label
    mask_density, mask_turnover, mask_overlap   of the mask of `method.net` (its last, if there are several): edges
                                      kept, edges new since the epoch before, mean Jaccard index of two classes

    What cannot be measured is left out, and `notes` say why. The masks themselves go to `folder`/masks.npz.
    """

    def __init__(
        self, config: Config, method: Method, task: Task, place: Place, *, folder: Path | None, resume: bool = False
    ) -> None:
        settings = config.training(task.dataset.kind, len(task.train))
        self.place, self.size, self.plan = place, settings.batch, method.plan(settings.epochs)
        given, truth = task.train.given, task.train.truth
        self.at = draw_known(given if truth is None else truth, seed_of(config.seed, _DRAW))[
            : 0 if truth is None else ROWS
        ]
        self.x = _rows(task.train.x, self.at, place)
        self.given, self.truth = given[self.at], self.at if truth is None else truth[self.at]
        self.layer, self.notes = self._find_layer(method)
        self.book = MaskBook(None if folder is None else folder / "masks.npz", resume=resume)

    def _find_layer(self, method: Method) -> tuple[str | None, list[str]]:
        if not len(self.at):
            unknown = "gradients, confidence and memorisation are not measured"
            return None, [f"No true label of a training row is known: {unknown}."]
        if not bool((self.given != self.truth).any()):
            return None, ["No label among the rows looked at is wrong, so there is nothing that could be memorised."]
        if len(self.at) < 2:
            return None, ["The true label of one row alone is known, too few for a gradient."]
        body = getattr(method.net, "body", None)
        try:
            layer = f"net.body.{last_layer(body)}".rstrip(".") if isinstance(body, nn.Module) else None
        except UnswayedError:
            layer = None
        if layer is None:
            return None, ["The network has no layer before its head that learns: gradients are not measured."]
        if not any(_trains_by_loss(stage, method) for stage in self.plan):
            return None, ["The method's stages have losses of their own: gradients are not measured."]
        return layer, []

    def __call__(self, method: Method, record: Record) -> dict[str, float]:
        """What is measured of `method` after the epoch of `record`."""
        if not self.place.first:
            return {}
        found = {**self._labels(method), **self._gradients(method, record), **self._mask(method, record)}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def about(self) -> dict[str, Any]:
        """On how many rows it was measured, how many of them are labelled wrong, at which layer; and what to know."""
        wrong = int((self.given != self.truth).sum())
        return {"rows": len(self.at), "wrong": wrong, "layer": self.layer, "notes": self.notes}

    def conclude(self, method: Method) -> dict[str, Any]:
        """What the trained `method` shows at the end: how sure it is of the given labels, and what its masks share.

        `confidence` counts rows labelled right and wrong by the probability of the given label, in ten equal bins;
        `mask` has shape [K, d], the share of edges that each class keeps, and how much two classes share, [K, K].
        """
        found: dict[str, Any] = {"confidence": None, "mask": None}
        if not self.place.first:
            return found
        if len(self.at):
            sure = self._probabilities(method).gather(1, self.given[:, None])[:, 0]
            bins = (sure * BINS).long().clamp(0, BINS - 1)
            wrong = self.given != self.truth
            parts = (("right", bins[~wrong]), ("wrong", bins[wrong]))
            found["confidence"] = {name: torch.bincount(part, minlength=BINS).tolist() for name, part in parts}
        if masks := list(find_masks(method.net).values()):
            found["mask"] = _about_mask(masks[-1].cpu())
        return found

    def _probabilities(self, method: Method) -> Tensor:
        return predict(method, self.x, place=self.place).softmax(1).cpu()

    def _labels(self, method: Method) -> dict[str, float]:
        if not len(self.at):
            return {}
        probs = self._probabilities(method)
        sure = confidence(probs, self.given, self.truth)
        learnt = memorisation_rate(probs, self.given, self.truth)
        return {"confidence_clean": sure.clean, "confidence_wrong": sure.wrong, "memorisation": learnt}

    def _gradients(self, method: Method, record: Record) -> dict[str, float]:
        stage, epoch = _stage_at(self.plan, record.epoch)
        if self.layer is None or not _trains_by_loss(stage, method):
            return {}
        device, progress = self.place.device, (record.epoch + 1) / record.epochs

        def loss(twin: nn.Module, rows: Tensor, y: Tensor) -> Tensor:
            assert isinstance(twin, Method)
            x, ones = self.x.rows(rows).to(device), torch.ones(len(rows), device=device)
            index = self.at[rows].to(device)
            return twin.loss(Batch((x,) * len(stage.views), y.to(device), index, ones, epoch, progress))

        rows = torch.arange(len(self.at))
        noisy, clean = label_gradients(method, self.layer, loss, rows, self.given, self.truth, size=self.size)
        return {"gradient_cosine": gradient_cosine(noisy, clean), "gradient_error": gradient_error(noisy, clean)}

    def _mask(self, method: Method, record: Record) -> dict[str, float]:
        masks = list(find_masks(method.net).values())
        if not masks:
            return {}
        mask = masks[-1].cpu()
        before = self.book.add(record.epoch, record.epochs, mask)
        changed = math.nan if before is None else turnover(torch.from_numpy(before), mask)
        return {"mask_density": density(mask), "mask_turnover": changed, "mask_overlap": overlap(mask)}


def _about_mask(mask: Tensor) -> dict[str, Any]:
    matrix = None
    if len(mask) <= MOST_CLASSES:
        matrix = [[round(value, 4) for value in row] for row in overlap_matrix(mask).tolist()]
    kept = [round(value, 4) for value in (mask != 0).double().mean(1).tolist()]
    return {"shape": list(mask.shape), "kept": kept, "overlap": matrix}


def draw_known(truth: Tensor, seed: int) -> Tensor:
    """The numbers of all rows of known truth (0 or more), in an order drawn by `seed`: [N] -> [M]."""
    known = (truth >= 0).nonzero()[:, 0]
    return known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]


def _rows(x: Column, at: Tensor, place: Place) -> Column:
    """The rows to look at: those in memory once on the device, others where they are."""
    chosen = x.take(at)
    return TensorColumn(chosen.rows(torch.arange(len(at)))).to(place.device) if x.in_memory else chosen


def _stage_at(plan: list[Stage], epoch: int) -> tuple[Stage, int]:
    """The stage that an epoch of the whole plan belongs to, and which of its epochs it is."""
    for stage in plan:
        if epoch < stage.epochs:
            return stage, epoch
        epoch -= stage.epochs
    return plan[-1], epoch


def _trains_by_loss(stage: Stage, method: Method) -> bool:
    return stage.loss == method.loss
