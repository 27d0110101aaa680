"""Does repair (RLAP) pay? Wrong labels and corrupted inputs, images and sounds, with every control.

    python benchmarks/repair.py --data ../shared/data --out results/repair.json [--only digits]

Truth serves for planting and scoring only. Settings of the partition were chosen on seed 0; the seeds here are others.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

import unswayed
from unswayed import mending
from unswayed.data import TensorColumn, read
from unswayed.experiment.task import draw_evenly, make_task
from unswayed.machine import describe, versions
from unswayed.noise.inputs import spoil_inputs

SETS: dict[str, dict[str, Any]] = {
    "digits": {"seeds": [1, 2, 3], "config": {}, "epochs": 30, "share": 20 / 128},
    "fashion_mnist_20k": {"seeds": [1], "config": {"limit": 2000, "epochs": 10}, "epochs": 10, "share": 20 / 128},
    "spoken_digits": {"seeds": [1], "config": {"limit": 800, "epochs": 12}, "epochs": 10, "share": 20 / 128},
}
FAULTS = {"labels": {"rate": 0.4}, "inputs": {"rate": 0.5, "how": "gaussian", "strength": 3.0}}
EVIDENCE = {"labels": "loss", "inputs": "prediction"}
TEST_ROWS = 2000


def prepare(dataset: Any, name: str, fault: str, seed: int, config: dict[str, Any]) -> tuple[Any, Any, torch.Tensor]:
    """The configuration, the data with the planted fault, and which rows are bad."""
    noise = {"noise": "symmetric", "rate": FAULTS["labels"]["rate"]} if fault == "labels" else {}
    about = unswayed.Config(data=name, seed=seed, **noise, **config)
    task = make_task(about, dataset)
    train, test = task.train, task.test
    assert test is not None
    if len(test) > TEST_ROWS:
        test = test.take(draw_evenly(test.given, TEST_ROWS, 0))
    bad = torch.zeros(len(train), dtype=torch.bool)
    if fault == "labels":
        assert train.truth is not None
        bad = train.given != train.truth
    else:
        how = {key: value for key, value in FAULTS["inputs"].items() if key != "rate"}
        generator = torch.Generator().manual_seed(seed)
        x, rows = spoil_inputs(
            train.x.rows(torch.arange(len(train))), FAULTS["inputs"]["rate"], generator=generator, **how
        )
        bad[rows] = True
        train = replace(train, x=TensorColumn(x))
    return replace(about, noise=None, rate=0.0, limit=None), replace(task.dataset, train=train, test=test), bad


def judge(diagnosis: Any, bad: torch.Tensor) -> dict[str, float]:
    """How good a partition is: share kept, bad share in it, and how well it ranks."""
    return {
        "kept": float(diagnosis.clean.float().mean()),
        "bad_in_clean_part": float(bad[diagnosis.clean].float().mean()),
        "auroc": float(roc_auc_score(bad, 1 - diagnosis.probability)),
        "seconds": diagnosis.seconds,
    }


def trial(dataset: Any, name: str, fault: str, seed: int) -> dict[str, Any]:
    """Train, diagnose in every way, repair beside the controls."""
    about = SETS[name]
    config, spoilt, bad = prepare(dataset, name, fault, seed, about["config"])
    broken = unswayed.run(config, dataset=spoilt)
    network, x, y = broken.method.net, spoilt.train.x, spoilt.train.given
    partitions = {}
    for evidence in ("loss", "label", "prediction"):
        partitions[evidence] = judge(mending.diagnose(network, x, y, evidence=evidence), bad)
        if evidence != "loss":
            whole = mending.diagnose(network, x, y, **mending.PUBLISHED | {"evidence": evidence})
            partitions[f"{evidence}, one mixture"] = judge(whole, bad)

    def retrain(rows: torch.Tensor) -> tuple[Any, int]:
        part = replace(spoilt, train=spoilt.train.take(rows.nonzero()[:, 0]))
        fresh = unswayed.run(config, dataset=part)
        return fresh.method, len(fresh.summary["history"])

    diagnosis = mending.diagnose(network, x, y, evidence=EVIDENCE[fault])
    trials = mending.compare(
        network, x, y, diagnosis, share=about["share"], test=(spoilt.test.x, spoilt.test.given),
        retrain=retrain, epochs=about["epochs"], seed=seed,
    )  # fmt: skip
    names = ("name", "accuracy", "seconds", "seconds_an_epoch", "pruned", "rows")
    return {
        "data": name,
        "fault": fault,
        "seed": seed,
        "config": config.as_json(),
        "repair_epochs": about["epochs"],
        "evidence": EVIDENCE[fault],
        "training_seconds": broken.summary["cost"]["seconds"],
        "partitions": partitions,
        "trials": [{key: getattr(one, key) for key in names} for one in trials],
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", type=Path, default=Path("../shared/data"))
    asked.add_argument("--out", type=Path, default=Path("results/repair.json"))
    asked.add_argument("--only", choices=list(SETS), nargs="*", default=list(SETS))
    given = asked.parse_args()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = json.loads(given.out.read_text())["runs"] if given.out.exists() else []
    for name in given.only:
        dataset = read(name if name == "digits" else given.data / name)
        for seed in SETS[name]["seeds"]:
            for fault in FAULTS:
                if any((run["data"], run["seed"], run["fault"]) == (name, seed, fault) for run in runs):
                    continue
                clock = time.process_time()
                runs.append(trial(dataset, name, fault, seed))
                print(name, fault, seed, f"{time.process_time() - clock:.0f} CPU-seconds", flush=True)
                for one in runs[-1]["trials"]:
                    print(f"   {one['name']:22} {one['accuracy']:.3f} {one['seconds']:.1f} s", flush=True)
                about = {"faults": FAULTS, "machine": describe(), "versions": versions()}
                given.out.write_text(json.dumps({**about, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
