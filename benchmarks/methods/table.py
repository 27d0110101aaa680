"""What the comparison shows: python -m benchmarks.methods.table

Writes docs/methods-compared.md and the measured figures that `unswayed show METHOD` prints (records/measured.json).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.methods.compare import MASKED, RESULTS, file_of, read
from benchmarks.methods.settings import PROBE, SETTINGS, TRUSTED
from unswayed import methods
from unswayed.report.statistics import Interval, interval, paired

ROOT = Path(__file__).parents[2]
PAGE, MEASURED = ROOT / "docs" / "methods-compared.md", ROOT / "unswayed" / "methods" / "records" / "measured.json"
RANDOM = " edge-masked(score=random)"

Cells = dict[str, dict[str, dict[int, dict[str, Any]]]]  # setting, arm, seed -> one run


def load(folder: Path = RESULTS) -> Cells:
    """All runs."""
    found: Cells = {name: defaultdict(dict) for name in SETTINGS}
    for name, arms in found.items():
        for cell in read(name, folder):
            arms[cell["arm"]][cell["seed"]] = cell
    return {name: dict(arms) for name, arms in found.items() if arms}


def seeds_of(runs: dict[int, dict[str, Any]], what: str = "accuracy") -> dict[int, float]:
    """One number of every seed."""
    return {seed: cell[what] for seed, cell in runs.items() if cell[what] is not None}


def control_of(arm: str) -> str:
    """Plain cross-entropy on the same labels and the same body."""
    if arm.endswith(TRUSTED):
        return "plain" + TRUSTED
    return f"plain {PROBE}" if PROBE in arm.split() else "plain"


def over(cells: Cells, setting: str, arm: str, control: str) -> Interval | None:
    """Points of accuracy over a control, paired by seed."""
    arms = cells[setting]
    if arm not in arms or control not in arms or arm == control:
        return None
    return paired(seeds_of(arms[arm]), seeds_of(arms[control]))


# ------------------------------------------------------------------------------------------------ tables


def accuracies(cells: Cells, arms: Iterable[str]) -> str:
    """Markdown: accuracy, and the difference to plain cross-entropy; † where it beats tuned cross-entropy as well."""

    def cell(setting: str, arm: str) -> str:
        if arm not in cells[setting]:
            return ""
        text = f"{interval(seeds_of(cells[setting][arm]).values()).mean:.1f}"
        gained = over(cells, setting, arm, control_of(arm))
        return text if gained is None else f"{text} ({_signed(gained)})" + _dagger(cells, setting, arm)

    return _grid(cells, arms, cell)


def _dagger(cells: Cells, setting: str, arm: str) -> str:
    beyond = over(cells, setting, arm, "tuned")
    return " †" if beyond is not None and beyond.low > 0 else ""


def masks(cells: Cells, arms: Iterable[str]) -> str:
    """Markdown: what an edge-masked head adds to each method, in points, and in how many cells that is shown."""
    arms = list(arms)

    def added(setting: str, arm: str) -> Interval | None:
        bare, told = arm.removesuffix(TRUSTED), TRUSTED if arm.endswith(TRUSTED) else ""
        return over(cells, setting, bare + MASKED + told, arm)

    def cell(setting: str, arm: str) -> str:
        gained = added(setting, arm)
        return "" if gained is None else _signed(gained)

    known = [gained for s in cells for arm in arms if (gained := added(s, arm)) is not None and gained.known]
    up, down = sum(gained.low > 0 for gained in known), sum(gained.high < 0 for gained in known)
    count = f"Of {len(known)} cells with an interval it is shown to gain in {up} and to lose in {down}.\n\n"
    shown = {setting: arms for setting, arms in cells.items() if any(arm.endswith(MASKED) for arm in arms)}
    return count + _grid(shown, arms, cell)


def costs(cells: Cells, arms: Iterable[str]) -> str:
    """Markdown: what a method costs beside plain training, and how well its suspicion ranks the wrong labels."""
    lines = ["| method | seconds / plain's | steps / plain's | samples / plain's | ranking of wrong labels, AUROC |"]
    lines += ["|---|---|---|---|---|"]
    for arm in arms:
        ratios = [_median(_ratios(cells, arm, what)) for what in ("seconds", "steps", "samples")]
        found = [v for s in cells.values() if arm in s for v in seeds_of(s[arm], "auroc").values()]
        ranked = f"{fmean(found):.3f}" if found else ""
        lines.append(f"| {arm} | {' | '.join(ratios)} | {ranked} |")
    return "\n".join(lines)


def _ratios(cells: Cells, arm: str, what: str) -> list[float]:
    return [
        run[what] / arms[control_of(arm)][seed][what]
        for arms in cells.values()
        for seed, run in arms.get(arm, {}).items()
        if seed in arms.get(control_of(arm), {})
    ]


def _median(values: list[float]) -> str:
    return f"{median(values):.2f}" if values else ""


def verdicts(cells: Cells, arms: Iterable[str]) -> str:
    """Markdown: in how many settings each arm beats or loses to its controls, and its mean rank; best rank first."""
    ranks: dict[str, list[int]] = defaultdict(list)
    arms = list(arms)
    for found in cells.values():
        means = {arm: fmean(seeds_of(found[arm]).values()) for arm in arms if arm in found}
        for place, arm in enumerate(sorted(means, key=lambda a: -means[a]), 1):
            ranks[arm].append(place)
    lines = [
        "| method | settings | mean rank | beats plain | loses to plain | beats tuned | loses to tuned |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in sorted(ranks, key=lambda a: fmean(ranks[a])):
        counts = []
        for control in (control_of(arm), "tuned"):
            found_over = [over(cells, setting, arm, control) for setting in cells]
            known = [i for i in found_over if i is not None and i.known]
            counts += [str(sum(i.low > 0 for i in known)), str(sum(i.high < 0 for i in known))] if known else ["", ""]
        lines.append(f"| {arm} | {len(ranks[arm])} | {fmean(ranks[arm]):.1f} | {' | '.join(counts)} |")
    return "\n".join(lines)


def winners(cells: Cells, arms: Iterable[str]) -> str:
    """Markdown: how many arms are shown to beat plain cross-entropy in each setting, and the three that gain most."""
    lines, arms = ["| setting | shown to gain | most |", "|---|---|---|"], list(arms)
    for setting in cells:
        gains = [(gained, arm) for arm in arms if (gained := over(cells, setting, arm, control_of(arm))) is not None]
        shown = sorted((one for one in gains if one[0].low > 0), key=lambda one: -one[0].mean)
        best = "; ".join(f"{arm} {_signed(gained).replace('*', '')}" for gained, arm in shown[:3])
        lines.append(f"| {SETTINGS[setting].shown or setting} | {len(shown)} of {len(gains)} | {best} |")
    return "\n".join(lines)


def shortfalls(cells: Cells, arms: Iterable[str]) -> str:
    """Markdown: where a method is shown to do worse than plain cross-entropy, most often first."""
    lines = []
    for arm in arms:
        losses = [
            (gained.mean, f"{SETTINGS[setting].shown or setting} {_signed(gained).replace('*', '')}")
            for setting in cells
            if (gained := over(cells, setting, arm, control_of(arm))) is not None and gained.high < 0
        ]
        if losses:
            lines.append((-len(losses), f"| {arm} | {len(losses)} | {'; '.join(text for _, text in sorted(losses))} |"))
    return "\n".join(["| method | settings | points |", "|---|---|---|", *(line for _, line in sorted(lines))])


def _grid(cells: Cells, arms: Iterable[str], cell: Callable[[str, str], str]) -> str:
    heads = [SETTINGS[setting].shown or setting for setting in cells]
    lines = ["| method | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for arm in arms:
        row = [cell(setting, arm) for setting in cells]
        if any(row):
            lines.append(f"| {arm} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _signed(gained: Interval) -> str:
    text = f"{gained.mean:+.1f}" + (f" ± {gained.half:.1f}" if gained.known else "")
    shown = gained.low > 0 or gained.high < 0
    return f"**{text}**".replace("-", "−") if shown else text.replace("-", "−")


# ------------------------------------------------------------------------------------------------ page and records

INTRO = """# All methods side by side

Made from the runs in [results/methods_cpu](../results/methods_cpu) by `python -m benchmarks.methods.table`; the
runs by `python -m benchmarks.methods.compare` (a cell again: `--settings NAME --arms ARM --first SEED --seeds 1`).
Small runs on one core, not the published protocols: 4,000 training rows (Hausa and spoken digits: all), one hidden
layer on frozen features (Hausa: n-grams), every arm with the same rows, wrong labels, start and number of epochs, the
method's own default settings, nothing tuned on test labels. Accuracy in percent on clean test labels after the last
epoch. In brackets: points over plain cross-entropy, mean and 95 % interval over paired seeds; bold where it leaves
zero out. A dagger (†): better than cross-entropy tuned on noisy validation labels as well, by the same standard.

Features: Fashion-MNIST and CIFAR-10 (JPEG) by k-means on patches, no label and no pre-trained network; NoisyAG-News by
a frozen sentence encoder; spoken digits as mean log-mel energies. CIFAR-10N and NoisyAG-News have human labels, Hausa
news labels by distant supervision; the others have planted ones. "Spoken inputs": labels right, half of the inputs
with noise of three standard deviations. "+100 trusted": the true labels of 100 rows are given. "identity": the head
reads the frozen features themselves, without a hidden layer, and plain means plain identity.
"""

MASKS = """## What an edge-masked head adds

Points over the same method with an ordinary head. The random mask of the same ratio was run with plain training alone
(table above), so nothing here tells ranking from chance.

"""


SHORT = """Against plain cross-entropy, paired by seed. What can be read off it: symmetric cross-entropy (`sce`) is the
arm that is shown to gain in most settings, loses in none and costs next to nothing. Methods that split and relabel the
rows gain most where most labels are wrong, or wrong in pairs; with few wrong labels they lose on weak features
(CIFAR-10N aggregate) and gain on strong ones (news). Corrupted inputs with right labels are no case for any of them:
they take the hard rows for mislabelled ones.

"""

BEHIND = """## Who falls short

Settings in which a method is shown to do worse than plain cross-entropy. Small data, few epochs, default settings and
frozen features are not what most of these were published for: what each one needs, and what it was published with,
stands on [its page](methods/README.md), where its formulas were checked against text and authors' code.

"""


PICTURES = """\
On pictures (32 x 32, a small CNN, one core, `python benchmarks/methods_cost.py`) an epoch costs, in epochs of plain
training: IDO 2.1 (goal 2.2), co-teaching 2.2 (goal 2.1), DivideMix 7.5 for an epoch of both networks (goal 5),
least and largest of two rounds 2.0 to 2.3, 2.1 to 2.3 and 7.1 to 7.9
([figures](../results/methods_cost_goals.json)). DivideMix cannot reach its goal as published: both networks guess
on two views of every row, 11.9 passes forward and 4 backward over the data, which are 6.6 plain epochs where a pass
backward costs two forward. Bookkeeping for each sample and mixtures take .1 to .5 % of an epoch; mixtures of
1,000,000 losses .23 to .27 seconds. All methods, from one shorter run on a busy machine:
[methods_cost.json](../results/methods_cost.json).
"""


def page(cells: Cells) -> str:
    """Everything, as one Markdown page."""
    known = {arm for arms in cells.values() for arm in arms}
    bare = sorted(arm for arm in known if MASKED not in arm)
    seeds = _seeds(cells, bare)
    parts = [
        INTRO,
        f"Seeds a cell: {seeds}; of arms with an edge mask {_seeds(cells, known - {*bare})}. One seed shows nothing.\n",
        "## Where methods gain\n\n" + SHORT + winners(cells, bare) + "\n",
        "## Who wins\n\n" + verdicts(cells, bare) + "\n",
        "## Accuracy\n\n" + accuracies(cells, [*bare, "plain" + RANDOM]) + "\n",
        BEHIND + shortfalls(cells, bare) + "\n",
        MASKS + masks(cells, bare) + "\n",
        "## Cost, and how well suspicion ranks wrong labels\n\nMedians over settings and seeds; seconds of the "
        "processor, on one core.\n\n" + costs(cells, bare) + "\n\n" + PICTURES,
    ]  # fmt: skip
    return "\n".join(parts)


def _seeds(cells: Cells, arms: Iterable[str]) -> str:
    count = {len(found[arm]) for found in cells.values() for arm in arms if arm in found}
    return str(min(count)) if len(count) == 1 else f"{min(count)} to {max(count)}"


def measured(cells: Cells) -> dict[str, list[dict[str, Any]]]:
    """The figures of every method, for its record."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in methods.names():
        for setting, arms in cells.items():
            for arm in (one for one in (name, name + TRUSTED, f"{name} {PROBE}") if one in arms):
                own, gained = interval(seeds_of(arms[arm]).values()), over(cells, setting, arm, control_of(arm))
                entry = {
                    "data": SETTINGS[setting].shown or setting,
                    "arm": arm,
                    "value": f"{own.mean:.1f}",
                    "over_plain": "–" if gained is None else _signed(gained).replace("*", ""),
                    "verdict": "" if gained is None else "better" if gained.low > 0 else "worse" * (gained.high < 0),
                    "seeds": own.n,
                    "file": file_of(setting).relative_to(ROOT).as_posix(),
                }
                found.setdefault(name, []).append(entry)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    cells = load(parser.parse_args().results)
    PAGE.write_text(page(cells), encoding="utf-8")
    MEASURED.write_text(json.dumps(measured(cells), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
