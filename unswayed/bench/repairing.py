"""A trained network repaired in all ways, beside its controls, for a cell; ways that are done are not done again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unswayed.bench.grid import Cell
from unswayed.engine import Outcome
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.run import build, train
from unswayed.experiment.task import Task
from unswayed.machine import Place
from unswayed.method import Method
from unswayed.writing import write_json

TOLD = ("name", "accuracy", "seconds", "seconds_an_epoch", "pruned", "rows")  # of a way of repair


def repair_cell(
    cell: Cell,
    task: Task,
    method: Method,
    outcome: Outcome,
    place: Place,
    bad: Tensor | None,
    *,
    side: Path | None,
    save_seconds: float,
) -> dict[str, Any]:
    """The network of the trained `method` repaired in all ways, beside its controls; the test rows only score.

    `bad` [N] are the rows with corrupted inputs, None: those with wrong labels are looked for. Every way is kept in
    `side` when it is done, and training anew has its checkpoint there, so that a killed cell goes on where it was.
    """
    from unswayed.mending import PUBLISHED, compare, diagnose
    from unswayed.mending.comparison import Trial

    asked = cell.more["repair"]
    network, train_, test = getattr(method, "net", None), task.train, task.test
    if not isinstance(network, nn.Module):
        raise UnswayedError("a method of one network `net` to repair", got=cell.arm, do="for example plain")
    how = dict(PUBLISHED) if asked.get("as_published") else {"evidence": "loss"}
    how |= {name: asked[name] for name in ("evidence", "layer") if name in asked}
    diagnosis = diagnose(network, train_.x, train_.given, seed=cell.seed, **how)
    retraining: list[Outcome] = []

    def retrain(rows: Tensor) -> tuple[nn.Module, int]:
        at = rows.nonzero()[:, 0]
        part = replace(task, train=train_.take(at), test=None, trusted=torch.zeros(0, dtype=torch.int64))
        fresh = build(cell.config, parse_arm(cell.config.arm), part)
        keep: dict[str, Any] = {"folder": side and side / "retrained", "resume": True, "save_seconds": save_seconds}
        retraining.append(train(cell.config, fresh, part, place, **keep))
        return fresh, len(retraining[-1].records)

    file = None if side is None else side / "repair.json"
    done = [Trial(**trial) for trial in _read(file)]

    def told(trial: Trial) -> None:
        if retraining and trial.name == "retrained":  # its clock knows nothing of what ran before a pause
            seconds, epochs = retraining[-1].seconds, len(retraining[-1].records)
            trial = replace(trial, seconds=diagnosis.seconds + seconds, seconds_an_epoch=seconds / epochs)
        done.append(trial)
        if file is not None:
            write_json(file, _plain(done))

    learning = {name: asked[name] for name in ("epochs", "lr", "batch") if name in asked}
    controls = asked.get("controls", True)
    compare(
        network, train_.x, train_.given, diagnosis, share=asked.get("share", 40 / 256), controls=controls,
        test=None if test is None or task.test_labels is None else (test.x, task.test_labels),
        retrain=retrain if controls else None, seed=cell.seed, known=tuple(done), told=told, **learning,
    )  # fmt: skip
    wrong = bad if bad is not None else None if train_.truth is None else train_.given != train_.truth
    clean = diagnosis.clean.cpu()
    return {
        "evidence": how["evidence"],
        "training_seconds": outcome.seconds,
        "kept": float(clean.float().mean()),
        "bad_rows": None if wrong is None else float(wrong.float().mean()),
        "bad_rows_in_clean_part": None if wrong is None or not clean.any() else float(wrong[clean].float().mean()),
        "trials": _plain(done),
        "notes": list(diagnosis.notes),
    }


def _plain(trials: Sequence[Any]) -> list[dict[str, Any]]:
    return [{name: getattr(one, name) for name in TOLD} for one in trials]


def _read(file: Path | None) -> list[dict[str, Any]]:
    """The ways that are done; none where there is no file, or none that fits."""
    try:
        found = [] if file is None else json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) and all(set(one) == set(TOLD) for one in found) else []
