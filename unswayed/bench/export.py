"""Results as plain data, for JSON."""

from __future__ import annotations

import math
from typing import Any

from unswayed.bench.published import beside
from unswayed.bench.results import Results
from unswayed.bench.statistics import against_control, gains, rank
from unswayed.report.statistics import Interval


def as_plain(results: Results) -> dict[str, Any]:
    """Everything that table and page show; what is not known is None."""
    ranking = rank(results)
    return {
        "suite": results.suite.name,
        "control": results.control,
        "runs": [_known(vars(score)) for score in results.scores],
        "differences": [
            {"task": c.task, "arm": c.arm, "control": c.control, **_interval(c.difference),
             "bootstrap": [_number(v) for v in c.bootstrap], "p": _number(c.p), "holm": _number(c.holm),
             "verdict": c.said.value}
            for c in against_control(results)
        ],
        "masking": [
            {"arm": g.arm, "bare": g.bare, "over_bare": _interval(g.over_bare), "random": g.random,
             "over_random": None if g.over_random is None else _interval(g.over_random)}
            for g in gains(results)
        ],
        "ranking": None if ranking is None else _known(vars(ranking)),
        "published": [
            {**_known(vars(b.figure)), "ours": _number(b.ours), "seeds": b.seeds, "difference": _number(b.difference),
             "low": _number(b.low), "high": _number(b.high), "said": b.said}
            for b in beside(results)
        ],
        "chosen": [
            {"task": entry.task, "arm": entry.arm, "seed": entry.seed, "setting": choice.index, "scores": choice.scores}
            for entry, choice in results.choices
        ],
        "missing": [{"task": e.task, "arm": e.arm, "seed": e.seed} for e in results.missing],
        "failures": [
            {"cell": f.cell.key, "task": f.cell.task, "arm": f.cell.arm, "seed": f.cell.seed, "error": f.why}
            for f in results.failures
        ],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _number(v) if isinstance(v, float) else v for k, v in values.items()}


def _interval(value: Interval) -> dict[str, Any]:
    return {"mean": _number(value.mean), "low": _number(value.low), "high": _number(value.high), "seeds": value.n}
