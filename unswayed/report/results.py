"""Finished runs, read from their files: what a run, an arm, a section and a study are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from unswayed.errors import UnswayedError
from unswayed.report.evidence import Evidence, read_evidence
from unswayed.report.fields import Fields, Matrix, read_json

SCHEMA = 1
# What an analysed run tells of every epoch: shares in [0, 1], and plain numbers.
SHARES = (
    *("confidence_clean", "confidence_wrong", "memorisation"),
    *("mask_density", "mask_turnover", "mask_overlap"),
)
NUMBERS = ("gradient_cosine", "gradient_error")


@dataclass(frozen=True)
class Noise:
    """Planted label noise: its name, the rate asked for and the rate reached (NaN where unknown)."""

    name: str
    rate: float
    actual: float


@dataclass(frozen=True)
class Data:
    """What the data reader said about a data set."""

    name: str
    kind: str
    classes: tuple[str, ...]
    train: int
    test: int
    notes: tuple[str, ...]
    noise: Noise | None


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run, `epoch` counted from 0 over all stages; what was not measured is NaN.

    `measures` are those of an analysed run, by the names in `SHARES` and `NUMBERS`; what was not measured is left out.
    """

    stage: str
    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Test accuracy after the last epoch and at the best one, and the confusion matrix `[K, K]` (row: label)."""

    last: float
    best: float
    best_epoch: int
    against: str
    confusion: Matrix | None


@dataclass(frozen=True)
class Looked:
    """What an analysed run looked at: training rows of known truth, those of them labelled wrong, and what to know."""

    rows: int
    wrong: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run. Numbers that a run does not have are NaN, matrices None."""

    folder: Path
    name: str
    control: bool
    seed: int
    config: dict[str, Any]
    chosen: dict[str, Any]
    data: Data
    history: tuple[Epoch, ...]
    test: Outcome | None
    estimated: Matrix | None
    true: Matrix | None
    estimated_rate: float
    true_rate: float
    auroc: float
    average_precision: float
    analysis: Looked | None
    evidence: Evidence
    seconds: float
    steps: float
    samples: float
    parameters: float
    versions: dict[str, Any]
    machine: dict[str, Any]
    started: str

    @property
    def gallery(self) -> Path | None:
        """The file of suspicious samples, if the run left one."""
        path = self.folder / "gallery.json"
        return path if path.is_file() else None

    @property
    def masks(self) -> Path | None:
        """The file of edge masks, if the run left one."""
        path = self.folder / "masks.npz"
        return path if path.is_file() else None

    @property
    def last(self) -> float:
        """Test accuracy after the last epoch; NaN without a test set."""
        return self.test.last if self.test else float("nan")


@dataclass(frozen=True)
class Arm:
    """The runs of one name, by seed."""

    name: str
    control: bool
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that ran."""
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Section:
    """All arms on one data set under one noise: what may be compared with each other. The control comes first."""

    data: Data
    arms: tuple[Arm, ...]
    notes: tuple[str, ...] = ()
    mark: str = ""  # what tells it from another section on the same data and noise

    @property
    def title(self) -> str:
        """For example `digits, symmetric noise 40 %`, or `digits, symmetric noise 40 %, limit 500`."""
        noise = self.data.noise
        rate = f" {100 * noise.rate:.3g} %" if noise and noise.rate == noise.rate else ""
        planted = f"{noise.name} noise{rate}" if noise else ""
        return ", ".join(part for part in (self.data.name, planted, self.mark) if part)

    @property
    def control(self) -> Arm | None:
        """The arm that the others are compared with."""
        return next((arm for arm in self.arms if arm.control), None)

    @property
    def wrong(self) -> list[float]:
        """The share of wrong training labels in each run where it is known: planted, or counted against the truth."""
        planted = [run.data.noise.actual if run.data.noise else math.nan for run in self.runs]
        known = [value for value in planted if math.isfinite(value)]
        return known or [run.true_rate for run in self.runs if math.isfinite(run.true_rate)]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All runs of all arms."""
        return tuple(run for arm in self.arms for run in arm.runs)


@dataclass(frozen=True)
class Study:
    """Everything that a folder holds: sections of finished runs, and the folders of runs that did not finish."""

    folder: Path
    sections: tuple[Section, ...]
    unfinished: tuple[Path, ...] = field(default=())


def read_run(folder: Path) -> Run:
    """The run in `folder`; raises UnswayedError naming the file and the field where `result.json` is damaged."""
    path = folder / "result.json"
    return parse_run(Fields(path, "", read_json(path)), folder)


def parse_run(top: Fields, folder: Path) -> Run:
    """The run of a result; `folder` is where its other files lie."""
    path = top.path
    schema = top.whole("schema")
    if schema != SCHEMA:
        raise UnswayedError(
            f"{path}: expected schema {SCHEMA}", got=schema, do="use the version of unswayed that wrote it"
        )
    data = _read_data(top)
    size = len(data.classes)
    transition, rate = top.inner("transition"), top.inner("noise_rate")
    suspicion, cost = top.inner("suspicion"), top.inner("cost")
    nan = float("nan")
    return Run(
        folder=folder,
        name=top.text("name"),
        control=top.flag("control") or False,
        seed=top.whole("seed"),
        config=top.table("config"),
        chosen=top.table("chosen"),
        data=data,
        history=tuple(_read_epoch(epoch) for epoch in top.rows("history")),
        test=_read_test(top.inner("test"), size),
        estimated=transition.matrix("estimated", size) if transition else None,
        true=transition.matrix("true", size) if transition else None,
        estimated_rate=rate.share("estimated", nan) if rate else nan,
        true_rate=rate.share("true", nan) if rate else nan,
        auroc=suspicion.share("auroc", nan) if suspicion else nan,
        average_precision=suspicion.share("average_precision", nan) if suspicion else nan,
        analysis=_read_analysis(top.inner("analysis")),
        evidence=read_evidence(top, size),
        seconds=cost.number("seconds", nan) if cost else nan,
        steps=cost.number("steps", nan) if cost else nan,
        samples=cost.number("samples", nan) if cost else nan,
        parameters=top.number("parameters", nan),
        versions=top.table("versions"),
        machine=top.table("machine"),
        started=top.text("started", ""),
    )


def _read_data(top: Fields) -> Data:
    fields = top.inner("data")
    if fields is None:
        raise UnswayedError(f"{top.path}: data should be an object", got="nothing", do="run that arm and seed again")
    planted = fields.inner("noise")
    nan = float("nan")
    noise = Noise(planted.text("name"), planted.share("rate", nan), planted.share("actual", nan)) if planted else None
    classes = fields.names("classes")
    if not classes:
        raise UnswayedError(
            f"{top.path}: data.classes should name the classes", got="none", do="run that arm and seed again"
        )
    return Data(
        name=fields.text("name"),
        kind=fields.text("kind", "table"),
        classes=classes,
        train=fields.whole("train", 0),
        test=fields.whole("test", 0),
        notes=fields.names("notes"),
        noise=noise,
    )


def _read_epoch(fields: Fields) -> Epoch:
    nan = float("nan")
    found = {name: fields.share(name, nan) for name in SHARES} | {name: fields.number(name, nan) for name in NUMBERS}
    return Epoch(
        stage=fields.text("stage", ""),
        epoch=fields.whole("epoch"),
        loss=fields.number("loss", nan),
        train_accuracy=fields.share("train_accuracy", nan),
        test_accuracy=fields.share("test_accuracy", nan),
        measures={name: value for name, value in found.items() if math.isfinite(value)},
    )


def _read_analysis(fields: Fields | None) -> Looked | None:
    if fields is None:
        return None
    return Looked(fields.whole("rows", 0), fields.whole("wrong", 0), fields.names("notes"))


def _read_test(fields: Fields | None, size: int) -> Outcome | None:
    if fields is None:
        return None
    nan = float("nan")
    return Outcome(
        last=fields.share("last", nan),
        best=fields.share("best", nan),
        best_epoch=fields.whole("best_epoch", -1),
        against=fields.text("against", "given"),
        confusion=fields.matrix("confusion", size),
    )
