"""The tables of docs/audit.md from results/audit.json: python -m benchmarks.audit_tables"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

RESULT = Path(__file__).parents[1] / "results" / "audit.json"
OURS = ("unswayed, features", "unswayed, probabilities", "unswayed, both")
SHORT = {"average_precision": "average precision", "calibration_error": "calibration error"}


def read(file: Path = RESULT) -> dict[str, list[dict[str, Any]]]:
    """What was found, a list over seeds a setting."""
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        by_cell.setdefault(one["cell"], []).append(one)
    return by_cell


def mean(seeds: list[dict[str, Any]], how: str, key: str) -> float | None:
    """Over seeds; none where it was not measured."""
    values = [one["found"][how][key] for one in seeds if key in one["found"].get(how, {})]
    return fmean(values) if values else None


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def ranking(cells: dict[str, list[dict[str, Any]]], key: str, places: int) -> Iterator[str]:
    """One measure: who, by setting; the best in bold; cleanlab's scores or filters by the best of them as well."""
    low = key == "calibration_error"
    methods = dict.fromkeys(how for seeds in cells.values() for how in seeds[0]["found"])
    rows = {how: [mean(seeds, how, key) for seeds in cells.values()] for how in methods}
    rows = {how: values for how, values in rows.items() if any(value is not None for value in values)}
    best = [
        (min if low else max)(value for values in rows.values() if (value := values[at]) is not None)
        for at in range(len(cells))
    ]
    yield row([SHORT.get(key, key.upper() if key != "f1" else "F1"), *cells])
    yield row(["---"] * (len(cells) + 1))
    for how, values in rows.items():
        told = ["" if value is None else f"{value:.{places}f}" for value in values]
        marked = [f"**{text}**" if value == top else text for text, value, top in zip(told, values, best, strict=True)]
        yield row([how, *marked])


def promises(cells: dict[str, list[dict[str, Any]]], how: str = OURS[0]) -> Iterator[str]:
    """What an audit says of itself, and what is so; the first seed of each setting."""
    yield row(["setting", "wrong", "rate (95 %)", "matrix inside, error", "80 % budget: says, finds", "curve inside",
               "precision at 100: says, is", "suggestion right"])  # fmt: skip
    yield row(["---"] * 8)
    for name, seeds in cells.items():
        found = seeds[0]["found"][how]
        rate, budget, precision = found["rate"], found["budget"], found["precision_at_100"]
        told = budget["promised"]
        yield row([
            name, f"{seeds[0]['wrong']:.3f}", f"{rate[0]:.3f} ({rate[1]:.3f}-{rate[2]:.3f})",
            f"{found['matrix_inside']:.0%}, {found['matrix_error']:.3f}",
            f"{budget['checked']:,}: {told[0]:.0%} ({told[1]:.0%}-{told[2]:.0%}), {budget['found']:.0%}",
            f"{found['budget_inside']:.0%}",
            f"{precision['promised'][0]:.2f}, {precision['found']:.2f}", f"{found['suggested_right']:.2f}",
        ])  # fmt: skip


def decisions(cells: dict[str, list[dict[str, Any]]], how: str = OURS[0]) -> Iterator[str]:
    """Calibration and rate before and after decisions; the first seed of each setting."""
    looks = [each["decisions"] for each in next(iter(cells.values()))[0]["found"][how]["after_decisions"]]
    yield row(["setting", "wrong", "before", *(f"after {count}" for count in looks)])
    yield row(["---"] * (3 + len(looks)))
    for name, seeds in cells.items():
        found = seeds[0]["found"][how]
        stages = [found, *found["after_decisions"]]
        stages += [None] * (1 + len(looks) - len(stages))  # data of fewer rows
        yield row([name, f"{seeds[0]['wrong']:.3f}", *(
            f"{one['calibration_error']:.3f}; {one['rate'][0]:.3f} ({one['rate'][1]:.3f}-{one['rate'][2]:.3f})"
            if one else "" for one in stages
        )])  # fmt: skip


def rates(cells: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Estimated noise rates; ours with features, and cleanlab's from its joint."""
    yield row(["noise rate", *cells])
    yield row(["---"] * (len(cells) + 1))
    yield row(["truth", *(f"{fmean(one['wrong'] for one in seeds):.3f}" for seeds in cells.values())])
    for how in OURS:
        yield row([how, *(f"{fmean(one['found'][how]['rate'][0] for one in seeds):.3f}" for seeds in cells.values())])
    for tail in ("", ", on our probabilities"):
        found = [mean(seeds, f"cleanlab both{tail}", "rate") for seeds in cells.values()]
        yield row([f"cleanlab{tail}", *("" if value is None else f"{value:.3f}" for value in found)])


def main() -> None:
    """The command; another file than results/audit.json may be named."""
    cells = read(*map(Path, sys.argv[1:2]))
    for key, places in (("auroc", 4), ("average_precision", 4), ("f1", 3), ("calibration_error", 3)):
        print("\n".join(ranking(cells, key, places)), end="\n\n")
    for table in (rates, promises, decisions):
        print("\n".join(table(cells)), end="\n\n")


if __name__ == "__main__":
    main()
