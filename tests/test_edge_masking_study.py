"""The study of edge masking runs, resumes, and reads its own results."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.edge_masking import study as study_of
from benchmarks.edge_masking import table
from benchmarks.edge_masking.forms import FORMS
from benchmarks.edge_masking.settings import FOLDER, SETTINGS

ROOT = Path(__file__).parents[1]


def study(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "benchmarks.edge_masking.study", "--tiny", "--out", str(folder), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_controls_are_of_the_same_ratio_interval_and_path() -> None:
    masks = [form for form in FORMS.values() if form.control]
    assert len(masks) >= 5
    for form in masks:
        control = FORMS[form.control or ""]
        assert control.rule.get("score") == "random"
        for name, default in (("keep", 0.2), ("every", 10), ("path", "both")):
            assert form.rule.get(name, default) == control.rule.get(name, default), form.name


def test_intervals_are_paired_and_a_proof_needs_both(tmp_path: Path) -> None:
    accuracy = {"none": [0.80, 0.70, 0.75], "std": [0.81, 0.71, 0.761], "random": [0.79, 0.69, 0.74]}
    cells = [
        {"setting": "toy", "loss": "ce", "head": "linear", "form": form, "seed": seed, "accuracy": value}
        for form, values in accuracy.items()
        for seed, value in enumerate(values)
    ]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    found = {effect.form: effect for effect in table.effects(table.read(tmp_path))}
    assert found["std"].over_none.mean == pytest.approx((1.0 + 1.0 + 1.1) / 3)
    assert found["std"].over_none.low > 0
    assert found["std"].proven
    assert not found["random"].proven
    assert "| std | linear | 1 | 1 | 1 |" in table.verdicts(table.read(tmp_path), seeds=3)
    assert table.verdicts(table.read(tmp_path), seeds=5).count("\n") == 1  # too few seeds: no verdict
    for cell in cells:  # a random mask as good as the scored one: no proof
        if cell["form"] == "random":
            cell["accuracy"] = accuracy["std"][int(str(cell["seed"]))]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    assert not any(effect.proven for effect in table.effects(table.read(tmp_path)))


def test_a_body_without_widths_has_no_narrower_form() -> None:
    def forms(setting: str) -> set[str]:
        options = {"settings": [setting], "losses": ["ce"], "forms": ["width*", "std"], "head": "linear"}
        return {form for *_, form, _ in study_of.cells(argparse.Namespace(**options, seeds=1, first=0))}

    assert forms("cifar worst") == {"std", "width .2"}
    assert forms("cifar worst probe") == {"std"}
    for name in ("fashion symm 0.4 probe", "fashion inst 0.4 probe", "cifar worst probe", "news probe"):
        assert SETTINGS[name].body == "identity"


@pytest.mark.slow
def test_a_finished_cell_is_not_run_again(tmp_path: Path) -> None:
    words = ["--settings", "digits", "--losses", "ce", "--seeds", "1"]
    first = study(tmp_path, *words, "--forms", "none", "agreement", "tuned")
    assert len(first.splitlines()) == 3
    assert len(study(tmp_path, *words, "--forms", "none", "agreement", "std").splitlines()) == 1
    lines = [json.loads(line) for line in (tmp_path / "digits.jsonl").read_text().splitlines()]
    assert {line["form"] for line in lines} == {"none", "agreement", "tuned", "std"}
    assert all(0 <= line["accuracy"] <= 1 for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER / "cifar10n").exists(), reason="no shared data")
def test_the_protocol_for_a_gpu_runs(tmp_path: Path) -> None:
    assert sum(name.startswith("anl ") for name in SETTINGS) == 11
    words = ["--settings", "anl worst", "--seeds", "1"]
    study(tmp_path, *words, "--losses", "anl-ce", "--forms", "std")
    study(tmp_path, *words, "--losses", "ce", "--forms", "drawn", "--head", "kan")
    assert len((tmp_path / "anl-worst.jsonl").read_text().splitlines()) == 2
