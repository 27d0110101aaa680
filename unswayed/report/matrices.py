"""Confusion and transition matrices as shaded grids; many classes are cut down to those that are mixed up most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unswayed.report.fields import Matrix
from unswayed.report.results import Arm, Section
from unswayed.report.statistics import interval
from unswayed.report.summary import percent, plural, spread

MOST_CLASSES = 20
KEPT_CLASSES = 15
NUMBERED = 12


@dataclass(frozen=True)
class Cell:
    """One cell: percent of its row ("" below one half), and its shade from 0 to 100."""

    text: str
    shade: int


@dataclass(frozen=True)
class Grid:
    """A matrix to show; `numbered` where its cells are wide enough for numbers."""

    title: str
    caption: str
    names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    numbered: bool
    mixed: tuple[str, ...]


@dataclass(frozen=True)
class ArmMatrices:
    """The grids of one arm, and what it says about the share of wrong labels ("" where nothing)."""

    arm: int
    name: str
    grids: tuple[Grid, ...]
    rate: str


def matrices(section: Section) -> list[ArmMatrices]:
    """The grids of every arm that has any."""
    kept = _pick(section)
    found = [_arm(i, arm, section, kept) for i, arm in enumerate(section.arms)]
    return [each for each in found if each.grids or each.rate]


def overlaps(section: Section) -> list[ArmMatrices]:
    """How much the masks of two classes share in every arm that has them: the mean over seeds, after the last epoch."""
    found = []
    for i, arm in enumerate(section.arms):
        each = [run.evidence.overlap for run in arm.runs if run.evidence.overlap is not None]
        if each:
            mean = np.mean(each, axis=0)
            seeds = f", mean over {plural(len(each), 'seed')}" if len(each) > 1 else ""
            caption = f"Edges that two classes both keep, percent of those that either keeps{seeds}."
            cells = tuple(tuple(_cell(float(value)) for value in row) for row in mean)
            names, numbered = section.data.classes, len(mean) <= NUMBERED
            found.append(ArmMatrices(i, arm.name, (Grid(arm.name, caption, names, cells, numbered, ()),), ""))
    return found


def cut_note(section: Section) -> str:
    """Which classes are shown; empty where all are."""
    size = len(section.data.classes)
    if size <= MOST_CLASSES:
        return ""
    return (
        f"Of {size:,} classes, the {KEPT_CLASSES} that are mixed up most are shown; "
        f"the other {size - KEPT_CLASSES:,} are one row and one column, in which mix-ups among them count as agreement."
    )


def _pick(section: Section) -> NDArray[np.int64] | None:
    """The classes with most off-diagonal mass over all arms and matrices, in their own order; None: all of them."""
    size = len(section.data.classes)
    if size <= MOST_CLASSES:
        return None
    mass = np.zeros(size)
    for run in section.runs:
        confusion = run.test.confusion if run.test else None
        for matrix in (confusion, run.estimated, run.true):
            if matrix is not None:
                off = _row_shares(matrix)
                np.fill_diagonal(off, 0)
                off = np.nan_to_num(off)
                mass += off.sum(0) + off.sum(1)
    return np.sort(np.argsort(-mass, kind="stable")[:KEPT_CLASSES])


def _arm(index: int, arm: Arm, section: Section, kept: NDArray[np.int64] | None) -> ArmMatrices:
    classes = section.data.classes
    grids = []
    confusions = [run.test.confusion for run in arm.runs if run.test and run.test.confusion is not None]
    if confusions:
        against = next(run.test.against for run in arm.runs if run.test)
        rows = "true" if against == "truth" else "given"
        together = f", {plural(len(confusions), 'seed')} together" if len(confusions) > 1 else ""
        caption = f"Row: {rows} test label. Column: predicted. Percent of the row{together}."
        grids.append(
            _grid("Confusion on the test set", caption, sum(confusions[1:], confusions[0]), classes, kept, counts=True)
        )
    estimates = [run.estimated for run in arm.runs if run.estimated is not None]
    truths = [run.true for run in arm.runs if run.true is not None]
    if estimates:
        mean = _mean(estimates)
        caption = (
            "Row: what a sample is. Column: the label it was given. Percent of the row, as estimated from training."
        )
        if truths and (error := _error(mean, _mean(truths), classes)):
            caption += f" {error}"
        grids.append(_grid("Estimated transition matrix", caption, mean, classes, kept))
    if truths:
        caption = "The same, known here because the truth is. No arm saw it."
        grids.append(_grid("True transition matrix", caption, _mean(truths), classes, kept))
    return ArmMatrices(index, arm.name, tuple(grids), _rate(arm))


def _mean(found: list[Matrix]) -> Matrix:
    return np.asarray(np.mean([_row_shares(matrix) for matrix in found], axis=0))


def _row_shares(matrix: Matrix) -> Matrix:
    """Each row divided by its sum; a row without any sample is NaN."""
    sums = matrix.sum(1, keepdims=True)
    shares: Matrix = np.divide(matrix, sums, out=np.full(matrix.shape, np.nan), where=sums > 0)
    return shares


def _error(estimated: Matrix, true: Matrix, classes: tuple[str, ...]) -> str:
    gap = np.nan_to_num(np.abs(estimated - true))
    row, column = np.unravel_index(int(gap.argmax()), gap.shape)
    return (
        f"Largest error: {percent(float(gap.max()))} points ({classes[row]} → {classes[column]})." if gap.any() else ""
    )


def _rate(arm: Arm) -> str:
    estimated = interval(run.estimated_rate for run in arm.runs)
    true = interval(run.true_rate for run in arm.runs)
    if not estimated.n:
        return ""
    known = f"; in truth {percent(true.mean)} %" if true.n else ""
    # Honest about its weakness: on texts, for instance, a network fits wrong labels within two epochs.
    weak = "too low where the network learns wrong labels by heart, too high where it has not learnt the classes yet"
    caveat = f"From the predictions made in training: {weak}."
    return f"Estimated share of wrong training labels: {spread(estimated)} %{known}. {caveat}"


def _grid(
    title: str,
    caption: str,
    matrix: Matrix,
    classes: tuple[str, ...],
    kept: NDArray[np.int64] | None,
    counts: bool = False,
) -> Grid:
    mixed = _most_mixed(_row_shares(matrix), classes)
    names = classes
    if kept is not None:
        matrix = _fold(matrix, kept, counts)
        names = (*(classes[i] for i in kept), f"other {len(classes) - len(kept):,}")
    shares = _row_shares(matrix)
    cells = tuple(tuple(_cell(float(share)) for share in row) for row in shares)
    return Grid(title, caption, names, cells, len(names) <= NUMBERED, mixed)


def _fold(matrix: Matrix, kept: NDArray[np.int64], counts: bool) -> Matrix:
    """The kept rows and columns, then all others as one; counts add up, rows of shares are averaged."""
    rest = np.setdiff1d(np.arange(len(matrix)), kept)
    columns: Matrix = np.column_stack([matrix[:, kept], matrix[:, rest].sum(1)])
    others = columns[rest].sum(0) if counts else np.nan_to_num(columns[rest]).mean(0)
    folded: Matrix = np.vstack([columns[kept], others])
    return folded


def _cell(share: float) -> Cell:
    """The shade grows with the square root of the share, so that a few percent can be seen beside a hundred."""
    if share != share:
        return Cell("", 0)
    return Cell(f"{100 * share:.0f}" if share >= 0.005 else "", round(100 * share**0.5) if share >= 0.0005 else 0)


def _most_mixed(shares: Matrix, classes: tuple[str, ...], most: int = 3) -> tuple[str, ...]:
    """The largest entries beside the diagonal, in words; only those that stand out, at twice their mean."""
    off = np.nan_to_num(shares)
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    found = []
    for place in order:
        i, j = divmod(int(place), len(classes))
        if off[i, j] >= max(0.005, 2 * off.sum() / max(1, len(off) * (len(off) - 1))):
            found.append(f"{classes[i]} → {classes[j]}: {percent(float(off[i, j]), 0)} %")
    return tuple(found)
