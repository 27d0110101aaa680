"""Figures of what suspicion is worth and of confidence, from results made up by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_study import result, write_run

from unswayed import report
from unswayed.errors import UnswayedError
from unswayed.report.analyses import analyses
from unswayed.report.checking import checking
from unswayed.report.evidence import read_evidence
from unswayed.report.fields import Fields


def looked_at(seed: int, so: float, found: float) -> dict[str, Any]:
    """A result whose suspicions near .95 are so in `so`, and that finds `found` in the first half."""
    return result(seed=seed) | {
        "reliability": {"labels": {"bins": [[0, 0.02, 0.0, 90], [5, 0.5, 1.0, 2], [9, 0.95, so, 10]], "error": so / 10},
                        "test": None},
        "error_budget": {"checked": [0, 50, 100], "found": [0.0, found, 1.0]},
        "analysis": {"rows": 100, "wrong": 10, "notes": [],
                     "confidence": {"right": [0] * 9 + [90], "wrong": [int(10 * so), *[0] * 8, 10 - int(10 * so)]}},
    }  # fmt: skip


def section(folder: Path, *results: dict[str, Any]) -> report.Section:
    for seed, content in enumerate(results):
        write_run(folder / str(seed), content)
    (found,) = report.load(folder).sections
    return found


def test_curves_are_means_over_seeds_with_their_range(tmp_path: Path) -> None:
    budget, labels = checking(section(tmp_path, looked_at(0, 0.8, 0.6), looked_at(1, 0.4, 0.8))).charts
    assert budget.axis == "Labels checked, %"
    assert budget.xs == (0, 50, 100)
    assert budget.lines[0].means == (0.0, 0.7, 1.0)
    assert budget.lines[0].path == "M0 1000L500 300L1000 0"
    assert budget.lines[0].band == "M0 1000L500 200L1000 0L1000 0L500 400L0 1000Z"
    assert budget.diagonal == "M0 1000L1000 0"
    assert [(tick.at, tick.label) for tick in budget.across][-1] == (100.0, "100")
    assert labels.xs == (5, 95), "two rows are too few to be drawn"
    assert labels.lines[0].means == (0.0, pytest.approx(0.6))
    assert "over suspicion, %" in labels.summary


def test_calibration_errors_are_told_and_so_is_who_has_none(tmp_path: Path) -> None:
    other = looked_at(1, 0.4, 0.8) | {"name": "counts", "control": False}
    other["reliability"] = {"labels": None, "test": None}
    found = checking(section(tmp_path, looked_at(0, 0.8, 0.6), other))
    assert found.notes == (
        "Expected calibration error of suspicion: plain CE 0.080.",
        "Suspicions that are no shares have no such diagram: counts.",
    )


def test_results_of_earlier_versions_have_no_such_figures(tmp_path: Path) -> None:
    old = section(tmp_path, result())
    assert not checking(old).found
    assert analyses(old).histograms == ()


def test_histograms_are_shares_of_rows_right_and_wrong(tmp_path: Path) -> None:
    (one,) = analyses(section(tmp_path, looked_at(0, 0.8, 0.6), looked_at(1, 0.4, 0.8))).histograms
    assert one.right == "M903 500V0H997V500Z", "all right rows are sure, upwards"
    assert one.wrong == "M3 500V800H97V500ZM903 500V700H997V500Z", "60 % and 40 % of the wrong ones, downwards"
    assert one.range == "M50 700V900M950 600V800"
    assert "100 % of the rows labelled right" in one.words
    assert "40 % of the rows labelled wrong" in one.words


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"error_budget": {"checked": [0, 50], "found": [0.0, "x"]}},
            r"error_budget.found should be a list of numbers",
        ),
        ({"reliability": {"labels": {"bins": [[0, 1.0]], "error": 0.0}}}, r"labels.bins should be rows of 4 numbers"),
        ({"analysis": {"masks": {"shape": [2, 8], "bits": {"0": "AA=="}}}}, r"analysis.masks should be packed masks"),
        ({"analysis": {"masks": {"shape": [2, 8], "bits": {"0": "?"}}}}, r"analysis.masks should be packed masks"),
    ],
)
def test_damage_is_named(part: dict[str, Any], message: str) -> None:
    with pytest.raises(UnswayedError, match=message):
        read_evidence(Fields(Path("result.json"), "", part), 2)
