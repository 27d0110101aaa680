"""Which suites a folder of cells belongs to: each is kept as it was run last, so that cells alone can be reported."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unswayed.bench.suite import Arm, Suite, Task, Tuning
from unswayed.errors import UnswayedError
from unswayed.writing import write_json

FOLDER = "suites"


def remember(suite: Suite, folder: Path) -> None:
    """Keep the suite, as changed and thinned, beside its cells."""
    write_json(folder / FOLDER / f"{suite.name}.json", asdict(suite))


def remembered(folder: Path) -> list[Suite]:
    """The suites that were run in a folder, by name; raises UnswayedError where none is known."""
    files = sorted((folder / FOLDER).glob("*.json"))
    if not files:
        do = f"unswayed bench SUITE --report --out {folder}"
        raise UnswayedError(f"a suite that was run in {folder}", got="cells alone", do=do)
    return [_read(file) for file in files]


def _read(file: Path) -> Suite:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        tune = found["tune"]
        if tune is not None:
            tune = Tuning(tune["hold_out"], {arm: tuple(each) for arm, each in tune["settings"].items()})
        several = {
            "tasks": tuple(Task(**task) for task in found["tasks"]),
            "arms": tuple(Arm(**a) for a in found["arms"]),
        }
        plain = {key: tuple(found[key]) for key in ("seeds", "published")}
        return Suite(**{**found, **several, **plain, "tune": tune})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        do = f"remove it, and run unswayed bench {file.stem} --report"
        raise UnswayedError(f"a suite as a bench keeps it in {file}", got=error, do=do) from error
