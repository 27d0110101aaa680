"""A fitted classifier as one safetensors file, and back: numbers and plain JSON, nothing that is executed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unswayed.checkpoint import read_state, write_state
from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset, Split
from unswayed.errors import UnswayedError
from unswayed.estimator.network import keep_predictor
from unswayed.estimator.rows import Rows
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.run import build
from unswayed.experiment.task import Task
from unswayed.method import Method
from unswayed.version import __version__

KIND, FORMAT = "unswayed.RobustClassifier", 1
FACTS = (
    *("method_", "reason_", "seed_", "chosen_", "training_accuracy_", "noise_rate_", "noise_interval_"),
    *("n_features_in_", "feature_names_in_", "class_count_", "_versions"),
)


def write_fitted(path: Path, fitted: Any) -> None:
    """Save a fitted classifier; what of its parameters is no plain data (a random state) is left out."""
    classes = fitted.classes_
    about = {
        "kind": KIND,
        "format": FORMAT,
        "unswayed": __version__,
        "parameters": {name: plain(value) for name, value in fitted.get_params().items() if _is_plain(value)},
        "classes": {"type": classes.dtype.str, "values": classes.tolist()},
        "rows": fitted._rows.about(),
        "config": fitted._run.as_json(),
        "facts": {name: plain(getattr(fitted, name)) for name in FACTS if hasattr(fitted, name)},
    }
    tensors = {
        "suspicion": torch.from_numpy(fitted.suspicion_),
        "suggested": torch.from_numpy(np.searchsorted(classes, fitted.suggested_labels_)),
        "noise": torch.from_numpy(fitted.noise_matrix_),
    }
    tensors |= {f"rows/{name}": value for name, value in fitted._rows.state_dict().items()}
    tensors |= {f"method/{name}": value for name, value in fitted._method.state_dict().items()}
    write_state(path, tensors, about)


def read_fitted(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `write_fitted` wrote: the parameters, and all that fitting sets. Another file raises UnswayedError."""
    if not path.is_file():
        raise UnswayedError("a file written by RobustClassifier.save", got=f"no file at {path}", do="check the path")
    try:
        tensors, about = read_state(path)
    except ValueError as error:
        do = "save the classifier anew"
        raise UnswayedError("a file written by RobustClassifier.save", got=f"{path}: {error}", do=do) from error
    kind, made = (about.get("kind"), about.get("format")) if isinstance(about, dict) else (None, None)
    if kind != KIND:
        do = "for the checkpoint of a run, use the commands of `unswayed`"
        raise UnswayedError("a file written by RobustClassifier.save", got=f"{path}, which holds something else", do=do)
    if made != FORMAT:
        do = f"read it with unswayed {about.get('unswayed')}"
        raise UnswayedError(f"a classifier of format {FORMAT}", got=f"format {made} in {path}", do=do)
    try:
        return about["parameters"], _fitted(tensors, about)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnswayedError("a whole file of a classifier", got=f"{path}: {reason}", do="save it anew") from error


def _fitted(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    classes = np.array(about["classes"]["values"], dtype=np.dtype(about["classes"]["type"]))
    settings = about["rows"]
    rows = Rows(tuple(settings.pop("shape")), **settings)
    rows.load_state_dict(_below("rows/", tensors))
    config, facts = Config(**about["config"]), about["facts"]
    facts["class_count_"] = np.array(facts["class_count_"])
    if "feature_names_in_" in facts:
        facts["feature_names_in_"] = np.array(facts["feature_names_in_"], dtype=object)
    if facts.get("noise_interval_"):
        facts["noise_interval_"] = tuple(facts["noise_interval_"])
    method = _method(config, rows, len(classes), _below("method/", tensors))
    return {
        **facts,
        "classes_": classes,
        "suspicion_": tensors["suspicion"].numpy(),
        "suggested_labels_": classes[tensors["suggested"].numpy()],
        "noise_matrix_": tensors["noise"].numpy(),
        "audit_": None,
        "_rows": rows,
        "_method": method,
        "_run": config,
    }


def _method(config: Config, rows: Rows, classes: int, state: dict[str, Tensor]) -> Method:
    """The method as it was built for training, on two rows of zeros, with the weights that it ended with."""
    x = TensorColumn(rows.read(np.zeros((2, *rows.shape), dtype=np.uint8)))
    split = Split(x, torch.tensor([0, 1]), None, torch.arange(2))
    dataset = Dataset("arrays", rows.kind, tuple(map(str, range(classes))), split, None)
    arm = parse_arm(config.arm)
    body = {name: value for name, value in arm.settings.get("body", {}).items() if name != "pretrained"}  # no download
    task = Task(dataset, split, None, "given", None, torch.zeros(0, dtype=torch.int64))
    method = keep_predictor(build(config, replace(arm, settings=arm.settings | {"body": body}), task), rows.kind)
    method.load_state_dict(state)
    return method


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's own."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | np.generic)
