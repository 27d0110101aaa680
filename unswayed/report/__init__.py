"""The report: finished runs as a table in the terminal and as one self-contained HTML page. Reads result files only.

>>> from unswayed import report
>>> study = report.load("runs/my-study")                   # doctest: +SKIP
>>> rich.print(report.table(study))                        # doctest: +SKIP
>>> report.write(study, "report.html")                     # doctest: +SKIP
"""

from __future__ import annotations

from unswayed.report.page import write
from unswayed.report.results import Arm, Run, Section, Study
from unswayed.report.statistics import Interval, Verdict, interval, paired, verdict
from unswayed.report.studies import load
from unswayed.report.table import table

__all__ = [
    "Arm",
    "Interval",
    "Run",
    "Section",
    "Study",
    "Verdict",
    "interval",
    "load",
    "paired",
    "table",
    "verdict",
    "write",
]
