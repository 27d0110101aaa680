"""`unswayed repair`: a network trained on bad data in, a repaired network out, its controls beside it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unswayed.cli import app
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unswayed.experiment.patient import Patient
    from unswayed.experiment.task import Task
    from unswayed.mending import Diagnosis, Trial

DATA, REPAIR = "Data", "Repair"


@app.command()
def repair(
    checkpoint: Annotated[
        Path, typer.Argument(help="checkpoint.safetensors in a run's folder; with --model a file of weights.")
    ],
    data: Annotated[
        str | None, typer.Argument(help="The data that it was trained on. \\[default: as the run names them]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="For any nn.Module: what makes it, as package.module:callable.", rich_help_panel=REPAIR),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Layer whose neurons to prune. \\[default: the last but one]", rich_help_panel=REPAIR),
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            help="loss (wrong labels), prediction (corrupted inputs, as published) or label. \\[default: loss]",
            rich_help_panel=REPAIR,
        ),
    ] = None,
    as_published: Annotated[
        bool,
        typer.Option("--as-published", help="Part rows and rank neurons as the paper does.", rich_help_panel=REPAIR),
    ] = False,
    share: Annotated[float, typer.Option(help="Share of the neurons to prune.", rich_help_panel=REPAIR)] = 40 / 256,
    tune: Annotated[
        str, typer.Option(help="What learns: all (F-FT) or last (L-FT); this one is kept.", rich_help_panel=REPAIR)
    ] = "all",
    epochs: Annotated[int, typer.Option(help="Of fine-tuning.", min=1, rich_help_panel=REPAIR)] = 30,
    lr: Annotated[float, typer.Option(help="Learning rate (Adam).", rich_help_panel=REPAIR)] = 1e-3,
    batch: Annotated[int, typer.Option(help="Rows a step.", min=2, rich_help_panel=REPAIR)] = 128,
    seed: Annotated[int, typer.Option(help="Of the repair.", min=0, rich_help_panel=REPAIR)] = 0,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls",
            help="Beside it: the other tuning, no pruning, random pruning, retraining.",
            rich_help_panel=REPAIR,
        ),
    ] = True,
    input_: Annotated[
        list[str] | None, typer.Option("--input", help="Column of the input.", rich_help_panel=DATA)
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of the given labels.", rich_help_panel=DATA)] = None,
    truth: Annotated[
        str | None, typer.Option(help="Column of the true labels: for scoring only.", rich_help_panel=DATA)
    ] = None,
    test: Annotated[str | None, typer.Option(help="File or folder of test rows.", rich_help_panel=DATA)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the files. \\[default: `repaired` beside the checkpoint]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="\\[default: as in the run]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Repair a network that was trained on wrong labels or corrupted inputs (RLAP, arXiv 2506.11615).

    Finds the clean part of the data without the truth, prunes the neurons that tell the bad part, and fine-tunes the
    rest on the clean part. Prints before, after, cost and what was pruned; the test rows only score.
    """
    from unswayed.cli.progress import reading
    from unswayed.mending import PUBLISHED, compare, diagnose

    diagnosing = PUBLISHED if as_published else {"evidence": "loss"}
    diagnosing = diagnosing | ({"evidence": evidence} if evidence else {})
    if tune not in ("all", "last"):
        raise UnswayedError("--tune is all or last", got=repr(tune))
    console = Console(stderr=True, quiet=as_json)
    given = {"input": input_ and (input_[0] if len(input_) == 1 else input_), "label": label, "truth": truth}
    reader = {name: value for name, value in {**given, "test": test}.items() if value}
    how: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch": batch, "seed": seed}
    with reading(console) as progress:
        patient = _admit(checkpoint, model, how, data=data, reader=reader, device=device, progress=progress)
    task, (x, y) = patient.task, (patient.task.train.x, patient.task.train.given)
    diagnosis = diagnose(patient.network, x, y, layer=layer, seed=seed, **diagnosing)
    worst = diagnosis.worst(share)
    for note in (*patient.notes, *diagnosis.notes):
        console.print(f"  note: {note}", style="yellow", highlight=False, markup=False)
    trials = compare(
        patient.network, x, y, diagnosis, share=share, controls=controls,
        tunes=["last", "all"] if controls else [cast(Any, tune)],
        test=None if task.test is None or task.test_labels is None else (task.test.x, task.test_labels),
        retrain=patient.retrain if controls else None,
        told=lambda trial: console.print(f"  {_line(trial)}", highlight=False), **how,
    )  # fmt: skip
    chosen = next(trial for trial in trials if trial.name == ("F-FT" if tune == "all" else "L-FT"))
    settings = {**diagnosing, "share": share, "tune": tune, **how}
    summary = _summary(patient, diagnosis, trials, worst, chosen, settings)
    folder = out or checkpoint.parent / "repaired"
    assert chosen.repair is not None
    _write(folder, patient, chosen.repair.model, diagnosis, summary)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    _print(trials, chosen, summary)
    console.print(f"Repaired network, repair.json, rows.csv: [bold]{escape(str(folder))}[/]", highlight=False)


def _admit(checkpoint: Path, model: str | None, how: dict[str, Any], **where: Any) -> Patient:
    from unswayed.experiment.patient import admit, admit_foreign
    from unswayed.mending import train_anew

    if model is None:
        return admit(checkpoint, **where)
    if where["data"] is None:
        raise UnswayedError("the data that the network was trained on", got="none", do="name them after the file")

    def anew(network: nn.Module, task: Task, rows: Tensor) -> tuple[nn.Module, int]:
        return train_anew(network, task.train.x, task.train.given, rows, **how), int(how["epochs"])

    return admit_foreign(checkpoint, model, train_anew=anew, **where)


def _summary(
    patient: Patient,
    diagnosis: Diagnosis,
    trials: list[Trial],
    worst: Tensor,
    chosen: Trial,
    settings: dict[str, Any],
) -> dict[str, Any]:
    from unswayed.experiment.scoring import true_rate
    from unswayed.machine import describe, versions

    train, clean = patient.task.train, diagnosis.clean
    truth = train.truth
    wrong = {
        "all_rows": true_rate(train.given, truth),
        "clean_part": None if truth is None else true_rate(train.given[clean], truth[clean]),
    }
    names = ("name", "accuracy", "seconds", "seconds_an_epoch", "pruned", "rows")
    return {
        "layer": diagnosis.layer,
        "neurons": len(diagnosis.order),
        "pruned": worst.sort().values.tolist(),
        "kept": chosen.name,
        "accuracy_against": patient.task.against,
        "clean_rows": int(clean.sum()),
        "rows": len(clean),
        "wrong_labels": wrong,
        "diagnosis_seconds": diagnosis.seconds,
        "trials": [{name: getattr(trial, name) for name in names} for trial in trials],
        "notes": [*patient.notes, *diagnosis.notes],
        "settings": settings,
        "config": patient.config.as_json(),
        "versions": versions(),
        "machine": describe(),
    }


def _write(folder: Path, patient: Patient, network: nn.Module, diagnosis: Diagnosis, summary: dict[str, Any]) -> None:
    from unswayed.writing import write_json, write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "given", "clean_probability", "in_clean_part"])
    train, names = patient.task.train, patient.task.dataset.classes
    columns = (train.rows, train.given, diagnosis.probability, diagnosis.clean)
    for row, given, probability, clean in zip(*(column.tolist() for column in columns), strict=True):
        writer.writerow([row, names[given], f"{probability:.4f}", int(clean)])
    write_text(folder / "rows.csv", text.getvalue())
    patient.write(folder / "checkpoint.safetensors", network, {"layer": summary["layer"], "pruned": summary["pruned"]})
    write_json(folder / "repair.json", summary)


def _line(trial: Trial) -> str:
    scored = "" if trial.accuracy is None else f", accuracy {trial.accuracy:.3f}"
    return f"{trial.name}: {trial.seconds:.1f} s{scored}"


def _print(trials: list[Trial], chosen: Trial, summary: dict[str, Any]) -> None:
    table = Table("", box=None, pad_edge=False)
    for title in ("accuracy, %", "change", "rows", "pruned", "s", "s/epoch"):
        table.add_column(title, justify="right")
    before = trials[0].accuracy
    for trial in trials:
        scored, change = "–", "–"
        if trial.accuracy is not None and before is not None:
            scored = f"{100 * trial.accuracy:.1f}"
            change = f"{100 * (trial.accuracy - before):+.1f}" if trial is not trials[0] else "–"
        each = "–" if trial.seconds_an_epoch is None else f"{trial.seconds_an_epoch:.2f}"
        style = "bold" if trial is chosen else None
        table.add_row(
            trial.name, scored, change, f"{trial.rows:,}", str(trial.pruned), f"{trial.seconds:.1f}", each, style=style
        )
    console = Console()
    console.print(table)
    wrong, pruned = summary["wrong_labels"], ", ".join(map(str, summary["pruned"]))
    console.print(
        f"\nClean part: {summary['clean_rows']:,} of {summary['rows']:,} rows"
        + (
            ""
            if wrong["all_rows"] is None
            else f"; wrong labels {wrong['all_rows']:.1%} before, {wrong['clean_part']:.1%} in it"
        ),
        highlight=False,
    )
    console.print(
        f"Pruned in {summary['layer']}: {len(summary['pruned'])} of {summary['neurons']} neurons ({pruned})",
        highlight=False,
    )
    if summary["accuracy_against"] == "given":
        console.print("Accuracy is against given labels, which may be wrong themselves.", style="yellow")
