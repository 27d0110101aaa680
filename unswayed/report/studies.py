"""A study is a tree of folders, and a run is a folder with `result.json`: found, read, and grouped into sections."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from unswayed.errors import UnswayedError
from unswayed.report.results import Arm, Run, Section, Study, read_run

# What of a configuration, beside the data's name and the noise, decides which rows are learned and tested.
TASK = ("encoder", "features", "limit", "imbalance", "trusted", "hold_out", "noise_settings", "reader")


def load(folder: Path | str) -> Study:
    """Read every run below `folder` (itself included) and group the runs into sections and arms.

    A folder with files but no `result.json`, in it or below it, is an unfinished run. Raises UnswayedError where the
    folder is missing, holds no finished run, or holds a damaged file, which is named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UnswayedError(f"{folder}: expected a folder of runs", do="give the folder that the runs were written to")
    finished, unfinished = _walk(folder, top=True)
    if not finished:
        raise UnswayedError(
            f"{folder}: expected at least one finished run, that is a folder with result.json",
            got=f"{len(unfinished)} unfinished" if unfinished else "none",
            do="let a run finish (--resume continues one), or give another folder",
        )
    sections: dict[tuple[object, ...], list[Run]] = {}
    for run in map(read_run, finished):
        noise = run.data.noise
        rate = "unknown" if noise is None or noise.rate != noise.rate else noise.rate
        task = json.dumps(_task(run), sort_keys=True)
        key = (run.data.name, run.data.kind, noise and noise.name, rate, run.data.classes, task)
        sections.setdefault(key, []).append(run)
    return Study(folder, _marked([_section(runs) for runs in sections.values()]), tuple(unfinished))


def _task(run: Run) -> dict[str, Any]:
    """The settings that decide which rows are learned and tested, those of the reader among them."""
    task = {name: run.config[name] for name in TASK if run.config.get(name) is not None}
    inner = [task.pop(name) for name in ("noise_settings", "reader") if isinstance(task.get(name), dict)]
    return {**task, **{name: value for settings in inner for name, value in settings.items()}}


def _marked(sections: list[Section]) -> tuple[Section, ...]:
    """The sections, those of one title marked by the settings in which their tasks differ."""
    marked = []
    for section in sections:
        tasks = [_task(other.runs[0]) for other in sections if other.title == section.title]
        own = _task(section.runs[0])
        differing = [name for name in own if any(task.get(name) != own[name] for task in tasks)]
        marked.append(replace(section, mark=", ".join(f"{name} {own[name]}" for name in differing)))
    return tuple(marked)


def _walk(folder: Path, top: bool = False) -> tuple[list[Path], list[Path]]:
    """Folders of finished and of unfinished runs, in the order of their names."""
    if (folder / "result.json").is_file():
        return [folder], []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: _natural(entry.name))
    except OSError as error:
        raise UnswayedError(f"{folder}: expected a readable folder", got=error.strerror) from error
    finished: list[Path] = []
    unfinished: list[Path] = []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            below, open_below = _walk(Path(entry.path))
            finished += below
            unfinished += open_below
    holds_files = any(entry.is_file() and not entry.name.startswith(".") for entry in entries)
    if holds_files and not finished and not (top and unfinished):
        return [], [folder]
    return finished, unfinished


def _natural(name: str) -> list[str]:
    """A sort key in which seed-10 follows seed-9."""
    return [part.zfill(20) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _section(runs: list[Run]) -> Section:
    arms: dict[str, dict[int, Run]] = {}
    notes: list[str] = []
    for run in runs:
        seeds = arms.setdefault(run.name, {})
        other = seeds.get(run.seed)
        if other is not None:
            notes.append(f"{run.name}, seed {run.seed}: found twice; the run that started last is shown.")
            run = max(other, run, key=lambda each: each.started)
        seeds[run.seed] = run
    marked = [name for name, seeds in arms.items() if any(run.control for run in seeds.values())]
    if len(marked) > 1:
        notes.append(f"Several arms are marked as the control ({', '.join(marked)}); {marked[0]} is used.")
    ordered = sorted(arms, key=lambda name: name not in marked[:1])
    grouped = tuple(
        Arm(name, name in marked[:1], tuple(arms[name][seed] for seed in sorted(arms[name]))) for name in ordered
    )
    against = {run.test.against for arm in grouped for run in arm.runs if run.test}
    if len(against) > 1:
        notes.append("Some runs are scored against true test labels and some against given ones: do not compare them.")
    return Section(grouped[0].runs[0].data, grouped, tuple(notes))
