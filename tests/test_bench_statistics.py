"""Statistics against values by hand, by scipy and from the literature."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from unswayed.bench import make_suite
from unswayed.bench.drawing import spread_out
from unswayed.bench.published import Beside, beside
from unswayed.bench.results import Results, Score
from unswayed.bench.statistics import (
    against_control,
    bootstrap,
    critical_difference,
    find_cliques,
    friedman,
    gains,
    holm,
    over_all,
    over_tasks,
    p_value,
    rank,
    rank_rows,
)
from unswayed.bench.words import claim, evidence
from unswayed.errors import UnswayedError
from unswayed.report.statistics import Verdict, interval

# Accuracies of four classifiers on 14 data sets, Table 6 of Demsar, JMLR 7 (2006): C4.5, +m, +cf, +m+cf.
DEMSAR = [
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
]  # fmt: skip


def results(scores: dict[tuple[str, str], list[float]], **suite: Any) -> Results:
    """Results as if these had run: accuracies by task and arm, seed by seed; NaN has not run."""
    tasks, arms = dict.fromkeys(task for task, _ in scores), dict.fromkeys(arm for _, arm in scores)
    given = {"tasks": {task: {"data": "wine"} for task in tasks}, "arms": list(arms), **suite}
    found = tuple(
        Score(task, arm, seed, value, seconds=1.0)
        for (task, arm), values in scores.items()
        for seed, value in enumerate(values)
        if math.isfinite(value)
    )
    return Results(make_suite("made", given), found, (), (), (), (), (), ())


def test_the_published_example_of_ranks() -> None:
    """Demsar 2006, section 3.2: mean ranks 3.143, 2.000, 2.893, 1.964; chi-squared 9.28 without correction for ties."""
    means = rank_rows(DEMSAR).mean(0)
    assert means == pytest.approx([3.143, 2.0, 2.893, 1.964], abs=5e-4)
    assert 12 * 14 / (4 * 5) * (np.square(means).sum() - 4 * 25 / 4) == pytest.approx(9.28, abs=5e-3)
    chi2, p = friedman(DEMSAR)
    ties = 6 + 6 + 60 + 6  # sum of t^3 - t: three pairs and one row of four
    assert chi2 == pytest.approx(9.2786 / (1 - ties / (14 * 4 * 15)), abs=1e-3)
    assert p < 0.05
    assert critical_difference(4, 14) == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)


@pytest.mark.parametrize(("arms", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_of_nemenyi(arms: int, q: float) -> None:
    """Demsar 2006, Table 5(a)."""
    assert critical_difference(arms, 1) / math.sqrt(arms * (arms + 1) / 6) == pytest.approx(q, abs=1e-3)


def test_friedman_by_hand() -> None:
    table = [[0.9, 0.8, 0.7], [0.8, 0.6, 0.5], [0.7, 0.6, 0.5], [0.9, 0.7, 0.8]]
    ranks = np.array([1.0, 2.25, 2.75])  # chi2 = 12 N / k (k + 1) (sum of squares - k (k + 1)^2 / 4)
    chi2, p = friedman(table)
    assert chi2 == pytest.approx(12 * 4 / 12 * (np.square(ranks).sum() - 3 * 16 / 4)) == pytest.approx(6.5)
    assert p == pytest.approx(math.exp(-6.5 / 2))  # chi-squared with two degrees of freedom
    assert friedman([[0.5, 0.5, 0.5]] * 4) == (0.0, 1.0)
    with pytest.raises(UnswayedError, match="2 tasks and 3 arms"):
        friedman([[0.1, 0.2]] * 3)


def test_paired_t_test_against_scipy() -> None:
    a, b = [0.91, 0.90, 0.93, 0.88], [0.89, 0.90, 0.90, 0.87]
    expected = scipy.stats.ttest_rel(a, b)
    assert p_value(interval([x - y for x, y in zip(a, b, strict=True)])) == pytest.approx(expected.pvalue)
    assert math.isnan(p_value(interval([0.1])))
    assert p_value(interval([0.0, 0.0])) == 1.0
    assert p_value(interval([0.5, 0.5])) == 0.0


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_bootstrap_holds_the_mean_and_is_repeatable(values: list[float]) -> None:
    low, high = bootstrap(values, resamples=500)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert bootstrap(values, resamples=500) == (low, high)


def test_bootstrap_by_its_law() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=200)
    low, high = bootstrap(list(values))
    half = 1.96 * values.std() / math.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert math.isnan(bootstrap([1.0])[0])


def test_holm_counts_only_what_is_known() -> None:
    assert holm([0.01, math.nan, 0.02, 0.5])[::2] == pytest.approx([0.03, 0.04])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_cliques() -> None:
    assert find_cliques([1.0, 1.4, 3.0, 3.2], 1.0) == ((0, 1), (2, 3))
    assert find_cliques([1.0, 2.0], 1.0) == ()  # not closer than the difference
    assert find_cliques([1.0, 1.1, 1.2], 9.0) == ((0, 2),)


def test_differences_are_paired_by_seed_and_the_last_word_is_careful() -> None:
    noisy = {("a", "plain"): [0.5, 0.7, 0.6], ("a", "gce"): [0.52, 0.72, 0.62], ("a", "sce"): [0.6, 0.5, 0.7]}
    found = {one.arm: one for one in against_control(results(noisy))}
    assert found["gce"].difference.mean == pytest.approx(0.02)
    assert found["gce"].said is Verdict.BETTER  # although seeds vary by ten times as much
    assert found["sce"].said is Verdict.NONE
    assert found["gce"].holm == pytest.approx(2 * found["gce"].p)
    one = results({("a", "plain"): [0.5], ("a", "gce"): [0.9]})
    assert against_control(one)[0].said is Verdict.ONE_SEED
    assert "nothing shown" in claim(one)
    assert "No comparison" in claim(results({("a", "gce"): [0.5, 0.6]}))


def test_means_over_tasks_take_complete_seeds() -> None:
    made = results({
        ("a", "plain"): [0.5, 0.5, 0.5], ("a", "gce"): [0.6, 0.7, math.nan],
        ("b", "plain"): [0.5, 0.5, 0.5], ("b", "gce"): [0.6, 0.5, 0.9],
    })  # fmt: skip
    assert over_tasks(made, "gce", "plain").n == 2
    assert over_tasks(made, "gce", "plain").mean == pytest.approx(0.1)
    assert over_all(made, "gce").mean == pytest.approx(0.6)
    missing = results({("a", "plain"): [0.5], ("a", "gce"): [0.7], ("b", "plain"): [0.5]})
    assert over_all(missing, "gce").n == 0
    assert "No arm has run on every task" in claim(missing)


def test_ranks_need_tasks_and_arms_and_say_where_nothing_is_shown() -> None:
    values = {"plain": 0.5, "gce": 0.6, "sce": 0.7}
    made = results({(task, arm): [v, v + 0.01] for task in "abcdefgh" for arm, v in values.items()})
    ranking = rank(made)
    assert ranking is not None
    assert ranking.arms == ("sce", "gce", "plain")
    assert ranking.ranks == (1, 2, 3)
    assert ranking.differ
    assert ranking.cliques == ((0, 1), (1, 2))  # 1 apart, and the critical difference is 1.17
    few = rank(results({(task, arm): [v] for task in "ab" for arm, v in values.items()}))
    assert few is not None
    assert not few.differ
    assert few.cliques == ((0, 2),)
    assert "no difference shown" in evidence(made, few)
    assert rank(results({("a", arm): [v] for arm, v in values.items()})) is None


def test_gains_of_masking_are_over_the_same_arm() -> None:
    arms = {"gce": 0.6, "gce edge-masked": 0.63, "gce edge-masked(score=random)": 0.62, "gce kan": 0.5,
            "gce edge-masked-kan": 0.4, "gce(q=.5)": 0.1, "sce edge-masked": 0.9, "plain": 0.5}  # fmt: skip
    made = results({("a", arm): [v, v + 0.1, v] for arm, v in arms.items()})
    found = {gain.arm: gain for gain in gains(made)}
    assert found.keys() == {"gce edge-masked", "gce edge-masked-kan"}  # sce has no bare head to be compared with
    assert found["gce edge-masked"].bare == "gce"
    assert found["gce edge-masked"].over_bare.mean == pytest.approx(0.03)
    beyond = found["gce edge-masked"].over_random
    assert beyond is not None
    assert beyond.mean == pytest.approx(0.01)
    assert found["gce edge-masked-kan"].bare == "gce kan"
    assert found["gce edge-masked-kan"].over_random is None


def test_published_figures_beside_ours() -> None:
    names = {("symmetric-20", "plain"): [0.74, 0.75, 0.76], ("symmetric-40", "plain"): [0.5]}
    made = results(names, published="anl-cifar10")
    found = {one.figure.task: one for one in beside(made)}
    near, alone = found["symmetric-20"], found["symmetric-40"]
    wide = float(scipy.stats.t.ppf(0.975, 2)) * 1.0 * math.sqrt(1 + 1 / 3)  # one further seed of ours
    assert (near.figure.value, near.ours) == (75.47, pytest.approx(75.0))
    assert (near.low, near.high) == (pytest.approx(75 - wide), pytest.approx(75 + wide))
    assert near.said == "within our seeds' spread"
    assert near.difference == pytest.approx(-0.47)
    assert replace(near, figure=replace(near.figure, value=90.0)).said == "outside of it"
    assert alone.said == "one seed: no spread"
    assert isinstance(near, Beside)
    assert near.figure.arxiv == "2412.02373"


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_labels_never_overlap_and_stay_near(places: list[float]) -> None:
    found = spread_out(places, 15, 0, 300)
    ordered = [found[i] for i in sorted(range(len(places)), key=lambda i: places[i])]
    assert all(b - a >= 15 - 1e-6 or len(places) * 15 > 300 for a, b in itertools.pairwise(ordered))
