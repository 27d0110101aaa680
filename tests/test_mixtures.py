"""Mixtures against published figures, scipy and naive EM; wrong events, Label Wave; what no data make good."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import special, stats
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor
from torch.nn import functional

from unswayed import UnswayedError
from unswayed.stats import mixtures
from unswayed.stats.label_wave import LabelWave
from unswayed.stats.mixtures import beta_mixture, betainc, gaussian_mixture
from unswayed.stats.wrong_events import LEVELS, DynamicWeights, ido_weights

# CIFAR-100 with 40 % instance-dependent noise: how many samples had 0, 1, ... 5 wrong events in 5 epochs.
COUNTS = torch.tensor([9963, 9469, 6097, 4579, 5578, 14314])
EVENTS = torch.arange(6).repeat_interleave(COUNTS)
MIXTURES = [gaussian_mixture, beta_mixture]


def two_bells(n: int = 600, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = 0.3 * torch.randn(n * 2 // 3, generator=generator) + 0.6
    high = 0.8 * torch.randn(n - n * 2 // 3, generator=generator) + 3
    return torch.cat([low, high]).abs()[torch.randperm(n, generator=generator)]


# ------------------------------------------------------------------------------------------------ published figures


def test_published_betas() -> None:
    mixture = beta_mixture(EVENTS)
    assert mixture.alpha.tolist() == pytest.approx([0.531, 1.203], abs=0.001)
    assert mixture.beta.tolist() == pytest.approx([1.430, 0.130], abs=0.001)
    assert mixture.weight.tolist() == pytest.approx([0.610, 0.390], abs=0.001)


def test_published_weights() -> None:
    weights = ido_weights(EVENTS)
    first = torch.searchsorted(EVENTS, torch.arange(6))
    assert weights.clean[first].tolist() == pytest.approx([1.000, 0.945, 0.881, 0.768, 0.526, 0.000], abs=0.001)
    assert weights.consistency[first].tolist() == pytest.approx([1.00, 1.42, 1.47, 1.36, 0.94, 0.00], abs=0.006)
    assert weights.doubt[first].tolist() == pytest.approx([0.000, 0.055, 0.119, 0.232, 0.474, 1.000], abs=0.001)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_values_that_became_equal_leave_no_nan(mixture: Any) -> None:
    before = mixture(torch.tensor([0.0, 0.0, 1.0, 4.0, 5.0]), torch.zeros(5, dtype=torch.long), classes=1)
    now, groups = torch.full((5,), 5.0), torch.zeros(5, dtype=torch.long)
    found = mixture(now, groups, classes=1, start=before)
    assert all(field.isfinite().all() for field in vars(found).values())
    assert found.posterior(now, groups).tolist() == [1.0] * 5
    assert found.distribution(now, groups).isfinite().all()


def test_counted_values_are_the_values() -> None:
    whole, counted = beta_mixture(EVENTS), beta_mixture(torch.arange(6), count=COUNTS)
    for one, other in zip(vars(whole).values(), vars(counted).values(), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(beta_mixture(EVENTS.float()).alpha, whole.alpha)
    torch.testing.assert_close(
        gaussian_mixture(EVENTS.float()).mean, gaussian_mixture(torch.arange(6), count=COUNTS).mean
    )


# ------------------------------------------------------------------------------------------------ references


@pytest.mark.parametrize("low", [-6, -2])
def test_betainc_is_scipys(low: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = 10 ** (torch.rand(2, 400, generator=generator, dtype=torch.float64) * (4 - low) + low)
    spread = torch.rand(400, generator=generator, dtype=torch.float64)
    for x in (spread, a / (a + b), spread**8, 1 - spread**8):
        expected = torch.from_numpy(special.betainc(a.numpy(), b.numpy(), x.numpy()))
        torch.testing.assert_close(betainc(a, b, x), expected, atol=1e-9, rtol=1e-9)


def test_betainc_at_its_ends() -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert betainc(torch.tensor(0.3), torch.tensor(7.0), ends).tolist() == [0.0, 1.0]


def test_beta_distribution_and_posterior_are_those_of_the_betas() -> None:
    mixture = beta_mixture(EVENTS)
    x = torch.tensor([0.5, 2.0, 4.5], dtype=torch.float64)
    betas = [stats.beta(a, b) for a, b in zip(mixture.alpha.tolist(), mixture.beta.tolist(), strict=True)]
    below = torch.tensor([[beta.cdf(v / 5) for beta in betas] for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(mixture.distribution(x), below)
    joint = torch.tensor([[beta.pdf(v / 5) for beta in betas] for v in x.tolist()], dtype=torch.float64)
    joint *= mixture.weight
    torch.testing.assert_close(mixture.posterior(x), joint[:, 0] / joint.sum(1))


def test_gaussians_are_scikit_learns() -> None:
    x = two_bells().double()
    low, width = x.min(), x.max() - x.min()
    unit = ((x - low) / width)[:, None].numpy()
    expected = Reference(2, reg_covar=5e-4, max_iter=500, tol=1e-12, random_state=0).fit(unit)
    order = expected.means_[:, 0].argsort()
    mixture = gaussian_mixture(x, rounds=500)
    means = low + width * torch.from_numpy(expected.means_[order, 0])
    variances = width**2 * torch.from_numpy(expected.covariances_[order, 0, 0])
    torch.testing.assert_close(mixture.mean, means, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mixture.variance, variances, atol=1e-6, rtol=1e-6)
    posterior = torch.from_numpy(expected.predict_proba(unit)[:, order[0]])
    torch.testing.assert_close(mixture.posterior(x), posterior, atol=1e-6, rtol=0)


def test_gaussian_distribution_is_that_of_the_normals() -> None:
    mixture = gaussian_mixture(two_bells())
    x = torch.tensor([0.5, 2.5], dtype=torch.float64)
    normals = zip(mixture.mean.tolist(), mixture.variance.tolist(), strict=True)
    below = torch.tensor([stats.norm(m, math.sqrt(v)).cdf(x.numpy()).tolist() for m, v in normals]).T
    torch.testing.assert_close(mixture.distribution(x), below.double(), atol=1e-6, rtol=0)


def test_the_start_is_the_best_split_in_two() -> None:
    x = two_bells(60).double().sort().values
    within = [x[:k].var(correction=0) * k + x[k:].var(correction=0) * (60 - k) for k in range(1, 60)]
    cut = 1 + int(torch.stack(within).argmin())
    mixture = gaussian_mixture(x, rounds=0)
    torch.testing.assert_close(mixture.mean, torch.stack([x[:cut].mean(), x[cut:].mean()]))
    assert mixture.weight.tolist() == pytest.approx([cut / 60, 1 - cut / 60])


# ------------------------------------------------------------------------------------------------ groups and bins


@pytest.mark.parametrize("fit", MIXTURES)
def test_a_group_is_fitted_as_if_it_were_alone(fit: Any) -> None:
    x, groups = two_bells(900), torch.randint(3, (900,), generator=torch.Generator().manual_seed(1))
    together = fit(x, groups, classes=5)
    for group in range(3):
        alone = fit(x[groups == group])
        for name, field in vars(together).items():
            torch.testing.assert_close(field[group], getattr(alone, name), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(
        together.posterior(x, groups)[groups == 1], fit(x[groups == 1]).posterior(x[groups == 1])
    )
    assert together.posterior(x, groups + 2)[groups > 0].unique().tolist() == [1.0]  # nobody is in groups 3 and 4


@pytest.mark.parametrize("fit", MIXTURES)
def test_bins_stand_for_their_values(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.cat([torch.linspace(0.02, 0.98, 2500) ** 3, 1 - torch.linspace(0.02, 0.98, 1500) ** 3])
    groups = torch.arange(4000) % 2
    exact, apart = fit(values).posterior(values), fit(values, groups).posterior(values, groups)
    monkeypatch.setattr(mixtures, "CELLS", 800)
    monkeypatch.setattr(mixtures, "BINS", 500)
    assert (fit(values).posterior(values) - exact).abs().max() < 0.01
    assert (fit(values, groups).posterior(values, groups) - apart).abs().max() < 0.01


def test_bins_keep_an_outlier_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "CELLS", 100)
    monkeypatch.setattr(mixtures, "BINS", 100)
    x = torch.cat([two_bells(3999), torch.tensor([50.0])]).double()
    mixture = gaussian_mixture(x, rounds=0)
    torch.testing.assert_close((mixture.weight * mixture.mean).sum(), x.mean())
    between = (mixture.weight * (mixture.mean - x.mean()) ** 2).sum()
    floor = 5e-4 * (x.max() - x.min()) ** 2
    torch.testing.assert_close((mixture.weight * mixture.variance).sum() + between, x.var(correction=0) + floor)


@pytest.mark.parametrize("fit", MIXTURES)
def test_the_order_of_values_does_not_matter(fit: Any) -> None:
    x, order = two_bells(), torch.randperm(600, generator=torch.Generator().manual_seed(2))
    for one, other in zip(vars(fit(x)).values(), vars(fit(x[order])).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("fit", MIXTURES)
def test_a_warm_start_goes_on_where_the_last_fit_stopped(fit: Any) -> None:
    x = two_bells()
    whole = fit(x, rounds=6)
    again = fit(x, rounds=2, start=fit(x, rounds=4))
    for one, other in zip(vars(whole).values(), vars(again).values(), strict=True):
        torch.testing.assert_close(one, other)


# ------------------------------------------------------------------------------------------------ nothing to learn


@pytest.mark.parametrize("fit", MIXTURES)
@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, 2.0, 3.0], [2.0] * 9, [math.nan] * 6, [math.nan, math.inf, 1.0, 1.0, 1.0, 1.0]]
)
def test_without_evidence_all_is_clean(fit: Any, values: list[float]) -> None:
    mixture = fit(torch.tensor(values))
    assert mixture.weight.tolist() == [1.0, 0.0]
    assert mixture.posterior(torch.tensor([-1.0, 0.0, 2.0, 9.0, math.inf])).tolist() == [1.0] * 5
    assert mixture.distribution(torch.tensor([-1.0, 0.0, 2.0])).isfinite().all()


@pytest.mark.parametrize("fit", MIXTURES)
def test_what_is_not_finite_takes_no_part(fit: Any) -> None:
    x = two_bells(60)
    odd = torch.tensor([math.nan, math.inf, -math.inf])
    mixture = fit(torch.cat([odd, x]))
    for one, other in zip(vars(mixture).values(), vars(fit(x)).values(), strict=True):
        assert torch.equal(one, other)
    ends = mixture.posterior(torch.stack([x.max(), x.min()])).tolist()
    assert mixture.posterior(odd).tolist() == [0.5, *ends]


@pytest.mark.parametrize("fit", MIXTURES)
@pytest.mark.parametrize("values", [[0.0] * 5 + [1e30], [0.0] * 5 + [1e-38], [0, 1] * 4, [0.0, 0.0, 1.0, 1.0, 1.0]])
def test_extreme_values_are_told_apart(fit: Any, values: list[float]) -> None:
    x = torch.tensor(values)
    posterior = fit(x).posterior(x)
    assert (posterior[x == 0] > 0.99).all()
    assert (posterior[x > 0] < 0.01).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int16])
def test_any_kind_of_number(dtype: torch.dtype) -> None:
    x = (two_bells() * 10).to(dtype)
    for fit in MIXTURES:
        posterior = fit(x).posterior(x)  # type: ignore[operator]
        assert posterior.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert (posterior[x < 5] > 0.5).all()


def test_what_does_not_fit_is_told() -> None:
    x, groups = torch.rand(8), torch.arange(8)
    with pytest.raises(UnswayedError, match=r"numbers of shape \[N\]"):
        gaussian_mixture(torch.rand(2, 3))
    with pytest.raises(UnswayedError, match=r"groups are integers of shape \[8\]"):
        gaussian_mixture(x, groups[:3])
    with pytest.raises(UnswayedError, match=r"groups from 0\.\.3"):
        beta_mixture(x, groups, classes=4)
    with pytest.raises(UnswayedError, match="classes is the number of groups"):
        beta_mixture(x, classes=4)
    with pytest.raises(UnswayedError, match="counts of 0 or more"):
        beta_mixture(x, count=-groups)
    with pytest.raises(UnswayedError, match="none for a single mixture"):
        beta_mixture(x).posterior(x, groups)
    with pytest.raises(UnswayedError, match="mixture is beta or gaussian"):
        DynamicWeights(mixture="gamma")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ tables of weights


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("shape", ["beta", "gaussian"])
def test_looking_up_is_computing(shape: Any, whole: bool) -> None:
    """Exactly so for counts; for other evidence as near as 256 levels are."""
    generator = torch.Generator().manual_seed(0)
    values, labels = (two_bells() * 4), torch.randint(3, (600,), generator=generator)
    values = values.long() if whole else values
    weights = DynamicWeights(4, mixture=shape)
    weights.fit(values, labels)
    mixture = (beta_mixture if shape == "beta" else gaussian_mixture)(values, labels, classes=4, rounds=20)
    found = weights(values, labels)
    assert (found.clean - mixture.posterior(values, labels)).abs().max() < (1e-6 if whole else 0.05)
    if shape == "beta" and whole:
        for one, other in zip(found, ido_weights(values, labels), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_counts_beyond_the_fitted_range_count_as_its_end() -> None:
    weights = DynamicWeights()
    weights.fit(EVENTS, torch.zeros_like(EVENTS))
    one, group = torch.tensor([5]), torch.tensor([0])
    assert weights(one, group) == weights(one + 40, group)
    assert weights(one * 0, group) == weights(one - 40, group)
    assert weights.table.shape == (1, LEVELS, 3)


def test_many_counts_share_levels() -> None:
    weights, values = DynamicWeights(), torch.arange(2000)
    weights.fit(values, torch.zeros_like(values))
    clean = weights(values, torch.zeros_like(values)).clean
    assert (clean - ido_weights(values).clean).abs().max() < 0.02


def test_before_a_fit_everybody_is_clean() -> None:
    assert [w.tolist() for w in DynamicWeights(3)(torch.tensor([9]), torch.tensor([2]))] == [[1.0], [1.0], [0.0]]


def test_fits_follow_each_other() -> None:
    """The second fit is a warm one: two rounds from the first, on the new counts."""
    zeros, weights = torch.zeros_like(EVENTS), DynamicWeights()
    weights.fit(EVENTS, zeros)
    weights.fit(EVENTS + (EVENTS > 2), zeros, rounds=2)
    expected = beta_mixture(EVENTS + (EVENTS > 2), rounds=2, start=beta_mixture(EVENTS))
    torch.testing.assert_close(weights.get_buffer("first")[0].double(), expected.alpha, atol=1e-5, rtol=1e-5)


def test_a_label_without_samples_is_no_trouble() -> None:
    weights = ido_weights(torch.tensor([0, 1, 3, 3, 0]), torch.tensor([2, 2, 2, 2, 0]), classes=6)
    assert weights.clean[4] == 1
    assert all(column.isfinite().all() for column in weights)


# ------------------------------------------------------------------------------------------------ Label Wave


def epoch_of(wave: LabelWave, predictions: list[int]) -> bool:
    order = torch.tensor([2, 0, 1])
    logits = functional.one_hot(torch.tensor(predictions), 4).float()
    wave.update(logits[order], order)
    return wave.end_epoch()


def test_label_wave_turns_at_the_first_rise_only() -> None:
    wave = LabelWave(3)
    told = [epoch_of(wave, p) for p in ([0, 0, 0], [1, 1, 0], [1, 2, 0], [1, 3, 0], [2, 2, 0], [2, 2, 0])]
    assert told == [False, False, False, False, True, True]  # 2, 1, 1, 2, 0 changes
    again = LabelWave(3)
    again.load_state_dict(wave.state_dict())
    assert epoch_of(again, [2, 2, 0])
