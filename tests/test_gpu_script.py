"""The script for a GPU, at a tiny size on the processor: in time, resumed, killed, and its checks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_check, gpu_plan
from unswayed.bench import How, Store, read_results, read_suite

ROOT = Path(__file__).parents[1]
SUITE = """
seeds: 1
epochs: {epochs}
data: wine
body: mlp(widths=8)
tasks: {{wine: {{noise: symmetric, rate: .3}}}}
arms: [plain, gce, sce]
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE.format(epochs=2))
    return file


def words(folder: Path, suite: Path, *more: str, minutes: float = 5, results: str = "results") -> list[str]:
    given = ["--only", "train", "--device", "cpu", "--jobs", "1", "--minutes", str(minutes), "--suites", str(suite)]
    places = ["--results", str(folder / results), "--earlier", str(folder / "results"), "--work", str(folder / "work")]
    return ["run", *given, *places, *more]


def lines(folder: Path, results: str = "results") -> dict[str, Any]:
    file = folder / results / "cells.jsonl"
    read = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {line["key"]: line["result"] for line in read}


def test_cells_are_kept_in_one_file_and_never_run_again(
    tmp_path: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(words(tmp_path, suite))
    first = lines(tmp_path)
    assert len(first) == 3
    assert "3 done, 0 failed; 0 of 3 cells are left" in capsys.readouterr().out
    cut = (tmp_path / "results" / "cells.jsonl").read_text()
    last = list(first)[-1]
    (tmp_path / "results" / "cells.jsonl").write_text(cut[: len(cut) - 40])  # a line that was cut off
    gpu.main(words(tmp_path, suite, "--work", str(tmp_path / "fresh"), results="more"))
    assert "2 finished cells" in (said := capsys.readouterr().out)
    assert "1 done, 0 failed; 0 of 3" in said
    second = lines(tmp_path, "more")
    assert set(second) == set(first)
    assert {key: value for key, value in second.items() if key != last} == {k: v for k, v in first.items() if k != last}
    assert second[last]["model"] == first[last]["model"]
    gpu.main(["unpack", "--results", str(tmp_path / "more"), "--into", str(tmp_path / "bench")])
    found = read_results(read_suite(str(suite)), Store(tmp_path / "bench"))
    assert len(found.scores) == 3


def test_without_time_nothing_begins_and_the_plan_says_what_is_left(
    tmp_path: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(words(tmp_path, suite, minutes=1e-6))
    assert lines(tmp_path) == {}
    gpu.main(words(tmp_path, suite, "--dry-run"))
    said = capsys.readouterr().out
    assert said.count("to do") == 3
    assert "go on with the same command" in said


def test_a_cell_that_takes_longer_stops_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = tmp_path / "long.yaml"
    long.write_text(SUITE.format(epochs=3000))
    gpu.main(words(tmp_path, long, minutes=0.05))
    said = capsys.readouterr().out
    assert "stopped: wine, plain, seed 0 saved in the midst" in said
    assert said.count("too long for what is left of the time") == 2
    assert lines(tmp_path) == {}
    gpu.main(words(tmp_path, long, "--dry-run"))
    assert capsys.readouterr().out.count("begun") == 1


@pytest.mark.slow
def test_killed_it_goes_on_with_what_was_kept(tmp_path: Path) -> None:
    long = tmp_path / "long.yaml"
    long.write_text(SUITE.format(epochs=80))
    command = [sys.executable, "-m", "benchmarks.gpu", *words(tmp_path, long)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as running:
        until = time.monotonic() + 200
        while not lines(tmp_path) and time.monotonic() < until:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    before = lines(tmp_path)
    assert 1 <= len(before) < 3, "it was to be killed in the midst"
    gpu.main(words(tmp_path, long))
    after = lines(tmp_path)
    assert len(after) == 3
    assert all(after[key] == result for key, result in before.items())
    gpu.main(words(tmp_path / "other", long))
    assert {k: v["model"] for k, v in lines(tmp_path / "other").items()} == {k: v["model"] for k, v in after.items()}


def test_a_cell_that_is_known_to_be_too_long_is_left(tmp_path: Path, suite: Path) -> None:
    cells = gpu_plan.cells_of([gpu_plan.Part(str(suite))])
    kept = gpu_plan.Kept(tmp_path / "cells.jsonl", Store(tmp_path / "work"))
    how = How(1, None, "cpu")
    work = gpu_plan.Timely(tmp_path / "work", how, time.time() + 100, {cells[1].key: 1000.0})
    counts = gpu_plan.train(cells, kept, work, say=lambda *_, **__: None)
    assert counts == {"done": 2, "stopped": 1, "failed": 0, "taken": 0}
    assert gpu_plan.expect(cells, kept.store)[cells[1].key][1] == "guess"
    assert gpu_plan.expect(cells, kept.store)[cells[0].key][1] == "measured"


def test_the_plan_holds_the_protocols_once_and_knows_whose_data_are_missing(tmp_path: Path) -> None:
    cells = gpu_plan.cells_of(gpu_plan.PLAN)
    assert len({cell.key for cell in cells}) == len(cells) > 1000
    assert cells[0].config.epochs == 120
    assert {cell.config.epochs for cell in cells} >= {120, 300, 200, 100}
    first = cells[12:30]
    for base in ("plain", "gce", "nce+rce"):  # every mask beside its base and a random one, before any second seed
        assert {cell.arm for cell in first} >= {base + head for head in (" edge-masked", " edge-masked(score=random)")}
    assert not gpu_plan.there(cells[0], tmp_path)
    (tmp_path / "cifar10n").mkdir()
    assert gpu_plan.there(cells[0], tmp_path)
    hundred = next(cell for cell in cells if "cifar100:" in cell.config.data)
    assert not gpu_plan.there(hundred, tmp_path)
    assert all(gpu_plan.guess(cell) > 10 for cell in cells)


def test_data_are_copied_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "from" / "cifar10n").mkdir(parents=True)
    (tmp_path / "from" / "cifar10n" / "train.parquet").write_bytes(b"0" * 2**20)
    (tmp_path / "from" / "private").mkdir()
    gpu.main(["prepare", "--from", str(tmp_path / "from"), "--root", str(tmp_path / "to")])
    assert (tmp_path / "to" / "cifar10n" / "train.parquet").stat().st_size == 2**20
    assert not (tmp_path / "to" / "private").exists()
    assert "1.0 MiB" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ checks


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "ROWS", 32)
    monkeypatch.setattr(gpu_check, "BATCH", 16)
    monkeypatch.setattr(gpu_check, "ARMS", {name: gpu_check.ARMS[name] for name in ("plain", "masked")})


@pytest.mark.usefixtures("small")
def test_a_device_that_computes_otherwise_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu_check.equal("cpu")
    assert gpu_check.passed(found)
    assert all(check["difference"] == 0 for check in found.values())
    train, calls = gpu_check.train, []

    def other(arm: str, device: str, *rest: Any, **more: Any) -> Any:
        calls.append(arm)
        method, outcome = train(arm, device, *rest, **more)
        if len(calls) == 2:
            object.__setattr__(outcome.records[0], "loss", 1.1 * outcome.records[0].loss)
        return method, outcome

    monkeypatch.setattr(gpu_check, "train", other)
    assert not gpu_check.passed(gpu_check.equal("cpu"))
    assert gpu_check.augmented("cpu")["passed"]


@pytest.mark.usefixtures("small")
def test_waits_are_looked_for_in_steps_and_batches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with gpu_check.nothing_waits():
        gpu_check.train("plain", "cpu")
    assert modes[:2] == ["error", "default"]
    assert modes.count("error") == modes.count("default") == 2 * (2 + 3)  # 2 epochs: 2 steps, 2 batches and the end


@pytest.mark.slow
def test_all_pieces_at_a_tiny_size(tmp_path: Path, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "can_compile", lambda kind: False)
    monkeypatch.setattr(gpu_check, "ROWS", 32)
    monkeypatch.setattr(gpu_check, "BATCH", 16)
    given = [word for word in words(tmp_path, suite, "--tiny", minutes=20) if word not in ("--only", "train")]
    gpu.main(given)
    check = json.loads((tmp_path / "results" / "check.json").read_text())
    assert gpu_check.passed(check)
    assert check["equal"].keys() == gpu_check.ARMS.keys()
    timed = json.loads((tmp_path / "results" / "throughput.json").read_text())
    assert timed["cnn8, eager"]["bodies"]["cnn8"]["plain, bf16"]["pictures a second"] > 0
    assert len(lines(tmp_path)) == 3
    stamp = (tmp_path / "results" / "throughput.json").stat().st_mtime_ns
    gpu.main(given)
    assert (tmp_path / "results" / "throughput.json").stat().st_mtime_ns == stamp, "what was timed is timed again"
