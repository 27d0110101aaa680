"""`unswayed next`: the rows of a finished run whose labels a person should check next."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unswayed.cli import app
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from unswayed.experiment.patient import Finished

RULES = ("stability", "both", "suspicion")
SHOWN = 20  # rows printed; the file has all


@app.command("next")
def next_rows(
    run: Annotated[
        Path, typer.Argument(help="A run's folder, or the checkpoint.safetensors in it; or an audit's folder.")
    ],
    data: Annotated[
        str | None, typer.Argument(help="The data that it was trained on. \\[default: as the run names them]")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Rows to check.", min=1)] = 100,
    by: Annotated[
        str,
        typer.Option(
            help="stability (where predictions move most and differently, as published), suspicion (labels that are "
            "most probably wrong), or both (their product)."
        ),
    ] = "stability",
    out: Annotated[
        Path | None, typer.Option(help="The list, as .csv or .json. \\[default: `next.csv` beside the checkpoint]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="\\[default: as in the run]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Name the rows whose labels a person should check next (noise stability, arXiv 2205.13340).

    Shakes the trained weights and takes rows whose predictions move far and each in its own way. The best order to find
    wrong labels is --by suspicion; see docs/noise.md for what was measured. In an audit, whose labels matter most
    is suspicion times uncertainty, and what a review has settled counts.
    """
    from unswayed.cli.progress import reading
    from unswayed.experiment.patient import take_up
    from unswayed.writing import write_json, write_text

    if by not in RULES:
        raise UnswayedError(f"--by is one of {', '.join(RULES)}", got=repr(by))
    audited = run.is_dir() and (run / "audit.json").is_file()
    checkpoint = run / "checkpoint.safetensors" if run.is_dir() else run
    file = out or checkpoint.parent / "next.csv"
    if file.suffix.casefold() not in (".csv", ".json"):
        raise UnswayedError("--out FILE.csv or FILE.json", got=str(file))
    console = Console(stderr=True, quiet=as_json)
    if audited:
        lines, why = _of_audit(run, count, by)
        console.print(why, highlight=False, markup=False)
        if not lines:
            raise UnswayedError(f"labels that nobody has checked in {run}", got="none", do="unswayed export")
    else:
        with reading(console) as progress:
            finished = take_up(checkpoint, data=data, device=device, progress=progress)
        lines = _lines(finished, count, by, seed)
    if file.suffix.casefold() == ".json":
        write_json(file, lines)
    else:
        write_text(file, _as_csv(lines))
    if as_json:
        typer.echo(json.dumps(lines, indent=1))
        return
    _print(lines)
    console.print(f"{len(lines)} rows to check, in this order: [bold]{escape(str(file))}[/]", highlight=False)


def _of_audit(folder: Path, count: int, by: str) -> tuple[list[dict[str, Any]], str]:
    """The labels of an audit to check next, without those that a review has settled, and whether it pays."""
    from unswayed.auditing import Audit, next_labels, recalibrate, worth_going_on
    from unswayed.review.case import DECISIONS, open_case

    audit = Audit.load(folder)
    case = open_case(folder, create=False) if (folder / DECISIONS).exists() else None
    settled: dict[int, str | None] = {}
    if case is not None:
        made = ((at, case.decisions.verdict(at)) for at in case.decisions.decided())
        settled = {at: said.label for at, said in made if said is not None}
        case.close()
    decided: dict[int, int | str] = {at: label for at, label in settled.items() if label in audit.classes}
    known = recalibrate(audit, decided)
    most = count + len(settled)
    useful = known.order()[:most] if by == "suspicion" else next_labels(audit, most, decided=decided)
    rows = [at for at in useful.tolist() if at not in settled and int(known.given[at]) >= 0][:count]
    return [known.line(at) for at in rows], worth_going_on(audit, decided=decided).why


def _lines(finished: Finished, count: int, by: str, seed: int) -> list[dict[str, Any]]:
    from unswayed.experiment.scoring import beliefs_of
    from unswayed.prediction import predict
    from unswayed.stats.noise_stability import choose, deviations

    method, train, names = finished.method, finished.task.train, finished.task.dataset.classes
    probability = predict(method, train.x, place=finished.place).softmax(1).cpu()
    suspicion = beliefs_of(method, train.given, probability).suspicion
    moved = deviations(method, train.x, seed=seed)
    if by == "suspicion":
        rows = suspicion.argsort(descending=True, stable=True)[:count]
    else:
        weight = suspicion - suspicion.min()  # in any unit, and `choose` looks at ratios alone
        rows = choose(moved, count, suspicion=weight if by == "both" else None)
    sure, predicted = probability.max(1)
    deviation = moved.norm(dim=1)
    return [
        {
            "row": int(train.rows[i]),
            "given": names[int(train.given[i])],
            "predicted": names[int(predicted[i])],
            "probability": round(float(sure[i]), 4),
            "suspicion": round(float(suspicion[i]), 4),
            "deviation": float(f"{float(deviation[i]):.4g}"),
        }
        for i in rows.tolist()
    ]


def _as_csv(lines: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _print(lines: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in lines[0]:
        table.add_column(name, justify="left" if name in ("given", "predicted", "suggested") else "right")
    for line in lines[:SHOWN]:
        table.add_row(*(escape(str(value)) for value in line.values()))
    Console().print(table)
    if len(lines) > SHOWN:
        Console().print(f"... and {len(lines) - SHOWN} more")
