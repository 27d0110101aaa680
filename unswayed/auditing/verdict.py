"""Is the noise worth a robust method at all, and which one? By estimated noise and size, on measured grounds.

The grounds are docs/methods-compared.md (small runs, three paired seeds a cell) and docs/edge-masking.md (do not mask
by default). "+- " is the 95 % interval of the gain over plain cross-entropy.

below 8 %          plain: with 9 % wrong (CIFAR-10N aggregate) the best of all methods, sce, gained 1.0 +- .9
texts, from 1,000  promix: +5.5 +- .3 on NoisyAG-News, +3.7 +- 1.9 on Hausa news
one pair dominates dividemix-lccn: +21.8 +- 1.9 with 40 % asymmetric noise
above 65 %         ssr: +31.6 +- 3.0 with 80 % symmetric noise, at nine times plain's cost
otherwise          sce: shown to gain in ten settings of thirteen and to lose in none, at 1.05 times plain's cost
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from unswayed.auditing.table import Interval, Noise

LITTLE, MOST = 0.08, 0.65
PAIR = 0.25  # an entry of the transition matrix that says: these two are confused
FEW, SEMI = 500, 1000  # rows below which nothing was measured, and from which methods that split the data were
GROUNDS = "docs/methods-compared.md"


class Advice(NamedTuple):
    """An arm for `unswayed train --arm`, and a sentence that says why."""

    method: str
    why: str


def choose_method(
    rate: Interval, rows: int, classes: int, kind: str | None = None, *, matrix: Tensor | None = None
) -> Advice:
    """The arm that a noise rate, the number of rows and of classes, and the kind of data advise, and why.

    `kind` is that of a Dataset ("text", "image", "audio", "table") where known, `matrix` [K, K] the transition matrix.

    >>> choose_method(Interval(0.03, 0.01, 0.06), 5000, 10).method
    'plain'
    """
    wrong = f"about {_percent(rate)} of the labels are wrong"
    if rate.value < LITTLE:
        return Advice(
            "plain",
            f"Plain training is about as good here: {wrong}, and with 9 % wrong (CIFAR-10N aggregate) the best of all "
            f"methods gained 1.0 ± .9 points ({GROUNDS}).",
        )
    if rows < FEW:
        return Advice(
            "plain",
            f"Plain training is as good here, as far as anybody knows: {wrong}, but of {rows} rows, and nothing was "
            f"measured below 2,000 ({GROUNDS}); have the most suspicious labels checked instead.",
        )
    if kind == "text" and rows >= SEMI:
        return Advice(
            "promix",
            f"Worth a robust method: {wrong}, and on news with 20 % wrong promix gained 5.5 ± .3 points over plain "
            f"training ({GROUNDS}).",
        )
    if rows >= SEMI and matrix is not None and _lopsided(matrix, classes):
        return Advice(
            "dividemix-lccn",
            f"Worth a robust method: {wrong}, mostly from one class to one other, where dividemix-lccn gained "
            f"21.8 ± 1.9 points over plain training with 40 % wrong ({GROUNDS}).",
        )
    if rate.value > MOST and rows >= SEMI:
        return Advice(
            "ssr",
            f"Worth a robust method: {wrong}, and with 80 % wrong ssr gained 31.6 ± 3.0 points over plain training, "
            f"at nine times its cost ({GROUNDS}).",
        )
    gained = "1.6 to 2.0" if rate.value < 0.3 else "2.8 to 5.9"  # with 18 and 20 % wrong; with 40 to 60 %
    return Advice(
        "sce",
        f"Worth a robust loss, at hardly any cost: {wrong}, and with as many wrong labels sce gained {gained} points "
        f"on pictures over plain training ({GROUNDS}), without a mask (docs/edge-masking.md).",
    )


def advise(noise: Noise, rows: int, kind: str | None = None) -> Advice:
    """The same for the noise of an audit."""
    return choose_method(noise.rate, rows, len(noise.matrix), kind, matrix=noise.matrix)


def _lopsided(matrix: Tensor, classes: int) -> bool:
    """Some class is mistaken for one other in a quarter of its rows, twice as often as for all the rest."""
    if classes < 3:
        return False
    off = matrix.clone().fill_diagonal_(0.0)
    largest, total = off.amax(1), off.sum(1)
    return bool(((largest >= PAIR) & (largest >= 2 * (total - largest))).any())


def _percent(rate: Interval) -> str:
    value, low, high = (round(100 * each) for each in rate)
    return f"{value} % ({low}-{high})"
