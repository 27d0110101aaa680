"""Scores from features: cases by hand, the naive way, the index against exact neighbours, files, and bad input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unswayed import UnswayedError
from unswayed.auditing import features as module
from unswayed.auditing.features import (
    find_neighbours,
    knn_disagreement,
    prototype_cosine,
    simifeat,
    simifeat_issues,
)
from unswayed.checks.methods import auroc
from unswayed.stats.neighbours import Neighbours, prototype_agreement

SCORES = {"knn": knn_disagreement, "simifeat": simifeat, "prototype": prototype_cosine}


def clusters(rows: int, classes: int = 5, width: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features around class centres, labels of which a fifth is wrong, and which these are."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes, (rows,), generator=generator)
    centres = 1.5 * torch.randn(classes, width, generator=generator)
    x = centres[truth] + torch.randn(rows, width, generator=generator)
    wrong = torch.rand(rows, generator=generator) < 0.2
    shift = torch.randint(1, classes, (rows,), generator=generator)
    return x, torch.where(wrong, (truth + shift) % classes, truth), wrong


NEAR = Neighbours(
    torch.tensor([[0.9, 0.6, -0.5], [0.8, 0.4, 0.4], [0.5, 0.25, 0.25], [0.0, 0.0, -1.0]]),
    torch.tensor([[1, 2, 3], [0, 2, 3], [3, 0, 1], [2, 1, 0]]),
)
LABELS = torch.tensor([0, 0, 1, 2])


def test_disagreement_by_hand() -> None:
    torch.testing.assert_close(knn_disagreement(LABELS, NEAR), torch.tensor([2 / 3, 2 / 3, 1.0, 1.0]))
    torch.testing.assert_close(knn_disagreement(LABELS, NEAR, k=1), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    weighted = knn_disagreement(LABELS, NEAR, weight="similarity")
    torch.testing.assert_close(weighted, torch.tensor([0.6 / 1.5, 0.8 / 1.6, 1.0, 0.5]))


def test_simifeat_by_hand() -> None:
    """Votes: (.6, .4, 0), (.5, .25, .25), (.5, 0, .5), and none, which is a third each."""
    third = 1 - 3**-0.5
    rank = torch.tensor([1 - 0.6 / 0.52**0.5, 1 - 0.5 / 0.375**0.5, 1.0, third])
    torch.testing.assert_close(simifeat(LABELS, NEAR), rank)
    vote = torch.tensor([0.4, 0.375, 0.75, 0.5])
    torch.testing.assert_close(simifeat(LABELS, NEAR, how="vote"), vote)
    assert simifeat_issues(LABELS, NEAR, how="vote").tolist() == [False, False, True, False]


def test_simifeat_names_as_many_rows_of_a_class_as_are_thought_wrong() -> None:
    x, y, wrong = clusters(1500)
    found = simifeat_issues(y, x)
    assert abs(int(found.sum()) - int(wrong.sum())) < 0.15 * int(wrong.sum())
    assert float(wrong[found].float().mean()) > 0.9
    score = simifeat(y, x)
    for label in range(5):
        named, left = score[found & (y == label)], score[~found & (y == label)]
        assert named.min() >= left.max()


def test_prototype_cosine_by_hand() -> None:
    """Rows of a class at 0 and 90 degrees, one at 0 alone in another: own cosines 0, 0, 0."""
    x = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    y = torch.tensor([0, 0, 1])
    anchors = torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]).mean(0)
    base = torch.tensor([2 / 3, 1 / 3]) @ anchors
    torch.testing.assert_close(prototype_cosine(y, x), (0.5 + base / 2).expand(3))


def test_prototypes_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = clusters(300)
    whole = prototype_agreement(x, y, 5)
    from unswayed.stats import neighbours

    parts = neighbours.unit_chunks
    monkeypatch.setattr(neighbours, "unit_chunks", lambda features: parts(features, entries=100))
    torch.testing.assert_close(prototype_agreement(x, y, 5), whole)


@pytest.mark.parametrize("name", SCORES)
def test_wrong_labels_stand_out(name: str) -> None:
    x, y, wrong = clusters(800)
    assert auroc(SCORES[name](y, x), wrong) > 0.97
    assert auroc(simifeat(y, x, how="vote"), wrong) > 0.97
    assert auroc(knn_disagreement(y, x, weight="similarity"), wrong) > 0.97


@pytest.mark.parametrize("name", SCORES)
def test_any_array_gives_the_same(name: str, tmp_path: Path) -> None:
    x, y, _ = clusters(200)
    expected = SCORES[name](y, x)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for labels, rows in ((y.numpy(), x.numpy()), (y.tolist(), mapped), (y.int(), x.double())):
        torch.testing.assert_close(SCORES[name](labels, rows), expected)
    assert expected.dtype == torch.float32
    assert float(expected.min()) >= 0
    assert float(expected.max()) <= 1


def test_neighbours_found_once_serve_all() -> None:
    x, y, _ = clusters(300)
    near = find_neighbours(x, 25)
    assert torch.equal(knn_disagreement(y, near), knn_disagreement(y, x))
    assert torch.equal(simifeat(y, near), simifeat(y, x))
    assert torch.equal(simifeat_issues(y, near), simifeat_issues(y, x))


def test_the_index_finds_nearly_the_same_neighbours(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    x, _, _ = clusters(6000)
    exact, found = find_neighbours(x, 10, index="exact"), find_neighbours(x, 10, index="approximate")
    here = torch.arange(len(x))[:, None]
    assert not bool((found.rows == here).any())
    assert bool((found.rows >= 0).all())
    assert bool((found.rows.sort(1).values.diff(dim=1) > 0).all()), "no row twice"
    assert bool((found.similarity.diff(dim=1) <= 1e-6).all())
    same = (found.rows[:, :, None] == exact.rows[:, None, :]).any(2).float().mean()
    assert float(same) > 0.9
    unit = torch.nn.functional.normalize(x, dim=1)
    torch.testing.assert_close(found.similarity, (unit[:, None] * unit[found.rows]).sum(2), atol=1e-5, rtol=0)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert torch.equal(find_neighbours(mapped, 10, index="approximate").rows, found.rows)


def test_every_cell_gives_exact_neighbours() -> None:
    pytest.importorskip("faiss")
    x, _, _ = clusters(500)
    found = find_neighbours(x, 7, index="approximate", probes=10**6)
    torch.testing.assert_close(found.similarity, find_neighbours(x, 7).similarity, atol=1e-5, rtol=0)


def test_the_index_with_doubles_and_few_rows() -> None:
    pytest.importorskip("faiss")
    same = find_neighbours(torch.ones(60, 3), 4, index="approximate").rows
    assert not bool((same == torch.arange(60)[:, None]).any())
    few = find_neighbours(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), 60, index="approximate")
    assert few.rows.sort(1).values.tolist() == [[j for j in range(50) if j != i] for i in range(50)]


def test_rows_in_small_cells_search_further() -> None:
    pytest.importorskip("faiss")
    x, _, _ = clusters(2000)
    found = find_neighbours(x, 200, index="approximate", probes=1)
    assert bool((found.rows >= 0).all())
    assert found.rows.shape == (2000, 200)


def test_auto_asks_for_faiss_where_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, _ = clusters(100)
    monkeypatch.setattr(module, "MOST_EXACT", 50)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UnswayedError, match="pip install 'unswayed\\[index\\]'"):
        find_neighbours(x, 3)
    assert find_neighbours(x, 3, index="exact").rows.shape == (100, 3)


X = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("labels", "rows", "message"),
    [
        ([0, 1, 0], X, "labels are integers of shape \\[4\\]"),
        ([0.0, 1.0, 0.0, 1.0], X, "labels are integers"),
        (["a", "b", "a", "b"], X, "return_inverse"),
        ([0, -1, 0, 1], X, "-1 in 1 rows; leave rows without a label out"),
        ([0, 10**9, 0, 1], X, "labels are in 0..3, but got 0..1000000000; number the classes"),
        ([0, 1, 0, 1], X * np.nan, "NaN or infinity in row 0"),
        ([0, 1, 0, 1], torch.eye(4) / torch.tensor([[1.0], [1.0], [0.0], [1.0]]), "NaN or infinity in row 2"),
        ([0, 1, 0, 1], X.astype(int), "floating point"),
        ([0, 1, 0, 1], X[0], "\\[N, d\\]"),
        ([0], X[:1], "two rows or more"),
    ],
)
def test_bad_input(labels: Any, rows: Any, message: str) -> None:
    for score in SCORES.values():
        with pytest.raises(UnswayedError, match=message):
            score(labels, rows)


def test_bad_settings() -> None:
    for call, message in (
        (lambda: find_neighbours(X, 2, index="hnsw"), "index is one of auto, exact, approximate"),  # type: ignore[arg-type]
        (lambda: find_neighbours(X, 0), "one neighbour and one probe"),
        (lambda: knn_disagreement([0, 1, 0, 1], X, weight="rank"), "weight is one of"),  # type: ignore[arg-type]
        (lambda: simifeat([0, 1, 0, 1], X, how="both"), "how is"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UnswayedError, match=message):
            call()
