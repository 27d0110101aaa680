"""Several annotators: cases by hand, the model written down plainly, simulated crowds, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unswayed import UnswayedError
from unswayed.auditing import annotators as module
from unswayed.auditing.annotators import consensus_suspicion, dawid_skene, label_suspicion, majority_vote
from unswayed.checks.methods import auroc

TABLE = torch.tensor([[0, 0, 1], [1, 1, -1], [0, 1, -1], [-1, -1, -1], [1, 1, 1]])


def crowd(rows: int, accuracies: list[float], classes: int = 4, seen: float = 0.6, seed: int = 0) -> Any:
    """The truth, and labels of annotators who are right so often, each for a share of the rows."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes, (rows,), generator=generator)
    columns = []
    for accuracy in accuracies:
        right = torch.rand(rows, generator=generator) < accuracy
        other = (truth + torch.randint(1, classes, (rows,), generator=generator)) % classes
        label = torch.where(right, truth, other)
        columns.append(torch.where(torch.rand(rows, generator=generator) < seen, label, -1))
    return truth, torch.stack(columns, 1)


def naive_dawid_skene(table: Tensor, classes: int, rounds: int, smoothing: float) -> Tensor:
    """As the paper has it, entry by entry."""
    n, a = table.shape
    p = majority_vote(table, classes=classes).posterior.clone()
    for _ in range(rounds):
        confusion = torch.zeros(a, classes, classes, dtype=p.dtype)
        for w in range(a):
            for i in range(classes):
                for j in range(classes):
                    confusion[w, i, j] = sum(float(p[r, i]) for r in range(n) if table[r, w] == j)
        together = confusion.sum(0)
        for w in range(a):
            for i in range(classes):
                confusion[w, i] += smoothing * together[i] / together[i].sum()
                confusion[w, i] /= confusion[w, i].sum()
        prior = p.mean(0)
        for r in range(n):
            row = prior.clone()
            for w in range(a):
                if table[r, w] >= 0:
                    row = row * confusion[w, :, table[r, w]].clamp_min(1e-12)
            p[r] = row / row.sum()
    return p


def test_majority_by_hand() -> None:
    """Votes: 3 for class 0, 7 for class 1; the third row is a tie, the fourth has no vote."""
    found = majority_vote(TABLE)
    assert found.label.tolist() == [0, 1, 1, -1, 1]
    expected = torch.tensor([[2 / 3, 1 / 3], [0, 1], [0.5, 0.5], [0.3, 0.7], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(found.posterior, expected)
    torch.testing.assert_close(found.prior, expected.mean(0))
    quality = torch.tensor([(2 / 3 + 1 + 0.5 + 1) / 4, (2 / 3 + 1 + 0.5 + 1) / 4, (1 / 3 + 1) / 2])
    torch.testing.assert_close(found.quality.float(), quality)
    first = torch.tensor([[1.0, 0.0], [(1 / 3 + 0.5) / (1 / 3 + 1 + 0.5 + 1), 2 / (1 / 3 + 1 + 0.5 + 1)]])
    torch.testing.assert_close(found.confusion[0].float(), first)


def test_suspicion_by_hand() -> None:
    found = majority_vote(TABLE)
    torch.testing.assert_close(consensus_suspicion(found), torch.tensor([1 / 3, 0.0, 0.5, 1.0, 0.0]))
    nan = float("nan")
    expected = torch.tensor([[1 / 3, 1 / 3, 2 / 3], [0, 0, nan], [0.5, 0.5, nan], [nan, nan, nan], [0, 0, 0]])
    torch.testing.assert_close(label_suspicion(TABLE, found), expected, equal_nan=True)
    torch.testing.assert_close(label_suspicion(TABLE[:, 0].numpy(), found), expected[:, 0], equal_nan=True)


@pytest.mark.parametrize("smoothing", [0.0, 2.0])
def test_dawid_skene_equals_the_plain_way(smoothing: float) -> None:
    _, table = crowd(30, [0.9, 0.8, 0.6, 0.3], classes=3)
    for rounds in (1, 5):
        found = dawid_skene(table, rounds=rounds, tolerance=0, smoothing=smoothing)
        torch.testing.assert_close(found.posterior, naive_dawid_skene(table, 3, rounds, smoothing))


def test_dawid_skene_by_hand() -> None:
    """Two annotators agree in three of four rows. In the fourth, each by the rates of the first round's shares."""
    table = torch.tensor([[0, 0], [0, 0], [1, 1], [0, 1]])
    found = dawid_skene(table, rounds=1, tolerance=0, smoothing=0)
    prior = torch.tensor([2.5 / 4, 1.5 / 4])
    first = torch.tensor([1.0, 0.5 / 1.5])  # P(says 0 | true) of the first one
    second = torch.tensor([0.5 / 2.5, 1.0])  # P(says 1 | true) of the second
    row = prior * first * second
    torch.testing.assert_close(found.posterior[3].float(), row / row.sum())


def test_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, table = crowd(200, [0.9, 0.7, 0.6])
    whole = dawid_skene(table)
    monkeypatch.setattr(module, "CHUNK", 50)
    torch.testing.assert_close(dawid_skene(table).posterior, whole.posterior)
    torch.testing.assert_close(dawid_skene(table.numpy().astype(np.int8)).posterior, whole.posterior)


def test_a_crowd_with_bad_annotators_is_seen_through() -> None:
    accuracies = [0.9, 0.85, 0.8, 0.3, 0.25, 0.25]
    truth, table = crowd(1500, accuracies, seen=0.9)
    voted, found = majority_vote(table, classes=4), dawid_skene(table, classes=4)
    rates = torch.tensor(accuracies)
    log_odds = torch.where(table >= 0, (rates / (1 - rates) * 3).log(), 0.0)  # what one label says, if all were known
    best = torch.zeros(1500, 4).scatter_add_(1, table.clamp_min(0), log_odds).argmax(1)
    answers = {"vote": voted.label, "ds": found.label, "best": best}
    accuracy = {name: float((label == truth).float().mean()) for name, label in answers.items()}
    assert accuracy["ds"] > accuracy["best"] - 0.02
    assert accuracy["ds"] > accuracy["vote"] + 0.08
    assert (found.quality - torch.tensor(accuracies)).abs().max() < 0.06
    assert auroc(consensus_suspicion(found), found.label != truth) > 0.8
    wrong = table != truth[:, None]
    given = table >= 0
    assert auroc(label_suspicion(table, found)[given], wrong[given]) > 0.97
    confidence = found.posterior.amax(1)
    assert abs(float(confidence.mean()) - accuracy["ds"]) < 0.03, "what it claims holds"


def test_who_always_errs_in_one_way_is_a_witness() -> None:
    truth, table = crowd(800, [0.8, 0.8, 0.8], classes=3, seen=1.0)
    table = torch.cat([table, ((truth + 1) % 3)[:, None]], 1)
    found = dawid_skene(table)
    assert float((found.label == truth).float().mean()) > 0.98
    assert found.quality[3] < 0.05
    turn = torch.eye(3, dtype=torch.float64).roll(1, 1)
    assert (found.confusion[3] - turn).abs().max() < 0.05


def test_who_gave_no_label_has_no_quality() -> None:
    table = torch.cat([TABLE, torch.full((5, 1), -1)], 1)
    for found in (majority_vote(table), dawid_skene(table)):
        assert found.quality.isnan().tolist() == [False, False, False, True]
        torch.testing.assert_close(found.confusion.sum(2), torch.ones(4, 2, dtype=torch.float64))
        assert found.label[3] == -1
        assert consensus_suspicion(found)[3] == 1


def test_a_single_annotator_is_believed() -> None:
    y = torch.tensor([[0], [1], [2], [1]])
    assert dawid_skene(y).label.tolist() == [0, 1, 2, 1]
    assert majority_vote(y, classes=5).posterior.shape == (4, 5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (torch.tensor([0, 1]), "shape \\[N, A\\]"),
        (torch.tensor([[0.0, 1.0]]), "integers of shape"),
        (np.array([["a", "b"]]), "integers of shape"),
        (torch.tensor([[-1, -1]]), "no label at all"),
        (torch.zeros(0, 3, dtype=torch.int64), "no label at all"),
        (torch.tensor([[0, -2]]), "-1 for none, but got -2..0"),
        (torch.tensor([[0, 3]]), "0..2, or -1 for none, but got 0..3"),
    ],
)
def test_bad_input(table: Any, message: str) -> None:
    for call in (majority_vote, dawid_skene):
        with pytest.raises(UnswayedError, match=message):
            call(table, classes=3)


def test_bad_settings() -> None:
    with pytest.raises(UnswayedError, match="one round or more"):
        dawid_skene(TABLE, rounds=0)
    with pytest.raises(UnswayedError, match="labels of 5 rows in 0"):
        label_suspicion(TABLE + 1, majority_vote(TABLE))
