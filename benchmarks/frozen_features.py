"""What training on frozen features costs: python -m benchmarks.frozen_features [--rows 100000] [--classes 10 100]

Synthetic features with wrong labels, every arm with its default settings, one thread; scikit-learn's logistic
regression and nearest neighbours (brute force, cosine) in the same run are the measure, since seconds of different
machines cannot be compared. Seconds are those of the processor, scoring included: what else the machine does counts
little. Results go to results/frozen_features.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from unswayed import data
from unswayed.data.dataset import Dataset
from unswayed.experiment.config import Config
from unswayed.experiment.run import run
from unswayed.machine import describe, versions

RESULT = Path(__file__).parents[1] / "results" / "frozen_features.json"
ARMS = ("sce identity", "sce", "sce edge-masked identity", "sce edge-masked-kan identity", "logistic-regression")
TEST = 2000


def synthetic(rows: int, width: int, classes: int, rate: float = 0.4) -> Dataset:
    """Clouds of a spectrum like that of an encoder's features; a share of the training labels is drawn at random."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (rows + TEST,), generator=generator)
    spectrum = torch.arange(1.0, width + 1) ** -0.5
    centres = torch.randn(classes, width, generator=generator) * spectrum
    x = 0.35 * centres[y] + torch.randn(rows + TEST, width, generator=generator) * spectrum
    x = x @ torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    wrong = torch.rand(rows, generator=generator) < rate
    given = torch.where(wrong, torch.randint(classes, (rows,), generator=generator), y[:rows])
    return data.from_arrays(x[:rows], given, truth=y[:rows], test=(x[rows:], y[rows:]), name="synthetic features")


def rows_of(dataset: Dataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and given labels to train on, rows and true labels to test on."""
    assert dataset.test is not None
    train, test = (part.x.rows(torch.arange(len(part))) for part in (dataset.train, dataset.test))
    return train, dataset.train.given, test, dataset.test.given


def time_arm(arm: str, dataset: Dataset, batch: int | None = None) -> dict[str, Any]:
    """Seconds of a whole run, and test accuracy, of an arm with default settings."""
    started = time.process_time()
    summary = run(Config("synthetic", arm=arm, batch=batch), dataset=dataset).summary
    seconds, steps = time.process_time() - started, summary["cost"]["steps"]
    return {"arm": arm, "seconds": seconds, "steps": steps, "accuracy": summary["test"]["last"]}


def time_scikit_learn(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The same of scikit-learn: one regression of its default strength, and neighbours of the test rows."""
    x, y, test, labels = (tensor.numpy() for tensor in rows_of(dataset))
    for arm, model in (
        ("scikit-learn LogisticRegression", LogisticRegression(max_iter=200)),
        ("scikit-learn KNeighborsClassifier(50), test rows alone", KNeighborsClassifier(50, metric="cosine")),
    ):
        started = time.process_time()
        right = float((model.fit(x, y).predict(test) == labels).mean())
        yield {"arm": arm, "seconds": time.process_time() - started, "steps": None, "accuracy": right}


def measure(dataset: Dataset, arms: Sequence[str], batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One measurement after the other, scikit-learn's first."""
    yield from time_scikit_learn(dataset)
    for arm in arms:
        yield from ({**time_arm(arm, dataset, batch or None), "batch": batch or None} for batch in batches)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--batch", type=int, nargs="+", default=[0], help="0: the default")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for classes in options.classes:
        dataset = synthetic(options.rows, options.width, classes)
        first = 0.0
        for line in measure(dataset, options.arms, options.batch):
            first = first or line["seconds"]
            found.append({"classes": classes, **line, "ratio": line["seconds"] / first})
            about = ", ".join(f"{key} {line[key]}" for key in ("batch", "steps") if line.get(key))
            cost = f"{line['seconds']:.2f} s, {found[-1]['ratio']:.2f} x, {line['accuracy']:.4f}"
            print(classes, line["arm"], about, cost, flush=True)
    setup: dict[str, Any] = {"rows": options.rows, "width": options.width, "rate": 0.4, "threads": 1}
    setup |= {"machine": describe(), "versions": versions()}
    options.out.write_text(json.dumps({**setup, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
