"""Where to compute: device, precision and processes, by PyTorch's own means.

Why not Accelerate: a plan changes what learns at every stage (DivideMix: sixty times a run), and Accelerate keeps a
reference to all that it ever prepared and one precision for the life of the process. PyTorch's autocast, GradScaler,
DistributedDataParallel and fully_shard are all that the loop needs; `accelerate launch` sets the same variables as
`torchrun`.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.stats.rows import row_buffers

Precision = Literal["fp32", "bf16", "fp16"]
Compile = Literal["default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True)
class Place:
    """A device, the precision of its arithmetic, and which of how many processes this is."""

    device: torch.device
    precision: Precision = "fp32"
    rank: int = 0
    world: int = 1
    shard: bool = False  # spread networks over the processes (FSDP) instead of a whole one in each (DDP)
    compile: Compile | None = None  # how torch.compile makes the networks' bodies; None: not at all

    @property
    def shards(self) -> bool:
        """Whether networks are spread: one process alone has nobody to share with."""
        return self.shard and self.world > 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """A context in which matrix products run in the chosen precision."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    def own_random_state(self) -> contextlib.AbstractContextManager[None]:
        """A context after which the global random state, here and on the device, is as it was."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def seed(self, seed: int) -> None:
        """Seed what draws random numbers in a step: the processor's generator and the device's."""
        # torch.manual_seed formats stack traces for devices that are not there: 3 ms a step.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            torch.cuda.default_generators[index].manual_seed(seed)  # torch.cuda.manual_seed: the current device's alone
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any process. Every process has to ask."""
        if self.world == 1:
            return here
        found = torch.tensor(float(here), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)


def is_first() -> bool:
    """Whether this process, maybe one of several that `torchrun` started, writes files and speaks to the user."""
    return os.environ.get("RANK", "0") == "0"


def find_place(
    device: str = "auto", precision: str = "fp32", *, shard: bool = False, compile: str | None = None
) -> Place:
    """The place to compute; joins the process group when started by `torchrun`.

    `device`: "auto" (CUDA, then Apple's MPS, then the CPU) or any torch device; "cuda" without a number is the one
    that `torchrun` gives this process, and workers side by side (`be_worker`) take them in turn. `shard`: spread
    networks over the processes. `compile`: a mode of torch.compile ("reduce-overhead" uses CUDA graphs). Raises for a
    device that is not there.
    """
    if precision not in get_args(Precision):
        raise UnswayedError("precision is fp32, bf16 or fp16", got=repr(precision))
    if compile is not None and compile not in get_args(Compile):
        raise UnswayedError(f"compile is one of {', '.join(get_args(Compile))}", got=repr(compile))
    if compile is not None and shard:  # its hooks on parameters come and go within a step
        raise UnswayedError("networks either sharded or compiled", got="both", do="leave out --compile")
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device)
    if precision == "fp16" and chosen.type == "cpu":
        raise UnswayedError("fp16 needs an accelerator", got="cpu", do="use precision bf16 or fp32")
    if shard and precision == "fp16":  # its scaler would look for overflow in this process's part alone
        raise UnswayedError("bf16 or fp32 for sharded networks", got="fp16", do="use --precision bf16")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return Place(chosen, cast(Precision, precision), rank, world, shard, cast(Compile | None, compile))


def be_worker(number: int) -> None:
    """Note that this process is one of several workers side by side, numbered from 0."""
    os.environ["UNSWAYED_WORKER"] = str(number)


def _worker() -> int:
    return int(os.environ.get("UNSWAYED_WORKER", "0"))


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK') or _worker() % max(1, torch.cuda.device_count())}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UnswayedError("a device that PyTorch can use here", got=repr(name), do="try --device cpu") from error
    return device


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers of `module`, by name."""
    return {name: value.clone() for name, value in module.named_buffers()}


def merge_buffers(module: nn.Module, before: Mapping[str, Tensor], place: Place) -> None:
    """Make the buffers of all processes equal: rows by summing what each added, running averages by their mean."""
    if place.world == 1:
        return
    rows = row_buffers(module)
    for name, now in module.named_buffers():
        if name in rows:
            added = now - before[name]
            dist.all_reduce(added)
            now.copy_(before[name] + added)
        elif now.is_floating_point():
            dist.all_reduce(now)
            now /= place.world


def describe() -> dict[str, str | int]:
    """The machine's kind, for result files: no names, no paths."""
    found: dict[str, str | int] = {
        "processor": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """The versions that decide a result."""
    from unswayed.version import __version__

    return {"unswayed": __version__, "torch": torch.__version__, "python": platform.python_version()}
