"""What a run shows beside its scores: error budgets and reliability, by hand."""

from __future__ import annotations

import torch

from unswayed.experiment.evidence import calibration, error_budget, of_known, score_evidence


def test_a_budget_is_the_share_found_at_each_share_checked() -> None:
    wrong = torch.zeros(100, dtype=torch.bool)
    wrong[:20] = True
    best = error_budget(torch.arange(100, 0, -1.0), wrong)
    worst = error_budget(torch.arange(100.0), wrong)
    level = error_budget(torch.full((100,), 3.0), wrong)
    assert best is not None
    assert worst is not None
    assert level is not None
    assert dict(zip(best["checked"], best["found"], strict=True)) == {
        share: min(1.0, round(share / 20, 4)) for share in best["checked"]
    }
    found = dict(zip(worst["checked"], worst["found"], strict=True))
    assert (found[80], found[90], found[100]) == (0.0, 0.5, 1.0), "the wrong labels are the least suspicious ones"
    assert level["found"] == [share / 100 for share in level["checked"]], "equals are taken in no order"


def test_a_budget_needs_both_kinds() -> None:
    assert error_budget(torch.ones(3), torch.zeros(3, dtype=torch.bool)) is None
    assert error_budget(torch.ones(3), torch.ones(3, dtype=torch.bool)) is None


def test_what_is_no_share_has_no_calibration() -> None:
    so = torch.tensor([True, False])
    assert calibration(torch.tensor([0.2, 1.5]), so) is None
    assert calibration(torch.tensor([0.2, float("nan")]), so) is None
    found = calibration(torch.tensor([1.0, 0.0]), so)
    assert found == {"bins": [[0, 0.0, 0.0, 1], [9, 1.0, 1.0, 1]], "error": 0.0}


def test_rows_of_unknown_truth_take_no_part() -> None:
    given, truth = torch.tensor([0, 1, 1]), torch.tensor([0, -1, 0])
    suspicion, wrong = of_known(torch.tensor([0.1, 0.9, 0.8]), given, truth)
    assert wrong is not None
    assert suspicion.equal(torch.tensor([0.1, 0.8]))
    assert wrong.tolist() == [False, True]
    assert of_known(suspicion, given, None)[1] is None
    assert of_known(suspicion, given, torch.full((3,), -1))[1] is None
    nothing = score_evidence(suspicion, None)
    assert nothing == {"reliability": {"labels": None, "test": None}, "error_budget": None}
