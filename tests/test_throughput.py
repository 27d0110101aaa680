"""The throughput benchmark counts what it says it counts, and runs at a tiny size."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import throughput
from benchmarks.throughput_by_hand import ByHand, Pictures
from benchmarks.throughput_floor import Rates, Work, count, measure_rates


@pytest.mark.slow
def test_operations_are_those_of_the_published_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A multiplication and an addition are two operations; a backward pass costs two forward ones."""
    monkeypatch.setattr(throughput, "COUNTED", tmp_path / "none")
    work = throughput.work_of("cnn8", "plain", batch=128)
    first, side = 3 * 64, 32 * 32
    convolutions = [(first, side), (64 * 64, side), (64 * 128, side // 4), (128 * 128, side // 4)]
    convolutions += [(128 * 196, side // 16), (196 * 196, side // 16)]
    products = [9 * a * b for a, b in convolutions] + [16 * 196 * 256, 256 * 10]
    assert work.operations == pytest.approx(2 * (3 * sum(products) - 9 * first * side), rel=1e-3)
    assert work.parameters == sum(p.numel() for p in throughput.make_net("cnn8").parameters())
    assert work.steps == 1 / 128
    assert throughput.work_of("cnn8", "co-teaching", 128).operations == pytest.approx(2 * work.operations, rel=1e-3)


def test_traffic_is_what_large_operations_read_and_write() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())
    x = torch.zeros(5, 2, 4, 4)

    def epoch(mark: object) -> None:
        mark()  # type: ignore[operator]
        net(x)

    assert count(epoch, rows=5) == (2 * 9 * 2 * 3 * 16, (2 + 3) * 16)


def test_the_floor_is_of_arithmetic_or_of_memory() -> None:
    rates = Rates({"fp32": 1e9, "bf16": 2e9}, bandwidth=1e6)
    work = Work(operations=1e9, numbers=1e6, parameters=0, steps=1.0)
    assert work.floor(rates, "fp32") == (1.0, 4.0)
    assert work.floor(rates, "bf16") == (0.5, 2.0)
    with_weights = Work(operations=0, numbers=0, parameters=1000, steps=0.5)
    assert with_weights.floor(rates, "fp32")[1] == pytest.approx(0.5 * 1000 * 32 / 1e6)
    measured = measure_rates("cpu", tiny=True)
    assert measured.products["fp32"] > 0
    assert measured.bandwidth > 0


def test_the_loop_by_hand_shows_every_picture_once_moved_and_learns() -> None:
    x, y = throughput.pictures(24)
    rows = Pictures(x, y)
    shown, label = rows[3]
    assert shown.shape == (3, 32, 32)
    assert label == int(y[3])
    assert shown.is_floating_point()
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    before = net[1].weight.detach().clone()
    for how in (ByHand(), ByHand("bf16", channels_last=True), ByHand(loader=False)):
        assert len(how.epochs(net, x, y, epochs=2, batch=10)) == 2
    assert not torch.equal(before, net[1].weight)


@pytest.mark.slow
def test_it_runs_and_tells_ratios_within_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "COUNTED", tmp_path / "none")
    file = tmp_path / "found.json"
    throughput.main(
        ["--bodies", "cnn8", "--arms", "plain", "masked", "--rows", "16", "--batch", "8", "--rounds", "1", "--tiny",
         "--out", str(file)]
    )  # fmt: skip
    found = json.loads(file.read_text())
    assert {"torch", "cores", "rows", "batch", "clock", "seed"} <= found["about"].keys()
    told = found["bodies"]["cnn8"]
    assert told.keys() == {
        "by hand, fp32", "by hand, fp32, no loader", "by hand, bf16, channels-last", "plain, fp32", "plain, bf16",
        "masked, bf16",
    }  # fmt: skip
    for name, one in told.items():
        assert one["pictures a second"] == pytest.approx(16 / one["seconds"][0])
        assert one["times the loop by hand"] == pytest.approx(told["by hand, fp32"]["seconds"][0] / one["seconds"][0])
        assert ("floor" in one) == (not name.startswith("by hand"))


def test_ratios_are_medians_of_rounds() -> None:
    seconds = {
        "by hand, fp32": [2.0, 9.0, 4.0],
        "by hand, bf16, channels-last": [1.0, 1.0, 1.0],
        "plain, bf16": [1.0, 3.0, 1.0],
    }
    told = throughput._told("plain, bf16", seconds, rows=6)
    assert told["times the loop by hand"] == 3.0
    assert told["times the loop by hand in bf16"] == 1.0
    assert told["pictures a second"] == 6.0


def test_a_processors_time_counts_where_nothing_else_takes_part() -> None:
    def clock(**options: object) -> str:
        return throughput.make_clock(argparse.Namespace(device="cpu", **options)).__name__

    assert clock(threads=1, workers=0) == "process_time"
    assert clock(threads=2, workers=0) == clock(threads=1, workers=2) == "perf_counter"


def test_the_table_in_the_documents_is_that_of_the_results() -> None:
    root = Path(throughput.__file__).parents[1]
    found = json.loads((root / "results" / "throughput_cpu.json").read_text(encoding="utf-8"))
    assert throughput.markdown(found) in (root / "docs" / "speed.md").read_text(encoding="utf-8")
