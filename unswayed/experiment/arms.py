"""Arms: one short text says what to train, "gce edge-masked(keep=.1)" for instance."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from unswayed import heads, losses, methods, nets
from unswayed.errors import UnswayedError, suggest

AUTO = "auto"  # the word for a method that is chosen when the data are known
_WORD = re.compile(r"(?P<name>[^\s()]+)(?:\((?P<settings>[^()]*)\))?\s*")


@dataclass(frozen=True)
class Arm:
    """What is trained: a method, a loss, a head and a body, each with settings of its own."""

    title: str  # its words with their settings: "gce + edge-masked(keep=.1)"
    method: str = "plain"
    loss: str | None = None  # None: the method's own
    head: str = "linear"
    body: str | None = None  # None: the default for the data
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # by part: method, loss, head, body


def parse_arm(text: str) -> Arm:
    """Read an arm: names of a method, a loss, a head and a body in any order, each with settings in brackets.

    An unknown word raises and tells the nearest ones; so does a part that is named twice. "auto" stands for the method
    and the loss, plain until the data are known.

    >>> arm = parse_arm("gce edge-masked(keep=.1, score=obd)")
    >>> arm.method, arm.loss, arm.head, arm.settings
    ('plain', 'gce', 'edge-masked', {'head': {'keep': 0.1, 'score': 'obd'}})
    >>> arm.title
    'gce + edge-masked(keep=.1, score=obd)'
    """
    found: dict[str, str] = {}
    settings: dict[str, dict[str, Any]] = {}
    titles = []
    for name, given in _words(text):
        if name == AUTO:
            titles.append(name)
            continue
        part = _part_of(name)
        if part in found:
            raise UnswayedError(f"one {part} an arm", got=f"{found[part]} and {name} in '{text}'")
        found[part] = name
        if given:
            settings[part] = _settings(given)
        titles.append(f"{name}({' '.join(given.split())})" if given else name)
    if AUTO in titles and (named := found.keys() & {"method", "loss"}):
        words = ", ".join(found[part] for part in sorted(named))
        raise UnswayedError(
            "auto, which chooses method and loss by itself", got=f"{words} in '{text}'", do="leave it out"
        )
    return Arm(title=" + ".join(titles), settings=settings, **found)


def _words(text: str) -> list[tuple[str, str]]:
    words, at = [], len(text) - len(text.lstrip())
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise UnswayedError("an arm like 'gce edge-masked(keep=.1)'", got=repr(text), do="check the brackets")
        words.append((match["name"], match["settings"] or ""))
        at = match.end()
    if not words:
        raise UnswayedError(
            "an arm of at least one word", got=repr(text), do="for example 'plain' or 'gce edge-masked'"
        )
    return words


def _part_of(name: str) -> str:
    known = {"method": methods.names(), "loss": losses.names(), "head": heads.names(), "body": nets.bodies.names()}
    if name.startswith("timm:"):
        return "body"
    for part, names in known.items():
        if name in names:
            return part
    do = suggest(name, [n for names in known.values() for n in names], "`unswayed list` shows them all")
    raise UnswayedError("the name of a method, loss, head or body", got=repr(name), do=do)


def _settings(text: str) -> dict[str, Any]:
    settings = {}
    for item in re.split(r",(?![^\[\]{}]*[\]}])", text):  # not at the commas of a list
        name, equals, value = (piece.strip() for piece in item.partition("="))
        if not name or not equals:
            raise UnswayedError("settings like (keep=.1, score=obd)", got=f"({text})")
        settings[name] = read_value(value)
    return settings


def read_value(text: str) -> Any:
    """A number, true, false, none or otherwise the text itself.

    >>> [read_value(t) for t in ("0.5", "true", "none", "std")]
    [0.5, True, None, 'std']
    """
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
