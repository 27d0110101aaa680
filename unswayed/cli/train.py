"""`unswayed train`: noisy data in, robust models, a list of suspicious labels and a report out."""

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
from unswayed.cli.report import write_report
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from unswayed.data import Dataset
    from unswayed.experiment.config import Config
    from unswayed.experiment.pool import Cell

# The arms of --compare: plain and tuned cross-entropy, the robust loss, and that loss with masked heads of both kinds,
# each beside the same head without a mask and with a random mask of the same ratio and interval.
COMPARISON = [
    "plain",
    "tuned",
    "sce",
    "sce edge-masked",
    "sce edge-masked(score=random)",
    "sce kan",
    "sce edge-masked-kan",
    "sce edge-masked-kan(score=random)",
]
DEFAULT_ARM = "sce"


def _arm_words() -> list[str]:
    from unswayed import heads, losses, methods, nets

    return ["auto", *methods.names(), *losses.names(), *heads.heads.names(), *nets.bodies.names()]


def known_noises() -> list[str]:
    """Names of noise models, for completion."""
    from unswayed import noise

    return noise.noises.names()


def known_sources() -> list[str]:
    """Names of data sets, for completion."""
    from unswayed import data

    return data.sources.names()


Data = Annotated[
    str,
    typer.Argument(
        help="A file (Parquet, CSV, TSV, JSON lines, .npz), a folder (images, sounds, a saved Hugging Face data set), "
        "or a name (digits, wine, breast-cancer; `unswayed list data`).",
        autocompletion=known_sources,
    ),
]
LABELS, TRAINING = "Labels", "Training"


@app.command()
def train(
    data: Data,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm",
            "--method",
            "-a",
            help="What to train: a method, a loss, a head and a body, for instance 'gce edge-masked(keep=.1)'; auto "
            f"chooses by the estimated noise. May be repeated. [default: {DEFAULT_ARM}]",
            autocompletion=_arm_words,
        ),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help=f"Train the arms {'; '.join(COMPARISON)}.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each arm, with seeds 0, 1, ...; paired over arms.", min=1)] = 1,
    input_: Columns = None,
    kind: Kind = None,
    label: Label = None,
    truth: Annotated[
        str | None, typer.Option(help="Column of the true labels: for scoring only.", rich_help_panel=INPUT)
    ] = None,
    test: Annotated[str | None, typer.Option(help="File or folder of test rows.", rich_help_panel=INPUT)] = None,
    split: Annotated[
        str | None, typer.Option(help="Column that tells training from test rows.", rich_help_panel=INPUT)
    ] = None,
    size: Size = None,
    missing: Missing = "error",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Train on frozen features: patches (pictures and sounds, nothing to download), or a sentence encoder "
            "by name or folder.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="File of ready-made features [N, d] to train on in place of the rows of DATA (.npy, .npz, "
            ".safetensors, or a table of numbers); once more for the test rows.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    strict: Strict = False,
    limit: Annotated[int | None, typer.Option(help="Train on at most so many rows.", rich_help_panel=INPUT)] = None,
    hold_out: Annotated[
        float, typer.Option(help="Share of rows for testing where there is no test part.", rich_help_panel=INPUT)
    ] = 0.2,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Spoil the labels by this model (a study).", autocompletion=known_noises, rich_help_panel=LABELS
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Share of labels to spoil, 0 to 1; goes with --noise.", rich_help_panel=LABELS)
    ] = None,
    noise_set: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting of the noise, for instance matrix=FILE (CSV, JSON or .npy), to=[1,0,2] or spread=.2. "
            "May be repeated.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    trusted: Annotated[
        int | None,
        typer.Option(
            help="Rows, drawn evenly over the classes, whose true labels are given to all arms, and named to those "
            "that ask for trusted rows (bilevel).",
            min=1,
            rich_help_panel=LABELS,
        ),
    ] = None,
    imbalance: Annotated[
        float | None,
        typer.Option(help="Thin the classes: smallest as a share of the largest.", rich_help_panel=LABELS),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the rows. \\[default: by kind of data]", rich_help_panel=TRAINING)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Rows a step. \\[default: by kind of data]", rich_help_panel=TRAINING)
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate. \\[default: by kind of data]", rich_help_panel=TRAINING)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay. \\[default: by kind of data]", rich_help_panel=TRAINING)
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd or adamw. \\[default: by kind of data]", rich_help_panel=TRAINING)
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest gradient norm. \\[default: 5]", rich_help_panel=TRAINING)
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Mirror images in training. \\[default: colour only]", rich_help_panel=TRAINING
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the files. \\[default: runs/NAME]", rich_help_panel=RUNNING)
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Runs at a time, each in its own process.", min=1, rich_help_panel=RUNNING)
    ] = 1,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.", rich_help_panel=RUNNING)] = "fp32",
    compile_: Annotated[
        str | None,
        typer.Option(
            "--compile",
            help="Compile the networks by torch.compile: default, reduce-overhead (CUDA graphs) or max-autotune.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    shuffle: Annotated[
        str | None,
        typer.Option(
            help="Rows from disk in any order (rows), or in blocks of neighbours that are shuffled (blocks): for data "
            "larger than memory on a disk that is slow to seek. \\[default: rows]",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Under torchrun: spread the network over the processes (FSDP), for one that fills a GPU.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with runs that were stopped.", rich_help_panel=RUNNING)
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete earlier runs of these arms first.", rich_help_panel=RUNNING)
    ] = False,
    save_seconds: Annotated[
        float, typer.Option(help="Seconds between two checkpoints.", min=0, rich_help_panel=RUNNING)
    ] = 30.0,
    analyse: Annotated[
        bool,
        typer.Option(
            "--analyse",
            help="Measure gradients, confidence, memorisation and masks after every epoch, for the report's figures.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard files too.", rich_help_panel=RUNNING)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the data and say what would run.", rich_help_panel=RUNNING)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON.", rich_help_panel=RUNNING)
    ] = False,
) -> None:
    """Train on data whose labels may be wrong, and report what they are worth.

    Without further words: the default arm for the data, one seed, files under runs/. With --compare: the controls
    beside it. With --noise and --rate: a study with labels spoilt on purpose.
    """
    from unswayed.experiment.config import Config
    from unswayed.experiment.pool import claim, make_cells

    arms = list(dict.fromkeys((COMPARISON if compare else []) + (arm or []))) or [DEFAULT_ARM]
    named = {"label": label, "truth": truth, "test": test, "split": split, "size": size}
    reader = reader_of(input_, kind, strict, missing, **named)
    common: dict[str, Any] = {
        "data": data, "reader": reader, "encoder": encoder, "features": features or (), "noise": noise,
        "rate": rate or 0.0,
        "noise_settings": noise_settings(noise, rate, noise_set or []), "imbalance": imbalance, "trusted": trusted,
        "limit": limit, "hold_out": hold_out, "epochs": epochs, "batch": batch, "lr": lr, "weight_decay": weight_decay,
        "optimizer": optimizer, "clip": clip, "flip": flip, "device": device, "precision": precision,
        "analyse": analyse, "compile": compile_, "shuffle": shuffle, "shard": shard,
    }  # fmt: skip
    configs = [Config(arm=text, seed=seed, **common) for seed in range(seeds) for text in arms]
    _check(configs[: len(arms)])
    folder = out or Path("runs") / folder_name(data, label, noise, rate)
    cells = make_cells(configs, folder)
    todo = cells if dry_run else claim(cells, resume=resume, fresh=fresh)
    how = {"jobs": jobs, "resume": resume, "fresh": fresh, "save_seconds": save_seconds, "tensorboard": tensorboard}
    _go(cells, todo, folder, how, dry_run=dry_run, as_json=as_json)


def noise_settings(noise: str | None, rate: float | None, given: list[str]) -> dict[str, Any]:
    """The settings of the noise; values that name a file are read from it."""
    from unswayed.experiment.arms import read_value

    if noise is not None and rate is None:
        do = "for example --rate 0.4" + ("; --rate 1 takes the matrix as it is" if noise == "matrix" else "")
        raise UnswayedError(f"a --rate for --noise {noise}", got="none", do=do)
    if given and noise is None:
        raise UnswayedError("--noise with --noise-set", got="none", do="for example --noise matrix")
    settings = {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals:
            raise UnswayedError("--noise-set NAME=VALUE", got=repr(text), do="for example --noise-set matrix=FILE.csv")
        is_file = Path(value).suffix.casefold() in (".csv", ".txt", ".json", ".npy")
        settings[name] = _read_numbers(Path(value)) if is_file else read_value(value)
    return settings


def _read_numbers(path: Path) -> Any:
    import numpy as np

    try:
        if path.suffix.casefold() == ".npy":
            return np.load(path, allow_pickle=False).tolist()
        if path.suffix.casefold() == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        lines = path.read_text(encoding="utf-8").replace(",", " ").split("\n")
        return [[float(word) for word in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        do = "a matrix has a line a class, of numbers apart by commas or spaces"
        raise UnswayedError(f"a file of numbers, {path}", got=error, do=do) from error


def _check(configs: list[Config]) -> None:
    """Raise for what is wrong whatever the data are, before any are read: a typing error should not cost minutes."""
    from unswayed import noise
    from unswayed.experiment.arms import parse_arm
    from unswayed.experiment.run import draft
    from unswayed.registry import check_settings, check_values, keyword_settings

    for config in configs:
        draft(parse_arm(config.arm))
        config.training("table")  # any kind: the settings given are the same
    name, settings = configs[0].noise, configs[0].noise_settings
    if name is not None:
        known = keyword_settings(noise.noises.get(name))
        check_settings(settings, known, f"the noise {name}")
        check_values(settings, known, f"the noise {name}")


def folder_name(data: str, label: str | None, noise: str | None, rate: float | None) -> str:
    """A folder's name for what is made of the data."""
    from unswayed.experiment.pool import slug

    path = Path(data.partition(":")[0] if data.partition(":")[0] in known_sources() else data).absolute()
    if path.name in ("..", ""):
        path = path.resolve()
    name = path.parent.name if path.stem in ("train", "data") and path.parent.name else path.stem
    return slug("-".join([name, *([label] if label else []), *([f"{noise}-{rate:g}"] if noise else [])]))


def _go(
    cells: list[Cell], todo: list[Cell], folder: Path, how: dict[str, Any], *, dry_run: bool, as_json: bool
) -> None:
    from unswayed.cli.progress import Board, reading
    from unswayed.experiment.pool import run_cells
    from unswayed.experiment.task import read_data
    from unswayed.machine import find_place

    console = Console(stderr=True, quiet=as_json)
    config = cells[0].config
    place = find_place(config.device, config.precision, compile=config.compile)
    first = place.first
    if place.world > 1 and how["jobs"] > 1:
        raise UnswayedError("--jobs 1 where torchrun starts the processes", got=how["jobs"], do="leave out --jobs")
    dataset: Dataset | None = None
    if todo:
        with reading(console) as progress:
            dataset = read_data(config, progress)
        if first:
            _describe(console, dataset)
    if dry_run and dataset is not None:
        if first:
            _print_cells(cells, dataset, as_json=as_json)
        return
    if len(todo) < len(cells) and first:
        console.print(f"{len(cells) - len(todo)} of {len(cells)} runs are finished already")
    if todo and dataset is not None:
        try:
            with Board(console, todo, dataset.kind, enabled=first and not as_json) as board:
                run_cells(todo, dataset, listen=board, **how)
        except KeyboardInterrupt:
            console.print("[yellow]Stopped.[/] All is saved; the same command with --resume goes on from there.")
            raise typer.Exit(130) from None
    if first:
        for said in _advice(cells):
            console.print(said, highlight=False, markup=False)
        write_report(folder, folder / "report.html", as_json=as_json)
        console.print(
            f"Runs, checkpoints and lists of suspicious rows: [bold]{escape(str(folder))}[/]", highlight=False
        )


def _advice(cells: list[Cell]) -> list[str]:
    """What the arm auto became, and why, once for every sentence."""
    said = []
    for cell in cells:
        advice = json.loads((cell.folder / "result.json").read_text(encoding="utf-8")).get("advice")
        if advice is not None:
            said.append(f"{cell.config.arm} chose {advice['arm']}. {advice['why']}")
    return list(dict.fromkeys(said))


def _describe(console: Console, dataset: Dataset) -> None:
    test = f"{len(dataset.test):,} to test" if dataset.test is not None else "no test part: rows are held out"
    console.print(
        f"[bold]{dataset.name}[/]: {len(dataset.train):,} {dataset.kind} rows to train, {test}, "
        f"{len(dataset.classes)} classes",
        highlight=False,
    )
    for note in dataset.notes:
        console.print(f"  note: {note}", style="yellow", highlight=False, markup=False)


def _print_cells(cells: list[Cell], dataset: Dataset, *, as_json: bool) -> None:
    from unswayed import methods
    from unswayed.experiment.arms import parse_arm

    rows: list[dict[str, Any]] = []
    for cell in cells:
        settings = cell.config.training(dataset.kind)
        epochs = settings.epochs * methods.get(parse_arm(cell.config.arm).method).budget
        started = (cell.folder / "checkpoint.safetensors").exists()
        state = "finished" if cell.finished else "stopped: needs --resume" if started else "to do"
        rows.append({"arm": cell.config.arm, "seed": cell.config.seed, "epochs": epochs, "state": state})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("arm", "seed", "epochs", "state", box=None, pad_edge=False)
    for row in rows:
        table.add_row(escape(row["arm"]), str(row["seed"]), f"{row['epochs']:g}", row["state"])
    Console().print(table)
