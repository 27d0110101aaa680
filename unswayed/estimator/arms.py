"""From the parameters of the estimator to an arm, in the words that the command line takes too."""

from __future__ import annotations

from typing import Any

from unswayed import heads, losses, nets
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import Arm, parse_arm
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


def exchange_parts(words: str, head: str | None, net: str | None) -> str:
    """The arm with another head or body, where one is named.

    >>> exchange_parts("ido(evidence=loss) edge-masked mlp", "kan(grid=3)", None)
    'ido(evidence=loss) kan(grid=3) mlp'
    """
    arm, others = parse_arm(words), {"head": head, "body": net}
    parts = (others.get(part) or _words(arm, part) for part in ("method", "loss", "head", "body"))
    return " ".join(part for part in parts if part)


def _words(arm: Arm, part: str) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in arm.settings.get(part, {}).items())
    name = getattr(arm, part)
    return f"{name}({settings})" if settings else name or ""
