"""Which rows should a person check? Of k rows checked: wrong labels found, and accuracy after their correction.

    python -m benchmarks.noise_stability --out results/noise_stability.json [--only digits]

A network is trained on the given labels; each rule names k rows; these rows get their true label, and the same network
is trained again from the same start. Truth serves for correcting the named rows and for scoring only.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.edge_masking.settings import SETTINGS
from unswayed.engine import fit
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.run import build
from unswayed.experiment.scoring import beliefs_of
from unswayed.experiment.task import Task
from unswayed.machine import describe, versions
from unswayed.method import Data, Method
from unswayed.prediction import accuracy, predict
from unswayed.stats.noise_stability import choose, deviations

CASES = {  # name -> setting of the edge-masking study, numbers of rows checked
    "digits": ("digits", (100, 500)),
    "cifar10-random1": ("cifar random1", (500,)),
    "cifar10-worst": ("cifar worst", (500,)),
}
SEEDS = (1, 2, 3)
ARM = "plain"


def train(task: Task, name: str, seed: int) -> Method:
    setting = SETTINGS[name]
    arm = f"{ARM} {setting.body}(widths={setting.widths['widths']})"
    config = replace(setting.config(seed), arm=arm)
    method = build(config, parse_arm(arm), task)
    fit(method, Data.of(task.train.x, task.train.given), config.training(task.dataset.kind))
    return method


def orders(method: Method, task: Task, seed: int, k: int) -> dict[str, Tensor]:
    """The first k rows by every rule; ties and chance by the seed."""
    probability = predict(method, task.train.x).softmax(1)
    suspicion = beliefs_of(method, task.train.given, probability).suspicion
    entropy = -(probability * probability.clamp_min(1e-30).log()).sum(1)
    best = probability.topk(2, dim=1).values
    moved = deviations(method, task.train.x, seed=seed)
    chance = torch.rand(len(entropy), generator=torch.Generator().manual_seed(seed))
    return {
        "random": chance.topk(k).indices,
        "entropy": entropy.topk(k).indices,
        "margin": (best[:, 1] - best[:, 0]).topk(k).indices,
        "deviation": moved.norm(dim=1).topk(k).indices,
        "noise stability": choose(moved, k),
        "noise stability x suspicion": choose(moved, k, suspicion=suspicion - suspicion.min()),
        "suspicion": suspicion.topk(k).indices,
    }


def corrected(task: Task, rows: Tensor) -> Task:
    truth = task.train.truth
    assert truth is not None
    given = task.train.given.clone()
    given[rows] = truth[rows]
    return replace(task, train=replace(task.train, given=given))


def trial(case: str, seed: int) -> dict[str, Any]:
    name, counts = CASES[case]
    task = SETTINGS[name].task(seed)
    assert task.test is not None
    assert task.test_labels is not None
    assert task.train.truth is not None
    score = partial(accuracy, x=task.test.x, y=task.test_labels)
    method = train(task, name, seed)
    wrong = task.train.given != task.train.truth
    runs = [{"rule": "nothing", "k": 0, "found": 0, "accuracy": score(method)}]
    for k in counts:
        for rule, rows in orders(method, task, seed, k).items():
            again = train(corrected(task, rows), name, seed)
            runs.append({"rule": rule, "k": k, "found": int(wrong[rows].sum()), "accuracy": score(again)})
    return {"case": case, "seed": seed, "rows": len(wrong), "wrong": int(wrong.sum()), "runs": runs}


def summarise(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, and the standard error of the paired gain over random rows."""
    lines = []
    for case in dict.fromkeys(one["case"] for one in trials):
        of_case = [one for one in trials if one["case"] == case]
        cell = {(one["seed"], run["rule"], run["k"]): run for one in of_case for run in one["runs"]}
        seeds = [one["seed"] for one in of_case]
        for rule, k in dict.fromkeys((rule, k) for _, rule, k in cell):
            found, scores = (
                torch.tensor([float(cell[s, rule, k][key]) for s in seeds]) for key in ("found", "accuracy")
            )
            other = torch.tensor([cell[s, "random" if k else "nothing", k]["accuracy"] for s in seeds])
            gain = scores - other
            line = {"case": case, "rule": rule, "k": k, "found": float(found.mean()), "accuracy": float(scores.mean())}
            error = float(gain.std() / len(gain) ** 0.5) if len(gain) > 1 else None
            lines.append({**line, "gain_over_random": float(gain.mean()), "standard_error": error})
    return lines


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--out", type=Path, default=Path("results/noise_stability.json"))
    asked.add_argument("--only", choices=list(CASES), nargs="*", default=list(CASES))
    asked.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    given = asked.parse_args()
    torch.set_num_threads(1)
    trials: list[dict[str, Any]] = json.loads(given.out.read_text())["trials"] if given.out.exists() else []
    for case in given.only:
        for seed in given.seeds:
            if any((one["case"], one["seed"]) == (case, seed) for one in trials):
                continue
            clock = time.process_time()
            trials.append(trial(case, seed))
            print(case, seed, f"{time.process_time() - clock:.0f} CPU-seconds", flush=True)
            about = {"arm": ARM, "machine": describe(), "versions": versions()}
            whole = {**about, "summary": summarise(trials), "trials": trials}
            given.out.write_text(json.dumps(whole, indent=1) + "\n")
    for line in summarise(trials):
        print(
            f"{line['case']:16} {line['k']:4} {line['rule']:28} {line['found']:6.1f} {100 * line['accuracy']:6.2f} "
            f"{100 * line['gain_over_random']:+.2f} +- {100 * (line['standard_error'] or 0):.2f}"
        )


if __name__ == "__main__":
    main()
