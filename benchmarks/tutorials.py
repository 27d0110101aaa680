"""Run what the tutorials show, on real data, and keep what it printed: python -m benchmarks.tutorials --root DATA

Every command and every block of Python in docs/tutorials/PAGE.md runs in order in one fresh folder, in which `data` is
the folder of data sets. Printed lines, versions and machine go to results/tutorials/PAGE.json; `--fill` writes the
lines into the page as well, whole. A page may then shorten them at "..." lines, and a test holds it to the file.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unswayed.machine import describe, versions
from unswayed.writing import write_json

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "tutorials"
RESULTS = ROOT / "results" / "tutorials"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
STAYS = "unswayed review"  # a page for people: it runs until it is stopped


@dataclass(frozen=True)
class Block:
    """What a page shows to be run: a command or a program, and what it printed."""

    kind: str  # console, python, or the yaml of a suite
    run: str
    printed: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page in order; what Python printed stands in a fence of text behind it."""
    found = [(kind, body.rstrip("\n").split("\n")) for kind, body in FENCE.findall(text)]
    for (kind, lines), (after, printed) in zip(found, [*found[1:], ("", [])], strict=True):
        if kind == "console":
            yield Block(kind, lines[0].removeprefix("$ "), tuple(lines[1:]))
        elif kind in ("python", "yaml"):
            yield Block(kind, "\n".join(lines), tuple(printed) if after == "text" else ())


def run(block: Block, folder: Path) -> list[str]:
    """What a block prints when it is run in a folder; a block that fails raises."""
    if block.kind == "yaml":
        (folder / "mine.yaml").write_text(block.run + "\n", encoding="utf-8")
        return []
    if block.run.startswith(STAYS):
        return []
    python = [sys.executable, "-c", block.run] if block.kind == "python" else shlex.split(block.run)
    command = [sys.executable, "-m", *python] if python[0] == "unswayed" else python
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [line.rstrip().replace(f"{folder}/", "") for line in done.stdout.rstrip("\n").split("\n")]


def fill(text: str, outputs: Sequence[list[str]]) -> str:
    """The page with its outputs replaced, those of its blocks in order."""
    left = list(outputs)
    printed: list[str] = []

    def filled(match: re.Match[str]) -> str:
        nonlocal printed
        kind, body = match[1], match[2]
        if kind == "text":
            return f"```text\n{chr(10).join(printed)}\n```"
        if kind not in ("console", "python", "yaml"):
            return match[0]
        printed = left.pop(0)
        return "```console\n" + "\n".join([body.split("\n")[0], *printed]) + "\n```" if kind == "console" else match[0]

    return FENCE.sub(filled, text)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=os.environ.get("UNSWAYED_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--pages", nargs="+", default=["train", "audit", "repair", "prove"])
    parser.add_argument(
        "--folder", type=Path, help="where to run; what is there is kept (default: one that is deleted)"
    )
    parser.add_argument("--fill", action="store_true", help="write the outputs into the pages")
    options = parser.parse_args()
    for name in options.pages:
        page = PAGES / f"{name}.md"
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.folder or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "data").exists():
                (folder / "data").symlink_to(Path(options.root).resolve())
            steps = [(block, run(block, folder)) for block in blocks(text)]
        kept = [{"kind": block.kind, "run": block.run, "printed": printed} for block, printed in steps]
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_json(RESULTS / f"{name}.json", {"versions": versions(), "machine": describe(), "steps": kept})
        if options.fill:
            page.write_text(fill(text, [printed for _, printed in steps]), encoding="utf-8")


if __name__ == "__main__":
    main()
