"""Neighbours and votes against cases worked out by hand and against the naive way."""

from __future__ import annotations

import pytest
import torch

from unswayed import UnswayedError
from unswayed.stats.neighbours import label_vote, nearest, neighbours, prototypes, unit_rows


def test_neighbours_equal_the_naive_way_in_any_parts() -> None:
    x = torch.randn(57, 5, generator=torch.Generator().manual_seed(0))
    unit = x / x.norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    expected = cosine.sort(dim=1, descending=True)
    for entries in (1, 57 * 10, 10**6):
        found = neighbours(x, 7, entries=entries)
        assert torch.equal(found.rows, expected.indices[:, :7])
        torch.testing.assert_close(found.similarity, expected.values[:, :7])


def test_neighbours_of_other_rows_equal_the_naive_way() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, x = torch.randn(11, 4, generator=generator), torch.randn(30, 4, generator=generator)
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], x[None], dim=2)
    for entries in (1, 100, 10**6):
        found = nearest(queries, unit_rows(x), 3, entries=entries)
        assert torch.equal(found.rows, cosine.topk(3).indices)
        torch.testing.assert_close(found.similarity, cosine.topk(3).values)
    assert nearest(x, unit_rows(x), 1).rows[:, 0].tolist() == list(range(30)), "a row may be found among others"
    assert nearest(queries, unit_rows(x), 99).rows.shape == (11, 30)


def test_scale_does_not_matter_and_nobody_is_its_own_neighbour() -> None:
    x = torch.tensor([[1.0, 0.0], [100.0, 1.0], [0.0, 1.0], [0.1, 5.0]])
    assert neighbours(x, 1).rows[:, 0].tolist() == [1, 0, 3, 2]
    same = neighbours(torch.ones(5, 3), 4).rows
    assert not bool((same == torch.arange(5)[:, None]).any())
    assert bool((same.sort(1).values.diff(dim=1) > 0).all())


def test_few_rows_give_all_others() -> None:
    assert neighbours(torch.eye(3), 200).rows.shape == (3, 2)
    with pytest.raises(UnswayedError, match="two rows or more"):
        neighbours(torch.eye(1), 1)
    with pytest.raises(UnswayedError, match="one neighbour or more"):
        neighbours(torch.eye(3), 0)


def test_rows_that_are_no_numbers_stay_apart() -> None:
    x = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan], [0.0, 0.0], [1.0, 0.1]])
    found = neighbours(x, 1)
    assert found.rows[0].item() == 3
    assert found.similarity[1].item() == 0
    assert found.similarity[2].item() == 0


def test_votes_by_hand() -> None:
    y, index = torch.tensor([0, 1, 2, 1]), torch.tensor([[1, 2, 3], [0, 0, 2]])
    expected = torch.tensor([[0, 2 / 3, 1 / 3], [2 / 3, 0, 1 / 3]])
    torch.testing.assert_close(label_vote(y, index, 3), expected)
    soft = torch.nn.functional.one_hot(y, 3).float()
    torch.testing.assert_close(label_vote(soft, index, 3), expected)
    weight = torch.tensor([[0.5, 1.0, 0.5], [0.0, 0.0, 0.0]])
    weighted = torch.tensor([[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(label_vote(y, index, 3, weight), weighted)
    torch.testing.assert_close(label_vote(soft, index, 3, weight), weighted)


def test_prototypes_add_unit_vectors() -> None:
    x, y = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]]), torch.tensor([0, 0, 2])
    sums, counts = prototypes(x, y, 4)
    torch.testing.assert_close(sums, torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert counts.tolist() == [2, 0, 1, 0]
    again, _ = prototypes(x, torch.nn.functional.one_hot(y, 4).float(), 4)
    torch.testing.assert_close(again, sums)
