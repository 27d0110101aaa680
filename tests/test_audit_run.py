"""Audits of data: evidence from folds, audits that were stopped, truth that reaches nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unswayed import Config, UnswayedError, data
from unswayed.auditing import Audit
from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset, Split
from unswayed.experiment import audit as room
from unswayed.experiment.audit import audit_data, audit_files
from unswayed.experiment.features import frozen
from unswayed.experiment.folds import deal_folds, make_evidence
from unswayed.experiment.task import prepare

QUICK = {"arm": "plain identity", "epochs": 3}


def blobs(rows: int = 120, classes: int = 3, wrong: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Well separated clouds: features, given labels, true labels."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(rows) % classes
    x = 4 * torch.eye(classes, 6)[truth] + torch.randn(rows, 6, generator=generator)
    moved = torch.rand(rows, generator=generator) < wrong
    return x, torch.where(moved, (truth + 1) % classes, truth), truth


def dataset_of(x: Tensor, given: Tensor, truth: Tensor | None = None, classes: int = 3) -> Dataset:
    train = Split(TensorColumn(x), given, truth, torch.arange(len(given)))
    return Dataset("blobs", "table", tuple("abcdefghij"[:classes]), train, None)


def save(file: Path, x: Tensor, given: Any, truth: Tensor | None = None) -> str:
    columns = {"x": x.numpy(), "y": np.asarray(given)} | ({} if truth is None else {"truth": truth.numpy()})
    np.savez(file, **columns)
    return str(file)


def plan(file: str, **changes: Any) -> Config:
    return Config(file, **{**QUICK, "reader": {"test": False}, **changes})


# ------------------------------------------------------------------------------------------------- folds


def test_folds_share_every_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 23 + [2] * 7)
    fold = deal_folds(labels, 5, seed=3)
    for label in range(3):
        counts = torch.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert torch.bincount(fold).tolist() == [16] * 5
    assert torch.equal(fold, deal_folds(labels, 5, seed=3))
    assert not torch.equal(fold, deal_folds(labels, 5, seed=4))


def test_folds_of_few_rows() -> None:
    fold = deal_folds(torch.tensor([0] * 8 + [1, 1, 2]), 5)
    assert fold[8] != fold[9]  # so that one of the two is always learned
    with pytest.raises(UnswayedError, match=r"5 rows or more for 5 folds, but got 4; give more rows, or --folds 4"):
        deal_folds(torch.tensor([0, 1, 0, 1]), 5)
    with pytest.raises(UnswayedError, match="2 folds or more"):
        deal_folds(torch.tensor([0, 1]), 1)


def test_no_row_is_judged_by_its_own_label() -> None:
    """The nearest neighbour of a row that a model knows is the row itself: only held-out rows are judged by chance."""
    generator = torch.Generator().manual_seed(0)
    x, given = torch.randn(300, 5, generator=generator), torch.randint(0, 3, (300,), generator=generator)
    found = make_evidence(dataset_of(x, given), Config("blobs", arm="knn(k=1)"), folds=3)
    right = (found.probs.argmax(1) == given).float().mean()
    assert 0.2 < right < 0.47
    assert torch.allclose(found.probs.sum(1), torch.ones(300))


def test_evidence_of_every_row() -> None:
    x, given, truth = blobs()
    found = make_evidence(dataset_of(x, given), Config("blobs", **{**QUICK, "epochs": 8, "lr": 0.2}), folds=4)
    assert (found.probs.argmax(1) == truth).float().mean() > 0.9
    assert found.curves.shape == (120, 8)
    assert found.dynamics.seen.tolist() == [8 * 3] * 120  # 3 of 4 models learn a row
    wrong = given != truth
    assert found.curves[~wrong].float().mean() > found.curves[wrong].float().mean() + 0.3
    assert found.dynamics.wrong[wrong].float().mean() > 2 * found.dynamics.wrong[~wrong].float().mean()


def test_a_class_of_one_row_is_neither_trusted_nor_ruled_out() -> None:
    x, given, _ = blobs(61)
    given[60] = 3
    found = make_evidence(dataset_of(x, given, classes=4), Config("blobs", **QUICK), folds=5)
    assert float(found.probs[60, 3]) == pytest.approx(0.25)
    assert float(found.probs[60].sum()) == pytest.approx(1)


def test_folds_side_by_side_are_the_same() -> None:
    x, given, _ = blobs(60)
    one, two = (make_evidence(dataset_of(x, given), Config("blobs", **QUICK), folds=2, jobs=jobs) for jobs in (1, 2))
    assert torch.equal(one.probs, two.probs)
    assert torch.equal(one.curves, two.curves)


def test_finished_folds_are_not_trained_again(tmp_path: Path) -> None:
    x, given, _ = blobs(60)
    told: list[tuple[int, int]] = []
    whole = make_evidence(dataset_of(x, given), Config("blobs", **QUICK), folds=3)
    make_evidence(dataset_of(x, given), Config("blobs", **QUICK), tmp_path, folds=3)
    (tmp_path / "fold-1.safetensors").unlink()
    before = (tmp_path / "fold-0.safetensors").stat().st_mtime_ns
    again = make_evidence(
        dataset_of(x, given),
        Config("blobs", **QUICK),
        tmp_path,
        folds=3,
        progress=lambda what, done, total: told.append((done, total)),
    )
    assert told[0] == (6, 9)
    assert told[-1] == (9, 9)
    assert (tmp_path / "fold-0.safetensors").stat().st_mtime_ns == before
    assert torch.equal(again.probs, whole.probs)


# ---------------------------------------------------------------------------------------------- features


def test_features_of_every_kind() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 9, 9), generator=generator, dtype=torch.uint8)
    given = torch.arange(40) % 2
    pictures = data.from_arrays(pixels, given)
    tiny = data.from_arrays(pixels[:, :, :5, :5], given)
    texts = data.from_arrays([f"word{i % 7} and word{i % 3}" for i in range(40)], given, kind="text")
    table = data.from_arrays({"a": torch.arange(40.0) * 1000, "b": torch.arange(40.0) % 5}, given)
    for dataset in (pictures, tiny, texts, table):
        found = frozen(dataset, Config("x"))
        rows = found.train.x.rows(torch.arange(40))
        assert found.kind == "table"
        assert rows.dim() == 2
        assert rows.mean(0).abs().max() < 1e-4
        assert rows.std(0).max() < 1.001
    assert frozen(tiny, Config("x")).train.x.shape == (25,)


# ------------------------------------------------------------------------------------------------ audits


def test_an_audit_finds_the_wrong_labels(tmp_path: Path) -> None:
    x, given, truth = blobs(300)
    config = plan(save(tmp_path / "d.npz", x, given, truth), epochs=10, reader={"test": False, "truth": "truth"})
    found = audit_data(config, tmp_path / "out")
    assert found.about["truth"]["auroc"] > 0.97
    assert found.about["truth"]["noise_rate"] == pytest.approx(float((given != truth).float().mean()))
    assert found.about["config"] == config.as_json()
    assert found.classes == ("0", "1", "2")
    assert found.curves is not None
    assert found.curves.shape == (300, 10)
    stored = Audit.load(tmp_path / "out")
    assert torch.equal(stored.suspicion, found.suspicion)
    assert not (tmp_path / "out" / "folds").exists()
    again = data.read(config.data, **config.reader)
    assert torch.equal(again.train.rows[stored.rows], stored.rows)
    assert torch.equal(again.train.given[stored.rows], stored.given)


def test_truth_reaches_nothing(tmp_path: Path) -> None:
    x, given, truth = blobs()
    files = []
    for name, known in (("a", truth), ("b", truth[torch.randperm(120)]), ("c", None)):
        config = plan(save(tmp_path / f"{name}.npz", x, given, known))
        audit_data(config, tmp_path / name)
        files.append((tmp_path / name / "audit.safetensors").read_bytes())
    assert files[0] == files[1] == files[2]
    about = [json.loads((tmp_path / name / "audit.json").read_text())["about"]["truth"] for name in "abc"]
    assert about[0]["auroc"] > 0.9 > about[1]["auroc"]
    assert about[2] is None


def test_a_finished_audit_is_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, given, _ = blobs()
    config = plan(save(tmp_path / "d.npz", x, given))
    found = audit_data(config, tmp_path / "out")
    monkeypatch.setattr(room, "make_evidence", None)
    again = audit_data(config, tmp_path / "out")
    assert torch.equal(again.suspicion, found.suspicion)


def test_another_configuration_or_other_data_in_the_folder(tmp_path: Path) -> None:
    x, given, _ = blobs()
    config, out = plan(save(tmp_path / "d.npz", x, given)), tmp_path / "out"
    audit_data(config, out)
    with pytest.raises(UnswayedError, match="epochs: 3 there, 4 now; choose another --out, or --fresh"):
        audit_data(replace(config, epochs=4), out)
    with pytest.raises(UnswayedError, match="folds: 5 there, 3 now"):
        audit_data(config, out, folds=3)
    given[0] = (given[0] + 1) % 3
    save(tmp_path / "d.npz", x, given)
    with pytest.raises(UnswayedError, match=r"changed rows or labels; choose another --out, or --fresh"):
        audit_data(config, out)
    (out / "decisions.sqlite").write_text("a person's work")
    assert int(audit_data(config, out, fresh=True).given[0]) == int(given[0])
    assert (out / "decisions.sqlite").exists()


def test_a_killed_audit_goes_on(tmp_path: Path) -> None:
    x, given, _ = blobs(200)
    config = plan(save(tmp_path / "d.npz", x, given), epochs=5)
    script = (
        "import sys, time, json, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from unswayed import Config\n"
        "from unswayed.experiment import audit as room\n"
        "def slow(what, done, total):\n"
        "    if what.startswith('training') and done > 10: time.sleep(60)\n"
        "room.audit_data(Config(**json.loads(sys.argv[1])), Path(sys.argv[2]), jobs=1, progress=slow)\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", script, json.dumps(config.as_json()), str(out)])
    second = out / "folds" / "fold-1.safetensors"
    for _ in range(1200):
        if second.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert second.exists()
    assert not (out / "audit.json").exists()
    kept = second.stat().st_mtime_ns
    with pytest.raises(UnswayedError, match="seed: 0 there, 1 now"):
        audit_data(replace(config, seed=1), out)
    started: list[int] = []
    found = audit_data(config, out, jobs=1, progress=lambda what, done, total: started.append(done))
    assert min(done for done in started if done) >= 10
    assert not second.exists() or second.stat().st_mtime_ns == kept
    whole = audit_data(config, tmp_path / "whole", jobs=1)
    assert (out / "audit.safetensors").read_bytes() == (tmp_path / "whole" / "audit.safetensors").read_bytes()
    assert torch.equal(found.suspicion, whole.suspicion)


def test_labels_of_any_form(tmp_path: Path) -> None:
    x, given, _ = blobs()
    plain = audit_data(plan(save(tmp_path / "a.npz", x, given)), tmp_path / "a")
    for name, values, classes in (
        ("words", np.array(["ant", "bee", "cow"])[given], ("ant", "bee", "cow")),
        ("gaps", np.array([3, 7, 11])[given], ("3", "7", "11")),
        ("from one", given.numpy() + 1, ("1", "2", "3")),
    ):
        found = audit_data(plan(save(tmp_path / f"{name}.npz", x, values)), tmp_path / name)
        assert found.classes == classes
        assert torch.allclose(found.suspicion, plain.suspicion, atol=1e-6)


def test_few_rows_and_limits(tmp_path: Path) -> None:
    x, given, _ = blobs(60)
    given[:2] = 5
    found = audit_data(plan(save(tmp_path / "d.npz", x, given)), tmp_path / "out")
    assert any("fewer rows than folds are labelled '5'" in note for note in found.about["notes"])
    limited = audit_data(plan(str(tmp_path / "d.npz"), limit=30), tmp_path / "limited")
    assert len(limited) == 30
    assert torch.equal(given[limited.rows], torch.tensor([int(limited.classes[i]) for i in limited.given]))
    save(tmp_path / "e.npz", x[:4], torch.tensor([0, 1, 0, 1]))
    with pytest.raises(UnswayedError, match="5 rows or more for 5 folds"):
        audit_data(plan(str(tmp_path / "e.npz")), tmp_path / "e")


def test_several_annotators(tmp_path: Path) -> None:
    x, given, truth = blobs(150)
    np.savez(tmp_path / "d.npz", x=x.numpy(), y=given.numpy(), second=truth.numpy(), third=truth.numpy())
    config = plan(str(tmp_path / "d.npz"), reader={"test": False, "label": "y", "extra": ["second", "third"]})
    found = audit_data(config, tmp_path / "out")
    suspected = set(found.order()[: int((given != truth).sum())].tolist())
    assert len(suspected & set((given != truth).nonzero()[:, 0].tolist())) > 0.9 * len(suspected)


def test_planted_noise_and_a_network_on_the_rows(tmp_path: Path) -> None:
    found = audit_data(
        Config("digits", "elr identity", reader={"test": False}, limit=400, noise="symmetric", rate=0.2, epochs=8),
        tmp_path / "digits",
        folds=3,
    )
    assert found.about["truth"]["noise_rate"] == pytest.approx(0.2, abs=0.01)
    assert found.about["truth"]["auroc"] > 0.95
    config = Config("digits", "plain mlp(widths=16)", reader={"test": False}, limit=200, epochs=2)
    assert len(audit_data(config, tmp_path / "net", folds=2)) == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "nowhere.csv"}, "not there"),
        ({"arm": "plainn"}, "did you mean plain"),
        ({"reader": {"label": "z", "test": False}}, "label column"),
    ],
)
def test_what_a_user_can_mend(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    x, given, _ = blobs(30)
    config = replace(plan(save(tmp_path / "d.npz", x, given)), **change)
    with pytest.raises(UnswayedError, match=said):
        audit_data(config, tmp_path / "out")
    assert not (tmp_path / "out" / "plan.json").exists()


def test_one_class_and_numbers_that_are_none(tmp_path: Path) -> None:
    x, given, _ = blobs(30)
    with pytest.raises(UnswayedError, match="at least two classes"):
        audit_data(plan(save(tmp_path / "one.npz", x, given * 0)), tmp_path / "one")
    x[3, 2] = torch.nan
    with pytest.raises(UnswayedError, match=r"(?i)missing|NaN"):
        audit_data(plan(save(tmp_path / "nan.npz", x, given)), tmp_path / "nan")


# -------------------------------------------------------------------------------------------- ready-made


def ready(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    x, given, truth = blobs(200)
    probs = (3 * torch.eye(3)[truth] + torch.randn(200, 3, generator=torch.Generator().manual_seed(1))).softmax(1)
    np.save(folder / "labels.npy", given.numpy())
    np.save(folder / "probs.npy", probs.numpy())
    np.save(folder / "features.npy", x.numpy())
    np.save(folder / "truth.npy", truth.numpy())
    return given, truth, probs


def test_ready_made_evidence(tmp_path: Path) -> None:
    given, _, _ = ready(tmp_path)
    labels, probs, features = (tmp_path / f"{name}.npy" for name in ("labels", "probs", "features"))
    found = audit_files(labels, tmp_path / "out", probs=probs, features=features, truth=tmp_path / "truth.npy")
    assert found.about["truth"]["auroc"] > 0.9
    assert found.about["config"] is None
    assert found.about["files"] == {"labels": str(labels), "probs": str(probs), "features": str(features)}
    assert torch.equal(found.given, given)
    with pytest.raises(UnswayedError, match=r"one in .*out; choose another --out, or --fresh"):
        audit_files(labels, tmp_path / "out", probs=probs)
    fresh = audit_files(labels, tmp_path / "out", probs=probs, fresh=True)
    assert fresh.about["truth"] is None
    words = np.array(["x", "y", "z"])[given]
    (tmp_path / "labels.csv").write_text("label\n" + "\n".join(words) + "\n")
    named = audit_files(tmp_path / "labels.csv", tmp_path / "csv", probs=probs)
    assert named.classes == ("x", "y", "z")
    assert torch.allclose(named.suspicion, fresh.suspicion, atol=1e-6)


def test_ready_made_evidence_that_does_not_fit(tmp_path: Path) -> None:
    given, _, probs = ready(tmp_path)
    labels, good = tmp_path / "labels.npy", tmp_path / "probs.npy"
    for name, values, said in (
        ("short", probs[:50], "200"),
        ("wide", torch.cat([probs, probs], 1) / 2, "columns"),
        ("sum", probs * 2, "sum to one"),
        ("nan", torch.where(probs > 0.9, torch.nan, probs), "NaN"),
        ("flat", probs[:, 0], r"\[N, d\]"),
    ):
        np.save(tmp_path / f"{name}.npy", values.numpy())
        if name == "wide":  # whole numbers may name any six columns, words name theirs
            np.save(tmp_path / "words.npy", np.array(["x", "y", "z"])[given])
            continue
        with pytest.raises(UnswayedError, match=said):
            audit_files(labels, tmp_path / "out", probs=tmp_path / f"{name}.npy")
    with pytest.raises(UnswayedError, match="columns"):
        audit_files(tmp_path / "words.npy", tmp_path / "out", probs=tmp_path / "wide.npy")
    with pytest.raises(UnswayedError, match="labels alone"):
        audit_files(labels, tmp_path / "out")
    with pytest.raises(UnswayedError, match="not there"):
        audit_files(tmp_path / "no.npy", tmp_path / "out", probs=good)
    np.save(tmp_path / "one.npy", given.numpy() * 0)
    with pytest.raises(UnswayedError, match="two classes"):
        audit_files(tmp_path / "one.npy", tmp_path / "out", probs=good)
    assert not (tmp_path / "out" / "audit.json").exists()


# -------------------------------------------------------------------------------------------------- auto


def test_auto_chooses_by_the_given_labels(tmp_path: Path) -> None:
    from unswayed.experiment.run import run

    x, given, truth = blobs(400, wrong=0.35)
    dataset = dataset_of(x, given, truth)
    config = Config("blobs", arm="auto identity", epochs=2)
    result = run(config, dataset=dataset, folder=tmp_path / "run")
    advice = result.summary["advice"]
    assert advice["arm"].endswith(" identity")
    assert "auto" not in advice["arm"]
    assert advice["why"].endswith(".")
    assert advice["noise_rate"]["low"] < advice["noise_rate"]["value"] < advice["noise_rate"]["high"]
    assert result.summary["config"]["arm"] == "auto identity"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["advice"] == advice
    spoilt = dataset_of(x, given, truth[torch.randperm(400)])
    assert run(config, dataset=spoilt).summary["advice"] == advice
    with pytest.raises(UnswayedError, match="auto, which chooses"):
        Config("blobs", arm="auto gce").training("table")


def test_auto_takes_the_rows_as_they_are_trained() -> None:
    x, given, _ = blobs(50)
    train, planted = prepare(dataset_of(x, given).train, Config("blobs", limit=20), 3)
    assert len(train) == 20
    assert planted is None
