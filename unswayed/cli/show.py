"""`unswayed show`: what a method does, where it comes from, how ours differs, what it reached and costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unswayed.cli import app

if TYPE_CHECKING:
    from unswayed.methods.record import Record


def _names() -> list[str]:
    from unswayed.methods.record import recorded

    return recorded()


@app.command()
def show(
    method: Annotated[
        str, typer.Argument(help="A method, see `unswayed list methods`; or repair.", autocompletion=_names)
    ],
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the docs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the record of a method: source, formulas and code, differences, figures, cost, when to use it or not."""
    from unswayed.methods import record as room

    found = room.record(method)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    elif as_markdown:
        typer.echo(room.as_markdown(found), nl=False)
    else:
        _print(found)


def _print(found: Record) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{found.name}[/]", escape(found.does), "", sep="\n")
    for source in found.sources:
        arxiv = source.arxiv and f"arXiv {source.arxiv}"
        read = source.read and f"read: {source.read}"
        words = (source.authors, source.title, source.venue, arxiv, source.code, read)
        console.print(f"[bold]Source[/]  {escape('. '.join(word for word in words if word))}")
    console.print()
    for f in found.formulas:
        console.print(f"[bold]Formula[/]  {escape(f.what)}: {escape(f.formula)}")
        stands = f"{f.where}; {f.code}" if f.where else f.code
        console.print(f"  [cyan]stands in[/]  {escape(stands)}", soft_wrap=True)  # a name to copy stays in one piece
    console.print()
    for d in found.differences:
        console.print(f"[bold]Differs[/]  {escape(d.point)}")
        ours = f"{d.ours} ({d.option})" if d.option else d.ours
        for who, what in (("paper", d.paper), ("authors' code", d.code), ("ours", ours), ("why", d.why)):
            if what:
                console.print(f"  [cyan]{who}[/]  {escape(what)}")
    if found.differences:
        console.print()
    _table(console, "Published, %", [(f.data, f.value, f.setting, f.where) for f in found.published])
    measured = [
        (m.data, m.arm, m.value, f"{m.over_plain} over plain", f"{m.seeds} seeds", m.file) for m in found.measured
    ]
    _table(console, "Measured here, %", measured)
    for sentence in filter(None, (found.gains, found.shortfall)):
        console.print(sentence, "\n", markup=False, highlight=False)
    console.print(f"[bold]Cost[/]  {escape(found.cost)}", "")
    for line in found.use:
        console.print(f"[bold]Use[/]  {escape(line)}")
    for line in found.avoid:
        console.print(f"[bold]Not[/]  {escape(line)}")
    for line in found.notes:
        console.print(f"[bold]Note[/]  {escape(line)}")


def _table(console: Console, title: str, rows: Sequence[tuple[str, ...]]) -> None:
    if rows:
        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
        )
        for at in range(len(rows[0])):
            table.add_column(style="cyan" if at == 0 else None, overflow="fold")
        for row in rows:
            table.add_row(*(escape(" ".join(cell.split())) for cell in row))
        console.print(table, "")
