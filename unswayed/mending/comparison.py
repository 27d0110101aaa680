"""Repair beside its controls: no repair, no pruning, random neurons, all rows, and training anew on the clean part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unswayed.data.columns import Column
from unswayed.mending.diagnosis import Diagnosis
from unswayed.mending.treatment import Repair, Tune, mend
from unswayed.prediction import accuracy

Retrain = Callable[[Tensor], tuple[nn.Module, int]]
"""Rows to train on [N] bool -> a network trained from scratch, and for how many epochs."""

NAMES: dict[Tune, str] = {"last": "L-FT", "all": "F-FT", "none": "no fine-tuning"}


@dataclass(frozen=True)
class Trial:
    """One way to treat the broken network, and what came of it."""

    name: str
    accuracy: float | None  # on the test rows, in [0, 1]
    seconds: float  # in all: diagnosis, where it was needed, and training
    seconds_an_epoch: float | None
    pruned: int
    rows: int  # trained on
    repair: Repair | None = None


def compare(
    model: nn.Module,
    x: Column | Tensor,
    y: Tensor,
    diagnosis: Diagnosis,
    *,
    share: float,
    test: tuple[Column | Tensor, Tensor] | None = None,
    tunes: Sequence[Tune] = ("last", "all"),
    controls: bool = True,
    retrain: Retrain | None = None,
    seed: int = 0,
    known: Sequence[Trial] = (),
    told: Callable[[Trial], None] = lambda trial: None,
    **settings: Any,
) -> list[Trial]:
    """Repair `model` in each way of `tunes`, the controls beside it; the first trial is the network as it was.

    Controls: fine-tuning without pruning, with as many neurons drawn at random in the place of the worst, and without
    pruning on all rows (does the clean part matter, or only the longer training?); and, with `retrain`, training from
    scratch on the clean part. `told` hears of every trial as it ends; those that are `known` from before, by name, are
    not done again. `settings` go to `mend`. Nothing is chosen by `test` (rows and labels): it only scores.
    """

    def score(network: nn.Module) -> float | None:
        return None if test is None else accuracy(network, *test)

    def note(trial: Trial) -> None:
        trials.append(trial)
        told(trial)

    def before(name: str) -> bool:
        trials.extend(found := [trial for trial in known if trial.name == name][:1])
        return bool(found)

    trials: list[Trial] = []
    worst = diagnosis.worst(share)
    drawn = torch.randperm(len(diagnosis.order), generator=torch.Generator().manual_seed(seed))[: len(worst)]
    none, everything = worst[:0], replace(diagnosis, clean=torch.ones_like(diagnosis.clean), seconds=0.0)
    if not before("before"):
        note(Trial("before", score(model), 0.0, None, 0, len(y)))
    for tune in tunes:
        ways = [("", diagnosis, worst)]
        if controls:
            ways += [
                (", no pruning", diagnosis, none),
                (", random neurons", diagnosis, drawn),
                (", all rows", everything, none),
            ]
        for what, found, neurons in ways:
            name = f"{NAMES[tune]}{what}"
            if before(name):
                continue
            done = mend(model, x, y, found, neurons, tune=tune, seed=seed, **settings)
            each = done.seconds / done.epochs if done.epochs else None
            seconds = found.seconds + done.seconds
            note(Trial(name, score(done.model), seconds, each, len(neurons), done.rows, done))
    if retrain is not None and not before("retrained"):
        clock = time.perf_counter()
        network, epochs = retrain(diagnosis.clean)
        seconds, rows = time.perf_counter() - clock, int(diagnosis.clean.sum())
        note(Trial("retrained", score(network), diagnosis.seconds + seconds, seconds / epochs, 0, rows))
    return trials
