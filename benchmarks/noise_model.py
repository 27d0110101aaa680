"""Is learned noise like that of people? Fitted on one half of CIFAR-10 (JPEG)'s human labels, compared on the other.

    python -m benchmarks.noise_model --annotators CIFAR-10_human.pt --out results/noise_model.json

Without the file of all three annotators (github.com/UCSC-REAL/cifar-10-100n), only the columns random1 and worst are
compared, and agreement between annotators is left out. Features are those of the edge-masking study, made without
labels; the half that is compared takes no part in any fit. Runs that the file of results has already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from torch import Tensor

from benchmarks.edge_masking.settings import SETTINGS, cifar_features
from unswayed import noise
from unswayed.data import TensorColumn, pickles
from unswayed.data.dataset import Dataset
from unswayed.engine import fit
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.run import build
from unswayed.experiment.task import Task
from unswayed.machine import describe, versions
from unswayed.method import Data
from unswayed.noise import NoiseModel, learn_noise, transition_of
from unswayed.prediction import accuracy

CLASSES, ROWS, HALF, TRAINED = 10, 20_000, 10_000, 5_000
SEEDS = (1, 2, 3)
ARMS = ("plain", "gce")


def read_columns(dataset: Dataset, annotators: Path | None) -> dict[str, Tensor]:
    """Given labels by column: [N] each; with the file of the annotators, all three of them."""
    truth = dataset.train.truth
    assert truth is not None
    columns = {"worst": dataset.train.given, "random1": cifar_features("random1", ROWS).train.given}
    if annotators is not None:
        told = pickles.load(annotators, str(annotators))
        human = {name: torch.as_tensor(values[:ROWS]).long() for name, values in told.items()}
        assert torch.equal(human["clean_label"], truth), "other rows"
        assert torch.equal(human["random_label1"], columns["random1"])
        columns |= {f"random{i}": human[f"random_label{i}"] for i in (2, 3)}
    return columns


def flip(probability: Tensor, truth: Tensor) -> Tensor:
    """The probability of a wrong label: [N, K], [N] -> [N]."""
    return 1 - probability.gather(1, truth[:, None])[:, 0]


def matrix_gap(truth: Tensor, one: Tensor, other_truth: Tensor, other: Tensor) -> dict[str, float]:
    gap = (transition_of(truth, one, CLASSES) - transition_of(other_truth, other, CLASSES)).abs()
    return {"max": float(gap.max()), "mean": float(gap.mean())}


def difficulty(chance: Tensor, wrong: Tensor, truth: Tensor) -> dict[str, float]:
    """How well `chance` [N] tells which rows get wrong labels; within classes too, where the class cannot help."""
    classes = [truth == label for label in range(CLASSES)]
    alike = [len(torch.unique(chance[rows])) == 1 for rows in classes]
    areas = [roc_auc_score(wrong[rows], chance[rows]) for rows in classes]
    ranks = [
        0.0 if same else float(spearmanr(chance[rows], wrong[rows]).statistic)
        for rows, same in zip(classes, alike, strict=True)
    ]
    return {
        "auroc": float(roc_auc_score(wrong, chance)),
        "auroc_within_classes": float(sum(areas) / CLASSES),
        "rank_correlation_within_classes": sum(ranks) / CLASSES,
    }


def calibration(chance: Tensor, wrong: Tensor, bins: int = 15) -> float:
    """Expected calibration error over bins of equally many rows."""
    order = chance.argsort()
    gaps = [
        (len(rows) / len(chance)) * abs(float(chance[rows].mean()) - float(wrong[rows].double().mean()))
        for rows in order.chunk(bins)
    ]
    return sum(gaps)


def agreement(labels: Tensor, truth: Tensor) -> dict[str, float]:
    """Of annotators [N, A]: kappa of labels and of being wrong, the same wrong label where both are wrong."""
    pairs = [(a, b) for a in range(labels.shape[1]) for b in range(a)]
    wrong = labels != truth[:, None]
    both = [wrong[:, a] & wrong[:, b] for a, b in pairs]
    mean = {
        "kappa_labels": [cohen_kappa_score(labels[:, a], labels[:, b]) for a, b in pairs],
        "kappa_wrong": [cohen_kappa_score(wrong[:, a], wrong[:, b]) for a, b in pairs],
        "same_wrong_label": [
            float((labels[rows, a] == labels[rows, b]).double().mean())
            for (a, b), rows in zip(pairs, both, strict=True)
        ],
    }
    return {
        **{name: float(sum(values) / len(pairs)) for name, values in mean.items()},
        "any_wrong": float(wrong.any(1).double().mean()),
        "all_wrong": float(wrong.all(1).double().mean()),
    }


def compare_column(
    name: str, columns: dict[str, Tensor], x: Tensor, truth: Tensor
) -> tuple[dict[str, Any], NoiseModel]:
    """One column: fitted on the first half, compared with the second."""
    fitted, held = slice(HALF), slice(HALF, ROWS)
    given, real = columns[name][fitted], columns[name][held]
    started = time.process_time()
    model = learn_noise(x[fitted], truth[fitted], given, classes=CLASSES)
    seconds = time.process_time() - started
    plain = replace(model, likeness=None)
    wrong = real != truth[held]
    rate = float((given != truth[fitted]).double().mean())
    predicted = {"learned": model.probabilities(truth[held], x[held]), "class-wise": plain.probabilities(truth[held])}
    symmetric = torch.full((HALF, CLASSES), rate / (CLASSES - 1), dtype=torch.float64)
    predicted["symmetric"] = symmetric.scatter(1, truth[held][:, None], 1 - rate)
    models: dict[str, Any] = {}
    for kind, probability in predicted.items():
        chance = flip(probability, truth[held])
        drawn = torch.multinomial(probability, 1, generator=torch.Generator().manual_seed(0))[:, 0]
        models[kind] = {
            "transition": matrix_gap(truth[held], drawn, truth[held], real),
            "log_likelihood": float(probability.log().gather(1, real[:, None]).mean()),
            "calibration_error": calibration(chance, wrong),
        }
        if kind != "symmetric":
            models[kind]["difficulty"] = difficulty(chance, wrong, truth[held])
    pmd = noise.corrupt("instance", truth[held], x=x[held], rate=rate, classes=CLASSES, seed=0)
    models["instance"] = {"transition": matrix_gap(truth[held], pmd, truth[held], real)}
    about = {
        "rate": rate,
        "rate_held_out": float(wrong.double().mean()),
        "fit_seconds": seconds,
        "held_out_in_fit": model.about["held_out"],
        "two_real_halves": matrix_gap(truth[fitted], given, truth[held], real),
        "models": models,
    }
    others = [columns[f"random{i}"][held] for i in (1, 2, 3) if f"random{i}" in columns and f"random{i}" != name]
    if len(others) >= 2 and name.startswith("random"):
        one = (others[0] != truth[held]).double()
        two = one + (others[1] != truth[held]).double()
        ceiling = {"one": difficulty(one, wrong, truth[held]), "two": difficulty(two, wrong, truth[held])}
        about["other_annotators"] = {**ceiling, "transition": matrix_gap(truth[held], others[0], truth[held], real)}
    return about, model


def compare_annotators(columns: dict[str, Tensor], x: Tensor, truth: Tensor) -> dict[str, Any]:
    """All three annotators in one model: do drawn ones agree as real ones do?"""
    fitted, held = slice(HALF), slice(HALF, ROWS)
    real = torch.stack([columns[f"random{i}"] for i in (1, 2, 3)], 1)
    model = learn_noise(x[fitted], truth[fitted], real[fitted], classes=CLASSES)
    apart = replace(model, agreement=0.0)
    plain = replace(model, likeness=None, agreement=0.0)
    wrong = (real[held] != truth[held][:, None]).double()
    chance = flip(model.probabilities(truth[held], x[held]), truth[held])
    return {
        "agreement_parameter": model.agreement,
        "held_out_in_fit": model.about["held_out"],
        "calibration_error": calibration(chance, wrong.mean(1)),
        "difficulty": difficulty(chance, wrong[:, 0] > 0, truth[held]),
        "real": agreement(real[held], truth[held]),
        "drawn": agreement(model.sample(truth[held], x[held], annotators=3), truth[held]),
        "drawn, independent given features": agreement(apart.sample(truth[held], x[held], annotators=3), truth[held]),
        "drawn, class-wise": agreement(plain.sample(truth[held], annotators=3), truth[held]),
    }


def transfer(name: str, real: Tensor, model: NoiseModel, dataset: Dataset, seed: int) -> list[dict[str, Any]]:
    """Accuracy of small networks trained on real and on drawn labels of the held-out half, all of the real rate."""
    truth, x = dataset.train.truth, dataset.train.x.rows(torch.arange(ROWS))
    assert truth is not None
    at = HALF + torch.randperm(ROWS - HALF, generator=torch.Generator().manual_seed(seed))[:TRAINED]
    truth, x, real = truth[at], x[at], real[at]
    rate = float((real != truth).double().mean())
    matrix = replace(model, likeness=None)
    drawn = {
        "real": real,
        "learned": model.sample(truth, x, seed=seed, rate=rate),
        "class-wise": matrix.sample(truth, seed=seed, rate=rate),
        "symmetric": noise.corrupt("symmetric", truth, rate=rate, classes=CLASSES, seed=seed),
        "instance": noise.corrupt("instance", truth, x=x, rate=rate, classes=CLASSES, seed=seed),
    }
    lines = []
    setting = SETTINGS["cifar worst"]
    for kind, given in drawn.items():
        split = replace(dataset.train.take(at), x=TensorColumn(x), given=given)
        task = Task(dataset, split, dataset.test, "truth", None, torch.zeros(0, dtype=torch.int64))
        for arm in ARMS:
            config = replace(setting.config(seed), arm=f"{arm} mlp(widths=256)")
            method = build(config, parse_arm(config.arm), task)
            fit(method, Data.of(split.x, split.given), config.training("table"))
            assert task.test is not None
            assert task.test_labels is not None
            score = accuracy(method, task.test.x, task.test_labels)
            wrong = float((given != truth).double().mean())
            lines.append({"column": name, "noise": kind, "arm": arm, "seed": seed, "rate": wrong, "accuracy": score})
    return lines


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean accuracy over seeds, and its distance to that on real labels, paired."""
    lines = []
    cell = {(run["column"], run["noise"], run["arm"], run["seed"]): run["accuracy"] for run in runs}
    for column, kind, arm in dict.fromkeys(key[:3] for key in cell):
        seeds = [key[3] for key in cell if key[:3] == (column, kind, arm)]
        score = torch.tensor([cell[column, kind, arm, seed] for seed in seeds])
        away = score - torch.tensor([cell[column, "real", arm, seed] for seed in seeds])
        error = float(away.std() / len(away) ** 0.5) if len(away) > 1 else None
        line = {"column": column, "noise": kind, "arm": arm, "accuracy": float(score.mean())}
        lines.append({**line, "away_from_real": float(away.mean()), "standard_error": error})
    return lines


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--annotators", type=Path, help="CIFAR-10_human.pt: all three annotators")
    asked.add_argument("--out", type=Path, default=Path("results/noise_model.json"))
    asked.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS), help="of the networks that are trained")
    given = asked.parse_args()
    torch.set_num_threads(1)
    dataset = cifar_features("worst", ROWS)
    truth, x = dataset.train.truth, dataset.train.x.rows(torch.arange(ROWS))
    assert truth is not None
    columns = read_columns(dataset, given.annotators)
    result: dict[str, Any] = {"machine": describe(), "versions": versions(), "columns": {}, "transfer": {}}
    models = {}
    for name in ("random1", "worst"):
        result["columns"][name], models[name] = compare_column(name, columns, x, truth)
        print(name, json.dumps(result["columns"][name], indent=1), flush=True)
    if given.annotators is not None:
        result["annotators"] = compare_annotators(columns, x, truth)
        print(json.dumps(result["annotators"], indent=1), flush=True)
    runs: list[dict[str, Any]] = []
    if given.out.exists():
        runs = json.loads(given.out.read_text())["transfer"]["runs"]
    for seed in given.seeds:
        for name, model in models.items():
            if not any((run["seed"], run["column"]) == (seed, name) for run in runs):
                runs += transfer(name, columns[name], model, dataset, seed)
            result["transfer"] = {"summary": summarise(runs), "runs": runs}
            given.out.write_text(json.dumps(result, indent=1) + "\n")
    for line in result["transfer"]["summary"]:
        print(line)


if __name__ == "__main__":
    main()
