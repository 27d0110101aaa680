"""What a bench keeps of the inside of runs, what it draws of it, and that looking changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from unswayed import mending
from unswayed.bench import How, News, Store, Suite, entries, make_suite, read_results, read_suite, run_suite, shipped
from unswayed.bench.page import render
from unswayed.bench.records import remember, remembered
from unswayed.cli import app
from unswayed.errors import UnswayedError
from unswayed.mending import comparison

WINE: dict[str, Any] = {
    "epochs": 3,
    "seeds": 2,
    "tasks": {"wine": {"data": "wine", "noise": "symmetric", "rate": 0.3, "body": "mlp(widths=8)"}},
    "arms": ["plain", "gce", "gce edge-masked"],
}


def run(suite: Suite, folder: Path) -> list[News]:
    heard: list[News] = []
    run_suite(suite, Store(folder), How(device="cpu"), heard.append)
    return [news for news in heard if news.what not in ("epoch", "reading")]


def results_of(suite: Suite, folder: Path) -> list[dict[str, Any]]:
    return [found for entry in entries(suite) if (found := Store(folder).result(entry.options[0]))]


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    suite, folder = make_suite("looked", WINE, ["analyse=true"]), tmp_path_factory.mktemp("looked")
    run(suite, folder)
    return suite, folder


def test_looking_inside_changes_no_model_and_no_other_name(looked: tuple[Suite, Path], tmp_path: Path) -> None:
    plain = make_suite("plain", WINE)
    run(plain, tmp_path)
    blind, seen = results_of(plain, tmp_path), results_of(*looked)
    assert [found["model"] for found in blind] == [found["model"] for found in seen]
    assert [found["test"] for found in blind] == [found["test"] for found in seen]
    assert all(found["analysis"] is None for found in blind)
    one = make_suite("one", WINE, ["arms.gce.analyse=true"])
    keys = [[entry.options[0].key for entry in entries(suite)] for suite in (plain, one, looked[0])]
    assert [a == b for a, b in zip(keys[0], keys[1], strict=True)] == [True, False, True] * 2
    assert not set(keys[0]) & set(keys[2])


def test_a_cell_keeps_small_summaries(looked: tuple[Suite, Path]) -> None:
    masked = results_of(*looked)[2]
    found = masked["analysis"]
    assert sum(found["confidence"]["right"] + found["confidence"]["wrong"]) == found["rows"] == 142
    assert sum(found["confidence"]["wrong"]) == found["wrong"]
    assert found["mask"]["shape"] == [3, 8]
    assert [len(row) for row in found["mask"]["overlap"]] == [3, 3, 3]
    assert sorted(found["masks"]["bits"]) == ["0", "1", "2"]
    assert {"gradient_cosine", "confidence_wrong", "mask_density"} <= masked["history"][0].keys()
    assert masked["error_budget"]["found"][-1] == 1.0
    assert sum(rows for *_, rows in masked["reliability"]["labels"]["bins"]) == 142
    assert sum(rows for *_, rows in masked["reliability"]["test"]["bins"]) == 36
    assert len(json.dumps(masked)) < 12_000


def test_the_page_draws_what_was_seen(looked: tuple[Suite, Path]) -> None:
    suite, folder = looked
    page = render(read_results(suite, Store(folder)))
    for title in ("Wrong labels found", "Reliability of suspicion", "Reliability of predictions", "Gradient cosine",
                  "Confidence in wrong labels", "Edges shared by two classes", "Masks"):  # fmt: skip
        assert title in page, title
    assert page.count('class="histogram ') == 3
    assert page.count('class="band"') >= 3 * 3, "two seeds have a band"
    assert page.count('<img src="data:image/png') == 3
    assert "<script" not in page


def test_masks_come_back_bit_by_bit(looked: tuple[Suite, Path]) -> None:
    runs = [run for _, run in read_results(looked[0], Store(looked[1])).runs if run.name == "gce edge-masked"]
    for each in runs:
        masks = each.evidence.masks
        assert masks is not None
        assert [masks[epoch].shape for epoch in (0, 1, 2)] == [(3, 8)] * 3
        assert float(masks[2].mean()) == pytest.approx(each.history[-1].measures["mask_density"])
    assert not (runs[0].evidence.masks or {})[2].all()


def test_a_trial_of_tuning_is_not_looked_into() -> None:
    tune = {"settings": {"*": [{"lr": 0.1}, {"lr": 0.01}]}}
    with_, without = (make_suite("a", WINE | {"tune": tune}, change) for change in (["analyse=true"], []))
    for looked, blind in zip(entries(with_), entries(without), strict=True):
        assert [cell.key for cell in looked.trials] == [cell.key for cell in blind.trials]
        assert all(cell.config.analyse for cell in looked.options)


def test_gains_pair_arms_whatever_is_looked_at(looked: tuple[Suite, Path]) -> None:
    from unswayed.bench.statistics import gains

    suite = make_suite("one", WINE, ["arms.gce.analyse=true"])
    store = Store(looked[1])
    for entry in entries(suite):  # what was seen is of no matter to this test
        found = next(r for r in results_of(*looked) if (r["arm"], r["seed"]) == (entry.arm, entry.seed))
        store.finish(entry.options[0], {key: value for key, value in found.items() if key != "cell"})
    assert [(gain.arm, gain.bare) for gain in gains(read_results(suite, store))] == [("gce edge-masked", "gce")]


# ------------------------------------------------------------------------------------------------ reported later


def test_the_folder_of_a_bench_can_be_reported(looked: tuple[Suite, Path], tmp_path: Path) -> None:
    suite, folder = looked
    with pytest.raises(UnswayedError, match=r"a suite that was run in .*, but got cells alone; unswayed bench SUITE"):
        remembered(folder)
    tuned = make_suite("tuned", WINE | {"tune": {"settings": {"*": [{"lr": 0.1}]}}})
    for each in (suite, tuned):
        remember(each, folder)
    assert remembered(folder) == [suite, tuned]
    several = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert several.exit_code == 0, several.output
    assert [one["suite"] for one in json.loads(several.stdout)] == ["looked", "tuned"]
    (folder / "suites" / "tuned.json").unlink()
    told = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "page.html")])
    assert told.exit_code == 0, told.output
    assert "What an edge-masked head adds" in told.output
    assert "Wrong labels found" in (tmp_path / "page.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ left behind


def test_a_checkpoint_that_does_not_fit_is_told_and_left(tmp_path: Path) -> None:
    suite = make_suite("one", WINE | {"seeds": 1, "arms": ["plain"]})
    run(suite, tmp_path / "clean")
    store, cell = Store(tmp_path / "old"), next(entries(suite)).options[0]
    store.side(cell).mkdir(parents=True)
    (store.side(cell) / "checkpoint.safetensors").write_bytes(b"of another version")
    assert [news.what for news in run(suite, tmp_path / "old")] == ["done"]
    (clean,), (anew,) = results_of(suite, tmp_path / "clean"), results_of(suite, tmp_path / "old")
    assert anew["model"] == clean["model"]
    assert not anew["cost"]["resumed"]
    assert "began anew" in anew["notes"][0]
    assert "training began anew" in render(read_results(suite, store))


def test_a_repair_goes_on_from_the_ways_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = make_suite("repair", WINE | {"seeds": 1, "arms": ["plain"], "repair": {"epochs": 1, "evidence": "loss"}})
    run(suite, tmp_path / "whole")
    (whole,) = results_of(suite, tmp_path / "whole")
    done, real = list[str](), mending.mend

    def failing(*given: Any, tune: str, **settings: Any) -> Any:
        if len(done) == 3:
            raise RuntimeError("killed")
        done.append(tune)
        return real(*given, tune=tune, **settings)

    monkeypatch.setattr(comparison, "mend", failing)
    assert [news.what for news in run(suite, tmp_path / "broken")] == ["failed"]
    done.clear()
    monkeypatch.setattr(comparison, "mend", lambda *g, tune, **s: (done.append(tune), real(*g, tune=tune, **s))[1])
    assert [news.what for news in run(suite, tmp_path / "broken")] == ["done"]
    assert done == ["last", "all", "all", "all", "all"], "three of the eight ways were done before"
    (broken,) = results_of(suite, tmp_path / "broken")
    for name in ("name", "accuracy", "pruned", "rows"):
        assert [t[name] for t in broken["repair"]["trials"]] == [t[name] for t in whole["repair"]["trials"]]
    assert broken["model"] == whole["model"]


# ------------------------------------------------------------------------------------------------ all that is shipped


@pytest.mark.slow
def test_every_arm_that_is_shipped_trains(tmp_path: Path) -> None:
    """On embedded pictures, in seconds: what a suite asks of data sets that are not here is asked of digits."""
    small = ["data=digits", "reader={}", "encoder=null", "body=mlp(widths=16)", "limit=96", "epochs=2", "batch=16",
             "optimizer=sgd", "lr=.05", "weight_decay=1e-4", "clip=5", "precision=fp32", "noise=symmetric", "rate=.3",
             "corrupted=null"]  # fmt: skip
    for name in shipped():
        first = read_suite(name).tasks[0].name
        given = [*small, "repair={epochs: 1}"] if name == "rlap" else small
        suite = read_suite(name, changes=given, seeds=1)
        suite = Suite(**{**vars(suite), "tasks": suite.tasks[:1]})
        heard = run(suite, tmp_path)  # one folder: arms that suites share run once
        assert [(n.cell.arm, n.words) for n in heard if n.what != "done"] == [], (name, first)
        found = read_results(suite, Store(tmp_path))
        assert not found.missing
        assert "<h1>" in render(found)
