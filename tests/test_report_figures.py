from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_study import ARMS, gallery, result, write_analysed, write_run, write_study

from unswayed import report
from unswayed.errors import UnswayedError
from unswayed.report import pictures
from unswayed.report.analyses import MEASURES, analyses
from unswayed.report.curves import MOST_POINTS, charts
from unswayed.report.gallery import LARGEST, MOST_TEXT, shelve
from unswayed.report.matrices import KEPT_CLASSES, _fold, cut_note, matrices
from unswayed.report.pictures import pick, png, read_masks
from unswayed.report.results import NUMBERS, SHARES
from unswayed.report.settings import settings


def one_section(folder: Path) -> report.Section:
    (section,) = report.load(folder).sections
    return section


def run_with(history: list[tuple[int, float | None]], seed: int = 0, name: str = "x") -> dict[str, Any]:
    content = result(seed=seed) | {"name": name, "control": False}
    content["data"]["noise"] = None
    content["noise_rate"] = None
    content["history"] = [{"epoch": epoch, "test_accuracy": value} for epoch, value in history]
    return content


def test_curves_are_means_within_their_range(tmp_path: Path) -> None:
    write_run(tmp_path / "0", run_with([(0, 0.0), (1, 0.5), (2, None), (3, 0.8)]))
    write_run(tmp_path / "1", run_with([(0, 0.2), (1, 0.7), (2, None), (3, 1.0)], seed=1))
    (chart,) = charts(one_section(tmp_path))  # no training accuracy: no such figure
    (line,) = chart.lines
    assert chart.xs == (1, 2, 4)
    assert line.means == (0.1, 0.6, 0.9)
    assert line.path == "M0 900L333 400L1000 100"
    assert line.band == "M0 800L333 300L1000 0L1000 200L333 500L0 1000Z"
    assert [(tick.at, tick.label) for tick in chart.upwards][:2] == [(100.0, "0"), (80.0, "20")]
    assert [tick.label for tick in chart.across] == ["1", "2", "3", "4"]
    assert "x ends at 90.0 % (highest 90.0 %)" in chart.summary
    assert chart.level is None


def test_a_lasting_stage_starts_a_line_of_its_own(tmp_path: Path) -> None:
    content = run_with([(e, 0.5) for e in range(7)])
    for epoch, stage in zip(content["history"], "aaabbbb", strict=True):
        epoch["stage"] = stage
    write_run(tmp_path, content)
    (chart,) = charts(one_section(tmp_path))
    assert [piece.count("L") for piece in chart.lines[0].path.split("M")[1:]] == [2, 3]
    for epoch, stage in zip(content["history"], "abababa", strict=True):
        epoch["stage"] = stage
    write_run(tmp_path, content)
    (chart,) = charts(one_section(tmp_path))
    assert chart.lines[0].path.count("M") == 1  # alternating stages: one line


def test_one_epoch_is_a_dot_and_one_seed_has_no_band(tmp_path: Path) -> None:
    write_run(tmp_path, run_with([(0, 0.5)]))
    (chart,) = charts(one_section(tmp_path))
    assert chart.lines[0].path.endswith("h0")
    assert chart.lines[0].band == ""


def test_runs_of_different_lengths_share_one_axis(tmp_path: Path) -> None:
    write_run(tmp_path / "0", run_with([(e, 0.5) for e in range(10)], name="short"))
    write_run(tmp_path / "1", run_with([(e, 0.6) for e in range(20)], name="long"))
    (chart,) = charts(one_section(tmp_path))
    assert chart.lines[0].means == (0.5,) * 10 + (None,) * 10
    assert chart.lines[0].path.split("L")[-1].startswith("474 ")  # 9 of 19 steps


def test_long_histories_are_thinned_and_keep_their_end(tmp_path: Path) -> None:
    write_run(tmp_path, run_with([(e, e / 5000) for e in range(5000)]))
    (chart,) = charts(one_section(tmp_path))
    assert len(chart.xs) <= MOST_POINTS
    assert chart.xs[-1] == 5000


def test_the_level_of_right_labels_is_drawn_where_the_noise_is_known(tmp_path: Path) -> None:
    write_study(tmp_path, arms=2, seeds=2, number=0)
    test, train = charts(one_section(tmp_path))
    assert test.level is None
    assert train.level is not None
    assert train.level.label == "right labels: 59.9 %"
    low, high = (float(train.upwards[i].label) for i in (0, -1))
    assert train.level.at == pytest.approx(100 * (high - 59.9) / (high - low), abs=0.01)


def test_matrix_cells_are_percent_of_their_row(tmp_path: Path) -> None:
    for seed, counts in enumerate(([[8, 2], [0, 0]], [[1, 9], [0, 0]])):
        content = result(seed=seed, classes=["a", "b"])
        content["test"]["confusion"] = counts
        content["transition"] = {"estimated": [[0.9, 0.1], [0.3, 0.7]], "true": [[0.8, 0.2], [0.3, 0.7]]}
        write_run(tmp_path / str(seed), content)
    (arm,) = matrices(one_section(tmp_path))
    confusion, estimated, true = arm.grids
    assert [[cell.text for cell in row] for row in confusion.cells] == [["45", "55"], ["", ""]]
    assert confusion.cells[0][1].shade == round(100 * 0.55**0.5)
    assert [[cell.text for cell in row] for row in estimated.cells] == [["90", "10"], ["30", "70"]]
    assert re.search(r"Largest error: 10\.0 points \(a → [ab]\)\.", estimated.caption)  # of two equal ones
    assert [cell.text for cell in true.cells[0]] == ["80", "20"]
    assert "in truth 40.0 %" in arm.rate


def test_what_stands_out_is_named(tmp_path: Path) -> None:
    content = result(classes=["cat", "dog", "owl"])
    content["test"]["confusion"] = [[60, 40, 0], [1, 98, 1], [0, 0, 9]]
    write_run(tmp_path, content)
    assert matrices(one_section(tmp_path))[0].grids[0].mixed == ("cat → dog: 40 %",)


@pytest.mark.parametrize("size", [100, 1000])
def test_many_classes_are_folded_and_nothing_is_lost(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    confusion = np.eye(size, dtype=int) * 90
    pairs = rng.permutation(size)[:10].reshape(5, 2)
    confusion[pairs[:, 0], pairs[:, 1]] = 60
    content = result(classes=[f"class {i}" for i in range(size)], epochs=2)
    content["test"]["confusion"] = confusion.tolist()
    content["transition"] = {"estimated": confusion.tolist(), "true": None} if size == 100 else None
    write_run(tmp_path, content)
    section = one_section(tmp_path)
    (arm,) = matrices(section)
    for grid in arm.grids:
        assert len(grid.names) == len(grid.cells) == KEPT_CLASSES + 1
        assert {f"class {i}" for i in pairs.ravel()} <= set(grid.names)
        assert grid.names[-1] == f"other {size - KEPT_CLASSES}"
        assert grid.cells[-1][-1].text == "100"
        place = grid.names.index(f"class {pairs[0, 0]}"), grid.names.index(f"class {pairs[0, 1]}")
        assert grid.cells[place[0]][place[1]].text == "40"
        assert not grid.numbered
    assert f"Of {size:,} classes, the 15 that are mixed up most" in cut_note(section)
    assert report.write(report.load(tmp_path), tmp_path).stat().st_size < 400_000


def test_folding_adds_counts_and_averages_shares() -> None:
    matrix = np.array([[5.0, 1, 0, 2], [0, 4, 4, 0], [3, 0, 1, 0], [0, 0, 0, 40]])
    kept = np.array([0, 2])
    assert _fold(matrix, kept, counts=True).tolist() == [[5, 0, 3], [3, 1, 0], [0, 4, 44]]
    assert _fold(matrix, kept, counts=False).tolist() == [[5, 0, 3], [3, 1, 0], [0, 2, 22]]
    shares = matrix / matrix.sum(1, keepdims=True)
    assert _fold(shares, kept, counts=False)[-1].tolist() == [0, 0.25, 0.75]


def test_galleries_share_contents_and_take_turns_within_the_budget(tmp_path: Path) -> None:
    write_study(tmp_path, arms=3, seeds=2, number=60)
    (shelf,) = shelve(report.load(tmp_path).sections)
    assert [(g.arm, g.run.seed) for g in shelf.galleries] == [(1, 0), (1, 1), (2, 0), (2, 1), (0, 0), (0, 1)]
    assert all(len(g.chosen) == 60 for g in shelf.galleries)
    assert len(shelf.contents) == len({content for _, content in shelf.contents}) < 6 * 60
    budget = sum(len(content) for _, content in shelf.contents) // 3
    (small,) = shelve(report.load(tmp_path).sections, budget)
    assert sum(len(content) for _, content in small.contents) <= budget
    assert len(small.galleries[0].chosen) > max(len(g.chosen) for g in small.galleries[1:]) > 0
    for gallery_ in small.galleries:  # what is shown is the most suspicious part, without gaps
        assert [sample for sample, _ in gallery_.chosen] == list(gallery_.found[: len(gallery_.chosen)])


def one_sample(folder: Path, mime: str, raw: bytes | str) -> list[str]:
    content = raw if isinstance(raw, str) else base64.b64encode(raw).decode()
    sample = gallery("text", 10, 0, number=1)[0] | {"mime": mime, "content": content}
    write_run(folder, result(), [sample])
    (shelf,) = shelve(report.load(folder).sections)
    (found,) = shelf.contents
    return found


def test_contents_by_kind(tmp_path: Path) -> None:
    assert one_sample(tmp_path, "image/png", b"x") == ["image", "data:image/png;base64,eA=="]
    assert one_sample(tmp_path, "audio/FLAC", b"x") == ["audio", "data:audio/flac;base64,eA=="]
    assert one_sample(tmp_path, "text/plain; charset=utf-8", "Grüße".encode()) == ["text", "Grüße"]
    assert one_sample(tmp_path, "text/plain", b"\xff!") == ["text", "\ufffd!"]
    assert one_sample(tmp_path, "text/plain", b"a" * 5000) == ["text", "a" * MOST_TEXT + " …"]
    assert one_sample(tmp_path, "text/html", b"<script>") == ["none", "no preview of text/html"]
    assert one_sample(tmp_path, "image/svg+xml", b"<svg>") == ["none", "no preview of image/svg+xml"]
    assert one_sample(tmp_path, "image/png", '"onerror=alert(1)') == ["none", "its content is damaged"]
    assert one_sample(tmp_path, "image/png", b"x" * LARGEST)[0] == "none"


def test_settings_tell_what_is_shared(tmp_path: Path) -> None:
    write_study(tmp_path, arms=3, seeds=2, number=0)
    found = settings(one_section(tmp_path))
    assert found.shared == {"method": "plain", "epochs": "30", "net.width": "64", "parameters": "23,946"}
    assert found.differing == {
        "loss": ("plain CE", "tuned CE", "ANL-CE"),
        "chosen: weight_decay": ("", "0.0001 | 0.001", ""),
    }


def test_arm_names_of_the_generator_are_unique() -> None:
    assert len({name for name, *_ in ARMS}) == len(ARMS)


def test_analysed_runs_have_a_figure_of_every_measure(tmp_path: Path) -> None:
    assert sorted(measure.name for measure in MEASURES) == sorted((*SHARES, *NUMBERS))
    section = one_section(write_analysed(tmp_path))
    found = analyses(section)
    assert [chart.title for chart in found.charts] == [measure.title for measure in MEASURES]
    cosine, error, clean, *_, density, turnover, overlap = found.charts
    assert [line.arm for line in cosine.lines] == [0, 1]
    assert cosine.lines[0].means == (0.95, 0.75, 0.55, 0.35, 0.15, -0.05, -0.25, -0.45, -0.65)
    assert cosine.lines[0].band
    assert (cosine.unit, clean.unit) == ("", "%")
    assert [tick.label for tick in cosine.upwards] == ["−1", "−0.5", "0", "0.5", "1"]
    assert cosine.summary.startswith("Gradient cosine over epochs: plain CE ends at −0.65 (highest 0.95); ")
    assert [tick.label for tick in error.upwards][-1] == "25"
    assert [line.arm for line in density.lines] == [1]
    assert (turnover.xs[0], overlap.xs[0]) == (2, 1)
    assert [chart.level and chart.level.label for chart in (turnover, overlap)] == [
        "by chance: 75.0 %",
        "by chance: 14.3 %",
    ]
    assert found.notes == (
        "Measured after every epoch on 1,437 training rows whose truth is known; no arm saw the truth.",
    )


def test_runs_that_were_not_analysed_show_nothing_of_it(tmp_path: Path) -> None:
    write_study(tmp_path, arms=2, seeds=1, number=0)
    assert not analyses(one_section(tmp_path)).found
    assert "-analyses" not in report.write(report.load(tmp_path), tmp_path).read_text(encoding="utf-8")


def test_what_an_analysis_lacks_is_told(tmp_path: Path) -> None:
    for name, notes in (("a", ["no truth", "no layer"]), ("b", ["no truth"])):
        content = result() | {"name": name, "control": False}
        content["analysis"] = {"rows": 0, "wrong": 0, "layer": None, "notes": notes}
        write_run(tmp_path / name, content)
    assert analyses(one_section(tmp_path)).notes == ("no truth", "a: no layer")
    assert "a: no layer" in report.write(report.load(tmp_path), tmp_path).read_text(encoding="utf-8")


def test_chance_has_a_level_only_where_all_masks_keep_one_share(tmp_path: Path) -> None:
    write_analysed(tmp_path, seeds=1)
    content = result(ARMS[4], epochs=9)
    for row in content["history"]:
        row |= {"mask_density": 0.5, "mask_turnover": 0.5}
    write_run(tmp_path / "more", content)
    assert all(chart.level is None for chart in analyses(one_section(tmp_path)).charts)


def test_a_flat_line_is_drawn_in_the_midst_of_something(tmp_path: Path) -> None:
    write_analysed(tmp_path, seeds=1)
    density = next(chart for chart in analyses(one_section(tmp_path)).charts if chart.title == "Edges kept")
    assert [float(tick.label) for tick in density.upwards] == [23, 23.5, 24, 24.5, 25]


def test_masks_are_pictures_of_their_bits(tmp_path: Path) -> None:
    section = one_section(write_analysed(tmp_path, seeds=2, size=(3, 20)))
    (strip,) = analyses(section).strips
    assert (strip.arm, strip.seed, strip.names, strip.rows) == (1, 0, ("0", "1", "2"), 3)
    assert [picture.epoch for picture in strip.pictures] == [1, 5, 9]
    masks = read_masks(section.arms[1].runs[0].folder / "masks.npz")
    for picture in strip.pictures:
        raw = base64.b64decode(picture.source.removeprefix("data:image/png;base64,"))
        alpha = np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA"))[..., 3]
        assert np.array_equal(alpha > 0, masks[picture.epoch - 1])
    mask = masks[8]
    words = f"3 classes by 20 inputs, {100 * mask.mean():.1f} % of the edges kept"
    assert words in strip.pictures[2].words


def test_large_masks_are_cut_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(png(np.random.default_rng(0).random((128, 2048)) < 0.2)) < 40_000
    monkeypatch.setattr(pictures, "MOST_CELLS", 300)
    (strip,) = analyses(one_section(write_analysed(tmp_path, size=(10, 100)))).strips
    assert (strip.rows, strip.note, strip.names) == (
        3,
        "The first 3 of 10 classes are shown.",
        ("0", "1", "2"),
    )
    raw = base64.b64decode(strip.pictures[0].source.partition(",")[2])
    assert Image.open(io.BytesIO(raw)).size == (100, 3)


def test_first_middle_and_last_masks_are_picked() -> None:
    masks = {epoch: np.zeros((1, 1), dtype=bool) for epoch in (0, 4, 7, 8)}
    assert list(pick(masks, 9)) == [0, 4, 8]
    assert list(pick(masks, 8)) == [0, 7]
    assert list(pick(masks, 1)) == [0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not masks"])
def test_damaged_masks_are_named(tmp_path: Path, content: bytes) -> None:
    path = write_analysed(tmp_path) / "arm-1" / "seed-0" / "masks.npz"
    path.write_bytes(content)
    with pytest.raises(UnswayedError, match=r"masks\.npz: expected packed masks"):
        analyses(one_section(tmp_path))


def test_measures_out_of_range_are_named(tmp_path: Path) -> None:
    content = run_with([(0, 0.5)])
    content["history"][0]["memorisation"] = 1.5
    write_run(tmp_path, content)
    with pytest.raises(UnswayedError, match=r"history\[0\]\.memorisation should be a share"):
        report.load(tmp_path)
