"""Evidence from folds: every row is judged by a model that never saw its label, and watched by those that learn it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unswayed.batches import seed_of
from unswayed.checkpoint import read_state, write_state
from unswayed.data.dataset import Dataset, Split
from unswayed.engine import Record
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.features import Progress, silent
from unswayed.experiment.run import build, train
from unswayed.experiment.task import Task
from unswayed.experiment.workers import Tell, work_side_by_side
from unswayed.machine import Place, find_place
from unswayed.method import Method
from unswayed.prediction import predict
from unswayed.stats.rows import row_buffers
from unswayed.stats.trajectories import Trajectories

FOLDS = 5
_DEAL, _FOLD = 6, 7  # what a seed is used for (0 to 5: the task and a run)


@dataclass(frozen=True)
class Evidence:
    """What the models of all folds say of every row."""

    probs: Tensor  # [N, K] by the model that never saw the row
    dynamics: Trajectories  # of the models that trained on the row, added up
    curves: Tensor  # [N, E] float16: the probability of the given label after every epoch, mean of those models


def deal_folds(labels: Tensor, folds: int, *, seed: int = 0) -> Tensor:
    """A fold for every row, so that each has its share of every class: labels [N] -> [N] in 0..folds-1.

    A class with fewer rows than folds lies in as many folds as it has rows. Raises UnswayedError for fewer rows than
    folds.

    >>> folds = deal_folds(torch.tensor([0, 0, 1, 1, 1, 1]), 2)
    >>> [torch.bincount(folds[rows]).tolist() for rows in (slice(0, 2), slice(2, 6))]
    [[1, 1], [2, 2]]
    """
    if folds < 2:
        raise UnswayedError("2 folds or more", got=folds)
    if len(labels) < folds:
        do = f"give more rows, or --folds {len(labels)}" if len(labels) > 3 else "give more rows"
        raise UnswayedError(f"{folds} rows or more for {folds} folds", got=len(labels), do=do)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed_of(seed, _DEAL)))
    order = order[labels[order].argsort(stable=True)]  # class after class: the folds of one begin where the last ended
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels)) % folds
    return fold


def make_evidence(
    dataset: Dataset,
    config: Config,
    folder: Path | None = None,
    *,
    folds: int = FOLDS,
    jobs: int = 1,
    progress: Progress = silent,
) -> Evidence:
    """Train the arm of `config` once a fold on all other rows, `jobs` at a time, and gather what the models say.

    Each finished fold is kept in `folder` (fold-0.safetensors, ...), and not trained again where it is there. True
    labels and test rows are taken off before anything else. A class with a single row is unknown to the model that
    judges that row: it then has the probability 1 / K.
    """
    rows = _blind(dataset)
    fold = deal_folds(rows.train.given, folds, seed=config.seed)
    epochs = config.training(rows.kind, len(rows.train)).epochs
    work = functools.partial(_train_fold, rows=rows, config=config, fold=fold, folder=folder)
    found = {number: kept for number in range(folds) if (kept := _kept(folder, number)) is not None}
    todo, done = [number for number in range(folds) if number not in found], dict.fromkeys(found, epochs)
    what = f"training {folds} folds"

    def listen(news: tuple[int, int] | tuple[int, dict[str, Tensor]]) -> None:
        number, told = news
        done[number] = min(told, epochs) if isinstance(told, int) else epochs
        if not isinstance(told, int):
            found[number] = told
        progress(what, sum(done.values()), folds * epochs)

    progress(what, sum(done.values()), folds * epochs)
    if jobs > 1 and len(todo) > 1:
        work_side_by_side(work, todo, min(jobs, len(todo)), listen)
    else:
        for number in todo:
            work(number, listen)
    return _gather([found[number] for number in range(folds)], fold, len(rows.classes))


def _blind(dataset: Dataset) -> Dataset:
    """The training rows and their given labels: all that a model may see."""
    train = Split(dataset.train.x, dataset.train.given, None, dataset.train.rows)
    return Dataset(dataset.name, dataset.kind, dataset.classes, train, None, names=dataset.names)


def _train_fold(number: int, tell: Tell, *, rows: Dataset, config: Config, fold: Tensor, folder: Path | None) -> None:
    """One model, trained on all folds but one; tells (fold, epochs done), and last (fold, what it says)."""
    learned, held = (fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0]
    config = replace(config, seed=seed_of(config.seed, _FOLD, number) % 2**31)
    part = replace(rows, train=rows.train.take(learned))
    task = Task(part, part.train, None, "given", None, torch.zeros(0, dtype=torch.int64))
    place, curve = find_place(config.device, config.precision), list[Tensor]()
    method = build(config, parse_arm(config.arm), task)
    dynamics = Trajectories(len(learned), len(rows.classes))

    def look(method: Method, record: Record) -> dict[str, float]:
        note()
        tell((number, record.epoch + 1))
        return {}

    def note() -> None:
        logits, given = _logits(method, part.train, place), part.train.given
        dynamics.update(logits, given, torch.arange(len(given)))
        curve.append(logits.softmax(1).gather(1, given[:, None])[:, 0].half())

    train(config, method, task, place, analysis=look)
    if not curve:  # a method without epochs
        note()
    seen = torch.bincount(part.train.given, minlength=len(rows.classes)) > 0
    probs = _doubt_unseen(_logits(method, rows.train.take(held), place).softmax(1), seen)
    found = {"probs": probs, "curves": torch.stack(curve, 1)}
    found |= {f"dynamics/{name}": value for name, value in row_buffers(dynamics).items()}
    if folder is not None:
        write_state(_file(folder, number), found, {"fold": number})
    tell((number, found))


def _logits(method: Method, rows: Split, place: Place) -> Tensor:
    return predict(method, rows.x, size=4096 if len(rows.x.shape) == 1 else 512, place=place).cpu()


def _doubt_unseen(probs: Tensor, seen: Tensor) -> Tensor:
    """Classes that a model was never shown have the probability 1 / K each, the others share what is left."""
    classes = len(seen)
    unseen = (~seen).to(probs.dtype) / classes
    known = probs * seen
    return known / known.sum(1, keepdim=True).clamp_min(1e-12) * (1 - unseen.sum()) + unseen


def _file(folder: Path, number: int) -> Path:
    return folder / f"fold-{number}.safetensors"


def _kept(folder: Path | None, number: int) -> dict[str, Tensor] | None:
    if folder is None or not _file(folder, number).exists():
        return None
    return read_state(_file(folder, number))[0]


def _gather(found: Sequence[dict[str, Tensor]], fold: Tensor, classes: int) -> Evidence:
    """The folds' tensors in the rows of the whole."""
    samples, epochs = len(fold), max(one["curves"].shape[1] for one in found)
    probs, curves = torch.zeros(samples, classes), torch.zeros(samples, epochs)
    dynamics = Trajectories(samples, classes)
    whole = row_buffers(dynamics)
    for number, one in enumerate(found):
        learned = fold != number
        probs[~learned] = one["probs"]
        curve = one["curves"].float()
        late = curve[:, -1:].expand(-1, epochs - curve.shape[1])  # of a method that chose to stop earlier
        curves[learned] += torch.cat([curve, late], 1)
        for name, total in whole.items():
            total[learned] += one[f"dynamics/{name}"]
    return Evidence(probs, dynamics, (curves / (len(found) - 1)).half())
