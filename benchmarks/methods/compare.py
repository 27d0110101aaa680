"""All methods side by side: python -m benchmarks.methods.compare --settings 'cifar*' --arms plain dividemix --jobs 2

Every cell (setting, arm, seed) is one training run; it goes to results/methods_cpu/SETTING.json as soon as it is done,
and a cell that is there is not run again. All arms of a seed share rows, wrong labels and the start of the network.
The last epoch counts; true labels only score. Seconds are those of the processor, on one core.

All that docs/methods-compared.md shows:          --jobs 2
One cell:                                         --settings news --arms 'ido edge-masked' --first 2 --seeds 1
Does it run at all (results kept apart):          --tiny --out /somewhere
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cells import add_options, share_of, split
from benchmarks.methods.settings import MLP, PROBE, SETTINGS, TRUSTED, Setting
from unswayed import methods
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.run import build, score, train
from unswayed.machine import describe, find_place, versions
from unswayed.writing import write_text

RESULTS = Path(__file__).parents[2] / "results" / "methods_cpu"
LOSSES = ("gce", "sce", "nce+rce", "anl-ce", "elr", "label-smoothing")
PROBES = ("plain", "sce", "osa", "nmtune", "turn")  # methods for features that are good already, and their controls
MASKED = " edge-masked"

Cell = tuple[str, str, int]  # setting, arm, seed


def arms() -> list[str]:
    """Every method and the robust losses; each with an edge-masked head as well, plain with a random mask too.

    Some come a second time as probes: on the frozen features themselves, for which they were published.
    """
    apart = ("logistic-regression", "knn", "plain", "bilevel")  # they read no head, or are named below
    bare = ["plain", *LOSSES, *(name for name in methods.names() if name not in apart)]
    bars = [name for name in apart[:2] if name in methods.names()]
    bare += [f"{name} {PROBE}" for name in PROBES]
    told = [name + mask + TRUSTED for name in ("plain", "bilevel") for mask in ("", MASKED)]
    return [*bars, *bare, "plain edge-masked(score=random)", *(arm + MASKED for arm in bare), *told]


def run(cell: Cell, tiny: bool = False) -> dict[str, Any]:
    """Train and score one cell."""
    name, arm, seed = cell
    setting = SETTINGS[name]
    if tiny:
        setting = replace(setting, recipe=setting.recipe | {"epochs": 2, "limit": 200})
    config = setting.config(arm, seed)
    task, place = setting.task(config), find_place("auto")
    method = build(config, parse_arm(config.arm), task)
    started = time.process_time()
    outcome = train(config, method, replace(task, test=None), place)  # nothing is scored before the last epoch
    seconds = time.process_time() - started
    _, found = score(method, task, outcome, place)
    suspicion = found["suspicion"] or {}
    return {
        "arm": arm, "seed": seed, "accuracy": round(100 * found["test"]["last"], 2),
        "auroc": round(suspicion.get("auroc", float("nan")), 4) if suspicion else None,
        "epochs": len(outcome.records), "steps": outcome.steps, "samples": outcome.samples,
        "seconds": round(seconds, 2),
    }  # fmt: skip


def file_of(setting: str, folder: Path = RESULTS) -> Path:
    """The results of a setting."""
    return folder / f"{setting.replace(' ', '-')}.json"


def read(setting: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The cells of a setting that are done."""
    file = file_of(setting, folder)
    return json.loads(file.read_text(encoding="utf-8"))["cells"] if file.exists() else []


def add(setting: Setting, cell: dict[str, Any], folder: Path) -> None:
    """Put a cell into its file, a line each, while no other process does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)  # the folder is the lock: nothing is left behind
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cells = sorted([*read(setting.name, folder), cell], key=lambda c: (c["arm"], c["seed"]))
        about = {
            "setting": setting.name,
            "config": setting.config("ARM", 0).as_json(),
            "corrupted": setting.corrupted,
            "versions": versions(),
            "machine": describe(),
        }
        lines = ",\n  ".join(json.dumps(one) for one in cells)
        head = json.dumps(about, indent=1)[:-2]
        write_text(file_of(setting.name, folder), f'{head},\n "cells": [\n  {lines}\n ]\n}}\n')
    finally:
        os.close(lock)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """The cells asked for, seed by seed, so that every comparison grows evenly."""
    chosen = [arm for arm in arms() if any(fnmatch.fnmatch(arm, pattern) for pattern in options.arms)]
    for seed in range(options.first, options.first + options.seeds):
        for name in SETTINGS:
            if any(fnmatch.fnmatch(name, pattern) for pattern in options.settings):
                numbers = SETTINGS[name].body == MLP  # and not n-grams of texts
                fitting = (arm for arm in chosen if numbers or not {PROBE, "knn"} & set(arm.split()))
                yield from ((name, arm, seed) for arm in fitting)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=["*"])
    parser.add_argument("--arms", nargs="+", default=["*"], help="shell patterns of arms")
    add_options(parser, seeds=3, out=RESULTS)
    options = parser.parse_args()
    split("benchmarks.methods.compare", options)
    for name, arm, seed in share_of(cells(options), options):
        if any(c["arm"] == arm and c["seed"] == seed for c in read(name, options.out)):
            continue
        found = run((name, arm, seed), options.tiny)
        add(SETTINGS[name], found, options.out)
        print(name, arm, seed, found["accuracy"], found["auroc"], f"{found['seconds']:.1f}s", flush=True)


if __name__ == "__main__":
    main()
