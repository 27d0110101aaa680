"""Pure tensor functions and per-sample counters, usable in anybody's own loop."""

from __future__ import annotations

from unswayed.stats.dynamics import Dynamics
from unswayed.stats.gradients import gradient_cosine, gradient_error
from unswayed.stats.label_wave import LabelWave
from unswayed.stats.memorisation import confidence, memorisation_rate
from unswayed.stats.mixtures import beta_mixture, gaussian_mixture
from unswayed.stats.rows import register_rows, row_buffers
from unswayed.stats.snapshot import Snapshot
from unswayed.stats.teacher import Teacher
from unswayed.stats.trajectories import Trajectories
from unswayed.stats.transition import estimate_transition
from unswayed.stats.wrong_events import DynamicWeights, ido_weights

__all__ = [
    "DynamicWeights",
    "Dynamics",
    "LabelWave",
    "Snapshot",
    "Teacher",
    "Trajectories",
    "beta_mixture",
    "confidence",
    "estimate_transition",
    "gaussian_mixture",
    "gradient_cosine",
    "gradient_error",
    "ido_weights",
    "memorisation_rate",
    "register_rows",
    "row_buffers",
]
