"""What mixtures and IDO cost, and whether wrong events single out wrong labels as they are said to.

    OMP_NUM_THREADS=1 python -m benchmarks.mixtures [--quick] [--out results/mixtures_cpu.json]

Times are processor time on one thread, the best of interleaved rounds; read the ratios, which are taken within one run.
The real data set (CIFAR-10N, folder `cifar10n` of UNSWAYED_DATA) is left out where it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich import print as show
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor

from benchmarks.timing import best_seconds
from unswayed import methods, nets
from unswayed.data.augment import augmentation
from unswayed.engine import Record, fit
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.run import build, train
from unswayed.experiment.scoring import score_suspicion
from unswayed.experiment.task import make_task, read_data
from unswayed.heads import create as create_head
from unswayed.losses import cross_entropy
from unswayed.machine import describe, find_place, versions
from unswayed.method import Batch, Data, Info, MakeNet, Method
from unswayed.stats.mixtures import beta_mixture, gaussian_mixture
from unswayed.stats.wrong_events import DynamicWeights, ido_weights
from unswayed.writing import write_json

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("UNSWAYED_DATA", ROOT.parent / "shared" / "data"))


# ------------------------------------------------------------------------------------------------ mixtures


def time_mixtures(values: int, rounds: int) -> dict[str, Any]:
    """Seconds to fit mixtures to so many losses or counts of wrong events, whole set and a class each."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(values, generator=generator) < 0.4
    losses = torch.where(noisy, 3.0, 0.5) + torch.where(noisy, 0.8, 0.3) * torch.randn(values, generator=generator)
    counts = torch.where(noisy, 12, 2) + torch.randint(4, (values,), generator=generator)
    few, many = (torch.randint(k, (values,), generator=generator) for k in (100, 1000))
    table, column = DynamicWeights(100), losses[:, None].numpy()
    sklearn = Reference(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)  # as DivideMix fits it
    calls: dict[str, Callable[[], object]] = {
        "gaussian, losses": lambda: gaussian_mixture(losses).posterior(losses),
        "gaussian, 10 rounds": lambda: gaussian_mixture(losses, rounds=10).posterior(losses),
        "gaussian, 100 classes": lambda: gaussian_mixture(losses, few).posterior(losses, few),
        "gaussian, 1000 classes": lambda: gaussian_mixture(losses, many).posterior(losses, many),
        "beta, losses": lambda: beta_mixture(losses).posterior(losses),
        "beta, counts": lambda: beta_mixture(counts).posterior(counts),
        "ido weights, 100 classes": lambda: ido_weights(counts, few),
        "table of weights, 100 classes, 2 rounds": lambda: table.fit(counts, few, rounds=2),
        "scikit-learn's gaussian, 10 rounds": lambda: sklearn.fit(column).predict_proba(column),
    }
    return {"values": values, "seconds": best_seconds(calls, rounds)}


# ------------------------------------------------------------------------------------------------ an epoch of IDO


def time_epochs(rows: int, rounds: int) -> dict[str, Any]:
    """Seconds of an epoch, mixtures included, of cross-entropy and of IDO's stages: a CNN, pictures of 32 x 32."""
    shape, classes = (3, 32, 32), 10
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (rows, *shape), dtype=torch.uint8, generator=generator)
    data = Data.of(x, torch.randint(classes, (rows,), generator=generator))
    views = {view: augmentation("image", shape, view) for view in ("weak", "strong")}

    def make_net() -> nets.Net:
        body = nets.create_body("cnn8", kind="image", shape=shape, stats=nets.measure(data.x, "image"))
        return nets.Net(body, create_head("linear", body.features, classes))

    def epochs_of(name: str) -> dict[str, float]:
        best: dict[str, float] = {}
        clock = [time.process_time()]

        def note(record: Record) -> None:
            clock.append(time.process_time())
            best[record.stage] = min(best.get(record.stage, float("inf")), clock[-1] - clock[-2])

        method = methods.create(name, make_net, Info(rows, classes))
        fit(method, data, epochs=3, batch=128, lr=0.01, augment=views, watch=[note])
        return best

    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name in ("plain", "ido"):
            for stage, taken in epochs_of(name).items():
                seconds[stage] = min(seconds.get(stage, float("inf")), taken)
    plain, count, refine = seconds["train"], seconds["count wrong events"], seconds["refine"]
    ratio = {"count": count / plain, "refine": refine / plain, "whole plan": (count + 2 * refine) / 3 / plain}
    return {"rows": rows, "seconds": seconds, "over plain cross-entropy": ratio}


# ------------------------------------------------------------------------------------------------ what counts say


class Watched(Method):
    """Plain cross-entropy that remembers each sample's last loss and the sum of its losses. No paper."""

    def __init__(self, make_net: MakeNet, info: Info) -> None:
        super().__init__(make_net, info)
        self.last, self.total = torch.zeros(info.samples), torch.zeros(info.samples)

    def loss(self, batch: Batch) -> Tensor:
        logits = self.net(batch.x)
        self.observe(logits, batch)
        losses = cross_entropy(logits, batch.y)
        self.last[batch.index] = losses.detach()
        self.total[batch.index] += losses.detach()
        return losses.mean()


def compare_evidence(config: Config, look: tuple[int, ...]) -> list[dict[str, float]]:
    """AUROC of each kind of evidence against the truth, which training never sees, after some epochs."""
    task = make_task(config, read_data(config))
    method = build(config, parse_arm("watched"), task)
    assert isinstance(method, Watched)
    found: list[dict[str, float]] = []

    def note(record: Record) -> None:
        if record.epoch + 1 in look:
            evidence = {
                "wrong events": method.dynamics.wrong.float(),
                "ido, class": ido_weights(method.dynamics.wrong, task.train.given).doubt,
                "mean loss": method.total,
                "last loss": method.last,
                "1 - mean confidence": 1 - method.dynamics.confidence / method.dynamics.seen,
            }
            scores = {
                name: score_suspicion(each, task.train.given, task.train.truth) for name, each in evidence.items()
            }
            known = {name: round(score["auroc"], 4) for name, score in scores.items() if score is not None}
            found.append({"epoch": record.epoch + 1, "train accuracy": round(record.train_accuracy or 0.0, 4), **known})

    train(config, method, task, find_place("cpu"), watch=[note])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods.add("watched", Watched)
    quick = options.quick
    found: dict[str, Any] = {"about": {**describe(), **versions()}}
    found["mixtures"] = [time_mixtures(n, 1 if quick else 3) for n in ((10_000,) if quick else (50_000, 1_000_000))]
    found["epochs"] = time_epochs(256 if quick else 1280, 1 if quick else 3)
    found["evidence"] = {}
    look = (1, 2) if quick else (5, 10, 20, 40)
    digits = Config("digits", noise="symmetric", rate=0.4, epochs=max(look), device="cpu")
    found["evidence"]["digits, 40 % symmetric"] = compare_evidence(digits, look)
    if (DATA / "cifar10n").is_dir():
        reader = {"input": "image", "label": "worst", "truth": "label"}
        limit = 256 if quick else 2000
        real = Config(
            str(DATA / "cifar10n" / "train.parquet"), reader=reader, limit=limit, epochs=max(look), device="cpu"
        )
        found["evidence"][f"CIFAR-10N worst (JPEG), {limit} rows"] = compare_evidence(real, look)
    show(json.loads(json.dumps(found)))
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    main()
