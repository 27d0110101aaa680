"""Unswayed: train on labels you cannot trust.

Everything public is reachable from here and imported when first used, so that `import unswayed` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

from unswayed.version import __version__

_ROOMS = (
    "data",
    "noise",
    "stats",
    "losses",
    "nets",
    "heads",
    "method",
    "methods",
    "engine",
    "mending",
    "auditing",
    "checks",
    "experiment",
    "report",
)
_NAMES = {
    "audit": "auditing",
    "UnswayedError": "errors",
    "mask_edges": "heads",
    "Method": "method",
    "Stage": "method",
    "Info": "method",
    "check_method": "checks",
    "Config": "experiment",
    "repair": "mending",
    "run": "experiment",
    "RobustClassifier": "estimator",
}

__all__ = ["__version__", *_NAMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"unswayed.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"unswayed.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'unswayed' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
