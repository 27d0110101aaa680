"""`unswayed audit`: which labels are probably wrong, how sure that is, and what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unswayed.cli import app
from unswayed.cli.options import (
    INPUT,
    RUNNING,
    Columns,
    Device,
    Kind,
    Label,
    Missing,
    Size,
    Strict,
    reader_of,
)
from unswayed.cli.train import folder_name, known_noises, known_sources, noise_settings
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from unswayed.auditing import Audit
    from unswayed.experiment.config import Config

READY, FOLDS = "Ready-made evidence", "Evidence made here"
SHOWN = 20  # suspicious rows printed; the file has all
PAIRS = 8  # pairs of classes printed
BODIES = ("cnn-small", "cnn8", "resnet18", "text-mlp")


@app.command("audit")
def audit_labels(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A file (Parquet, CSV, TSV, JSON lines, .npz, .npy), a folder (images, sounds, a saved Hugging Face "
            "data set), or a name (digits, wine; `unswayed list data`).",
            autocompletion=known_sources,
        ),
    ] = None,
    label: Label = None,
    input_: Columns = None,
    kind: Kind = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="Column (or file, with --labels) of true labels: they score the finished audit, nothing else.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    annotator: Annotated[
        list[str] | None,
        typer.Option(help="Column of another annotator's labels; may be repeated.", rich_help_panel=INPUT),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to audit, or the column that tells it.", rich_help_panel=INPUT)
    ] = None,
    size: Size = None,
    root: Annotated[str | None, typer.Option(help="Folder of a named data set's files.", rich_help_panel=INPUT)] = None,
    missing: Missing = "error",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Frozen encoder of pictures or texts: a sentence-transformers model by name or folder. \\[default: "
            "patches for pictures and sounds, latent semantic analysis for texts]",
            rich_help_panel=INPUT,
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="File of ready-made features [N, d] (.npy, .npz, .safetensors, or a table of numbers).",
            rich_help_panel=INPUT,
        ),
    ] = None,
    strict: Strict = False,
    limit: Annotated[
        int | None, typer.Option(help="Audit at most so many rows, drawn evenly.", min=2, rich_help_panel=INPUT)
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Spoil the labels first by this model (a trial).", autocompletion=known_noises, rich_help_panel=INPUT
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Share of labels to spoil.", rich_help_panel=INPUT)] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="File of labels, in place of DATA (.npy, .npz, .csv, .parquet, ...).", rich_help_panel=READY),
    ] = None,
    probs: Annotated[
        Path | None, typer.Option(help="File of out-of-fold probabilities [N, K].", rich_help_panel=READY)
    ] = None,
    annotators: Annotated[
        Path | None,
        typer.Option(help="File of several annotators' labels [N, A], -1 where none.", rich_help_panel=READY),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Names of the classes in the order of the columns: a,b,c.", rich_help_panel=READY),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-a",
            help="What is trained in the folds: an arm, as for train. \\[default: a linear probe with ELR]",
            rich_help_panel=FOLDS,
        ),
    ] = None,
    net: Annotated[
        str | None,
        typer.Option(
            help=f"Train this network on the rows themselves: {', '.join(BODIES)}, timm:NAME, ... \\[default: heads "
            "on frozen features]",
            rich_help_panel=FOLDS,
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts of the rows.", min=2, rich_help_panel=FOLDS)] = 5,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the rows. \\[default: by kind]", min=1, rich_help_panel=FOLDS)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Rows a step. \\[default: by kind]", rich_help_panel=FOLDS)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. \\[default: by kind]", rich_help_panel=FOLDS)] = None,
    seed: Annotated[int, typer.Option(help="Of folds and networks.", min=0, rich_help_panel=FOLDS)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the files. \\[default: audits/NAME]", rich_help_panel=RUNNING)
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Folds at a time. \\[default: as many as cores]", min=1, rich_help_panel=RUNNING),
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.", rich_help_panel=RUNNING)] = "fp32",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete an earlier audit in the folder first.", rich_help_panel=RUNNING)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was found as JSON.", rich_help_panel=RUNNING)
    ] = False,
) -> None:
    """Say which labels are probably wrong, how sure that is, and what they should be.

    Every row is judged by models that never saw its label. The same command again goes on where it was stopped, and
    shows a finished audit anew. With --labels and --probs: the same from probabilities that you have.
    """
    from unswayed.experiment.audit import audit_files

    console = Console(stderr=True, quiet=as_json)
    if labels is not None:
        for name, value in (("DATA", data), ("--method", method), ("--net", net), ("--annotator", annotator)):
            if value:
                raise UnswayedError("either DATA or --labels FILE", got=f"--labels and {name}", do="leave one out")
        folder = out or Path("audits") / labels.stem
        if features is not None and len(features) > 1:
            raise UnswayedError("one file of --features", got=len(features))
        try:
            found = audit_files(
                labels,
                folder,
                probs=probs,
                features=Path(features[0]) if features else None,
                annotators=annotators,
                truth=Path(truth) if truth else None,
                column=label,
                classes=None if classes is None else [name.strip() for name in classes.split(",")],
                fresh=fresh,
            )
        except KeyboardInterrupt:
            console.print("[yellow]Stopped.[/] Nothing was written; the same command begins anew.")
            raise typer.Exit(130) from None
    else:
        if data is None:
            raise UnswayedError("data to audit", got="none", do="unswayed audit DATA, or --labels FILE --probs FILE")
        for name, path in (("--probs", probs), ("--annotators", annotators), ("--classes", classes)):
            if path is not None:
                raise UnswayedError(f"--labels FILE with {name}", got="DATA", do=f"leave out {name}")
        reader = reader_of(
            input_, kind, strict, missing,
            label=label, truth=truth, split=split, size=size, root=root, extra=annotator or None, test=False,
        )  # fmt: skip
        config = _config(
            data, method, net, reader=reader, encoder=encoder, features=features or (), limit=limit, noise=noise,
            rate=rate or 0.0, noise_settings=noise_settings(noise, rate, []), epochs=epochs, batch=batch, lr=lr,
            seed=seed, device=device, precision=precision,
        )  # fmt: skip
        folder = out or Path("audits") / folder_name(data, label, noise, rate)
        found = _audit_data(console, config, folder, folds=folds, jobs=jobs, fresh=fresh)
    if as_json:
        typer.echo(json.dumps(_as_json(found, folder), indent=1))
    else:
        _print(found, folder)


def _config(data: str, method: str | None, net: str | None, **fields: Any) -> Config:
    """The configuration of the folds: heads on features that no label took part in, or a whole network."""
    from unswayed.experiment.arms import parse_arm
    from unswayed.experiment.audit import ARM
    from unswayed.experiment.config import Config

    arm = method or (ARM if net is None else ARM.split()[0])
    named = parse_arm(arm).body
    if net is not None and named is not None:
        raise UnswayedError("one network", got=f"{named} and --net {net}", do="leave one out")
    if net is not None:
        arm = f"{arm} {net}"
    elif named is None:
        arm = f"{arm} identity"
    return Config(data, arm, **fields)


def _audit_data(console: Console, config: Config, folder: Path, **how: Any) -> Audit:
    from unswayed.cli.progress import reading
    from unswayed.experiment.audit import audit_data

    try:
        with reading(console) as progress:
            return audit_data(config, folder, progress=progress, **how)
    except KeyboardInterrupt:
        console.print("[yellow]Stopped.[/] Finished folds are saved; the same command goes on from there.")
        raise typer.Exit(130) from None


def _print(found: Audit, folder: Path) -> None:
    from unswayed.auditing.budget import error_budget

    console = Console(highlight=False)
    for note in found.about.get("notes", ()):
        console.print(f"  note: {note}", style="yellow", markup=False)
    rate = found.noise.rate
    kinds = _count_kinds(found)
    console.print(
        f"[bold]{len(found):,} labels, {rate.value:.1%} wrong[/] (with 95 %: {rate.low:.1%} to {rate.high:.1%}); "
        f"{len(found.issues()):,} more probably wrong than right{kinds}\n"
    )
    if pairs := confused_pairs(found)[:PAIRS]:
        table = Table("true", "given as", "labels", "of the class", box=None, pad_edge=False, title_justify="left")
        table.title = "Most confused classes, by estimate"
        for pair in pairs:
            share = f"{pair['share']:.1%} ({pair['low']:.1%}-{pair['high']:.1%})"
            table.add_row(escape(pair["true"]), escape(pair["given"]), f"{pair['labels']:,.0f}", share)
        console.print(table, "")
    table = Table("row", "given", "suggested", "sure", "suspicion", "kind", box=None, pad_edge=False)
    table.title, table.title_justify = "Most suspicious labels", "left"
    for line in [found.line(at) for at in found.order()[:SHOWN].tolist()]:
        numbers = f"{line['probability']:.2f}", f"{line['suspicion']:.3f}"
        table.add_row(str(line["row"]), escape(line["given"]), escape(line["suggested"]), *numbers, line["kind"])
    console.print(table, "")
    console.print(f"[bold]Error budget[/]  {error_budget(found).sentence()}")
    console.print(f"[bold]Verdict[/]  {escape(found.verdict)}")
    if truth := found.about.get("truth"):
        console.print(
            f"[bold]Against the true labels[/] (which took no part)  AUROC {truth['auroc']:.4f}, average precision "
            f"{truth['average_precision']:.4f}; truly wrong: {truth['noise_rate']:.1%}"
        )
    console.print(f"\nAll labels with suspicion and suggestion: [bold]{escape(str(folder / 'audit.csv'))}[/]")
    console.print(f"Settle them one by one: [bold]unswayed review {escape(str(folder))}[/]", soft_wrap=True)


def _count_kinds(found: Audit) -> str:
    counts = {name: count for name, count in found.summary()["kinds"].items() if name not in ("fine", "wrong")}
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"; {said}" if said else ""


def confused_pairs(found: Audit) -> list[dict[str, Any]]:
    """Pairs of a true and a given class by how many labels are probably wrong that way, most first.

    `labels` is the sum of suspicions of the rows that bear the one label and are thought to be of the other class.
    """
    import torch

    size, wrong = len(found.classes), found.given >= 0
    wrong &= found.suggested != found.given
    code = found.suggested[wrong] * size + found.given[wrong]
    counts = torch.bincount(code, found.suspicion[wrong].double(), minlength=size**2)
    order = [at for at in counts.argsort(descending=True, stable=True).tolist() if counts[at] > 0]
    noise = found.noise
    return [
        {
            "true": found.classes[at // size],
            "given": found.classes[at % size],
            "labels": round(float(counts[at]), 1),
            **{
                name: float(matrix[at // size, at % size])
                for name, matrix in (("share", noise.matrix), ("low", noise.low), ("high", noise.high))
            },
        }
        for at in order
    ]


def _as_json(found: Audit, folder: Path) -> dict[str, Any]:
    from unswayed.auditing.budget import error_budget

    budget = error_budget(found)
    counts = {share: budget.needed(share) for share in (0.5, 0.8, 0.9, 0.95)}
    return {
        "folder": str(folder),
        **found.summary(),
        "confused": confused_pairs(found)[:SHOWN],
        "suspicious": [found.line(at) for at in found.order()[:SHOWN].tolist()],
        "budget": [{"share": share, "review": n, "finds": budget.at(n)._asdict()} for share, n in counts.items()],
        "said": budget.sentence(),
    }
