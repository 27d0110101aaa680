"""Two and four processes, with whole networks and with sharded ones, do what one process does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from agreement_run import ARMS, EPOCHS, ROWS, Arm, Stopped, outcome
from scipy.stats import spearmanr
from test_distributed import launch
from torch import Tensor

from unswayed.checks.methods import auroc, toy
from unswayed.method import Method

SEEDS = 12
FEW = ["plain edge-masked", "co-teaching linear", "dividemix linear", "plain edge-masked sharded"]
pytestmark = pytest.mark.slow


def train_alone(arm: Arm, seed: int = 0, **more: Any) -> dict[str, Tensor]:
    return outcome(arm.trained(seed, **more))


@cache
def seeds_alone(arm: Arm) -> list[dict[str, Tensor]]:
    """What one process finds with several seeds."""
    return [train_alone(arm, seed) for seed in range(SEEDS)]


def accuracy(found: dict[str, Any]) -> float:
    return float((found["said"] == toy(ROWS)[1]).float().mean())


def leave_half(arm: Arm, file: Path) -> None:
    """A checkpoint of the first two epochs, by one process."""

    def stop(method: Method, record: Any) -> dict[str, float]:
        if record.epoch == 2:
            raise Stopped
        return {}

    with pytest.raises(Stopped):
        arm.train(arm.make(), checkpoint=file, save_seconds=0.0, evaluate=stop)


@pytest.fixture(scope="module", params=[2, 4])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run in so many processes, and what they found: all arms in two, a few in four."""
    folder = tmp_path_factory.mktemp("several")
    names = [arm.name for arm in ARMS] if request.param == 2 else FEW
    for arm in ARMS:
        if arm.shard and arm.name in names:
            leave_half(arm, folder / f"{arm.name} alone.safetensors")
    launch(request.param, str(Path(__file__).with_name("agreement_run.py")), str(folder), *names)
    return folder, torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_several_processes_do_what_one_does(arm: Arm, several: tuple[Path, dict[str, Any]]) -> None:
    folder, found = several[0], several[1].get(arm.name)
    if found is None:
        pytest.skip("in two processes alone")
    assert found["differ"] == [], "masks, rows and parameters are equal in all processes after every epoch"
    assert found["spread"] is arm.shard
    alone = seeds_alone(replace(arm, shard=False))
    if arm.method == "plain":
        assert found["rows"] == [(epoch, epoch) for epoch in range(1, EPOCHS + 1)], "each row once an epoch"
    if arm.same_steps:
        assert same_counters(found, alone[0])
        assert rank_correlation(found, alone[0]) > 0.999
    together, wrong = [found, *found.get("more seeds", [])], toy(ROWS)[2]
    if not arm.shard:
        within_the_spread(map(accuracy, together), map(accuracy, alone))
        within_the_spread(*([auroc(one["suspicion"], wrong) for one in ones] for ones in (together, alone)))
        return
    whole = several[1].get(replace(arm, shard=False).name)
    assert same_counters(found, whole), "sharded or not, the steps are the same"
    assert rank_correlation(found, whole) > 0.999
    # What one process began and several went on with, and the other way round.
    back = train_alone(arm, checkpoint=folder / f"{arm.name}.safetensors", save_seconds=1e9, resume=True)
    if arm.same_steps:
        assert same_counters(back, alone[0])
        assert same_counters(found["taken over"], alone[0])
    else:
        within_the_spread([accuracy(back), accuracy(found["taken over"])], map(accuracy, alone))


def same_counters(found: dict[str, Any], alone: dict[str, Tensor]) -> bool:
    """Equal numbers of views; wrong events equal but for one in a thousand views, where rounding tips a tie."""
    apart = int((found["wrong"] - alone["wrong"]).abs().sum())
    return bool(found["seen"].equal(alone["seen"])) and apart <= ROWS * EPOCHS / 1000


def rank_correlation(found: dict[str, Any], alone: dict[str, Tensor]) -> float:
    return float(spearmanr(found["suspicion"].numpy(), alone["suspicion"].numpy()).statistic)


def within_the_spread(values: Iterable[float], seeds: Iterable[float]) -> None:
    """The median is no further from the seeds of one process than these are from each other, or than two rows."""
    middle, known = median(values), sorted(seeds)
    reach = max(known[-1] - known[0], 2 / ROWS)
    assert known[0] - reach <= middle <= known[-1] + reach, f"{middle:.3f}, one process {known}"


def test_a_loss_that_takes_parameters_as_they_lie_is_refused(several: tuple[Path, dict[str, Any]]) -> None:
    assert re.search("outside|as they lie.*--shard", several[1]["refused"])
