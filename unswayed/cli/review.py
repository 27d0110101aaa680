"""`unswayed review`: a page on this machine where a person settles which labels are wrong."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from unswayed.cli import app


@app.command()
def review(
    run: Annotated[Path, typer.Argument(help="The folder of an audit.")],
    data: Annotated[
        str | None, typer.Option(help="Where the data lie now. \\[default: where they were audited]")
    ] = None,
    decisions: Annotated[Path | None, typer.Option(help="File of decisions. \\[default: RUN/review.sqlite]")] = None,
    reviewer: Annotated[str | None, typer.Option(help="Your name. \\[default: your name on this machine]")] = None,
    port: Annotated[
        int | None, typer.Option(help="\\[default: the first free one from 8350 on]", min=1, max=65535)
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in your browser.")] = True,
) -> None:
    """Settle suspicious labels in a page on this machine; every decision is saved at once.

    The page can be reached from this machine alone, and only by its address, which holds a secret. Stop with Ctrl+C;
    go on at any time. Then write the corrected data: `unswayed export RUN --out FILE`.
    """
    from unswayed.review import open_case, serve

    console = Console(stderr=True)
    case = open_case(run, data=data, decisions=decisions)

    def ready(address: str) -> None:
        console.print(f"Review: [bold]{escape(address)}[/]", highlight=False, soft_wrap=True)
        console.print(
            f"Decisions: {escape(str(case.decisions.path))}. Stop with Ctrl+C.", highlight=False, soft_wrap=True
        )
        if browser:
            import webbrowser

            webbrowser.open(address)

    try:
        serve(case, port=port, reviewer=reviewer or _user(), ready=ready)
    finally:
        case.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name on this machine
        return "reviewer"
