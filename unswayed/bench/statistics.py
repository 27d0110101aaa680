"""What seeds and tasks show together: paired differences, ranks, Friedman's test and Nemenyi's critical difference.

Accuracy is always that of the last epoch. Built on `report.statistics`, which has the t interval and the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from unswayed.bench.results import Results
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.report.statistics import Interval, Verdict, interval, paired, verdict

RESAMPLES = 10_000
MASKED = {"edge-masked": "linear", "edge-masked-kan": "kan", "edge-masked-kan-rbf": "kan-rbf"}  # and what they mask


# ------------------------------------------------------------------------------------------------ paired differences


@dataclass(frozen=True)
class Comparison:
    """An arm against another on one task, paired by seed; `p` is two-sided, `holm` corrected within its family."""

    task: str
    arm: str
    control: str
    difference: Interval  # Student's t
    bootstrap: tuple[float, float]  # 95 %, percentiles; NaN below two seeds
    p: float
    holm: float = math.nan

    @property
    def said(self) -> Verdict:
        """Better or worse where the t interval leaves zero out."""
        return verdict(self.difference)


def bootstrap(differences: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean: [n] -> (low, high); NaN below two values.

    With few seeds it is too narrow (a resample of n values knows nothing beyond them), so the t interval judges.

    >>> bootstrap([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    if len(differences) < 2:
        return math.nan, math.nan
    values = np.asarray(differences, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975))
    return float(low), float(high)


def p_value(difference: Interval) -> float:
    """Of Student's paired t test, two-sided; NaN below two seeds.

    >>> round(p_value(interval([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    if not difference.known:
        return math.nan
    if difference.half == 0:
        return 1.0 if difference.mean == 0 else 0.0
    from scipy.special import stdtrit

    error = difference.half / float(stdtrit(difference.n - 1, 0.975))
    return 2 * float(stdtr(difference.n - 1, -abs(difference.mean) / error))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm, 1979), in the order given; NaN stays NaN and is not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((i for i, p in enumerate(values) if math.isfinite(p)), key=lambda i: values[i])
    corrected, most = [math.nan] * len(values), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(order) - rank) * values[i]))
        corrected[i] = most
    return corrected


def compare(task: str, arm: str, values: Mapping[int, float], control: str, others: Mapping[int, float]) -> Comparison:
    """`values - others` over the seeds that both have."""
    common = sorted(values.keys() & others.keys())
    difference = paired(values, others)
    between = bootstrap([values[seed] - others[seed] for seed in common])
    return Comparison(task, arm, control, difference, between, p_value(difference))


def against_control(results: Results) -> list[Comparison]:
    """Every arm against the control on every task; the corrections are over the arms of a task."""
    control, found = results.control, list[Comparison]()
    for task in results.tasks if control is not None else ():
        assert control is not None
        base = results.seeds(task, control)
        arms = [arm for arm in results.arms if arm != control and (task, arm) in results.table]
        family = [compare(task, arm, results.seeds(task, arm), control, base) for arm in arms]
        corrected = holm([one.p for one in family])
        found += [_with_holm(one, p) for one, p in zip(family, corrected, strict=True)]
    return found


def _with_holm(one: Comparison, p: float) -> Comparison:
    return Comparison(**{**vars(one), "holm": p})


def over_tasks(results: Results, arm: str, control: str) -> Interval:
    """The mean difference over all tasks that both have, as an interval over seeds: these tasks, other seeds.

    A seed counts where it is complete; a task that lacks one of the two arms is left out.
    """
    tasks = [task for task in results.tasks if {(task, arm), (task, control)} <= results.table.keys()]
    by_task = [(results.seeds(task, arm), results.seeds(task, control)) for task in tasks]
    if not by_task:
        return interval([])
    seeds = set.intersection(*(a.keys() & b.keys() for a, b in by_task))
    return interval(math.fsum(a[seed] - b[seed] for a, b in by_task) / len(by_task) for seed in sorted(seeds))


def over_all(results: Results, arm: str) -> Interval:
    """The mean accuracy over all tasks, over the seeds that have them all; unknown where a task is missing."""
    by_task = [results.seeds(task, arm) for task in results.tasks]
    seeds = set.intersection(*(set(found) for found in by_task)) if by_task else set()
    return interval(math.fsum(found[seed] for found in by_task) / len(by_task) for seed in sorted(seeds))


# ------------------------------------------------------------------------------------------------ masking


@dataclass(frozen=True)
class Gain:
    """What an edge-masked head adds to an arm: over the bare head, and over a random mask (None: not run)."""

    arm: str
    bare: str
    random: str | None
    over_bare: Interval
    over_random: Interval | None
    by_task: tuple[Comparison, ...]  # against the bare head


def gains(results: Results) -> list[Gain]:
    """Every arm with an edge-masked head beside the same arm without one, over the tasks and task by task."""
    known = {arm: _parts(arm, results) for arm in results.arms}
    found = []
    for arm, (base, head, settings) in known.items():
        if head not in MASKED or settings.get("score") == "random":
            continue
        bare = next((o for o, parts in known.items() if parts[:2] == (base, MASKED[head])), None)
        random = next(
            (o for o, p in known.items() if p[:2] == (base, head) and p[2] == {**settings, "score": "random"}), None
        )
        if bare is None:
            continue
        tasks = [task for task in results.tasks if {(task, arm), (task, bare)} <= results.table.keys()]
        by_task = tuple(compare(t, arm, results.seeds(t, arm), bare, results.seeds(t, bare)) for t in tasks)
        beyond = over_tasks(results, arm, random) if random else None
        found.append(Gain(arm, bare, random, over_tasks(results, arm, bare), beyond, by_task))
    return found


def _parts(arm: str, results: Results) -> tuple[str, str, dict[str, object]]:
    """What an arm is but for its head, its head, and the head's settings."""
    text = next((one.text for one in results.suite.arms if one.name == arm), None)
    if text is None:  # a way of repair is no arm of the suite
        return arm, "", {}
    parsed = parse_arm(text)
    rest = {part: given for part, given in parsed.settings.items() if part != "head"}
    given = next(one.fields for one in results.suite.arms if one.name == arm)
    fields = {key: value for key, value in given.items() if key != "analyse"}  # which changes no model
    return repr((parsed.method, parsed.loss, parsed.body, rest, fields)), parsed.head, parsed.settings.get("head", {})


# ------------------------------------------------------------------------------------------------ ranks


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over tasks (1 is best), Friedman's test and Nemenyi's critical difference at 5 %."""

    arms: tuple[str, ...]  # best first
    ranks: tuple[float, ...]
    tasks: int
    chi2: float
    p: float
    critical: float
    cliques: tuple[tuple[int, int], ...]  # runs of arms, first and last, between which no difference is shown
    left_out: tuple[str, ...] = ()  # arms that lack a task

    @property
    def differ(self) -> bool:
        """Whether Friedman's test shows that the arms differ at all."""
        return self.p < 0.05


def rank_rows(table: Sequence[Sequence[float]]) -> np.ndarray:
    """Ranks within each row, 1 for the greatest, ties share their mean: [N, k] -> [N, k].

    >>> rank_rows([[0.9, 0.8, 0.8]]).tolist()
    [[1.0, 2.5, 2.5]]
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.asarray(table, dtype=float), axis=1))


def friedman(table: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Friedman's chi-squared, corrected for ties, and its p value: [N tasks, k arms] -> (chi2, p); needs N 2, k 3."""
    from scipy.stats import friedmanchisquare

    values = np.asarray(table, dtype=float)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 3:
        raise UnswayedError("2 tasks and 3 arms or more for Friedman's test", got=list(values.shape))
    if bool((values == values[:, :1]).all()):
        return 0.0, 1.0  # all tied, where the statistic is 0 / 0
    found = friedmanchisquare(*values.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(arms: int, tasks: int, alpha: float = 0.05) -> float:
    """Nemenyi's: two arms whose mean ranks lie closer than this are not shown to differ.

    q sqrt(k (k + 1) / 6 N), q the studentised range over infinitely many degrees of freedom, divided by sqrt 2.

    >>> round(critical_difference(arms=4, tasks=14), 2)
    1.25
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, arms, np.inf)) / math.sqrt(2)
    return q * math.sqrt(arms * (arms + 1) / (6 * tasks))


def find_cliques(ranks: Sequence[float], critical: float) -> tuple[tuple[int, int], ...]:
    """The longest runs of rising `ranks` that lie within `critical` of each other; single arms are left out.

    >>> find_cliques([1.0, 1.5, 2.4, 4.0], 1.0)
    ((0, 1), (1, 2))
    """
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] < critical)
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return tuple(found)


def rank(results: Results) -> Ranking | None:
    """The ranking of all arms that have every task, by mean accuracy over the seeds that all of them have.

    None below 2 tasks or 3 arms. Tasks that are the same rows at several rates are no independent tasks: the test is
    then too sure of itself.
    """
    complete = [arm for arm in results.arms if all(results.seeds(task, arm) for task in results.tasks)]
    left_out = tuple(arm for arm in results.arms if arm not in complete)
    if len(complete) < 3 or len(results.tasks) < 2:
        return None
    table = []
    for task in results.tasks:
        by_arm = [results.seeds(task, arm) for arm in complete]
        common = set.intersection(*(set(seeds) for seeds in by_arm))
        if not common:
            return None
        table.append([math.fsum(seeds[s] for s in common) / len(common) for seeds in by_arm])
    means = rank_rows(table).mean(0)
    order = [int(i) for i in np.argsort(means, kind="stable")]
    ranks = tuple(float(means[i]) for i in order)
    chi2, p = friedman(table)
    critical = critical_difference(len(complete), len(table))
    cliques = find_cliques(ranks, critical) if p < 0.05 else ((0, len(ranks) - 1),)
    return Ranking(tuple(complete[i] for i in order), ranks, len(table), chi2, p, critical, cliques, left_out)
