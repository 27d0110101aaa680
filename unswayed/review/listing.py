"""Which rows the list shows: by kind, by classes, by state, in an order; cut into pages."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from unswayed.auditing.acquire import next_labels
from unswayed.auditing.table import KINDS
from unswayed.errors import UnswayedError
from unswayed.review.case import Case
from unswayed.review.store import CONFLICT, OPEN, SETTLED, SKIPPED, STATES

ORDERS = ("suspicion", "useful", "row", "pair")
SHOWN = ("all", "undecided", "decided", "skipped", "conflict")
_STATES = {"undecided": (OPEN, SKIPPED), "decided": (SETTLED, CONFLICT), "skipped": (SKIPPED,), "conflict": (CONFLICT,)}
_KEPT = 16  # lists remembered; one of 60,000 rows takes half a megabyte
_PAIRS = 200


@dataclass(frozen=True)
class Filter:
    """What a reader asked to see; the names are those of the page's query. Empty: no filter."""

    kind: str = ""
    given: str = ""
    suggested: str = ""
    state: str = "all"
    order: str = "suspicion"
    stamp: str = ""  # a list asked for under one stamp stays as it was, whatever is decided meanwhile

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, ("", "issues", *KINDS)),
            ("state", self.state, SHOWN),
            ("order", self.order, ORDERS),
        ):
            if value not in known:
                raise UnswayedError(f"{name} is one of {', '.join(filter(None, known))}", got=repr(value))


class Lists:
    """The lists that readers look at; each is made once and then stays, so that no row moves while one works."""

    def __init__(self, case: Case) -> None:
        self.case = case
        audit = case.audit
        self._suspicion = audit.suspicion.numpy()
        self._orders = {"suspicion": audit.order().numpy(), "row": np.argsort(audit.rows.numpy(), kind="stable")}
        given, suggested = audit.given.numpy(), audit.suggested.numpy()
        by_suspicion = self._orders["suspicion"]
        self._orders["pair"] = by_suspicion[np.lexsort((suggested[by_suspicion], given[by_suspicion]))]
        self._made: OrderedDict[Filter, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, asked: Filter) -> np.ndarray:
        """Positions of the rows that a filter lets through, in its order: [M]."""
        with self._lock:
            if asked not in self._made:
                self._made[asked] = self._make(asked)
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(asked)
            return self._made[asked]

    def page(self, asked: Filter, start: int, count: int) -> dict[str, Any]:
        """Some lines of a list, and how many there are in all."""
        found = self.rows(asked)
        start = max(0, min(start, len(found)))
        return {"total": len(found), "start": start, "lines": [self.line(int(at)) for at in found[start:][:count]]}

    def line(self, at: int) -> dict[str, Any]:
        """One row for the list: what the audit says, and what was decided."""
        decisions = self.case.decisions
        settled = decisions.verdict(at)
        line = {"at": at, **self.case.audit.line(at), "state": STATES[int(decisions.state[at])]}
        if settled is not None:
            line |= {"verdict": settled.verdict, "label": settled.label}
        try:
            return line | {"excerpt": self.case.rows.excerpt(at)}
        except UnswayedError:  # the page says once why the data cannot be read
            return line | {"excerpt": ""}

    def place(self, asked: Filter, *, at: int | None = None, row: int | None = None) -> int | None:
        """Where in a list a row stands, by its position in the audit or its number in the source; None if nowhere."""
        found = self.rows(asked)
        hits = np.flatnonzero(found == at if row is None else self.case.audit.rows.numpy()[found] == row)
        return int(hits[0]) if len(hits) else None

    def next_open(self, asked: Filter, after: int) -> int | None:
        """The place of the next undecided row, behind place `after` and then from the top; None where none is left."""
        undecided = np.flatnonzero(self.case.decisions.state[self.rows(asked)] == OPEN)
        behind = undecided[undecided > after]
        rest = behind if len(behind) else undecided
        return int(rest[0]) if len(rest) else None

    def pairs(self) -> list[dict[str, Any]]:
        """The commonest pairs of a given and another suggested label."""
        audit = self.case.audit
        given, suggested = audit.given.numpy(), audit.suggested.numpy()
        differing = (given != suggested) & (given >= 0)
        seen = Counter(zip(given[differing].tolist(), suggested[differing].tolist(), strict=True))
        return [
            {"given": audit.classes[g], "suggested": audit.classes[s], "rows": count}
            for (g, s), count in seen.most_common(_PAIRS)
        ]

    def _useful(self) -> np.ndarray:
        """The labels from whose check most is learned first, by the decisions so far; the settled ones at the end."""
        audit, decisions = self.case.audit, self.case.decisions
        settled = {at: decisions.verdict(at) for at in decisions.decided()}
        decided = {at: made.label for at, made in settled.items() if made is not None and made.label is not None}
        found = next_labels(audit, len(audit), decided=decided).numpy()
        rest = self._orders["suspicion"]
        return np.concatenate([found, rest[~np.isin(rest, found)]])

    def _make(self, asked: Filter) -> np.ndarray:
        audit = self.case.audit
        found = self._useful() if asked.order == "useful" else self._orders[asked.order]
        keep = np.ones(len(audit), dtype=bool)
        if asked.kind == "issues":
            keep &= self._suspicion > 0.5
        elif asked.kind:
            keep &= audit.kind.numpy() == KINDS.index(asked.kind)
        for wanted, labels in ((asked.given, audit.given), (asked.suggested, audit.suggested)):
            if wanted:
                keep &= labels.numpy() == (audit.classes.index(wanted) if wanted in audit.classes else -2)
        if asked.state != "all":
            keep &= np.isin(self.case.decisions.state, _STATES[asked.state])
        return np.asarray(found[keep[found]])
