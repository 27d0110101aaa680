"""The figures as SVG files that need nothing but themselves: light or dark as the reader's system is, with words."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from unswayed.report.curves import Chart
from unswayed.report.pictures import Mask, png
from unswayed.report.statistics import Interval

WIDE, HIGH = 250, 190  # of a plot
GAP, LEFT, TOP, FOOT = 46, 52, 108, 44
LEAST = 760  # width that holds any title
ROW = 11  # height of a class in a mask

STYLE = """
text { font: 12px -apple-system, 'Segoe UI', Roboto, 'Noto Sans', Helvetica, Arial, sans-serif; fill: #1d1c1a; }
.title { font-size: 16px; font-weight: 640; } .name { font-weight: 600; } .small { font-size: 10px; }
.soft { fill: #625e57; }
.ground { fill: #faf9f6; } .frame { fill: #ffffff; stroke: #e4e0d8; } .grid { stroke: #e4e0d8; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--c); opacity: .13; } path, line { vector-effect: non-scaling-stroke; }
.hue-0 { --c: #55524c; } .hue-1 { --c: #0072b2; } .hue-2 { --c: #c44e00; }
image { image-rendering: pixelated; }
@media (prefers-color-scheme: dark) {
  text { fill: #ebeae6; } .soft { fill: #a5a29b; } .ground { fill: #131416; } .frame { fill: #1b1d20; stroke: #303338; }
  .grid { stroke: #303338; } .hue-0 { --c: #b9b6af; } .hue-1 { --c: #56a9e8; } .hue-2 { --c: #ff8f4d; }
}
"""


@dataclass(frozen=True)
class Ink:
    """How an arm is drawn: a hue of the style, and a dash."""

    hue: int
    dash: str


def plots(title: str, rows: Sequence[Sequence[tuple[str, Chart]]], inks: dict[str, Ink]) -> str:
    """Rows of plots, each with its name; lines are looked up in `inks` by the name of their arm."""
    columns = max(len(row) for row in rows)
    width = max(LEAST, LEFT + columns * (WIDE + GAP))
    height = TOP + len(rows) * (HIGH + FOOT + GAP // 2) + 16
    shown = {line.name for row in rows for _, chart in row for line in chart.lines}
    parts = [_legend({name: ink for name, ink in inks.items() if name in shown}, width)]
    for r, row in enumerate(rows):
        for c, (name, chart) in enumerate(row):
            parts.append(_plot(name, chart, inks, LEFT + c * (WIDE + GAP), TOP + r * (HIGH + FOOT + GAP // 2)))
    said = (f"{name}. {chart.summary}" for row in rows for name, chart in row)
    return _page(title, said, parts, width, height)


def _plot(name: str, chart: Chart, inks: dict[str, Ink], x: float, y: float) -> str:
    parts = [f'<text class="name" x="{x}" y="{y - 10}">{escape(name)}</text>']
    for tick in chart.upwards:
        at = y + HIGH * tick.at / 100
        parts.append(f'<line class="grid" x1="{x}" x2="{x + WIDE}" y1="{at:g}" y2="{at:g}"/>')
        parts.append(f'<text class="soft" x="{x - 7}" y="{at + 4:g}" text-anchor="end">{tick.label}</text>')
    for tick in chart.across:
        at = x + WIDE * tick.at / 100
        parts.append(f'<text class="soft" x="{at:g}" y="{y + HIGH + 17}" text-anchor="middle">{tick.label}</text>')
    parts.append(f'<text class="soft" x="{x + WIDE / 2}" y="{y + HIGH + 33}" text-anchor="middle">epoch</text>')
    place = f'x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" viewBox="0 0 1000 1000" preserveAspectRatio="none"'
    lines = "".join(
        f'<g class="hue-{inks[line.name].hue}"><path class="band" d="{line.band}"/>'
        f'<path class="line" stroke-dasharray="{inks[line.name].dash}" d="{line.path}"/></g>'
        for line in chart.lines
    )
    return "\n".join([*parts, f'<svg {place} overflow="visible">{lines}</svg>'])


def _legend(inks: dict[str, Ink], width: float) -> str:
    parts, x, y = [], LEFT, 52
    for name, ink in inks.items():
        needed = 48 + 7 * len(name)
        if x + needed > width:
            x, y = LEFT, y + 17
        parts.append(
            f'<g class="hue-{ink.hue}"><line class="line" stroke-dasharray="{ink.dash}" x1="{x}" x2="{x + 26}" '
            f'y1="{y - 4}" y2="{y - 4}"/><text x="{x + 33}" y="{y}">{escape(name)}</text></g>'
        )
        x += needed
    return "\n".join(parts)


def pictures(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, Mask]]]], names: Sequence[str]) -> str:
    """Rows of masks, each with its arm; every mask with its own words. `names` are those of the classes."""
    shown = max(len(masks) for _, masks in rows)
    classes, inputs = rows[0][1][0][1].shape
    wide = inputs * max(1, round(WIDE / inputs))  # whole pixels an input, or stripes of uneven width would appear
    left = max(LEFT, 24 + 6 * max(len(name) for name in names))
    step = classes * ROW + 62
    width, height = max(LEAST, left + shown * (wide + 24)), 60 + len(rows) * step + 14
    parts, said = [], []
    for r, (arm, masks) in enumerate(rows):
        y = 66 + r * step
        parts.append(f'<text class="name" x="{left}" y="{y}">{escape(arm)}</text>')
        for k, name in enumerate(names):
            at = y + 15.5 + (k + 0.5) * ROW
            parts.append(f'<text class="soft small" x="{left - 7}" y="{at}" text-anchor="end">{escape(name)}</text>')
        for c, (words, mask) in enumerate(masks):
            x = left + c * (wide + 24)
            place = f'x="{x}" y="{y + 12}" width="{wide}" height="{classes * ROW}"'
            source = base64.b64encode(png(mask)).decode()
            parts.append(f'<rect class="frame" {place}/>')
            parts.append(f'<image {place} preserveAspectRatio="none" href="data:image/png;base64,{source}"/>')
            parts.append(f'<text class="soft" x="{x}" y="{y + 28 + classes * ROW}">{escape(words)}</text>')
            said.append(f"{arm}, {words}.")
    return _page(title, said, parts, width, height)


REACH = 20.0  # points


def effects(title: str, blocks: Sequence[tuple[str, Sequence[tuple[str, Interval]]]]) -> str:
    """Blocks of intervals around zero: points gained, a line each; all blocks share one scale, in three columns.

    What lies beyond `REACH` points is drawn at the edge, or a few collapses would hide all the rest; numbers tell.
    """
    columns, line = 3, 15
    scale = max(1.0, *(min(REACH, abs(i.mean)) for _, rows in blocks for _, i in rows))
    tall = max(len(rows) for _, rows in blocks) * line + 40
    parts, said = [], []
    for b, (name, rows) in enumerate(blocks):
        x, y = LEFT + 50 + (b % columns) * (WIDE + 110), 66 + (b // columns) * tall
        zero = x + WIDE / 2
        parts.append(f'<text class="name" x="{x - 50}" y="{y - 8}">{escape(name)}</text>')
        parts.append(f'<line class="grid" x1="{zero}" x2="{zero}" y1="{y}" y2="{y + len(rows) * line}"/>')
        for r, (form, found) in enumerate(rows):
            at, half = y + (r + 0.5) * line, found.half if found.known else 0.0
            low, mean, high = (
                zero + WIDE / 2 * max(-1.0, min(1.0, value / scale))
                for value in (found.mean - half, found.mean, found.mean + half)
            )
            parts.append(f'<text class="soft small" x="{x - 6}" y="{at + 4}" text-anchor="end">{escape(form)}</text>')
            whisker = f'<line class="line" x1="{low:g}" x2="{high:g}" y1="{at}" y2="{at}"/>'
            hue, dot = int(form in ("std", "drawn")), f'<circle cx="{mean:g}" cy="{at}" r="3"/>'
            parts.append(f'<g class="hue-{hue}" fill="var(--c)">{whisker}{dot}</g>')
            parts.append(f'<text class="small" x="{x + WIDE + 4}" y="{at + 4}">{found.mean:+.1f}</text>')
        said.append(f"{name}: " + ", ".join(f"{form} {found.mean:+.1f}" for form, found in rows) + ".")
    height = 66 + -(-len(blocks) // columns) * tall
    return _page(title, said, parts, LEFT + columns * (WIDE + 110) + 20, height)


def _page(title: str, said: Iterable[str], parts: Iterable[str], width: float, height: float) -> str:
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title said">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="said">{escape(" ".join(said))}</desc>',
            f"<style>{STYLE}</style>",
            '<rect class="ground" width="100%" height="100%"/>',
            f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
