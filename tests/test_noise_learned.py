"""Learned noise: exact formulas by hand, a planted model found again, files, and what a user can mend."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from unswayed import UnswayedError, noise
from unswayed.data import ArrayColumn
from unswayed.noise import NoiseModel, learn_noise, transition_of
from unswayed.noise.learned import draw, learned, tilt, wrong_odds
from unswayed.noise.learning import class_wise

torch.set_num_threads(1)
CENTRES = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-2.0, -2.0, 0.0]])


def planted(count: int, seed: int = 0, annotators: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows near class centres; a label is drawn by nearness to the centres and by a third feature, which is 'blur'."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(3, (count,), generator=generator)
    x = CENTRES[truth] + torch.randn(count, 3, generator=generator)
    logits = -torch.cdist(x, CENTRES).square() / 4
    logits[torch.arange(count), truth] += 1.0
    logits[:, 0] += 0.8 * x[:, 2]
    probability = logits.double().softmax(1)
    given = torch.multinomial(probability, annotators, replacement=True, generator=generator)
    return x, truth, given if annotators > 1 else given[:, 0], probability


def chance(probability: Tensor, truth: Tensor) -> Tensor:
    return 1 - probability.gather(1, truth[:, None])[:, 0]


@pytest.fixture(scope="module")
def fitted() -> NoiseModel:
    x, truth, given, _ = planted(4000)
    return learn_noise(x, truth, given)


def test_class_wise_by_hand() -> None:
    # Three rows of class 0, one wrong; one of class 1, right; none of class 2. Wrong in all: 1.5 of 5.
    target = torch.eye(3).double()[[0, 0, 1, 1]]
    found = class_wise(torch.tensor([0, 0, 0, 1]), target, prior=1.0)
    wanted = [[(2 + 2.1) / 6, (1 + 0.45) / 6, 0.45 / 6], [0.45 / 4, (1 + 2.1) / 4, 0.45 / 4], [0.15, 0.15, 0.7]]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_tilt_by_hand() -> None:
    # Wrong labels with log-odds 0 and log 3; a shift of -log 3 gives chances of 1/4 and 1/2: a mean of 3/8.
    before = torch.tensor([[0.5, 0.4, 0.1], [0.6, 0.25, 0.15]], dtype=torch.float64)
    truth = torch.tensor([0, 1])
    torch.testing.assert_close(wrong_odds(before.log(), truth), torch.tensor([0, math.log(3)], dtype=torch.float64))
    after = tilt(before.log(), truth, 0.375)
    torch.testing.assert_close(after, torch.tensor([[0.75, 0.2, 0.05], [0.4, 0.5, 0.1]], dtype=torch.float64))
    torch.testing.assert_close(tilt(before.log(), truth, None), before)


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.2, 0.7, 1.0])
def test_the_rate_is_met_and_the_order_stays(fitted: NoiseModel, rate: float) -> None:
    x, truth, _, _ = planted(2000, seed=5)
    natural, tilted = (fitted.probabilities(truth, x, rate=r) for r in (None, rate))
    torch.testing.assert_close(tilted.sum(1), torch.ones(2000, dtype=torch.float64))
    assert float(chance(tilted, truth).mean()) == pytest.approx(rate, abs=1e-9)
    if 0 < rate < 1:
        order = chance(natural, truth).argsort()
        assert bool((chance(tilted, truth)[order].diff() >= -1e-12).all())
        aims = [p.scatter(1, truth[:, None], 0.0) / chance(p, truth)[:, None] for p in (natural, tilted)]
        torch.testing.assert_close(*aims)


def test_a_planted_model_is_found(fitted: NoiseModel) -> None:
    x, truth, given, probability = planted(4000, seed=1)
    found = fitted.probabilities(truth, x)
    assert fitted.likeness is not None
    assert fitted.about["held_out"]["ridges"][1] is not None, "blur, which no class looks like, takes part"
    plain = replace(fitted, likeness=None).probabilities(truth)
    away, away_plain = (float((p - probability).abs().mean()) for p in (found, plain))
    assert away < 0.02
    assert away_plain > 3 * away
    best, ours = (roc_auc_score(given != truth, chance(p, truth)) for p in (probability, found))
    assert best - 0.02 < ours
    assert float((found * (probability.log() - found.log())).sum(1).mean()) > -0.02  # -KL
    drawn = fitted.sample(truth, x, seed=3)
    gap = (transition_of(truth, drawn, 3) - transition_of(truth, given, 3)).abs().max()
    assert float(gap) < 0.05


def test_features_that_say_nothing_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(4, (1500,), generator=generator)
    given = noise.corrupt("symmetric", truth, rate=0.3, classes=4, seed=0)
    model = learn_noise(torch.randn(1500, 40, generator=generator), truth, given)
    x = torch.randn(1500, 40, generator=generator)
    held = model.about["held_out"]
    assert held["gain"] < 0.002
    spread = chance(model.probabilities(truth, x), truth)
    assert float(spread.max() - spread.min()) < 0.15, "no more certain of single rows than data allow"
    none = learn_noise(torch.zeros(1500, 3), truth, given)
    assert none.likeness is None
    torch.testing.assert_close(none.transition, learn_noise(None, truth, given).transition)


def test_few_rows_and_unseen_classes() -> None:
    x, truth, given, _ = planted(40)
    model = learn_noise(x, truth, given, classes=5)
    unseen = model.probabilities(torch.tensor([4, 4]), x[:2])
    rate = model.about["rate"]
    assert float(chance(unseen, torch.tensor([4, 4])).mean()) == pytest.approx(rate, abs=0.1)
    clean = learn_noise(x, truth, truth)
    assert float(chance(clean.probabilities(truth, x), truth).max()) < 0.2
    assert learn_noise(None, torch.tensor([0, 1]), torch.tensor([1, 0])).transition.isfinite().all()


def test_drawn_labels_have_their_probabilities() -> None:
    logits = torch.tensor([[0.7, 0.2, 0.1]]).double().log().expand(40_000, 3)
    for agreement in (0.0, 0.6):
        drawn = draw(logits, 2, agreement, torch.Generator().manual_seed(0))
        for column in drawn.T:
            share = torch.bincount(column, minlength=3) / 40_000
            torch.testing.assert_close(share, torch.tensor([0.7, 0.2, 0.1]), atol=0.01, rtol=0)
    same = [float((d[:, 0] == d[:, 1]).double().mean()) for d in (draw(logits, 2, a, _seed()) for a in (0.0, 0.6))]
    assert same[0] == pytest.approx(0.54, abs=0.01)  # .49 + .04 + .01: independent
    assert same[1] > 0.65


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_agreement_is_found() -> None:
    truth = torch.arange(3).repeat(3000)
    logits = (torch.full((3, 3), 0.15) + 0.55 * torch.eye(3)).double().log()[truth]
    given = draw(logits, 3, 0.5, torch.Generator().manual_seed(0))
    assert learn_noise(None, truth, given).agreement == pytest.approx(0.5, abs=0.06)
    given[::2, 1] = -1
    given[1::3, 0] = -1
    assert learn_noise(None, truth, given).agreement == pytest.approx(0.5, abs=0.08)
    assert learn_noise(None, truth, given[:, 2]).agreement == 0


def test_by_rank_by_hand() -> None:
    # Log-odds from -1 to 1 over the rows of a class: of two rows the easier gets the quarter, the harder three.
    quantiles = torch.linspace(-1, 1, 101, dtype=torch.float64).expand(3, 101)
    transition = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
    model = NoiseModel(transition, torch.zeros(3, 3, dtype=torch.float64), quantiles)
    found = model.probabilities(torch.tensor([0, 0, 1]), difficulty=torch.tensor([9.0, 2.0, 5.0]))
    hard, easy = (1 / (1 + math.exp(-odds)) for odds in (0.5, -0.5))
    wanted = [[1 - hard, 0.75 * hard, 0.25 * hard], [1 - easy, 0.75 * easy, 0.25 * easy], [0.25, 0.5, 0.25]]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_by_rank_of_difficulty(fitted: NoiseModel) -> None:
    x, truth, _, _ = planted(4000)  # the rows that were fitted: their log-odds come back by rank
    natural = fitted.probabilities(truth, x)
    ranked = fitted.probabilities(truth, difficulty=wrong_odds(natural.log(), truth))
    off = (chance(ranked, truth) - chance(natural, truth)).abs()
    assert float(off.mean()) < 0.01, "but for cross-fitting and for the few hardest rows, between two percentiles"
    torch.testing.assert_close(ranked.sum(1), torch.ones(4000, dtype=torch.float64))
    with pytest.raises(UnswayedError, match="difficulty"):
        fitted.probabilities(truth, difficulty=torch.zeros(3))


@pytest.mark.parametrize("with_features", [True, False])
def test_files(fitted: NoiseModel, tmp_path: Path, with_features: bool) -> None:
    x, truth, _, _ = planted(300, seed=2)
    model = fitted if with_features else replace(fitted, likeness=None)
    model.save(tmp_path / "model.safetensors")
    again = NoiseModel.load(tmp_path / "model.safetensors")
    assert torch.equal(again.probabilities(truth, x), model.probabilities(truth, x))
    assert again.about == model.about
    assert torch.equal(again.quantiles, model.quantiles)
    save_file({"transition": torch.eye(2)}, tmp_path / "other.safetensors")
    for name in ("other.safetensors", "absent.safetensors"):
        with pytest.raises(UnswayedError):
            NoiseModel.load(tmp_path / name)


def test_the_noise_by_name(fitted: NoiseModel, tmp_path: Path) -> None:
    x, truth, _, _ = planted(3000, seed=7)
    fitted.save(tmp_path / "m.safetensors")
    how = {"rate": 0.3, "classes": 3, "seed": 1}
    given = noise.corrupt("learned", truth, x=x, model=str(tmp_path / "m.safetensors"), **how)
    assert torch.equal(given, noise.corrupt("learned", truth, x=ArrayColumn(x.numpy()), model=fitted, **how))
    assert float((given != truth).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert roc_auc_score(given != truth, chance(fitted.probabilities(truth, x), truth)) > 0.7
    blind = noise.corrupt("learned", truth, x=torch.zeros(3000, 9), model=fitted, by="classes", **how)
    assert roc_auc_score(blind != truth, chance(fitted.probabilities(truth, x), truth)) < 0.65
    natural = noise.corrupt("learned", truth, x=x, model=fitted, as_learned=True, **{**how, "rate": 1.0})
    assert float((natural != truth).double().mean()) == pytest.approx(fitted.about["rate"], abs=0.03)
    half = noise.corrupt("learned", truth, x=x, model=fitted, as_learned=True, **{**how, "rate": 0.5})
    assert float((half != truth).double().mean()) == pytest.approx(fitted.about["rate"] / 2, abs=0.03)


def test_what_a_user_can_mend(fitted: NoiseModel) -> None:
    x, truth, given, _ = planted(100)
    how = (0.3, 3, torch.Generator().manual_seed(0))
    for settings, message in (
        ({}, "learn-noise"),
        ({"model": fitted, "by": "rows"}, "by is"),
        ({"model": "absent.safetensors"}, "no file"),
    ):
        with pytest.raises(UnswayedError, match=message):
            learned(truth, x, *how, **settings)
    with pytest.raises(UnswayedError, match="features of the samples"):
        learned(truth, None, *how, model=fitted)
    with pytest.raises(UnswayedError, match="3 numbers a row"):
        learned(truth, torch.zeros(100, 7), *how, model=fitted)
    with pytest.raises(UnswayedError, match="features of 100"):
        learned(truth, x[:7], *how, model=fitted)
    with pytest.raises(UnswayedError, match="4 classes"):
        learned(truth, x, 0.3, 4, how[2], model=fitted)
    spoilt = x.clone()
    spoilt[3] = torch.nan
    with pytest.raises(UnswayedError, match="finite"):
        learned(truth, spoilt, *how, model=fitted)
    for bad, message in (
        ((x[:5], truth, given), "features of 100"),
        ((spoilt, truth, given), "finite"),
        ((x, truth, given[:5]), "true labels"),
        ((x, truth - 1, given), "each with a true"),
        ((x, truth, given - 5), "each with a true"),
        ((torch.zeros(100, 5000), truth, given), "4096"),
    ):
        with pytest.raises(UnswayedError, match=message):
            learn_noise(*bad)
    with pytest.raises(UnswayedError, match="prior"):
        learn_noise(x, truth, given, prior=0)


def test_a_single_number_a_row() -> None:
    x, truth, given, _ = planted(200)
    one = learn_noise(x[:, 0], truth, given).probabilities(truth, x[:, 0])
    torch.testing.assert_close(one, learn_noise(x[:, :1], truth, given).probabilities(truth, x[:, :1]))


def test_many_columns_and_pixels() -> None:
    x, truth, given, _ = planted(1500)
    mix = torch.randn(3, 300, generator=torch.Generator().manual_seed(0))
    pixels = ((x @ mix).sigmoid() * 255).to(torch.uint8).view(1500, 3, 10, 10)
    model = learn_noise(pixels, truth, given)
    assert model.likeness is not None
    assert model.likeness.reader.axes.shape == (300, 256)
    held_x, held, _, _ = planted(1500, seed=4)
    found = chance(model.probabilities(held, ((held_x @ mix).sigmoid() * 255).to(torch.uint8)), held)
    _, _, fresh, _ = planted(1500, seed=4)
    assert roc_auc_score(fresh != held, found) > 0.65


def test_what_the_page_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "noise.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(code, "docs/noise.md", "exec"), names)
    truth, labels, harder, panel, odds = (names[name] for name in ("truth", "labels", "harder", "panel", "odds"))
    assert panel.shape == (1000, 3)
    assert odds.shape == (1000, 2)
    rates = [float((each != truth).double().mean()) for each in (names["given"], labels, harder)]
    assert rates[1] == pytest.approx(rates[0], abs=0.05)
    assert rates[2] == pytest.approx(0.4, abs=0.05)
    hard = names["other"] > 0
    assert (labels != truth)[hard].double().mean() > 2 * (labels != truth)[~hard].double().mean()
