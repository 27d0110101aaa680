"""Nets: a body that turns stored rows into features, and a head that turns features into logits.

Everything is imported when first used, so that listing the bodies needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unswayed.registry import Registry, lazy_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from unswayed.nets.foreign import Logits, from_module
    from unswayed.nets.net import Body, Net, create_body
    from unswayed.nets.normalise import Normalize, Stats, measure

bodies: Registry[Callable[..., Body]] = Registry("body")
bodies.lazy("identity", "unswayed.nets.mlps:identity")
bodies.lazy("mlp", "unswayed.nets.mlps:mlp")
bodies.lazy("text-mlp", "unswayed.nets.mlps:text_mlp")
bodies.lazy("cnn-small", "unswayed.nets.cnns:cnn_small")
bodies.lazy("cnn7", "unswayed.nets.cnns:cnn7")
bodies.lazy("cnn8", "unswayed.nets.cnns:cnn8")
bodies.lazy("resnet18", "unswayed.nets.resnets:resnet18")
bodies.lazy("resnet20", "unswayed.nets.resnets:resnet20")
bodies.lazy("resnet34", "unswayed.nets.resnets:resnet34")
bodies.lazy("preact-resnet18", "unswayed.nets.resnets:preact_resnet18")

_NAMES = {
    "Body": "net",
    "Net": "net",
    "create_body": "net",
    "Logits": "foreign",
    "from_module": "foreign",
    "Normalize": "normalise",
    "Stats": "normalise",
    "measure": "normalise",
}

__getattr__ = lazy_attributes(__name__, _NAMES)

__all__ = ["Body", "Logits", "Net", "Normalize", "Stats", "bodies", "create_body", "default_body", "from_module"]
__all__ += ["measure"]


def default_body(kind: str, shape: tuple[int, ...]) -> str:
    """The body that a user who names none gets, for rows of `kind` and `shape`.

    Our choice: on one core the published 8-layer CNN trains on about 100 images of 32 px a second, `cnn-small` on over
    a thousand, so the small one is the default; `cnn8` and the ResNets are one word away. Images up to 12 x 12 get the
    `mlp`: on 8 x 8 digits with 40 % wrong labels it was ten times faster than `cnn-small` and 2 points better (GCE).

    >>> default_body("image", (3, 32, 32)), default_body("image", (1, 8, 8))
    ('cnn-small', 'mlp')
    """
    if kind == "text":
        return "text-mlp"
    tiny = kind == "image" and shape[-1] * shape[-2] <= 144
    return "mlp" if kind == "table" or tiny else "cnn-small"
