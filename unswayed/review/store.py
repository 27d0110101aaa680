"""Decisions in one SQLite file: one row each, saved at once, never changed; undoing one is a further row."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.auditing.table import Audit
from unswayed.errors import UnswayedError
from unswayed.version import __version__

VERDICTS = ("keep", "accept", "other", "both", "none", "skip")
"""The given label is right; the suggested one is; another one; both may be right; none fits; not decided now."""

OPEN, SETTLED, SKIPPED, CONFLICT = range(4)  # what `Decisions.state` says of a row
STATES = ("open", "settled", "skipped", "conflict")

_FORMAT = "1"
_LONGEST_NAME = 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    position INTEGER NOT NULL,  -- in the audit
    row INTEGER NOT NULL,       -- in the source of the data
    verdict TEXT NOT NULL,      -- keep, accept, other, both, none, skip; undo
    label TEXT,                 -- the label that the row should have; NULL where the verdict names none
    given TEXT NOT NULL,
    suspicion REAL NOT NULL,
    reviewer TEXT NOT NULL,
    time TEXT NOT NULL,         -- UTC, ISO 8601
    undoes INTEGER REFERENCES decisions (id)
);
"""


@dataclass(frozen=True)
class Decision:
    """What one person said about one row."""

    id: int
    at: int  # the row's position in the audit
    verdict: str
    label: str | None  # the label that the row should have; None where none fits and where it was skipped
    reviewer: str
    time: str
    undone: bool = False

    @property
    def settles(self) -> bool:
        """Whether it says what becomes of the row."""
        return self.verdict != "skip"


class Decisions:
    """All decisions on one audit, by everybody, as they stand; other processes may add to the file at any time.

    The latest decision of a person on a row replaces their earlier ones; it does not replace those of others. Two
    people who would write different labels are a conflict, until one of them decides otherwise.

    Raises UnswayedError for a file that belongs to another audit, and for one that is no such file.
    """

    def __init__(self, path: str | Path, audit: Audit, *, create: bool = True) -> None:
        self.path, self.audit = Path(path), audit
        self.last = 0
        self.state = np.zeros(len(audit), dtype=np.int8)
        self.wrong = np.zeros(len(audit), dtype=bool)  # settled, and the label that was there was not right
        self.when = np.zeros(len(audit), dtype=np.int64)  # number of the decision that settled the row
        self._given = audit.given.numpy()
        self._stacks: dict[int, dict[str, list[Decision]]] = {}
        self._history: dict[int, list[Decision]] = {}
        self._lock = threading.RLock()
        if not create and not self.path.exists():
            raise UnswayedError("decisions", got=f"no file at {self.path}", do="review some rows first")
        with self._clear():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._base.close()
                raise

    def close(self) -> None:
        """Let go of the file; all decisions are in it already."""
        with self._lock:
            self._base.close()

    def decide(self, at: int, verdict: str, label: str | None, reviewer: str) -> Decision:
        """Save a decision on the row at a position of the audit; on the disk when this returns."""
        who = _name(reviewer)
        if not 0 <= at < len(self.audit):
            raise UnswayedError(f"a position 0..{len(self.audit) - 1} of the audit", got=at)
        verdict, label = self._settle(at, verdict, label)
        with self._lock, self._clear():
            number = self._add(at, verdict, label, who, None)
            self.refresh()
        return next(made for made in reversed(self._history[at]) if made.id == number)

    def undo(self, reviewer: str) -> Decision | None:
        """Take back the last decision of a person that stands, and return it; None where there is none."""
        who = _name(reviewer)
        with self._lock, self._clear(), self._alone():
            self.refresh()
            stacks = (of[who] for of in self._stacks.values() if of.get(who))
            last = max((stack[-1] for stack in stacks), key=lambda made: made.id, default=None)
            if last is not None:
                self._add(last.at, "undo", None, who, last.id)
        self.refresh()
        return last

    def standing(self, at: int) -> list[Decision]:
        """What each person last said about a row, oldest first."""
        with self._lock:
            return sorted((stack[-1] for stack in self._stacks.get(at, {}).values() if stack), key=lambda d: d.id)

    def history(self, at: int) -> list[Decision]:
        """All decisions ever made on a row, oldest first, with those that were taken back."""
        with self._lock:
            return list(self._history.get(at, []))

    def verdict(self, at: int) -> Decision | None:
        """The decision that counts for a row: the latest one, where nobody disagrees."""
        settling = [made for made in self.standing(at) if made.settles]
        return settling[-1] if settling and self.state[at] == SETTLED else None

    def decided(self) -> list[int]:
        """Positions of the rows about which somebody said something that stands."""
        with self._lock:
            return sorted(at for at, of in self._stacks.items() if any(of.values()))

    def changed(self, since: int) -> list[int]:
        """Positions of the rows about which anything was said, or taken back, after decision number `since`."""
        with self._lock, self._clear():
            found = self._base.execute("SELECT DISTINCT position FROM decisions WHERE id > ?", (since,))
            return [int(row[0]) for row in found]

    def refresh(self) -> None:
        """Take note of what this and other processes added."""
        with self._lock, self._clear():
            found = self._base.execute(
                "SELECT id, position, verdict, label, reviewer, time, undoes FROM decisions WHERE id > ? ORDER BY id",
                (self.last,),
            ).fetchall()
            for row in found:
                self._apply(*row)

    def _settle(self, at: int, verdict: str, label: str | None) -> tuple[str, str | None]:
        """The verdict and the label that it means; another label that is the given or the suggested one is called so.

        Our choice: where both may be right, the row keeps its given label.
        """
        classes, given = self.audit.classes, int(self._given[at])
        if verdict not in VERDICTS:
            raise UnswayedError(f"one of the verdicts {', '.join(VERDICTS)}", got=repr(verdict))
        suggested = classes[int(self.audit.suggested[at])]
        kept = classes[given] if given >= 0 else None
        if verdict == "other":
            if label not in classes:
                raise UnswayedError(f"one of the {len(classes)} classes", got=repr(label), do="choose from the list")
            verdict = "keep" if label == kept else "accept" if label == suggested else "other"
        if verdict in ("keep", "both") and kept is None:
            raise UnswayedError("a label to keep", got="a row without one", do="choose a label, or say that none fits")
        if verdict == "accept" and suggested == kept:
            verdict = "keep"
        wanted = {"keep": kept, "both": kept, "accept": suggested, "other": label}
        return verdict, wanted.get(verdict)

    def _add(self, at: int, verdict: str, label: str | None, reviewer: str, undoes: int | None) -> int:
        given = int(self._given[at])
        words = (
            *(at, int(self.audit.rows[at]), verdict, label, self.audit.classes[given] if given >= 0 else ""),
            *(float(self.audit.suspicion[at]), reviewer, datetime.now(UTC).isoformat(timespec="seconds"), undoes),
        )
        done = self._base.execute(
            "INSERT INTO decisions (position, row, verdict, label, given, suspicion, reviewer, time, undoes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            words,
        )
        return int(done.lastrowid or 0)

    def _apply(
        self, number: int, at: int, verdict: str, label: str | None, reviewer: str, time: str, undoes: int | None
    ) -> None:
        self.last = number
        stack = self._stacks.setdefault(at, {}).setdefault(reviewer, [])
        history = self._history.setdefault(at, [])
        if verdict == "undo":
            stack[:] = [made for made in stack if made.id != undoes]
            history[:] = [
                Decision(m.id, m.at, m.verdict, m.label, m.reviewer, m.time, m.undone or m.id == undoes)
                for m in history
            ]
        else:
            made = Decision(number, at, verdict, label, reviewer, time)
            stack.append(made)
            history.append(made)
        self._judge(at)

    def _judge(self, at: int) -> None:
        standing = self.standing(at)
        settling = [made for made in standing if made.settles]
        if settling:
            self.state[at] = SETTLED if len({made.label for made in settling}) == 1 else CONFLICT
        else:
            self.state[at] = SKIPPED if standing else OPEN
        given = int(self._given[at])
        kept = self.audit.classes[given] if given >= 0 else None
        settled = self.state[at] == SETTLED
        self.wrong[at] = settled and kept is not None and settling[-1].label != kept
        self.when[at] = settling[0].id if settled else 0

    def _open(self) -> None:
        """Create what is missing, and check what is there."""
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = FULL")  # on the disk before the page hears of it
        names = {row[0] for row in self._base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if names and not {"about", "decisions"} <= names:
            raise UnswayedError(
                f"a file of decisions, {self.path}", got="another database", do="choose another --decisions"
            )
        with self._alone():
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    self._base.execute(statement)
            mark = fingerprint(self.audit)
            for name, value in (("format", _FORMAT), ("audit", mark), ("unswayed", __version__)):
                self._base.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
        about: dict[str, Any] = dict(self._base.execute("SELECT name, value FROM about"))
        if about["format"] != _FORMAT:
            got = f"format {about['format']}, of unswayed {about['unswayed']}"
            raise UnswayedError(f"decisions of format {_FORMAT} in {self.path}", got=got, do="use that version")
        if about["audit"] != mark:
            raise UnswayedError(
                f"decisions on this audit in {self.path}",
                got="those on another one (other rows, labels or suspicions)",
                do="keep them: name that audit, or another file with --decisions FILE",
            )
        self.refresh()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A transaction that no other process writes into."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @contextmanager
    def _clear(self) -> Iterator[None]:
        """What the database cannot do, in words that help."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            do = "check that the folder can be written and the disk has room, or choose another --decisions FILE"
            raise UnswayedError(f"a file of decisions that can be used, {self.path}", got=error, do=do) from error


def fingerprint(audit: Audit) -> str:
    """Short text that differs where two audits differ in rows, classes, labels, suggestions or suspicions."""
    digest = hashlib.blake2b("\0".join(audit.classes).encode(), digest_size=16)
    for values in (audit.rows, audit.given, audit.suggested, audit.suspicion):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _name(reviewer: str) -> str:
    name = " ".join(str(reviewer).split())
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise UnswayedError(f"a reviewer's name of 1 to {_LONGEST_NAME} letters", got=repr(reviewer)[:80])
    return name
