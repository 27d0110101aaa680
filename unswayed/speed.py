"""What lets an accelerator run at its speed: layout of weights, tuned convolutions, compiled networks."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from unswayed.machine import Place
from unswayed.nets.net import Body


class Fast:
    """A context in which `method` trains as fast as `place` allows; what it computes stays the same up to rounding.

    On a GPU, and in half precision on a processor, the weights of convolutions lie channels-last, as the bodies'
    activations do everywhere, so that no step has to turn them round. In half precision on a GPU cuDNN tries its
    algorithms on the first batches and keeps the fastest (two runs may then differ in the last bits, as they may on a
    GPU anyway). In single precision on a processor nothing changes.

    With `place.compile` the bodies run compiled in training steps (`step`), and as they are everywhere else: what is
    evaluated, judged or exported needs no further graph. Losses, heads and bookkeeping stay outside, because they
    change from step to step (a share of samples kept, a mask's clock) and would be compiled again and again. Names in
    checkpoints stay as they are. Where PyTorch cannot compile, a warning says why and training goes on without.
    """

    def __init__(self, method: nn.Module, place: Place) -> None:
        self._cuda = place.device.type == "cuda"
        self._tuned = self._cuda and place.precision != "fp32"
        self._graphs = self._cuda and place.compile not in (None, "default")
        self._bodies: list[nn.Module] = []
        self._mode = place.compile
        if (self._cuda or place.precision != "fp32") and not place.shards:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if place.compile is not None and can_compile(place.device.type):
            self._bodies = networks(method)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._tuned:
            self._open.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
            torch.backends.cudnn.benchmark = True
        if self._bodies:
            import torch._dynamo.config as dynamo

            # A body is compiled anew for each batch size and for each way to call it: training, guessing labels, ...
            self._open.enter_context(dynamo.patch(recompile_limit=64))
            self._open.enter_context(torch.compiler.set_stance("force_eager"))
            for body in self._bodies:
                body.compile(mode=self._mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for body in self._bodies:
            body._compiled_call_impl = None  # what `compile` set; nothing else undoes it
        self._open.close()

    def step(self) -> contextlib.AbstractContextManager[object]:
        """A context for one training step, forward and backward."""
        if not self._bodies:
            return contextlib.nullcontext()
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("default")
        return stance


def networks(method: nn.Module) -> list[nn.Module]:
    """What is worth compiling: all bodies; of a method whose networks have none, its children that learn."""
    bodies: list[nn.Module] = [module for module in method.modules() if isinstance(module, Body)]
    return bodies or [child for child in method.children() if any(True for _ in child.parameters())]


@cache
def can_compile(kind: str) -> bool:
    """Whether `torch.compile` works for devices of this kind here; a warning says why not."""
    try:
        made = torch.compile(_probe)(torch.zeros(2, device=kind))
        fine = bool((made == 1).all())
        reason = "a wrong result"
    except Exception as error:  # a compiler, a driver, Triton: whatever is missing
        fine, reason = False, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    if not fine:
        warnings.warn(f"networks are not compiled: torch.compile does not work here ({reason})", stacklevel=2)
    return fine


def _probe(x: Tensor) -> Tensor:
    return torch.cos(x)
