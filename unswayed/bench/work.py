"""One cell: data in, a method trained (and maybe repaired), a result out. Runs in any process."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unswayed.bench.grid import Cell
from unswayed.bench.ground import Progress, make_ground, read_once
from unswayed.bench.memory import forget_peak, peak
from unswayed.bench.repairing import repair_cell
from unswayed.engine import Outcome, Record, Watcher
from unswayed.errors import UnswayedError
from unswayed.experiment.analysis import Analysis
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.automatic import settle
from unswayed.experiment.config import Config
from unswayed.experiment.evidence import score_evidence
from unswayed.experiment.masks import pack_masks
from unswayed.experiment.run import build, score, train
from unswayed.experiment.scoring import score_suspicion
from unswayed.experiment.task import Task
from unswayed.machine import Place, describe, find_place, versions
from unswayed.method import Method

SCHEMA = 1


def run_cell(
    cell: Cell,
    *,
    root: Path | None,
    side: Path | None,
    device: str,
    save_seconds: float,
    watch: Sequence[Watcher] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run one cell and tell what came of it; it goes on from the checkpoint in `side`, if there is one."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock, spent = time.monotonic(), time.process_time()
    place = find_place(device, cell.config.precision, compile=cell.config.compile)
    held = forget_peak(place)
    dataset = read_once(cell.config, root, progress)
    task, bad = make_ground(cell, dataset)
    chosen, advice = settle(cell.config, task)
    trained = _train(chosen, task, place, side=side, save_seconds=save_seconds, watch=watch)
    method, outcome, analysis = trained.method, trained.outcome, trained.analysis
    _, found = score(method, task, outcome, place)
    result = {
        "schema": SCHEMA,
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "trial": cell.trial,
        "config": cell.config.as_json(),
        "data": _about(task),
        "history": found["history"],
        "test": None if found["test"] is None else {k: v for k, v in found["test"].items() if k != "confusion"},
        "noise_rate": found["noise_rate"],
        "suspicion": found["suspicion"],
        "reliability": found["reliability"],
        "error_budget": found["error_budget"],
        "analysis": None if analysis is None else _analysed(analysis, method, outcome),
        "cost": {**found["cost"], "resumed": trained.resumed},
        "chosen": found["chosen"],
        "advice": None if advice is None else advice.as_json(),
        "parameters": sum(p.numel() for p in method.parameters()),
        "model": fingerprint(method),
        "notes": trained.notes,
    }
    if bad is not None:
        result |= _scored_by_inputs(method, task, bad, found["reliability"]["test"])
    if cell.kind == "repair":
        keep: dict[str, Any] = {"side": side, "save_seconds": save_seconds}
        result["repair"] = repair_cell(replace(cell, config=chosen), task, method, outcome, place, bad, **keep)
    return result | {
        "memory": held | peak(place),
        "wall_seconds": round(time.monotonic() - clock, 3),
        "cpu_seconds": round(time.process_time() - spent, 3),
        "versions": versions(),
        "machine": describe(),
        "started": started,
    }


# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Trained:
    """A trained method, how it went, and whether an earlier checkpoint was taken up."""

    method: Method
    outcome: Outcome
    analysis: Analysis | None
    resumed: bool
    notes: list[str]


def _train(
    config: Config, task: Task, place: Place, *, side: Path | None, save_seconds: float, watch: Sequence[Watcher]
) -> Trained:
    """Train from the checkpoint in `side`; from the start where there is none, or one that does not fit the code."""

    def attempt(resume: bool, notice: Callable[[Record], None] = lambda record: None) -> Trained:
        method = build(config, parse_arm(config.arm), task)
        looks = Analysis(config, method, task, place, folder=side, resume=resume) if config.analyse else None
        keep: dict[str, Any] = {"folder": side, "resume": resume, "save_seconds": save_seconds, "analysis": looks}
        outcome = train(config, method, task, place, watch=[notice, *watch], **keep)
        return Trained(method, outcome, looks, resume, [])

    if side is None or not (side / "checkpoint.safetensors").exists():
        return attempt(resume=False)
    went_on: list[int] = []
    try:
        return attempt(True, lambda record: went_on.append(record.epoch))
    except torch.OutOfMemoryError:
        raise
    except (UnswayedError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if went_on:
            raise
        shutil.rmtree(side, ignore_errors=True)  # of another version, or damaged: it will never do
        why = " ".join(str(error).split())
        note = f"A checkpoint of another version, or a damaged one, was left; training began anew ({why[:300]})."
        return replace(attempt(resume=False), notes=[note])


def _analysed(analysis: Analysis, method: Method, outcome: Outcome) -> dict[str, Any]:
    return {
        **analysis.about(),
        **analysis.conclude(method),
        "masks": pack_masks(analysis.book.masks, len(outcome.records)),
    }


# ------------------------------------------------------------------------------------------------ what is told


def _about(task: Task) -> dict[str, Any]:
    classes = task.dataset.classes
    return {
        "name": task.dataset.name,
        "kind": task.dataset.kind,
        "classes": len(classes),
        "names": list(classes[:20]),
        "train": len(task.train),
        "test": 0 if task.test is None else len(task.test),
        "trusted": len(task.trusted),
        "noise": task.noise,
        "notes": list(task.dataset.notes),
    }


def _scored_by_inputs(method: Method, task: Task, bad: Tensor, test: dict[str, Any] | None) -> dict[str, Any]:
    """Where inputs are corrupted, the rows to be found are those [N] bool, and not wrong labels."""
    suspicion, right = _suspicion(method, task), torch.zeros(len(bad), dtype=torch.int64)
    found = score_evidence(suspicion, bad)
    found["reliability"]["test"] = test
    return {"suspicion": score_suspicion(suspicion, bad.long(), right), **found}


def _suspicion(method: Method, task: Task) -> Tensor:
    """How suspicious every row is to the method; without a word of its own, how improbable its label was."""
    found = method.suspicion()
    if found is None:
        probabilities = method.dynamics.mean_probabilities()
        if probabilities is None:
            return torch.zeros(len(task.train))
        found = 1 - probabilities.cpu().gather(1, task.train.given[:, None])[:, 0]
    return found.cpu()


def fingerprint(method: nn.Module) -> str:
    """A hash of all parameters and buffers: equal for equal models, bit by bit."""
    made = hashlib.sha256()
    for name, value in sorted(method.state_dict().items()):
        made.update(name.encode())
        made.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:32]
