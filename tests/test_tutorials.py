"""Tutorials show what was printed, their commands exist, and everything in them runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.tutorials import PAGES, RESULTS, STAYS, Block, blocks, fill
from unswayed.cli import app

ROOT = Path(__file__).parents[1]
NAMES = ("train", "audit", "repair", "prove")
SMALLER = [("--limit 4000", "--limit 300"), ("--limit 5000", "--limit 300"), ("--limit 800", "--limit 200")]
SMALLER += [("--seeds 5", "--seeds 1"), ("--seeds 3", "--seeds 1"), ("--epochs 12", "--epochs 1")]
SMALLER += [("--arms tuned --arms sce --arms 'gce*'", "--arms sce"), ("-a tuned -a sce -a promix", "-a promix")]

SHORTER = {"train": ["--epochs", "2"], "bench": ["--set", "epochs=1"], "repair": ["--no-controls", "--epochs", "1"]}


def shown(name: str) -> list[Block]:
    return list(blocks((PAGES / f"{name}.md").read_text(encoding="utf-8")))


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_what_was_printed(name: str) -> None:
    steps = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["steps"]
    page = shown(name)
    assert [step["run"] for step in steps] == [block.run for block in page]
    for step, block in zip(steps, page, strict=True):
        left = iter(step["printed"])
        for line in block.printed:
            assert line == "..." or line in left, f"{name}.md shows a line that {block.run!r} did not print: {line}"


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_commands_and_their_options_exist(path: Path) -> None:
    root: Any = typer.main.get_command(app)
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for console in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        for line in re.findall(r"^\$ unswayed (.*)$", console, flags=re.MULTILINE):
            name, *words = shlex.split(line, comments=True)
            assert name in root.commands, f"{path.name}: there is no command {name}"
            command = root.commands[name]
            command.make_parser(command.context_class(command)).parse_args(words)  # raises for an unknown option


def test_outputs_are_filled_in() -> None:
    page = "A\n\n```console\n$ do it\nold\n```\n\n```python\nprint(1)\n```\n\n```text\nold\n```\n\n```yaml\na: 1\n```\n"
    done = fill(page, [["new", "lines"], ["1"], []])
    assert [block.printed for block in blocks(done)] == [("new", "lines"), ("1",), ()]
    assert done == page.replace("old", "new\nlines", 1).replace("old", "1")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_python_runs_on_what_is_inside(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in shown(name):
        if block.kind == "yaml":
            Path("mine.yaml").write_text(block.run, encoding="utf-8")
        if block.kind == "python" and "data/" not in block.run:
            exec(compile(block.run, f"{name}.md", "exec"), {})
            assert len(capsys.readouterr().out.splitlines()) == len(block.printed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_run_on_the_real_data(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(real_data)
    for block in shown(name):
        if block.kind == "python" and "data/" in block.run:
            exec(compile(block.run, f"{name}.md", "exec"), {})
        if block.kind != "console" or not block.run.startswith("unswayed") or block.run.startswith(STAYS):
            continue
        line = block.run
        for large, small in SMALLER:
            line = line.replace(large, small)
        words = shlex.split(line)[1:]
        words += SHORTER.get(words[0], []) if "--epochs" not in words else []
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{line}\n{done.output}"
