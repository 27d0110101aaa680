"""The proof: grids of experiments that survive anything, statistics over seeds, and published figures beside ours.

>>> from unswayed import bench
>>> suite = bench.read_suite("quick", changes=["epochs=3"], tasks=["wine*"])
>>> len(list(bench.entries(suite))) == len(suite.tasks) * len(suite.arms) * len(suite.seeds)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unswayed.registry import lazy_attributes

if TYPE_CHECKING:
    from unswayed.bench.grid import Cell, Entry, entries
    from unswayed.bench.page import write
    from unswayed.bench.results import Results, read_results
    from unswayed.bench.running import How, News, run_suite
    from unswayed.bench.store import Store
    from unswayed.bench.suite import Suite, make_suite, read_suite, shipped
    from unswayed.bench.table import tables

__getattr__ = lazy_attributes(
    __name__,
    {
        "Cell": "grid",
        "Entry": "grid",
        "entries": "grid",
        "write": "page",
        "Results": "results",
        "read_results": "results",
        "How": "running",
        "News": "running",
        "run_suite": "running",
        "Store": "store",
        "Suite": "suite",
        "make_suite": "suite",
        "read_suite": "suite",
        "shipped": "suite",
        "tables": "table",
    },
)

__all__ = ["Cell", "Entry", "How", "News", "Results", "Store", "Suite", "entries", "make_suite", "read_results"]
__all__ += ["read_suite", "run_suite", "shipped", "tables", "write"]
