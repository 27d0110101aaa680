"""`unswayed audit` as a user meets it, and what the other commands make of an audit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from unswayed import UnswayedError
from unswayed.auditing import Audit
from unswayed.cli import app
from unswayed.cli.audit import confused_pairs

QUICK = ("--epochs", "4", "--folds", "3")


def inside(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of wine with planted wrong labels."""
    out = tmp_path_factory.mktemp("audit") / "wine"
    inside("audit", "wine", "--noise", "symmetric", "--rate", ".2", "--out", str(out), *QUICK)
    return out


def test_what_is_printed(folder: Path) -> None:
    shown = inside("audit", "wine", "--noise", "symmetric", "--rate", ".2", "--out", str(folder), *QUICK)
    flat = " ".join(shown.split())
    for part in (
        "178 labels",
        "wrong (with 95 %:",
        "Most confused classes",
        "Most suspicious labels",
        "Error budget Review",
        "of the errors",
        "Verdict",
        "Against the true labels (which took no part) AUROC",
        "audit.csv",
        f"unswayed review {folder}",
    ):
        assert part in flat, part
    with (folder / "audit.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 178
    assert listed[0]["row"] in shown


def test_json(folder: Path) -> None:
    words = ("audit", "wine", "--noise", "symmetric", "--rate", ".2", "--out", str(folder), *QUICK)
    told = json.loads(inside(*words, "--json"))
    assert told["rows"] == 178
    assert told["about"]["truth"]["auroc"] > 0.9
    assert told["about"]["config"]["arm"] == "elr identity"
    assert told["noise_rate"]["low"] <= told["noise_rate"]["value"] <= told["noise_rate"]["high"]
    assert [line["suspicion"] for line in told["suspicious"]] == sorted(
        (line["suspicion"] for line in told["suspicious"]), reverse=True
    )
    shares = {one["share"]: one["review"] for one in told["budget"]}
    assert 0 < shares[0.5] <= shares[0.8] <= shares[0.95] <= 178
    assert "errors" in told["said"]


def test_pairs_add_up(folder: Path) -> None:
    found = Audit.load(folder)
    pairs = confused_pairs(found)
    changed = found.suggested != found.given
    assert sum(pair["labels"] for pair in pairs) == pytest.approx(float(found.suspicion[changed].sum()), abs=1)
    assert all(pair["true"] != pair["given"] for pair in pairs)


def test_a_table_with_names_and_gaps(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(90) % 3
    x = 4 * torch.eye(3)[truth] + torch.randn(90, 3, generator=generator)
    names = ["ant", "bee", "cow"]
    given = [names[int(label)] for label in truth]
    given[0], given[1], given[2] = "cow", "ant", ""
    lines = [f"{a:.3f},{b:.3f},{c:.3f},{name}" for (a, b, c), name in zip(x.tolist(), given, strict=True)]
    (tmp_path / "rows.csv").write_text("a,b,c,label\n" + "\n".join(lines) + "\n")
    told = json.loads(inside("audit", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out"), "--json", *QUICK))
    assert told["classes"] == names
    assert told["rows"] == 89  # one has no label
    assert {line["row"] for line in told["suspicious"][:2]} == {0, 1}
    assert any("have no label" in note for note in told["about"]["notes"])


def test_ready_made_files(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(120) % 3
    given = truth.clone()
    given[:12] = (given[:12] + 1) % 3
    probs = (4 * torch.eye(3)[truth] + torch.randn(120, 3, generator=generator)).softmax(1)
    np.save(tmp_path / "labels.npy", given.numpy())
    np.save(tmp_path / "truth.npy", truth.numpy())
    np.savez(tmp_path / "probs.npz", probs=probs.numpy())
    votes = torch.stack([truth, given, truth], 1)
    votes[5:60, 0] = -1
    np.save(tmp_path / "votes.npy", votes.numpy())
    labels, out = str(tmp_path / "labels.npy"), str(tmp_path / "out")
    words = ("audit", "--labels", labels, "--probs", str(tmp_path / "probs.npz"))
    told = json.loads(inside(*words, "--truth", str(tmp_path / "truth.npy"), "--out", out, "--json"))
    assert told["about"]["truth"]["auroc"] > 0.95
    assert told["about"]["files"]["labels"] == labels
    named = json.loads(inside(*words, "--classes", "x, y, z", "--out", out, "--fresh", "--json"))
    assert named["classes"] == ["x", "y", "z"]
    np.save(tmp_path / "short.npy", truth[:100].numpy())
    with pytest.raises(UnswayedError, match=r"a true label for each of 120 labels, but got 100 in .*short\.npy"):
        inside(*words, "--truth", str(tmp_path / "short.npy"), "--out", str(tmp_path / "short"))
    more = ("--annotators", str(tmp_path / "votes.npy"), "--out", str(tmp_path / "more"), "--json")
    assert "annotators" in json.loads(inside(*words, *more))["about"]["evidence"]


def test_next(folder: Path, tmp_path: Path) -> None:
    lines = json.loads(inside("next", str(folder), "-n", "15", "--json", "--out", str(tmp_path / "next.csv")))
    assert len(lines) == len({line["row"] for line in lines}) == 15
    found = Audit.load(folder)
    words = ("next", str(folder), "-n", "15", "--by", "suspicion", "--json", "--out", str(tmp_path / "by.json"))
    ordered = json.loads(inside(*words))
    assert [line["row"] for line in ordered] == found.rows[found.order()[:15]].tolist()


def test_next_leaves_out_what_is_settled(folder: Path, tmp_path: Path) -> None:
    from unswayed.review.case import DECISIONS, open_case

    copy = Audit.load(folder).save(tmp_path / "copy")
    case = open_case(copy)
    first = int(case.audit.order()[0])
    case.decisions.decide(first, "keep", None, "me")
    case.close()
    assert (copy / DECISIONS).exists()
    lines = json.loads(inside("next", str(copy), "-n", "1000", "--json"))
    assert int(case.audit.rows[first]) not in {line["row"] for line in lines}
    assert len(lines) == 177


def test_train_with_auto(tmp_path: Path) -> None:
    words = ("--noise", "symmetric", "--rate", ".3", "--epochs", "2", "--out", str(tmp_path / "run"))
    shown = inside("train", "digits", "--limit", "600", "--method", "auto", *words)
    result = json.loads((tmp_path / "run" / "auto" / "seed-0" / "result.json").read_text())
    assert f"auto chose {result['advice']['arm']}." in " ".join(shown.split())
    assert (tmp_path / "run" / "report.html").exists()
    assert result["config"]["arm"] == "auto"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "data to audit"),
        (("nowhere",), "not there"),
        (("wine", "--labels", "y.npy"), "either DATA or --labels"),
        (("wine", "--probs", "p.npy"), "--labels FILE with --probs"),
        (("--labels", "y.npy"), "labels alone"),
        (("--labels", "y.npy", "--probs", "p.npy"), "not there"),
        (("--labels", ".", "--probs", "p.npy"), "got the folder"),
        (("wine", "--out", "taken.txt"), "a folder to write to, but got the file taken.txt"),
        (("wine", "--kind", "video"), "--kind is"),
        (("wine", "--method", "elrr"), "did you mean"),
        (("wine", "--method", "elr mlp", "--net", "cnn-small"), "one network"),
        (("wine", "--folds", "200"), "200 rows or more"),
        (("wine", "--noise", "symmetric"), "a --rate"),
    ],
)
def test_what_a_user_can_mend(words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.txt").write_text("a letter")
    with pytest.raises(UnswayedError, match=said):
        inside("audit", *words)


def test_another_configuration(folder: Path) -> None:
    with pytest.raises(UnswayedError, match=r"rate: 0.2 there, 0.3 now; choose another --out, or --fresh"):
        inside("audit", "wine", "--noise", "symmetric", "--rate", ".3", "--out", str(folder), *QUICK)
