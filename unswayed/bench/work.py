"""One cell: data in, a method trained (and maybe repaired), a result out. Runs in any process."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unswayed.batches import seed_of
from unswayed.bench.grid import Cell
from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset
from unswayed.engine import Outcome, Record, Watcher
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.run import build, score, train
from unswayed.experiment.scoring import score_suspicion
from unswayed.experiment.task import Task, hold_out, make_task, read_data
from unswayed.machine import Place, describe, find_place, versions
from unswayed.method import Method
from unswayed.noise.inputs import spoil_inputs

ROOT = "{root}"
SCHEMA = 1
_TRIAL, _INPUTS = 6, 7  # what a seed is used for (0 to 5: the task and the run)


def run_cell(
    cell: Cell, *, root: Path | None, side: Path | None, device: str, save_seconds: float, watch: Sequence[Watcher] = ()
) -> dict[str, Any]:
    """Run one cell and tell what came of it; it goes on from the checkpoint in `side`, if there is one."""
    dataset = read_once(cell.config, root)
    task, bad = make_ground(cell, dataset)
    place = find_place(device, cell.config.precision)
    resumed = side is not None and (side / "checkpoint.safetensors").exists()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.monotonic()
    forget_peak(place)
    method = build(cell.config, parse_arm(cell.config.arm), task)
    keep: dict[str, Any] = {"folder": side, "resume": True, "save_seconds": save_seconds, "watch": watch}
    outcome = train(cell.config, method, task, place, **keep)
    _, found = score(method, task, outcome, place)
    suspicion = found["suspicion"]
    if bad is not None:  # the rows to be found are those with corrupted inputs
        suspicion = score_suspicion(_suspicion(method, task), bad.long(), torch.zeros(len(bad), dtype=torch.int64))
    result = {
        "schema": SCHEMA,
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "trial": cell.trial,
        "config": cell.config.as_json(),
        "data": _about(task),
        "history": [_epoch(record) for record in outcome.records],
        "test": None if found["test"] is None else {k: v for k, v in found["test"].items() if k != "confusion"},
        "noise_rate": found["noise_rate"],
        "suspicion": suspicion,
        "cost": {**found["cost"], "resumed": resumed},
        "chosen": found["chosen"],
        "parameters": sum(p.numel() for p in method.parameters()),
        "model": fingerprint(method),
    }
    if cell.kind == "repair":
        result["repair"] = _repair(cell, task, method, outcome, place, bad)
    return result | {
        "memory": peak(place),
        "wall_seconds": round(time.monotonic() - clock, 3),
        "versions": versions(),
        "machine": describe(),
        "started": started,
    }


# ------------------------------------------------------------------------------------------------ rows


def read_once(config: Config, root: Path | None) -> Dataset:
    """The data of a cell; those of the last few cells of this process are still there."""
    asked = {
        "data": _placed(config.data, root),
        "reader": config.reader,
        "encoder": config.encoder,
        "features": [_placed(file, root) for file in config.features],
    }
    return _read(json.dumps(asked, sort_keys=True))


@lru_cache(maxsize=3)
def _read(asked: str) -> Dataset:
    return read_data(Config(**json.loads(asked)))


def _placed(path: str, root: Path | None) -> str:
    if ROOT not in path:
        return path
    if root is None:
        do = "give --root, the folder that holds the data sets (or set UNSWAYED_DATA)"
        raise UnswayedError(f"the folder of {path}", got="none", do=do)
    return path.replace(ROOT, str(root))


def make_ground(cell: Cell, dataset: Dataset) -> tuple[Task, Tensor | None]:
    """The task of a cell, and where inputs are corrupted which rows are, [N] bool.

    For a trial of tuning the training rows fall in two: the second part, with its given labels, takes the place of the
    test rows. Neither test rows nor true labels are there any more, so no choice can hang on them.
    """
    task = make_task(cell.config, dataset)
    bad: Tensor | None = None
    if share := cell.more.get("corrupted"):
        rows, generator = task.train, torch.Generator().manual_seed(seed_of(cell.seed, _INPUTS))
        whole = rows.x.rows(torch.arange(len(rows)))
        x, at = spoil_inputs(whole, share, strength=cell.more["strength"], generator=generator)
        bad = torch.zeros(len(rows), dtype=torch.bool)
        bad[at] = True
        train = replace(rows, x=TensorColumn(x))
        task = replace(task, train=train, dataset=replace(task.dataset, train=train))
    held = cell.more.get("hold_out_given")
    return (task, bad) if held is None else (_validate(task, held, cell.seed), None)


def _validate(task: Task, share: float, seed: int) -> Task:
    blind = replace(task.train, truth=None)
    rest, held = hold_out(blind, share, seed_of(seed, _TRIAL))
    trusted = torch.isin(rest.rows, task.train.rows[task.trusted]).nonzero()[:, 0]
    dataset = replace(task.dataset, train=rest, test=held)
    return Task(dataset, rest, held, "given", task.noise, trusted)


def _about(task: Task) -> dict[str, Any]:
    return {
        "name": task.dataset.name,
        "kind": task.dataset.kind,
        "classes": len(task.dataset.classes),
        "train": len(task.train),
        "test": 0 if task.test is None else len(task.test),
        "trusted": len(task.trusted),
        "noise": task.noise,
        "notes": list(task.dataset.notes),
    }


def _epoch(record: Record) -> dict[str, Any]:
    plain = asdict(record)
    return {**plain, **plain.pop("scores")}


def _suspicion(method: Method, task: Task) -> Tensor:
    """How suspicious every row is to the method; without a word of its own, how improbable its label was."""
    found = method.suspicion()
    if found is None:
        probabilities = method.dynamics.mean_probabilities()
        if probabilities is None:
            return torch.zeros(len(task.train))
        found = 1 - probabilities.cpu().gather(1, task.train.given[:, None])[:, 0]
    return found.cpu()


# ------------------------------------------------------------------------------------------------ repair


def _repair(
    cell: Cell, task: Task, method: Method, outcome: Outcome, place: Place, bad: Tensor | None
) -> dict[str, Any]:
    """The trained network repaired in all ways, beside its controls; the test rows only score."""
    from unswayed.mending import PUBLISHED, compare, diagnose

    asked = cell.more["repair"]
    network, train_, test = getattr(method, "net", None), task.train, task.test
    if not isinstance(network, nn.Module):
        raise UnswayedError("a method of one network `net` to repair", got=cell.arm, do="for example plain")
    how = dict(PUBLISHED) if asked.get("as_published") else {"evidence": "loss"}
    how |= {name: asked[name] for name in ("evidence", "layer") if name in asked}
    diagnosis = diagnose(network, train_.x, train_.given, seed=cell.seed, **how)

    def retrain(rows: Tensor) -> tuple[nn.Module, int]:
        at = rows.nonzero()[:, 0]
        part = replace(task, train=train_.take(at), test=None, trusted=torch.zeros(0, dtype=torch.int64))
        fresh = build(cell.config, parse_arm(cell.config.arm), part)
        return fresh, len(train(cell.config, fresh, part, place).records)

    learning = {name: asked[name] for name in ("epochs", "lr", "batch") if name in asked}
    controls = asked.get("controls", True)
    trials = compare(
        network, train_.x, train_.given, diagnosis, share=asked.get("share", 40 / 256), controls=controls,
        test=None if test is None or task.test_labels is None else (test.x, task.test_labels),
        retrain=retrain if controls else None, seed=cell.seed, **learning,
    )  # fmt: skip
    wrong = bad if bad is not None else None if train_.truth is None else train_.given != train_.truth
    clean = diagnosis.clean.cpu()
    told = ("name", "accuracy", "seconds", "seconds_an_epoch", "pruned", "rows")
    return {
        "evidence": how["evidence"],
        "training_seconds": outcome.seconds,
        "kept": float(clean.float().mean()),
        "bad_rows": None if wrong is None else float(wrong.float().mean()),
        "bad_rows_in_clean_part": None if wrong is None or not clean.any() else float(wrong[clean].float().mean()),
        "trials": [{name: getattr(one, name) for name in told} for one in trials],
        "notes": list(diagnosis.notes),
    }


# ------------------------------------------------------------------------------------------------ machine


def fingerprint(method: nn.Module) -> str:
    """A hash of all parameters and buffers: equal for equal models, bit by bit."""
    made = hashlib.sha256()
    for name, value in sorted(method.state_dict().items()):
        made.update(name.encode())
        made.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:32]


def forget_peak(place: Place) -> None:
    """Begin to measure memory anew, where the system can."""
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(place: Place) -> dict[str, int]:
    """The most memory in bytes since `forget_peak`: of this process, and of the accelerator."""
    found = {"process": _peak_of_process()}
    if place.device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(place.device)
    return found


def _peak_of_process() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # Unix alone

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
