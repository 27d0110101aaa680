"""Synthetic audits for the tests of the review: of the embedded digits, or of any number of rows."""

from __future__ import annotations

from typing import Any

import torch

from unswayed.auditing.table import KINDS, Audit, Interval, Noise
from unswayed.data.entry import look
from unswayed.data.labels import read_labels
from unswayed.experiment import Config


def digits_audit(wrong: float = 0.1, seed: int = 0) -> tuple[Audit, torch.Tensor]:
    """An audit of the digits of which some labels are said to be wrong, and the rows where that is so."""
    raw, _ = look("digits")
    truth = torch.from_numpy(read_labels(raw.columns["label"]).codes)
    config = Config("digits").as_json()
    return make_audit(truth, tuple(str(i) for i in range(10)), config=config, wrong=wrong, seed=seed)


def make_audit(
    given: torch.Tensor,
    classes: tuple[str, ...],
    *,
    config: dict[str, Any] | None,
    rows: torch.Tensor | None = None,
    wrong: float = 0.1,
    seed: int = 0,
    neighbours: int = 8,
    epochs: int = 12,
) -> tuple[Audit, torch.Tensor]:
    """An audit that suspects a share `wrong` of the labels, calibrated: a suspicion is drawn, then the fault by it."""
    generator = torch.Generator().manual_seed(seed)
    n, k = len(given), len(classes)
    high = torch.rand(n, generator=generator) < wrong
    suspicion = torch.where(
        high, 0.6 + 0.4 * torch.rand(n, generator=generator), 0.05 * torch.rand(n, generator=generator)
    )
    faulty = torch.rand(n, generator=generator) < suspicion
    other = (given + torch.randint(1, k, (n,), generator=generator)) % k
    suggested = torch.where(high | (given < 0), other.clamp_min(0), given)
    probs = 0.2 * torch.rand(n, k, generator=generator) / k
    probs[torch.arange(n), suggested] += 2 * suspicion.clamp_min(0.5)
    probs[torch.arange(n), given.clamp_min(0)] += 1 - suspicion
    probs /= probs.sum(1, keepdim=True)
    kind = torch.zeros(n, dtype=torch.int8)
    kind[suspicion > 0.5] = KINDS.index("wrong")
    drawn = torch.rand(n, generator=generator)
    for name, low, top in (("ambiguous", 0.0, 0.15), ("outlier", 0.15, 0.25), ("duplicate", 0.25, 0.32)):
        kind[(suspicion > 0.5) & (drawn >= low) & (drawn < top)] = KINDS.index(name)
    time = torch.linspace(-3, 3, epochs)
    curves = torch.sigmoid(time + 2 - 6 * suspicion[:, None] + 0.4 * torch.randn(n, epochs, generator=generator))
    matrix = torch.full((k, k), wrong / max(1, k - 1)).fill_diagonal_(1 - wrong)
    audit = Audit(
        classes=classes,
        rows=torch.arange(n) if rows is None else rows,
        given=given,
        suspicion=suspicion,
        suggested=suggested,
        probability=probs.max(1).values,
        kind=kind,
        noise=Noise(Interval(wrong, 0.8 * wrong, 1.2 * wrong), matrix, matrix * 0.8, (matrix * 1.2).clamp_max(1)),
        verdict=f"About {100 * wrong:.0f} % of the labels are wrong: a robust method should pay.",
        method="elr+",
        scores={
            "self confidence": 1 - probs[torch.arange(n), given.clamp_min(0)],
            "neighbours": (suspicion + 0.1 * torch.rand(n, generator=generator)).clamp(0, 1),
        },
        probs=probs,
        neighbours=torch.randint(0, n, (n, neighbours), generator=generator),
        similarity=torch.rand(n, neighbours, generator=generator).sort(descending=True).values,
        curves=curves.half(),
        about={
            "config": config,
            "scores": {
                "self confidence": "how little a model that never saw the row believes its label",
                "neighbours": "how many of the most similar rows have another label",
            },
            "evidence": ["probabilities", "features", "dynamics"],
        },
    )
    return audit, faulty
