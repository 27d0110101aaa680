"""Why a label is suspected, in numbers for the card and in words for its reader."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from unswayed.auditing.table import KINDS, Audit
from unswayed.errors import UnswayedError
from unswayed.review.case import Case
from unswayed.review.store import STATES, Decision

_OTHERS = 9  # labels offered beside the given and the suggested one: one digit key each
_NEIGHBOURS = 12
_POINTS = 200

OPENING = {
    "fine": "The label is probably right.",
    "wrong": "The label is probably wrong.",
    "ambiguous": "Two labels may both be right.",
    "outlier": "Probably none of the labels fits.",
    "duplicate": "Another row is nearly the same and has another label.",
}


class Evidence:
    """What the page's card says of a row."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._sorted: dict[str, Tensor] = {}

    def card(self, at: int) -> dict[str, Any]:
        """All that there is to know about the row at a position of the audit, as plain data."""
        case, audit = self.case, self.case.audit
        case.decisions.refresh()
        settled = case.decisions.verdict(at)
        return {
            "at": at,
            **audit.line(at),
            "opening": OPENING[KINDS[int(audit.kind[at])]],
            "reasons": reasons(audit, at),
            "others": others(audit, at),
            "neighbours": [{**near, "excerpt": self._excerpt(near["at"])} for near in neighbours(audit, at)],
            "content": self._content(at),
            "curve": curve(audit, at),
            "scores": self.scores(at),
            "state": STATES[int(case.decisions.state[at])],
            "verdict": settled and settled.verdict,
            "label": settled and settled.label,
            "standing": [_said(made) for made in case.decisions.standing(at)],
            "history": [_said(made) for made in case.decisions.history(at)],
        }

    def scores(self, at: int) -> list[dict[str, Any]]:
        """Each score in plain words: of how many rows the label is less suspicious than this one's."""
        audit = self.case.audit
        words: dict[str, str] = dict(audit.about.get("scores") or {})
        return [
            {"name": name, "words": words.get(name, ""), "above": self._share_below(name, at)} for name in audit.scores
        ]

    def _content(self, at: int) -> dict[str, Any]:
        """The row in words, or why it cannot be read."""
        try:
            return self.case.rows.reading(at)
        except UnswayedError as error:
            return {"trouble": str(error)}

    def _excerpt(self, at: int) -> str:
        try:
            return self.case.rows.excerpt(at)
        except UnswayedError:  # the card's content says why
            return ""

    def _share_below(self, name: str, at: int) -> float:
        values = self.case.audit.scores[name].float()
        if name not in self._sorted:
            self._sorted[name] = values.sort().values
        return int(torch.searchsorted(self._sorted[name], values[at])) / len(values)


def reasons(audit: Audit, at: int) -> list[str]:
    """Sentences on why the label of a row is suspected, or is not; the strongest evidence first."""
    given = _name(audit, int(audit.given[at]))
    told = []
    if given is None:
        told.append("It has no label.")
    near = neighbours(audit, at)
    if near and KINDS[int(audit.kind[at])] == "duplicate":
        twin = next((n for n in near if n["label"] != given), near[0])
        told.append(f"Row {twin['row']} is nearly the same and is labelled {twin['label'] or 'with nothing'}.")
    if near:
        told.append(_of_neighbours([n["label"] for n in near], given))
    if audit.probs is not None:
        told.append(_of_probabilities(audit, at, given))
    if audit.curves is not None and given is not None:
        told.append(_of_curve(audit.curves[at].float(), given))
    return told


def others(audit: Audit, at: int) -> list[dict[str, Any]]:
    """The likeliest labels beside the given and the suggested one; by probabilities, else by the neighbours."""
    taken = {int(audit.given[at]), int(audit.suggested[at])}
    if audit.probs is not None:
        probs = audit.probs[at].float()
        best = [i for i in probs.topk(min(len(probs), _OTHERS + 2)).indices.tolist() if i not in taken][:_OTHERS]
        return [{"label": audit.classes[i], "probability": round(float(probs[i]), 4)} for i in best]
    near = Counter(n["label"] for n in neighbours(audit, at) if n["label"])
    rest = [name for name, _ in near.most_common()] + list(audit.classes)
    left = [name for name in dict.fromkeys(rest) if audit.classes.index(name) not in taken]
    return [{"label": name, "probability": None} for name in left[:_OTHERS]]


def neighbours(audit: Audit, at: int) -> list[dict[str, Any]]:
    """The most similar rows with their labels, nearest first."""
    if audit.neighbours is None:
        return []
    found = audit.neighbours[at, :_NEIGHBOURS].tolist()
    near = [None] * len(found) if audit.similarity is None else audit.similarity[at, : len(found)].tolist()
    return [
        {
            "at": i,
            "row": int(audit.rows[i]),
            "label": _name(audit, int(audit.given[i])),
            "similarity": None if cosine is None else round(cosine, 4),
        }
        for i, cosine in zip(found, near, strict=True)
        if 0 <= i < len(audit) and i != at
    ]


def curve(audit: Audit, at: int) -> list[float] | None:
    """The probability of the given label, epoch by epoch."""
    if audit.curves is None or not audit.curves.shape[1] or int(audit.given[at]) < 0:
        return None
    values = audit.curves[at].float().nan_to_num(0.0)
    step = -(-len(values) // _POINTS)
    return [round(value, 4) for value in values[::step].tolist()]


def _of_neighbours(labels: list[str | None], given: str | None) -> str:
    counts = Counter(label for label in labels if label is not None)
    alike = counts.get(given, 0) if given is not None else 0
    top, most = counts.most_common(1)[0] if counts else (None, 0)
    if given is not None and alike == len(labels):
        return f"All {len(labels)} most similar rows have the same label."
    if top is None or top == given:
        return f"{alike} of the {len(labels)} most similar rows have the same label."
    same = "" if given is None else f", and {alike or 'none'} {given}"
    return f"{most} of the {len(labels)} most similar rows are labelled {top}{same}."


def _of_probabilities(audit: Audit, at: int, given: str | None) -> str:
    assert audit.probs is not None
    probs = audit.probs[at].float()
    best = int(probs.argmax())
    who = "A model that never learned from this row"
    if given is None or audit.classes[best] == given:
        return f"{who} gives {audit.classes[best]} a probability of {_percent(float(probs[best]))}."
    mine = _percent(float(probs[int(audit.given[at])]))
    best_share = _percent(float(probs[best]))
    return f"{who} gives {audit.classes[best]} a probability of {best_share}, and {given} one of {mine}."


def _of_curve(values: Tensor, given: str) -> str:
    learned = (values > 0.5).nonzero()
    if not len(values) or not len(learned):
        return f"In training the label {given} was never believed: its probability stayed below 50 %."
    first, share = int(learned[0]) + 1, float((values > 0.5).float().mean())
    if share > 0.8:
        return f"In training the label {given} was believed early, from epoch {first} of {len(values)}."
    return (
        f"In training the label {given} was first believed in epoch {first} of {len(values)}, "
        f"and in {_percent(share)} of the epochs."
    )


def _percent(share: float) -> str:
    return "less than 1 %" if 0 < share < 0.01 else "more than 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def _name(audit: Audit, code: int) -> str | None:
    return audit.classes[code] if code >= 0 else None


def _said(made: Decision) -> dict[str, Any]:
    return {
        "verdict": made.verdict,
        "label": made.label,
        "reviewer": made.reviewer,
        "time": made.time,
        "undone": made.undone,
    }
