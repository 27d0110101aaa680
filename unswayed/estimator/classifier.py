"""RobustClassifier: training on labels that cannot be trusted, as scikit-learn knows training."""

from __future__ import annotations

import copy
import tempfile
import threading
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from unswayed import auditing
from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset, Kind, Split
from unswayed.engine import Record
from unswayed.errors import UnswayedError
from unswayed.estimator.arms import join_arm, settle_arm
from unswayed.estimator.files import plain, read_fitted, write_fitted
from unswayed.estimator.network import keep_predictor
from unswayed.estimator.rows import Rows
from unswayed.experiment.arms import AUTO, parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.features import frozen
from unswayed.experiment.run import build, draft, train
from unswayed.experiment.scoring import beliefs_of
from unswayed.experiment.task import Task
from unswayed.machine import Place, find_place, versions
from unswayed.prediction import predict

FEWEST_STEPS = 200
_ONE_AT_A_TIME = threading.RLock()  # training draws from PyTorch's one generator, which it then puts back


class RobustClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier for labels of which some are wrong, that also says which.

    X is a table [N, d] of numbers (arrays, pandas and polars frames), or images [N, H, W], [N, C, H, W] or
    [N, H, W, C]; y any labels that scikit-learn takes, strings too. There is no `sample_weight`: half of the methods
    weigh or choose rows by themselves and would pass it over in silence.

    method   "auto": by the estimated noise and the size of the data, a robust method or plain training, whichever is
             better advised; or an arm as `unswayed train` takes it, "ido" or "gce edge-masked(keep=.2)".
    loss, head, net   names, each maybe with settings in brackets: "gce(q=.5)", "kan", "mlp(widths=64x32)".
    epochs, batch, optimizer, lr, momentum, weight_decay, schedule, clip, flip   as in `Config`; None: the default for
             the kind of data. Our choice: small data are shown until 200 steps are made, if `epochs` says no other.
    audit    whether `fit` audits the labels before it trains: every row is judged by the others, on the columns of a
             table or on features of images that no label took part in. Our choice: no network is trained in folds for
             it, as `unswayed audit` does, which takes several times as long. Without an audit what the method itself
             believes stands in, which is not calibrated.
             method="auto" needs the audit and makes it in any case.
    random_state   a number or a RandomState: decides everything that is drawn. None: fresh numbers every time. The
             global generators of NumPy and PyTorch stay as they were.
    device, precision   as in `Config`.
    verbose  1: a line an epoch.

    Fitted: `classes_`, `class_count_`, `n_features_in_`, `feature_names_in_` (of frames), `method_` (the arm that was
    trained) and `reason_` (why, in a sentence), `suspicion_` [N] (how probably each training label is wrong),
    `suggested_labels_` [N], `noise_matrix_` [K, K] (P(given | true), rows in the order of `classes_`), `noise_rate_`
    and `noise_interval_` (low and high; None without an audit), `audit_` (the whole `Audit`; None without one, and
    after `load`), `chosen_` (settings that the method found by itself), `training_accuracy_` (against the given
    labels), `seed_`.

    >>> X, y = np.array([[0.0], [0.1], [1.0], [1.1]] * 10), np.array(["low", "low", "high", "high"] * 10)
    >>> y[0] = "high"
    >>> found = RobustClassifier("gce", audit=False, random_state=0).fit(X, y)
    >>> found.predict([[0.05], [1.05]]).tolist(), found.suggested_labels_[:1].tolist()
    (['low', 'high'], ['low'])
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        loss: str | None = None,
        head: str | None = None,
        net: str | None = None,
        epochs: int | None = None,
        batch: int | None = None,
        optimizer: str | None = None,
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        schedule: str | None = None,
        clip: float | None = None,
        flip: bool | None = None,
        audit: bool = True,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        precision: str = "fp32",
        verbose: int = 0,
    ) -> None:
        self.method, self.loss, self.head, self.net = method, loss, head, net
        self.epochs, self.batch, self.optimizer, self.lr, self.momentum = epochs, batch, optimizer, lr, momentum
        self.weight_decay, self.schedule, self.clip, self.flip = weight_decay, schedule, clip, flip
        self.audit, self.random_state, self.device, self.precision = audit, random_state, device, precision
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X, [N, d] or images, with labels y, [N]; some of these may be wrong.

        Raises UnswayedError (a ValueError) for one class only, for fewer than 2 rows, and for settings that do not fit.
        """
        words = join_arm(self.method, self.loss, self.head, self.net)
        X, y = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise UnswayedError("labels of at least two classes", got=f"one class only, {classes.tolist()[0]!r}")
        rows, place = Rows.of(X), find_place(self.device, self.precision)
        given = torch.from_numpy(codes.astype(np.int64))
        task = _task(rows, X, given, tuple(str(name) for name in classes.tolist()))
        with _ONE_AT_A_TIME:
            self._fit(words, task, rows, place, classes)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, in the order of `classes_`: [M, ...] -> [M, K] float64."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)
        rows, place = self._rows.read(X), Place(torch.device("cpu"))
        method = self._method
        if self._rows.kind == "image" and (elsewhere := find_place(self.device)).device.type != "cpu":
            method, place = copy.deepcopy(method).to(elsewhere.device), elsewhere
        found: np.ndarray = predict(method, rows, place=place).cpu().double().softmax(1).numpy()
        return found

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of every row: [M, ...] -> [M]."""
        found: np.ndarray = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[found])

    # ------------------------------------------------------------------------------------------------------ files

    def save(self, path: str | Path) -> Path:
        """Write all that predicts, and what was found of the labels, to one safetensors file; no pickle.

        `audit_` is not in it: `audit_.save(folder)` keeps that.
        """
        check_is_fitted(self)
        write_fitted(Path(path), self)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The fitted classifier that `save` wrote: the same predictions to the bit. Nothing in the file is executed.

        Raises UnswayedError for a file that is damaged or of another kind.
        """
        parameters, fitted = read_fitted(Path(path))
        known = {name: value for name, value in parameters.items() if name in cls._get_param_names()}
        found = cls(**known)
        found.__dict__.update(fitted)
        return found

    def to_onnx(self, path: str | Path) -> Path:
        """Write an ONNX file that takes "rows", as `predict_proba` does, and gives "probabilities" [B, K].

        Rows are of single precision (bytes for images of bytes), any number of them. The file is run by onnxruntime and
        compared with `predict_proba`; a difference above 1e-4 raises, and so does a missing extra `onnx`.
        """
        from unswayed.estimator.export import write_onnx

        check_is_fitted(self)
        write_onnx(Path(path), self._rows, self._method, [str(name) for name in self.classes_.tolist()])
        return Path(path)

    def model_card(self, path: str | Path, *, name: str = "RobustClassifier", data: str | None = None) -> Path:
        """Write a model card for Hugging Face: Markdown with metadata, of what is known and nothing else.

        `name` of the model, and a line on the `data` it learned from, which nobody else can tell.
        """
        from unswayed.estimator.card import write_card

        check_is_fitted(self)
        write_card(Path(path), self, name, data)
        return Path(path)

    # ------------------------------------------------------------------------------------------------- inside fit

    def _fit(self, words: str, task: Task, rows: Rows, place: Place, classes: np.ndarray) -> None:
        draft(parse_arm(words))  # a setting that cannot be should not cost an audit
        config, reason = self._config(len(task.train), rows.kind), "named by the user"
        automatic = AUTO in words.split()
        audit = _audit(config, task) if automatic or self.audit else None
        if automatic and audit is not None:
            words, reason = settle_arm(words, audit.method), audit.verdict
        config = replace(config, arm=words)
        method = build(config, parse_arm(words), task)
        train(config, method, task, place, watch=[_tell] if self.verbose else ())
        probabilities = predict(method, task.train.x, place=place).softmax(1).cpu()
        beliefs = beliefs_of(method, task.train.given, probabilities)
        self.classes_, self.method_, self.reason_, self.seed_ = classes, words, reason, config.seed
        self.class_count_ = torch.bincount(task.train.given, minlength=len(classes)).numpy()
        self.chosen_ = method.chosen()
        self.training_accuracy_ = float((probabilities.argmax(1) == task.train.given).float().mean())
        self.audit_ = audit
        self.suspicion_ = (beliefs if audit is None else audit).suspicion.numpy()
        self.suggested_labels_ = classes[(beliefs if audit is None else audit).suggested.numpy()]
        self.noise_matrix_ = (beliefs.transition if audit is None else audit.noise.matrix).numpy()
        self.noise_rate_ = beliefs.noise_rate if audit is None else audit.noise.rate.value
        self.noise_interval_ = None if audit is None else (audit.noise.rate.low, audit.noise.rate.high)
        self._run, self._versions = config, versions()
        self._rows, self._method = rows, keep_predictor(method, rows.kind)

    def _config(self, rows: int, kind: Kind) -> Config:
        """The run as a configuration; the arm comes later."""
        names = ("batch", "optimizer", "lr", "momentum", "weight_decay", "schedule", "clip", "flip", "device")
        given = {name: plain(getattr(self, name)) for name in (*names, "precision", "epochs")}
        config = Config(data="arrays", seed=_seed(self.random_state), **given)
        if self.epochs is not None:
            return config
        settings = config.training(kind, rows)
        steps = -(-rows // settings.batch)
        return replace(config, epochs=max(settings.epochs, -(-FEWEST_STEPS // steps)))


def _task(rows: Rows, x: np.ndarray, given: Tensor, classes: tuple[str, ...]) -> Task:
    split = Split(TensorColumn(rows.read(x)), given, None, torch.arange(len(given)))
    dataset = Dataset("arrays", rows.kind, classes, split, None)
    return Task(dataset, split, None, "given", None, torch.zeros(0, dtype=torch.int64))


def _audit(config: Config, task: Task) -> auditing.Audit:
    """The training rows by features that no label took part in: every row is judged by the others."""
    with tempfile.TemporaryDirectory() as cache:
        rows = frozen(task.dataset, replace(config, reader={"cache": cache})).train
    features, dataset = rows.x.rows(torch.arange(len(rows))), task.dataset
    return auditing.audit(rows.given, features=features, classes=dataset.classes, kind=dataset.kind, seed=config.seed)


def _seed(random_state: Any) -> int:
    """A seed of 31 bits; the global generators are not asked."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0]) >> 1
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _tell(record: Record) -> None:
    right = "" if record.train_accuracy is None else f", {record.train_accuracy:.1%} of the given labels predicted"
    print(f"epoch {record.epoch + 1} of {record.epochs} ({record.stage}): loss {record.loss:.4g}{right}")
