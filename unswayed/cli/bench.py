"""`unswayed bench`: a grid of runs that survives anything, and what it shows."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unswayed.cli import app
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from unswayed.bench import How, Results, Store, Suite

CHOOSING, RUNNING = "Which cells", "Running"


def _suites() -> list[str]:
    from unswayed.bench import shipped

    return shipped()


@app.command()
def bench(
    suite: Annotated[
        str | None,
        typer.Argument(help="A suite that is shipped (none: they are listed), or a file .yaml or .py.",
                       autocompletion=_suites),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the suite: epochs=3 (everywhere), tasks.cifar-*.limit=2000, arms.gce.lr=.1. "
                     "May be repeated.", rich_help_panel=CHOOSING),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", help="Only tasks that fit the pattern. May be repeated.", rich_help_panel=CHOOSING),
    ] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arms", help="Only arms that fit the pattern. May be repeated.", rich_help_panel=CHOOSING),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds. \\[default: the suite's]", min=1, rich_help_panel=CHOOSING)
    ] = None,
    first: Annotated[int, typer.Option(help="The first seed.", min=0, rich_help_panel=CHOOSING)] = 0,
    limit: Annotated[
        int | None,
        typer.Option(help="Train on at most so many rows: --set limit=N.", min=2, rich_help_panel=CHOOSING),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The folder of data sets, {root} in suites.", envvar="UNSWAYED_DATA",
                     rich_help_panel=RUNNING),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The folder of the cells; suites may share one.", rich_help_panel=RUNNING)
    ] = Path("runs/bench"),
    jobs: Annotated[
        int, typer.Option(help="Cells at a time, each in its own process.", min=1, rich_help_panel=RUNNING)
    ] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=RUNNING)] = "auto",
    on: Annotated[
        str,
        typer.Option(help="Where cells run: local (this machine), joblib, ray or slurm.", rich_help_panel=RUNNING),
    ] = "local",
    on_set: Annotated[
        list[str] | None,
        typer.Option("--on-set", help="A setting of --on, such as partition=gpu, minutes=240, gpus=1, cpus=8. May be "
                     "repeated.", rich_help_panel=RUNNING),
    ] = None,
    save_seconds: Annotated[
        float, typer.Option(help="Seconds between two checkpoints.", min=0, rich_help_panel=RUNNING)
    ] = 30.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is done, what is to do and what it will cost.",
                           rich_help_panel=RUNNING)
    ] = False,
    only_report: Annotated[
        bool, typer.Option("--report", help="Run nothing: table and page from the cells that are there.",
                           rich_help_panel=RUNNING)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON.", rich_help_panel=RUNNING)
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the results without single runs to this JSON file, small enough to be kept.",
                     rich_help_panel=RUNNING),
    ] = None,
) -> None:  # fmt: skip
    """Run a grid of tasks x arms x seeds, and report it: table, statistics, one page.

    A finished cell is never run again, a stopped one goes on where it was, and a lost worker loses its cell alone.
    Ends with code 1 where cells failed.
    """
    from unswayed.bench import Store, read_results, read_suite
    from unswayed.bench.records import remember
    from unswayed.writing import write_json

    if suite is None:
        _list_suites()
        return
    changes = [*(change or []), *([f"limit={limit}"] if limit is not None else [])]
    chosen = read_suite(suite, changes=changes, tasks=tasks or (), arms=arms or (), seeds=seeds, first=first)
    store = Store(out)
    if dry_run:
        _dry_run(chosen, store, root, device, jobs, as_json=as_json)
        return
    if not only_report:
        _run(chosen, store, _how(jobs, root, device, save_seconds, on, on_set), quiet=as_json)
    remember(chosen, out)
    results = read_results(chosen, store)
    if export is not None:
        from unswayed.bench.export import aggregated

        write_json(export, aggregated(results))
    page = out / f"{chosen.name}.html"
    _report(results, page, as_json=as_json)
    if results.failures:
        _tell_failures(results)
        raise typer.Exit(1)


def _how(jobs: int, root: Path | None, device: str, save_seconds: float, on: str, on_set: list[str] | None) -> How:
    from unswayed.bench import How
    from unswayed.bench.placing import check_place
    from unswayed.experiment.arms import read_value

    settings = {}
    for text in on_set or []:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals:
            raise UnswayedError("--on-set NAME=VALUE", got=repr(text), do="for example --on-set gpus=1")
        settings[name] = read_value(value)
    check_place(on, settings)
    return How(jobs, root, device, save_seconds, on, settings)


def _list_suites() -> None:
    from unswayed.bench import read_suite, shipped

    table = Table("suite", "tasks", "arms", "seeds", "about", box=None, pad_edge=False)
    for name in shipped():
        suite = read_suite(name)
        sizes = (str(len(part)) for part in (suite.tasks, suite.arms, suite.seeds))
        table.add_row(name, *sizes, suite.about.partition(". ")[0].rstrip(".") + ".")
    Console().print(table)


def _run(suite: Suite, store: Store, how: Any, *, quiet: bool) -> None:
    from unswayed.bench import entries, run_suite
    from unswayed.bench.ground import check_root
    from unswayed.cli.bench_board import Board

    console = Console(stderr=True, quiet=quiet)
    cells = [cell for entry in entries(suite) for cell in (*entry.trials, *(entry.options[:1]))]
    todo = [cell for cell in cells if not store.done(cell)]
    check_root(todo, how.root)
    done = len(cells) - len(todo)
    if done:
        console.print(f"{done} of {len(cells)} cells are finished already", highlight=False)
    try:
        with Board(console, len(cells), done) as board:
            run_suite(suite, store, how, board)
    except KeyboardInterrupt:
        console.print("[yellow]Stopped.[/] All is saved; the same command goes on from there.")
        raise typer.Exit(130) from None


def _dry_run(suite: Suite, store: Store, root: Path | None, device: str, jobs: int, *, as_json: bool) -> None:
    from unswayed.bench.cost import estimate
    from unswayed.bench.forecast import forecast

    lines = forecast(suite, store)
    todo = [line.cell for line in lines if line.state != "done"]
    found = estimate(todo, [line.cell for line in lines if line.state == "done"], store, root, device)
    total = math.fsum(e.seconds for cell in todo if math.isfinite((e := found[cell.key]).seconds))
    unknown = sum(not math.isfinite(found[cell.key].seconds) for cell in todo)
    if as_json:
        rows = [
            {"cell": line.cell.key, "task": line.cell.task, "arm": line.cell.arm, "seed": line.cell.seed,
             "trial": line.cell.trial, "state": line.state,
             "seconds": None if line.state == "done" or not math.isfinite(found[line.cell.key].seconds)
             else found[line.cell.key].seconds}
            for line in lines
        ]  # fmt: skip
        typer.echo(json.dumps({"cells": rows, "seconds": total, "unknown": unknown}, indent=1))
        return
    from unswayed.report.summary import duration

    console = Console()
    table = Table("task", "arm", "seed", "cell", "state", "about", box=None, pad_edge=False)
    for line in lines:
        cell, cost = line.cell, found.get(line.cell.key)
        trial = "" if cell.trial is None else f" (setting {cell.trial + 1})"
        seconds = "" if cost is None else duration(cost.seconds)
        table.add_row(cell.task, escape(cell.arm) + trial, str(cell.seed), cell.key, line.state, seconds)
    console.print(table)
    finished = len(lines) - len(todo)
    console.print(f"\n{len(lines)} cells: {finished} done, {len(todo)} to do", highlight=False)
    if todo:
        at_a_time = min(jobs, os.cpu_count() or 1)
        rest = f", and {unknown} of unknown cost" if unknown else ""
        console.print(
            f"About {duration(total / max(1, at_a_time))} with --jobs {jobs} on this machine{rest}. Known from:",
            highlight=False,
        )
        for how in dict.fromkeys(found[cell.key].how for cell in todo):
            console.print(f"  {how}", highlight=False, markup=False)


def _report(results: Results, page: Path, *, as_json: bool) -> None:
    from unswayed.bench import tables, write
    from unswayed.bench.export import as_plain

    write(results, page)
    if as_json:
        typer.echo(json.dumps(as_plain(results), indent=1))
        return
    console = Console()
    console.print(tables(results))
    console.print(f"Page: [bold]{escape(str(page))}[/]", highlight=False)


def _tell_failures(results: Results) -> None:
    console = Console(stderr=True)
    console.print(f"[bold red]{len(results.failures)} cells failed[/] (the same command tries them again):")
    told: dict[str, list[str]] = {}
    for failure in results.failures:
        cell = failure.cell
        name = f"{cell.task}, {cell.arm}, seed {cell.seed} ({cell.key})"
        told.setdefault(failure.why.strip().splitlines()[-1], []).append(name)
    for why, names in told.items():  # what goes wrong in one cell often goes wrong in many
        for name in names:
            console.print(f"  {name}", highlight=False, markup=False)
        console.print(f"    {why}", highlight=False, markup=False)
