"""Pictures a second of our loop, beside the machine's floor and beside a loop written by hand.

    OMP_NUM_THREADS=1 python -m benchmarks.throughput --out results/throughput_cpu.json
    python -m benchmarks.throughput --device cuda --rows 50000 --batch 128 --compile reduce-overhead --out FILE

Made-up pictures of 32 x 32 in 10 classes, augmented by crop and flip (IDO: and strongly). For every body: our loop with
plain cross-entropy in single precision and in bf16, and the loop of throughput_by_hand.py (a DataLoader that augments
picture by picture) in both, in the orders of memory that go with them; then in bf16 the same with an edge-masked head,
co-teaching, IDO and DivideMix. Rounds take turns, and the second epoch of two counts (of IDO an epoch of its second
stage, of DivideMix one of both networks with the judging before it). Told are medians over rounds, and ratios within a
round. A picture counts once an epoch, however often a method looks at it.

The floor is the larger of two times: the operations of convolutions and matrix products at the rate of a large product
in that precision, and the bytes that convolutions, norms and pools read and write once (elementwise work fused) and
that the optimiser moves, at the rate of a large copy. With one thread on a processor its time is measured, which other
processes disturb little; else the time on the wall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.throughput_by_hand import ByHand
from benchmarks.throughput_floor import Rates, Work, count, measure_rates
from unswayed import heads, methods, nets
from unswayed.data.augment import augmentation
from unswayed.engine import fit
from unswayed.machine import describe, find_place, versions
from unswayed.method import Data, Info
from unswayed.nets.normalise import Normalize
from unswayed.writing import write_json

BODIES = ("cnn8", "resnet18", "resnet34", "preact-resnet18")
ARMS = {"plain": ("plain", "linear"), "masked": ("plain", "edge-masked"), "co-teaching": ("co-teaching", "linear"),
        "ido": ("ido", "linear"), "dividemix": ("dividemix", "linear")}  # fmt: skip
SIDE, CLASSES = 32, 10
COUNTED = Path(__file__).parents[1] / "results" / "throughput_cpu.json"  # operations are the same on any machine
Clock = Callable[[], float]


def pictures(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (rows, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return x, torch.randint(CLASSES, (rows,), generator=generator)


def make_net(body: str, head: str = "linear") -> nets.Net:
    half = torch.tensor([0.5] * 3)[:, None, None]
    made = nets.create_body(body, kind="image", shape=(3, SIDE, SIDE), stats=nets.Stats(half, half / 2))
    return nets.Net(made, heads.create(head, made.features, CLASSES))


def epoch_seconds(body: str, arm: str, options: argparse.Namespace, precision: str, clock: Clock) -> float:
    """Seconds of an epoch of our loop."""
    x, y = pictures(options.rows)
    name, head = ARMS[arm]
    torch.manual_seed(0)
    method = methods.create(name, lambda: make_net(body, head), Info(len(x), CLASSES))
    place = find_place(options.device, precision, compile=options.compile)
    marks = [clock()]
    train(method, Data.of(x, y).to(place.device), options.epochs, options.batch, place, lambda: marks.append(clock()))
    turns = 2 if arm == "dividemix" else 1
    return marks[-1] - marks[-1 - turns]


def train(method: Any, data: Data, epochs: int, batch: int, place: Any, mark: Callable[[], None]) -> None:
    views = {view: augmentation("image", (3, SIDE, SIDE), view) for view in ("weak", "strong")}  # type: ignore[arg-type]
    fit(method, data, epochs=epochs, batch=batch, lr=0.01, augment=views, place=place, watch=[lambda record: mark()])


def by_hand_seconds(body: str, how: ByHand, options: argparse.Namespace, clock: Clock) -> float:
    """Seconds of an epoch of the loop written by hand, on the same network."""
    torch.manual_seed(0)
    net = make_net(body)
    for parent in net.modules():
        for name, child in parent.named_children():
            if isinstance(child, Normalize):  # its loader has done that
                setattr(parent, name, nn.Identity())
    return how.epochs(net, *pictures(options.rows), epochs=options.epochs, batch=options.batch, clock=clock)[-1]


def work_of(body: str, arm: str, batch: int) -> Work:
    """What an epoch asks for a picture, counted on a few pictures where COUNTED does not tell it."""
    known = json.loads(COUNTED.read_text(encoding="utf-8"))["bodies"] if COUNTED.exists() else {}
    if (told := known.get(body, {}).get(f"{arm}, bf16", {}).get("floor")) is not None:
        return Work(told["operations"], told["numbers"], told["parameters"], 1 / batch)
    rows, (name, head) = 16, ARMS[arm]
    x, y = pictures(rows)
    method = methods.create(name, lambda: make_net(body, head), Info(rows, CLASSES))
    turns = 2 if arm == "dividemix" else 1
    records: list[int] = []

    def epoch(mark: Callable[[], None]) -> None:
        def note() -> None:
            records.append(1)
            if len(records) == total - turns:
                mark()

        train(method, Data.of(x, y), 2, 8, find_place("cpu"), note)

    total = sum(stage.epochs for stage in method.plan(2))
    operations, numbers = count(epoch, rows)
    learners = 2 if arm == "co-teaching" else 1
    parameters = learners * sum(p.numel() for p in make_net(body).parameters())
    return Work(operations, numbers, parameters, 1 / batch)  # DivideMix: two turns of half the steps each


def make_clock(options: argparse.Namespace) -> Clock:
    if options.device.startswith("cuda"):

        def synchronised() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronised
    return time.process_time if options.threads == 1 and options.workers == 0 else time.perf_counter


def measure(options: argparse.Namespace, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    clock, rows = make_clock(options), options.rows
    seconds: dict[str, dict[str, list[float]]] = {body: defaultdict(list) for body in options.bodies}
    common: dict[str, Any] = {"workers": options.workers, "device": options.device}
    hands = {
        "by hand, fp32": ByHand(**common),
        "by hand, fp32, no loader": ByHand(**common, loader=False),
        "by hand, bf16, channels-last": ByHand("bf16", channels_last=True, **common),
    }
    rates = measure_rates(options.device, clock, tiny=options.tiny)
    found: dict[str, Any] = {"rates": asdict(rates), "bodies": {}}
    for turn in range(options.rounds):
        for body in options.bodies:
            mine = seconds[body]
            for name, how in hands.items():
                mine[name].append(by_hand_seconds(body, how, options, clock))
            for precision in ("fp32", "bf16"):
                mine[f"plain, {precision}"].append(epoch_seconds(body, "plain", options, precision, clock))
            for arm in options.arms:
                if arm != "plain":
                    mine[f"{arm}, bf16"].append(epoch_seconds(body, arm, options, "bf16", clock))
            print(f"round {turn + 1}: {body}", {name: round(rows / s[-1], 1) for name, s in mine.items()}, flush=True)
            found["bodies"][body] = {name: _told(name, mine, rows) for name in mine}
            save(found)
    add_floors(found, rates, options.batch, save)
    return found


def add_floors(found: dict[str, Any], rates: Rates, batch: int, save: Callable[[dict[str, Any]], None]) -> None:
    """Lay the floor beside what our loop reached; the better of these rates and of those that are there counts."""
    if "rates" in found:
        known = Rates(**found["rates"])
        products = {name: max(rate, known.products[name]) for name, rate in rates.products.items()}
        rates = Rates(products, max(rates.bandwidth, known.bandwidth))
    found["rates"] = asdict(rates)
    for body, arms in found["bodies"].items():
        for name, told in arms.items():
            arm, precision = name.rsplit(", ", 1)[0], name.rsplit(", ", 1)[1]
            if arm in ARMS:
                work = work_of(body, arm, batch)
                arithmetic, memory = work.floor(rates, precision)
                told["floor"] = {"arithmetic": arithmetic, "memory": memory, **asdict(work)}
                told["share of the floor"] = max(arithmetic, memory) * told["pictures a second"]
        save(found)


def _told(name: str, seconds: dict[str, list[float]], rows: int) -> dict[str, Any]:
    def ratio(base: str) -> float:
        return statistics.median(b / s for b, s in zip(seconds[base], seconds[name], strict=True))

    told: dict[str, Any] = {"pictures a second": rows / statistics.median(seconds[name]), "seconds": seconds[name]}
    told["times the loop by hand"] = ratio("by hand, fp32")
    if "bf16" in name:
        told["times the loop by hand in bf16"] = ratio("by hand, bf16, channels-last")
    if not name.startswith(("by hand", "plain")):
        told["epochs of plain"] = 1 / ratio("plain, bf16")
    return told


def show(found: dict[str, Any]) -> None:
    table = Table("body", "what", "pictures / s", "times by hand", "times by hand in bf16", "share of the floor")
    for body, arms in found["bodies"].items():
        for name, told in arms.items():
            keys = ("times the loop by hand", "times the loop by hand in bf16", "share of the floor")
            cells = [f"{told[key]:.2f}" if key in told else "" for key in keys]
            table.add_row(body, name, f"{told['pictures a second']:.1f}", *cells)
    Console(width=120).print(table)


def markdown(found: dict[str, Any]) -> str:
    """The same as a table of Markdown: a row for each body and for what ran on it."""
    lines = ["| body | what | pictures a second | times by hand | times by hand, bf16 | share of the floor |"]
    lines.append("|---" * 6 + "|")
    for body, arms in found["bodies"].items():
        for name, told in arms.items():
            keys = ("times the loop by hand", "times the loop by hand in bf16", "share of the floor")
            cells = [f"{told[key]:.2f}" if key in told else "" for key in keys]
            lines.append(f"| {body} | {name} | {told['pictures a second']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", nargs="*", default=list(BODIES))
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", help="how our loop compiles its networks, for example reduce-overhead")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="of the DataLoader; default 0, on a GPU 8")
    parser.add_argument("--tiny", action="store_true", help="rates from small products: does it run?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--floors", type=Path, help="only measure the rates again, and lay floors into this file")
    parser.add_argument("--table", type=Path, help="measure nothing: print this file of results as Markdown")
    options = parser.parse_args(words)
    options.workers = (8 if options.device.startswith("cuda") else 0) if options.workers is None else options.workers
    return options


def main(words: list[str] | None = None) -> dict[str, Any]:
    options = parse(words)
    if options.table:
        print(markdown(found := json.loads(options.table.read_text(encoding="utf-8"))))
        return dict(found)
    torch.set_num_threads(options.threads)
    if options.floors:
        found = json.loads(options.floors.read_text(encoding="utf-8"))
        for _ in range(10):  # seconds apart: beside other processes a rate may be low for a while
            rates = measure_rates(options.device, make_clock(options), tiny=options.tiny)
            add_floors(found, rates, found["about"]["batch"], lambda found: write_json(options.floors, found))
            time.sleep(0 if options.tiny else 3)
        return dict(found)
    config = {name: value for name, value in vars(options).items() if name not in ("out", "table", "floors")}
    about = {**describe(), **versions(), **config, "clock": make_clock(options).__name__, "seed": 0}

    def save(found: dict[str, Any]) -> None:
        if options.out:
            write_json(options.out, {"about": about, **found})

    found = measure(options, save)
    show(found)
    return {"about": about, **found}


if __name__ == "__main__":
    main()
