"""Audits: which labels are probably wrong, how sure that is, and what they should be. Works without the engine."""

from __future__ import annotations

from unswayed.auditing.acquire import Going, next_labels, recalibrate, worth_going_on
from unswayed.auditing.budget import Budget, error_budget
from unswayed.auditing.run import audit
from unswayed.auditing.table import KINDS, Audit, Interval, Noise
from unswayed.auditing.verdict import Advice, choose_method

__all__ = [
    "KINDS",
    "Advice",
    "Audit",
    "Budget",
    "Going",
    "Interval",
    "Noise",
    "audit",
    "choose_method",
    "error_budget",
    "next_labels",
    "recalibrate",
    "worth_going_on",
]
