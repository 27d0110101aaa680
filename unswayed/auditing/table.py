"""What an audit says of every row: a table in memory, and the folder that it is kept in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unswayed.checkpoint import read_state, write_state
from unswayed.errors import UnswayedError
from unswayed.version import __version__
from unswayed.writing import replacing, write_json

KINDS = ("fine", "wrong", "ambiguous", "outlier", "duplicate")
"""What a row is: its label is probably right; probably wrong; one of two that may both be right; none fits; another
row is nearly the same and has another label. `Audit.kind` holds places in this list."""

STATE, ABOUT, LIST = "audit.safetensors", "audit.json", "audit.csv"
_FORMAT = 1
LINES = 2**16  # rows of the list made at a time


class Interval(NamedTuple):
    """An estimate, and where the truth is with a probability of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Noise:
    """How wrong the labels are as a whole; `matrix[i, j]` is the estimated P(given j | true i), rows sum to one."""

    rate: Interval
    matrix: Tensor  # [K, K]
    low: Tensor  # [K, K]
    high: Tensor  # [K, K]


@dataclass(frozen=True)
class Audit:
    """One line a row of the data: how suspicious its label is, what the label should be, and why.

    `suspicion` is a probability: of labels with a suspicion of .8 about 80 % are wrong. A row whose label is missing
    (`given` -1) has a suspicion of 1 and a suggested label.
    """

    classes: tuple[str, ...]
    rows: Tensor  # [N] int64: the row's number in the user's source
    given: Tensor  # [N] int64, -1 where missing
    suspicion: Tensor  # [N] float32 in [0, 1]
    suggested: Tensor  # [N] int64: the likeliest label; the given one where that is it
    probability: Tensor  # [N] float32: of the suggested label
    kind: Tensor  # [N] int8: places in KINDS
    noise: Noise
    verdict: str  # one sentence: is a robust method worth it
    method: str  # the method that the verdict advises
    scores: Mapping[str, Tensor] = field(default_factory=dict)  # [N] each, higher is more suspicious
    probs: Tensor | None = None  # [N, K] out-of-fold probabilities, float32 or float16; None where they are too many
    neighbours: Tensor | None = (
        None  # [N, k] int64: positions (not row numbers) of the most similar rows, nearest first
    )
    similarity: Tensor | None = None  # [N, k] cosines of theirs
    curves: Tensor | None = None  # [N, E]: the probability of the given label, epoch by epoch
    about: Mapping[str, Any] = field(default_factory=dict)  # plain data: where the rows came from, settings, versions

    def __len__(self) -> int:
        return len(self.given)

    def order(self) -> Tensor:
        """Positions of all rows, most suspicious first; equal ones in their old order: [N]."""
        return self.suspicion.argsort(descending=True, stable=True)

    def issues(self, threshold: float = 0.5) -> Tensor:
        """Positions of the rows whose label is probably wrong, most suspicious first: [M]."""
        order = self.order()
        return order[self.suspicion[order] > threshold]

    def line(self, at: int) -> dict[str, Any]:
        """One row as plain data, for a list or a card."""
        given = int(self.given[at])
        return {
            "row": int(self.rows[at]),
            "given": self.classes[given] if given >= 0 else "",
            "suggested": self.classes[int(self.suggested[at])],
            "suspicion": round(float(self.suspicion[at]), 4),
            "probability": round(float(self.probability[at]), 4),
            "kind": KINDS[int(self.kind[at])],
        }

    def lines(self) -> Iterator[dict[str, Any]]:
        """All rows as plain data, most suspicious first."""
        names = dict(enumerate(self.classes)) | {-1: ""}
        for at in torch.split(self.order(), LINES):
            columns = (self.rows, self.given, self.suggested, self.suspicion, self.probability, self.kind)
            for row, given, suggested, suspicion, probability, kind in zip(
                *(column[at].tolist() for column in columns), strict=True
            ):
                yield {
                    "row": row,
                    "given": names[given],
                    "suggested": names[suggested],
                    "suspicion": round(suspicion, 4),
                    "probability": round(probability, 4),
                    "kind": KINDS[kind],
                }

    def to_frame(self) -> Any:
        """The list as a pandas data frame, most suspicious first."""
        try:
            import pandas
        except ImportError as error:
            raise UnswayedError(
                "pandas, for a data frame", got="none", do="pip install pandas, or use lines()"
            ) from error
        return pandas.DataFrame(list(self.lines()))

    def save(self, folder: str | Path) -> Path:
        """Write the folder: audit.safetensors (all), audit.csv (the list), and last audit.json (what was found)."""
        folder = Path(folder)
        tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        tensors |= {f"score/{name}": value for name, value in self.scores.items()}
        tensors |= {f"noise/{name}": getattr(self.noise, name) for name in ("matrix", "low", "high")}
        write_state(folder / STATE, tensors, {"format": _FORMAT, "classes": list(self.classes)})
        with replacing(folder / LIST) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            writer = csv.DictWriter(text, list(self.line(0)) if len(self) else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.lines())
            text.detach()  # or it would close the file
        write_json(folder / ABOUT, self.summary())
        return folder

    def summary(self) -> dict[str, Any]:
        """What was found, as plain data: all that is not one value a row."""
        return {
            "unswayed": __version__,
            "rows": len(self),
            "classes": list(self.classes),
            "issues": int((self.suspicion > 0.5).sum()),
            "kinds": dict(zip(KINDS, torch.bincount(self.kind.long(), minlength=len(KINDS)).tolist(), strict=True)),
            "noise_rate": self.noise.rate._asdict(),
            "verdict": self.verdict,
            "method": self.method,
            "about": dict(self.about),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Audit:
        """Read what `save` wrote; raises UnswayedError where there is no audit, or one of another format."""
        folder = Path(folder)
        if not (folder / ABOUT).is_file():
            do = f"unswayed audit DATA --out {folder}"
            raise UnswayedError(f"a finished audit in {folder}", got=f"no {ABOUT} there", do=do)
        tensors, state = read_state(folder / STATE)
        if state.get("format") != _FORMAT:
            got = f"format {state.get('format')}"
            raise UnswayedError(f"an audit of format {_FORMAT}", got=got, do="audit the data anew with this version")
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        rate = Interval(**found["noise_rate"])
        return cls(
            classes=tuple(state["classes"]),
            noise=Noise(rate, *(tensors[f"noise/{name}"] for name in ("matrix", "low", "high"))),
            verdict=found["verdict"],
            method=found["method"],
            scores={name[6:]: value for name, value in tensors.items() if name.startswith("score/")},
            about=found["about"],
            **{name: tensors[name] for name in _TENSORS if name in tensors},
        )


_TENSORS = (
    *("rows", "given", "suspicion", "suggested", "probability", "kind"),
    *("probs", "neighbours", "similarity", "curves"),
)
