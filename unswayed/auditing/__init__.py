"""Audits: which labels are probably wrong, how sure that is, and what they should be. Works without the engine."""

from __future__ import annotations

from unswayed.auditing.table import KINDS, Audit, Interval, Noise

__all__ = ["KINDS", "Audit", "Interval", "Noise"]
