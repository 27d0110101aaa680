"""Long grids of short runs: what the commands that make them share."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser, *, seeds: int, out: Path) -> None:
    """The options of a grid that goes on where it stands."""
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes; on a GPU they share it")
    parser.add_argument("--share", default="0/1", help="I/N: every N-th cell from the I-th (what --jobs uses)")
    parser.add_argument("--tiny", action="store_true", help="an epoch or two on some hundred rows: does it run?")
    parser.add_argument("--out", type=Path, default=out)


def split(module: str, options: argparse.Namespace) -> None:
    """With several jobs: run the same command in as many processes, each with its share of the cells, and leave."""
    if options.jobs > 1:
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        shares = [f"{part}/{options.jobs}" for part in range(options.jobs)]
        parts = [subprocess.Popen([*command, "--jobs", "1", "--share", share]) for share in shares]
        sys.exit(max(part.wait() for part in parts))
    torch.set_num_threads(1)


def share_of(cells: Iterable[T], options: argparse.Namespace) -> list[T]:
    """This process's cells."""
    part, parts = map(int, options.share.split("/"))
    return list(cells)[part::parts]
