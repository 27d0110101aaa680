"""No training step makes the host wait for the accelerator: shown on a pretended one, whose waits are caught."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from held_device import HERE, WaitedError, pretended, unwatched, watched
from torch import Tensor

from unswayed import engine, heads, methods, nets
from unswayed.data.augment import augmentation
from unswayed.engine import fit
from unswayed.machine import Place
from unswayed.method import Data, Info, Method

SHAPE, ROWS, CLASSES = (3, 8, 8), 48, 4


@contextlib.contextmanager
def watched_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every step and the making of its batch is watched; the look at the losses, once in CHECK_EVERY steps, is not."""
    steps = [0]
    step, look, batches = engine._Run._step, engine._Run._check_losses, engine._Run._batches

    def watched_step(run: Any, *args: Any) -> None:
        steps[0] += 1
        with watched():
            step(run, *args)

    def free_look(run: Any) -> None:
        with unwatched():
            look(run)

    def watched_batches(run: Any, *args: Any) -> Iterator[Any]:
        items = batches(run, *args)
        while True:
            with watched():
                item = next(items, None)
            if item is None:
                return
            yield item

    monkeypatch.setattr(engine._Run, "_step", watched_step)
    monkeypatch.setattr(engine._Run, "_check_losses", free_look)
    monkeypatch.setattr(engine._Run, "_batches", watched_batches)
    with pretended():
        yield steps


def train(arm: str, head: str = "linear", trusted: Any = None, **edges: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (ROWS, *SHAPE), dtype=torch.uint8, generator=generator)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)

    def make_net() -> nets.Net:
        stats = nets.Stats(torch.tensor(0.5), torch.tensor(0.25))
        body = nets.create_body("cnn-small", kind="image", shape=SHAPE, stats=stats, widths=4, features=8)
        return nets.Net(body, heads.create(head, body.features, CLASSES, **edges))

    method = methods.create(arm, make_net, Info(ROWS, CLASSES), **({} if trusted is None else {"trusted": trusted}))
    views = {name: augmentation("image", SHAPE, name) for name in ("weak", "strong")}  # type: ignore[arg-type]
    fit(method, Data.of(x, y), epochs=3, batch=16, lr=0.01, augment=views, place=Place(HERE))


CASES: dict[str, dict[str, Any]] = {
    "plain": {"arm": "plain"},
    "edge-masked": {"arm": "plain", "head": "edge-masked"},
    "edge-masked, random": {"arm": "plain", "head": "edge-masked", "score": "random"},
    "co-teaching": {"arm": "co-teaching"},
    "ido": {"arm": "ido"},
    "dividemix": {"arm": "dividemix"},
}
NO_STEPS = ("knn", "logistic-regression")  # bars that are computed, not trained
OTHERS = [name for name in methods.names() if name not in (*CASES, *NO_STEPS)]
CASES |= {name: {"arm": name} for name in OTHERS}
CASES["bilevel"] |= {"trusted": list(range(0, ROWS, 6))}
CASES["edge-masked-kan"] = {"arm": "plain", "head": "edge-masked-kan"}
SLOW = (*OTHERS, "edge-masked-kan")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES]
)
def test_no_step_waits_for_the_device(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched_steps(monkeypatch) as steps:
        train(**CASES[case])
    assert steps[0] >= 3


def item(logits: Tensor) -> None:
    logits.mean().item()


def mask(logits: Tensor) -> None:
    logits[logits > 0]


def literal(logits: Tensor) -> None:
    logits + torch.tensor(1.0, device=logits.device)


def order(logits: Tensor) -> None:
    logits[torch.randperm(len(logits)).to(logits.device)]


def look(logits: Tensor) -> None:
    logits.detach().cpu()


@pytest.mark.parametrize("wait", [item, mask, literal, order, look], ids=lambda wait: str(wait.__name__))
def test_a_step_that_waits_is_caught(wait: Callable[[Tensor], None], monkeypatch: pytest.MonkeyPatch) -> None:
    observe = Method.observe

    def waiting(method: Method, logits: Tensor, batch: Any) -> None:
        wait(logits)
        observe(method, logits, batch)

    monkeypatch.setattr(Method, "observe", waiting)
    with watched_steps(monkeypatch), pytest.raises(WaitedError):
        train("plain")
