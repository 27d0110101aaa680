"""One audit under review: what it found, the rows that it speaks of, and the decisions so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unswayed.auditing.table import ABOUT, Audit
from unswayed.review.rows import Rows
from unswayed.review.store import Decisions

DECISIONS = "review.sqlite"


@dataclass(frozen=True)
class Case:
    """An audit, its rows, and the decisions on them."""

    folder: Path
    audit: Audit
    rows: Rows
    decisions: Decisions

    def close(self) -> None:
        """Let go of the file of decisions."""
        self.decisions.close()


def open_case(
    folder: str | Path, *, data: str | None = None, decisions: str | Path | None = None, create: bool = True
) -> Case:
    """The audit in a folder (or in `audit` inside it), with its decisions (`review.sqlite` there, if not named).

    `data` is where the data lie now, if not where the audit says; `create=False` asks for decisions that are there.
    Raises UnswayedError where there is no audit, and where the decisions belong to another one.
    """
    folder = Path(folder)
    if not (folder / ABOUT).is_file() and (folder / "audit" / ABOUT).is_file():
        folder = folder / "audit"
    audit = Audit.load(folder)
    base = Path(decisions) if decisions is not None else folder / DECISIONS
    return Case(folder, audit, Rows(audit, data), Decisions(base, audit, create=create))
