"""`unswayed repair` as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import unswayed
from unswayed import UnswayedError, checkpoint, mending
from unswayed.cli import app
from unswayed.experiment.patient import admit, find_factory


def inside(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short run on wine with planted wrong labels."""
    folder = tmp_path_factory.mktemp("run")
    config = unswayed.Config(data="wine", arm="plain mlp(widths=32x16)", noise="symmetric", rate=0.3, epochs=8)
    unswayed.run(config, folder=folder)
    return folder / "checkpoint.safetensors"


def test_a_checkpoint_of_ours(spoilt: Path, tmp_path: Path) -> None:
    shown = inside("repair", str(spoilt), "--epochs", "3", "--out", str(tmp_path))
    for name in ("before", "L-FT", "L-FT, no pruning", "F-FT", "F-FT, random neurons", "retrained", "Clean part"):
        assert name in shown
    told = json.loads((tmp_path / "repair.json").read_text())
    assert told["kept"] == "F-FT"
    assert len(told["pruned"]) == 2  # of 16 neurons
    assert told["wrong_labels"]["all_rows"] == pytest.approx(0.3, abs=0.02)
    whole = {"before", "L-FT, all rows", "F-FT, all rows"}
    for trial in told["trials"]:
        assert trial["rows"] == told["rows" if trial["name"] in whole else "clean_rows"]
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["in_clean_part"] == "1" for row in rows) == told["clean_rows"]
    before, _ = checkpoint.read_state(spoilt)
    after, about = checkpoint.read_state(tmp_path / "checkpoint.safetensors")
    assert before.keys() == after.keys(), "an ordinary checkpoint, without masks"
    assert about["repair"]["pruned"] == told["pruned"]
    name = f"method/net.{told['layer']}.weight"
    assert after[name][told["pruned"]].abs().max() == 0
    assert before[name][told["pruned"]].abs().max() > 0
    # It is a run's checkpoint still: repaired once more, it starts from what was reached.
    patient = admit(tmp_path / "checkpoint.safetensors")
    assert patient.task.test is not None
    assert patient.task.test_labels is not None
    scored = unswayed.engine.accuracy(patient.network, patient.task.test.x, patient.task.test_labels)
    kept = next(trial for trial in told["trials"] if trial["name"] == "F-FT")
    assert scored == pytest.approx(kept["accuracy"])


def test_json_without_controls_beside_the_checkpoint(spoilt: Path) -> None:
    words = ("--json", "--no-controls", "--tune", "last", "--epochs", "1", "--evidence", "prediction", "--share", "0")
    told = json.loads(inside("repair", str(spoilt), "wine", *words))
    assert [trial["name"] for trial in told["trials"]] == ["before", "L-FT"]
    assert told["pruned"] == []
    assert (spoilt.parent / "repaired" / "checkpoint.safetensors").exists()


def test_the_published_form_is_one_word(spoilt: Path) -> None:
    words = ("--json", "--no-controls", "--epochs", "1", "--as-published")
    settings = json.loads(inside("repair", str(spoilt), "wine", *words))["settings"]
    assert settings.items() >= mending.PUBLISHED.items()
    assert settings["evidence"] == "prediction"
    told = json.loads(inside("repair", str(spoilt), "wine", *words, "--evidence", "label"))["settings"]
    assert (told["evidence"], told["by_class"], told["scaled"]) == ("label", False, False)


def test_two_networks_are_told_of(tmp_path: Path) -> None:
    unswayed.run(unswayed.Config(data="wine", arm="co-teaching", epochs=1), folder=tmp_path)
    told = json.loads(
        inside("repair", str(tmp_path / "checkpoint.safetensors"), "--json", "--no-controls", "--epochs", "1")
    )
    assert "more than its network" in told["notes"][0]


def test_any_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets_of_test.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(13, 12), nn.ReLU(), nn.Linear(12, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    network = find_factory("mynets_of_test:make")()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    for file in ("weights.safetensors", "weights.pt"):
        words = ("--model", "mynets_of_test:make", "--layer", "0", "--epochs", "1", "--out", "repaired", "--json")
        told = json.loads(inside("repair", file, "wine", *words))
        assert [trial["name"] for trial in told["trials"]][-1] == "retrained"
        repaired = load_file(tmp_path / "repaired" / "checkpoint.safetensors")
        network.load_state_dict(repaired)
        assert repaired["0.weight"][told["pruned"]].abs().max() == 0
    with pytest.raises(UnswayedError, match="data that the network"):
        inside("repair", "weights.pt", "--model", "mynets_of_test:make")
    with pytest.raises(UnswayedError, match="can be imported"):
        inside("repair", "weights.pt", "wine", "--model", "mynets_of_test:mke")
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UnswayedError, match="weights that fit"):
        inside("repair", "other.safetensors", "wine", "--model", "mynets_of_test:make")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("text.pt", "absent.pt", "absent.safetensors"):
        with pytest.raises(UnswayedError, match="file of weights"):
            inside("repair", str(tmp_path / name), "wine", "--model", "torch.nn:Identity")
    torch.save({"weight": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(UnswayedError, match="a state dict"):
        inside("repair", str(tmp_path / "list.pt"), "wine", "--model", "torch.nn:Identity")


def test_what_a_user_can_mend(spoilt: Path, tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match="data of the classes"):
        inside("repair", str(spoilt), "breast-cancer")
    with pytest.raises(UnswayedError, match="no file at"):
        inside("repair", str(tmp_path / "none.safetensors"))
    with pytest.raises(UnswayedError, match="--tune is"):
        inside("repair", str(spoilt), "--tune", "none")
    with pytest.raises(UnswayedError, match="fully connected layer"):
        inside("repair", str(spoilt), "--layer", "head2")
    checkpoint.write_state(tmp_path / "other.safetensors", {}, {"settings": 1})
    with pytest.raises(UnswayedError, match="checkpoint of a run"):
        inside("repair", str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("name", ["torch.nn", ":x", "torch.nn:", "torch:__version__"])
def test_factories_that_are_none(name: str) -> None:
    with pytest.raises(UnswayedError, match="callable"):
        find_factory(name)
