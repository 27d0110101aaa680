"""From the parameters of the estimator to an arm, in the words that the command line takes too."""

from __future__ import annotations

from typing import Any

from unswayed import heads, losses, nets
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import AUTO, parse_arm
from unswayed.registry import Registry

_KNOWN: dict[str, Registry[Any]] = {"loss": losses.losses, "head": heads.heads, "net": nets.bodies}


def join_arm(method: str, loss: str | None, head: str | None, net: str | None) -> str:
    """The arm that these name: each may have settings in brackets, and `method` may be a whole arm.

    >>> join_arm("gce", None, "edge-masked(keep=.2)", None)
    'gce edge-masked(keep=.2)'
    >>> join_arm("plain", "kn", None, None)
    Traceback (most recent call last):
    ...
    unswayed.errors.UnswayedError: loss is one of ael, ..., but got 'kn'...
    """
    for part, text in {"method": method, "loss": loss, "head": head, "net": net}.items():
        if text is None:
            continue
        if not isinstance(text, str):
            raise UnswayedError(f"the {part} by its name", got=repr(text), do="`unswayed list` shows all names")
        if part in _KNOWN and not text.startswith("timm:"):
            _KNOWN[part].get(text.partition("(")[0].strip())
    words = " ".join(text for text in (method, loss, head, net) if text is not None)
    parse_arm(words)
    return words


def settle_arm(words: str, chosen: str) -> str:
    """The arm with the method that was chosen in the place of "auto".

    >>> settle_arm("auto kan(grid=3, order=2)", "sce")
    'sce kan(grid=3, order=2)'
    """
    return " ".join([chosen, *(word for word in words.split() if word != AUTO)])
