"""What a bench may say: no more than its seeds and tasks show."""

from __future__ import annotations

from unswayed.bench.results import Results
from unswayed.bench.statistics import Ranking, against_control, over_tasks
from unswayed.report.statistics import Verdict, verdict
from unswayed.report.summary import plural, signed


def what_ran(results: Results) -> str:
    """For example `11 arms on 6 tasks, 5 seeds each; 3 of 330 runs are missing.`"""
    counts = {len(results.table[key]) for key in results.table}
    if not counts:
        return "Nothing has run yet."
    seeds = plural(max(counts), "seed") if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"
    said = f"{plural(len(results.arms), 'arm')} on {plural(len(results.tasks), 'task')}, {seeds} each"
    return f"{said}; {plural(len(results.missing), 'run')} still missing." if results.missing else f"{said}."


def claim(results: Results) -> str:
    """One honest sentence: the arm that gains most over the control over all tasks, and whether that is shown."""
    control = results.control
    if control is None:
        return f"No comparison: the control, {results.suite.control}, has not run."
    found = [(arm, over_tasks(results, arm, control)) for arm in results.arms if arm != control]
    whole = [(arm, gain) for arm, gain in found if gain.n and all((t, arm) in results.table for t in results.tasks)]
    if not whole:
        return f"No arm has run on every task beside the control, {control}."
    arm, gain = max(whole, key=lambda pair: pair[1].mean)
    where = "on average over all tasks" if len(results.tasks) > 1 else f"on {results.tasks[0]}"
    if gain.mean <= 0:
        return f"No arm ends above the control, {control}, {where}."
    said = verdict(gain)
    if said is Verdict.BETTER:
        return f"{arm} gains most over {control}: {signed(gain.mean)} points {where}."
    if said is Verdict.ONE_SEED:
        return f"{arm} gains most over {control} in one seed, {signed(gain.mean)} points {where}: nothing shown."
    return f"{arm} ends highest {where}, but no difference to {control} is shown."


def evidence(results: Results, ranking: Ranking | None) -> str:
    """What stands behind the claim, and what ran."""
    control, parts = results.control, [what_ran(results)]
    compared = against_control(results)
    known = [one for one in compared if one.difference.known]
    if known and control is not None:
        better, worse = (sum(one.said is side for one in known) for side in (Verdict.BETTER, Verdict.WORSE))
        strict = sum(one.holm < 0.05 for one in known)
        parts.append(
            f"Of {plural(len(known), 'comparison')} with {control}, task by task, {better} show a gain, {worse} a "
            f"loss, {len(known) - better - worse} no difference; {strict} hold after Holm's correction within a task."
        )
    if ranking is not None:
        test = f"Friedman's test over {plural(ranking.tasks, 'task')}"
        shown = "the arms differ" if ranking.differ else "no difference shown"
        parts.append(f"{test}: p {in_words(ranking.p)}, {shown}.")
    return " ".join(parts)


def in_words(p: float) -> str:
    """A p value as far as it can be trusted: `0.03`, `below .001`."""
    return "below .001" if p < 0.001 else f"{p:.3f}"


def footnotes(results: Results) -> list[str]:
    """What a careful reader should know about the figures."""
    notes = [
        "Accuracy is that of the last epoch on the test rows, in percent; ± is half a 95 % t interval over seeds.",
        "Differences are in points, paired by seed. They say how seeds vary, not how test sets do.",
    ]
    families = [task.family for task in results.suite.tasks if task.family and task.name in results.tasks]
    if len(families) > len(set(families)) and len(results.tasks) > 1:
        notes.append("Tasks on the same rows at several rates are not independent: ranks look surer than they are.")
    if results.suite.tune is not None:
        several = len(next(iter(results.suite.tune.settings.values())))
        notes.append(
            f"Every arm chose among {several} settings, each seed for itself, by accuracy on "
            f"{100 * results.suite.tune.hold_out:g} % of the training rows with their given labels."
        )
    if len(results.versions) > 1:
        notes.append(f"The runs come from several versions: {'; '.join(results.versions)}.")
    if len(results.machines) > 1:
        notes.append("The runs come from several machines; seconds compare only where they ran together.")
    return [*notes, *results.notes]
