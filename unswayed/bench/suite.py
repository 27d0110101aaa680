"""Suites: grids of runs as short YAML files, or Python files with a mapping `SUITE`, and changes made to them."""

from __future__ import annotations

import fnmatch
import itertools
import re
import runpy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from unswayed.errors import UnswayedError, suggest
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config

# What a run is told, wherever it stands: for all runs, for a task or for an arm. `body` joins arms that name none.
RUN = tuple(f.name for f in fields(Config) if f.name not in ("arm", "seed", "shard"))
EVERYWHERE = (*RUN, "body", "corrupted", "strength")
TASK = (*EVERYWHERE, "source", "repair")
ARM = (*EVERYWHERE, "arm", "heads")
TOP = (*EVERYWHERE, "source", "about", "control", "seeds", "tasks", "arms", "heads", "tune", "repair", "published")
TUNE = ("hold_out", "settings")
REPAIR = ("evidence", "as_published", "share", "epochs", "lr", "batch", "layer", "controls")
AXES = ("rate", "limit")  # what a task may name several values of


@dataclass(frozen=True)
class Task:
    """Rows, their wrong labels and the recipe: where arms meet."""

    name: str
    fields: dict[str, Any]  # of a run, and `body`, `corrupted`, `strength`
    source: str  # the data, for a reader
    repair: dict[str, Any] = field(default_factory=dict)  # what of the suite's repair is different here
    family: str = ""  # tasks that differ in one number alone share a family,
    axis: str = ""  # which number it is,
    at: float = 0.0  # and its value

    @property
    def title(self) -> str:
        """For a reader: `CIFAR-10 (JPEG), symmetric 40 %`."""
        parts = [self.source or self.name]
        if noise := self.fields.get("noise"):
            parts.append(f"{noise} {100 * self.fields.get('rate', 0):g} %")
        elif label := self.fields.get("reader", {}).get("label"):
            parts.append(f"labels {label}")
        if share := self.fields.get("corrupted"):
            parts.append(f"{100 * share:g} % of inputs corrupted")
        if limit := self.fields.get("limit"):
            parts.append(f"{limit:,} rows")
        return ", ".join(parts)


@dataclass(frozen=True)
class Arm:
    """What is trained, and what of the recipe is its own."""

    name: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuning:
    """The settings that every arm may choose from, equally many each, by held-out given labels."""

    hold_out: float
    settings: dict[str, tuple[dict[str, Any], ...]]  # by arm


@dataclass(frozen=True)
class Suite:
    """A grid: tasks x arms x seeds, and how its results are read."""

    name: str
    about: str
    control: str
    seeds: tuple[int, ...]
    tasks: tuple[Task, ...]
    arms: tuple[Arm, ...]
    tune: Tuning | None = None
    repair: dict[str, Any] | None = None  # given: every run is repaired in all ways, and the ways are the arms
    published: tuple[str, ...] = ()

    def task(self, name: str) -> Task:
        """The task of that name."""
        return next(task for task in self.tasks if task.name == name)


def shipped() -> list[str]:
    """The names of the suites that come with the package."""
    return sorted(f.name.removesuffix(".yaml") for f in _folder().iterdir() if f.name.endswith(".yaml"))


def read_suite(
    which: str | Path,
    *,
    changes: Sequence[str] = (),
    tasks: Sequence[str] = (),
    arms: Sequence[str] = (),
    seeds: int | None = None,
    first: int = 0,
) -> Suite:
    """A suite by name or file, changed and thinned.

    `changes` are texts like "epochs=3" (everywhere), "tasks.PATTERN.limit=2000" or "arms.PATTERN.lr=.1"; `tasks` and
    `arms` are shell patterns of what to keep; `seeds` and `first` say how many seeds and from which on.
    """
    given = read_mapping(which)
    if seeds is not None:
        given["seeds"] = seeds
    suite = make_suite(Path(which).stem, given, changes, first)
    kept_tasks = _kept([task.name for task in suite.tasks], tasks, "task")
    kept_arms = _kept([arm.name for arm in suite.arms], arms, "arm")
    return Suite(
        **{
            **vars(suite),
            "tasks": tuple(task for task in suite.tasks if task.name in kept_tasks),
            "arms": tuple(arm for arm in suite.arms if arm.name in kept_arms),
        }
    )


def _kept(names: list[str], patterns: Sequence[str], what: str) -> list[str]:
    for pattern in patterns:
        if not _matching(names, pattern):
            do = suggest(pattern, names, f"the {what}s are {', '.join(names)}")
            raise UnswayedError(f"a pattern that some {what} fits", got=repr(pattern), do=do)
    return [name for name in names if not patterns or any(_matching([name], pattern) for pattern in patterns)]


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that fit a shell pattern, or are just so."""
    return [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]


# ------------------------------------------------------------------------------------------------ files


def _folder() -> Any:
    return resources.files("unswayed.bench").joinpath("suites")


def read_mapping(which: str | Path) -> dict[str, Any]:
    """The contents of a suite: a shipped one by name, else a YAML or Python file."""
    path = Path(which)
    if str(which) in shipped():
        return read_yaml(_folder().joinpath(f"{which}.yaml").read_text(encoding="utf-8"), str(which))
    if not path.is_file():
        do = suggest(str(which), shipped(), f"suites are {', '.join(shipped())}, or files .yaml and .py")
        raise UnswayedError("the name of a suite, or a file of one", got=repr(str(which)), do=do)
    if path.suffix in (".yaml", ".yml"):
        return read_yaml(path.read_text(encoding="utf-8"), str(path))
    if path.suffix != ".py":
        raise UnswayedError("a suite as a file .yaml or .py", got=str(path))
    found = runpy.run_path(str(path)).get("SUITE")
    if not isinstance(found, Mapping):
        got = "none" if found is None else type(found).__name__
        raise UnswayedError(f"a mapping SUITE in {path}", got=got, do="it has the keys of a YAML suite")
    return dict(found)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but 1e-3 is a number, and only true and false are booleans."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way
        first: [(tag, rule) for tag, rule in rules if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_NUMBER = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """A mapping from YAML text."""
    found = _value(text, where)
    if not isinstance(found, dict):
        raise UnswayedError(f"a mapping in {where}", got=type(found).__name__)
    return found


def _value(text: str, where: str) -> Any:
    """
    >>> [_value(text, "") for text in ("1e-3", ".5", "12", "true", "no", "[.2, .4]")]
    [0.001, 0.5, 12, True, 'no', [0.2, 0.4]]
    """
    try:
        _refuse_twice(yaml.compose(text, _Loader))
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UnswayedError(f"YAML in {where}", got=" ".join(str(error).split())) from error


def _refuse_twice(node: yaml.Node | None) -> None:
    """Raise for a key that stands twice in one mapping, of which YAML's reader would keep the second."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if twice := next((key for i, key in enumerate(keys) if key in keys[:i]), None):
            raise UnswayedError("every key once", got=f"{twice!r} twice, from line {node.start_mark.line + 1} on")
        for _, value in node.value:
            _refuse_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value)


# ------------------------------------------------------------------------------------------------ from a mapping


def make_suite(name: str, given: Mapping[str, Any], changes: Sequence[str] = (), first: int = 0) -> Suite:
    """A suite from a mapping of the keys of a YAML suite, with `changes` made to it."""
    given = {key: value for key, value in given.items() if value is not None}
    _check_keys(given, TOP, "a suite")
    raw = {part: _named(part, given.get(part)) for part in ("tasks", "arms")}
    parted = [_parted(change) for change in changes]
    for part, pattern, key, value in parted:
        if not part:
            _set_everywhere(given, raw, key, value)
        elif _matching(raw[part], pattern):
            _set(raw[part], pattern, key, value)
    grown = {"tasks": _grow_tasks(raw["tasks"]), "arms": _grow_arms(raw["arms"], given.get("heads", ["linear"]))}
    for part, pattern, key, value in parted:
        if part and not _matching(raw[part], pattern):
            if not _matching(grown[part], pattern):
                do = suggest(pattern, grown[part], f"they are {', '.join(grown[part])}")
                raise UnswayedError(f"{part} that fit --set {part}.{pattern}", got="none", do=do)
            _set(grown[part], pattern, key, value)
    common = {key: given[key] for key in (*EVERYWHERE, "source") if key in given}
    tasks = tuple(_task(task, {**common, **own}) for task, own in grown["tasks"].items())
    arms = tuple(_arm(arm, own) for arm, own in grown["arms"].items())
    seeds = given.get("seeds", 3)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UnswayedError("seeds is how many, 1 or more", got=repr(seeds))
    published = given.get("published", [name])
    return Suite(
        name=name,
        about=" ".join(str(given.get("about", "")).split()),
        control=str(given.get("control", "before" if "repair" in given else "plain")),
        seeds=tuple(range(first, first + seeds)),
        tasks=tasks,
        arms=arms,
        tune=_tuning(given["tune"], arms) if "tune" in given else None,
        repair=_repair(given["repair"], "repair") if "repair" in given else None,
        published=tuple([published] if isinstance(published, str) else published),
    )


def _check_keys(given: Mapping[str, Any], known: Sequence[str], owner: str) -> None:
    for key in given:
        if key not in known:
            do = suggest(str(key), known, f"known are {', '.join(sorted(known))}")
            raise UnswayedError(f"a key of {owner}", got=repr(key), do=do)


def _named(part: str, given: Any) -> dict[str, dict[str, Any]]:
    """Tasks and arms by name: a mapping, or for arms a list of texts and of mappings with `arm`."""
    if part == "arms" and isinstance(given, Sequence) and not isinstance(given, str):
        entries = [{"arm": entry} if isinstance(entry, str) else entry for entry in given]
        if not all(isinstance(entry, Mapping) and "arm" in entry for entry in entries):
            raise UnswayedError("arms that are texts, or mappings with `arm`", got=repr(given))
        found = {str(entry["arm"]): dict(entry) for entry in entries}
        if len(found) < len(entries):
            texts = [entry["arm"] for entry in entries]
            twice = next(text for i, text in enumerate(texts) if text in texts[:i])
            raise UnswayedError("arms that differ", got=f"{twice!r} twice", do="give them names: a mapping of arms")
    elif isinstance(given, Mapping):
        found = {str(k): {"arm": v} if isinstance(v, str) else dict(v or {}) for k, v in given.items()}
    else:
        raise UnswayedError(f"a suite with {part}", got="none" if given is None else repr(given))
    for name, own in found.items():
        _check_keys(own, TASK if part == "tasks" else ARM, f"the {part[:-1]} {name}")
    if not found:
        raise UnswayedError(f"a suite with {part}", got="none")
    return found


_CHANGE = re.compile(r"^(?:(?P<part>tasks|arms)\.(?P<pattern>.+)\.)?(?P<key>\w+)=(?P<value>.*)$", re.DOTALL)


def _parted(change: str) -> tuple[str, str, str, Any]:
    """
    >>> _parted("arms.gce edge-masked(keep=.1).lr=1e-2")
    ('arms', 'gce edge-masked(keep=.1)', 'lr', 0.01)
    """
    match = _CHANGE.match(change)
    if match is None:
        do = "for example epochs=3, tasks.cifar-*.limit=2000 or arms.gce.lr=.1"
        raise UnswayedError("--set KEY=VALUE, tasks.NAME.KEY=VALUE or arms.NAME.KEY=VALUE", got=repr(change), do=do)
    part, known = match["part"] or "", {"tasks": TASK, "arms": ARM}.get(match["part"] or "", TOP)
    _check_keys({match["key"]: None}, known, f"--set {part}.{match['pattern']}" if part else "--set")
    return part, match["pattern"] or "", match["key"], _value(match["value"], f"--set {change}")


def _set_everywhere(given: dict[str, Any], raw: dict[str, dict[str, dict[str, Any]]], key: str, value: Any) -> None:
    """A change without a place holds everywhere: what tasks and arms say of it gives way."""
    if key in ("tasks", "arms"):
        raise UnswayedError(f"--set {key}.NAME.KEY=VALUE", got=f"{key}=...", do=f"or --{key} to choose among them")
    given[key] = value
    for own in (*raw["tasks"].values(), *raw["arms"].values()):
        own.pop(key, None)
        if key == "data":
            own.pop("source", None)
    if key == "data":
        given.pop("source", None)


def _set(entries: dict[str, dict[str, Any]], pattern: str, key: str, value: Any) -> None:
    for name in _matching(entries, pattern):
        if key == "data":
            entries[name]["source"] = str(value)  # what the suite says of its data no longer holds
        entries[name][key] = value


def _grow_tasks(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """One task for each of several rates or limits: `symmetric` with `rate: [.2, .4]` -> symmetric-20, symmetric-40."""
    grown: dict[str, dict[str, Any]] = {}
    for name, own in raw.items():
        several = [axis for axis in AXES if isinstance(own.get(axis), list)]
        for values in itertools.product(*(own[axis] for axis in several)):
            at = dict(zip(several, values, strict=True))
            marks = [f"{100 * value:g}" if axis == "rate" else f"{value:g}" for axis, value in at.items()]
            family = {"_family": name, "_axis": several[-1]} if several else {}
            if len(several) > 1:
                family["_family"] = "-".join([name, *marks[:-1]])
            grown["-".join([name, *marks])] = {**own, **at, **family}
    return grown


def _grow_arms(raw: Mapping[str, Mapping[str, Any]], heads: Any) -> dict[str, dict[str, Any]]:
    """Every arm with every head of the suite, or with those of its own."""
    grown: dict[str, dict[str, Any]] = {}
    for name, own in raw.items():
        text = str(own.get("arm", name))
        chosen = own.get("heads", heads)
        if not isinstance(chosen, list) or not chosen:
            raise UnswayedError("heads that are a list of heads", got=repr(chosen), do="for example [linear]")
        for head in chosen if parse_arm(text).head == "linear" else ["linear"]:
            suffix = "" if head == "linear" else f" {head}"
            settings = {key: value for key, value in own.items() if key != "heads"}
            grown[name + suffix] = {**settings, "arm": text + suffix}
    return grown


def _task(name: str, own: Mapping[str, Any]) -> Task:
    if not isinstance(own.get("data"), str):
        raise UnswayedError(f"data of the task {name}, as text", got=repr(own.get("data")), do="data: digits")
    axis = str(own.get("_axis", ""))
    apart = ("source", "repair", "_family", "_axis")
    return Task(
        name=name,
        fields={key: value for key, value in own.items() if key not in apart},
        source=str(own.get("source", own["data"])),
        repair=_repair(own.get("repair", {}), f"the repair of {name}"),
        family=str(own.get("_family", "")),
        axis=axis,
        at=float(own[axis]) if axis else 0.0,
    )


def _arm(name: str, own: Mapping[str, Any]) -> Arm:
    text = str(own["arm"])
    parse_arm(text)  # a word that is not known raises here, before anything runs
    return Arm(name, text, {key: value for key, value in own.items() if key != "arm"})


def _repair(given: Any, owner: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise UnswayedError(f"{owner} as a mapping", got=repr(given), do="for example {epochs: 10}")
    _check_keys(given, REPAIR, owner)
    return dict(given)


def _tuning(given: Any, arms: Sequence[Arm]) -> Tuning:
    """The settings of each arm; the first pattern that fits an arm counts, and "*" fits all."""
    if not isinstance(given, Mapping) or not isinstance(given.get("settings"), Mapping):
        raise UnswayedError(
            "tune with `settings` by arm", got=repr(given), do='for example {"*": [{lr: .1}, {lr: .01}]}'
        )
    _check_keys(given, TUNE, "tune")
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    for arm in arms:
        pattern = next((p for p in given["settings"] if _matching([arm.name], p)), None)
        if pattern is None:
            do = f"add {arm.name!r}, or '*' for all others"
            raise UnswayedError("settings to choose from for every arm", got=f"none for {arm.name}", do=do)
        found[arm.name] = tuple(dict(choice) for choice in given["settings"][pattern])
        for choice in found[arm.name]:
            _check_keys(choice, (*EVERYWHERE, "arm"), f"the settings of {arm.name}")
    counts = {name: len(choices) for name, choices in found.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UnswayedError("equally many settings to choose from for every arm", got=said, do="tuning must be fair")
    share = given.get("hold_out", 0.2)
    if not isinstance(share, int | float) or not 0 < share < 1:
        raise UnswayedError("hold_out of tune is a share in (0, 1)", got=repr(share))
    return Tuning(float(share), found)
