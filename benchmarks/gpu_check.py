"""Does a GPU do what the processor does, without waiting, compiled or not? Small runs, some seconds each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from unswayed import engine, heads, methods, nets
from unswayed.data.augment import augmentation
from unswayed.engine import Outcome, fit
from unswayed.machine import find_place
from unswayed.method import Data, Info, Method

SHAPE, CLASSES, ROWS, BATCH = (3, 32, 32), 10, 512, 64
ARMS = {
    "plain": ("plain", "linear"), "masked": ("plain", "edge-masked"), "masked KAN": ("plain", "edge-masked-kan"),
    "co-teaching": ("co-teaching", "linear"), "ido": ("ido", "linear"), "dividemix": ("dividemix", "linear"),
}  # fmt: skip
CLOSE = 0.02  # relative difference of the first epochs' losses that rounding may explain, without TF32


def train(arm: str, device: str, precision: str = "fp32", compile: str | None = None) -> tuple[Method, Outcome]:
    """Two epochs of a small network; pictures with a colour for each class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    x = torch.randint(0, 128, (ROWS, *SHAPE), generator=generator)
    x = (x + torch.randint(0, 128, (CLASSES, 3, 1, 1), generator=generator)[y]).to(torch.uint8)
    name, head = ARMS[arm]

    def make_net() -> nets.Net:
        stats = nets.Stats(torch.tensor(0.5), torch.tensor(0.25))
        body = nets.create_body("cnn-small", kind="image", shape=SHAPE, stats=stats)
        return nets.Net(body, heads.create(head, body.features, CLASSES))

    torch.manual_seed(0)
    method = methods.create(name, make_net, Info(ROWS, CLASSES))
    views = {view: augmentation("image", SHAPE, view) for view in ("weak", "strong")}  # type: ignore[arg-type]
    place = find_place(device, precision, compile=compile)
    return method, fit(method, Data.of(x, y), epochs=2, batch=BATCH, lr=0.01, augment=views, place=place)


def equal(device: str, compile: str | None = None) -> dict[str, dict[str, Any]]:
    """The losses of every method's epochs here and on the processor."""
    found = {}
    with contextlib.ExitStack() as exact:
        exact.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
        torch.backends.cudnn.allow_tf32 = False  # its fractions of 10 bits are too short to be compared
        for arm in ARMS:
            here, there = (
                [record.loss for record in train(arm, where, compile=how)[1].records]
                for where, how in (("cpu", None), (device, compile))
            )
            worst = max(abs(a - b) / abs(a) for a, b in zip(here, there, strict=True))
            found[arm] = {"cpu": here, "device": there, "difference": worst, "passed": worst < CLOSE}
    return found


def augmented(device: str) -> dict[str, Any]:
    """8-bit pictures are moved and recoloured to the same bits."""
    x = torch.randint(0, 256, (256, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = {}
    for name in ("weak", "strong"):
        view = augmentation("image", SHAPE, name)  # type: ignore[arg-type]
        params = view.draw(len(x), torch.Generator().manual_seed(1))
        found[name] = bool(torch.equal(view.apply(x, params), view.apply(x.to(device), params).cpu()))
    return {**found, "passed": all(found.values())}


@contextlib.contextmanager
def nothing_waits() -> Iterator[None]:
    """Within it, a training step or the making of a batch that makes the host wait for the GPU raises."""
    step, batches = engine._Run._step, engine._Run._batches

    def strict(*words: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(*words)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def strict_batches(*words: Any) -> Iterator[Any]:
        items = batches(*words)
        while True:
            torch.cuda.set_sync_debug_mode("error")
            try:
                item = next(items, None)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            if item is None:
                return
            yield item

    with mock.patch.object(engine._Run, "_step", strict), mock.patch.object(engine._Run, "_batches", strict_batches):
        yield


def waits(device: str) -> dict[str, dict[str, Any]]:
    """Every method under `nothing_waits`, in bf16; on a processor nothing can wait, and nothing is looked at."""
    found: dict[str, dict[str, Any]] = {}
    for arm in ARMS if device.startswith("cuda") else ():
        try:
            with nothing_waits():
                train(arm, device, "bf16")
            found[arm] = {"passed": True}
        except RuntimeError as error:
            found[arm] = {"passed": False, "said": str(error).splitlines()[0]}
    return found


def passed(found: Any) -> bool:
    """Whether every check in a report passed."""
    if isinstance(found, dict):
        return found.get("passed", True) and all(passed(value) for value in found.values())
    return True
