"""The table of an audit, and its folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from unswayed.auditing import KINDS, Audit, Interval, Noise
from unswayed.errors import UnswayedError


@pytest.fixture
def audit() -> Audit:
    square = torch.eye(2)
    return Audit(
        classes=("cat", "dog"),
        rows=torch.tensor([10, 11, 13]),
        given=torch.tensor([0, 1, -1]),
        suspicion=torch.tensor([0.2, 0.9, 1.0]),
        suggested=torch.tensor([0, 0, 1]),
        probability=torch.tensor([0.8, 0.75, 0.5]),
        kind=torch.tensor([0, 1, 1], dtype=torch.int8),
        noise=Noise(Interval(0.3, 0.1, 0.5), square, square * 0.5, square),
        verdict="Worth it.",
        method="elr",
        scores={"margin": torch.tensor([0.1, 0.5, 1.0])},
        curves=torch.rand(3, 4),
        about={"data": "pets.csv"},
    )


def test_order_issues_and_lines(audit: Audit) -> None:
    assert audit.order().tolist() == [2, 1, 0]
    assert audit.issues().tolist() == [2, 1]
    assert audit.issues(0.95).tolist() == [2]
    assert [line["row"] for line in audit.lines()] == [13, 11, 10]
    assert audit.line(2)["given"] == ""
    assert audit.line(1) == {
        "row": 11,
        "given": "dog",
        "suggested": "cat",
        "suspicion": 0.9,
        "probability": 0.75,
        "kind": KINDS[1],
    }


def test_saved_and_loaded(audit: Audit, tmp_path: Path) -> None:
    again = Audit.load(audit.save(tmp_path / "out"))
    assert again.classes == audit.classes
    assert again.noise.rate == audit.noise.rate
    assert (again.verdict, again.method, again.about) == ("Worth it.", "elr", {"data": "pets.csv"})
    assert again.probs is None
    assert set(again.scores) == {"margin"}
    for name in ("rows", "given", "suspicion", "suggested", "probability", "kind", "curves"):
        assert torch.equal(getattr(again, name), getattr(audit, name))
    assert torch.equal(again.noise.low, audit.noise.low)
    with (tmp_path / "out" / "audit.csv").open(newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["13", "11", "10"]
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["kinds"] == {"fine": 1, "wrong": 2, "ambiguous": 0, "outlier": 0, "duplicate": 0}


def test_no_audit_there(tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match="a finished audit"):
        Audit.load(tmp_path)
