"""Ready-made features in place of the rows of a data set: which row gets which, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from unswayed import data
from unswayed.cli import app
from unswayed.data.dataset import Dataset
from unswayed.errors import UnswayedError
from unswayed.experiment.config import Config
from unswayed.experiment.task import make_task, read_data


def numbered(rows: int, start: int = 0) -> np.ndarray:
    """Features that tell their row: the first grows by 1 a row, the second is constant."""
    return np.stack([np.arange(start, start + rows, dtype=np.float32), np.ones(rows, np.float32)], 1)


def positions(dataset: Dataset, part: str = "train") -> Tensor:
    """The first feature, with the scale of the training rows undone so that neighbours differ by 1."""
    split = dataset.train if part == "train" else dataset.test
    assert split is not None
    first = split.x.rows(torch.arange(len(split)))[:, 0]
    return (first - first[0]) / (first[1] - first[0])


def texts(tmp_path: Path, labels: list[str], name: str = "t.csv", split: list[str] | None = None) -> Path:
    file = tmp_path / name
    lines = [f"a text numbered {i} of many,{label}" for i, label in enumerate(labels)]
    lines = lines if split is None else [f"{line},{part}" for line, part in zip(lines, split, strict=True)]
    file.write_text("text,label" + (",split" if split else "") + "\n" + "\n".join(lines) + "\n")
    return file


def test_features_take_the_place_of_the_rows(tmp_path: Path) -> None:
    dataset = data.read(texts(tmp_path, ["a", "b", "a", "b"]))
    found = data.with_features(dataset, numbered(4))
    assert (found.kind, found.classes, found.train.x.shape) == ("table", ("a", "b"), (2,))
    x = found.train.x.rows(torch.arange(4))
    torch.testing.assert_close(x[:, 0], (torch.arange(4.0) - 1.5) / torch.arange(4.0).std())
    assert not x[:, 1].any(), "a constant is no information"
    assert found.notes[-1] == "features [2] given as rows"
    assert data.preview(found, "train", 2).content == b"a text numbered 2 of many"
    assert torch.equal(
        data.with_features(dataset, torch.from_numpy(numbered(4)).half()).train.x.rows(torch.arange(4)), x
    )


def test_rows_that_the_reader_left_out_are_left_out_of_the_features(tmp_path: Path) -> None:
    dataset = data.read(texts(tmp_path, ["a", "", "a", "b", "b", ""]))
    assert (len(dataset.train), dataset.train.whole) == (4, 6)
    whole = data.with_features(dataset, numbered(6))
    assert positions(whole).tolist() == pytest.approx([0, 1, 1.5, 2])  # rows 0, 2, 3, 4
    assert positions(data.with_features(dataset, numbered(4))).tolist() == pytest.approx([0, 1, 2, 3])
    with pytest.raises(UnswayedError, match=r"4 \(or 6, with the rows left out\) in all, but got 5"):
        data.with_features(dataset, numbered(5))


@pytest.mark.parametrize("how", ["pair", "mapping", "npz", "npz of x", "safetensors", "two files"])
def test_features_of_both_parts(tmp_path: Path, how: str) -> None:
    dataset = data.from_arrays(np.zeros((3, 5)), [0, 1, 0], test=(np.zeros((2, 5)), [1, 0]))
    train, test = numbered(3), numbered(2, start=10)
    features: Any = {"pair": (train, test), "mapping": {"train": train, "test": test}}.get(how, tmp_path / f"f.{how}")
    if how == "npz":
        np.savez(features, train=train, test=test)
    elif how == "npz of x":
        np.savez(features.with_suffix(".npz"), x_train=train, x_test=test, y_train=[0, 1, 0])
        features = features.with_suffix(".npz")
    elif how == "safetensors":
        save_file({"train": torch.from_numpy(train).bfloat16(), "test": torch.from_numpy(test)}, features)
    elif how == "two files":
        np.save(tmp_path / "a.npy", train)
        np.save(tmp_path / "b.npy", test)
        features = (str(tmp_path / "a.npy"), tmp_path / "b.npy")
    found = data.with_features(dataset, features)
    assert found.test is not None
    assert found.train.x.rows(torch.arange(3))[:, 0].tolist() == pytest.approx([-1, 0, 1])
    assert found.test.x.rows(torch.arange(2))[:, 0].tolist() == pytest.approx([9, 10]), "scaled by the training rows"


def test_one_array_serves_both_parts_of_one_file(tmp_path: Path) -> None:
    parts = ["train", "test", "train", "train", "test", "train"]
    dataset = data.read(texts(tmp_path, ["a", "b", "a", "b", "a", "b"], split=parts))
    found = data.with_features(dataset, numbered(6))
    assert positions(found).tolist() == pytest.approx([0, 1, 1.5, 2.5])  # rows 0, 2, 3, 5
    assert positions(found, "test").tolist() == pytest.approx([0, 1])
    assert found.test is not None
    at = found.test.x.rows(torch.arange(2))[:, 0] - found.train.x.rows(torch.arange(1))[:, 0]
    assert (at[1] / at[0]).item() == pytest.approx(4)  # rows 1 and 4, counted from row 0
    apart = data.from_arrays(np.zeros((3, 5)), [0, 1, 0], test=(np.zeros((3, 5)), [1, 0, 1]))
    with pytest.raises(UnswayedError, match="two files"):
        data.with_features(apart, numbered(3))  # as many, but of other rows


def test_files_of_numbers(tmp_path: Path) -> None:
    dataset = data.from_arrays(np.zeros((3, 5)), [0, 1, 0])
    values = numbered(3)
    np.save(tmp_path / "f.npy", values.astype(np.float16))
    (tmp_path / "f.csv").write_text("u,v\n" + "".join(f"{u},{v}\n" for u, v in values))
    np.savez(tmp_path / "f.npz", features=values)
    save_file({"features": torch.from_numpy(values)}, tmp_path / "f.safetensors")
    expected = data.with_features(dataset, values).train.x.rows(torch.arange(3))
    for name in ("f.npy", "f.csv", "f.npz", "f.safetensors"):
        assert torch.equal(data.with_features(dataset, tmp_path / name).train.x.rows(torch.arange(3)), expected), name


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("sprung", "w")


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (np.zeros(3), r"got an array \[3\]; a row a sample"),
        (np.zeros((3, 2, 2)), "pool or flatten"),
        (np.zeros((3, 0)), r"features \[N, d\]"),
        (np.array([[1.0], [np.nan], [np.inf]]), "NaN or infinity in 2 rows"),
        (np.array([["a"], ["b"], ["c"]]), "features that are numbers"),
        (np.array([[Trap()]] * 3, dtype=object), "features that are numbers"),
        (np.zeros((4, 2)), "3 in all, but got 4"),
        ((np.zeros((3, 2)),) * 3, "3 parts"),
        ((np.zeros((3, 2)),) * 2, "has no test part"),
        ({"training": np.zeros((3, 2))}, "got training"),
        ({}, "features of the training rows"),
        ("nowhere.npy", "which is not there"),
    ],
)
def test_what_does_not_fit_is_told(features: Any, says: str) -> None:
    dataset = data.from_arrays(np.zeros((3, 5)), [0, 1, 0])
    with pytest.raises(UnswayedError, match=says):
        data.with_features(dataset, features)


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    dataset = data.from_arrays(np.zeros((3, 5)), [0, 1, 0])
    np.save(tmp_path / "objects.npy", np.array([[Trap()]] * 3, dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", u=np.zeros((3, 2)), v=np.zeros((3, 2)))
    (tmp_path / "words.csv").write_text("u,v\n1,a\n2,b\n3,c\n")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "f.txt").write_text("1 2")
    (tmp_path / "f.pt").write_bytes(pickle.dumps([1]))
    for name, says in (
        ("objects.npy", "Python objects"),
        ("two.npz", "one array of train features"),
        ("words.csv", "columns of numbers in .*got 'v'"),
        ("bad.safetensors", "a safetensors file"),
        ("f.txt", "ends in"),
        ("f.pt", "ends in"),
    ):
        with pytest.raises(UnswayedError, match=says):
            data.with_features(dataset, tmp_path / name)
    assert not Path("sprung").exists()


def test_pictures_and_sounds_are_still_shown() -> None:
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    dataset = data.from_arrays(images, [0, 1, 0], test=(images[:2], [1, 0]))
    found = data.with_features(dataset, (numbered(3), numbered(2)))
    assert found.kind == "table"
    for part in ("train", "test"):
        assert data.preview(found, part, 1) == data.preview(dataset, part, 1)  # type: ignore[arg-type]
    part = found.train.take(torch.tensor([2]))
    assert part.source is not None
    assert part.source[0] == data.preview(dataset, "train", 2)
    assert pickle.loads(pickle.dumps(found)).train.source[0].mime == "image/png"


def test_a_configuration_names_them_and_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(178, 6)))
    config = Config("wine", features=[str(tmp_path / "f.npy")], limit=50)
    task = make_task(config, read_data(config))
    assert task.train.x.shape == (6,)
    assert Config(**json.loads(json.dumps(config.as_json()))).as_json() == config.as_json()
    assert "features" not in Config("wine").as_json()
    with pytest.raises(UnswayedError, match="either features or an encoder"):
        Config("wine", features=["f.npy"], encoder="patches")


def test_the_command_trains_on_features_and_on_arrays_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = (generator.normal(size=(120, 4)) + 4 * np.eye(3, 4)[y]).astype(np.float32)
    given = np.where(generator.random(120) < 0.2, (y + 1) % 3, y)
    for name, values in {
        "X_train": x[:90],
        "X_test": x[90:],
        "given": given[:90],
        "y_test": y[90:],
        "t": y[:90],
    }.items():
        np.save(tmp_path / f"{name}.npy", values)
    arm = ["--arm", "ce identity", "--epochs", "5", "--json"]
    words = ["train", str(tmp_path / "X_train.npy"), "--label", "given.npy", "--truth", "t.npy"]
    done = CliRunner().invoke(app, [*words, *arm, "--out", str(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    result = json.loads(next((tmp_path / "one").rglob("result.json")).read_text())
    assert result["data"]["train"] == 90
    assert result["data"]["test"] == 30
    assert result["test"]["last"] > 0.8
    assert result["noise_rate"]["true"] == pytest.approx(float((given != y)[:90].mean()))

    texts(tmp_path, [str(label) for label in given[:90]])
    words = ["train", str(tmp_path / "t.csv"), "--features", str(tmp_path / "X_train.npy")]
    done = CliRunner().invoke(app, [*words, *arm, "--out", str(tmp_path / "two")])
    assert done.exit_code == 0, done.output
    result = json.loads(next((tmp_path / "two").rglob("result.json")).read_text())
    assert result["data"]["kind"] == "table"
    assert result["config"]["features"] == [str(tmp_path / "X_train.npy")]
    gallery = json.loads(next((tmp_path / "two").rglob("gallery.json")).read_text())
    assert gallery[0]["mime"] == "text/plain"


def test_batches_grow_with_large_tables_alone() -> None:
    assert Config("wine").training("table", 100_000).batch == 256
    assert Config("wine", batch=48).training("table", 100_000).batch == 48
    assert Config("wine").training("table", 5_000) == Config("wine").training("table")
    assert Config("wine").training("image", 10**6).batch == 128
