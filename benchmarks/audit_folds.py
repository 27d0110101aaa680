"""What an audit should train in its folds: how well out-of-fold probabilities of several arms rank wrong labels.

    OMP_NUM_THREADS=1 python benchmarks/audit_folds.py [--seeds 1] [--out results/audit_folds.json]

5,000 rows each (digits: all) of digits and Fashion-MNIST with planted noise and of CIFAR-10 (JPEG) with the labels
"worst" of CIFAR-10N, as `unswayed audit` sees them: frozen features, five folds. AUROC of 1 - p(given label).
The data lie in the folder named by UNSWAYED_DATA, or ../shared/data beside the repository; without it digits alone run.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from unswayed.experiment.audit import probe_batch
from unswayed.experiment.config import Config
from unswayed.experiment.features import frozen
from unswayed.experiment.folds import make_evidence
from unswayed.experiment.scoring import score_suspicion
from unswayed.experiment.task import make_task, read_data
from unswayed.machine import describe, versions
from unswayed.report.statistics import interval
from unswayed.writing import write_json

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("UNSWAYED_DATA", ROOT.parent / "shared" / "data"))
ARMS = ("elr identity", "sce identity", "plain identity", "gce identity", "elr mlp", "plain mlp")
BATCHES = (32, 128, 256)  # of the first arm, beside the default

SETTINGS: dict[str, dict[str, Any]] = {
    "digits symmetric 0.4": {"data": "digits", "noise": "symmetric", "rate": 0.4},
    "fashion symmetric 0.4": {"data": "fashion_mnist_20k", "noise": "symmetric", "rate": 0.4},
    "fashion asymmetric 0.4": {"data": "fashion_mnist_20k", "noise": "asymmetric", "rate": 0.4},
    "cifar worst": {"data": "cifar10n", "reader": {"label": "worst", "truth": "label"}},
}


def measure(name: str, seed: int) -> list[dict[str, Any]]:
    """All arms on one draw of rows and noise."""
    about = SETTINGS[name]
    data = about["data"] if about["data"] == "digits" else str(DATA / about["data"])
    config = Config(**{**about, "data": data}, seed=seed, limit=None if about["data"] == "digits" else 5000)
    task = make_task(config, read_data(config))
    rows = frozen(replace(task.dataset, train=task.train), config)
    lines = []
    for arm, batch in [*((arm, None) for arm in ARMS), *((ARMS[0], batch) for batch in BATCHES)]:
        begin = time.process_time()
        how = Config(data=data, arm=arm, seed=seed, batch=batch or probe_batch(len(rows.train)))
        probs = make_evidence(rows, how).probs
        own = probs.gather(1, rows.train.given[:, None])[:, 0]
        score = score_suspicion(1 - own, task.train.given, task.train.truth)
        assert score is not None
        lines.append(
            {
                "setting": name,
                "arm": arm,
                "batch": batch,
                "seed": seed,
                "rows": len(rows.train),
                **{what: round(value, 4) for what, value in score.items()},
                "seconds": round(time.process_time() - begin, 2),
            }
        )
        print(*lines[-1].values(), flush=True)
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in SETTINGS if DATA.is_dir() or SETTINGS[name]["data"] == "digits"]
    cells = [line for seed in range(options.seeds) for name in names for line in measure(name, seed)]
    grid = Table("arm", *names, title="AUROC out of fold, mean of seeds")
    for key in dict.fromkeys((cell["arm"], cell["batch"]) for cell in cells):
        found = [
            [c["auroc"] for c in cells if (c["arm"], c["batch"]) == key and c["setting"] == name] for name in names
        ]
        batch = "" if key[1] is None else f", batch {key[1]}"
        grid.add_row(key[0] + batch, *(f"{interval(values).mean:.4f}" for values in found))
    Console().print(grid)
    if options.out:
        write_json(options.out, {"versions": versions(), "machine": describe(), "cells": cells})


if __name__ == "__main__":
    main()
