"""Cells through joblib, Ray and Slurm's library: the same results, and a killed worker loses its cell alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from unswayed.bench import How, News, Store, Suite, entries, make_suite, read_results, run_suite
from unswayed.cli import app
from unswayed.errors import UnswayedError

WINE: dict[str, Any] = {
    "epochs": 2,
    "seeds": 1,
    "tasks": {"wine": {"data": "wine", "noise": "symmetric", "rate": 0.3, "body": "mlp(widths=8)"}},
    "arms": {"long": {"arm": "plain", "epochs": 100_000}, "plain": "plain"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "joblib": {},
    "slurm": {"cluster": "local", "poll": 0.2, "minutes": 10},
    "ray": {"cpus": 0.5},
}
ENGINES = [*(pytest.param(on, marks=pytest.mark.slow) for on in SETTINGS)]


@pytest.fixture(params=ENGINES)
def on(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip({"slurm": "submitit"}.get(name, name))
    return name


def run(suite: Suite, folder: Path, on: str = "local") -> dict[str, News]:
    """What became of each arm."""
    heard: list[News] = []
    how = How(jobs=2, device="cpu", save_seconds=0.0, on=on, on_settings=SETTINGS.get(on, {}))
    run_suite(suite, Store(folder), how, heard.append)
    return {news.cell.arm: news for news in heard if news.what != "epoch"}


def holders(lock: Path) -> Iterator[psutil.Process]:
    """Who holds a lock's file open, among all that was started from here."""
    for process in psutil.Process().children(recursive=True):
        try:
            if any(Path(file.path) == lock for file in process.open_files()):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def kill_whoever_runs(key: str, folder: Path, until: threading.Event, killed: list[int]) -> None:
    """Kill -9 every process that works on the cell, once it has left a checkpoint."""
    lock = (folder / "running" / f"{key}.lock").absolute()
    while not until.is_set():
        if (folder / "running" / key / "checkpoint.safetensors").exists():
            for process in holders(lock):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
        time.sleep(0.05)


@pytest.mark.timeout(900)  # Ray's workers are nice: on a busy machine they wait for all others
def test_a_killed_worker_loses_its_cell_alone(tmp_path: Path, on: str) -> None:
    suite = make_suite("tiny", WINE)
    keys = {entry.options[0].arm: entry.options[0] for entry in entries(suite)}
    until, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_whoever_runs, args=(keys["long"].key, tmp_path, until, killed))
    killer.start()
    try:
        ends = run(suite, tmp_path, on)
    finally:
        until.set()
        killer.join()
    assert killed
    assert {arm: news.what for arm, news in ends.items()} == {"long": "failed", "plain": "done"}
    assert "its worker was lost" in ends["long"].words
    store = Store(tmp_path)
    assert len(read_results(suite, store).failures) == 1
    assert store.begun(keys["long"]), "its checkpoint waits for the next run"
    short = make_suite("tiny", {**WINE, "arms": ["plain"]})
    assert run(short, tmp_path, on) == {}, "nothing that is finished runs again"
    run(short, tmp_path / "here")
    placed, local = (Store(folder).result(keys["plain"]) or {} for folder in (tmp_path, tmp_path / "here"))
    assert placed["model"] == local["model"]


def test_what_a_cell_raises_is_told(tmp_path: Path) -> None:
    arms = {"bad": {"arm": "plain", "lr": 1e30, "clip": None}, "plain": "plain"}
    ends = run(make_suite("tiny", {**WINE, "arms": arms}), tmp_path, "joblib")
    assert {arm: news.what for arm, news in ends.items()} == {"bad": "failed", "plain": "done"}
    assert "finite" in ends["bad"].words or "NaN" in ends["bad"].words


def test_an_engine_or_a_setting_that_is_not_there_is_told(tmp_path: Path) -> None:
    suite = make_suite("tiny", WINE)
    with pytest.raises(UnswayedError, match=r"local, joblib, ray, slurm.*did you mean slurm"):
        run_suite(suite, Store(tmp_path), How(on="slrm"))
    with pytest.raises(UnswayedError, match=r"settings of --on slurm are partition.*did you mean partition"):
        run_suite(suite, Store(tmp_path), How(on="slurm", on_settings={"partitoin": "gpu"}))
    command = ["bench", "quick", "--out", str(tmp_path), "--on", "joblib", "--on-set", "gpus"]
    assert isinstance(CliRunner().invoke(app, command).exception, UnswayedError)
    assert not any(tmp_path.iterdir())
