"""How much memory a cell takes at most."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import torch

from unswayed.machine import Place


def forget_peak(place: Place) -> dict[str, int]:
    """Give back what earlier cells left, and begin to measure anew where the system can; what is held, in bytes.

    `before` is there where the peak is measured anew (Linux); elsewhere it is that of the process's whole life.
    """
    gc.collect()
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place.device)
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps freed memory that it can be asked for
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return {"before": _status("VmRSS:")}
    return {}


def peak(place: Place) -> dict[str, int]:
    """The most memory in bytes since `forget_peak`: of this process, and of the accelerator."""
    found = {"process": _peak_of_process()}
    if place.device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(place.device)
    return found


def _peak_of_process() -> int:
    with contextlib.suppress(OSError):
        return _status("VmHWM:")
    import resource  # Unix alone

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    """A line of this process's status in bytes; OSError where there is none."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name}")
