"""Scores and filters from probabilities: cases by hand, cleanlab where it is installed, files, and bad input."""

from __future__ import annotations

import tracemalloc
import warnings
from itertools import pairwise
from math import log, log1p
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from unswayed import UnswayedError
from unswayed.auditing import confident
from unswayed.auditing.confident import Filter, find_issues, joint_counts, lowest, prune_counts
from unswayed.auditing.probabilities import entropy_weighted, normalised_margin, self_confidence
from unswayed.stats import predictions
from unswayed.stats.confident import calibrated, round_columns
from unswayed.stats.predictions import Groups, Predictions

SCORES = {
    "self_confidence": self_confidence,
    "normalized_margin": normalised_margin,
    "confidence_weighted_entropy": entropy_weighted,
}
FILTERS = get_args(Filter)

PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
LABELS = np.array([0, 0, 0, 1, 1])


def case(rows: int, classes: int, *, noise: float = 0.3, sharp: float = 2.0, seed: int = 0, rare: float = 0.0) -> Any:
    """Labels, of which a share is wrong, and probabilities that know the truth more or less."""
    draw = np.random.default_rng(seed)
    weights = np.exp(-rare * np.arange(classes))
    truth = draw.choice(classes, rows, p=weights / weights.sum())
    logits = draw.standard_normal((rows, classes))
    logits[np.arange(rows), truth] += sharp
    probs = np.exp(logits)
    probs /= probs.sum(1, keepdims=True)
    labels = np.where(draw.random(rows) < noise, draw.integers(0, classes, rows), truth)
    return labels, probs.astype(np.float32)


def naive_prune(labels: np.ndarray, probs: np.ndarray, prune: np.ndarray) -> np.ndarray:
    """Pruning by noise rate as it is written down: every pair of classes, every row sorted."""
    found = np.zeros(len(labels), dtype=bool)
    for k in range(probs.shape[1]):
        rows = np.flatnonzero(labels == k)
        for j in range(probs.shape[1]):
            if j != k and len(rows) > 1 and prune[j, k] > 0:
                margin = probs[rows, j] - probs[rows, k]
                found[rows[np.argsort(-margin, kind="stable")[: prune[j, k]]]] = True
    other = probs.max(1) > probs[np.arange(len(labels)), labels] + 1e-6
    return found & other


# ------------------------------------------------------------------------------------------------ by hand


def test_scores_by_hand() -> None:
    labels, probs = torch.tensor([0, 1, 2]), torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(self_confidence(labels, probs), torch.tensor([0.5, 0.75, 0.0]))
    torch.testing.assert_close(normalised_margin(labels, probs), torch.tensor([0.375, 0.625, 0.0]))
    entropy = (0.5 * log(2) + 0.5 * log(4)) / log(3)
    expected = [1 - log1p(entropy / p) / (entropy / p) for p in (0.5, 0.25)]
    torch.testing.assert_close(entropy_weighted(labels, probs), torch.tensor([*expected, 0.0]))


def test_adjustment_by_hand() -> None:
    """t = .6 and .85, so that .25 is added to class 0 before scaling by 1.25."""
    expected = torch.tensor([1.15, 1.05, 0.35, 0.8, 0.9], dtype=torch.float64) / 1.25
    found = self_confidence(LABELS, PROBS, adjust=True)
    torch.testing.assert_close(found, 1 - expected)
    torch.testing.assert_close(normalised_margin(LABELS, PROBS, adjust=True), 1 - expected)


def test_entropy_at_its_corners() -> None:
    """A sure and right prediction is not suspected, a sure and wrong one is, whatever rounds to 0."""
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1e-7, 1.0], [1e-5, 1 - 1e-5], [1 - 1e-7, 1e-7]])
    found = entropy_weighted(torch.zeros(5, dtype=torch.int64), probs)
    assert found[0] == 0
    assert found[4] < 1e-5
    assert found[1] > 0.8
    assert found[2].item() == pytest.approx(found[1].item(), abs=1e-5)
    assert bool((found[1:3] > found[3]).all())


def test_joint_counts_by_hand() -> None:
    assert joint_counts(LABELS, PROBS).tolist() == [[2, 0], [1, 1]], "4/5: .8 does not reach the mean .85"
    assert joint_counts(LABELS, PROBS, calibrate=True).tolist() == [[2, 0], [1, 2]]


def test_the_rules_differ_where_the_likeliest_class_stays_below_its_threshold() -> None:
    probs = torch.tensor([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    labels = torch.tensor([0, 0, 0, 1, 2])  # thresholds .733, .3, .2
    assert joint_counts(labels, probs, rule="paper").tolist() == [[2, 0, 0], [1, 1, 1], [0, 0, 1]]
    assert joint_counts(labels, probs, rule="program").tolist() == [[3, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_filters_by_hand() -> None:
    third = [False, False, True, False, False]
    for name in FILTERS:
        assert find_issues(LABELS, PROBS, filter_by=name).tolist() == third, name


def test_prune_counts_by_hand() -> None:
    joint = np.array([[5, 2, 1], [3, 0, 0], [0, 4, 7]])
    assert prune_counts(joint, 1.0, 1).tolist() == [[5, 1, 1], [3, 1, 0], [0, 3, 7]], (
        "1 taken from 2 others is half each"
    )
    assert prune_counts(joint, 0.5, 1).tolist() == [[6, 0, 0], [1, 3, 0], [0, 1, 7]]
    assert prune_counts(joint, 0.0, 0).tolist() == [[8, 0, 0], [0, 6, 0], [0, 0, 8]]


def test_whole_numbers_keep_the_sum_of_columns() -> None:
    values = np.random.default_rng(0).random((9, 9)) * 5
    values *= np.rint(values.sum(0)) / values.sum(0)
    whole = round_columns(values)
    assert (whole.sum(0) == np.rint(values.sum(0))).all()
    assert np.abs(whole - values).max() < 1
    assert calibrated(np.array([[1, 1], [1, 3]]), np.array([10, 10])).sum(0).tolist() == [10, 10]


def test_the_lowest_of_equal_values_are_the_first() -> None:
    values = np.array([0.5, 0.1, 0.5, 0.5, 0.2])
    counts = [lowest(values, many).tolist() for many in range(7)]
    assert counts[0] == [False] * 5
    assert counts[2] == [False, True, False, False, True]
    assert counts[3] == [True, True, False, False, True]
    assert counts[4] == [True, True, True, False, True]
    assert counts[5] == counts[6] == [True] * 5


def test_groups() -> None:
    labels = np.array([3, 0, 3, 1, 0], dtype=np.uint8)
    groups = Groups(labels, 5)
    assert [groups.rows(label).tolist() for label in range(5)] == [[1, 4], [3], [], [0, 2], []]
    assert groups.sizes.tolist() == [2, 1, 0, 2, 0]


# ------------------------------------------------------------------------------------------------ the naive way


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("classes", "sharp"), [(2, 1.0), (5, 0.0), (5, 3.0), (70, 4.0)])
def test_pruning_equals_the_naive_way_for_good_and_bad_predictions(classes: int, sharp: float, seed: int) -> None:
    """`sharp` 0 knows nothing: counts ask for more rows than there are suspects, and every row has to be read."""
    labels, probs = case(600, classes, sharp=sharp, seed=seed, rare=0.3 if seed % 2 else 0.0)
    for share in (1.0, 0.4):
        joint = joint_counts(labels, probs, calibrate=True).numpy()
        expected = naive_prune(labels, probs, prune_counts(joint, share, 1))
        assert np.array_equal(find_issues(labels, probs, share=share).numpy(), expected)


def test_hungry_counts_read_every_row() -> None:
    """More rows asked for than another class leads in: those are named, and then the nearest ones."""
    labels, probs = case(300, 4, sharp=0.5, seed=3)
    own = probs[np.arange(300), labels]
    rows = np.flatnonzero(labels == 0)
    suspects = probs.max(1) > own + 1e-6
    prune = np.array([0, len(rows) - 5, 1, 40])
    found = np.zeros(300, dtype=bool)
    confident._prune_by_noise_rate(found, Predictions(labels, probs), rows, own[rows], suspects[rows], prune, 0)
    counts = np.zeros((4, 4), dtype=int)
    counts[:, 0] = prune
    assert np.array_equal(found, naive_prune(labels, probs, counts))
    assert 0 < found.sum() < len(rows)


def test_equal_rows_at_the_cut() -> None:
    probs = np.tile([[0.2, 0.8]], (6, 1)).astype(np.float32)
    labels = np.zeros(6, dtype=int)
    found = np.zeros(6, dtype=bool)
    own = probs[:, 0]
    confident._prune_by_noise_rate(found, Predictions(labels, probs), np.arange(6), own, own < 1, np.array([0, 2]), 0)
    assert found.tolist() == [True, True, False, False, False, False]


# ------------------------------------------------------------------------------------------------ cleanlab


@pytest.mark.parametrize(("rows", "classes", "rare"), [(3000, 3, 0.0), (3000, 10, 0.4), (2000, 80, 0.0)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_equal_cleanlab(rows: int, classes: int, rare: float, kind: Any) -> None:
    rank = pytest.importorskip("cleanlab.rank")
    labels, probs = case(rows, classes, rare=rare)
    probs = (probs.astype(kind) / probs.astype(kind).sum(1, keepdims=True)).astype(kind)
    for name, score in SCORES.items():
        theirs = rank.get_label_quality_scores(labels, probs, method=name)
        np.testing.assert_allclose(1 - score(labels, probs).numpy(), theirs, atol=2e-6)
        if name != "confidence_weighted_entropy":
            theirs = rank.get_label_quality_scores(labels, probs, method=name, adjust_pred_probs=True)
            np.testing.assert_allclose(1 - score(labels, probs, adjust=True).numpy(), theirs, atol=2e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rows", "classes", "sharp", "rare"),
    [(2000, 2, 1.0, 0.0), (3000, 10, 2.5, 0.0), (3000, 10, 1.0, 0.5), (500, 5, 0.0, 0.0), (3000, 90, 5.0, 0.0)],
)
def test_filters_equal_cleanlab(rows: int, classes: int, sharp: float, rare: float, seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab.filter")
    count = pytest.importorskip("cleanlab.count")
    labels, probs = case(rows, classes, sharp=sharp, rare=rare, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with one row
        assert np.array_equal(
            joint_counts(labels, probs).numpy().T, count.compute_confident_joint(labels, probs, calibrate=False)
        )
        assert np.array_equal(
            joint_counts(labels, probs, calibrate=True).numpy().T, count.compute_confident_joint(labels, probs)
        )
        for name in FILTERS:
            theirs = cleanlab.find_label_issues(labels, probs, filter_by=name, n_jobs=1)
            assert np.array_equal(find_issues(labels, probs, filter_by=name).numpy(), theirs), name
        for settings in ({"frac_noise": 0.5}, {"min_examples_per_class": 20}):
            for name in FILTERS[:3]:
                theirs = cleanlab.find_label_issues(labels, probs, filter_by=name, n_jobs=1, **settings)
                ours: dict[str, Any] = {"share": settings.get("frac_noise", 1.0)}
                ours["least"] = settings.get("min_examples_per_class", 1)
                assert np.array_equal(find_issues(labels, probs, filter_by=name, **ours).numpy(), theirs), name


def test_filters_equal_cleanlab_with_a_class_that_nobody_is_labelled_as() -> None:
    cleanlab = pytest.importorskip("cleanlab.filter")
    rank = pytest.importorskip("cleanlab.rank")
    labels, probs = case(1500, 6)
    labels[labels == 4] = 2
    for name in FILTERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class without a row
            theirs = cleanlab.find_label_issues(labels, probs, filter_by=name, n_jobs=1)
        assert np.array_equal(find_issues(labels, probs, filter_by=name).numpy(), theirs), name
    theirs = rank.get_label_quality_scores(labels, probs, method="normalized_margin", adjust_pred_probs=True)
    np.testing.assert_allclose(1 - normalised_margin(labels, probs, adjust=True).numpy(), theirs, atol=2e-6)


@pytest.mark.slow
def test_the_benchmark_compares_equal_answers() -> None:
    pytest.importorskip("cleanlab")
    from benchmarks.audit_speed import NAMES, compare

    found = compare(5000, 8, 1)
    for name in NAMES:
        assert found["ratio"][name]["difference"] < 1e-6, name
        assert found["unswayed"][name]["peak_mib"] > 0


# ------------------------------------------------------------------------------------------------ forms of input


def test_any_array_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probs = case(1000, 7)
    expected = {name: find_issues(labels, probs, filter_by=name) for name in FILTERS}
    scores = {name: score(labels, probs, adjust=True) for name, score in SCORES.items()}
    np.save(tmp_path / "probs.npy", probs)
    np.save(tmp_path / "labels.npy", labels.astype(np.uint8))
    mapped = np.load(tmp_path / "probs.npy", mmap_mode="r")
    monkeypatch.setattr(predictions, "CHUNK", 70)  # ten rows at a time
    monkeypatch.setattr(confident, "CHUNK", 70)
    for y, p in (
        (torch.from_numpy(labels), torch.from_numpy(probs)),
        (np.load(tmp_path / "labels.npy", mmap_mode="r"), mapped),
        (labels.tolist(), np.asfortranarray(probs)),
        (labels.astype(np.int32), torch.from_numpy(probs).requires_grad_()),
    ):
        for name in FILTERS:
            assert torch.equal(find_issues(y, p, filter_by=name), expected[name]), name  # type: ignore[arg-type]
        for name, score in SCORES.items():
            torch.testing.assert_close(score(y, p, adjust=True), scores[name])  # type: ignore[arg-type]


def test_self_confidence_reads_what_it_needs() -> None:
    labels, probs = case(4000, 7)
    assert torch.equal(self_confidence(labels, probs), self_confidence(labels, probs, check="all"))
    with pytest.raises(UnswayedError, match=r"sums to one|at least 0"):
        self_confidence(labels, np.log(probs))
    with pytest.raises(UnswayedError, match="sums to one"):
        self_confidence(labels, probs * 0.9)
    looked = []
    known = predictions.Predictions(labels, probs)
    known._check = lambda block, start: looked.append((start, len(block)))  # type: ignore[method-assign]
    known.sample()
    assert sum(many for _, many in looked) == 1024
    spared = next(row for row in range(4000) if not any(start <= row < start + many for start, many in looked))
    other = (labels[spared] + 1) % 7
    broken = probs.copy()
    broken[spared, other] = np.nan  # of no use to the score, and not among the rows that are looked at
    assert torch.equal(self_confidence(labels, broken), self_confidence(labels, probs))
    with pytest.raises(UnswayedError, match=f"row {spared}"):
        self_confidence(labels, broken, check="all")
    for value in (np.nan, -0.5, 1.5, np.inf):
        broken = probs.copy()
        broken[spared, labels[spared]] = value
        with pytest.raises(UnswayedError, match=f"row {spared}"):
            self_confidence(labels, broken)
    with pytest.raises(UnswayedError, match="check is one of sample, all"):
        self_confidence(labels, probs, check="none")  # type: ignore[arg-type]


def test_half_precision_is_read_as_single() -> None:
    labels, probs = case(500, 7)
    half = torch.from_numpy(probs).half()
    assert torch.equal(self_confidence(labels, half), self_confidence(labels, half.float()))
    assert torch.equal(find_issues(labels, half.numpy()), find_issues(labels, half.float()))
    brain = torch.from_numpy(probs).bfloat16()
    assert torch.equal(normalised_margin(labels, brain), normalised_margin(labels, brain.float()))
    assert self_confidence(labels, half).dtype == torch.float32
    assert self_confidence(labels, probs.astype(np.float64)).dtype == torch.float64


def test_memory_stays_far_below_the_input(tmp_path: Path) -> None:
    labels, probs = case(40_000, 100, sharp=5.0)  # 16 MB
    np.save(tmp_path / "probs.npy", probs)
    mapped = np.load(tmp_path / "probs.npy", mmap_mode="r")
    del probs
    calls = [lambda name=name: find_issues(labels, mapped, filter_by=name) for name in FILTERS]
    calls += [lambda score=score: score(labels, mapped, adjust=True) for score in SCORES.values()]
    for call in calls:
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6e6


def test_classes_may_be_renumbered() -> None:
    labels, probs = case(1200, 6, rare=0.3)
    turn = np.random.default_rng(1).permutation(6)
    turned = np.argsort(turn)
    for name in FILTERS:
        found = find_issues(turned[labels], probs[:, turn], filter_by=name)
        assert torch.equal(found, find_issues(labels, probs, filter_by=name)), name


def test_wrong_labels_come_first() -> None:
    labels, probs = case(3000, 5, noise=0.0, sharp=3.0)
    wrong = torch.rand(3000, generator=torch.Generator().manual_seed(0)) < 0.2
    given = torch.where(wrong, (torch.from_numpy(labels) + 1) % 5, torch.from_numpy(labels))
    for score in SCORES.values():
        found = score(given, probs)
        assert found[wrong].mean() > found[~wrong].mean() + 0.2
    sizes = [int(find_issues(given, probs, share=share).sum()) for share in (0.0, 0.5, 1.0)]
    assert all(low < high for low, high in pairwise(sizes))


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        (LABELS, PROBS * 2, "each row of probabilities sums to one, but got row 0, which sums to 2"),
        (LABELS, np.where(PROBS == 0.8, np.nan, PROBS), "non-finite one in row 1"),
        (LABELS, np.where(PROBS == 0.8, np.inf, PROBS), "non-finite one in row 1"),
        (LABELS, PROBS + np.array([0.5, -0.5]), "at least 0, but got a negative or non-finite one in row 0"),
        (LABELS, PROBS[:, :1], "0..0"),
        (LABELS, PROBS[:4], "integers of shape \\[4\\]"),
        (LABELS, PROBS[0], "shape \\[N, K\\]"),
        (LABELS, PROBS.astype(int), "floating point"),
        (LABELS + 1, PROBS, "subtract 1: these labels count from 1"),
        (LABELS * 7, PROBS, "0..7; give probabilities for every class"),
        (LABELS - 1, PROBS, "-1 in 3 rows; leave rows without a label out"),
        (np.array(["a", "b", "a", "b", "a"]), PROBS, "return_inverse=True"),
        (np.array([0.0, 1.0, np.nan, 1.0, 0.0]), PROBS, "labels are integers"),
        (LABELS == 1, PROBS, "labels are integers"),
        (LABELS[:0], PROBS[:0], "shape \\[N, K\\]"),
    ],
)
def test_bad_input(labels: Any, probs: Any, message: str) -> None:
    for call in (*SCORES.values(), find_issues, joint_counts):
        with pytest.raises(UnswayedError, match=message):
            call(labels, probs)


def test_bad_settings() -> None:
    with pytest.raises(UnswayedError, match="filter_by is one of prune_by_noise_rate"):
        find_issues(LABELS, PROBS, filter_by="pruned")  # type: ignore[arg-type]
    with pytest.raises(UnswayedError, match="rule is"):
        joint_counts(LABELS, PROBS, rule="mine")  # type: ignore[arg-type]
    with pytest.raises(UnswayedError, match="share is in"):
        find_issues(LABELS, PROBS, share=1.5)
    with pytest.raises(UnswayedError, match="two classes or more"):
        self_confidence(LABELS * 0, np.ones((5, 1)))


def test_one_label_only_names_nothing_that_is_not_likelier() -> None:
    for name in FILTERS:
        found = find_issues(np.zeros(5, dtype=int), PROBS, filter_by=name)
        assert not bool(found[:2].any()), name
