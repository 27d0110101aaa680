"""Names for things: one small registry feeds the command line, the docs and the tests."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar, cast

from unswayed.errors import UnswayedError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name. A target may be given as "module:attribute"; it is imported on the first `get`.

    The lazy form lets `unswayed list` name everything without importing torch.

    >>> colours = Registry[str]("colour")
    >>> _ = colours.add("red", "#f00"), colours.add("green", "#0f0")
    >>> colours.names("r*"), colours.get("green")
    (['red'], '#0f0')
    >>> colours.get("gren")
    Traceback (most recent call last):
    ...
    unswayed.errors.UnswayedError: colour is one of green, red, but got 'gren'; did you mean green or red?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._targets: dict[str, T | str] = {}
        self._lazy: set[str] = set()

    def add(self, name: str, target: T) -> T:
        """Register `target` under `name`; a name already taken raises."""
        self._claim(name)
        self._targets[name] = target
        return target

    def lazy(self, name: str, target: str) -> None:
        """Register the object at "module:attribute", imported when first asked for."""
        self._claim(name)
        self._targets[name] = target
        self._lazy.add(name)

    def remove(self, name: str) -> None:
        """Forget `name`, which must be there."""
        self.get(name)
        del self._targets[name]

    def get(self, name: str) -> T:
        """The object called `name`; an unknown name raises and tells the nearest ones."""
        if name not in self._targets:
            expected = f"{self.kind} is one of {', '.join(self.names())}"
            raise UnswayedError(expected, got=repr(name), do=suggest(name, self._targets))
        if name in self._lazy:
            module, attribute = str(self._targets[name]).split(":")
            self._targets[name] = cast(T, getattr(importlib.import_module(module), attribute))
            self._lazy.discard(name)
        return cast(T, self._targets[name])

    def names(self, pattern: str = "*") -> list[str]:
        """The names that match a shell pattern, sorted."""
        return sorted(fnmatch.filter(self._targets, pattern))

    def summary(self, name: str) -> str:
        """The first line of the docstring, read from the source where the object is not imported yet."""
        if name in self._lazy:
            return _docstring_in_source(*str(self._targets[name]).split(":"))
        lines = (getattr(self.get(name), "__doc__", None) or "").strip().splitlines()
        return lines[0] if lines else ""

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def _claim(self, name: str) -> None:
        if name in self._targets:
            raise UnswayedError(f"a {self.kind} name that is still free", got=repr(name), do="choose another name")


def keyword_settings(call: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a function or class, with their defaults.

    A class that hands `**settings` on to its parent has the parent's settings too, after its own.

    >>> keyword_settings(sorted)
    {'key': None, 'reverse': False}
    """
    found: dict[str, Any] = {}
    for maker in [vars(c)["__init__"] for c in call.__mro__ if "__init__" in vars(c)] if _is_class(call) else [call]:
        parameters = inspect.signature(maker).parameters.values()
        found |= {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _is_class(call: Callable[..., Any]) -> TypeGuard[type]:
    return isinstance(call, type)


def check_settings(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raise for the first of the `given` setting names that is not `known` to its `owner`, and tell the nearest.

    >>> check_settings(["Q"], ["q", "reduction"], "the loss gce")
    Traceback (most recent call last):
    ...
    unswayed.errors.UnswayedError: settings of the loss gce are q, reduction, but got 'Q'; did you mean q?
    """
    for name in given:
        if name not in known:
            expected = f"settings of {owner} are {', '.join(known)}" if known else f"no settings: {owner} has none"
            raise UnswayedError(expected, got=repr(name), do=suggest(name.lower(), known))


def check_values(given: Mapping[str, Any], defaults: Mapping[str, Any], owner: str) -> None:
    """Raise for a value that is no yes or no, or no number, where the default is one; owners look at the rest.

    >>> check_values({"detach": 1}, {"detach": True}, "the loss nfl")
    Traceback (most recent call last):
    ...
    unswayed.errors.UnswayedError: the setting detach of the loss nfl is true or false, but got 1
    """
    for name, value in given.items():
        default = defaults.get(name)
        if isinstance(default, bool):
            kind, good = "true or false", isinstance(value, bool)
        elif isinstance(default, int | float):
            kind = "a number"
            good = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        else:
            continue
        if not good:
            raise UnswayedError(f"the setting {name} of {owner} is {kind}", got=repr(value))


def lazy_attributes(room: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A room's `__getattr__`: names by the module that defines them (name -> module), imported when first used."""

    def __getattr__(name: str) -> Any:  # noqa: N807 - it becomes the module's own
        if name in homes:
            return getattr(importlib.import_module(f"{room}.{homes[name]}"), name)
        raise AttributeError(f"module '{room}' has no attribute '{name}'")

    return __getattr__


def _docstring_in_source(module: str, attribute: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""
