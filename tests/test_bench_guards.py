"""True labels and test rows only score: whatever a bench trains, they change no model, whatever they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_bench_running import noisy_wine

from unswayed.bench import How, Store, entries, make_suite, run_suite, work
from unswayed.data import Dataset

ARMS = {
    "plain": {},
    "tuned": {},
    "early-stopping": {},
    "auto": {},
    "knn": {},
    "elr": {},
    "co-teaching": {},
    "dividemix": {},
    "ido": {},
    "gce edge-masked": {"analyse": True},
}


def models(monkeypatch: pytest.MonkeyPatch, folder: Path, dataset: Dataset) -> dict[str, tuple[str, Any, Any]]:
    """By arm: the model's fingerprint, what it chose for itself, and its accuracy on the test rows."""
    monkeypatch.setattr(work, "read_once", lambda config, root, progress: dataset)
    arms = {arm: {"arm": arm, **own} for arm, own in ARMS.items()}
    tasks = {"human": {"data": "wine", "body": "mlp(widths=8)"}}
    suite = make_suite("guards", {"epochs": 3, "seeds": 1, "batch": 16, "tasks": tasks, "arms": arms})
    store = Store(folder)
    run_suite(suite, store, How(device="cpu"))
    found = {entry.arm: store.result(entry.options[0]) for entry in entries(suite)}
    assert None not in found.values(), {arm: store.failure(e.options[0]) for e in entries(suite) for arm in [e.arm]}
    return {
        arm: (one["model"], one["chosen"] or one["advice"], one["test"]["last"]) for arm, one in found.items() if one
    }


@pytest.mark.slow
def test_no_method_sees_the_truth_or_the_test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = models(monkeypatch, tmp_path / "a", noisy_wine())
    permuted = models(monkeypatch, tmp_path / "b", noisy_wine(truth_seed=3))
    replaced = models(monkeypatch, tmp_path / "c", noisy_wine(test_seed=3))
    for arm, (model, chosen, _) in known.items():
        assert permuted[arm][:2] == (model, chosen), f"{arm} saw the truth"
        assert replaced[arm][:2] == (model, chosen), f"{arm} saw the test rows"
    assert known["auto"][1]["arm"], "what auto settled on is told"
    changed = [arm for arm in ARMS if known[arm][2] != replaced[arm][2]]
    assert len(changed) > len(ARMS) / 2, "the test rows were replaced indeed"
