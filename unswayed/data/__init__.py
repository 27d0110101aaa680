"""Data in: readers, columns, labels, augmentation.

Everything public is reachable from here and imported when first used; `sources` lists named data sets without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unswayed.registry import Registry, lazy_attributes

if TYPE_CHECKING:
    from unswayed.data.columns import ArrayColumn as ArrayColumn
    from unswayed.data.columns import Column as Column
    from unswayed.data.columns import EncodedColumn as EncodedColumn
    from unswayed.data.columns import TensorColumn as TensorColumn
    from unswayed.data.dataset import Dataset as Dataset
    from unswayed.data.dataset import Preview as Preview
    from unswayed.data.dataset import Split as Split
    from unswayed.data.entry import from_arrays as from_arrays
    from unswayed.data.entry import read as read
    from unswayed.data.features import with_features as with_features
    from unswayed.data.raw import Found as Found
    from unswayed.data.raw import Raw as Raw
    from unswayed.data.show import preview as preview
    from unswayed.data.store import cache_folder as cache_folder

_NAMES = {
    "read": "entry",
    "from_arrays": "entry",
    "with_features": "features",
    "preview": "show",
    "Dataset": "dataset",
    "Split": "dataset",
    "Preview": "dataset",
    "Column": "columns",
    "TensorColumn": "columns",
    "ArrayColumn": "columns",
    "EncodedColumn": "columns",
    "Found": "raw",
    "Raw": "raw",
    "cache_folder": "store",
}
__getattr__ = lazy_attributes(__name__, _NAMES)

sources: Registry[Callable[[Path | None], Found]] = Registry("data set")
"""Named data sets: `read("digits")` needs nothing else, the others the folder that holds their official files."""

for _name, _target in {
    "digits": "embedded:digits",
    "wine": "embedded:wine",
    "breast-cancer": "embedded:breast_cancer",
    "cifar10": "cifar:cifar10",
    "cifar100": "cifar:cifar100",
    "cifar10n": "cifar:cifar10n",
    "cifar100n": "cifar:cifar100n",
    "fashion-mnist": "named:fashion_mnist",
    "animal-10n": "named:animal_10n",
    "webvision-mini": "named:webvision_mini",
    "clothing1m": "named:clothing1m",
    "speech-commands": "named:speech_commands",
}.items():
    sources.lazy(_name, f"unswayed.data.{_target}")

__all__ = ["sources", *_NAMES]


def __dir__() -> list[str]:
    return sorted(__all__)
