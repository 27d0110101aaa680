"""What single scores of an audit cost, beside cleanlab at equal output: seconds and memory, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/audit_speed.py [--quick] [--rows 500000] [--neighbours 1000000] [--out FILE]

Every case runs in processes of its own, one for us and one for the peer, on the same files. Seconds are the process's
own (the best of some rounds); read the ratios, which are taken within one run. Memory is the peak of what a call
allocates beside its input (tracemalloc, which sees all of NumPy's arrays, in a call of its own, for it costs time) and,
where Linux tells, by how much the process's resident size grew at most; pages of a mapped file count in that. The
peer (extra `peers`) and faiss (extra `index`) are left out where they are missing.
The whole audit's memory is what is no file's (RssAnon, sampled), in a process of its own.
The large file (--rows x 100, half precision) lies in a temporary folder and is left out where the disk has no room.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich import print as show

from unswayed.machine import describe, versions
from unswayed.writing import write_json

MIB = 2**20
SIZES = {"1,000,000 x 10": (1_000_000, 10), "100,000 x 1,000": (100_000, 1_000)}
QUICK = {"20,000 x 10": (20_000, 10), "2,000 x 100": (2_000, 100)}
NAMES = ("find_issues", "self_confidence", "normalised_margin", "entropy_weighted")


def make_case(folder: Path, rows: int, classes: int, kind: str = "float32") -> None:
    """Labels, a fifth of them wrong, and probabilities of a classifier that is mostly right."""
    draw = np.random.default_rng(0)
    probs = np.lib.format.open_memmap(folder / "probs.npy", "w+", kind, (rows, classes))
    labels = draw.integers(0, classes, rows)
    step = max(1, 2**22 // classes)
    for start in range(0, rows, step):
        part = draw.standard_normal((min(step, rows - start), classes), dtype=np.float32)
        part[np.arange(len(part)), labels[start : start + step]] += 3 + np.log(classes)
        np.exp(part, out=part)
        part /= part.sum(1, keepdims=True)
        probs[start : start + len(part)] = part
    probs.flush()
    wrong = draw.random(rows) < 0.2
    np.save(folder / "labels.npy", np.where(wrong, draw.integers(0, classes, rows), labels))


def calls_of(who: str) -> dict[str, Callable[[Any, Any], Any]]:
    """What is measured, by the same names on both sides; ours are higher where a label is suspicious, theirs lower."""
    if who == "unswayed":
        from unswayed.auditing.confident import find_issues
        from unswayed.auditing.probabilities import entropy_weighted, normalised_margin, self_confidence

        return dict(zip(NAMES, (find_issues, self_confidence, normalised_margin, entropy_weighted), strict=True))
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    def score(method: str) -> Callable[[Any, Any], Any]:
        return lambda labels, probs: get_label_quality_scores(labels, probs, method=method)

    methods = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    flags = lambda labels, probs: find_label_issues(labels, probs, n_jobs=1)  # noqa: E731
    return dict(zip(NAMES, (flags, *map(score, methods)), strict=True))


def measure(who: str, folder: Path, rounds: int, mapped: bool) -> dict[str, Any]:
    """In this process: seconds, bytes and answers of every call on the files in `folder`."""
    torch.set_num_threads(1)
    calls = calls_of(who)
    for call in calls.values():  # what is imported or compiled on first use
        call(np.arange(200) % 4, np.full((200, 4), 0.25, np.float32))
    labels = np.load(folder / "labels.npy")
    probs = np.load(folder / "probs.npy", mmap_mode="r" if mapped else None)
    found: dict[str, Any] = {}
    for name, call in calls.items():
        before = forget_peak()
        call(labels, probs)
        growth = largest_resident() - before
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            answer = np.asarray(call(labels, probs))
            seconds.append(time.process_time() - start)
        np.save(folder / f"{who}-{name}.npy", answer)
        tracemalloc.start()
        call(labels, probs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found[name] = {"seconds": min(seconds), "peak_mib": peak / MIB}
        found[name] |= {"resident_growth_mib": growth / MIB} if before else {}
    return found


def largest_resident() -> int:
    """The largest resident size of this process since `forget_peak`, or ever, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> int:
    """Begin the largest resident size anew where Linux lets us: the size now, in bytes; 0 where it does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return largest_resident()


def in_a_process(who: str, folder: Path, rounds: int, mapped: bool = False) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", who, str(folder), "--rounds", str(rounds)]
    done = subprocess.run(command + ["--mapped"] * mapped, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(rows: int, classes: int, rounds: int) -> dict[str, Any]:
    """Both sides on one case; ratios are theirs over ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_case(folder, rows, classes)
        found: dict[str, Any] = {
            "input_mib": rows * classes * 4 / MIB,
            "unswayed": in_a_process("unswayed", folder, rounds),
        }
        if importlib.util.find_spec("cleanlab") is None:
            return found
        found["cleanlab"] = in_a_process("cleanlab", folder, rounds)
        found["ratio"] = {}
        for call in NAMES:
            ours, theirs = (found[who][call] for who in ("unswayed", "cleanlab"))
            answers = [np.load(folder / f"{who}-{call}.npy") for who in ("unswayed", "cleanlab")]
            gap = answers[0] != answers[1] if call == "find_issues" else np.abs(answers[0] + answers[1] - 1)
            found["ratio"][call] = {
                "seconds": theirs["seconds"] / ours["seconds"],
                "peak": theirs["peak_mib"] / ours["peak_mib"],
                "difference": int(gap.sum()) if call == "find_issues" else float(gap.max()),
            }
        return found


def large(rows: int, classes: int) -> dict[str, Any]:
    """The single scores of a memory-mapped file in half precision, larger than what a call may hold."""
    found = mapped("unswayed", rows, classes, room=2)
    return found if "left out" in found else {**about(rows, classes), "unswayed": found}


def whole(rows: int, classes: int) -> dict[str, Any]:
    """The audit as a whole, error budget and folder included, of such a file."""
    found = mapped("audit", rows, classes, room=3)
    return found if "left out" in found else {**about(rows, classes), **found}


def about(rows: int, classes: int) -> dict[str, Any]:
    """The size of a file in half precision."""
    return {"rows": rows, "classes": classes, "input_mib": 2 * rows * classes / MIB}


def mapped(what: str, rows: int, classes: int, *, room: int) -> dict[str, Any]:
    """What a process measures on such a file; told as left out where the disk has no room for so many of it."""
    size = 2 * rows * classes
    with tempfile.TemporaryDirectory() as name:
        free = shutil.disk_usage(name).free
        if free < room * size:
            needed = f"{room * size / MIB:.0f} MiB needed, {free / MIB:.0f} MiB free on the disk"
            return {"rows": rows, "left out": needed}
        make_case(Path(name), rows, classes, "float16")
        return in_a_process(what, Path(name), rounds=1, mapped=True)


def measure_audit(folder: Path) -> dict[str, Any]:
    """In this process: seconds of every step, and by how much memory that is no file's grew at most (Linux)."""
    import unswayed
    from unswayed.auditing import error_budget

    torch.set_num_threads(1)
    labels, probs = np.load(folder / "labels.npy"), np.load(folder / "probs.npy", mmap_mode="r")
    unswayed.audit(labels[:2000], probs=probs[:2000])  # what is imported or compiled on first use
    before, peak, over = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    times = [time.process_time()]
    audit = unswayed.audit(labels, probs=probs)
    times.append(time.process_time())
    largest = peak[0]
    error_budget(audit)
    times.append(time.process_time())
    audit.save(folder / "audit")
    times.append(time.process_time())
    over.set()
    watcher.join()
    columns = (audit.rows, audit.given, audit.suspicion, audit.suggested, audit.probability, audit.kind)
    answer = sum(each.numel() * each.element_size() for each in (*columns, *audit.scores.values()))
    names = ("seconds", "budget_seconds", "save_seconds")
    found: dict[str, Any] = {name: end - start for name, start, end in zip(names, times, times[1:], strict=False)}
    growth = {"growth_mib": (largest - before) / MIB, "growth_saved_mib": (peak[0] - before) / MIB} if before else {}
    return found | growth | {"answer_mib": answer / MIB}


def own_memory() -> int:
    """Resident memory of this process that is no file's, in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return 0


def neighbours(rows: int, width: int = 64, k: int = 20) -> dict[str, Any]:
    """kNN on rows around 100 centres, on 12 directions that all share: seconds, recall, and what the score loses."""
    from unswayed.auditing.features import find_neighbours, knn_disagreement
    from unswayed.checks.methods import auroc
    from unswayed.stats.neighbours import nearest, unit_rows

    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(100, (rows,), generator=generator)
    plane = torch.randn(12, width, generator=generator)
    x = torch.empty(rows, width)
    centres = torch.randn(100, 12, generator=generator)
    for start in range(0, rows, 2**16):
        part = slice(start, start + 2**16)
        inner = centres[truth[part]] + 0.5 * torch.randn(len(truth[part]), 12, generator=generator)
        x[part] = inner @ plane + 0.3 * torch.randn(len(inner), width, generator=generator)
    wrong = torch.rand(rows, generator=generator) < 0.2
    labels = torch.where(wrong, torch.randint(100, (rows,), generator=generator), truth)
    asked = torch.randperm(rows, generator=generator)[: min(rows, 1000)].sort().values
    unit = unit_rows(x)
    began = time.process_time()
    exact = nearest(x[asked], unit, k + 1)
    each = (time.process_time() - began) / len(asked)
    del unit
    itself = exact.rows == asked[:, None]
    others = exact.rows[~itself].view(len(asked), -1)[:, :k]
    began = time.process_time()
    near = find_neighbours(x, k, index="approximate")
    seconds = time.process_time() - began
    agree = (near.rows[asked][:, :, None] == others[:, None]).any(2).float().mean()
    score = knn_disagreement(labels, near)
    full = (labels[others] != labels[asked, None]).float().mean(1)
    return {
        "rows": rows,
        "width": width,
        "k": k,
        "seconds": seconds,
        "exact_seconds_extrapolated": each * rows,
        "speed_up": each * rows / seconds,
        "recall": float(agree),
        "auroc": auroc(score[asked], wrong[asked]),
        "auroc_exact": auroc(full, wrong[asked]),
        "resident_mib": largest_resident() / MIB,
        "input_mib": rows * width * 4 / MIB,
    }


def parts(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What can be measured, by name."""
    sizes = QUICK if options.quick else SIZES
    rows, others = (20_000, 5_000) if options.quick else (options.rows, options.neighbours)
    made: dict[str, Callable[[], Any]] = {
        name: functools.partial(compare, *size, options.rounds) for name, size in sizes.items()
    }
    made["memory-mapped, half precision"] = functools.partial(large, rows, 100)
    made["whole audit, memory-mapped"] = functools.partial(whole, rows, 100)
    if importlib.util.find_spec("faiss") is not None:
        made["neighbours, faiss"] = functools.partial(neighbours, others)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the memory-mapped file")
    parser.add_argument("--neighbours", type=int, default=200_000, help="rows for kNN; 1,000,000 take minutes")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many")
    parser.add_argument("--only", nargs="+", default=[], help="parts whose name contains this; --out keeps the others")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--measure", nargs=2, metavar=("WHO", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--mapped", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        who, folder = options.measure
        at = Path(folder)
        print(json.dumps(measure_audit(at) if who == "audit" else measure(who, at, options.rounds, options.mapped)))
        return
    peers = {name: importlib.metadata.version(name) for name in ("cleanlab", "faiss-cpu", "numpy") if has(name)}
    kept = json.loads(options.out.read_text()) if options.only and options.out and options.out.exists() else {}
    found: dict[str, Any] = {**kept, "about": {**describe(), **versions(), **peers, "rounds": options.rounds}}
    for name, part in parts(options).items():
        if not options.only or any(word in name for word in options.only):
            found[name] = part()
            show({name: found[name]})
            if options.out:
                write_json(options.out, found)


def has(package: str) -> bool:
    return importlib.util.find_spec(package.removesuffix("-cpu")) is not None


if __name__ == "__main__":
    main()
