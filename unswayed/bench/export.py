"""Results as plain data, for JSON; and without single runs, as small as a paper's table, for keeping."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from unswayed.bench.published import beside
from unswayed.bench.results import Results
from unswayed.bench.statistics import against_control, gains, over_all, over_tasks, rank
from unswayed.report.statistics import Interval, Verdict, verdict
from unswayed.report.summary import percent, signed


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


def aggregated(results: Results) -> dict[str, Any]:
    """What a table needs, with its configuration, seeds, versions and machines, and without single runs."""
    whole = as_plain(results)
    apart = ("runs", "failures", "missing", "chosen")
    ranks = dict(zip(ranking.arms, ranking.ranks, strict=True)) if (ranking := rank(results)) else {}
    control = results.control
    compared = against_control(results)
    return {
        "suite": results.suite.name,
        "config": asdict(results.suite),
        "seeds": list(results.suite.seeds),
        "versions": list(results.versions),
        "machines": list(results.machines),
        "runs": len(results.scores),
        "missing": len(results.missing),
        "seconds": round(math.fsum(score.seconds for score in results.scores if math.isfinite(score.seconds)), 1),
        "arms": [
            {"arm": arm, "rank": ranks.get(arm), "accuracy": _interval(over_all(results, arm)),
             "gain": None if control is None or arm == control else _gain(over_tasks(results, arm, control)),
             "tasks": {side.value: [one.task for one in compared if one.arm == arm and one.said is side]
                       for side in Verdict}}
            for arm in results.arms
        ],
        "accuracies": [
            {"task": task, "arm": arm, "values": [round(value, 5) for value in found.values()]}
            for (task, arm) in results.table if (found := results.seeds(task, arm))
        ],
        **{key: value for key, value in whole.items() if key not in (*apart, "suite")},
    }  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    """The table of arms of `aggregated` results, for a document."""
    control = found["control"]
    lines = [f"| arm | mean rank | mean accuracy, % | over {control}, points | tasks better / worse / open |"]
    lines.append("|---|---|---|---|---|")
    for one in found["arms"]:
        accuracy, gain, tasks = (one[key] for key in ("accuracy", "gain", "tasks"))
        half = f" ± {percent(accuracy['high'] - accuracy['mean'])}" if accuracy["high"] is not None else ""
        counts = [len(tasks[side.value]) for side in (Verdict.BETTER, Verdict.WORSE)]
        open_ = sum(map(len, tasks.values())) - sum(counts)
        said = "control"
        if gain is not None:
            ends = f" ({signed(gain['low'])} to {signed(gain['high'])})" if gain["low"] is not None else ""
            said = f"{signed(gain['mean'])}{ends}, {gain['verdict']}"
        rank_ = "–" if one["rank"] is None else f"{one['rank']:.2f}"
        each = "–" if gain is None else f"{counts[0]} / {counts[1]} / {open_}"
        lines.append(f"| `{one['arm']}` | {rank_} | {percent(accuracy['mean'])}{half} | {said} | {each} |")
    return "\n".join(lines)


def _gain(value: Interval) -> dict[str, Any]:
    return {**_interval(value), "verdict": verdict(value).value}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _number(v) if isinstance(v, float) else v for k, v in values.items()}


def _interval(value: Interval) -> dict[str, Any]:
    return {"mean": _number(value.mean), "low": _number(value.low), "high": _number(value.high), "seeds": value.n}
