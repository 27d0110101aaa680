"""What single pieces of a training step cost, before and after a change: the figures behind docs/speed.md.

    OMP_NUM_THREADS=1 python -m benchmarks.throughput_pieces --out results/throughput_pieces.json

Processor time of one thread, the best of many interleaved rounds, at 128 pictures of 32 x 32.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.throughput import make_net, pictures
from benchmarks.timing import Call, best_seconds
from unswayed import heads
from unswayed.batches import epoch_batches, seed_of
from unswayed.data import pixels
from unswayed.data.augment import augmentation
from unswayed.machine import Place, describe, versions
from unswayed.method import Data, Stage
from unswayed.settings import cosine_span, factor_at, rate_factor
from unswayed.speed import Fast, can_compile
from unswayed.stats.dynamics import Dynamics
from unswayed.writing import write_json

BATCH, CPU = 128, Place(torch.device("cpu"))


def indexed_crop(x: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """The same crop and flip by one advanced index into padded pictures."""
    rows, channels, height, width = x.shape
    padded, line = F.pad(x, (4, 4, 4, 4)), torch.arange(width)
    column = torch.where(flip[:, None], width - 1 - line, line) + left[:, None] + 4
    row = torch.arange(height) + top[:, None] + 4
    first, second = torch.arange(rows)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[first, second, row[:, None, :, None], column[:, None, None, :]]


def strided_crop(x: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """The same by an index into all windows of the padded pictures, then a choice of the flipped ones."""
    rows, channels, height, width = x.shape
    padded = F.pad(x, (4, 4, 4, 4))
    a, b, c, d = padded.stride()
    windows = padded.as_strided((rows, 9, 9, channels, height, width), (a, c, d, b, c, d))
    cut = windows[torch.arange(rows), top + 4, left + 4]
    return torch.where(flip[:, None, None, None], cut.flip(3), cut)


def pieces() -> dict[str, Call]:
    """Bookkeeping and the way of the data."""
    x, y = pictures(20_000)
    at, generator = torch.randperm(len(x))[:BATCH], torch.Generator()
    views = {name: augmentation("image", (3, 32, 32), name) for name in ("weak", "strong")}  # type: ignore[arg-type]
    drawn = {name: view.draw(BATCH, generator) for name, view in views.items()}
    shown, weak = x[at], drawn["weak"]
    places = (weak["top"], weak["left"], weak["flip"])
    expected = pixels.crop(shown, *places)
    assert torch.equal(expected, indexed_crop(shown, *places))
    assert torch.equal(expected, strided_crop(shown, *places))
    dynamics, logits = Dynamics(len(x), 10), torch.randn(BATCH, 10)
    head = {name: _head(name) for name in ("linear", "edge-masked", "edge-masked-kan")}
    net = make_net("resnet18")
    for p in net.parameters():
        p.grad = torch.randn_like(p) * 1e-3
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    plan = [Stage("warm-up", 10, lambda batch: batch), *[Stage("turn", 1, lambda batch: batch)] * 580]
    span = cosine_span(plan, 300)
    return {
        "rows: x[at]": lambda: x[at],
        "rows: index_select": lambda: x.index_select(0, at),
        "crop and flip: gather": lambda: pixels.crop(shown, *places),
        "crop and flip: one index": lambda: indexed_crop(shown, *places),
        "crop and flip: windows": lambda: strided_crop(shown, *places),
        "draw weak": lambda: views["weak"].draw(BATCH, generator),
        "draw strong": lambda: views["strong"].draw(BATCH, generator),
        "apply strong": lambda: views["strong"].apply(shown, drawn["strong"]),
        "generator and its seed": lambda: torch.Generator().manual_seed(seed_of(1, 2, 3)),
        "seed of the step": lambda: CPU.seed(5),
        "dynamics": lambda: dynamics.update(logits, y[at], at),
        **{f"head of 256 features and 10 classes, ten steps: {name}": call for name, call in head.items()},
        "clip, one by one": lambda: nn.utils.clip_grad_norm_(net.parameters(), 5.0),
        "clip, foreach": lambda: nn.utils.clip_grad_norm_(net.parameters(), 5.0, foreach=True),
        "optimiser": lambda: optimizer.step(),
        "learning rate: whole plan of 581 stages": lambda: rate_factor(plan, 300, 0.5, "cosine"),
        "learning rate: span kept": lambda: factor_at(span, 0.5, "cosine"),
    }


def _head(name: str) -> Call:
    """Ten steps of a head, in which a mask is renewed once."""
    head, y = heads.create(name, 256, 10), torch.randint(10, (BATCH,))
    features = torch.randn(BATCH, 256, requires_grad=True)

    def run() -> None:
        for _ in range(10):
            F.cross_entropy(head(features), y).backward()  # type: ignore[no-untyped-call]

    return run


def batches() -> dict[str, Call]:
    """16 batches with a weak and a strong view, on a processor: one by one, and in one pass as on a GPU."""
    x, y = pictures(16 * BATCH)
    data = Data.of(x, y)
    augment: Any = {name: augmentation("image", (3, 32, 32), name) for name in ("weak", "strong")}  # type: ignore[arg-type]

    def run(together: int) -> None:
        from unswayed import batches as room

        before, room.steps_together = room.steps_together, lambda *_: together
        try:
            for _ in epoch_batches((data,), BATCH, tuple(augment), augment, 0, CPU, epoch=0, progress=float):
                pass
        finally:
            room.steps_together = before

    return {"16 batches one by one": lambda: run(1), "16 batches in one pass": lambda: run(16)}


def networks(body: str, rows: int) -> dict[str, Call]:
    """A step of a network: precisions, orders of weights in memory, compiled or not."""
    x, y = pictures(rows)
    calls: dict[str, Call] = {}
    compiles = body == "cnn-small" and can_compile("cpu")  # a larger one takes minutes to compile
    for precision in ("fp32", "bf16"):
        for layout in ("as they were", "channels-last", "channels-last, compiled"):
            if "compiled" in layout and not compiles:
                continue
            torch.manual_seed(0)
            net = make_net(body).train()
            if layout != "as they were":
                net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            place = Place(CPU.device, "fp32", compile="default")
            fast = Fast(nn.ModuleList([net]), place) if "compiled" in layout else None
            calls[f"{body}, {precision}, weights {layout}"] = _step(net, optimizer, x, y, precision, fast)
    return calls


def _step(net: Any, optimizer: Any, x: Tensor, y: Tensor, precision: str, fast: Fast | None) -> Call:
    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(x).float(), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def compiled() -> None:
        assert fast is not None
        with fast.step():
            work()

    if fast is None:
        return work
    fast.__enter__()
    return compiled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16, help="pictures in a step of a network")
    parser.add_argument("--bodies", nargs="*", default=["cnn-small", "cnn8", "resnet18"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = {**describe(), **versions(), "batch": BATCH, "rows": options.rows, "rounds": options.rounds, "seed": 0}
    found: dict[str, Any] = {"about": about, "seconds": {}}
    groups = [pieces, batches, *(lambda body=body: networks(body, options.rows) for body in options.bodies)]
    for group in groups:
        found["seconds"] |= best_seconds(group(), options.rounds if group is pieces else min(options.rounds, 5))
        if options.out:
            write_json(options.out, found)
    for name, seconds in found["seconds"].items():
        print(f"{name:50} {1e6 * seconds:12.0f} us")


if __name__ == "__main__":
    main()
