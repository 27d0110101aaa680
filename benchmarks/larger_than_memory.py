"""A data set on disk that is larger than memory may be, trained on by the ordinary engine: memory, and speed.

    OMP_NUM_THREADS=1 python benchmarks/larger_than_memory.py [--gigabytes 20] [--folder FOLDER] [--rounds 5]
    OMP_NUM_THREADS=1 python benchmarks/larger_than_memory.py --gigabytes .05 --rounds 1 --out FILE     # a try

It makes up uint8 pictures of 32 x 32 (by the package's own store, as a stream), and forbids itself more than 4 GiB of
memory (RLIMIT_DATA: all that is not mapped from a file). Then it trains on rows drawn from anywhere in the file, after
the system was told to forget the file's pages, and on the same rows held in memory: in turns, each round with rows of
its own. There the order is a permutation of all rows, as in memory. With `shuffle="blocks"` the rows of a round are a
stretch of the file. At last an epoch in blocks over the whole file, or a `--stretch` of one. And since blocks shuffle
less: accuracy on embedded rows that lie sorted by class, in blocks of 8 rows of which 4, 16 or 64 are shuffled among
each other, beside a permutation of all rows. The data are deleted at the end. Result: results/larger_than_memory.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from unswayed import nets
from unswayed.data import columns, orders, read
from unswayed.data.columns import ArrayColumn, TensorColumn
from unswayed.data.store import Job, prepare
from unswayed.engine import accuracy, fit
from unswayed.experiment.config import Config
from unswayed.experiment.task import make_task
from unswayed.machine import Place, describe, versions
from unswayed.method import Data, Info
from unswayed.methods.plain import Plain
from unswayed.writing import write_json

SHAPE, CLASSES, CHUNK, LIMIT = (3, 32, 32), 10, 4096, 4 * 2**30
NETS: dict[str, dict[str, Any]] = {  # rows of a round: a minute or less on two cores
    "mlp": {"body": "mlp", "settings": {"widths": 32}, "rows": 20_000, "batch": 512, "precision": "fp32"},
    "mlp, blocks": {
        "body": "mlp",
        "settings": {"widths": 32},
        "rows": 150_000,
        "batch": 512,
        "precision": "fp32",
        "shuffle": "blocks",
    },
    "cnn-small": {"body": "cnn-small", "settings": {}, "rows": 4_000, "batch": 128, "precision": "fp32"},
    "cnn8": {"body": "cnn8", "settings": {}, "rows": 384, "batch": 128, "precision": "bf16"},
}

WAYS = {"rows": 0, "pools of 4 blocks": 4, "pools of 16 blocks": 16, "pools of 64 blocks": 64}


def labels_of(rows: int) -> Tensor:
    """The label of every row, by chance."""
    return torch.randint(CLASSES, (rows,), generator=torch.Generator().manual_seed(1))


def make_up(folder: Path, rows: int) -> None:
    """Put pictures [rows, 3, 32, 32] on disk: a pattern of the class under noise; the same bytes each time."""
    patterns = np.random.default_rng(0).integers(0, 128, (CLASSES, *SHAPE), dtype=np.uint8)
    labels = labels_of(rows).numpy()

    def chunks(notes: dict[str, Any]) -> Iterator[np.ndarray]:
        for start in range(0, rows, CHUNK):
            y = labels[start : start + CHUNK]
            noise = np.random.default_rng((2, start)).integers(0, 128, (len(y), *SHAPE), dtype=np.uint8)
            yield noise + patterns[y]

    prepare(chunks, (rows, *SHAPE), np.dtype(np.uint8), key="made-up", job=Job(folder, memory=0))


def forget(file: Path) -> float:
    """Ask the system to drop the file's pages from memory -> the share of it that stayed (by a sample)."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return cached(file)


def cached(file: Path) -> float:
    """The share of the file's pages that lie in memory, by asking mincore of all."""
    import ctypes
    import mmap

    mapped = np.memmap(file, np.uint8, "r")
    found = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(
        ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(len(mapped)), ctypes.c_void_p(found.ctypes.data)
    ):
        raise OSError(ctypes.get_errno(), "mincore")
    return float((found & 1).mean())


class Memory:
    """Watches what this process holds: the peak of anonymous memory, and of all that is resident, in bytes."""

    def __init__(self) -> None:
        self.anonymous, self.resident = 0, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, int(found["RssAnon"].split()[0]) * 1024)
            self.resident = max(self.resident, int(found["VmHWM"].split()[0]) * 1024)

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def so_far(self) -> dict[str, int]:
        """The peaks since the start, and the limit."""
        return {"anonymous_peak_bytes": self.anonymous, "resident_peak_bytes": self.resident, "limit_bytes": LIMIT}


def train(data: Data, samples: int, about: dict[str, Any]) -> float:
    """One epoch of plain training -> rows a second."""
    torch.manual_seed(0)
    place = Place(torch.device("cpu"), about["precision"])
    how = {"epochs": 1, "batch": about["batch"], "shuffle": about.get("shuffle", "rows")}
    outcome = fit(
        Plain(lambda: make_net(about["body"], **about["settings"]), Info(samples, CLASSES)), data, place=place, **how
    )
    return outcome.samples / outcome.seconds


def compare(name: str, about: dict[str, Any], file: Path, labels: Tensor, rounds: int) -> dict[str, Any]:
    """Rows a second from the cold file and from memory, in turns."""
    found: dict[str, list[float]] = {"disk": [], "memory": [], "cached_before": [], "read_alone": []}
    count = min(about["rows"], len(labels) // 2)
    for number in range(rounds):
        generator = torch.Generator().manual_seed(100 + number)
        if "shuffle" in about:  # neighbours
            at = torch.arange(count) + torch.randint(len(labels) - count, (), generator=generator)
            found["read_alone"].append(read_alone(file, int(at[0]), count))
        else:
            at = torch.randperm(len(labels), generator=generator)[:count].sort().values
        for way in ("disk", "memory") if number % 2 else ("memory", "disk"):
            part = opened(file, labels).rows(at)
            if way == "memory":
                part = part.replace(x=TensorColumn(part.x.rows(torch.arange(count))))
            else:
                found["cached_before"].append(forget(file))
            found[way].append(train(part, len(labels), about))
            del part  # what is mapped cannot be forgotten
    ratios = [disk / memory for disk, memory in zip(found["disk"], found["memory"], strict=True)]
    disk, memory = statistics.median(found["disk"]), statistics.median(found["memory"])
    print(f"{name}: {disk:,.0f} of {memory:,.0f} rows a second", flush=True)
    return {**about, "rows": count, **found, "ratios": ratios, "ratio": statistics.median(ratios)}


def sorted_by_class(seeds: int) -> dict[str, list[float]]:
    """Accuracy on scikit-learn's digits whose training rows lie on disk class by class, way by way: a seed each."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        task = make_task(Config("digits", seed=seed), read("digits"))
        assert task.test is not None
        assert task.test_labels is not None
        order = task.train.given.argsort(stable=True)
        x, y = task.train.x.rows(order), task.train.given[order]
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "x.npy", x.numpy())
            for name, pool in WAYS.items():
                with mock.patch.multiple(columns, BLOCK_BYTES=8 * x[0].nbytes), mock.patch.multiple(orders, POOL=pool):
                    data = Data.of(ArrayColumn(np.load(Path(folder) / "x.npy", mmap_mode="r")), y)
                    torch.manual_seed(seed)
                    method = Plain(lambda shape=x.shape[1:]: make_net("mlp", shape), Info(len(x), CLASSES))
                    fit(method, data, epochs=20, batch=32, seed=seed, shuffle="blocks" if pool else "rows")
                found[name].append(accuracy(method, task.test.x, task.test_labels))
    return found


def make_net(body: str, shape: tuple[int, ...] = SHAPE, **settings: Any) -> nn.Module:
    made = nets.create_body(body, kind="image", shape=shape, **settings)
    return nets.Net(made, nn.Linear(made.features, CLASSES))


def read_alone(file: Path, first: int, rows: int) -> float:
    """Rows a second of the cold file that the disk can give: read in one go, and nothing done with them."""
    forget(file)
    size, clock = int(np.prod(SHAPE)), time.perf_counter()
    with file.open("rb", buffering=0) as opened_:
        opened_.seek(first * size)
        for _ in range(-(-rows * size // 2**24)):
            opened_.read(2**24)
    return rows / (time.perf_counter() - clock)


def opened(file: Path, labels: Tensor) -> Data:
    """The rows of the file and their labels, mapped anew."""
    return Data.of(ArrayColumn(np.load(file, mmap_mode="r", allow_pickle=False)), labels)


@contextlib.contextmanager
def limited() -> Iterator[Memory]:
    """No more than `LIMIT` bytes that are not mapped from a file."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, before[1]))
    memory = Memory()
    try:
        yield memory
    finally:
        memory.stop()
        resource.setrlimit(resource.RLIMIT_DATA, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--data", type=Path, help="a folder with what an earlier run made; it is kept")
    parser.add_argument("--stretch", type=int, help="rows of the long run at the end (default: all, an epoch)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/larger_than_memory.json"))
    asked = parser.parse_args()
    rows = int(asked.gigabytes * 1e9 / np.prod(SHAPE))
    folder = asked.data or Path(tempfile.mkdtemp(prefix="unswayed-", dir=asked.folder))
    try:
        measure(folder, rows, asked)
    finally:
        if asked.data is None:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, rows: int, asked: argparse.Namespace) -> None:
    """Make the data, compare, then one epoch over all; what is known is written at once."""
    clock = time.monotonic()
    make_up(folder, rows)
    (file,), labels = folder.rglob("rows.npy"), labels_of(rows)
    made = time.monotonic() - clock if asked.data is None else None  # else it may have lain there
    found: dict[str, Any] = {
        "data": {"gigabytes": asked.gigabytes, "rows": rows, "shape": SHAPE, "seconds_to_make": made},
        "goal": {"ratio": 0.8, "bytes": LIMIT},
        "sorted_by_class": sorted_by_class(5 if rows > 10**6 else 1),
        "nets": {},
        "long": None,
        "versions": versions(),
        "machine": describe(),
    }
    with limited() as memory:
        for name, about in NETS.items():
            found["nets"][name] = compare(name, about, file, labels, asked.rounds)
            write_json(asked.out, found | {"memory": memory.so_far()})
        at = torch.arange(asked.stretch or rows)
        long = {"rows": len(at), "gigabytes": len(at) * np.prod(SHAPE) / 1e9, "cached_before": forget(file)}
        speed = train(opened(file, labels).rows(at), rows, NETS["mlp, blocks"])
        long |= {"shuffle": "blocks", "rows_a_second": speed, "cached_after": cached(file)}
        write_json(asked.out, found | {"long": long, "memory": memory.so_far()})
    ratios = {name: one["ratio"] for name, one in found["nets"].items()}
    print(json.dumps({"memory": memory.so_far(), "long": long, "ratio": ratios}))


if __name__ == "__main__":
    main()
