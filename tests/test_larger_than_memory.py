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

from unswayed.batches import epoch_batches
from unswayed.checks.methods import bits, make, same, toy, train
from unswayed.data import columns, orders
from unswayed.data.columns import ArrayColumn, TensorColumn
from unswayed.data.orders import draw_order
from unswayed.data.scattered import ScatteredRows, place_in_file
from unswayed.engine import Record
from unswayed.machine import Place
from unswayed.method import Data
from unswayed.methods.plain import Plain

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


# ------------------------------------------------------------------------------------------------ blocks


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 rows of `mapped`, 4 of which are shuffled among each other."""
    monkeypatch.setattr(columns, "BLOCK_BYTES", 8 * 3 * 40 * 2)
    monkeypatch.setattr(orders, "POOL", 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("wanted", [500, 300, 1200])
@pytest.mark.usefixtures("small_blocks")
def test_blocks_show_every_row_once_a_round(mapped: np.ndarray, wanted: int) -> None:
    order = draw_order(ArrayColumn(mapped), wanted, generator(), "blocks")
    assert order.reading is not None
    assert len(order.shown) == len(order.reading) == wanted
    for start in range(0, wanted, 500):
        piece = order.shown[start : start + 500]
        assert len(piece.unique()) == len(piece)
    steps = order.reading[:300].diff()
    assert (steps == 1).float().mean() > 0.85, "what is read are neighbours"
    assert not (order.shown[:300].diff() == 1).float().mean() > 0.2, "what is shown are not"


@pytest.mark.usefixtures("small_blocks")
def test_blocks_differ_from_epoch_to_epoch_and_their_borders_too(mapped: np.ndarray) -> None:
    drawn = [draw_order(ArrayColumn(mapped), 500, generator(seed), "blocks") for seed in (0, 0, 1, 2)]
    assert drawn[0].shown.equal(drawn[1].shown)
    assert not drawn[0].shown.equal(drawn[2].shown)
    readings = [order.reading for order in drawn[1:] if order.reading is not None]
    borders = {frozenset((reading[1:][reading.diff() != 1] % 8).tolist()) for reading in readings}
    assert len(borders) > 1


@pytest.mark.usefixtures("small_blocks")
def test_rows_in_memory_are_shuffled_by_rows_all_the_same(mapped: np.ndarray) -> None:
    column = TensorColumn(torch.from_numpy(np.array(mapped)))
    expected = torch.randperm(500, generator=generator())
    assert draw_order(column, 500, generator(), "blocks").shown.equal(expected)
    assert draw_order(ArrayColumn(mapped), 500, generator(), "rows").shown.equal(expected)


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.usefixtures("small_blocks")
def test_every_row_is_expected_before_it_is_asked_for(
    mapped: np.ndarray, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    column, expected, late = ArrayColumn(mapped), set[int](), list[int]()
    expect, rows = column.expect, column.rows
    monkeypatch.setattr(column, "expect", lambda at: (expected.update(at.tolist()), expect(at)))
    monkeypatch.setattr(column, "rows", lambda at: (late.extend(set(at.tolist()) - expected), rows(at))[1])
    part, most = Data.of(column, torch.arange(500)), 0
    place, seen = Place(torch.device("cpu")), list[int]()
    batches = epoch_batches(
        (part,), 20, ("stored",), {}, 3, place, epoch=0, progress=float, first=first, shuffle="blocks"
    )
    for (batch,), *_ in batches:
        seen += batch.index.tolist()
        most = max(most, len(expected - set(seen)))
        assert batch.views[0].equal(torch.from_numpy(np.array(mapped))[batch.index])
    assert late == []
    assert len(seen) == 500 - 20 * first == len(set(seen))
    assert most < 5 * 32 + 20 * first, "no more than a pool and some blocks ahead"


@pytest.mark.usefixtures("small_blocks")
def test_blocks_in_the_engine_go_on_to_the_same_bits(tmp_path: Path) -> None:
    data, *_ = toy(250)
    file = tmp_path / "x.npy"
    np.save(file, data.x.rows(torch.arange(250)).numpy())
    part = Data.of(ArrayColumn(np.load(file, mmap_mode="r")), data.y)

    def stop(method: object, record: Record) -> dict[str, float]:
        if record.epoch == 1:
            raise KeyboardInterrupt
        return {}

    whole, again, by_rows = (make(Plain, 250) for _ in range(3))
    train(whole, part, epochs=4, shuffle="blocks")
    kept = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(make(Plain, 250), part, epochs=4, shuffle="blocks", checkpoint=kept, save_seconds=0.0, evaluate=stop)
    train(again, part, epochs=4, shuffle="blocks", checkpoint=kept, resume=True)
    train(by_rows, part, epochs=4)
    assert same(bits(whole), bits(again))
    assert not same(bits(whole), bits(by_rows))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what lies in memory is asked of Linux")
def test_the_benchmark_at_a_small_size(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "benchmarks/larger_than_memory.py", "--gigabytes", ".01", "--rounds", "1"]
    subprocess.run([*command, "--folder", str(tmp_path), "--out", str(out)], check=True, cwd=ROOT, timeout=240)
    found = json.loads(out.read_text())
    assert found["data"]["rows"] == 3255
    assert 0 < found["memory"]["anonymous_peak_bytes"] < found["memory"]["limit_bytes"]
    assert set(found["nets"]) == {"mlp", "mlp, blocks", "cnn-small", "cnn8"}
    assert min(found["sorted_by_class"]["pools of 4 blocks"]) > 0.9
    assert all(max(one["cached_before"]) < 0.1 for one in found["nets"].values())
    assert found["long"]["rows"] == 3255
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json"], "the data are deleted"
