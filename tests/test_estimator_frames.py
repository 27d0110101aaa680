"""RobustClassifier among frames, pipelines, searches and validation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from unswayed import RobustClassifier

COLUMNS = ["sepal length", "sepal width", "petal length", "petal width"]


def quick(method: str = "gce", **settings: Any) -> RobustClassifier:
    return RobustClassifier(method, **{"audit": False, "epochs": 12, "random_state": 0, "net": "identity", **settings})


def iris(frame: str = "numpy") -> tuple[Any, Any]:
    x, y = load_iris(return_X_y=True)
    words = np.array(["setosa", "versicolor", "virginica"])[y]
    if frame == "pandas":
        return pandas.DataFrame(x, columns=COLUMNS), pandas.Series(words, name="species")
    if frame == "polars":
        return polars.DataFrame(x, schema=COLUMNS), polars.Series("species", words)
    return x, words


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_frames_are_the_arrays_that_they_hold(frame: str) -> None:
    x, y = iris()
    expected = quick().fit(x, y).predict_proba(x)
    rows, labels = iris(frame)
    fitted = quick().fit(rows, labels)
    assert fitted.feature_names_in_.tolist() == COLUMNS
    assert fitted.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert (fitted.predict_proba(rows) == expected).all()
    assert fitted.predict(rows[:3]).tolist() == ["setosa"] * 3
    renamed = rows.rename(columns={COLUMNS[0]: "length"}) if frame == "pandas" else rows.rename({COLUMNS[0]: "length"})
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(renamed)


@pytest.mark.parametrize("dtype", ["category", "string", "object", "Int64"])
def test_labels_of_every_pandas_type(dtype: str) -> None:
    x, y = iris("pandas")
    labels = (
        y.map({"setosa": 3, "versicolor": 1, "virginica": 2}).astype(dtype) if dtype == "Int64" else y.astype(dtype)
    )
    fitted = quick(epochs=2).fit(x, labels)
    assert fitted.classes_.tolist() == ([1, 2, 3] if dtype == "Int64" else ["setosa", "versicolor", "virginica"])
    assert set(fitted.predict(x)) <= set(labels)


def test_numbers_of_pandas_own_types_and_truth_values() -> None:
    x, y = iris("pandas")
    mixed = x.assign(big=x["sepal width"] > 3, count=pandas.array(range(150), dtype="Int64"))
    assert quick().fit(mixed, y).score(mixed, y) > 0.6
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(mixed.astype("Float64").mask(mixed["big"]), y)


def test_a_pipeline_with_words_in_columns() -> None:
    x, y = iris("pandas")
    x["colour"] = np.where(y == "setosa", "blue", "white")
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["colour"]), remainder=StandardScaler()), quick()
    ).fit(x, y)
    assert model.score(x, y) > 0.7
    assert model[-1].suspicion_.shape == (150,)


def test_validation_and_search() -> None:
    x, y = iris()
    assert cross_val_predict(quick(), x, y, cv=3, method="predict_proba").shape == (150, 3)
    assert cross_val_score(quick(), x, y, cv=3).mean() > 0.7
    grid = {
        "robust__head": ["linear", "edge-masked(keep=.5)"],
        "robust__lr": np.logspace(-3, -1, 2),
        "robust__epochs": np.array([2, 12]),
    }
    pipeline = Pipeline([("scale", StandardScaler()), ("robust", quick())])
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.7
    assert search.best_params_["robust__lr"] == 0.1
    assert search.best_estimator_[-1].method_.startswith("gce ")


def test_an_unknown_name_in_a_search_is_told_by_name() -> None:
    x, y = iris()
    with pytest.raises(ValueError, match="did you mean edge-masked"):
        GridSearchCV(quick(), {"head": ["edge-maskd"]}, cv=2, error_score="raise").fit(x, y)


def test_a_committee_with_others() -> None:
    x, y = iris()
    committee = VotingClassifier(
        [("robust", quick()), ("plain", LogisticRegression(max_iter=1000))], voting="soft"
    ).fit(x, y)
    assert committee.score(x, y) > 0.9


def test_processes_of_joblib_give_the_same() -> None:
    x, y = iris()
    alone = cross_val_predict(quick(epochs=3), x, y, cv=2, method="predict_proba")
    assert (cross_val_predict(quick(epochs=3), x, y, cv=2, method="predict_proba", n_jobs=2) == alone).all()


def test_frames_are_not_needed() -> None:
    """Neither frame library is imported by fitting arrays, and importing the package imports no scikit-learn."""
    script = (
        "import sys, unswayed; assert 'sklearn' not in sys.modules; import numpy as np; "
        "c = unswayed.RobustClassifier('gce', audit=False, epochs=1).fit(np.eye(8), [0, 1] * 4); "
        "assert 'polars' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    text = (Path(__file__).parents[1] / "docs" / "estimator.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    wrong = np.arange(300) < 30
    names: dict[str, Any] = {"X": x, "y": np.where(wrong, (y + 1) % 10, y)}
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "docs/estimator.md", "exec"), names)
    assert wrong[names["suspects"][:30]].mean() > 0.8
    assert np.allclose(names["probabilities"], names["classifier"].predict_proba(x), atol=1e-5)
    assert (tmp_path / "README.md").read_text().count("Handwritten digits") == 1
