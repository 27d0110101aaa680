"""What one process and several are compared on: `torchrun tests/agreement_run.py FOLDER ARM ...` writes what arms did.

Every file holds the per-sample counters, the suspicion and the predictions at the end, and what was equal in all
processes after every epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unswayed import heads, methods
from unswayed.checks.methods import toy
from unswayed.engine import Record, fit, predict
from unswayed.errors import UnswayedError
from unswayed.machine import Place, find_place
from unswayed.method import Info, Method
from unswayed.sharding import spread, whole

ROWS, EPOCHS, CLIP = 251, 8, 0.5  # no batch divides evenly; the clip is one that is reached


class Net(nn.Module):
    """6 -> 256 -> 256 -> classes: one layer is large enough to be gathered by itself."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.head = heads.create(head, 256, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


@dataclass(frozen=True)
class Arm:
    """A method on the toy rows, and whether its network is spread over the processes."""

    method: str
    head: str = "linear"
    shard: bool = False
    loss: str | None = None

    @property
    def name(self) -> str:
        return " ".join([self.loss or self.method, self.head, *(["sharded"] if self.shard else [])])

    @property
    def same_steps(self) -> bool:
        """Whether one process takes the very same steps; else each chooses or mixes among its share of a batch."""
        return self.method == "plain"

    def make(self, seed: int = 0) -> Method:
        torch.manual_seed(seed)
        kind = methods.get(self.method)
        more: dict[str, Any] = {"loss": self.loss} if self.loss else {}
        return kind(lambda: Net(self.head), Info(ROWS, 3), **{**kind.test_settings, **more})

    def trained(self, seed: int = 0, **more: Any) -> Method:
        """A fresh method of that seed after its training."""
        method = self.make(seed)
        self.train(method, seed=seed, **more)
        return method

    def train(self, method: Method, *, seed: int = 0, place: Place | None = None, **more: Any) -> None:
        """Stages of rows like these last `EPOCHS` epochs; `evaluate` may end them early."""
        settings: dict[str, Any] = {"epochs": EPOCHS, "batch": 64, "lr": 0.05, "clip": CLIP, "seed": seed}
        place = None if place is None else replace(place, shard=self.shard)
        fit(method, toy(ROWS)[0], place=place, **settings, **more)


ARMS = [
    Arm("plain"),
    Arm("plain", "edge-masked"),
    Arm("plain", loss="elr"),
    Arm("ido"),
    Arm("co-teaching"),
    Arm("dividemix"),
    Arm("plain", "edge-masked", shard=True),
    Arm("co-teaching", shard=True),
]


class Stopped(Exception):  # noqa: N818 - not an error
    """Ends a run in its midst."""


def outcome(method: Method) -> dict[str, Tensor]:
    """What is compared: counters [N], suspicion [N] and the classes predicted [N]."""
    suspicion = method.suspicion()
    assert suspicion is not None
    said = predict(method, toy(ROWS)[0].x).argmax(1)
    return {"seen": method.dynamics.seen, "wrong": method.dynamics.wrong, "suspicion": suspicion, "said": said}


def watching(
    place: Place, found: dict[str, Any], last: int | None = None
) -> Callable[[Method, Record], dict[str, float]]:
    """An evaluation that notes what differs between the processes, and ends the run after epoch `last`."""

    def look(method: Method, record: Record) -> dict[str, float]:
        found.setdefault("differ", []).extend(different(method.state_dict(), place))
        found.setdefault("rows", []).append((int(method.dynamics.seen.min()), int(method.dynamics.seen.max())))
        if record.epoch == last:
            raise Stopped
        return {}

    return look


def different(state: dict[str, Tensor], place: Place) -> list[str]:
    """What is not equal in all processes."""
    values = {name: whole(value).double().flatten() for name, value in state.items()}
    mine = torch.cat(list(values.values()))
    first = mine.clone()
    dist.broadcast(first, 0)
    if not place.any(not torch.equal(first, mine)):
        return []
    parts = zip(values, first.split([len(value) for value in values.values()]), strict=True)
    return [name for name, part in parts if not torch.equal(part, values[name])]


def run(arm: Arm, place: Place, folder: Path) -> dict[str, Any]:
    """Train the arm, then again in two halves, the first of which leaves a checkpoint for others to go on from."""
    found: dict[str, Any] = {"arm": arm.name, "differ": [], "rows": []}
    method = arm.make()
    arm.train(method, place=place, evaluate=watching(place, found))
    found["spread"] = spread(method)
    found |= outcome(method)
    if not arm.shard:
        if not arm.same_steps:
            found["more seeds"] = [outcome(arm.trained(seed, place=place)) for seed in (1, 2)]
        return found
    half = arm.make()
    try:
        file = folder / f"{arm.name}.safetensors"
        arm.train(half, place=place, evaluate=watching(place, {}, last=1), checkpoint=file, save_seconds=0.0)
    except Stopped:
        pass
    again = arm.make()
    if (alone := folder / f"{arm.name} alone.safetensors").exists():  # written by one process
        arm.train(again, place=place, checkpoint=alone, save_seconds=1e9, resume=True)
        found["taken over"] = outcome(again)
    return found


def refused(place: Place) -> str:
    """What is said where a loss takes the parameters of a sharded network as they lie."""
    arm = Arm("plain", shard=True, loss="anl-ce")
    try:
        arm.train(arm.make(), place=place)
    except UnswayedError as error:
        return str(error)
    return "nothing"


def main() -> None:
    torch.set_num_threads(1)
    place, folder = find_place("cpu"), Path(sys.argv[1])
    found: dict[str, Any] = {arm.name: run(arm, place, folder) for arm in ARMS if arm.name in sys.argv[2:]}
    found["refused"] = refused(place)
    if place.first:
        torch.save(found, folder / "found.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
