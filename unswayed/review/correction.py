"""What becomes of each row: what people decided, what is taken unseen, and what is left as it was."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from unswayed.auditing.table import KINDS
from unswayed.errors import UnswayedError
from unswayed.review.case import Case
from unswayed.review.store import CONFLICT, OPEN, Decision

NONE_FITS = ("drop", "keep")
CONFLICTS = ("given", "latest")
_UNSURE = [KINDS.index("ambiguous"), KINDS.index("outlier")]


@dataclass(frozen=True)
class Change:
    """One line of the audit trail: a row that gets another label, that is dropped, or that people disagree about."""

    at: int
    row: int
    given: str
    label: str | None  # None: dropped
    action: str
    reviewer: str
    time: str
    suspicion: float


@dataclass(frozen=True)
class Correction:
    """The labels of all audited rows after the review, and the trail of how they came about."""

    labels: np.ndarray  # [N] int64: class numbers, -1 where the row had no label and got none
    dropped: np.ndarray  # [N] bool
    changes: list[Change] = field(default_factory=list)  # in the order of the rows
    conflicts: int = 0

    @property
    def changed(self) -> int:
        """How many rows get another label."""
        return sum(change.label not in (None, change.given) for change in self.changes)


def correct(
    case: Case, *, accept_above: float | None = None, none_fits: str = "drop", conflicts: str = "given"
) -> Correction:
    """What becomes of each row.

    Rows that nobody decided keep their given label; where `accept_above` is a suspicion, those above it get the
    suggested one. Our choice: not where two labels may be right or none fits, since no suggestion can be trusted there,
    and not where a person skipped the row. Where no label fits, the row is dropped, or kept with its given label. Where
    people disagree it keeps its given label, or gets that of the latest decision.
    """
    for name, value, known in (("none_fits", none_fits, NONE_FITS), ("conflicts", conflicts, CONFLICTS)):
        if value not in known:
            raise UnswayedError(f"{name} is {' or '.join(known)}", got=repr(value))
    if accept_above is not None and not 0 <= accept_above <= 1:
        raise UnswayedError("a suspicion in [0, 1] to accept above", got=accept_above)
    audit, decisions = case.audit, case.decisions
    decisions.refresh()
    number = {name: i for i, name in enumerate(audit.classes)}
    found = Correction(audit.given.numpy().copy(), np.zeros(len(audit), dtype=bool))
    disagreed = 0

    def note(at: int, label: str | None, action: str, reviewer: str, time: str) -> None:
        given = int(audit.given[at])
        before = audit.classes[given] if given >= 0 else ""
        line = (at, int(audit.rows[at]), before, label, action, reviewer, time, round(float(audit.suspicion[at]), 4))
        found.changes.append(Change(*line))

    def settle(at: int, made: Decision, *, disputed: bool = False) -> None:
        action = f"{made.verdict}, disputed" if disputed else made.verdict
        if made.label is None:
            found.dropped[at] = none_fits == "drop"
            note(at, None if found.dropped[at] else _given(case, at), action, made.reviewer, made.time)
        elif disputed or number[made.label] != found.labels[at]:
            found.labels[at] = number[made.label]
            note(at, made.label, action, made.reviewer, made.time)

    for at in decisions.decided():
        settling = [made for made in decisions.standing(at) if made.settles]
        if settling and decisions.state[at] == CONFLICT:
            disagreed += 1
            if conflicts == "latest":
                settle(at, settling[-1], disputed=True)
            else:
                said = "; ".join(f"{made.reviewer}: {made.label or 'none fits'}" for made in settling)
                note(at, _given(case, at), "conflict: the given label stays", said, settling[-1].time)
        elif settling:
            settle(at, settling[-1])
    if accept_above is not None:
        for at in _unseen(case, accept_above):
            found.labels[at] = int(audit.suggested[at])
            note(at, audit.classes[found.labels[at]], f"suspicion above {accept_above:g}", "unswayed", "")
    found.changes.sort(key=lambda change: change.row)
    return Correction(found.labels, found.dropped, found.changes, disagreed)


def _unseen(case: Case, above: float) -> list[int]:
    audit = case.audit
    given, suggested = audit.given.numpy(), audit.suggested.numpy()
    sure = ~np.isin(audit.kind.numpy(), _UNSURE) | (given < 0)
    wanted = (audit.suspicion.numpy() > above) & (given != suggested) & sure & (case.decisions.state == OPEN)
    return [int(at) for at in np.flatnonzero(wanted)]


def _given(case: Case, at: int) -> str:
    given = int(case.audit.given[at])
    return case.audit.classes[given] if given >= 0 else ""
