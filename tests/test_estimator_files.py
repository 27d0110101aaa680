"""Files of a fitted classifier: safetensors, ONNX, pickles and model cards."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits, load_iris
from torch import nn

from unswayed import RobustClassifier, UnswayedError, methods
from unswayed.checkpoint import read_state, write_state
from unswayed.estimator import export


def table() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_iris(return_X_y=True)
    return x, np.array(["setosa", "versicolor", "virginica"])[y]


def pictures() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images[:120] * 15).astype(np.uint8), data.target[:120]


def fit(method: str = "gce", *, image: bool = False, **settings: Any) -> tuple[RobustClassifier, np.ndarray]:
    x, y = pictures() if image else table()
    settings = {"audit": False, "epochs": 2, "random_state": 0, **settings}
    return RobustClassifier(method, **settings).fit(x, y), x


ARMS: list[dict[str, Any]] = [
    {"method": "plain"},
    {"method": "gce", "head": "edge-masked(keep=.3)"},
    {"method": "gce", "head": "edge-masked(keep=.3, at_test=true)"},
    {"method": "plain", "head": "kan(norm=batch)", "net": "mlp(widths=16)"},
    {"method": "plain", "head": "kan(order=2)", "net": "identity"},
    {"method": "plain", "head": "edge-masked-kan-rbf", "net": "mlp(widths=16x8)"},
    {"method": "elr"},
    {"method": "sop"},
    {"method": "co-teaching"},
    {"method": "ido"},
    {"method": "logistic-regression"},
    {"method": "gce", "image": True},
    {"method": "gce", "net": "cnn-small", "head": "edge-masked-kan", "epochs": 1, "image": True},
]


def _mark(arm: dict[str, Any]) -> list[pytest.MarkDecorator]:
    """An export takes two seconds: every head, a loss with a state and a convolution in the fast tests, else later."""
    fast = {"edge-masked(keep=.3, at_test=true)", "kan(order=2)", "edge-masked-kan"}
    return [] if arm.get("head") in fast or arm["method"] == "sop" else [pytest.mark.slow]


def named(arm: dict[str, Any]) -> str:
    return " ".join(str(value) for value in arm.values())


@pytest.mark.parametrize("arm", [*ARMS, {"method": "knn"}], ids=named)
def test_saved_and_loaded_it_predicts_the_same_bits(arm: dict[str, Any], tmp_path: Path) -> None:
    fitted, x = fit(**arm)
    again = RobustClassifier.load(fitted.save(tmp_path / "model.safetensors"))
    assert (again.predict_proba(x) == fitted.predict_proba(x)).all()
    assert (again.predict(x) == fitted.predict(x)).all()
    for name in ("suspicion_", "suggested_labels_", "noise_matrix_", "classes_", "class_count_"):
        assert np.array_equal(getattr(again, name), getattr(fitted, name)), name
        assert getattr(again, name).dtype == getattr(fitted, name).dtype, name
    for name in ("method_", "reason_", "seed_", "chosen_", "noise_rate_", "noise_interval_", "training_accuracy_"):
        assert getattr(again, name) == getattr(fitted, name), name
    assert again.get_params() == fitted.get_params()
    assert again.save(tmp_path / "twice.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", methods.names())
def test_every_method_can_be_saved_loaded_and_pickled(method: str, tmp_path: Path) -> None:
    fitted, x = fit("bilevel(trusted=[0, 1, 50, 51, 100, 101])" if method == "bilevel" else method)
    again = RobustClassifier.load(fitted.save(tmp_path / "model.safetensors"))
    assert (again.predict_proba(x) == fitted.predict_proba(x)).all()
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(x) == fitted.predict_proba(x)).all()
    if method != "knn":
        fitted.to_onnx(tmp_path / "model.onnx")


def test_the_memory_of_training_rows_is_not_kept(tmp_path: Path) -> None:
    fitted, x = fit("sop", epochs=1)
    tensors = load_file(fitted.save(tmp_path / "model.safetensors"))
    rows = [name for name, value in tensors.items() if value.dim() and len(value) == len(x)]
    assert sorted(rows) == ["suggested", "suspicion"]


def test_an_audit_and_names_of_columns_are_kept(tmp_path: Path) -> None:
    x, y = table()
    frame = pandas.DataFrame(x, columns=["a", "b", "c", "d"])
    fitted = RobustClassifier(random_state=np.random.RandomState(0), epochs=2).fit(frame, y)
    again = RobustClassifier.load(fitted.save(tmp_path / "model.safetensors"))
    assert again.feature_names_in_.tolist() == list("abcd")
    assert again.noise_interval_ == fitted.noise_interval_
    assert again.audit_ is None
    assert (again.random_state, again.seed_) == (None, fitted.seed_)  # the state itself is no plain data
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame.rename(columns={"a": "z"}))


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [([-1, 7, 30], int), ([1.0, 2.0, 4.0], float), (["ä", "b|c", "d\ne"], str), (["x", "yz"], object), ([0, 1], bool)],
)
def test_classes_of_every_type_come_back(classes: list[Any], dtype: type, tmp_path: Path) -> None:
    x, _ = table()
    y = np.array(classes)[np.arange(150) % len(classes)].astype(dtype)
    fitted = RobustClassifier("knn", audit=False).fit(x, y)
    again = RobustClassifier.load(fitted.save(tmp_path / "model.safetensors"))
    assert again.classes_.dtype == fitted.classes_.dtype
    assert again.predict(x).tolist() == fitted.predict(x).tolist()


def test_a_pickle_works_too_and_is_portable() -> None:
    fitted, x = fit("gce", head="edge-masked-kan", epochs=1)
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    again = joblib.load(file)
    assert (again.predict_proba(x) == fitted.predict_proba(x)).all()
    assert all(p.device.type == "cpu" for p in again._method.parameters())


def test_loading_executes_nothing_and_needs_no_pickle(tmp_path: Path) -> None:
    fitted, _ = fit("plain", epochs=1)
    path = fitted.save(tmp_path / "model.safetensors")
    script = (
        "import pickle, sys\n"
        "def no(*a, **k): raise AssertionError('a pickle')\n"
        "import unswayed, sklearn.base, torch\n"
        "estimator = unswayed.RobustClassifier\n"
        "pickle.load = pickle.loads = pickle.Unpickler = torch.load = no\n"
        f"print(estimator.load({str(path)!r}).predict([[5.0, 3.0, 1.5, 0.2]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    tensors, about = read_state(path)
    about["config"]["arm"] = "plain(__import__('os').system('true'))"
    write_state(path, tensors, about)
    with pytest.raises(UnswayedError):
        RobustClassifier.load(path)


# ------------------------------------------------------------------------------------------------- damaged and foreign


def spoil(path: Path, change: Any) -> None:
    tensors, about = read_state(path)
    change(tensors, about)
    write_state(path, tensors, about)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, a: a.update(kind="other"), "holds something else"),
        (lambda t, a: a.update(format=99, unswayed="9.9"), "but got format 99 .*; read it with unswayed 9.9"),
        (lambda t, a: t.pop("method/net.head.weight"), "a whole file of a classifier"),
        (lambda t, a: t.update({"method/net.head.weight": torch.zeros(2, 2)}), "a whole file of a classifier"),
        (lambda t, a: t.pop("suspicion"), "a whole file of a classifier"),
        (lambda t, a: a.pop("config"), "a whole file of a classifier"),
        (lambda t, a: a["config"].update(arm="nosuch"), "nosuch"),
        (lambda t, a: a["rows"].update(shape=[5]), "a whole file of a classifier"),
        (lambda t, a: a["classes"].update(type="|V8"), "a whole file of a classifier"),
        (lambda t, a: a["classes"].update(values=[["a"], {"b": 1}]), "a whole file of a classifier"),
        (lambda t, a: a.update(facts=[]), "a whole file of a classifier"),
    ],
)
def test_damaged_files_say_so(change: Any, said: str, tmp_path: Path) -> None:
    path = fit("plain", epochs=1)[0].save(tmp_path / "model.safetensors")
    spoil(path, change)
    with pytest.raises(UnswayedError, match=said):
        RobustClassifier.load(path)


def test_foreign_and_broken_files_say_so(tmp_path: Path) -> None:
    path = fit("plain", epochs=1)[0].save(tmp_path / "model.safetensors")
    whole = path.read_bytes()
    others = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"a pickle it is not",
        "pickle": pickle.dumps({"a": 1}),
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnswayedError, match=r"a file written by RobustClassifier\.save"):
            RobustClassifier.load(tmp_path / name)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    save_file({"a": torch.zeros(1)}, tmp_path / "no json", metadata={"about": "{"})
    write_state(tmp_path / "run", {}, {"position": 1})
    write_state(tmp_path / "list", {}, [])  # type: ignore[arg-type]
    for name in ("foreign", "no json", "run", "list", "missing", "."):
        with pytest.raises(UnswayedError, match=r"a file written by RobustClassifier\.save"):
            RobustClassifier.load(tmp_path / name)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    fitted, _ = fit("knn")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnswayedError, match="a folder that can be written"):
        fitted.save(tmp_path / "file" / "model.safetensors")


# ---------------------------------------------------------------------------------------------------------------- onnx


@pytest.mark.parametrize("arm", [pytest.param(arm, marks=_mark(arm), id=named(arm)) for arm in ARMS])
def test_onnx_says_the_same(arm: dict[str, Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    fitted, x = fit(**arm)
    path = fitted.to_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = x if arm.get("image") else x.astype(np.float32)
    for count in (1, 3, 100):
        (found,) = session.run(["probabilities"], {"rows": rows[:count]})
        assert found.dtype == np.float32
        assert np.allclose(found, fitted.predict_proba(rows[:count]), atol=1e-5)
    classes = session.get_modelmeta().custom_metadata_map["classes"]
    assert json.loads(classes) == [str(name) for name in fitted.classes_.tolist()]


@pytest.mark.parametrize("form", ["grey fractions", "channels last", "numbers"])
def test_onnx_takes_images_as_they_were_given(form: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    x, y = pictures()
    x = {"grey fractions": x / 255, "channels last": np.stack([x] * 3, -1), "numbers": x.astype(np.float32)}[form]
    fitted = RobustClassifier("gce", audit=False, epochs=1, random_state=0).fit(x, y)
    session = runtime.InferenceSession(str(fitted.to_onnx(tmp_path / "model.onnx")))
    rows = x if x.dtype == np.uint8 else x.astype(np.float32)
    (found,) = session.run(None, {"rows": rows})
    assert np.allclose(found, fitted.predict_proba(rows), atol=1e-5)


def test_onnx_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    fitted, _ = fit("plain", epochs=1)
    convert = export._convert

    def other(whole: nn.Module, example: torch.Tensor) -> Any:
        with torch.no_grad():
            whole.method.net.head.bias += torch.tensor([0.1, 0.0, 0.0])  # type: ignore[union-attr, operator]
        return convert(whole, example)

    monkeypatch.setattr(export, "_convert", other)
    with pytest.raises(UnswayedError, match=r"agrees to 0\.0001, but got a difference of 0\.0"):
        fitted.to_onnx(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_onnx_that_cannot_be_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnswayedError, match="knn, whose model is the training rows"):
        fit("knn")[0].to_onnx(tmp_path / "model.onnx")
    fitted, _ = fit("plain", epochs=1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnswayedError, match=r"pip install 'unswayed\[onnx\]'"):
        fitted.to_onnx(tmp_path / "model.onnx")


def test_exporting_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    fitted, x = fit("gce", head="edge-masked-kan", epochs=1)
    before, attributes = fitted.predict_proba(x), sorted(vars(fitted))
    fitted.to_onnx(tmp_path / "model.onnx")
    fitted.model_card(tmp_path / "card.md")
    assert (fitted.predict_proba(x) == before).all()
    assert sorted(vars(fitted)) == attributes


# --------------------------------------------------------------------------------------------------------------- cards


def card_of(fitted: RobustClassifier, path: Path, **settings: Any) -> tuple[dict[str, Any], str]:
    yaml = pytest.importorskip("yaml")
    text = fitted.model_card(path, **settings).read_text(encoding="utf-8")
    empty, front, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def test_a_card_says_what_is_known(tmp_path: Path) -> None:
    x, y = table()
    frame = pandas.DataFrame(x, columns=["a", "b", "c", "d|e"])
    fitted = RobustClassifier("gce", head="edge-masked(keep=.2)", epochs=3, random_state=7).fit(frame, y)
    front, body = card_of(fitted, tmp_path / "card.md", name="Iris", data="Fisher's flowers, 1936.")
    assert front["library_name"] == "unswayed"
    assert front["pipeline_tag"] == "tabular-classification"
    assert "model-index" not in front  # no test, no claim
    low, high = fitted.noise_interval_
    for said in (
        "# Iris",
        "Fisher's flowers, 1936.",
        "150 training rows of shape [N, 4]",
        "a, b, c, d|e",
        "setosa (50 rows)",
        "`gce edge-masked(keep=.2)`: named by the user",
        "| epochs | 3 |",
        "| seed | 7 |",
        f"against their given labels: {fitted.training_accuracy_:.1%}",
        f"{fitted.noise_rate_:.1%} (95 % interval {low:.1%} to {high:.1%})",
        "## Limits",
        f"torch {torch.__version__}",
        'RobustClassifier.load("FILE")',
    ):
        assert said in body, said


def test_a_card_of_images_without_an_audit_claims_no_interval(tmp_path: Path) -> None:
    fitted, _ = fit("plain", image=True)
    front, body = card_of(fitted, tmp_path / "card.md")
    assert front["pipeline_tag"] == "image-classification"
    assert "Where the data come from was not said." in body
    assert "no audit was made" in body
    assert "interval 0" not in body


def test_names_cannot_break_a_card(tmp_path: Path) -> None:
    x, _ = table()
    y = np.array(["---\ntags: [evil]", "# title", "a|b"])[np.arange(150) % 3]
    fitted = RobustClassifier("knn", audit=False).fit(x, y)
    front, body = card_of(fitted, tmp_path / "card.md", name="---\nlicense: mit", data="# shout")
    assert "license" not in front
    assert "\n# title" not in body
    assert "| a\\|b |" in body


def test_a_card_of_many_classes_is_short(tmp_path: Path) -> None:
    x = np.random.RandomState(0).rand(200, 3)
    fitted = RobustClassifier("knn", audit=False).fit(x, np.arange(200) % 100)
    _, body = card_of(fitted, tmp_path / "card.md")
    assert "and 80 more" in body
    assert "true class" not in body


def test_a_loaded_classifier_writes_the_same_card(tmp_path: Path) -> None:
    fitted, _ = fit("tuned", epochs=1)
    again = RobustClassifier.load(fitted.save(tmp_path / "model.safetensors"))
    first, second = (one.model_card(tmp_path / name) for one, name in ((fitted, "a.md"), (again, "b.md")))
    assert first.read_text() == second.read_text()
