"""Repair of networks that were trained on bad data (RLAP, arXiv 2506.11615): find the clean part, prune, fine-tune.

mended = unswayed.repair(model, x, y, layer="fc1")
mended.model, mended.diagnosis.clean, mended.neurons
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unswayed.registry import lazy_attributes

if TYPE_CHECKING:
    from unswayed.mending.anatomy import Anatomy, dissect
    from unswayed.mending.comparison import Trial, compare
    from unswayed.mending.diagnosis import PUBLISHED, Diagnosis, diagnose, find_clean
    from unswayed.mending.pruning import Pruning
    from unswayed.mending.treatment import Repair, mend, repair, train_anew

__getattr__ = lazy_attributes(
    __name__,
    {
        "Anatomy": "anatomy",
        "dissect": "anatomy",
        "Trial": "comparison",
        "compare": "comparison",
        "PUBLISHED": "diagnosis",
        "Diagnosis": "diagnosis",
        "diagnose": "diagnosis",
        "find_clean": "diagnosis",
        "Pruning": "pruning",
        "Repair": "treatment",
        "mend": "treatment",
        "repair": "treatment",
        "train_anew": "treatment",
    },
)

__all__ = [
    "PUBLISHED",
    "Anatomy",
    "Diagnosis",
    "Pruning",
    "Repair",
    "Trial",
    "compare",
    "diagnose",
    "dissect",
    "find_clean",
]
__all__ += ["mend", "repair", "train_anew"]
