"""`unswayed next` as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import unswayed
from unswayed import UnswayedError
from unswayed.cli import app


def inside(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on wine with planted wrong labels."""
    folder = tmp_path_factory.mktemp("run")
    arm = "plain mlp(widths=16) edge-masked(keep=.5)"
    unswayed.run(unswayed.Config(data="wine", arm=arm, noise="symmetric", rate=0.3, epochs=8), folder=folder)
    return folder


def test_a_run(run: Path) -> None:
    shown = inside("next", str(run), "--count", "25")
    assert "25 rows to check" in " ".join(shown.split())
    assert "and 5 more" in shown
    with (run / "next.csv").open() as file:
        listed = list(csv.DictReader(file))
    with (run / "samples.csv").open() as file:
        known = {line["row"]: line for line in csv.DictReader(file)}
    assert len({line["row"] for line in listed}) == 25
    for line in listed:
        sample = known[line["row"]]
        assert line["given"] == sample["given"]
        assert float(line["suspicion"]) == pytest.approx(float(sample["suspicion"]), abs=1e-4)
        assert 0 < float(line["deviation"]) < 1
        assert 1 / 3 <= float(line["probability"]) <= 1
    assert float(listed[0]["deviation"]) == max(float(line["deviation"]) for line in listed)
    again = (run / "next.csv").read_text()
    inside("next", str(run / "checkpoint.safetensors"), "-n", "25")
    assert (run / "next.csv").read_text() == again


def test_by_suspicion_and_both(run: Path, tmp_path: Path) -> None:
    with (run / "samples.csv").open() as file:
        order = [int(line["row"]) for line in csv.DictReader(file)]
    words = ("--json", "--count", "30", "--out", str(tmp_path / "next.json"))
    by = {rule: json.loads(inside("next", str(run), "wine", "--by", rule, *words)) for rule in ("suspicion", "both")}
    assert [line["row"] for line in by["suspicion"]] == order[:30]
    assert json.loads((tmp_path / "next.json").read_text()) == by["both"]
    stable = json.loads(inside("next", str(run), *words))
    mean = {k: sum(line["suspicion"] for line in v) / 30 for k, v in {**by, "stability": stable}.items()}
    assert mean["suspicion"] > mean["both"] > mean["stability"]


def test_more_rows_than_there_are(run: Path, tmp_path: Path) -> None:
    lines = json.loads(inside("next", str(run), "--json", "--count", "100000", "--out", str(tmp_path / "all.csv")))
    with (run / "samples.csv").open() as file:
        assert {line["row"] for line in lines} == {int(line["row"]) for line in csv.DictReader(file)}


def test_what_a_user_can_mend(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match="--by is one of"):
        inside("next", str(run), "--by", "entropy")
    with pytest.raises(UnswayedError, match=r"FILE\.csv"):
        inside("next", str(run), "--out", str(tmp_path / "rows.txt"))
    with pytest.raises(UnswayedError, match="no file at"):
        inside("next", str(tmp_path))
    with pytest.raises(UnswayedError, match="data of the classes"):
        inside("next", str(run), "breast-cancer")
