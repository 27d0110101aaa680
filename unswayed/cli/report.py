"""`unswayed report`: tables and a page from finished runs, or from the cells of a bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from unswayed.cli import app
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from unswayed.report import Run, Study


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder of runs or of a bench: runs/digits, runs/bench.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file. \\[default: FOLDER/report.html; of a bench, FOLDER/SUITE.html]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Write one self-contained HTML page about finished runs, or about each suite of a bench; print their tables."""
    if (folder / "cells").is_dir():  # a bench; asking its room would cost the seconds that torch takes to come
        report_bench(folder, out, as_json=as_json)
        return
    write_report(folder, out or folder / "report.html", as_json=as_json)


def write_report(folder: Path, page: Path, *, as_json: bool = False) -> None:
    """Print the table of a study, or its results as JSON, and write its page."""
    from unswayed import report as room

    study = room.load(folder)
    room.write(study, page)
    if as_json:
        typer.echo(json.dumps(_plain(study), indent=1))
        return
    console = Console()
    console.print(room.table(study))
    console.print(f"Report: [bold]{escape(str(page))}[/]", highlight=False)


def report_bench(folder: Path, page: Path | None, *, as_json: bool = False) -> None:
    """Print the tables of every suite that was run in a folder of cells, or their results as JSON; write the pages."""
    from unswayed.bench import Store, read_results, tables, write
    from unswayed.bench.export import as_plain
    from unswayed.bench.records import remembered

    suites = remembered(folder)
    if page is not None and len(suites) > 1:
        names = ", ".join(suite.name for suite in suites)
        raise UnswayedError("one suite for --out", got=names, do="leave it out: each has a page of its own name")
    found = [read_results(suite, Store(folder)) for suite in suites]
    pages = [write(results, page or folder / f"{results.suite.name}.html") for results in found]
    if as_json:
        typer.echo(json.dumps([as_plain(results) for results in found], indent=1))
        return
    console = Console()
    for results, written in zip(found, pages, strict=True):
        console.print(tables(results))
        console.print(f"Page: [bold]{escape(str(written))}[/]", highlight=False)


def _plain(study: Study) -> list[dict[str, Any]]:
    return [
        {
            "data": section.data.name,
            "noise": section.data.noise and section.data.noise.name,
            "arm": arm.name,
            "control": arm.control,
            "runs": [_run(run) for run in arm.runs],
        }
        for section in study.sections
        for arm in section.arms
    ]


def _run(run: Run) -> dict[str, Any]:
    numbers = {
        "last": run.last,
        "best_epoch_accuracy": run.test.best if run.test else None,
        "suspicion_auroc": run.auroc,
        "estimated_noise_rate": run.estimated_rate,
        "seconds": run.seconds,
        "steps": run.steps,
    }
    known = {name: value if value == value else None for name, value in numbers.items()}
    about = {"config": run.config, "versions": run.versions, "machine": run.machine, "started": run.started}
    return {"seed": run.seed, "folder": str(run.folder), **known, **about}
