"""One run: configuration -> trained method -> scores and files."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unswayed import data as readers
from unswayed import heads, losses, methods, nets
from unswayed.batches import seed_of
from unswayed.data.augment import augmentation
from unswayed.data.dataset import Dataset, Split
from unswayed.engine import Evaluate, Outcome, Record, Watcher, fit
from unswayed.errors import UnswayedError
from unswayed.experiment.analysis import Analysis
from unswayed.experiment.arms import Arm, parse_arm
from unswayed.experiment.automatic import settle
from unswayed.experiment.config import Config
from unswayed.experiment.evidence import of_known, score_evidence
from unswayed.experiment.scoring import Beliefs, beliefs_of, score_suspicion, score_test, true_rate, true_transition
from unswayed.experiment.task import Task, make_task, read_data
from unswayed.machine import Place, describe, find_place, versions
from unswayed.method import Data, Info, Method
from unswayed.prediction import accuracy, predict
from unswayed.registry import check_values, keyword_settings
from unswayed.settings import Settings
from unswayed.writing import write_json, write_text

GALLERY = 120  # the most suspicious rows that a report shows
_INIT = 4  # what a seed is used for (0 to 3: the task)


@dataclass(frozen=True)
class Result:
    """What a run gave: the trained method, its beliefs of the labels, and everything that goes into `result.json`."""

    task: Task
    method: Method
    beliefs: Beliefs
    summary: dict[str, Any]


def run(
    config: Config,
    *,
    dataset: Dataset | None = None,
    folder: Path | None = None,
    resume: bool = False,
    save_seconds: float = 30.0,
    watch: Sequence[Watcher] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Read the data (or take `dataset`), spoil labels as configured, train, score, and write files to `folder`.

    The arm "auto" becomes another one when the data are known: `summary["advice"]` says which and why.

    Files: checkpoint.safetensors (the trained method), result.json, samples.csv (every training row with suspicion and
    suggested label), gallery.json (the most suspicious rows as a person sees them), and where masks are analysed
    masks.npz.
    """
    arm = parse_arm(config.arm)  # a typing error should not cost a minute of reading
    dataset = dataset or read_data(config, progress)
    task = make_task(config, dataset)
    place = find_place(config.device, config.precision, shard=config.shard, compile=config.compile)
    chosen, advice = settle(config, task)
    method = build(chosen, parse_arm(chosen.arm), task)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    keep: dict[str, Any] = {"folder": folder, "resume": resume, "save_seconds": save_seconds}
    analysis = None
    if config.analyse:
        analysis = Analysis(chosen, method, task, place, folder=folder, resume=resume)
    outcome = train(chosen, method, task, place, watch=watch, analysis=analysis, **keep)
    beliefs, summary = score(method, task, outcome, place)
    summary = {
        "schema": 1,
        "name": arm.title,
        "control": arm.title == "plain",
        "seed": config.seed,
        "config": config.as_json(),
        "data": _about_data(task),
        **summary,
        "analysis": None if analysis is None else {**analysis.about(), **analysis.conclude(method)},
        "parameters": sum(p.numel() for p in method.parameters()),
        "versions": versions(),
        "machine": describe(),
        "started": started,
    }
    if advice is not None:
        summary["advice"] = advice.as_json()
    if folder is not None and place.first:
        write_files(folder, task, beliefs, summary)
    return Result(task, method, beliefs, summary)


def build(config: Config, arm: Arm, task: Task) -> Method:
    """The arm's method with its networks, drawn from the run's seed."""
    train, classes, kind = task.train, len(task.dataset.classes), task.dataset.kind
    body_name = arm.body or nets.default_body(kind, train.x.shape)
    stats = nets.measure(train.x, kind)
    training = config.training(kind, len(train))
    steps = training.epochs * -(-len(train) // training.batch)
    head_settings = _in_steps(arm.settings.get("head", {}), steps)

    def make_net() -> nets.Net:
        settings = arm.settings.get("body", {})
        body = nets.create_body(body_name, kind=kind, shape=train.x.shape, stats=stats, **settings)
        return nets.Net(body, heads.create(arm.head, body.features, classes, **head_settings))

    with torch.random.fork_rng():
        torch.manual_seed(seed_of(config.seed, _INIT))
        return methods.create(arm.method, make_net, Info(len(train), classes), **_method_settings(arm, task))


def draft(arm: Arm) -> Method:
    """The arm's method on a toy network: settings that no data make good raise here, before any are read."""
    for part, known, name in (
        ("method", methods.methods, arm.method),
        ("loss", losses.losses, arm.loss),
        ("head", heads.heads, arm.head),
    ):
        if name is not None and (given := arm.settings.get(part)):
            check_values(given, keyword_settings(known.get(name)), f"the {part} {name}")

    def make_net() -> nn.Module:
        head = heads.create(arm.head, 8, 2, **_in_steps(arm.settings.get("head", {}), 100))
        return nets.Net(nets.Body(8), head)  # some methods ask for both parts

    try:
        with torch.random.fork_rng():
            method = methods.create(arm.method, make_net, Info(samples=10, classes=2), **_method_settings(arm))
        method.plan(2)
    except UnswayedError:
        raise
    except Exception as error:  # nothing but the settings can be wrong with a toy
        raise UnswayedError(f"settings that fit '{arm.title}'", got=f"{type(error).__name__}: {error}") from error
    return method


def _method_settings(arm: Arm, task: Task | None = None) -> dict[str, Any]:
    """The settings of the arm's method, and what it asks the task for; without a task, for a toy."""
    settings = dict(arm.settings.get("method", {}))
    if task is not None and len(task.trusted) and "trusted" in methods.settings_of(arm.method):
        settings.setdefault("trusted", task.trusted)
    if settings.get("anchors") == "names":
        settings = settings | {"anchors": None if task is None else _embedded_names(task), "judge": "rows"}
    if arm.loss is not None:
        if "loss" not in methods.settings_of(arm.method):
            do = f"leave out {arm.loss}, or choose plain or co-teaching"
            raise UnswayedError("a method that takes a loss", got=f"{arm.method}, which has its own", do=do)
        settings |= {"loss": arm.loss, "loss_settings": arm.settings.get("loss", {})}
    return settings


def _embedded_names(task: Task) -> Tensor:
    if task.dataset.names is None:
        do = "--encoder NAME, for data of texts; or anchors=[[...],...]"
        raise UnswayedError("names of classes by the encoder that made the rows", got="no encoder", do=do)
    return task.dataset.names


def _in_steps(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """A head counts its warm-up in steps; a share below 1 means a share of the run."""
    shares = {
        k: v for k, v in settings.items() if k in ("warmup", "ramp", "stop") and isinstance(v, float) and 0 < v < 1
    }
    return settings | {name: round(share * steps) for name, share in shares.items()}


def train(
    config: Config,
    method: Method,
    task: Task,
    place: Place,
    *,
    folder: Path | None = None,
    resume: bool = False,
    save_seconds: float = 30.0,
    watch: Sequence[Watcher] = (),
    analysis: Evaluate | None = None,
) -> Outcome:
    """Fit `method` on the given labels of the task; the test rows and true labels are only looked at after epochs.

    `analysis` looks at the method after every epoch, and its scores go into the epoch's record.
    """
    kind, shape, labels = task.dataset.kind, task.train.x.shape, task.test_labels
    flip = {"flip": config.flip} if kind == "image" and config.flip is not None else {}
    augment = {"weak": augmentation(kind, shape, "weak", **flip), "strong": augmentation(kind, shape, "strong", **flip)}
    settings: Settings = config.training(kind, len(task.train))
    test = None if task.test is None else task.test.x.to(place.device)  # once, not every epoch

    def evaluate(method: Method, record: Record) -> dict[str, float]:
        scores = {} if analysis is None else analysis(method, record)
        if test is not None and labels is not None:
            scores["test_accuracy"] = accuracy(method, test, labels, place=place)
        return scores

    return fit(
        method,
        Data.of(task.train.x, task.train.given),
        settings,
        augment=augment,
        place=place,
        evaluate=evaluate,
        watch=watch,
        checkpoint=None if folder is None else folder / "checkpoint.safetensors",
        resume=resume,
        save_seconds=save_seconds,
        about={"config": config.as_json(), "classes": list(task.dataset.classes)},
    )


def score(method: Method, task: Task, outcome: Outcome, place: Place) -> tuple[Beliefs, dict[str, Any]]:
    """The scores of a trained method; nothing here reaches back into training."""
    given, truth, classes = task.train.given, task.train.truth, len(task.dataset.classes)
    fallback = predict(method, task.train.x, place=place).softmax(1).cpu()
    beliefs = beliefs_of(method, given, fallback)
    curve = [record.scores.get("test_accuracy") for record in outcome.records]
    test, seen = None, {}
    if task.test is not None and task.test_labels is not None:
        logits = predict(method, task.test.x, place=place).cpu()
        seen = {"probabilities": logits.softmax(1), "labels": task.test_labels}
        test = score_test(logits.argmax(1), task.test_labels, classes, curve, task.against)
    true = true_transition(given, truth, classes)
    return beliefs, {
        "history": [_epoch(record) for record in outcome.records],
        "test": test,
        "transition": {"estimated": beliefs.transition.tolist(), "true": None if true is None else true.tolist()},
        "noise_rate": {"estimated": beliefs.noise_rate, "true": true_rate(given, truth)},
        "suspicion": score_suspicion(beliefs.suspicion, given, truth),
        **score_evidence(*of_known(beliefs.suspicion, given, truth), **seen),
        "cost": {"seconds": outcome.seconds, "steps": outcome.steps, "samples": outcome.samples},
        "chosen": method.chosen() or None,
    }


def _epoch(record: Record) -> dict[str, Any]:
    plain = asdict(record)
    return {**plain, **plain.pop("scores")}


def _about_data(task: Task) -> dict[str, Any]:
    dataset = task.dataset
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "classes": list(dataset.classes),
        "train": len(task.train),
        "test": 0 if task.test is None else len(task.test),
        "trusted": len(task.trusted),
        "notes": list(dataset.notes),
        "noise": task.noise,
    }


def write_files(folder: Path, task: Task, beliefs: Beliefs, summary: dict[str, Any]) -> None:
    """Write a run's files; result.json comes last, because it says that the run is complete."""
    write_text(folder / "samples.csv", _samples_csv(task, beliefs))
    write_json(folder / "gallery.json", _gallery(task, beliefs))
    write_json(folder / "result.json", summary)


def _samples_csv(task: Task, beliefs: Beliefs) -> str:
    names, train = task.dataset.classes, task.train
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["row", "given", "suggested", "probability", "suspicion", *(["truth"] if _has(train.truth) else [])]
    )
    for i in beliefs.suspicion.argsort(descending=True, stable=True).tolist():
        line = [int(train.rows[i]), names[int(train.given[i])], names[int(beliefs.suggested[i])]]
        line += [f"{float(beliefs.probability[i]):.4f}", f"{float(beliefs.suspicion[i]):.4f}"]
        if train.truth is not None and _has(train.truth):
            line.append(names[int(train.truth[i])] if train.truth[i] >= 0 else "")
        writer.writerow(line)
    return text.getvalue()


def _has(truth: Tensor | None) -> bool:
    return truth is not None and bool((truth >= 0).any())


def _gallery(task: Task, beliefs: Beliefs) -> list[dict[str, Any]]:
    return [_card(task.dataset, beliefs, i) for i in beliefs.suspicion.topk(_most(task.train)).indices.tolist()]


def _most(split: Split) -> int:
    return min(GALLERY, math.ceil(len(split) / 4))


def _card(dataset: Dataset, beliefs: Beliefs, i: int) -> dict[str, Any]:
    shown, train = readers.preview(dataset, "train", i), dataset.train
    truth = -1 if train.truth is None else int(train.truth[i])
    return {
        "row": int(train.rows[i]),
        "given": int(train.given[i]),
        "suggested": int(beliefs.suggested[i]),
        "suspicion": float(beliefs.suspicion[i]),
        "probability": float(beliefs.probability[i]),
        "mime": shown.mime,
        "content": base64.b64encode(shown.content).decode(),
        "wrong": None if truth < 0 else truth != int(train.given[i]),
    }
