"""Noise models: known labels in, wrong labels out, so that a method's robustness can be measured.

Every noise is a function `(y [N], x [N, ...] or None, rate, classes, generator, **settings) -> [N]` in the registry
`noises`, and leaves its inputs as they were. `corrupt` calls one by name with a seed. Beside them stand two functions
that change rows instead of labels (`imbalance`, `open_set`) and `transition_of`, which measures what a noise did.
`learn_noise` fits a `NoiseModel` to labels that people gave, from which the noise `learned` draws new ones.

Labels that people really got wrong need no model: where a data set has such a column, the reader takes it as the given
labels ("real columns"), and nothing here is called.

>>> noises.names("symmetric*")
['symmetric', 'symmetric-inclusive']
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from unswayed.registry import Registry, check_settings, keyword_settings, lazy_attributes

if TYPE_CHECKING:
    from torch import Tensor

    from unswayed.data.columns import Column
    from unswayed.noise.learned import NoiseModel
    from unswayed.noise.learning import learn_noise
    from unswayed.noise.rows import imbalance, open_set
    from unswayed.noise.transition import transition_of

Noise: TypeAlias = "Callable[..., Tensor]"

noises: Registry[Noise] = Registry("noise")
noises.lazy("symmetric", "unswayed.noise.classwise:symmetric")
noises.lazy("symmetric-inclusive", "unswayed.noise.classwise:symmetric_inclusive")
noises.lazy("pair", "unswayed.noise.classwise:pair")
noises.lazy("asymmetric", "unswayed.noise.classwise:asymmetric")
noises.lazy("asymmetric-cifar10", "unswayed.noise.classwise:asymmetric_cifar10")
noises.lazy("asymmetric-cifar100", "unswayed.noise.classwise:asymmetric_cifar100")
noises.lazy("matrix", "unswayed.noise.transition:matrix")
noises.lazy("instance", "unswayed.noise.instance:instance")
noises.lazy("learned", "unswayed.noise.learned:learned")

_HOMES = {
    "NoiseModel": "learned",
    "imbalance": "rows",
    "learn_noise": "learning",
    "open_set": "rows",
    "transition_of": "transition",
}
__getattr__ = lazy_attributes(__name__, _HOMES)

__all__ = ["Noise", "NoiseModel", "corrupt", "imbalance", "learn_noise", "noises", "open_set", "transition_of"]


def corrupt(
    name: str, y: Tensor, *, x: Tensor | Column | None = None, rate: float, classes: int, seed: int, **settings: Any
) -> Tensor:
    """The labels `y` ([N] int64 in 0..classes-1) under the noise called `name`: [N] -> [N], on the device of `y`.

    `rate` is the share of wrong labels in [0, 1] in the sense of that noise; `x` are the features, which only
    instance-dependent noise needs. One seed gives one result, whatever the device. Raises UnswayedError on an
    unknown noise or setting, on labels outside 0..classes-1 and on a rate outside [0, 1].

    >>> import torch
    >>> truth = torch.arange(3).repeat(10)
    >>> given = corrupt("symmetric", truth, rate=0.3, classes=3, seed=0)
    >>> int((given != truth).sum()), truth[:3].tolist()
    (9, [0, 1, 2])
    """
    import torch

    noise = noises.get(name)
    check_settings(settings, keyword_settings(noise), f"the noise {name}")
    # Not the seed itself: labels or splits drawn from the same number would decide which labels turn wrong.
    digest = hashlib.blake2b(f"noise {seed}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return noise(y.cpu(), x, rate, classes, generator, **settings).to(y.device)
