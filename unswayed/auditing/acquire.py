"""The loop with a person: which labels to check next, what decisions teach, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unswayed.auditing.budget import error_budget
from unswayed.auditing.table import KINDS, Audit, Interval
from unswayed.errors import UnswayedError
from unswayed.stats.noise_stability import choose

Decisions = Mapping[int, int | str]
"""Position of a row in the audit -> the class that a person says is right, by number or name."""

SLOPE = 0.3  # deviation of how much steeper suspicion should be, before any decision


class Going(NamedTuple):
    """Whether to go on checking, and what that would find."""

    go: bool
    found: Interval  # share of wrong labels among the next ones
    left: Interval  # wrong labels that would stay in the data
    why: str


def next_labels(
    audit: Audit, count: int, *, decided: Decisions | None = None, deviations: Tensor | None = None
) -> Tensor:
    """Positions of the `count` labels to check next, the most useful first: [count] int64.

    Usefulness is suspicion times uncertainty: a label that is surely wrong and whose right one is surely known needs no
    person, and one that is surely right neither. Uncertainty is the entropy of P(true class) over its maximum plus a
    tenth, our choice, so that sure mistakes come before sure labels. With `deviations` [N, D] (noise stability,
    `stats.noise_stability.deviations`, arXiv 2205.13340), labels are taken where predictions move far and each in its
    own way, weighted by the same. Decisions re-calibrate the suspicion first; decided and missing labels are left out.
    """
    if count < 1:
        raise UnswayedError("one label or more to check", got=count)
    settled = read_decisions(audit, decided or {})
    known = recalibrate(audit, settled)
    use = known.suspicion * (_uncertainty(known) + 0.1)
    free = audit.given >= 0
    free[list(settled)] = False
    places = free.nonzero()[:, 0]
    if deviations is not None:
        if deviations.dim() != 2 or len(deviations) != len(audit):
            raise UnswayedError(f"deviations [{len(audit)}, D]", got=list(deviations.shape))
        return places[choose(deviations[places], count, suspicion=use[places])] if len(places) else places
    return places[use[places].argsort(descending=True, stable=True)[:count]]


def _uncertainty(audit: Audit) -> Tensor:
    """Entropy of (label right, suggestion right, another right), over its largest value: [N]."""
    right = 1 - audit.suspicion
    suggested = torch.where(audit.suggested == audit.given, 0.0, audit.probability)
    parts = torch.stack([right, suggested, (1 - right - suggested).clamp_min(0)])
    return -(parts * parts.clamp_min(1e-9).log()).sum(0) / math.log(3)


def read_decisions(audit: Audit, decided: Decisions) -> dict[int, int]:
    """Decisions with classes as numbers; raises UnswayedError for unknown rows and classes."""
    place = {name: number for number, name in enumerate(audit.classes)}
    found = {}
    for at, said in decided.items():
        number = place.get(said, -1) if isinstance(said, str) else int(said)
        if not 0 <= int(at) < len(audit):
            raise UnswayedError(f"positions 0..{len(audit) - 1} of rows in the audit", got=at)
        if not 0 <= number < len(audit.classes):
            raise UnswayedError(f"a decision for one of {', '.join(map(repr, audit.classes[:10]))}", got=repr(said))
        found[int(at)] = number
    return found


def recalibrate(audit: Audit, decided: Decisions) -> Audit:
    """The audit as decisions have it: decided rows are known, and the suspicion of the others is shifted and stretched.

    Beta calibration (Kull, Silva Filho and Flach, AISTATS 2017): a logistic regression of "the label was wrong" on
    log s and -log(1 - s), whose two slopes correct the high end and the low end apart, with a prior that says: the
    shift is as uncertain as the noise rate is, the slopes are one within a third. So ten decisions move it a little,
    and hundreds decide. Rows may have been chosen by suspicion: given the suspicion, that biases nothing. The rate's
    interval narrows accordingly; matrix and kinds of undecided rows stay.
    """
    settled = read_decisions(audit, decided)
    at = torch.tensor([place for place in settled if int(audit.given[place]) >= 0], dtype=torch.int64)
    if not len(settled):
        return audit
    said = torch.tensor([settled[int(place)] for place in at], dtype=torch.int64)
    sure = audit.suspicion.double().clamp(1e-5, 1 - 1e-5)
    design = torch.stack([torch.ones_like(sure), sure.log(), -(1 - sure).log()], 1)
    found, error = _fit(design[at], (said != audit.given[at]).double(), _width(audit.noise.rate))
    present = audit.given >= 0
    suspicion = torch.where(present, (design @ found).sigmoid().float(), audit.suspicion)
    ratio = suspicion / audit.suspicion.clamp_min(1e-6)
    keeps = audit.suggested == audit.given
    probability = torch.where(keeps, 1 - suspicion, (audit.probability * ratio).clamp(max=1.0))
    suggested, kind = audit.suggested.clone(), audit.kind.clone()
    for place, number in settled.items():
        wrong = number != int(audit.given[place])
        suggested[place], probability[place], suspicion[place] = number, 1.0, float(wrong)
        kind[place] = KINDS.index("wrong" if wrong else "fine")
    value = float(suspicion[present].double().mean())
    rest = 1 - len(at) / max(int(present.sum()), 1)
    odd, half = math.log(max(value, 1e-6) / max(1 - value, 1e-6)), 1.96 * error * rest
    rate = Interval(value, *(1 / (1 + math.exp(-odd + sign * half)) for sign in (1, -1)))
    changed = replace(audit.noise, rate=rate)
    return replace(audit, suspicion=suspicion, suggested=suggested, probability=probability, kind=kind, noise=changed)


def _fit(design: Tensor, wrong: Tensor, wide: float) -> tuple[Tensor, float]:
    """Shift and slopes [3] by Newton's method on the posterior, and the deviation of the shift that is left."""
    prior = torch.tensor([1 / wide**2, 1 / SLOPE**2, 1 / SLOPE**2], dtype=torch.float64)
    start = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    found = start.clone()
    for _ in range(50):
        chance = (design @ found).sigmoid()
        slope = design.T @ (chance - wrong) + prior * (found - start)
        curve = design.T @ (design * (chance * (1 - chance))[:, None]) + torch.diag(prior)
        step = torch.linalg.solve(curve, slope)
        found = found - step.clamp(-1, 1)
        if float(step.abs().max()) < 1e-9:
            break
    error = float(torch.linalg.inv(curve)[0, 0].clamp_min(0).sqrt())
    found[1:] = found[1:].clamp_min(0.05)  # more suspicious stays more suspicious
    return found, error


def _width(rate: Interval) -> float:
    low, high = (math.log(min(max(each, 1e-6), 1 - 1e-6) / (1 - min(max(each, 1e-6), 1 - 1e-6))) for each in rate[1:])
    return max((high - low) / 3.92, 0.05)


def worth_going_on(audit: Audit, *, decided: Decisions | None = None, batch: int = 50, least: float = 0.1) -> Going:
    """Whether the next `batch` labels, most suspicious first, are worth a person's time.

    Worth it while at least the share `least` of them is expected to be wrong (.1: one correction in ten looks), after
    the suspicion was re-calibrated by the decisions so far. `left` counts the wrong labels that would stay if one
    stopped now.
    """
    if batch < 1 or not 0 < least < 1:
        raise UnswayedError("a batch of one label or more, and a share in (0, 1)", got=f"{batch}, {least}")
    settled = read_decisions(audit, decided or {})
    free = audit.given >= 0
    free[list(settled)] = False
    if not bool(free.any()):
        nothing = Interval(0.0, 0.0, 0.0)
        return Going(False, nothing, nothing, "Every label has been checked.")
    rest = _only(recalibrate(audit, settled), free)
    budget = error_budget(rest)
    batch = min(batch, len(rest))
    found = budget.precision_at(batch)
    left = Interval(
        *(float(each[-1]) * len(rest) for each in (budget.precision, budget.precision_low, budget.precision_high))
    )
    go = found.value >= least
    expected = f"{batch * found.value:.0f} of the next {batch} labels are expected to be wrong"
    stay = f"about {left.value:.0f} ({left.low:.0f}-{left.high:.0f}) wrong ones are left"
    return Going(go, found, left, f"{'Go on' if go else 'Stop'}: {expected}, {stay}.")


def _only(audit: Audit, keep: Tensor) -> Audit:
    """The rows that are left, without what belongs to rows of the whole; the rate is theirs."""
    suspicion = audit.suspicion[keep]
    value = float(suspicion.double().mean())
    wide = 1.96 * _width(audit.noise.rate)
    odd = math.log(min(max(value, 1e-6), 1 - 1e-6) / (1 - min(max(value, 1e-6), 1 - 1e-6)))
    rate = Interval(value, *(1 / (1 + math.exp(-odd + sign * wide)) for sign in (1, -1)))
    columns = {name: getattr(audit, name)[keep] for name in ("rows", "given", "suggested", "probability", "kind")}
    return replace(
        audit,
        suspicion=suspicion,
        noise=replace(audit.noise, rate=rate),
        **columns,
        scores={},
        probs=None,
        neighbours=None,
        similarity=None,
        curves=None,
    )
