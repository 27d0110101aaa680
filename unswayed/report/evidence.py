"""What a run shows beside its scores: whether what it says is so, what checking finds, how sure it is, its masks."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unswayed.errors import UnswayedError
from unswayed.report.fields import Fields, Matrix

Mask = NDArray[np.bool_]
BINS = 10


@dataclass(frozen=True)
class Bin:
    """One of ten equal bins of a reliability diagram: its number, what is said in it on average, and what is so."""

    number: int
    said: float
    so: float
    rows: int


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram of one run: the bins that have rows, and the expected calibration error."""

    bins: tuple[Bin, ...]
    error: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was not measured is None or empty. Histograms count rows in ten equal bins."""

    labels: Reliability | None = None  # suspicion against what is wrong, where suspicions are shares
    test: Reliability | None = None  # confidence against what is predicted right
    budget: tuple[tuple[int, float], ...] = ()  # percent of the rows checked, share of the wrong labels found
    right: tuple[int, ...] = ()  # rows labelled right, by the probability of their label
    wrong: tuple[int, ...] = ()  # rows labelled wrong
    overlap: Matrix | None = None  # [K, K] how much the masks of two classes share
    masks: dict[int, Mask] | None = None  # by epoch, [K, d], or of the first classes
    classes: int = 0  # that the masks have


def read_evidence(top: Fields, size: int) -> Evidence:
    """The evidence in a result over so many classes; one that has none is from an earlier version, or was not asked."""
    reliability, budget, analysis = top.inner("reliability"), top.inner("error_budget"), top.inner("analysis")
    confidence = analysis.inner("confidence") if analysis else None
    mask = analysis.inner("mask") if analysis else None
    packed = analysis.inner("masks") if analysis else None
    return Evidence(
        labels=_read_reliability(reliability.inner("labels")) if reliability else None,
        test=_read_reliability(reliability.inner("test")) if reliability else None,
        budget=_read_budget(budget) if budget else (),
        right=_read_counts(confidence, "right") if confidence else (),
        wrong=_read_counts(confidence, "wrong") if confidence else (),
        overlap=mask.matrix("overlap", size) if mask else None,
        masks=_unpack(packed) if packed else None,
        classes=packed.whole("classes", 0) if packed else 0,
    )


def _read_reliability(fields: Fields | None) -> Reliability | None:
    if fields is None:
        return None
    rows = fields.numbers("bins", 4)
    return Reliability(tuple(Bin(int(n), said, so, int(many)) for n, said, so, many in rows), fields.share("error"))


def _read_budget(fields: Fields) -> tuple[tuple[int, float], ...]:
    pairs = zip(fields.numbers("checked", 0), fields.numbers("found", 0), strict=True)
    return tuple((int(checked[0]), found[0]) for checked, found in pairs)


def _read_counts(fields: Fields, name: str) -> tuple[int, ...]:
    return tuple(int(row[0]) for row in fields.numbers(name, 0))


def _unpack(fields: Fields) -> dict[int, Mask]:
    """Masks of a result, packed bit by bit: by epoch (from 0), [K, d]; a damaged one raises UnswayedError."""
    try:
        rows, columns = (int(row[0]) for row in fields.numbers("shape", 0))
        found = {}
        for epoch, bits in sorted(fields.table("bits").items(), key=lambda pair: int(pair[0])):
            packed = np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8)
            flat = np.unpackbits(packed, count=rows * columns)
            if len(packed) * 8 < rows * columns:
                raise ValueError(f"{len(packed)} bytes for {rows} x {columns}")
            found[int(epoch)] = flat.astype(np.bool_).reshape(rows, columns)
        return found
    except (ValueError, TypeError, binascii.Error) as error:
        do = "run that arm and seed again"
        raise UnswayedError(f"{fields.path}: {fields.place} should be packed masks", got=str(error), do=do) from error
