"""Pieces of the page's figures: axes, text, paths and labels that do not overlap, as plain SVG.

Our choice: text stands in the drawing, which has a fixed width and scrolls where a screen is narrower; its colours are
the page's, so that it follows light and dark and prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from unswayed.report.page import DASHES, HUES, Ink
from unswayed.report.statistics import Interval

WIDE = 880
PLOT = WIDE - 250  # where lines end and their names begin
LINE = 15.0  # between two lines of text


@dataclass(frozen=True)
class Drawing:
    """A figure: SVG, and what it says in words."""

    title: str
    caption: str
    svg: Markup


def inks(arms: Sequence[str], control: str | None) -> dict[str, Ink]:
    """How each arm looks in all figures."""
    found, used = {}, 0
    for arm in arms:
        if arm == control:
            found[arm] = Ink("control", "")
        else:
            found[arm] = Ink(f"hue-{used % HUES}", DASHES[used // HUES % len(DASHES)])
            used += 1
    return found


@dataclass(frozen=True)
class Axis:
    """From values to places: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0)

    def ticks(self) -> list[float]:
        """About five round values."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            found = [m for m in marks if self.low * 0.999 <= m <= self.high * 1.001]
            return found if len(found) <= 7 else [m for m in found if round(math.log10(m), 6).is_integer()]
        step = next(s * 10.0**p for p in range(-6, 9) for s in (1, 2, 5) if (self.high - self.low) / (s * 10.0**p) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 9) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def around(values: Iterable[float], room: float = 0.06, least: float = 1e-3) -> tuple[float, float]:
    """Ends with some room around the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    extra = max(room * (high - low), least)
    return low - extra, high + extra


def text(x: float, y: float, words: str, *, anchor: str = "start", look: str = "") -> str:
    """Text at a place, as SVG."""
    classes = f' class="{look}"' if look else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{classes}>{escape(words)}</text>'


def path(d: str, look: str, dash: str = "") -> str:
    """A path of some look, as SVG."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="{look}" d="{d}"{dashes}/>'


def svg(height: float, words: str, pieces: Iterable[str]) -> Markup:
    """The whole drawing; `words` are what it says."""
    head = f'<svg class="drawing" viewBox="0 0 {WIDE} {height:.0f}" width="{WIDE}" height="{height:.0f}" role="img"'
    return Markup(f'{head} aria-label="{escape(words)}">{"".join(pieces)}</svg>')


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels, at least `gap` apart and in their order, as near as may be to where they belong.

    >>> spread_out([10.0, 11.0, 50.0], 10, 0, 100)
    [5.5, 15.5, 50.0]
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[tuple[float, list[int]]] = []  # the middle of what lies together, and which
    for i in order:
        groups.append((places[i], [i]))
        while len(groups) > 1:
            (a, first), (b, second) = groups[-2:]
            if b - a >= gap * (len(first) + len(second)) / 2 - 1e-9:
                break
            both = [*first, *second]
            groups[-2:] = [(math.fsum(places[j] for j in both) / len(both), both)]
    found = [0.0] * len(places)
    for middle, members in groups:
        for rank, i in enumerate(members):
            found[i] = middle + gap * (rank - (len(members) - 1) / 2)
    least = low
    for i in order:  # what would stand below the axis pushes the others up, and what above it, down
        found[i] = max(found[i], least)
        least = found[i] + gap
    most = high
    for i in reversed(order):
        found[i] = min(found[i], most)
        most = found[i] - gap
    return found


def frame(across: Axis, up: Axis, x_label: str, y_label: str, at: Sequence[float] = ()) -> list[str]:
    """Grid, ticks (across: at the values `at`, or round ones) and the axes' names; upwards are shares, in percent."""
    pieces = []
    for value in up.ticks():
        y, shown = up.at(value), f"{100 * value:g}"
        pieces += [path(f"M{across.start:.1f} {y:.1f}H{across.end:.1f}", "grid")]
        pieces += [text(across.start - 8, y + 4, shown.replace("-", "−"), anchor="end", look="tick")]
    for value in at or across.ticks():
        pieces.append(text(across.at(value), up.start + 18, f"{value:,g}", anchor="middle", look="tick"))
    pieces.append(text((across.start + across.end) / 2, up.start + 38, x_label, anchor="middle", look="axis"))
    pieces.append(text(across.start - 8, up.end - 12, y_label, anchor="end", look="axis"))
    return pieces


def shown_ends(value: Interval) -> tuple[float, float]:
    """The ends of an interval, or its mean twice where there is none."""
    return (value.low, value.high) if value.known else (value.mean, value.mean)


def cut(arm: str, most: int = 32) -> str:
    """A name that is not too long to stand beside its line."""
    return arm if len(arm) <= most else arm[: most - 1] + "…"
