"""Options that commands share, and the arguments of the reader that they become."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unswayed.errors import UnswayedError

INPUT, RUNNING = "Data", "Running"  # panels of the help
KINDS = ("image", "audio", "text", "table")

Columns = Annotated[
    list[str] | None,
    typer.Option("--input", help="Column of the input; may be repeated for a table.", rich_help_panel=INPUT),
]
Kind = Annotated[
    str | None,
    typer.Option(help="image, audio, text or table. \\[default: what the data look like]", rich_help_panel=INPUT),
]
Label = Annotated[str | None, typer.Option(help="Column of the given labels.", rich_help_panel=INPUT)]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", rich_help_panel=INPUT)]
Missing = Annotated[str, typer.Option(help="Missing numbers of a table: error or mean.", rich_help_panel=INPUT)]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a damaged image or sound.", rich_help_panel=INPUT)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=RUNNING)]


def reader_of(columns: list[str] | None, kind: str | None, strict: bool, missing: str, **others: Any) -> dict[str, Any]:
    """What `data.read` is asked for: only what was given; an unknown kind raises."""
    if kind not in (None, *KINDS):
        raise UnswayedError("--kind is image, audio, text or table", got=repr(kind))
    given = {
        "input": columns[0] if columns and len(columns) == 1 else columns or None,
        "kind": kind,
        **others,
        "strict": strict or None,
        "missing": None if missing == "error" else missing,
    }
    return {name: value for name, value in given.items() if value is not None}
