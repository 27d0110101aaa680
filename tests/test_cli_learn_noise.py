"""`unswayed learn-noise`, and the noise it makes in `unswayed train`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from unswayed import UnswayedError
from unswayed.cli import app
from unswayed.noise import NoiseModel


def inside(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of two classes; rows near the border get wrong labels, from two annotators; one row without a truth."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 2, generator=generator)
    truth = (x[:, 0] > 0).long()
    flip = (torch.rand(900, 2, generator=generator) < 0.6 * torch.exp(-3 * x[:, :1].abs())).long()
    given = (truth[:, None] + flip) % 2
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "label", "first", "second"])
        for i in range(900):
            words = ["no", "yes"]
            kept = "" if i == 7 else words[truth[i]]
            writer.writerow([float(x[i, 0]), float(x[i, 1]), kept, words[given[i, 0]], words[given[i, 1]]])
    return tmp_path / "table.csv"


def test_learn_and_use(table: Path, tmp_path: Path) -> None:
    words = ("--truth", "label", "--input", "a", "--input", "b", "--out", str(tmp_path / "m.safetensors"))
    told = json.loads(inside("learn-noise", str(table), "--label", "first", *words, "--json"))
    assert told["rows"] == 899
    assert told["features"] is True
    assert told["class_names"] == ["no", "yes"]
    model = NoiseModel.load(tmp_path / "m.safetensors")
    near, far = model.probabilities(torch.tensor([1, 1]), torch.tensor([[0.05, 0.0], [2.0, 0.0]]))[:, 0].tolist()
    assert near > 0.2 > 0.1 > far
    shown = inside("learn-noise", str(table), "--label", "first", "--label", "second", *words)
    assert "2 annotators" in shown
    assert "--noise learned --noise-set model=" in shown
    common = ("--label", "label", "--input", "a", "--input", "b", "--epochs", "1", "--out", str(tmp_path / "run"))
    fit = ("--noise", "learned", "--noise-set", f"model={tmp_path / 'm.safetensors'}", "--rate", ".2", "-a", "plain")
    clean = [line for line in table.read_text().splitlines(keepends=True) if ",," not in line]
    table.write_text("".join(clean))
    inside("train", str(table), *common, *fit, "--json")
    result = json.loads(next((tmp_path / "run").rglob("result.json")).read_text())
    assert result["data"]["noise"]["name"] == "learned"
    assert result["data"]["noise"]["actual"] == pytest.approx(0.2, abs=0.05)


def test_ready_made_features(table: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    rows = torch.tensor([[float(line[0]), float(line[1])] for line in lines])
    save_file({"features": rows}, tmp_path / "features.safetensors")
    words = ("--label", "first", "--label", "second", "--truth", "label", "--input", "b")
    more = ("--features", str(tmp_path / "features.safetensors"), "--out", str(tmp_path / "m.safetensors"))
    told = json.loads(inside("learn-noise", str(table), *words, *more, "--json"))
    assert told["features"] is True
    blind = json.loads(inside("learn-noise", str(table), *words, *more[2:], "--json"))
    assert told["held_out"]["gain"] > 10 * abs(blind["held_out"]["gain"])


def test_classes_only(table: Path, tmp_path: Path) -> None:
    words = ("--label", "first", "--truth", "label", "--out", str(tmp_path / "m.safetensors"))
    shown = inside("learn-noise", str(table), *words, "--input", "a", "--input", "b", "--classes-only")
    assert "Held out" not in shown
    assert NoiseModel.load(tmp_path / "m.safetensors").likeness is None


def test_what_a_user_can_mend(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match=r"FILE\.safetensors"):
        inside("learn-noise", str(table), "--label", "first", "--truth", "label", "--out", "m.pt")
    with pytest.raises(UnswayedError, match="column"):
        inside("learn-noise", str(table), "--label", "third", "--truth", "label")
