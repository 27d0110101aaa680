"""What an epoch of every method costs, in epochs of plain cross-entropy, and how much of it is bookkeeping.

    OMP_NUM_THREADS=1 python benchmarks/methods_cost.py [--quick] [--out results/methods_cost.json]

Same net (cnn-small), same made-up pictures (32 x 32) and batches; processor time on one thread. Every run of a method
is divided by the plain runs just before and after it; the order of the methods turns from round to round; what is told
is the median of the ratios with the least and the largest. Beside other work single ratios spread by some 10 %.

- "epoch": an epoch of the last stage, with the selection before it, in plain epochs; where two networks take turns
  (DivideMix and its like), an epoch of both. "stages": an epoch of each stage.
- "forward", "backward": pictures that went through a body and gradients that came back from one, in data sets an
  epoch; "steps": gradient steps, in those of a plain epoch. All three over the last stage, like "epoch".
- "bookkeeping": seconds an epoch at 50,000 rows and 10 classes, beside a net of next to no cost. "between" is all that
  stages compute before they start, but for passes through the net; "within" is what steps note for each sample.
  "percent" of a plain epoch of cnn-small on 50,000 pictures. Nearest neighbours are apart: they are measured at 5,000
  rows and grow with the square.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from unswayed import methods, nets
from unswayed.data.augment import augmentation
from unswayed.engine import fit
from unswayed.heads import create as create_head
from unswayed.machine import describe, versions
from unswayed.method import Data, Info, Method
from unswayed.methods.semi import CoDivided
from unswayed.nets.net import Body
from unswayed.stats.mixtures import beta_mixture, gaussian_mixture
from unswayed.stats.neighbours import neighbours
from unswayed.writing import write_json

SHAPE, CLASSES, BATCH, EPOCHS, NOISE = (3, 32, 32), 10, 128, 2, 0.4
GOALS = {"ido": 2.2, "co-teaching": 2.1, "dividemix": 5.0}
BY_NEIGHBOURS = ("ssr", "knn")
NOTED = {  # what notes something for each sample within a step, beside `observe`
    "ido": ("_weights", "_note"),
    "elr+": ("_renew",),
    "lccn": ("_move",),
    "sed": ("_move_confidence",),
    "bilevel": ("_move",),
}


# ------------------------------------------------------------------------------------------------ epochs


@dataclass
class Run:
    """What one run took: seconds of each epoch by stage, passes and steps of the last stage's epochs."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    passes: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))  # forward, backward, steps
    turns: tuple[str, ...] = ()  # the last stage, or those of both networks

    def epoch(self) -> float:
        """Seconds of an epoch of the last stage."""
        return sum(statistics.mean(self.seconds[name]) for name in self.turns)

    def counts(self) -> Tensor:
        """Rows forward, rows backward and steps in an epoch of the last stage."""
        return sum((torch.stack(self.passes[name]).mean(0) for name in self.turns), torch.zeros(3))


def run(name: str, data: Data) -> Run:
    """Train on the pictures and watch the clock."""
    views = {view: augmentation("image", SHAPE, view) for view in ("weak", "strong")}

    def make_net() -> nets.Net:
        body = nets.create_body("cnn-small", kind="image", shape=SHAPE, stats=nets.measure(data.x, "image"))
        return nets.Net(body, create_head("linear", body.features, CLASSES))

    method, found, now = make(name, make_net, len(data)), Run(), torch.zeros(3)
    hook = count_passes(method, now)
    marks = [(time.process_time(), now.clone())]

    def note(stage: str, epochs: int = 1) -> None:
        marks.append((time.process_time(), now.clone()))
        found.seconds[stage].append((marks[-1][0] - marks[-2][0]) / epochs)
        found.passes[stage].append((marks[-1][1] - marks[-2][1]) / epochs)

    with hook:
        fit(method, data, epochs=EPOCHS, batch=BATCH, lr=0.01, augment=views, watch=[lambda record: note(record.stage)])
    if not found.seconds:  # a bar that is computed and not trained
        note("all of it", EPOCHS)
    stages = list(found.seconds)
    found.turns = tuple(stages[-2:]) if isinstance(method, CoDivided) else (stages[-1],)
    return found


def make(name: str, make_net: Callable[[], nn.Module], rows: int) -> Method:
    """The method with its own settings, always from the same seed."""
    torch.manual_seed(0)
    settings = {"trusted": list(range(0, rows, 20))} if name == "bilevel" else {}
    return methods.create(name, make_net, Info(rows, CLASSES), **settings)


def count_passes(method: Method, count: Tensor) -> RemovableHandle:
    """Add up rows that go through a body, rows that come back, and steps, until the handle is removed."""

    def forward(body: nn.Module, inputs: Any, features: Tensor) -> None:
        count[0] += len(features)
        if features.requires_grad:
            features.register_hook(backward)  # type: ignore[no-untyped-call]

    def backward(slope: Tensor) -> None:
        count[1] += len(slope)

    def step(optimizer: Any, *rest: Any) -> None:
        count[2] += 1

    for body in (module for module in method.modules() if isinstance(module, Body)):
        body.register_forward_hook(forward)
    return register_optimizer_step_post_hook(step)


def pictures(rows: int) -> Data:
    """A pattern a class under strong pixel noise, labels with symmetric noise; every twentieth label is right."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(CLASSES, (rows,), generator=generator)
    patterns = torch.randint(0, 256, (CLASSES, *SHAPE), generator=generator)
    x = patterns[truth] // 4 + torch.randint(0, 192, (rows, *SHAPE), generator=generator)
    return Data.of(x.to(torch.uint8), spoil(truth, generator))


def spoil(truth: Tensor, generator: torch.Generator) -> Tensor:
    """Labels of which a share of NOISE are drawn anew, but for every twentieth."""
    wrong = torch.rand(len(truth), generator=generator) < NOISE
    wrong[::20] = False
    return torch.where(wrong, torch.randint(CLASSES, (len(truth),), generator=generator), truth)


def time_epochs(names: list[str], rows: int, rounds: int) -> dict[str, Any]:
    """Each method in plain epochs, and the seconds of one of these."""
    data, ratios, runs = pictures(rows), defaultdict[str, list[tuple[float, Run]]](list), {}
    plains = [run("plain", data).epoch()]
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            one = run(name, data)
            plains.append(run("plain", data).epoch())
            ratios[name].append(((plains[-2] + plains[-1]) / 2, one))
            print(f"round {turn + 1}: {name} {one.epoch() / ratios[name][-1][0]:.2f}", flush=True)
    steps = -(-rows // BATCH)
    for name in names:
        epoch = [one.epoch() / plain for plain, one in ratios[name]]
        forward, backward, taken = ratios[name][0][1].counts().tolist()
        runs[name] = {
            "epoch": statistics.median(epoch),
            "least": min(epoch),
            "largest": max(epoch),
            "stages": {
                stage: statistics.median(statistics.mean(one.seconds[stage]) / plain for plain, one in ratios[name])
                for stage in ratios[name][0][1].seconds
            },
            "forward": forward / rows,
            "backward": backward / rows,
            "steps": taken / steps,
        }
    return {"plain epoch, seconds": statistics.median(plains), "methods": runs}


# ------------------------------------------------------------------------------------------------ bookkeeping


class Stopwatch:
    """Adds up processor time inside of some calls, and leaves out that of others."""

    def __init__(self) -> None:
        self.total, self.depth, self.since = 0.0, 0, 0.0

    def counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time counted; calls within calls once."""

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.total += time.process_time() - start

        return timed

    def excepting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time not counted where it is called from a counted one."""

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                if self.depth:
                    self.total -= time.process_time() - start

        return timed


def time_bookkeeping(name: str, rows: int) -> dict[str, float]:
    """Seconds an epoch for what is not the network's, at so many rows of two numbers."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(CLASSES, (rows,), generator=generator)
    x = torch.eye(CLASSES)[truth] * 3 + torch.randn(rows, CLASSES, generator=generator)
    data = Data.of(x, spoil(truth, generator))

    def make_net() -> nets.Net:
        return nets.Net(nets.create_body("identity", kind="table", shape=(CLASSES,)), create_head("linear", 10, 10))

    method, between, within = make(name, make_net, rows), Stopwatch(), Stopwatch()
    for attribute in ("observe", *NOTED.get(name, ())):
        setattr(method, attribute, within.counting(getattr(method, attribute)))
    for module in (m for m in method.modules() if isinstance(m, nets.Net)):
        module.forward = between.excepting(module.forward)  # type: ignore[method-assign]
    plan = method.plan

    def timed_plan(epochs: int) -> list[Any]:
        return [replace(stage, data=between.counting(stage.data)) for stage in plan(epochs)]

    method.plan = timed_plan  # type: ignore[method-assign]
    room = inspect.getmodule(type(method))
    apart = mock.patch.object(room, "neighbours", between.excepting(neighbours))
    with apart if hasattr(room, "neighbours") else contextlib.nullcontext():
        outcome = fit(method, data, epochs=EPOCHS, batch=BATCH, lr=0.01)
    epochs = max(1, len(outcome.records)) / (2 if isinstance(method, CoDivided) else 1)
    return {"between": between.total / epochs, "within": within.total / epochs}


def time_neighbours(rows: int, features: int = 128) -> dict[str, float]:
    """Seconds for the 10 nearest neighbours of so many rows, and by the square for ten times as many."""
    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(0))
    seconds = best_seconds(lambda: neighbours(x, 10))
    return {"rows": rows, "features": features, "seconds": seconds, "seconds at ten times the rows": 100 * seconds}


def time_mixtures(values: int) -> dict[str, float]:
    """Seconds to fit a mixture to so many losses and to ask it for all of them."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(values, generator=generator) < NOISE
    losses = torch.where(noisy, 3.0, 0.5) + torch.where(noisy, 0.8, 0.3) * torch.randn(values, generator=generator)
    return {
        "values": values,
        "gaussian, 10 rounds": best_seconds(lambda: gaussian_mixture(losses, rounds=10).posterior(losses)),
        "gaussian, 30 rounds": best_seconds(lambda: gaussian_mixture(losses).posterior(losses)),
        "beta, 20 rounds": best_seconds(lambda: beta_mixture(losses).posterior(losses)),
    }


def best_seconds(call: Callable[[], object], times: int = 3) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def show(found: dict[str, Any]) -> None:
    table = Table("method", "epoch", "least", "largest", "forward", "backward", "steps", "bookkeeping %")
    for name, cost in found["methods"].items():
        percent = cost["bookkeeping"]["percent"]
        numbers = [cost[key] for key in ("epoch", "least", "largest", "forward", "backward", "steps")]
        table.add_row(name, *(f"{number:.2f}" for number in numbers), f"{percent:.2f}")
    console = Console(width=120)
    console.print(table)
    console.print({key: value for key, value in found.items() if key != "methods"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--rows", type=int, default=1280, help="pictures (default 1280)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each method (default 2)")
    parser.add_argument("--only", nargs="*", help="these methods instead of all")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    rows, rounds, many = (256, 1, 2_000) if quick else (options.rows, options.rounds, 50_000)
    names = options.only or list(methods.names())
    for name in names:
        methods.get(name)  # so that no import falls into a run
    config = {"net": "cnn-small", "shape": SHAPE, "classes": CLASSES, "batch": BATCH, "epochs": EPOCHS, "seed": 0}
    found: dict[str, Any] = {
        "about": {**describe(), **versions(), **config, "rows": rows, "rounds": rounds, "noise": NOISE},
        "goals": GOALS,
        "mixtures": time_mixtures(20 * many),
        "neighbours": time_neighbours(many // 10),
        **time_epochs(names, rows, rounds),
    }
    plain = found["plain epoch, seconds"] * many / rows
    for name in names:
        size = many // 10 if name in BY_NEIGHBOURS else many
        kept = time_bookkeeping(name, size)
        kept = {"rows": size, **kept, "percent": 100 * sum(kept.values()) / (plain * size / many)}
        found["methods"][name]["bookkeeping"] = kept
        if options.out:
            write_json(options.out, found)
    show(found)


if __name__ == "__main__":
    main()
