"""`unswayed export`: the data with the labels that a review settled, and the trail of every change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from unswayed.cli import app


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of an audit.")],
    out: Annotated[Path, typer.Option(help="The file or folder to write; never one that is there.")],
    accept_above: Annotated[
        float | None,
        typer.Option(help="Take suggestions unseen where the suspicion is higher.", min=0, max=1, show_default=False),
    ] = None,
    none_fits: Annotated[str, typer.Option(help="Rows that no label fits: drop or keep.")] = "drop",
    conflicts: Annotated[str, typer.Option(help="Where reviewers disagree: the given label, or the latest.")] = "given",
    files: Annotated[str, typer.Option(help="Pictures and sounds in folders: copy or link (hard links).")] = "copy",
    data: Annotated[
        str | None, typer.Option(help="Where the data lie now. \\[default: where they were audited]")
    ] = None,
    decisions: Annotated[Path | None, typer.Option(help="File of decisions. \\[default: RUN/review.sqlite]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the corrected data in the form in which they came, and beside them a list of every change.

    Rows that nobody reviewed keep their given label, unless --accept-above says otherwise. The input is never touched.
    """
    from unswayed.review import export as write
    from unswayed.review import open_case

    case = open_case(run, data=data, decisions=decisions, create=accept_above is not None)
    try:
        made = write(case, out, accept_above=accept_above, none_fits=none_fits, conflicts=conflicts, files=files)
    finally:
        case.close()
    if as_json:
        told = {"path": str(made.path), "trail": str(made.trail), "rows": made.rows, "changed": made.changed}
        typer.echo(json.dumps({**told, "dropped": made.dropped, "conflicts": made.conflicts}, indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    words = f"{made.changed} of {made.rows} labels changed, {made.dropped} rows dropped"
    console.print(words + (f", {made.conflicts} conflicts between reviewers" if made.conflicts else "") + ".")
    console.print(f"Data: [bold]{escape(str(made.path))}[/]")
    console.print(f"Changes: {escape(str(made.trail))}")
