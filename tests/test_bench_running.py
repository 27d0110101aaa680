"""Benches that run: nothing twice, nothing lost, nothing chosen by what must not choose."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from typer.testing import CliRunner

from unswayed import data
from unswayed.bench import Cell, How, News, Store, Suite, entries, make_suite, read_results, run_suite, work
from unswayed.bench.cost import MEASURED, SAME, estimate
from unswayed.bench.forecast import forecast
from unswayed.bench.ground import make_ground, read_once
from unswayed.bench.running import cell_of, choice_of
from unswayed.cli import app
from unswayed.data import Dataset
from unswayed.errors import UnswayedError
from unswayed.experiment.config import Config

WINE: dict[str, Any] = {
    "epochs": 3,
    "seeds": 1,
    "tasks": {"wine": {"data": "wine", "noise": "symmetric", "rate": 0.3, "body": "mlp(widths=8)"}},
    "arms": ["plain", "gce"],
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def tiny(**changes: Any) -> Suite:
    return make_suite("tiny", WINE | changes)


def run(suite: Suite, folder: Path, jobs: int = 1, **how: Any) -> list[News]:
    heard: list[News] = []
    run_suite(suite, Store(folder), How(jobs=jobs, device="cpu", **how), heard.append)
    return [news for news in heard if news.what not in ("epoch", "reading")]


def results_of(suite: Suite, folder: Path) -> list[dict[str, Any]]:
    store = Store(folder)
    return [result for entry in entries(suite) if (result := store.result(cell_of(entry, store) or entry.options[0]))]


def test_a_cell_is_one_file_that_tells_all(tmp_path: Path) -> None:
    suite = tiny()
    assert [news.what for news in run(suite, tmp_path)] == ["done", "done"]
    cell = next(entries(suite)).options[0]
    (file,) = tmp_path.glob(f"cells/{cell.key}.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["cell"] == cell.identity
    assert found["config"] == cell.config.as_json()
    assert found["seed"] == 0
    assert len(found["history"]) == 3
    assert 0 <= found["test"]["last"] <= 1
    assert 0 <= found["suspicion"]["auroc"] <= 1
    assert found["cost"]["steps"] == 3 * 5  # 142 rows in batches of 32
    assert found["cost"]["seconds"] > 0
    assert found["memory"]["process"] > 10**7
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["cores"] >= 1
    assert len(found["model"]) == 32
    assert not any((tmp_path / "running").iterdir()), "the side folder is empty when all is done"
    assert not list(tmp_path.rglob("*.part"))


def test_nothing_finished_runs_again_and_suites_share_cells(tmp_path: Path) -> None:
    run(tiny(), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("cells/*.json")}
    assert run(tiny(), tmp_path) == []
    more = run(tiny(arms=["plain", "gce", "sce"]), tmp_path)
    assert [(news.cell.arm, news.what) for news in more] == [("sce", "done")]
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_equal_cells_give_equal_models_side_by_side_or_alone(tmp_path: Path) -> None:
    suite = tiny()
    run(suite, tmp_path / "alone")
    run(suite, tmp_path / "together", jobs=2)
    alone, together = (results_of(suite, tmp_path / name) for name in ("alone", "together"))
    assert [found["model"] for found in alone] == [found["model"] for found in together]
    assert [found["test"] for found in alone] == [found["test"] for found in together]


def test_a_failure_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    suite = tiny(arms={"bad": {"arm": "plain", "lr": 1e30, "clip": None}, "plain": "plain"})
    assert [(news.cell.arm, news.what) for news in run(suite, tmp_path)] == [("bad", "failed"), ("plain", "done")]
    found = read_results(suite, Store(tmp_path))
    (failure,) = found.failures
    assert failure.cell.arm == "bad"
    assert "finite" in failure.why or "NaN" in failure.why
    assert [(score.arm, score.seed) for score in found.scores] == [("plain", 0)]
    assert [line.state for line in forecast(suite, Store(tmp_path))] == ["failed before", "done"]
    assert [news.what for news in run(suite, tmp_path, jobs=2)] == ["failed"], "it is tried again, the other is not"


def test_a_cell_in_other_hands_is_left_alone(tmp_path: Path) -> None:
    suite = tiny(arms=["plain"])
    cell = next(entries(suite)).options[0]
    with Store(tmp_path).alone(cell) as mine:
        assert mine
        taken = []
        thread = threading.Thread(target=lambda: taken.extend(run(suite, tmp_path)))
        thread.start()
        thread.join()
    assert [news.what for news in taken] == ["taken"]
    assert [news.what for news in run(suite, tmp_path)] == ["done"]


def test_a_damaged_or_foreign_file_is_no_result(tmp_path: Path) -> None:
    suite = tiny(arms=["plain"])
    run(suite, tmp_path)
    (file,) = tmp_path.glob("cells/*.json")
    whole = json.loads(file.read_text(encoding="utf-8"))
    for text in ("{", json.dumps({**whole, "cell": {**whole["cell"], "kind": "repair"}})):
        file.write_text(text, encoding="utf-8")
        assert [news.what for news in run(suite, tmp_path)] == ["done"]
    assert json.loads(file.read_text(encoding="utf-8"))["model"] == whole["model"]


def test_where_the_data_lie_is_not_part_of_a_cell(tmp_path: Path) -> None:
    wine = data.read("wine")
    rows = [",".join(map(str, [*map(float, x), int(y)])) for x, y in zip(
        wine.train.x.rows(torch.arange(60)), wine.train.given[torch.randperm(178)[:60]], strict=True)]  # fmt: skip
    text = "\n".join([",".join([*(f"f{i}" for i in range(13)), "label"]), *rows])
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wines.csv").write_text(text)
    suite = tiny(arms=["plain"], tasks={"own": {"data": "{root}/wines.csv", "body": "mlp(widths=8)"}})
    with pytest.raises(UnswayedError, match=r"the folder of \{root\}/wines.csv.*--root"):
        read_once(next(entries(suite)).options[0].config, None)
    assert [news.what for news in run(suite, tmp_path / "out")] == ["failed"]
    assert [news.what for news in run(suite, tmp_path / "out", root=tmp_path / "here")] == ["done"]
    assert run(suite, tmp_path / "out", root=tmp_path / "there") == []


# ------------------------------------------------------------------------------------------------ killed


def test_a_killed_worker_loses_its_cell_alone(tmp_path: Path) -> None:
    suite = tiny(
        epochs=2,
        arms={"long": {"arm": "plain", "epochs": 100_000}, "plain": "plain", "gce": "gce", "sce": "sce"},
    )
    store, heard, killed = Store(tmp_path), list[News](), list[int]()

    def listen(news: News) -> None:
        heard.append(news)
        if news.cell.arm == "long" and news.what == "epoch" and not killed:
            # The worker of the long cell is the one that holds its checkpoint's lock; both are children of ours.
            held = store.folder / "running" / f"{news.cell.key}.lock"
            for child in multiprocessing.active_children():
                assert child.pid is not None
                if any(Path(file.path) == held.absolute() for file in psutil.Process(child.pid).open_files()):
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)

    run_suite(suite, store, How(jobs=2, device="cpu", save_seconds=0.0), listen)
    assert killed
    ends = {news.cell.arm: news for news in heard if news.what not in ("epoch", "reading")}
    assert {arm: news.what for arm, news in ends.items()} == {
        "long": "failed", "plain": "done", "gce": "done", "sce": "done",
    }  # fmt: skip
    assert "killed by signal 9" in ends["long"].words
    assert len(read_results(suite, store).failures) == 1
    assert store.begun(ends["long"].cell), "its checkpoint waits for the next run"


SCRIPT = """
import sys
import torch
from pathlib import Path
from unswayed.bench import How, Store, make_suite, run_suite
import json
if __name__ == "__main__":
    torch.set_num_threads(1)
    suite = make_suite("tiny", json.loads(sys.argv[1]))
    run_suite(suite, Store(Path(sys.argv[2])), How(jobs=int(sys.argv[3]), device="cpu", save_seconds=0.0))
"""


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_of_everything_and_on_it_goes(tmp_path: Path, jobs: int) -> None:
    given = WINE | {"epochs": 150, "tasks": {"digits": {"data": "digits", "limit": 300, "body": "mlp(widths=8)"}}}
    suite, script, out = make_suite("tiny", given), tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), json.dumps(given), str(out), str(jobs)]
    process = subprocess.Popen(command, start_new_session=True, env=ENVIRONMENT)
    try:
        wait_for(lambda: any(out.glob("running/*/checkpoint.safetensors")) or process.poll() is not None)
        assert process.poll() is None, "killed in the midst, or the test says nothing"
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(family, timeout=60)  # a lock goes with its process
    assert [news.what for news in run(suite, out)][-1] == "done"
    run(suite, tmp_path / "whole")
    broken, whole = results_of(suite, out), results_of(suite, tmp_path / "whole")
    assert any(found["cost"]["resumed"] for found in broken)
    assert [found["model"] for found in broken] == [found["model"] for found in whole]
    assert [len(found["history"]) for found in broken] == [150, 150]
    assert [found["cost"]["steps"] for found in broken] == [found["cost"]["steps"] for found in whole]


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ choosing


TUNED: dict[str, Any] = {
    "arms": ["plain", "gce"],
    "tasks": {"human": {"data": "wine", "body": "mlp(widths=8)"}},
    "epochs": 4,
    "seeds": 2,
    "tune": {"hold_out": 0.25, "settings": {"*": [{"lr": 0.03}, {"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.1}]}},
}


def noisy_wine(truth_seed: int | None = None, test_seed: int | None = None) -> Dataset:
    """Wine with human-like noise and a test part; the truth permuted, or the test rows and labels made up."""
    wine = data.read("wine")
    order = torch.randperm(178, generator=torch.Generator().manual_seed(0))
    train, test = wine.train.take(order[:120]), wine.train.take(order[120:])
    generator = torch.Generator().manual_seed(1)
    flipped = torch.rand(120, generator=generator) < 0.3
    given = torch.where(flipped, torch.randint(3, (120,), generator=generator), train.given)
    truth = train.given
    if truth_seed is not None:
        truth = truth[torch.randperm(120, generator=torch.Generator().manual_seed(truth_seed))]
    if test_seed is not None:
        made = torch.Generator().manual_seed(test_seed)
        test = replace(
            test,
            x=data.TensorColumn(torch.randn(58, 13, generator=made)),
            given=torch.randint(3, (58,), generator=made),
        )
    return replace(wine, train=replace(train, given=given, truth=truth), test=replace(test, truth=test.given))


def choices_and_models(monkeypatch: pytest.MonkeyPatch, folder: Path, dataset: Dataset) -> tuple[Any, Any, Any]:
    monkeypatch.setattr(work, "read_once", lambda config, root, progress: dataset)
    suite, store = tiny(**TUNED), Store(folder)
    assert {news.what for news in run(suite, folder)} == {"done"}
    grid = list(entries(suite))
    chosen = [choice_of(entry, store) for entry in grid]
    trials = [(store.result(cell) or {})["model"] for entry in grid for cell in entry.trials]
    return chosen, trials, [found["model"] for found in results_of(suite, folder)]


def test_neither_truth_nor_test_rows_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = choices_and_models(monkeypatch, tmp_path / "a", noisy_wine())
    assert len({choice.index for choice in known[0]}) > 1, "if all chose alike, this test says little"
    assert choices_and_models(monkeypatch, tmp_path / "b", noisy_wine(truth_seed=3)) == known
    assert choices_and_models(monkeypatch, tmp_path / "c", noisy_wine(test_seed=3)) == known


def test_every_arm_has_the_same_number_of_trials_and_the_best_is_run(tmp_path: Path) -> None:
    suite, store = tiny(**TUNED), Store(tmp_path)
    heard = run(suite, tmp_path, jobs=2)
    trials = [news.cell for news in heard if news.cell.trial is not None]
    assert {arm: sum(cell.arm == arm for cell in trials) for arm in ("plain", "gce")} == {"plain": 6, "gce": 6}
    for entry in entries(suite):
        scores = [(store.result(cell) or {})["test"]["last"] for cell in entry.trials]
        choice, final = choice_of(entry, store), cell_of(entry, store)
        assert choice is not None
        assert scores[choice.index] == max(scores)
        assert final is entry.options[choice.index]
        assert store.done(final)
    assert not read_results(suite, store).missing


def test_a_trial_sees_neither_test_rows_nor_truth() -> None:
    dataset = noisy_wine()
    cell = Cell("a", "b", 0, Config("wine", trusted=12), more={"hold_out_given": 0.25})
    task, bad = make_ground(cell, dataset)
    assert bad is None
    assert task.train.truth is None
    assert task.test is not None
    assert task.test.truth is None
    assert task.against == "given"
    assert dataset.test is not None
    test_rows, seen = set(dataset.test.rows.tolist()), [*task.train.rows.tolist(), *task.test.rows.tolist()]
    assert sorted(seen) == sorted(dataset.train.rows.tolist())
    assert not test_rows & set(seen)
    assert abs(len(task.test) - 30) <= 2
    checked = make_ground(replace(cell, more={}), dataset)[0]
    trusted = set(checked.train.rows[checked.trusted].tolist())
    assert set(task.train.rows[task.trusted].tolist()) == trusted & set(task.train.rows.tolist())


# ------------------------------------------------------------------------------------------------ repair and inputs


def test_repair_is_a_cell_of_its_own_kind(tmp_path: Path) -> None:
    suite = make_suite("tiny", {
        "seeds": 2, "arms": ["plain"], "repair": {"epochs": 2, "evidence": "loss"}, "epochs": 4,
        "tasks": {
            "labels": {"data": "digits", "limit": 200, "noise": "symmetric", "rate": 0.3, "body": "mlp(widths=32)"},
            "inputs": {"data": "digits", "limit": 200, "corrupted": 0.5, "body": "mlp(widths=32)",
                       "repair": {"evidence": "prediction"}},
        },
    })  # fmt: skip
    assert {news.what for news in run(suite, tmp_path)} == {"done"}
    found = read_results(suite, Store(tmp_path))
    assert found.control == "before"
    assert {"L-FT", "F-FT", "F-FT, no pruning", "F-FT, random neurons", "F-FT, all rows", "retrained"} < set(found.arms)
    assert len(found.seeds("inputs", "F-FT")) == 2
    labels, inputs = (
        next(r for r in results_of(suite, tmp_path) if r["task"] == name) for name in ("labels", "inputs")
    )
    assert labels["repair"]["bad_rows"] == pytest.approx(0.3, abs=0.01)
    assert inputs["repair"]["bad_rows"] == 0.5
    assert inputs["repair"]["evidence"] == "prediction"
    assert inputs["suspicion"] is not None, "the corrupted rows are to be found"


def test_corrupted_inputs_leave_labels_and_test_rows_alone() -> None:
    dataset = data.read("digits")
    clean, none = make_ground(Cell("a", "b", 1, Config("digits", seed=1)), dataset)
    task, bad = make_ground(
        Cell("a", "b", 1, Config("digits", seed=1), more={"corrupted": 0.5, "strength": 3.0}), dataset
    )
    assert none is None
    assert bad is not None
    rows = torch.arange(len(task.train))
    changed = (clean.train.x.rows(rows) != task.train.x.rows(rows)).flatten(1).any(1)
    assert changed.equal(bad)
    assert int(bad.sum()) == round(0.5 * len(bad))
    assert task.train.given.equal(clean.train.given)
    assert task.test is not None
    assert clean.test is not None
    assert task.test.x.rows(torch.arange(9)).equal(clean.test.x.rows(torch.arange(9)))


# ------------------------------------------------------------------------------------------------ cost, command


def test_estimates_come_from_finished_cells_or_from_a_measured_step(tmp_path: Path) -> None:
    suite, store = tiny(seeds=2), Store(tmp_path)
    cells = [entry.options[0] for entry in entries(suite)]
    measured = estimate(cells, [], store, None, "cpu")
    assert {one.how for one in measured.values()} == {MEASURED}
    assert all(0 < one.seconds < 60 for one in measured.values())
    run(tiny(), tmp_path)
    done, todo = cells[:2], cells[2:]
    known = estimate(todo, done, store, None, "cpu")
    assert {one.how for one in known.values()} == {SAME}
    assert known[todo[0].key].seconds == (store.result(done[0]) or {})["wall_seconds"]
    away = Cell("far", "plain", 0, Config("{root}/none"))
    assert "--root" in estimate([away], [], store, None, "cpu")[away.key].how


def command(*words: str) -> Any:
    return CliRunner().invoke(app, ["bench", *words], env={"UNSWAYED_DATA": ""})


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "epochs: 2\nseeds: 1\ntasks: {wine: {data: wine, body: mlp(widths=8)}}\narms: [plain, gce]\n"
    )
    own, out = str(tmp_path / "own.yaml"), str(tmp_path / "out")
    dry = json.loads(command(own, "--out", out, "--dry-run", "--json").stdout)
    assert [cell["state"] for cell in dry["cells"]] == ["to do", "to do"]
    assert dry["seconds"] > 0
    assert not (tmp_path / "out").exists()
    some = command(own, "--out", out, "--arms", "gce", "--set", "batch=16", "--device", "cpu")
    assert some.exit_code == 0, some.output
    assert len(list(tmp_path.glob("out/cells/*.json"))) == 1
    whole = command(own, "--out", out, "--set", "batch=16", "--device", "cpu", "--json")
    assert whole.exit_code == 0, whole.output
    found = json.loads(whole.stdout)
    assert [one["arm"] for one in found["runs"]] == ["plain", "gce"]
    assert found["differences"][0]["verdict"] == "one seed: nothing shown"
    assert (tmp_path / "out" / "own.html").exists()
    told = command(own, "--out", out, "--set", "batch=16", "--dry-run")
    assert "2 cells: 2 done, 0 to do" in told.output
    nothing = command(own, "--out", str(tmp_path / "empty"), "--report")
    assert nothing.exit_code == 0
    assert "nothing to report yet" in nothing.output


def test_the_command_fails_where_cells_fail(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("epochs: 2\nseeds: 2\ntasks: {far: {data: '{root}/far'}}\narms: [plain]\n")
    failed = command(str(tmp_path / "own.yaml"), "--out", str(tmp_path / "out"), "--root", str(tmp_path))
    assert failed.exit_code == 1
    assert "2 cells failed" in failed.output
    summary = failed.output.partition("2 cells failed")[2]
    assert summary.count("the name of a data set") == 1  # one reason, told once


def test_a_folder_of_data_that_is_missing_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("epochs: 2\nseeds: 2\ntasks: {far: {data: '{root}/far'}}\narms: [plain]\n")
    refused = command(str(tmp_path / "own.yaml"), "--out", str(tmp_path / "out"))
    assert refused.exit_code != 0
    assert isinstance(refused.exception, UnswayedError)
    assert "--root" in str(refused.exception)
    assert not (tmp_path / "out" / "failed").exists()


def test_the_list_of_suites() -> None:
    listed = command()
    assert listed.exit_code == 0
    assert all(name in listed.output for name in ("quick", "human", "anl-cifar10", "sem", "rlap", "scale"))
