"""One script for a GPU that can be had for some minutes at a time: it builds, checks, times and trains in that order.

    python -m benchmarks.gpu prepare --from DATA                    # here: what the GPU's machine needs, in .gpu-data
    python -m benchmarks.gpu run --dry-run                          # the cells in order of worth, with an estimate
    python -m benchmarks.gpu run --minutes 9 --jobs 4               # there: as much as fits; again and again
    python -m benchmarks.gpu run --only train --earlier results/gpu --results OUT
    python -m benchmarks.gpu unpack --into runs/bench               # then: unswayed bench sem --report

A run writes at most three files to --results: check.json (the GPU equals the processor within rounding, no step makes
the host wait, compiled networks learn the same), throughput.json (see throughput.py), and cells.jsonl, a line for every
finished cell of `unswayed bench`, renewed after each. Where check.json and throughput.json are complete for this
version of PyTorch and this kind of GPU they are not made again; finished cells of --results and --earlier are never run
again. No cell is begun that cannot end within --minutes by what is known of it; one that takes longer all the same
stops at the end of an epoch, and goes on from its checkpoint where the folder --work is kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_check, throughput
from benchmarks.gpu_plan import PLAN, Kept, Part, Timely, cells_of, expect, there, train
from unswayed import data
from unswayed.bench import Cell, How, Store
from unswayed.machine import describe, find_place, versions
from unswayed.speed import can_compile
from unswayed.writing import write_json

ROOT = Path(__file__).parents[1]
DATA, RESULTS = ROOT / ".gpu-data", ROOT / "results" / "gpu"
SETS = ("cifar10n", "cifar100", "cifar100n")  # of these what is there
MOST_BYTES = 64 * 2**20
PIECES = ("build", "check", "time", "train")
NEEDED = ("numpy", "safetensors", "sklearn", "rich", "typer", "jinja2", "scipy", "PIL", "filelock", "yaml", "pyarrow")
MODES = (None, "default", "reduce-overhead")


# ------------------------------------------------------------------------------------------------ data


def prepare(source: Path, target: Path) -> None:
    """Copy the data sets that the plan asks for; more than 64 MiB are told of."""
    size = 0
    for name in SETS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True, copy_function=shutil.copyfile)
            size += sum(file.stat().st_size for file in (target / name).rglob("*") if file.is_file())
    print(f"{size / 2**20:.1f} MiB in {target}" + (", which is more than 64" if size > MOST_BYTES else ""))


# ------------------------------------------------------------------------------------------------ pieces


class Lease:
    """The time there is, and where results go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.until = options, time.time() + 60 * options.minutes
        self.about = {**describe(), **versions(), "device": options.device}
        self.complete = True

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.time()

    def read(self, name: str) -> dict[str, Any]:
        """A file of results made by this version of PyTorch on this kind of machine; else an empty one."""
        for folder in (self.options.results, self.options.earlier):
            file = folder / name
            if file.exists():
                found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
                if all(found["about"].get(key) == self.about.get(key) for key in ("torch", "gpu", "device")):
                    return found
        return {"about": self.about}

    def write(self, name: str, found: dict[str, Any]) -> None:
        write_json(self.options.results / name, found)


def build(lease: Lease) -> None:
    """What is here, and whether it is enough; made-ready rows for all workers."""
    if lease.options.tiny:
        gpu_check.ROWS, gpu_check.BATCH = 32, 16
    print(json.dumps(lease.about))
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"packages are missing: {', '.join(missing)}")
    find_place(lease.options.device)
    kind = lease.options.device.partition(":")[0]
    print(f"torch.compile {'works' if can_compile(kind) else 'does not work'} for {kind}", flush=True)
    for name in SETS:
        if (lease.options.root / name).is_dir():
            started = time.perf_counter()
            rows = len(data.read(lease.options.root / name, label="label").train)
            print(f"{name}: {rows} rows, {time.perf_counter() - started:.1f} s", flush=True)


def check(lease: Lease) -> None:
    """Equality, waits and compilation, each once."""
    device, found = lease.options.device, lease.read("check.json")
    kind = device.partition(":")[0]
    pieces: dict[str, Any] = {
        "augmented": lambda: gpu_check.augmented(device),
        "equal": lambda: gpu_check.equal(device),
        "waits": lambda: gpu_check.waits(device),
        "compiled, default": lambda: gpu_check.equal(device, "default") if can_compile(kind) else {},
        "compiled, reduce-overhead": lambda: (
            gpu_check.equal(device, "reduce-overhead") if kind == "cuda" and can_compile(kind) else {}
        ),
    }
    for name, make in pieces.items():
        if name not in found and lease.left > 60:
            try:
                found[name] = make()
            except Exception as error:  # the other pieces and the training are worth having all the same
                found[name] = {"passed": False, "said": f"{type(error).__name__}: {error}"}
            print(f"check {name}: {'passed' if gpu_check.passed(found[name]) else found[name]}", flush=True)
            lease.write("check.json", found)
    lease.complete &= all(name in found for name in pieces)


def clock(lease: Lease) -> None:
    """Throughput, body by body and mode by mode, as long as half of the time is left."""
    options, found = lease.options, lease.read("throughput.json")
    size = ["--rows", "16", "--batch", "8", "--tiny"] if options.tiny else ["--rows", "12800", "--batch", "128"]
    cuda = options.device.startswith("cuda")
    for body in ("cnn8",) if options.tiny else throughput.BODIES:
        for mode in MODES if cuda and can_compile("cuda") else (None,):
            name = f"{body}, {mode or 'eager'}"
            if name in found:
                continue
            if lease.left < 30 * options.minutes:
                lease.complete = False
                continue
            words = ["--bodies", body, "--device", options.device, "--rounds", "1" if options.tiny else "3", *size]
            words += ["--arms", "plain", "masked"] if options.tiny else []
            words += ["--compile", mode] if mode else []
            try:
                found[name] = throughput.main(words)
            except Exception as error:  # one mode may fail where another does not
                found[name] = {"failed": f"{type(error).__name__}: {error}"}
                print(f"time {name}: {found[name]['failed']}", flush=True)
            lease.write("throughput.json", found)


def learn(lease: Lease, cells: Sequence[Cell]) -> None:
    """Train what fits."""
    options = lease.options
    store = Store(options.work)
    for folder in dict.fromkeys((options.earlier, options.results)):
        count = Kept(folder / "cells.jsonl", store).unpack()
        print(f"{count} finished cells in {folder}", flush=True)
    kept = Kept(options.results / "cells.jsonl", store)
    if options.earlier != options.results and not kept.file.exists() and (options.earlier / "cells.jsonl").exists():
        kept.file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.earlier / "cells.jsonl", kept.file)
    expected = {key: seconds for key, (seconds, how) in expect(cells, store).items() if how == "measured"}
    how = How(options.jobs, options.root, options.device, save_seconds=20.0)
    # Half a minute for what every worker needs to save and to leave.
    work = Timely(store.folder, how, lease.until - min(30.0, 6 * options.minutes), expected)
    counts = train([cell for cell in cells if there(cell, options.root)], kept, work)
    rest = sum(not store.done(cell) for cell in cells)
    print(f"{counts['done']} done, {counts['failed']} failed; {rest} of {len(cells)} cells are left", flush=True)
    lease.complete &= rest == 0


def show(cells: Sequence[Cell], options: argparse.Namespace) -> None:
    """The plan, with what is known of its cost."""
    store = Store(options.work)
    for folder in dict.fromkeys((options.earlier, options.results)):
        Kept(folder / "cells.jsonl", store).unpack()
    expected, total = expect(cells, store), 0.0
    for cell in cells:
        seconds, how = expected[cell.key]
        here = there(cell, options.root)
        state = "done" if store.done(cell) else "begun" if store.begun(cell) else "to do" if here else "no data"
        total += seconds if state in ("begun", "to do") else 0
        print(f"{cell.key}  {state:8}{seconds:8.0f} s ({how})  {cell.task}, {cell.arm}, seed {cell.seed}")
    print(f"{len(cells)} cells; about {total / 3600:.1f} hours of one process, less with --jobs")


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    copy = commands.add_parser("prepare", help="copy the data that the plan asks for")
    copy.add_argument("--from", dest="source", type=Path, required=True)
    copy.add_argument("--root", type=Path, default=DATA)
    run = commands.add_parser("run", help="build, check, time, train")
    run.add_argument("--only", nargs="*", choices=PIECES, default=list(PIECES))
    run.add_argument("--minutes", type=float, default=9.0)
    run.add_argument("--jobs", type=int, default=4, help="cells at a time, which share the GPU")
    run.add_argument("--device", default="cuda")
    run.add_argument("--root", type=Path, default=DATA)
    run.add_argument("--results", type=Path, default=RESULTS)
    run.add_argument("--earlier", type=Path, default=RESULTS, help="results of earlier runs")
    run.add_argument("--work", type=Path, default=DATA / "work", help="the folder in which cells run")
    run.add_argument("--suites", nargs="*", help="these suites or files of suites instead of the plan")
    run.add_argument("--tiny", action="store_true", help="timings at a size that says nothing: does it run?")
    run.add_argument("--dry-run", action="store_true")
    spread = commands.add_parser("unpack", help="finished cells as the folder of a bench")
    spread.add_argument("--results", type=Path, default=RESULTS)
    spread.add_argument("--into", type=Path, required=True)
    options = parser.parse_args(words)
    if options.command == "prepare":
        prepare(options.source, options.root)
    elif options.command == "unpack":
        print(f"{Kept(options.results / 'cells.jsonl', Store(options.into)).unpack()} cells in {options.into}")
    else:
        cells = cells_of(PLAN if options.suites is None else [Part(suite) for suite in options.suites])
        if options.dry_run:
            show(cells, options)
            return
        lease = Lease(options)
        pieces = {"build": build, "check": check, "time": clock, "train": lambda lease: learn(lease, cells)}
        for name in PIECES:
            if name in options.only:
                pieces[name](lease)
        print("all of it is done" if lease.complete else "go on with the same command", flush=True)


if __name__ == "__main__":
    main()
