"""The least time that a network's work can take: its operations at the measured rate, its bytes at the bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
# What an operation reads and writes that grows with the batch: numbers of its arguments, then of its results.
# Elementwise work is taken as fused into these, and weights are counted apart.
TRAFFIC: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {
    aten.convolution: ((0,), (0,)),
    aten.convolution_backward: ((0, 1), (0,)),
    aten.native_batch_norm: ((0,), (0,)),
    aten.native_batch_norm_backward: ((0, 1), (0,)),
    aten.max_pool2d_with_indices: ((0,), (0,)),
    aten.max_pool2d_with_indices_backward: ((0,), (0,)),
    aten.addmm: ((1,), (0,)),
}


class Traffic(TorchDispatchMode):
    """Counts the numbers that large operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = call(*args, **(kwargs or {}))
        if (counted := TRAFFIC.get(call.overloadpacket)) is not None:
            results = made if isinstance(made, tuple) else (made,)
            read, written = (args[i] for i in counted[0]), (results[i] for i in counted[1])
            self.numbers += sum(value.numel() for value in (*read, *written) if isinstance(value, Tensor))
        return made


@dataclass(frozen=True)
class Work:
    """What one row of the data set costs in an epoch."""

    operations: float
    numbers: float  # read and written
    parameters: int
    steps: float  # gradient steps a row

    def floor(self, rates: Rates, precision: str) -> tuple[float, float]:
        """Seconds a row: of arithmetic, and of memory."""
        width = 2 if precision == "bf16" else 4
        weights = self.parameters * (2 * width + 4 + 20)  # forward, backward, gradient; SGD: read 3, write 2
        memory = self.numbers * width + self.steps * weights
        return self.operations / rates.products[precision], memory / rates.bandwidth


@dataclass(frozen=True)
class Rates:
    """What the machine can do: operations a second in matrix products, bytes a second copied (read and written)."""

    products: dict[str, float]
    bandwidth: float


def count(epoch: Callable[[Callable[[], None]], None], rows: int) -> tuple[float, float]:
    """Operations and numbers a row of what `epoch` does after it last called what it is given."""
    flops, traffic, before = FlopCounterMode(display=False), Traffic(), [(0, 0)]

    def mark() -> None:
        before.append((flops.get_total_flops(), traffic.numbers))

    with flops, traffic:
        epoch(mark)
    start = before[-1]
    return (flops.get_total_flops() - start[0]) / rows, (traffic.numbers - start[1]) / rows


def measure_rates(device: str, clock: Callable[[], float] = time.perf_counter, *, tiny: bool = False) -> Rates:
    """The best of several square matrix products, and of several copies much larger than a cache."""
    cuda = device.startswith("cuda")
    side, copied = (64, 2**16) if tiny else (8192, 2**30) if cuda else (1024, 2**28)

    def best(call: Callable[[], object], times: int = 5) -> float:
        found = float("inf")
        call()
        for _ in range(times):
            start = clock()
            call()
            found = min(found, clock() - start)
        return found

    products = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one = torch.randn(side, side, device=device).to(dtype)
        products[precision] = 2 * side**3 / best(lambda one=one: one @ one)  # type: ignore[misc]
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Rates(products, 2 * copied / best(lambda: target.copy_(source)))
