"""Logistic regression and nearest neighbours: against scikit-learn, and against votes counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as TheirRegression
from torch import Tensor, nn

from unswayed import UnswayedError, data, methods
from unswayed.engine import fit, predict
from unswayed.experiment.config import Config
from unswayed.experiment.run import run
from unswayed.method import Data, Info, Method
from unswayed.methods import bars


def create(name: str, rows: int, classes: int, **settings: Any) -> Any:
    return methods.create(name, lambda: nn.Linear(2, 2), Info(rows, classes), **settings)


def cloud(rows: int = 90, width: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % classes
    x = torch.randn(rows, width, generator=generator) + 2 * torch.eye(classes, width)[y]
    return x * torch.logspace(-2, 2, width) + 3, y


def ngrams(dense: Tensor) -> Tensor:
    """Rows [N, d] as n-gram numbers (from 1) and weights, [N, 2, d]."""
    return torch.stack([torch.arange(1.0, dense.shape[1] + 1).expand_as(dense), dense], 1)


@pytest.mark.parametrize("strength", [1.0, 0.01, 1e-4])
def test_the_fit_is_that_of_scikit_learn(strength: float) -> None:
    x, y = cloud()
    x = (x - x.mean(0)) / x.std(0)
    weight, bias = bars.fit_logistic(x, y, torch.ones(90), 3, strength)
    theirs = TheirRegression(C=1 / (90 * strength), tol=1e-8, max_iter=5000).fit(x, y)
    torch.testing.assert_close(weight, torch.tensor(theirs.coef_).float(), rtol=0, atol=2e-3)
    found, expected = bars.scores(x, weight, bias).softmax(1), torch.tensor(theirs.predict_proba(x)).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_rows_of_no_weight_are_not_there_and_starts_do_not_matter() -> None:
    x, y = cloud()
    x = (x - x.mean(0)) / x.std(0)
    share = (torch.arange(90) < 60).float()
    part = bars.fit_logistic(x[:60], y[:60], torch.ones(60), 3, 0.1)
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), torch.ones(3)
    for found in (bars.fit_logistic(x, y, share, 3, 0.1), bars.fit_logistic(x, y, share, 3, 0.1, start=start)):
        torch.testing.assert_close(found[0], part[0], rtol=0, atol=1e-3)
    soft = bars.fit_logistic(x, nn.functional.one_hot(y, 3).float(), torch.ones(90), 3, 0.1)
    torch.testing.assert_close(soft[0], bars.fit_logistic(x, y, torch.ones(90), 3, 0.1)[0], rtol=0, atol=1e-4)


def test_ngrams_are_sparse_rows() -> None:
    x, y = cloud()
    x = (x - x.mean(0)) / x.std(0)
    dense, sparse = (bars.fit_logistic(rows, y, torch.ones(90), 3, 0.01) for rows in (x, ngrams(x)))
    torch.testing.assert_close(sparse[0][:, 1:], dense[0], rtol=0, atol=2e-3)
    assert not sparse[0][:, 0].any(), "padding has no weight"
    unknown = torch.tensor([[[77.0, 2.0], [5.0, 0.5]]])
    torch.testing.assert_close(bars.scores(unknown, *sparse), sparse[0][:, 2][None] / 2 + sparse[1])


def test_logistic_regression_standardises_and_judges_by_the_other_folds() -> None:
    x, y = cloud()
    method = create("logistic-regression", 90, 3, strength=0.1, folds=3)
    torch.manual_seed(0)
    method.fit(Data.of(x, y))
    standard = ((x.double() - x.double().mean(0)) / x.double().std(0, correction=0)).float()
    theirs = TheirRegression(C=1 / (90 * 0.1), tol=1e-8, max_iter=5000).fit(standard, y)
    expected = torch.tensor(theirs.predict_proba(standard)).float()
    torch.testing.assert_close(method(x).softmax(1), expected, rtol=0, atol=1e-3)

    torch.manual_seed(0)
    fold = torch.randperm(90) % 3
    suspicion, right = torch.zeros(90), 0.0
    for part in range(3):
        rest, held = fold != part, fold == part
        theirs = TheirRegression(C=1 / (60 * 0.1), tol=1e-8, max_iter=5000).fit(standard[rest], y[rest])
        p = torch.tensor(theirs.predict_proba(standard[held])).float()
        suspicion[held] = 1 - p[torch.arange(30), y[held]]
        right = right if part else float((p.argmax(1) == y[held]).float().mean())
    torch.testing.assert_close(method.suspicion(), suspicion, rtol=0, atol=1e-3)
    assert method.chosen() == pytest.approx({"strength": 0.1, "validation_accuracy": right})


def test_the_strength_is_the_one_that_held_out_given_labels_favour(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    quality = {3.0: 0.5, 2.0: 0.5, 1.0: 0.5, 0.1: 0.8, 0.01: 0.8, 0.001: 0.7, 1e-4: 0.7, 1e-5: 0.9}

    def fitted(rows: Tensor, y: Tensor, share: Tensor, classes: int, strength: float, **rest: Any) -> Any:
        seen.append(strength)
        return torch.zeros(2, 1), torch.tensor([quality[strength], 0.0])

    def judged(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        right = torch.arange(len(rows)) < round(float(bias[0]) * len(rows))
        return torch.stack([right.float(), 0.5 * torch.ones(len(rows))], 1)

    monkeypatch.setattr(bars, "fit_logistic", fitted)
    monkeypatch.setattr(bars, "scores", judged)
    method = create("logistic-regression", 100, 2, strength=list(quality), folds=10)
    method.fit(Data.of(torch.randn(100, 1), torch.zeros(100, dtype=torch.int64)))
    assert method.chosen() == pytest.approx({"strength": 0.1, "validation_accuracy": 0.8}), "of equals the strongest"
    assert seen[:8] == [*list(quality)[:7], 0.1], "two in a row that are worse end the search, equals do not"


def test_neighbours_vote_by_hand() -> None:
    x = torch.tensor([[1.0, 1.0], [1.0, 1.2], [1.2, 1.0], [-1.0, -1.0], [-1.0, -1.3], [-1.2, -0.9]])
    y = torch.tensor([0, 0, 1, 1, 1, 1])  # the third is wrong
    method = create("knn", 6, 2, k=2)
    method.fit(Data.of(x, y))
    own = [(2 - 1 + 0.5) / 3, (2 - 1 + 0.5) / 3, 0.5 / 3, 2.5 / 3, 2.5 / 3, 2.5 / 3]  # (votes + 1/2) / 3
    torch.testing.assert_close(method.suspicion(), 1 - torch.tensor(own))
    found = method(torch.tensor([[5.0, 5.0], [-1.0, -1.0]])).exp()
    torch.testing.assert_close(found[1], torch.tensor([0.5 / 3, 2.5 / 3]))
    assert found[0].sum().item() == pytest.approx(1)
    assert method.chosen() == pytest.approx({"k": 2, "leave_one_out_accuracy": 5 / 6}), "ties: the first class"


def test_k_is_the_one_with_which_the_others_predict_best() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    x = torch.randn(120, 3, generator=generator) + 3 * torch.eye(2, 3)[y]
    given = torch.where(torch.rand(120, generator=generator) < 0.2, 1 - y, y)
    method = create("knn", 120, 2)
    method.fit(Data.of(x, given))
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    unit = nn.functional.normalize(standard)
    order = (unit @ unit.T).fill_diagonal_(-9).argsort(1, descending=True)
    scores = {}
    for k in (1, 3, 5, 10, 20, 50, 100, 119):
        votes = nn.functional.one_hot(given[order[:, :k]], 2).sum(1)
        scores[k] = (float((votes.argmax(1) == given).float().mean()), k)
    right, k = max(scores.values())
    assert method.chosen() == pytest.approx({"k": k, "leave_one_out_accuracy": right})
    assert k > 1


@pytest.mark.parametrize("name", ["logistic-regression", "knn"])
def test_what_was_fitted_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    x, y = cloud(60)
    method = create(name, 60, 3)
    torch.manual_seed(7)
    random = torch.random.get_rng_state()
    fit(method, Data.of(x, y), epochs=9, checkpoint=tmp_path / "c.safetensors")
    assert torch.equal(random, torch.random.get_rng_state())
    again = create(name, 60, 3)
    with pytest.raises(UnswayedError, match="call fit first"):
        again(x)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again(x), method(x))
    assert torch.equal(again.suspicion(), method.suspicion())
    assert again.chosen() == method.chosen()
    assert not list(method.parameters()), "neither body nor head takes part"


@pytest.mark.parametrize("name", ["logistic-regression", "knn"])
def test_images_are_flattened(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(80) % 2
    images = torch.randint(0, 100, (80, 1, 4, 4), dtype=torch.uint8, generator=generator)
    images[y == 1, :, :2] += 120
    method = create(name, 80, 2)
    fit(method, Data.of(images, y))
    assert torch.equal(predict(method, images).argmax(1), y)


def test_texts_are_ngrams_for_the_one_and_need_an_encoder_for_the_other(tmp_path: Path) -> None:
    texts = [f"{'good fine' if i % 2 else 'bad poor'} {i}" for i in range(60)]
    labels = [i % 2 for i in range(60)]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{t},{c}\n" for t, c in zip(texts, labels, strict=True)))
    config = Config(str(tmp_path / "t.csv"), arm="logistic-regression")
    found = run(config)
    assert found.summary["test"]["last"] == 1.0
    assert found.summary["parameters"] == 0
    with pytest.raises(UnswayedError, match="--encoder"):
        run(Config(str(tmp_path / "t.csv"), arm="knn"))


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("knn", {"k": 0}, "k"),
        ("logistic-regression", {"folds": 1}, "folds"),
        ("logistic-regression", {"strength": []}, "one strength"),
        ("logistic-regression", {"strength": [-1.0]}, "strength"),
        ("logistic-regression", {"strength": "strong"}, "strength"),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UnswayedError, match=says):
        create(name, 10, 2, **settings)


@pytest.mark.parametrize("name", ["logistic-regression", "knn"])
def test_rows_that_do_not_fit_into_memory_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "MOST_BYTES", 1000)
    x, y = cloud()
    with pytest.raises(UnswayedError, match="--limit"):
        create(name, 90, 3).fit(Data.of(x, y))


def test_a_run_scores_them_as_it_does_all_methods(tmp_path: Path) -> None:
    dataset = data.read("digits")
    for arm, least in (("logistic-regression", 0.85), ("knn", 0.93)):
        config = Config("digits", arm=arm, noise="symmetric", rate=0.3, limit=800)
        summary = run(config, dataset=dataset, folder=tmp_path / arm).summary
        assert summary["test"]["last"] == summary["test"]["best"] > least
        assert summary["test"]["best_epoch"] == 0
        assert summary["suspicion"]["auroc"] > 0.9
        assert abs(summary["noise_rate"]["estimated"] - 0.3) < 0.1
        assert summary["history"] == []
        resumed = run(config, dataset=dataset, folder=tmp_path / arm, resume=True).summary
        assert resumed["test"] == summary["test"]


def test_they_are_methods() -> None:
    assert issubclass(bars.LogisticRegression, Method)
    assert np.all(np.diff(bars.STRENGTHS) < 0)
