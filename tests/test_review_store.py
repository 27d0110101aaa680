"""Decisions: kept at once and for ever, by several people, through crashes; never mixed up with another audit."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from review_case import make_audit

from unswayed import UnswayedError
from unswayed.auditing.table import Audit
from unswayed.review import Decisions
from unswayed.review.store import CONFLICT, OPEN, SETTLED, SKIPPED, fingerprint

CLASSES = ("cat", "dog", "fox")


@pytest.fixture
def audit() -> Audit:
    given = torch.tensor([0, 1, 2, 0, -1, 1])
    made, _ = make_audit(given, CLASSES, config=None, rows=torch.tensor([10, 11, 12, 13, 14, 15]))
    return replace(made, suggested=torch.tensor([1, 1, 0, 2, 2, 0]))


def test_each_verdict(audit: Audit, tmp_path: Path) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    made = [
        base.decide(0, "accept", None, "Ada"),
        base.decide(1, "keep", None, "Ada"),
        base.decide(2, "other", "dog", "Ada"),
        base.decide(3, "both", None, "Ada"),
        base.decide(4, "none", None, "Ada"),
        base.decide(5, "skip", None, "Ada"),
    ]
    assert [(d.verdict, d.label) for d in made] == [
        *(("accept", "dog"), ("keep", "dog"), ("other", "dog")),
        *(("both", "cat"), ("none", None), ("skip", None)),
    ]
    assert base.state.tolist() == [SETTLED] * 5 + [SKIPPED]
    assert base.wrong.tolist() == [True, False, True, False, False, False]  # no label is no wrong one
    with sqlite3.connect(tmp_path / "review.sqlite") as file:
        rows = file.execute("SELECT row, verdict, label, given, reviewer FROM decisions ORDER BY id").fetchall()
        assert rows[0] == (10, "accept", "dog", "cat", "Ada")
        assert rows[4] == (14, "none", None, "", "Ada")
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_another_label_may_be_the_given_or_the_suggested_one(audit: Audit, tmp_path: Path) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    assert base.decide(0, "other", "cat", "Ada").verdict == "keep"
    assert base.decide(0, "other", "dog", "Ada").verdict == "accept"
    assert base.decide(1, "accept", None, "Ada").verdict == "keep"  # what is suggested is what is given


def test_undo_goes_back_step_by_step(audit: Audit, tmp_path: Path) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    base.decide(0, "keep", None, "Ada")
    base.decide(0, "accept", None, "Ada")
    base.decide(2, "none", None, "Ada")
    base.decide(3, "keep", None, "Bob")
    taken = [base.undo("Ada") for _ in range(4)]
    assert [d and (d.at, d.verdict) for d in taken] == [(2, "none"), (0, "accept"), (0, "keep"), None]
    assert base.state.tolist() == [OPEN, OPEN, OPEN, SETTLED, OPEN, OPEN]
    assert [(d.verdict, d.undone) for d in base.history(0)] == [("keep", True), ("accept", True)]
    again = Decisions(tmp_path / "review.sqlite", audit)
    assert again.state.tolist() == base.state.tolist()
    assert again.history(0) == base.history(0)


def test_two_reviewers_on_one_row(audit: Audit, tmp_path: Path) -> None:
    first, second = (Decisions(tmp_path / "review.sqlite", audit) for _ in range(2))
    first.decide(0, "accept", None, "Ada")
    second.decide(0, "keep", None, "Bob")
    first.refresh()
    for base in (first, second):
        assert base.state[0] == CONFLICT
        assert [(d.reviewer, d.label) for d in base.standing(0)] == [("Ada", "dog"), ("Bob", "cat")]
        assert base.verdict(0) is None
        assert not base.wrong[0]
    second.decide(0, "skip", None, "Cid")  # says nothing about the label
    assert second.state[0] == CONFLICT
    second.decide(0, "other", "dog", "Bob")
    first.refresh()
    assert first.state[0] == SETTLED
    assert first.wrong[0]
    assert len(first.history(0)) == 4
    assert first.undo("Bob") is not None
    assert first.state[0] == CONFLICT


def test_keeping_and_both_agree_on_the_label(audit: Audit, tmp_path: Path) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    base.decide(0, "keep", None, "Ada")
    base.decide(0, "both", None, "Bob")
    assert base.state[0] == SETTLED


def test_changes_since(audit: Audit, tmp_path: Path) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    base.decide(0, "keep", None, "Ada")
    last = base.last
    base.decide(3, "keep", None, "Ada")
    assert base.changed(last) == [3]
    base.undo("Ada")
    assert base.changed(last + 1) == [3]


@pytest.mark.parametrize(
    ("verdict", "label", "reviewer", "words"),
    [
        ("maybe", None, "Ada", "one of the verdicts"),
        ("other", "wolf", "Ada", "one of the 3 classes"),
        ("other", None, "Ada", "one of the 3 classes"),
        ("keep", None, " ", "reviewer's name"),
        ("keep", None, "A" * 65, "reviewer's name"),
        ("keep", None, "A\x00", "reviewer's name"),
    ],
)
def test_what_is_no_decision(
    audit: Audit, tmp_path: Path, verdict: str, label: str | None, reviewer: str, words: str
) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    with pytest.raises(UnswayedError, match=words):
        base.decide(0, verdict, label, reviewer)
    assert base.last == 0


def test_rows_that_cannot_be_decided_so(audit: Audit, tmp_path: Path) -> None:
    base = Decisions(tmp_path / "review.sqlite", audit)
    with pytest.raises(UnswayedError, match=r"position 0\.\.5"):
        base.decide(6, "keep", None, "Ada")
    with pytest.raises(UnswayedError, match="a label to keep"):
        base.decide(4, "keep", None, "Ada")


def test_decisions_on_another_audit_are_refused(audit: Audit, tmp_path: Path) -> None:
    path = tmp_path / "review.sqlite"
    Decisions(path, audit).decide(0, "keep", None, "Ada")
    for other in (
        replace(audit, given=audit.given.flip(0)),
        replace(audit, suspicion=audit.suspicion * 0.999),
        replace(audit, rows=audit.rows + 1),
        replace(audit, classes=("cat", "dog", "wolf")),
    ):
        assert fingerprint(other) != fingerprint(audit)
        with pytest.raises(UnswayedError, match="got those on another one"):
            Decisions(path, other)
    assert Decisions(path, audit).last == 1


def test_the_fingerprint_survives_the_folder(audit: Audit, tmp_path: Path) -> None:
    assert fingerprint(Audit.load(audit.save(tmp_path / "audit"))) == fingerprint(audit)


def test_files_that_are_no_decisions(audit: Audit, tmp_path: Path) -> None:
    text, other = tmp_path / "text.sqlite", tmp_path / "other.sqlite"
    text.write_text("these are no decisions, and it is long enough to be taken for a header " * 20)
    with pytest.raises(UnswayedError, match="file of decisions that can be used"):
        Decisions(text, audit)
    base = sqlite3.connect(other)
    base.execute("CREATE TABLE photos (name TEXT)")
    base.commit()
    base.close()
    with pytest.raises(UnswayedError, match="another database"):
        Decisions(other, audit)
    with pytest.raises(UnswayedError, match="no file at"):
        Decisions(tmp_path / "none.sqlite", audit, create=False)
    (tmp_path / "file").touch()
    with pytest.raises(UnswayedError, match="file of decisions that can be used"):
        Decisions(tmp_path / "file" / "review.sqlite", audit)


KILLED = """
import sys
from unswayed.auditing.table import Audit
from unswayed.review import Decisions
base = Decisions(sys.argv[1] + "/review.sqlite", Audit.load(sys.argv[1]))
for at in range(1_000_000):
    made = base.decide(at % len(base.audit), "keep", None, "Ada")
    print(made.id, flush=True)
"""


def test_what_was_saved_survives_a_kill(tmp_path: Path) -> None:
    audit, _ = make_audit(torch.randint(0, 3, (500,)), CLASSES, config=None)
    folder = audit.save(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    last = int(told[-1])
    base = Decisions(folder / "review.sqlite", audit)
    assert base.last >= last >= 40  # everything that was told as saved is there
    base.decide(499, "none", None, "Bob")
    assert Decisions(folder / "review.sqlite", audit).last == base.last


def test_many_processes_write_at_once(audit: Audit, tmp_path: Path) -> None:
    folder = audit.save(tmp_path)
    script = KILLED.replace("1_000_000", "25").replace('"Ada"', "sys.argv[2]")
    everyone = [subprocess.Popen([sys.executable, "-c", script.replace('"keep"', '"none"'), str(folder), f"R{i}"],
                                 stdout=subprocess.DEVNULL) for i in range(3)]  # fmt: skip
    started = time.monotonic()
    assert [each.wait(timeout=120) for each in everyone] == [0, 0, 0], time.monotonic() - started
    base = Decisions(folder / "review.sqlite", audit)
    assert base.last == 75
    assert len(base.standing(0)) == 3
