"""Rows read from anywhere in a file, and the benchmark of data beyond memory at a small size."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unswayed.data.columns import ArrayColumn
from unswayed.data.scattered import ScatteredRows, place_in_file

ROOT = Path(__file__).parent.parent


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    """500 rows of 3 x 40 numbers in a file, mapped."""
    values = np.random.default_rng(0).integers(0, 2**15, (500, 3, 40), dtype=np.int16)
    np.save(tmp_path / "rows.npy", values)
    found: np.ndarray = np.load(tmp_path / "rows.npy", mmap_mode="r")
    return found


AT = [[3, 4, 5, 6], [0, 499], [7, 7, 250], list(range(500)), []]


@pytest.mark.parametrize("at", AT, ids=["neighbours", "ends", "twice", "all", "none"])
@pytest.mark.parametrize(
    "view",
    [np.s_[:], np.s_[100:], np.s_[::3], np.s_[::-1], np.s_[:, 1], np.s_[:, :, ::2]],
    ids=["whole", "rest", "every third", "backwards", "one channel", "every second number"],
)
def test_rows_are_those_of_the_array(mapped: np.ndarray, view: object, at: list[int]) -> None:
    values = mapped[view]  # type: ignore[index]
    rows = torch.tensor(at, dtype=torch.int64).remainder(len(values))
    column = ArrayColumn(values)
    assert place_in_file(values) is not None
    for one in (column, pickle.loads(pickle.dumps(column))):
        found = one.rows(rows.flip(0))
        assert found.equal(torch.from_numpy(np.array(values))[rows.flip(0)])


def test_a_file_that_is_gone_or_another_is_not_read(mapped: np.ndarray, tmp_path: Path) -> None:
    expected, at, file = np.array(mapped), np.array([1, 30, 499]), tmp_path / "rows.npy"
    file.unlink()
    assert np.array_equal(ScatteredRows(mapped).read(at), expected[at])
    np.save(file, expected + 1)
    assert np.array_equal(ScatteredRows(mapped).read(at), expected[at])
    file.write_bytes(b"short")
    assert np.array_equal(ScatteredRows(mapped).read(at), expected[at])


def test_rows_in_memory_have_no_place_in_a_file() -> None:
    values = np.arange(12).reshape(4, 3)
    assert place_in_file(values) is None
    assert np.array_equal(ScatteredRows(values).read(np.array([0, 3])), values[[0, 3]])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what lies in memory is asked of Linux")
def test_the_benchmark_at_a_small_size(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "benchmarks/larger_than_memory.py", "--gigabytes", ".01", "--rounds", "1"]
    subprocess.run([*command, "--folder", str(tmp_path), "--out", str(out)], check=True, cwd=ROOT, timeout=240)
    found = json.loads(out.read_text())
    assert found["data"]["rows"] == 3255
    assert 0 < found["memory"]["anonymous_peak_bytes"] < found["memory"]["limit_bytes"]
    assert set(found["nets"]) == {"mlp", "cnn-small", "cnn8"}
    assert all(max(one["cached_before"]) < 0.1 for one in found["nets"].values())
    assert found["long"]["rows"] == 3255
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json"], "the data are deleted"
