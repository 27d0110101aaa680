"""Run the study of edge masking: python -m benchmarks.edge_masking.study --settings 'digits*' --losses ce gce ...

Every cell (setting, loss, head, form, seed) is one training run; its line goes to results/edge_masking/SETTING.jsonl as
soon as it is done, and a cell that has a line is not run again. All forms of a seed share rows, wrong labels, order of
batches and the start of the body. The last epoch counts; true labels only score.

On two cores, all that docs/edge-masking.md shows:   --jobs 2
On a GPU, the published protocol:                    python -m benchmarks.gpu run (its masks are the suite sem's)
  and forms that the suite lacks:                    --settings 'anl *' --forms none drawn --seeds 3 --jobs 8
Does it run at all (seconds, results kept apart):    --tiny --out /somewhere
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells import add_options, share_of, split
from benchmarks.edge_masking.forms import CORE, FORMS, Form
from benchmarks.edge_masking.settings import SETTINGS, Setting
from unswayed import methods, nets
from unswayed.batches import seed_of
from unswayed.data.augment import augmentation
from unswayed.engine import fit
from unswayed.experiment.task import Task, hold_out
from unswayed.machine import describe, find_place, versions
from unswayed.method import Data, Info, Method
from unswayed.prediction import accuracy, predict

RESULTS = Path(__file__).parents[2] / "results" / "edge_masking"
LOSSES = ("ce", "gce", "nce+rce", "anl-ce", "elr")
DECAYS = (5e-4, 2e-3, 1e-2)  # what "tuned" chooses from

Cell = tuple[str, str, str, str, int]  # setting, loss, head (linear or kan), form, seed


def train(setting: Setting, task: Task, loss: str, form: Form, seed: int, kan: bool = False, **changes: Any) -> Method:
    """One training run on the given labels of `task`."""
    kind, shape, rows = task.dataset.kind, task.train.x.shape, task.train
    classes = len(task.dataset.classes)
    stats = nets.measure(rows.x, kind)

    def make_net() -> nets.Net:
        body = nets.create_body(setting.body, kind=kind, shape=shape, stats=stats, **_narrowed(setting, form.width))
        return form.join(body, classes, kan)

    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, 4))
        method = methods.create("plain", make_net, Info(len(rows), classes), loss=loss)
    config = replace(setting.config(seed), arm=loss)
    recipe = replace(config.training(kind), **changes)
    augment = {"weak": augmentation(kind, shape, "weak")} if setting.body not in ("mlp", "identity") else {}
    place = find_place("auto", config.precision)
    fit(method, Data.of(rows.x, rows.given), recipe, augment=augment, place=place)
    return method


def _narrowed(setting: Setting, share: float) -> dict[str, Any]:
    if share == 1:
        return setting.widths
    name = "features" if "features" in setting.widths else "widths"
    return setting.widths | {name: max(2, round(share * setting.widths[name]))}


def tuned_decay(setting: Setting, task: Task, loss: str, seed: int, kan: bool) -> float:
    """The weight decay after which the last epoch best predicts GIVEN labels of rows held out, a fifth."""
    train_rows, held = hold_out(task.train, 0.2, seed_of(seed, 5))
    part = replace(task, train=train_rows)
    scores = {}
    for decay in DECAYS:
        method = train(setting, part, loss, FORMS["none"], seed, kan, weight_decay=decay)
        scores[decay] = accuracy(method, held.x, held.given)
    return max(scores, key=lambda decay: scores[decay])


def run(cell: Cell, tiny: bool = False) -> dict[str, Any]:
    """Train and score one cell."""
    name, loss, head, form_name, seed = cell
    setting, form, kan = SETTINGS[name], FORMS[form_name], head == "kan"
    if tiny:
        setting = replace(setting, epochs=1, limit=300)
    task, started = setting.task(seed), time.perf_counter()
    if tiny and task.test is not None:
        task = replace(task, test=task.test.take(torch.arange(200)))
    changes: dict[str, Any] = {}
    if form.tune:
        changes["weight_decay"] = tuned_decay(setting, task, loss, seed, kan)
    method = train(setting, task, loss, form, seed, kan, **changes)
    seconds = time.perf_counter() - started
    return {
        **dict(zip(("setting", "loss", "head", "form", "seed"), cell, strict=True)),
        **scores(method, task), **changes,
        "seconds": round(seconds, 2), "torch": versions()["torch"], "machine": describe()["processor"],
    }  # fmt: skip


def scores(method: Method, task: Task) -> dict[str, float]:
    """Test accuracy, and how much of the wrong labels was learned by heart."""
    assert task.test is not None
    assert task.test_labels is not None
    assert task.train.truth is not None
    found = predict(method, task.train.x).argmax(1)
    wrong = task.train.given != task.train.truth
    return {
        "accuracy": accuracy(method, task.test.x, task.test_labels),
        "memorised": round(float((found == task.train.given)[wrong].float().mean()), 4),
        "kept": round(float((found == task.train.given)[~wrong].float().mean()), 4),
    }


def file_of(setting: str, folder: Path = RESULTS) -> Path:
    """The results of a setting."""
    return folder / f"{setting.replace(' ', '-')}.jsonl"


def done(setting: str, folder: Path = RESULTS) -> set[Cell]:
    """The cells of a setting that have a result."""
    file = file_of(setting, folder)
    lines = file.read_text().splitlines() if file.exists() else []
    return {tuple(json.loads(line)[key] for key in ("setting", "loss", "head", "form", "seed")) for line in lines}  # type: ignore[misc]


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """The cells asked for, seed by seed, so that every comparison grows evenly.

    A narrower body makes no sense where the body has no widths.
    """
    for seed in range(options.first, options.first + options.seeds):
        for name in SETTINGS:
            if any(fnmatch.fnmatch(name, pattern) for pattern in options.settings):
                for loss in options.losses:
                    for form in FORMS.values():
                        asked = any(fnmatch.fnmatch(form.name, pattern) for pattern in options.forms)
                        if asked and (SETTINGS[name].widths or form.width == 1):
                            yield name, loss, options.head, form.name, seed


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=[name for name in SETTINGS if not name.startswith("anl ")])
    parser.add_argument("--losses", nargs="+", default=list(LOSSES))
    parser.add_argument("--forms", nargs="+", default=[form.name for form in CORE])
    parser.add_argument("--head", choices=["linear", "kan"], default="linear")
    add_options(parser, seeds=5, out=RESULTS)
    options = parser.parse_args()
    split("benchmarks.edge_masking.study", options)
    options.out.mkdir(parents=True, exist_ok=True)
    for cell in share_of(cells(options), options):
        if cell in done(cell[0], options.out):
            continue
        found = run(cell, options.tiny)
        with file_of(cell[0], options.out).open("a") as file:  # one short line: processes may share the file
            file.write(json.dumps(found) + "\n")
        print(*cell, f"{found['accuracy']:.4f}", f"{found['seconds']:.1f}s", flush=True)


if __name__ == "__main__":
    main()
