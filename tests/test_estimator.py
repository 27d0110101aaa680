"""RobustClassifier as scikit-learn knows a classifier: its checks, and what ours adds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from unswayed import RobustClassifier, UnswayedError, auditing, methods
from unswayed.auditing import Audit
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.run import draft


@parametrize_with_checks([RobustClassifier()])
def test_sklearn_checks(estimator: RobustClassifier, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        RobustClassifier("gce", head="edge-masked-kan(norm=batch)", audit=False),
        RobustClassifier("ido", audit=False),
        RobustClassifier("co-teaching", audit=False),
        RobustClassifier("logistic-regression", audit=False),
        RobustClassifier("knn", audit=False),
    ]
)
def test_sklearn_checks_of_other_arms(estimator: RobustClassifier, check: Any) -> None:
    check(estimator)


def test_sklearn_check_that_asks_for_an_environment() -> None:
    """scikit-learn skips its check of array-API dispatch unless SciPy was told at its import."""
    script = (
        "from sklearn.utils.estimator_checks import check_array_api_input; from unswayed import RobustClassifier; "
        "estimator = RobustClassifier('knn', audit=False, random_state=0); "
        "check_array_api_input('RobustClassifier', estimator, 'numpy', expect_only_array_outputs=False)"
    )
    environment = os.environ | {"SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def blobs(rows: int = 120, wrong: int = 0, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, given labels as words, and which of these are wrong (the first ones)."""
    x, y = make_blobs(rows, centers=classes, cluster_std=0.7, random_state=1)
    given = np.where(np.arange(rows) < wrong, (y + 1) % classes, y)
    return x, np.array(["ant", "bee", "cat", "dog"])[given], given != y


def quick(method: str = "plain", **settings: Any) -> RobustClassifier:
    return RobustClassifier(method, **{"audit": False, "random_state": 0, **settings})


# --------------------------------------------------------------------------------------------------- what fitting gives


def test_fitted_attributes() -> None:
    x, y, wrong = blobs(wrong=12)
    fitted = RobustClassifier(random_state=0).fit(x, y)
    assert fitted.classes_.tolist() == ["ant", "bee", "cat"]
    assert fitted.class_count_.tolist() == [int((y == name).sum()) for name in fitted.classes_]
    assert fitted.n_features_in_ == 2
    assert not hasattr(fitted, "feature_names_in_")
    assert isinstance(fitted.audit_, Audit)
    assert fitted.suspicion_.shape == (120,)
    assert roc_auc_score(wrong, fitted.suspicion_) > 0.95
    assert (fitted.suggested_labels_[~wrong] == y[~wrong]).mean() > 0.95
    assert (fitted.suggested_labels_[wrong] != y[wrong]).mean() > 0.7
    assert fitted.noise_matrix_.shape == (3, 3)
    assert np.allclose(fitted.noise_matrix_.sum(1), 1, atol=1e-5)
    low, high = fitted.noise_interval_
    assert low <= fitted.noise_rate_ <= high
    assert fitted.reason_
    assert np.allclose(fitted.audit_.suspicion.numpy(), fitted.suspicion_)
    fitted.set_params(method=fitted.method_).fit(x, y)  # what auto chose is a method by itself


def test_without_an_audit_the_beliefs_of_the_method_stand_in() -> None:
    x, y, wrong = blobs(wrong=12)
    fitted = quick("gce").fit(x, y)
    assert fitted.audit_ is None
    assert fitted.noise_interval_ is None
    assert fitted.method_ == "gce"
    assert fitted.reason_ == "named by the user"
    assert roc_auc_score(wrong, fitted.suspicion_) > 0.9
    assert 0.8 < fitted.training_accuracy_ < 0.95  # of the given labels, of which a tenth is wrong
    assert (fitted.suggested_labels_[wrong] != y[wrong]).mean() > 0.8


def test_auto_takes_the_method_that_is_advised_with_the_parts_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = auditing.audit, list[Any]()

    def audit(labels: Any, **evidence: Any) -> Audit:
        seen.append((evidence["features"].shape, evidence["classes"], evidence["kind"]))
        return replace(real(labels, **evidence), method="gce(q=.5)", verdict="because")

    monkeypatch.setattr(auditing, "audit", audit)
    x, y, _ = blobs()
    fitted = RobustClassifier(head="kan(grid=3, order=2)", net="mlp(widths=8)", epochs=2).fit(x, y)
    assert seen == [((120, 2), ("ant", "bee", "cat"), "table")]  # once, for the choice and the labels
    assert fitted.method_ == "gce(q=.5) kan(grid=3, order=2) mlp(widths=8)"
    assert fitted.reason_ == "because"
    assert fitted._method.net.head.order == 2
    assert fitted._method.net.features == 8
    assert RobustClassifier("auto identity", epochs=2).fit(x, y).method_ == "gce(q=.5) identity"


@pytest.mark.parametrize("method", methods.names())
def test_every_method_can_be_tried_before_the_data_are_looked_at(method: str) -> None:
    drafted = draft(parse_arm(method))
    assert type(drafted) is methods.get(method)
    assert sum(stage.epochs for stage in drafted.plan(2)) <= 2 * drafted.budget


def test_settings_reach_the_loop() -> None:
    x, y, _ = blobs()
    named = {"epochs": np.int64(3), "batch": 16, "optimizer": "adamw", "lr": np.float64(0.01), "weight_decay": 0.0}
    fitted = quick(**named).fit(x, y)
    settings = fitted._run.training("table", 120)
    assert {name: getattr(settings, name) for name in named} == named
    assert (settings.seed, settings.schedule) == (0, "cosine")


@pytest.mark.parametrize(("rows", "epochs"), [(30, 200), (120, 50), (2000, 20)])
def test_small_tables_are_shown_until_200_steps_are_made(rows: int, epochs: int) -> None:
    assert quick()._config(rows, "table").epochs == epochs
    assert quick(epochs=1)._config(rows, "table").epochs == 1


def test_verbose_tells_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    x, y, _ = blobs()
    quick(epochs=2).fit(x, y)
    assert capsys.readouterr().out == ""
    quick(epochs=2, verbose=1).fit(x, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14] for line in lines] == ["epoch 1 of 2 (", "epoch 2 of 2 ("]


def test_a_robust_loss_beats_plain_training_on_digits() -> None:
    x, y = (part[:900] for part in load_digits(return_X_y=True))
    flipped = np.random.RandomState(0).rand(len(y)) < 0.4
    given = np.where(flipped, (y + np.random.RandomState(1).randint(1, 10, len(y))) % 10, y)
    train, test = np.arange(len(y)) % 4 > 0, np.arange(len(y)) % 4 == 0
    scores = {m: quick(m, epochs=20).fit(x[train], given[train]).score(x[test], y[test]) for m in ("plain", "gce")}
    assert scores["gce"] > scores["plain"] + 0.1, scores


# ------------------------------------------------------------------------------------------------------- random numbers


def test_a_seed_decides_everything() -> None:
    x, y, _ = blobs(wrong=10)
    first, again, other = (quick("co-teaching", random_state=s).fit(x, y).predict_proba(x) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    states = [np.random.RandomState(5) for _ in range(2)]
    first, again = (quick(random_state=state).fit(x, y) for state in states)
    assert first.seed_ == again.seed_
    assert quick(random_state=states[0]).fit(x, y).seed_ != first.seed_  # a state goes on
    free = [quick(random_state=None, epochs=1).fit(x, y).seed_ for _ in range(2)]
    assert free[0] != free[1]


def test_global_state_stays_as_it_was() -> None:
    x, y, _ = blobs(wrong=10)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    for seed in (0, None):
        RobustClassifier(random_state=seed).fit(x, y).predict(x)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.get_num_threads() == before[2]


def test_threads_that_fit_at_once_do_not_disturb_each_other() -> None:
    from joblib import Parallel, delayed

    x, y, _ = blobs()
    alone = [quick("co-teaching", random_state=s, epochs=5).fit(x, y).predict_proba(x) for s in range(3)]
    tasks = (delayed(quick("co-teaching", random_state=s, epochs=5).fit)(x, y) for s in range(3))
    together = [found.predict_proba(x) for found in Parallel(n_jobs=3, backend="threading")(tasks)]
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


# --------------------------------------------------------------------------------------------------------------- images


def digits(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images[:rows] * 15).astype(np.uint8), data.target[:rows]


@pytest.mark.parametrize("form", ["grey", "channels first", "channels last", "fractions", "numbers"])
def test_images_in_any_usual_form_are_the_same_images(form: str) -> None:
    x, y = digits()
    forms = {
        "grey": x,
        "channels first": x[:, None],
        "channels last": x[..., None],
        "fractions": x / 255,
        "numbers": x.astype(np.int32),
    }
    expected = quick("gce", epochs=3).fit(x, y).predict_proba(x)
    fitted = quick("gce", epochs=3).fit(forms[form], y)
    assert fitted._rows.kind == "image"
    assert (fitted.predict_proba(forms[form]) == expected).all()
    part = forms[form][5:6]  # one image is read by the form of all
    assert np.allclose(fitted.predict_proba(part), expected[5:6], atol=1e-6)


def test_images_by_a_convolutional_net_with_an_audit() -> None:
    x, y = digits()
    given = np.where(np.arange(300) < 45, (y + 1) % 10, y)
    fitted = RobustClassifier("gce", net="cnn-small", epochs=3, random_state=0).fit(x, given)
    assert roc_auc_score(given != y, fitted.suspicion_) > 0.9
    assert fitted.predict_proba(x[:7]).shape == (7, 10)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:, :7], r"X of shape \[N, 8, 8\], but got \[300, 7, 8\]|8 features"),
        (lambda x: x[:, :, :7], r"X of shape \[N, 8, 8\], but got \[300, 8, 7\]"),
        (lambda x: x / 255, r"images of bytes, as in fit, but got an array of float64"),
        (lambda x: x.astype(int) - 1, r"images of numbers in 0..255, as in fit, but got -1"),
    ],
)
def test_other_images_than_in_training_are_refused(change: Any, said: str) -> None:
    x, y = digits()
    fitted = quick(epochs=1).fit(x, y)
    with pytest.raises(ValueError, match=said):
        fitted.predict(change(x))


def test_images_that_are_none() -> None:
    _, y = digits(20)
    for shape, said in (((20, 2, 3, 4, 5), "X as"), ((20, 5, 6, 7), "images as")):
        with pytest.raises(UnswayedError, match=said):
            quick().fit(np.zeros(shape), y)
    with pytest.raises(UnswayedError, match=r"pixels in 0..255"):
        quick().fit(np.full((20, 4, 4), 300.0), y)


# --------------------------------------------------------------------------------------------------------------- tables


def test_large_numbers_that_differ_little_keep_their_differences() -> None:
    x, y, _ = blobs()
    times = 1.6e9 + x  # whole hundreds apart in single precision
    assert quick().fit(times, y).score(times, y) == pytest.approx(quick().fit(x, y).score(x, y), abs=0.02)


def test_bytes_and_constant_columns_in_a_table() -> None:
    x, y, _ = blobs()
    small = np.round((x - x.min(0)) * 10).astype(np.uint8)
    fitted = quick().fit(np.c_[small, np.full(len(y), 7, np.uint8)], y)
    assert fitted.score(np.c_[small, np.full(len(y), 7)].astype(float), y) > 0.95


@pytest.mark.parametrize("classes", [[-1, 1], [3, 7], [0.0, 1.0], [False, True]])
def test_labels_of_other_types(classes: list[Any]) -> None:
    x, y, _ = blobs(classes=2)
    given = np.array(classes)[(y == "bee").astype(int)]
    fitted = quick("gce").fit(x, given)
    assert fitted.classes_.tolist() == classes
    assert fitted.predict(x).dtype == given.dtype
    assert fitted.score(x, given) > 0.95


@pytest.mark.parametrize("classes", [[1, 2, 3], [-1, 0, 1], [1.0, 2.0, 5.0]])
def test_the_audit_does_not_take_names_of_classes_for_their_places(classes: list[Any]) -> None:
    x, y, _ = blobs(wrong=12)
    words = RobustClassifier("knn", random_state=0).fit(x, y)
    numbers = RobustClassifier("knn", random_state=0).fit(x, np.array(classes)[np.unique(y, return_inverse=True)[1]])
    assert (numbers.suspicion_ == words.suspicion_).all()
    assert set(numbers.suggested_labels_) == set(classes)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "gcee"}, "did you mean gce"),
        ({"method": "plain", "loss": "kan"}, "loss is one of"),
        ({"method": "plain", "head": "gce"}, "head is one of"),
        ({"method": "plain", "net": "resnet81"}, "did you mean resnet18"),
        ({"method": "gce", "loss": "sce"}, "one loss an arm"),
        ({"method": "dividemix", "loss": "gce"}, "a method that takes a loss, but got dividemix"),
        ({"method": "co-teaching+", "head": "edge-masked(kep=.1)"}, "did you mean keep"),
        ({"method": "auto", "loss": "gce"}, "auto, which chooses method and loss by itself, but got gce"),
        ({"method": "plain", "net": 3}, "the net by its name, but got 3"),
        ({"method": "plain", "epochs": 0}, "epochs is 1 or more"),
        ({"method": "plain", "random_state": -1}, "seed is 0 or more"),
        ({"method": "plain", "device": "quantum"}, "a device that PyTorch can use here"),
        ({"method": "plain", "precision": "fp8"}, "precision is fp32, bf16 or fp16"),
    ],
)
def test_settings_that_do_not_fit_say_so(settings: dict[str, Any], said: str) -> None:
    x, y, _ = blobs(40)
    with pytest.raises(UnswayedError, match=said):
        RobustClassifier(**{"audit": False, **settings}).fit(x, y)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((6, 2)), ["a"] * 6, "labels of at least two classes, but got one class only, 'a'"),
        (np.zeros((1, 2)), ["a"], "1 sample"),
        (np.zeros((6, 2)), np.linspace(0, 1, 6), "Unknown label type"),
        (np.zeros((6, 2)), [0, 1, np.nan, 0, 1, 0], "Input y contains NaN"),
        (np.zeros((6, 2)), [0, 1, 0], "inconsistent numbers of samples"),
        (np.full((6, 2), np.nan), [0, 1] * 3, "Input X contains NaN"),
        (np.array([[1e200], [-1e200]] * 3), [0, 1] * 3, "numbers beyond 1e150"),
        ([["a", "b"]] * 6, [0, 1] * 3, "numeric"),
    ],
)
def test_data_that_do_not_fit_say_so(x: Any, y: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        quick().fit(x, y)


def test_numbers_far_beyond_those_of_training() -> None:
    x, y, _ = blobs(40)
    fitted = quick(epochs=1).fit(x, y)
    with pytest.raises(UnswayedError, match="within reach"):
        fitted.predict(x * 1e39)


def test_an_unfitted_classifier_says_so(tmp_path: Any) -> None:
    for call in ("save", "to_onnx", "model_card"):
        with pytest.raises(NotFittedError):
            getattr(RobustClassifier(), call)(tmp_path / "file")


def test_failing_fits_leave_the_classifier_as_it_was() -> None:
    x, y, _ = blobs(40)
    fitted = quick(epochs=2).fit(x, y)
    before = fitted.predict_proba(x)
    with pytest.raises(UnswayedError):
        fitted.set_params(lr=-1).fit(x, y)
    assert (fitted.predict_proba(x) == before).all()


def test_clones_are_unfitted_and_equal() -> None:
    x, y = load_iris(return_X_y=True)
    fitted = quick("gce", head="edge-masked(keep=.5)", epochs=2).fit(x, y)
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "classes_")
