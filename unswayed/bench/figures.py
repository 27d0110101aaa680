"""The page's figures: accuracy over noise and rows, gains of masks, cost against accuracy, mean ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unswayed.bench.drawing import (
    LINE,
    PLOT,
    WIDE,
    Axis,
    Drawing,
    around,
    cut,
    frame,
    path,
    shown_ends,
    spread_out,
    svg,
    text,
)
from unswayed.bench.results import Results
from unswayed.bench.statistics import Gain, Ranking, over_tasks
from unswayed.bench.words import in_words
from unswayed.report.page import Ink
from unswayed.report.statistics import Interval, interval
from unswayed.report.summary import percent, signed

# ------------------------------------------------------------------------------------------------ over noise


def over_axis(results: Results, looks: dict[str, Ink]) -> list[Drawing]:
    """A figure for every family of tasks that differ in one number: accuracy over noise rates or rows."""
    families: dict[str, list[str]] = {}
    for task in results.suite.tasks:
        if task.family and task.name in results.tasks:
            families.setdefault(task.family, []).append(task.name)
    return [_over(results, looks, names) for names in families.values() if len(names) > 1]


def _over(results: Results, looks: dict[str, Ink], names: list[str]) -> Drawing:
    tasks = [results.suite.task(name) for name in names]
    axis = tasks[0].axis
    places = [100 * task.at if axis == "rate" else task.at for task in tasks]
    lines = {
        arm: [(x, interval(found.values())) for x, name in zip(places, names, strict=True)
              if (found := results.seeds(name, arm))]
        for arm in results.arms
    }  # fmt: skip
    lines = {arm: points for arm, points in lines.items() if points}
    height = max(340.0, 90 + LINE * len(lines))
    ends = [min(1.0, max(0.0, v)) for p in lines.values() for _, i in p for v in shown_ends(i)]
    up, across = (
        Axis(*around(ends), height - 50, 34),
        Axis(min(places), max(places), 64, PLOT - 12, log=axis == "limit"),
    )
    what, unit = ("wrong labels asked for", " %") if axis == "rate" else ("training rows", "")
    pieces = frame(across, up, f"{what}{unit}", "%", at=places)
    labels = spread_out([up.at(p[-1][1].mean) for p in lines.values()], LINE, up.end, up.start)
    for nth, ((arm, points), y) in enumerate(zip(lines.items(), labels, strict=True)):
        ink, last = looks[arm], points[-1]
        aside = min(2.5, 20 / len(lines)) * (nth - (len(lines) - 1) / 2)  # so that no stroke hides another
        way = "L".join(f"{across.at(x):.1f} {up.at(i.mean):.1f}" for x, i in points)
        pieces.append(f'<g class="{ink.colour}">')
        for x, i in points:
            low, high = shown_ends(i)
            if high > low:
                top, bottom = up.at(min(1.0, high)), up.at(max(0.0, low))
                pieces.append(path(f"M{across.at(x) + aside:.1f} {top:.1f}V{bottom:.1f}", "whisker"))
        pieces += [path(f"M{way}" + ("h0" if len(points) == 1 else ""), "line", ink.dash)]
        x, end = across.at(last[0]) + 4, up.at(last[1].mean)
        pieces += [path(f"M{x:.1f} {end:.1f}L{PLOT + 6} {y:.1f}h8", "leader")]
        pieces += [text(PLOT + 18, y + 4, cut(arm), look="label"), "</g>"]
    noise = f"{tasks[0].fields['noise']} noise" if axis == "rate" else f"over rows ({tasks[0].family})"
    said = "; ".join(f"{arm} from {percent(p[0][1].mean)} to {percent(p[-1][1].mean)} %" for arm, p in lines.items())
    caption = "Mean over seeds; the stroke is its 95 % t interval."
    return Drawing(f"{tasks[0].source}, {noise}", caption, svg(height, f"Test accuracy: {said}", pieces))


# ------------------------------------------------------------------------------------------------ gains


def forest(found: Sequence[Gain], looks: dict[str, Ink]) -> Drawing | None:
    """What a mask adds to each arm, over the bare head and over a random mask, with intervals; None without any."""
    rows: list[tuple[str, str, Interval, str]] = []
    for gain in found:
        if gain.over_bare.n:
            rows.append((gain.arm, f"over {gain.bare}", gain.over_bare, looks[gain.arm].colour))
        if gain.over_random is not None and gain.over_random.n:
            rows.append(("", "over a random mask", gain.over_random, "control"))
    if not rows:
        return None
    height = 46 + 2 * LINE * len(rows)
    ends = [max(-1.0, min(1.0, v)) for *_, gained, _ in rows for v in shown_ends(gained)]
    across = Axis(*around([0.0, *ends]), 300, WIDE - 100)
    pieces = [path(f"M{across.at(0):.1f} 10V{height - 30:.0f}", "zero")]
    for tick in across.ticks():
        words = f"{100 * tick:g}".replace("-", "−")
        pieces.append(text(across.at(tick), height - 12, words, anchor="middle", look="tick"))
    pieces.append(text(WIDE, height - 12, "points", anchor="end", look="axis"))
    for i, (arm, other, value, colour) in enumerate(rows):
        y = 20 + 2 * LINE * i
        low, high = (across.at(max(-1.0, min(1.0, v))) for v in shown_ends(value))
        pieces += [f'<g class="{colour}">', text(0, y, arm, look="label"), text(0, y + 13, other, look="tick")]
        if value.known:
            pieces.append(path(f"M{low:.1f} {y + 3:.1f}H{high:.1f}", "range"))
        pieces.append(f'<circle cx="{across.at(value.mean):.1f}" cy="{y + 3:.1f}" r="4"/>')
        shown = value.known and (value.low > 0 or value.high < 0)
        look = "label" if shown else "tick"
        pieces += [text(WIDE, y + 7, signed(value.mean) + ("" if shown else " n.s."), anchor="end", look=look), "</g>"]
    said = "; ".join(f"{arm or 'the same'} {other} {signed(value.mean)}" for arm, other, value, _ in rows)
    caption = "Mean over all tasks, 95 % t interval over paired seeds. n.s.: no difference shown."
    return Drawing("What an edge-masked head adds", caption, svg(height, said, pieces))


# ------------------------------------------------------------------------------------------------ cost


def cost(results: Results, looks: dict[str, Ink]) -> Drawing | None:
    """Seconds of training beside the control's, against points of accuracy over it; None without a control."""
    control = results.control
    points = []
    for arm in results.arms if control is not None else ():
        assert control is not None
        ratio, gain = _ratio(results, arm, control), over_tasks(results, arm, control)
        if arm == control:
            gain = Interval(0.0, math.nan, 1)
        if math.isfinite(ratio) and ratio > 0 and gain.n:
            points.append((arm, ratio, gain.mean))
    if len(points) < 2:
        return None
    height = max(340.0, 90 + LINE * len(points))
    low, high = min(r for _, r, _ in points), max(r for _, r, _ in points)
    across = Axis(low / 1.15, high * 1.15, 64, PLOT - 12, log=True)
    up = Axis(*around([0.0, *(g for *_, g in points)]), height - 50, 34)
    pieces = frame(across, up, f"seconds of training, as a multiple of {control}'s", "points")
    pieces.append(path(f"M{across.start} {up.at(0):.1f}H{across.end}", "zero"))
    labels = spread_out([up.at(g) for *_, g in points], LINE, up.end, up.start)
    for (arm, ratio, gain_), y in zip(points, labels, strict=True):
        x, own = across.at(ratio), up.at(gain_)
        pieces += [f'<g class="{looks[arm].colour}">', path(f"M{x + 6:.1f} {own:.1f}L{PLOT + 6} {y:.1f}h8", "leader")]
        pieces += [
            f'<circle cx="{x:.1f}" cy="{own:.1f}" r="5"/>',
            text(PLOT + 18, y + 4, cut(arm), look="label"),
            "</g>",
        ]
    said = "; ".join(f"{arm} {ratio:.2g} times, {signed(g)} points" for arm, ratio, g in points)
    caption = f"Geometric mean of the ratio over tasks and seeds; points over {control}, mean over tasks."
    return Drawing("Cost against accuracy", caption, svg(height, said, pieces))


def _ratio(results: Results, arm: str, control: str) -> float:
    logs = []
    for task in results.tasks:
        own, base = (results.seeds(task, one, lambda s: s.seconds) for one in (arm, control))
        logs += [math.log(own[s] / base[s]) for s in own.keys() & base.keys() if own[s] > 0 and base[s] > 0]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


# ------------------------------------------------------------------------------------------------ ranks


def ranks(ranking: Ranking) -> Drawing:
    """The critical-difference diagram: arms at their mean ranks, bars over those not shown to differ."""
    k = len(ranking.arms)
    left = (k + 1) // 2
    first = 62.0 + 12 * len(ranking.cliques)
    height = first + 22 * left + 8
    across = Axis(1, k, 250, WIDE - 250)
    pieces = [path(f"M{across.start} 44H{across.end}", "ruler")]
    step = max(1, math.ceil((k - 1) / 10))
    for tick in range(1, k + 1, step):
        pieces += [path(f"M{across.at(tick):.1f} 38V44", "ruler")]
        pieces += [text(across.at(tick), 33, str(tick), anchor="middle", look="tick")]
    if ranking.differ:
        width = across.at(1 + ranking.critical) - across.at(1)
        ends = min(across.start + width, WIDE - 4.0)
        pieces += [path(f"M{across.start} 6v8M{across.start} 10H{ends:.1f}M{ends:.1f} 6v8", "range")]
        pieces += [text(ends + 6, 14, f"critical difference {ranking.critical:.2f}", look="tick")]
    for level, (a, b) in enumerate(ranking.cliques):
        at_y, x0, x1 = 56 + 12 * level, across.at(ranking.ranks[a]) - 4, across.at(ranking.ranks[b]) + 4
        pieces.append(path(f"M{x0:.1f} {at_y}H{x1:.1f}", "clique"))
    for i, (arm, value) in enumerate(zip(ranking.arms, ranking.ranks, strict=True)):
        on_left = i < left
        y = first + 22 * (i if on_left else k - 1 - i) + 4
        x, edge = across.at(value), across.start - 12 if on_left else across.end + 12
        pieces.append(path(f"M{x:.1f} 44V{y:.1f}H{edge:.1f}", "stem"))
        anchor, at = ("end", edge - 6) if on_left else ("start", edge + 6)
        pieces.append(text(at, y + 4, cut(arm), anchor=anchor, look="label"))
        pieces.append(text(edge + (3 if on_left else -3), y - 4, f"{value:.2f}", anchor="start" if on_left else "end",
                            look="tick"))  # fmt: skip
    said = "; ".join(f"{arm} {value:.2f}" for arm, value in zip(ranking.arms, ranking.ranks, strict=True))
    caption = (
        f"1 is best. Bars join arms that are not shown to differ (Nemenyi, 5 %). Friedman over {ranking.tasks} tasks: "
        f"χ² {ranking.chi2:.1f}, p {in_words(ranking.p)}"
        + ("." if ranking.differ else ": no difference shown between any.")
    )
    return Drawing("Mean ranks", caption, svg(height, f"Mean ranks: {said}", pieces))
