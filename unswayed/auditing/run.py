"""The audit as a whole: from whatever evidence there is to a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unswayed.auditing import entry, views
from unswayed.auditing.annotators import dawid_skene
from unswayed.auditing.ensemble import Belief, Reader, believe, believe_dynamics, parts
from unswayed.auditing.noise_rate import estimate_noise
from unswayed.auditing.probabilities import entropy_weighted, normalised_margin, self_confidence
from unswayed.auditing.suggestions import entropy_share, name_kinds
from unswayed.auditing.table import Audit
from unswayed.auditing.verdict import advise
from unswayed.errors import UnswayedError
from unswayed.stats.dynamics import Dynamics
from unswayed.stats.neighbours import Neighbours, label_vote

KEPT = 10  # neighbours of every row that an audit keeps
FLOOR = 1e-4  # the smallest probability that a logarithm is taken of
WHOLE, HALVED = 2**24, 2**26  # probabilities kept as they are (64 MiB), and in half precision (128 MiB)

VOICES = {
    "noise": "P(wrong) by Bayes, where wrong labels fall on easy and hard rows alike",
    "position": "P(another class) by features or predictions alone, without the label",
    "clouds": "P(wrong) where classes are clouds that labels merely name",
    "annotators": "P(wrong) by the votes of all annotators",
    "dynamics": "how hard the label was to learn, on the scale of the other voices",
    "self_confidence": "1 - probability of the given label",
    "normalised_margin": "how far another class leads, out-of-fold",
    "entropy_weighted": "confidence-weighted entropy",
    "knn": "share of 30 nearest rows with another label",
}


@torch.no_grad()
def audit(
    labels: Any,
    *,
    probs: Any = None,
    features: Any = None,
    dynamics: Any = None,
    annotators: Any = None,
    classes: Sequence[str] | None = None,
    rows: Any = None,
    ids: Any = None,
    kind: str | None = None,
    seed: int = 0,
) -> Audit:
    """Which of `labels` [N] are probably wrong, how sure that is, and what they should be: a table.

    probs       [N, K] out-of-fold probabilities, of a model that had not seen the row it judges
    features    [N, d], of which no label is part (of a frozen encoder, a table's columns): two models are made of them
    dynamics    what a training said of every row: `stats.Dynamics` or any object with `suspicion()` and perhaps
                `mean_probabilities()`, or suspicions [N] in any unit
    annotators  [N, A] labels of several annotators, as `labels` are written
    classes     names, in the order of the columns of `probs`; rows (or ids): numbers of the rows in your source
    kind        of the data ("text", "image", "audio", "table"), which the verdict asks

    Any of the four kinds of evidence is enough; each adds to the others. Labels may be names or numbers, and missing
    (None, NaN, "", negative): such a row has a suspicion of 1 and a suggestion. No truth is asked for, and nothing
    has to be tuned. Suspicion is a probability; how well that holds was measured in docs/audit.md: very well where
    wrong labels fall anywhere, less where people err as the features do, which no method can tell without truth.

    `probs` may be a memory-mapped array of any size: it is read a few rows at a time, and what is held besides is O(N).
    What is one number or matrix for all rows is then estimated on 20,000 to 100,000 drawn ones (see
    `ensemble.believe`; our choice, and what it costs stands in docs/audit.md). `Audit.probs` keeps up to 2^24 numbers
    as they are, up to 2^26 in half precision, and none beyond: `about["probs"]` says which.

    Raises UnswayedError for evidence that does not fit, and where there is none.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> x = torch.randn(200, 2) + 8 * (torch.arange(200) % 2)[:, None]
    >>> y = torch.arange(200) % 2
    >>> y[:5] = 1 - y[:5]
    >>> audit(y, features=x).issues().sort().values.tolist()
    [0, 1, 2, 3, 4]
    """
    started = time.perf_counter()
    if probs is None and features is None and dynamics is None and annotators is None:
        do = "give probs=, features=, dynamics= or annotators="
        raise UnswayedError("something to judge the labels by", got="labels alone", do=do)
    if rows is not None and ids is not None:
        raise UnswayedError("rows= or ids=, which mean the same", got="both")
    columns = None if probs is None else entry.columns(probs)
    given, names = entry.number_labels(labels, classes=classes, columns=columns)
    count, width = len(given), len(names)
    numbers = entry.check_rows(ids if rows is None else rows, count)

    own = None if probs is None else entry.Probs(probs, count)
    seen = None if features is None else views.look(entry.check_features(features, count), given, width, seed=seed)
    told, learnt = _dynamics(dynamics, count, width, given)
    votes = None if annotators is None else _votes(annotators, given, names)
    evidence = [own is not None and "probs", seen is not None and "features"]
    evidence += [told is not None and "dynamics", votes is not None and "annotators"]

    others = {} if told is None else {"dynamics": told}
    heard: list[Reader] = [] if own is None else [_logs(own.at)]
    heard += [] if seen is None else [seen.kernel.__getitem__, seen.vote.__getitem__]
    if not heard and votes is not None:
        heard = [votes.__getitem__]
    elif not heard and learnt is not None:
        heard = [_logs(learnt.__getitem__)]
    if heard:
        scores = heard[0] if seen is None else seen.kernel.__getitem__
        belief = believe(heard, scores, given, width, others, None if votes is None else votes.__getitem__)
    else:
        belief = believe_dynamics(others["dynamics"], given, width)
    near = None if seen is None else seen.near
    read = belief.probs if own is None else own.at
    return _table(belief, given, names, numbers, read, near, kind, [name for name in evidence if name], started)


def _logs(probs: Reader) -> Reader:
    return lambda at: probs(at).clamp_min(FLOOR).log()


def _table(
    belief: Belief,
    given: Tensor,
    names: tuple[str, ...],
    numbers: Tensor,
    probs: Reader,
    near: Neighbours | None,
    kind: str | None,
    evidence: list[str],
    started: float,
) -> Audit:
    missing = given < 0
    suspicion = torch.where(missing, 1.0, belief.log_odds.sigmoid()).float()
    right, other = 1 - suspicion, belief.share * suspicion
    keeps = ~missing & ((right > other) | ((right == other) & (given < belief.other)))
    noise = estimate_noise(belief.log_odds, belief.classes, given, belief.rate)
    single, spread, kept = _single(given, probs, len(names), near)
    scores = {name: torch.where(missing, 1.0, value) for name, value in {**belief.voices, **single}.items()}
    advice = advise(noise, int((~missing).sum()), kind)
    return Audit(
        classes=names,
        rows=numbers,
        given=given,
        suspicion=suspicion,
        suggested=torch.where(keeps, given, belief.other),
        probability=torch.where(keeps, right, other).float(),
        kind=name_kinds(given, suspicion, other, spread, near),
        noise=noise,
        verdict=advice.why,
        method=advice.method,
        scores={name: value.float() for name, value in scores.items()},
        probs=kept,
        neighbours=None if near is None else near.rows[:, :KEPT].clone(),
        similarity=None if near is None else near.similarity[:, :KEPT].clone(),
        about={
            "scores": {name: VOICES[name] for name in scores},
            "evidence": evidence,
            "probs": _said(kept, len(given) * len(names)),
            "settings": {},
            "missing": int(missing.sum()),
            "seconds": round(time.perf_counter() - started, 2),
        },
    )


def _single(
    given: Tensor, probs: Reader, classes: int, near: Neighbours | None
) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
    """Scores beside the voices, the share of the largest entropy, [N] each, and the probabilities, if they are kept."""
    rows = len(given)
    names = ["self_confidence", "normalised_margin", "entropy_weighted", *(["knn"] if near is not None else [])]
    made, spread = {name: torch.empty(rows) for name in names}, torch.empty(rows)
    kept = None
    if rows * classes <= HALVED:
        kept = torch.empty(rows, classes, dtype=torch.float32 if rows * classes <= WHOLE else torch.float16)
    for at in parts(rows, classes):
        filled, part = given[at].clamp_min(0), probs(at)
        made["self_confidence"][at] = self_confidence(filled, part)
        made["normalised_margin"][at] = normalised_margin(filled, part)
        made["entropy_weighted"][at] = entropy_weighted(filled, part)
        spread[at] = entropy_share(part)
        if near is not None:
            voters = near.rows[at]
            share = label_vote(given.clamp_min(0), voters, classes, (given >= 0)[voters].float())
            made["knn"][at] = 1 - share.gather(1, filled[:, None])[:, 0]
        if kept is not None:
            kept[at] = part
    return made, spread, kept


def _said(kept: Tensor | None, entries: int) -> str:
    if kept is None:
        return f"left out: {entries:,} numbers, more than {HALVED:,}"
    return "kept" if kept.dtype == torch.float32 else "kept in half precision"


def _dynamics(dynamics: Any, rows: int, classes: int, given: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Suspicions [N] in some unit, and mean probabilities [N, K] where they were kept."""
    if dynamics is None:
        return None, None
    if isinstance(dynamics, Dynamics) or hasattr(dynamics, "suspicion"):
        told, learnt = dynamics.suspicion(), None
        if told is None:
            raise UnswayedError("dynamics of a training", got="none: update was never called", do="call update first")
        if hasattr(dynamics, "mean_probabilities"):
            learnt = dynamics.mean_probabilities()
    else:
        told, learnt = torch.as_tensor(dynamics), None
    told = told.detach().cpu().float()
    if told.shape != (rows,):
        raise UnswayedError(f"dynamics of {rows} rows", got=list(told.shape), do="use the positions of rows as ids")
    if not bool(told.isfinite().all()):
        raise UnswayedError("finite dynamics", got=f"NaN or infinity in {int((~told.isfinite()).sum())} rows")
    if learnt is not None:
        learnt = learnt.detach().cpu().float()
        if learnt.shape[1] != classes:
            raise UnswayedError(f"dynamics of {classes} classes", got=learnt.shape[1])
    return told, learnt


def _votes(annotators: Any, given: Tensor, names: tuple[str, ...]) -> Tensor:
    """The log-likelihood of the true class by Dawid and Skene's model, up to a constant a row: -> [N, K]."""
    found = dawid_skene(entry.check_annotators(annotators, len(given), names), classes=len(names))
    return (found.posterior.clamp_min(1e-9).log() - found.prior.clamp_min(1e-9).log()).log_softmax(1).float()
