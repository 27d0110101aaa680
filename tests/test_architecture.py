"""The house's one law: imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unswayed

ROOT = Path(unswayed.__file__).parent

# A room imports only from rooms further down.
ROOMS = [
    "__main__",
    "cli",
    "estimator",
    "bench",
    "review",
    "report",
    "checks",
    "experiment",
    "watchers",
    "mending",
    "engine",
    "speed",
    "methods",
    "batches",
    "settings",
    "method",
    "prediction",
    "machine",
    "auditing",
    "heads",
    "nets",
    "losses",
    "stats",
    "noise",
    "data",
    "checkpoint",
    "sharding",
    "writing",
    "registry",
    "errors",
    "version",
]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = node.module == "unswayed"
            found |= {f"unswayed.{name.name}" for name in node.names} if inner else {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("unswayed.")}


FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.name != "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{room} has no place in the order of rooms"
    for name in imports_of(file):
        other = room_of(name)
        assert ROOMS.index(other) >= ROOMS.index(room), f"{room} must not import {name}"


@pytest.mark.parametrize("command", [["--help"], ["list"], ["list", "losses", "anl-*"], ["doctor"]])
def test_light_commands_do_not_import_torch(command: list[str]) -> None:
    script = (
        "import sys; from unswayed.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "assert 'torch' not in sys.modules, 'torch was imported'; print('light')"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("light")


def test_plain_import_is_light() -> None:
    script = "import sys, unswayed; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("name", unswayed.__all__)
def test_everything_public_is_there(name: str) -> None:
    assert getattr(unswayed, name) is not None
