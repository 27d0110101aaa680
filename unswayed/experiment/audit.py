"""An audit of anybody's data: evidence made here, fold by fold, and what it says of every label."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unswayed.auditing import Audit, audit, trajectories
from unswayed.auditing.entry import number_labels
from unswayed.auditing.table import ABOUT, LIST, STATE
from unswayed.data.dataset import Dataset
from unswayed.data.encoder import fingerprint
from unswayed.data.ready import read_column, read_matrix
from unswayed.data.store import content_key
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.features import Progress, frozen, silent
from unswayed.experiment.folds import FOLDS, make_evidence
from unswayed.experiment.pool import alone
from unswayed.experiment.run import draft
from unswayed.experiment.scoring import score_suspicion, true_rate
from unswayed.experiment.task import prepare, read_data
from unswayed.machine import find_place, versions
from unswayed.stats.trajectories import Trajectories
from unswayed.writing import write_json

ARM = "elr identity"
"""What is trained in the folds: a linear probe of frozen features with early-learning regularisation.

Our choice, from out-of-fold AUROC on digits and Fashion-MNIST with 40 % symmetric noise, Fashion-MNIST with 40 %
asymmetric noise and CIFAR-10N worst, 5,000 rows each (results/audit_folds.json, one seed): .997, .977, .916 and .801.
The same with GCE .995, .980, .835, .811; SCE .985, .971, .845, .797; cross-entropy .955, .967, .682, .801; ELR on two
hidden layers .954, .944, .746, .763.
"""
LEARNING = {
    "wrong_events": "share of epochs in which models that train on the row predict another label",
    "aum": "minus the mean margin of the given label in training",
    "forgetting": "how often the label was forgotten once learned",
    "loss_mixture": "P(row is of the upper of two Gaussians on the mean loss)",
    "variability": "deviation of the given label's probability over training",
    "learning_time": "how late in training the label was learned for good",
}
ON_FEATURES = (None, "identity", "mlp")  # bodies that learn from frozen features; all others from the rows themselves
PLAN, PARTS = "plan.json", "folds"
SMALL = 4000  # rows times folds below which a second process costs more than it saves


@dataclass(frozen=True)
class Plan:
    """What an audit of data is: how they are read and what is trained, in how many folds."""

    config: Config
    folds: int = FOLDS

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        stored: dict[str, Any] = json.loads(json.dumps({**self.config.as_json(), "folds": self.folds}))
        return stored


def audit_data(
    config: Config,
    out: Path,
    *,
    folds: int = FOLDS,
    jobs: int | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Audit:
    """Read data, train `config.arm` in folds, audit the given labels, and save the audit to the folder `out`.

    Every finished fold is kept in `out`, so that a second call goes on after a first that was killed; a finished audit
    is loaded. Raises UnswayedError where `out` holds an audit of another configuration or of changed data, unless
    `fresh`. `jobs` folds are trained at a time (default: as many as there are cores, if there is much to do). True
    labels, where the data have some, only score the finished audit: `about["truth"]`.
    """
    clock, plan = time.monotonic(), Plan(config, folds)
    draft(parse_arm(config.arm))
    _check_folder(out)
    with alone(out):
        if fresh:
            forget(out)
        _check_plan(out, plan)
        dataset = _thinned(read_data(config, progress), config)
        mark = content_key(dataset.name, dataset.classes, dataset.train.given.numpy(), dataset.train.rows.numpy())
        mark = content_key(mark, fingerprint(dataset.train.x))
        if (found := _finished(out, mark)) is not None:
            return found
        write_json(out / PLAN, {**plan.as_json(), "data_mark": mark})
        seen = frozen(dataset, config, progress)
        rows, how = dataset, config
        if parse_arm(config.arm).body in ON_FEATURES:
            rows, how = seen, replace(config, batch=config.batch or probe_batch(len(seen.train)))
        many = _jobs(jobs, config, len(rows.train) * folds)
        evidence = make_evidence(rows, how, out / PARTS, folds=folds, jobs=many, progress=progress)
        annotators = torch.stack([dataset.train.given, *dataset.extra.values()], 1) if dataset.extra else None
        found = audit(
            dataset.train.given,
            probs=evidence.probs,
            features=seen.train.x.rows(torch.arange(len(seen.train))),
            dynamics=evidence.dynamics,
            annotators=annotators,
            classes=dataset.classes,
            rows=dataset.train.rows,
            kind=dataset.kind,
        )
        scores = learning_scores(evidence.dynamics)
        notes = [note for note in (*seen.notes, *_rare(dataset, folds)) if note]
        about = {
            "data": dataset.name,
            "kind": dataset.kind,
            "config": config.as_json(),
            "settings": {**found.about.get("settings", {}), "folds": folds, "arm": config.arm, "data_mark": mark},
            "notes": notes,
            "scores": {**found.about.get("scores", {}), **LEARNING},
            "truth": score(found, dataset.train.truth),
            "seconds": round(time.monotonic() - clock, 1),
            "versions": versions(),
        }
        scores = {**found.scores, **scores}
        found = replace(found, scores=scores, curves=evidence.curves, about={**found.about, **about})
        found.save(out)
        _remove_parts(out)
        return found


def learning_scores(dynamics: Trajectories) -> dict[str, Tensor]:
    """How reluctantly the folds' models learned each label, by several measures, [N] each: what `LEARNING` names."""
    found = {
        "wrong_events": trajectories.wrong_events(dynamics),
        "aum": trajectories.aum(dynamics),
        "forgetting": trajectories.forgetting(dynamics),
        "loss_mixture": trajectories.loss_mixture(dynamics),
        "variability": trajectories.cartography(dynamics).variability,
        "learning_time": trajectories.learning_time(dynamics),
    }
    return {name: value.float() for name, value in found.items()}


def probe_batch(rows: int) -> int:
    """Rows a step of a probe on so many rows: 32, doubled until an epoch has at most 100 steps.

    Our choice: out-of-fold AUROC on 5,000 rows is the same with batches of 32, 128 and 256 (Fashion-MNIST, 40 %
    symmetric noise: .977, .978, .979; CIFAR-10N worst: .802, .799, .799; results/audit_folds.json), and a step costs
    hardly more.

    >>> [probe_batch(rows) for rows in (150, 5000, 20_000, 10**6)]
    [32, 64, 256, 1024]
    """
    batch = 32
    while batch < 1024 and rows > 100 * batch:
        batch *= 2
    return batch


def forget(out: Path) -> None:
    """Remove what an earlier audit left in `out`; a person's decisions about its labels stay."""
    for name in (ABOUT, LIST, STATE, PLAN):
        (out / name).unlink(missing_ok=True)
    _remove_parts(out)


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UnswayedError("a folder to write to", got=f"the file {out}", do="choose another --out")


def _check_plan(out: Path, plan: Plan) -> None:
    """Raise where the folder holds an audit of another configuration, and tell the differences."""
    stored, asked = _stored_plan(out), plan.as_json()
    if stored is None:
        if (out / ABOUT).exists():
            do = "choose another --out, or --fresh to replace it"
            raise UnswayedError("a folder without another audit", got=f"one of other origin in {out}", do=do)
        return
    names = sorted((stored.keys() | asked.keys()) - {"data_mark", "device"})
    different = [name for name in names if stored.get(name) != asked.get(name)]
    if different:
        said = "; ".join(f"{name}: {stored.get(name)} there, {asked.get(name)} now" for name in different)
        do = "choose another --out, or --fresh to start anew"
        raise UnswayedError(f"the configuration of the audit in {out}", got=said, do=do)


def _stored_plan(out: Path) -> dict[str, Any] | None:
    try:
        stored: dict[str, Any] = json.loads((out / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnswayedError(f"a readable {out / PLAN}", got=error, do="start anew with --fresh") from error
    return stored


def _finished(out: Path, mark: str) -> Audit | None:
    """The audit that is there already; raises where it, or its folds, are of other rows or labels than now."""
    stored = _stored_plan(out)
    if stored is not None and stored.get("data_mark") != mark:
        do = "choose another --out, or --fresh to audit them as they are now"
        raise UnswayedError(f"the data that the audit in {out} was begun with", got="changed rows or labels", do=do)
    return Audit.load(out) if stored is not None and (out / ABOUT).exists() else None


def _remove_parts(out: Path) -> None:
    for part in (out / PARTS).glob("fold-*.safetensors"):
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (out / PARTS).rmdir()


def _thinned(dataset: Dataset, config: Config) -> Dataset:
    """The rows that are audited, with their labels spoilt if the configuration asks for it."""
    train, _ = prepare(dataset.train, config, len(dataset.classes))
    kept = torch.isin(dataset.train.rows, train.rows)
    extra = {name: labels[kept] for name, labels in dataset.extra.items()}
    if int((torch.bincount(train.given) > 0).sum()) < 2:
        raise UnswayedError("rows of two classes or more", got="one class only", do="give more rows (--limit)")
    return replace(dataset, train=train, test=None, extra=extra)


def _jobs(asked: int | None, config: Config, work: int) -> int:
    """Folds at a time: one on an accelerator, which they would share, and one where processes cost more than work."""
    if asked is not None:
        return asked
    if find_place(config.device).device.type != "cpu" or work < SMALL:
        return 1
    return torch.get_num_threads()


def _rare(dataset: Dataset, folds: int) -> list[str]:
    counts = torch.bincount(dataset.train.given, minlength=len(dataset.classes)).tolist()
    single = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 1]
    few = [name for name, count in zip(dataset.classes, counts, strict=True) if 1 < count < folds]
    notes = []
    if single:
        notes.append(f"one row only is labelled {', '.join(map(repr, single))}: nothing is known of such a class")
    if few:
        notes.append(f"fewer rows than folds are labelled {', '.join(map(repr, few))}: judged from few examples")
    return notes


def score(found: Audit, truth: Tensor | None) -> dict[str, Any] | None:
    """How well the finished audit ranks the wrong labels, where true labels are known: for the reader of the report."""
    scores = score_suspicion(found.suspicion, found.given, truth)
    return None if scores is None else {**scores, "noise_rate": true_rate(found.given, truth)}


def audit_files(
    labels: Path,
    out: Path,
    *,
    probs: Path | None = None,
    features: Path | None = None,
    annotators: Path | None = None,
    truth: Path | None = None,
    column: str | None = None,
    classes: Sequence[str] | None = None,
    fresh: bool = False,
) -> Audit:
    """Audit ready-made evidence in files, a row a sample in each, and save the audit to the folder `out`.

    `probs` are out-of-fold probabilities [N, K], `features` numbers [N, d], `annotators` class numbers [N, A] with -1
    where one gave no label; `column` is the one of the labels in a table. `truth` [N] scores the finished audit and
    does nothing else. Raises UnswayedError for files that do not fit, or where `out` holds an audit (unless `fresh`).
    """
    clock = time.monotonic()
    if probs is None and features is None:
        do = "--probs FILE, --features FILE, or the data themselves: unswayed audit DATA"
        raise UnswayedError("something to judge the labels by", got="labels alone", do=do)
    files = {"labels": labels, "probs": probs, "features": features, "annotators": annotators}
    for name, path in {**files, "truth": truth}.items():
        if path is not None and path.is_dir():
            do = "the data themselves, as a folder of pictures: unswayed audit FOLDER"
            raise UnswayedError(f"a file of {name}", got=f"the folder {path}", do=do)
    _check_folder(out)
    with alone(out):
        if (out / ABOUT).exists() and not fresh:
            do = "choose another --out, or --fresh to replace it"
            raise UnswayedError("a folder without another audit", got=f"one in {out}", do=do)
        cells, told = read_column(labels, column), None if truth is None else read_column(truth, column)
        if told is not None and len(told) != len(cells):
            raise UnswayedError(f"a true label for each of {len(cells):,} labels", got=f"{len(told):,} in {truth}")
        made = audit(
            cells,
            probs=None if probs is None else read_matrix(probs, "probabilities"),
            features=None if features is None else read_matrix(features, "features"),
            annotators=None if annotators is None else read_matrix(annotators, "annotators' labels"),
            classes=classes,
        )
        known = None if told is None else number_labels(told, classes=made.classes).labels
        about = {
            "config": None,
            "files": {name: str(path) for name, path in files.items() if path is not None},
            "truth": score(made, known),
            "seconds": round(time.monotonic() - clock, 1),
            "versions": versions(),
        }
        made = replace(made, about={**made.about, **about})
        forget(out)
        made.save(out)
        return made
