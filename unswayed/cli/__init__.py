"""The command line: thin, no logic of its own. `unswayed --help` and `list` and `doctor` never import torch."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from unswayed.errors import UnswayedError
from unswayed.version import __version__

app = typer.Typer(
    name="unswayed",
    help="Train on labels you cannot trust: robust classifiers, and a list of the labels to check.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
errors = Console(stderr=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unswayed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line: errors that users can mend end with one message and exit code 2."""
    try:
        app()
    except UnswayedError as error:
        errors.print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        raise
    except OSError as error:  # of the system, and about a file: no fault of the program
        where = f", {error.filename}" if error.filename else ""
        message = UnswayedError(f"files that can be read and written{where}", got=error.strerror or error)
        errors.print(f"[bold red]Error:[/] {_plain(str(message))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


# They register their commands.
from unswayed.cli import (  # noqa: E402, F401
    audit,
    bench,
    doctor,
    export,
    learn_noise,
    listing,
    next,
    plan,
    repair,
    report,
    review,
    show,
    train,
)
