"""What the study shows: python -m benchmarks.edge_masking.table [--page FILE.md] [--figure FILE.svg]

For every setting, loss and form the difference of last-epoch accuracy, in points, to the same method without a mask and
to the random mask of the same ratio, interval and path: mean and 95 % interval over paired seeds. Then, form by form,
in how many settings both intervals lie above zero, and where the form loses most.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.edge_masking import svg
from benchmarks.edge_masking.forms import FORMS
from benchmarks.edge_masking.study import DECAYS, RESULTS
from unswayed.report.statistics import Interval, interval, paired

Group = tuple[str, str, str]  # setting, loss, head
Seeds = dict[int, float]  # accuracy in percent by seed
LOST = -0.3  # points that a default may lose, as a mean


@dataclass(frozen=True)
class Effect:
    """What a form does to a method in a setting."""

    group: Group
    form: str
    over_none: Interval
    over_control: Interval | None  # the random mask of the same kind

    @property
    def proven(self) -> bool:
        """Better than no mask and than the random mask, with 95 % intervals above zero."""
        return self.over_none.low > 0 and self.over_control is not None and self.over_control.low > 0


def read(folder: Path) -> dict[Group, dict[str, Seeds]]:
    """All results, by setting, loss and head, then by form and seed."""
    found: dict[Group, dict[str, Seeds]] = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            cell = json.loads(line)
            found[cell["setting"], cell["loss"], cell["head"]][cell["form"]][cell["seed"]] = 100 * cell["accuracy"]
    return found


def effects(results: dict[Group, dict[str, Seeds]]) -> Iterator[Effect]:
    """Every form against no mask and, where it has one, against its random mask."""
    for group, forms in results.items():
        for name, seeds in forms.items():
            if name == "none" or "none" not in forms:
                continue
            control = FORMS[name].control
            over_control = paired(seeds, forms[control]) if control in forms else None
            yield Effect(group, name, paired(seeds, forms["none"]), over_control)


def table(results: dict[Group, dict[str, Seeds]], head: str) -> str:
    """Markdown: a row a setting and loss, a column a form; bold where the interval leaves zero out."""
    found = {(e.group, e.form): e for e in effects(results)}
    groups = [group for group in results if group[2] == head and "none" in results[group]]
    names = [name for name in FORMS if any((group, name) in found for group in groups)]
    lines = ["| setting | loss | no mask, % | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for group in groups:
        base = interval(results[group]["none"].values())
        cells = [_cell(found[group, name]) if (group, name) in found else "" for name in names]
        lines.append(f"| {group[0]} ({base.n}) | {group[1]} | {base.mean:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(effect: Effect) -> str:
    difference = effect.over_none
    text = f"{difference.mean:+.1f}" + (f" ± {difference.half:.1f}" if difference.known else "")
    text = text.replace("-", "−")
    shown = difference.low > 0 or difference.high < 0
    return (f"**{text}**" if shown else text) + (" †" if effect.proven else "")


def verdicts(results: dict[Group, dict[str, Seeds]], seeds: int = 5) -> str:
    """Markdown: form by form, where it is proven, and its worst mean; only cells with `seeds` paired seeds count."""
    lines = [
        "| form | head | cells | better than no mask | and than its random mask | worst mean |",
        "|---|---|---|---|---|---|",
    ]
    by_form: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in effects(results):
        if effect.over_none.n >= seeds:
            by_form[effect.form, effect.group[2]].append(effect)
    for name in FORMS:
        for head in ("linear", "kan"):
            if found := by_form.get((name, head)):
                better = sum(e.over_none.low > 0 for e in found)
                proven = sum(e.proven for e in found) if FORMS[name].control else "–"
                worst = min(found, key=lambda e: e.over_none.mean)
                where = f"{worst.over_none.mean:+.1f} ({worst.group[0]}, {worst.group[1]})".replace("-", "−", 1)
                lines.append(f"| {name} | {head} | {len(found)} | {better} | {proven} | {where} |")
    return "\n".join(lines)


def by_loss(results: dict[Group, dict[str, Seeds]], seeds: int = 5) -> str:
    """Markdown: in how many settings the published mask, and what may replace it, are shown to gain and to lose."""
    shown = ("std", "random", "dropout .5", "random .5 every 10", "tuned")
    found: dict[tuple[str, str], dict[str, list[Effect]]] = defaultdict(lambda: defaultdict(list))
    for effect in effects(results):
        if effect.over_none.n >= seeds:
            found[effect.group[2], effect.group[1]][effect.form].append(effect)
    lines = [
        "| head | loss | published mask | and better than its random mask | " + " | ".join(shown[1:]) + " |",
        "|---" * (3 + len(shown)) + "|",
    ]
    for (head, loss), forms in sorted(found.items(), key=lambda item: (item[0][0] != "linear", item[0][1])):
        told = [_counts(forms[name]) for name in shown]
        proven = sum(effect.proven for effect in forms["std"])
        lines.append(f"| {head} | {loss} | {told[0]} | {proven} | " + " | ".join(told[1:]) + " |")
    return "\n".join(lines)


def _counts(found: list[Effect]) -> str:
    gains = sum(effect.over_none.low > 0 for effect in found)
    costs = sum(effect.over_none.high < 0 for effect in found)
    return f"+{gains} −{costs} of {len(found)}" if found else ""


def proofs(results: dict[Group, dict[str, Seeds]], seeds: int = 5) -> str:
    """Markdown: where the published mask is better than none and than its random mask, and what others do there."""
    others = ("dropout .5", "random .5", "random .5 every 10", "tuned")
    lines = [
        "| setting | loss | head | over no mask | over its random mask | " + " | ".join(others) + " |",
        "|---" * (5 + len(others)) + "|",
    ]
    for effect in effects(results):
        if effect.form == "std" and effect.proven and effect.over_none.n >= seeds and effect.over_control is not None:
            forms, group = results[effect.group], effect.group
            against = [paired(forms[name], forms["std"]) if name in forms else None for name in others]
            cells = [_points(found) if found is not None and found.n >= seeds else "" for found in against]
            own = f"{_points(effect.over_none)} | {_points(effect.over_control)}"
            lines.append(f"| {group[0]} | {group[1]} | {group[2]} | {own} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _points(difference: Interval) -> str:
    text = f"{difference.mean:+.1f} ± {difference.half:.1f}".replace("-", "−")
    return f"**{text}**" if difference.low > 0 or difference.high < 0 else text


PAGE = """# Edge masking: all results

Made from the runs in [results/edge_masking](../results/edge_masking) by
`python -m benchmarks.edge_masking.table --page docs/edge-masking-results.md --figure docs/figures/effects.svg`;
what they mean is told in [edge-masking.md](edge-masking.md). Accuracy on clean test labels after the last epoch:
without a mask in percent, then the difference to it in points, mean and 95 % interval over the paired seeds whose
number stands behind the setting (fewer than two: no interval, nothing shown). Bold: the interval leaves zero out.
A dagger (†): the interval over the random mask of the same ratio, interval and path lies above zero too.
"""


def page(results: dict[Group, dict[str, Seeds]], seeds: int) -> str:
    """Everything, as one Markdown page."""
    parts = [
        PAGE,
        f"## Form by form\n\nCells (setting and loss) with {seeds} paired seeds only.\n",
        verdicts(results, seeds),
    ]
    parts += [
        "\n## Loss by loss\n\nIn how many cells a form is shown to gain (+) and to lose (−) against no mask.\n",
        by_loss(results, seeds),
        "\n## Where the published mask is better than none and than its random mask\n\nThe last columns: points of "
        "others *over the published mask*, on the same seeds; empty where they were not run.\n",
        proofs(results, seeds),
    ]
    for head in ("linear", "kan"):
        names = {"linear": "Linear heads", "kan": "Kolmogorov-Arnold heads (B-splines)"}
        parts.append(f"\n## {names[head]}\n\n{table(results, head)}")
    return "\n".join([*parts, "\n## The forms\n", legend()]) + "\n"


def legend() -> str:
    """Markdown: what every form is."""
    lines = ["| form | settings | compared with |", "|---|---|---|"]
    for form in FORMS.values():
        rule = ", ".join(f"{name}={value}" for name, value in form.rule.items())
        told = f"`edge-masked({rule})`" if form.head == "edge-masked" else "an ordinary head"
        if form.everywhere:
            told += " in all linear layers"
        if form.dropout:
            told += f" behind dropout of {form.dropout:g}"
        if form.width < 1:
            told += f", the layer before it {form.width:g} as wide"
        if form.tune:
            told += f", weight decay of {', '.join(f'{decay:g}' for decay in DECAYS)} chosen on noisy validation labels"
        lines.append(f"| {form.name} | {told} | {form.control or ''} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds that a verdict needs")
    parser.add_argument("--page", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--figure", type=Path, help="draw the effects of the masks to this SVG file")
    options = parser.parse_args()
    results = read(options.results)
    print(verdicts(results, options.seeds))
    if options.page:
        options.page.write_text(page(results, options.seeds), encoding="utf-8")
    if options.figure:
        options.figure.parent.mkdir(parents=True, exist_ok=True)
        options.figure.write_text(svg.effects(*figure(results, options.seeds)), encoding="utf-8")


def figure(
    results: dict[Group, dict[str, Seeds]], seeds: int
) -> tuple[str, list[tuple[str, list[tuple[str, Interval]]]]]:
    """The title, and the effects over no mask of the published mask and of its controls, one block a loss."""
    shown = ("std", "random", "drawn", "dropout .5", "tuned")
    found = {(e.group, e.form): e.over_none for e in effects(results)}
    blocks = []
    for group in results:
        rows = [(name, found[group, name]) for name in shown if (group, name) in found]
        rows = [(name, effect) for name, effect in rows if effect.n >= seeds]
        if group[2] == "linear" and rows:
            blocks.append((f"{group[0]}, {group[1]}", rows))
    return f"Accuracy gained over the same method without a mask, points (axes end at {svg.REACH:g})", blocks


if __name__ == "__main__":
    main()
