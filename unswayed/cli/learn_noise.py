"""`unswayed learn-noise`: from rows with true and given labels to a model that draws new human-like labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from unswayed.cli import app
from unswayed.errors import UnswayedError

if TYPE_CHECKING:
    from torch import Tensor

    from unswayed.data import Dataset


@app.command("learn-noise")
def learn_noise(
    data: Annotated[str, typer.Argument(help="Rows with both labels: a file, a folder or a name, as for train.")],
    label: Annotated[
        list[str], typer.Option(help="Column of the given labels; may be repeated, once for each annotator.")
    ],
    truth: Annotated[str, typer.Option(help="Column of the true labels.")],
    out: Annotated[Path, typer.Option(help="File of the model.")] = Path("noise.safetensors"),
    input_: Annotated[
        list[str] | None, typer.Option("--input", help="Column of the input; may be repeated for a table.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="image, audio, text or table. \\[default: what the data look like]")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Frozen encoder, as for train.")] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="File of ready-made features [N, d] of these rows, as for train.")
    ] = None,
    classes_only: Annotated[
        bool, typer.Option("--classes-only", help="Learn from the classes alone, without features.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the parts held out.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was learned as JSON.")] = False,
) -> None:
    """Learn how people mislabel, to spoil labels the same way: train DATA --noise learned --noise-set model=FILE.

    How sure it is of single rows is decided by rows held out: where features do not help, the class alone decides.
    """
    from unswayed.cli.progress import reading
    from unswayed.experiment.config import Config
    from unswayed.experiment.task import read_data
    from unswayed.noise import learn_noise as fit_noise

    if out.suffix != ".safetensors":
        raise UnswayedError("--out FILE.safetensors", got=str(out))
    console = Console(stderr=True, quiet=as_json)
    reader: dict[str, Any] = {"truth": truth, "label": label[0]}
    reader |= {"input": input_[0] if len(input_) == 1 else input_} if input_ else {}
    reader |= {"kind": kind} if kind else {}
    look: dict[str, Any] = {"encoder": encoder} | ({"features": tuple(features)} if features else {})
    with reading(console) as progress:
        dataset = read_data(Config(data, reader=reader, **look), progress)

        def read_again(name: str) -> Dataset:
            return read_data(Config(data=data, reader={**reader, "label": name}), progress)

        given = _annotators(dataset, label, read_again)
    train, known = dataset.train, (given >= 0).any(1)
    if train.truth is None or not bool((known & (train.truth >= 0)).any()):
        raise UnswayedError("rows with a true and a given label", got="none", do="check --label and --truth")
    rows = (known & (train.truth >= 0)).nonzero()[:, 0]
    x = None if classes_only or dataset.kind == "text" else train.x.take(rows)
    model = fit_noise(x, train.truth[rows], given[rows], classes=len(dataset.classes), seed=seed)
    model = replace(model, about={**model.about, "class_names": list(dataset.classes), "data": dataset.name})
    model.save(out)
    told = {"file": str(out), "features": model.likeness is not None, "agreement": model.agreement, **model.about}
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    if dataset.kind == "text" and not classes_only:
        console.print(
            "  note: texts need --encoder or --features to be judged one by one; the class alone decides",
            style="yellow",
        )
    _print(told, data)


def _annotators(dataset: Dataset, names: list[str], read_again: Callable[[str], Dataset]) -> Tensor:
    """Given labels, one column an annotator, on the rows of `dataset`; -1 where one gave none: [N, A]."""
    import torch

    columns = [dataset.train.given]
    place = {row: at for at, row in enumerate(dataset.train.rows.tolist())}
    for name in names[1:]:
        other = read_again(name)
        if other.classes != dataset.classes:
            got = f"{', '.join(other.classes)} in {name}"
            raise UnswayedError(f"the classes {', '.join(dataset.classes)} in every --label", got=got)
        column = torch.full_like(columns[0], -1)
        for row, given in zip(other.train.rows.tolist(), other.train.given.tolist(), strict=True):
            if row in place:
                column[place[row]] = given
        columns.append(column)
    return torch.stack(columns, 1)


def _print(told: dict[str, Any], data: str) -> None:
    console = Console(highlight=False)
    people = f"{told['annotators']} annotators" if told["annotators"] > 1 else "one column of given labels"
    console.print(f"{told['rows']:,} rows, {people}, {told['rate']:.1%} of the labels wrong")
    held = told.get("held_out")
    if held is not None:
        gain, error = held["gain"], held["standard_error"]
        said = "features take part" if told["features"] else "features are left out: they do not help"
        console.print(f"Held out, log-likelihood by features over class-wise: {gain:+.4f} ± {error:.4f}; {said}")
    if told["annotators"] > 1:
        console.print(f"Agreement of annotators beyond that: correlation {told['agreement']:.2f}")
    command = f"unswayed train {data} --noise learned --noise-set model={told['file']} --rate {told['rate']:.3g}"
    console.print(f"To use it: [bold]{escape(command)}[/]", soft_wrap=True)
