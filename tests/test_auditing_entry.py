"""Labels, probabilities and features of every form: read, or refused with a reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import unswayed
from unswayed.auditing.entry import Probs, check_features, check_rows, number_labels
from unswayed.errors import UnswayedError


@pytest.mark.parametrize(
    ("labels", "settings", "places", "classes"),
    [
        (["b", "a", "b"], {}, [1, 0, 1], ("a", "b")),
        (["b", None, "", "a", float("nan")], {}, [1, -1, -1, 0, -1], ("a", "b")),
        (np.array([1, 2, 3, 1]), {"columns": 3}, [0, 1, 2, 0], ("1", "2", "3")),
        (np.array([0, 5, 9]), {"columns": 3}, [0, 1, 2], ("0", "5", "9")),
        (np.array([0, 5, 9]), {}, [0, 1, 2], ("0", "5", "9")),
        (torch.tensor([0, -1, 1]), {"columns": 3}, [0, -1, 1], ("0", "1", "2")),
        (torch.tensor([3, -1, 7]), {}, [0, -1, 1], ("3", "7")),
        (np.array([0.0, np.nan, 1.0]), {"columns": 2}, [0, -1, 1], ("0", "1")),
        ([1, 0, 1], {"classes": ("cat", "dog")}, [1, 0, 1], ("cat", "dog")),
        (["dog", "cat"], {"classes": ("cat", "dog")}, [1, 0], ("cat", "dog")),
        (np.array([[0], [1]]), {"columns": 2}, [0, 1], ("0", "1")),
        ([True, False], {}, [1, 0], ("False", "True")),
    ],
)
def test_labels_of_any_form(labels: Any, settings: dict[str, Any], places: list[int], classes: tuple[str, ...]) -> None:
    found = number_labels(labels, **settings)
    assert found.labels.tolist() == places
    assert found.classes == classes


def test_labels_in_columns_of_data_frames() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for made in (pandas.Series, polars.Series):
        assert number_labels(made(["x", None, "y"])).labels.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        (["a", "a"], {}, "two classes"),
        ([None, None], {}, "every label is missing"),
        ([0, 0, 0], {"columns": 3}, "only '0'"),
        (["a", "b"], {"columns": 3}, "classes=\\["),
        ([1, 2, 4], {"columns": 4}, None),  # places 1, 2 ... but no column 4
        (["a", "c"], {"classes": ("a", "b")}, "'c'"),
        (["a", "b"], {"classes": ("a", "a")}, "different names"),
        (["a", "b"], {"classes": ("a", "b"), "columns": 3}, "column of probabilities"),
        (np.zeros((3, 2)), {}, "argmax.*annotators="),
        (["a", "b", "c"], {"columns": 2}, "a column of probabilities for every class"),
        ([], {}, "labels \\[N\\]"),
        ([0.0, math.inf], {}, "infinite"),
    ],
)
def test_labels_that_cannot_be_audited(labels: Any, settings: dict[str, Any], words: str | None) -> None:
    with pytest.raises(UnswayedError, match=words):
        number_labels(labels, **settings)


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], "1 row that does not"),
        ([[0.5, math.nan], [0.5, 0.5]], "NaN or infinity in 1 row"),
        ([[1.5, -0.5], [0.5, 0.5]], "negative"),
        ([[1.0], [1.0]], "one column"),
        ([[0.5, 0.5]], "each of 2 labels, but got 1"),
        ([["a", "b"], ["c", "d"]], "numbers in probs"),
    ],
)
def test_probabilities_that_are_none(probs: Any, words: str) -> None:
    with pytest.raises(UnswayedError, match=words):
        Probs(probs, 2)


def test_probabilities_are_scaled_to_one_exactly() -> None:
    assert torch.allclose(Probs([[0.5, 0.495]], 1).at(slice(1)).sum(1), torch.ones(1), atol=1e-7)


def test_probabilities_of_another_number_of_classes() -> None:
    with pytest.raises(UnswayedError, match=r"2 columns|of 2 classes"):
        unswayed.audit(["a", "b", "c"], probs=np.full((3, 2), 0.5))
    with pytest.raises(UnswayedError, match="column of probabilities"):
        unswayed.audit([0, 1, 1], classes=["a", "b"], probs=np.full((3, 3), 1 / 3))


def test_features_are_flattened_and_finite() -> None:
    assert check_features(np.zeros((3, 2, 2)), 3).shape == (3, 4)
    with pytest.raises(UnswayedError, match="1 row"):
        check_features([[0.0, math.inf], [0.0, 1.0]], 2)


def test_row_numbers_occur_once() -> None:
    assert check_rows(None, 2).tolist() == [0, 1]
    assert check_rows([7, 3], 2).tolist() == [7, 3]
    with pytest.raises(UnswayedError, match=r"more than once, e\.g\. 7"):
        check_rows([7, 7], 2)
    with pytest.raises(UnswayedError, match="whole number"):
        check_rows([0.5, 1.0], 2)
    with pytest.raises(UnswayedError, match="mean the same"):
        unswayed.audit([0, 1], probs=[[0.5, 0.5]] * 2, rows=[0, 1], ids=[0, 1])


def test_labels_alone_are_no_evidence() -> None:
    with pytest.raises(UnswayedError, match="labels alone"):
        unswayed.audit([0, 1, 1])
