"""From a suite to its cells, and what each is called: a hash of its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from unswayed.bench.suite import RUN, Arm, Suite, Task
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config

FORMAT = 1  # of what is hashed: another number makes other cells of the same configurations
_DEFAULTS = {f.name: getattr(Config(data=""), f.name) for f in fields(Config)}


@dataclass(frozen=True)
class Cell:
    """One piece of work and one result file. Names are the suite's; what is hashed is the rest, without the machine."""

    task: str
    arm: str
    seed: int
    config: Config  # data may begin with {root}
    kind: Literal["train", "repair"] = "train"
    more: dict[str, Any] = field(default_factory=dict)  # corrupted, strength, hold_out of a trial, settings of repair
    trial: int | None = None  # which of the settings to choose from, in tuning

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as plain data.

        Settings that have their default are left out, so that a cell keeps its name when a new setting comes; the
        device is left out, because a cell is the same cell on any machine.
        """
        arm = {name: value for name, value in asdict(parse_arm(self.config.arm)).items() if name != "title"}
        given = self.config.as_json() | {"arm": arm}
        config = {k: v for k, v in given.items() if k != "device" and (k == "data" or v != _DEFAULTS.get(k))}
        known = {"format": FORMAT, "kind": self.kind, "config": config, **self.more}
        plain: dict[str, Any] = json.loads(json.dumps(_tidy(known)))
        return plain

    @property
    def key(self) -> str:
        """The name of the cell's file: 16 hexadecimal digits."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tidy(value: Any) -> Any:
    """Numbers that are equal are written alike: 1.0 as 1."""
    if isinstance(value, Mapping):
        return {str(key): _tidy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_tidy(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


@dataclass(frozen=True)
class Entry:
    """One place of the grid, with the cells that compete for it: one, or after trials the chosen one of several."""

    task: str
    arm: str
    seed: int
    options: tuple[Cell, ...]
    trials: tuple[Cell, ...] = ()  # as many as options, each on the rows that are left without the held-out ones


def entries(suite: Suite) -> Iterator[Entry]:
    """The grid, seed by seed, so that every comparison grows evenly."""
    for seed in suite.seeds:
        for task in suite.tasks:
            for arm in suite.arms:
                yield _entry(suite, task, arm, seed)


def _entry(suite: Suite, task: Task, arm: Arm, seed: int) -> Entry:
    choices = suite.tune.settings[arm.name] if suite.tune else ({},)
    options = tuple(_cell(suite, task, arm, seed, choice) for choice in choices)
    if suite.tune is None:
        return Entry(task.name, arm.name, seed, options)
    held = {"hold_out_given": suite.tune.hold_out}
    trials = tuple(
        Cell(
            task.name,
            arm.name,
            seed,
            replace(option.config, analyse=False),
            "train",
            {**_inputs(option.more), **held},
            i,
        )
        for i, option in enumerate(options)
    )
    return Entry(task.name, arm.name, seed, options, trials)


def _inputs(more: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in more.items() if key in ("corrupted", "strength")}


def _cell(suite: Suite, task: Task, arm: Arm, seed: int, choice: Mapping[str, Any]) -> Cell:
    told = {**task.fields, **arm.fields, **choice}
    text = str(told.pop("arm", arm.text))
    if (body := told.pop("body", None)) and parse_arm(text).body is None:
        text = f"{text} {body}"
    more: dict[str, Any] = {}
    if told.get("corrupted"):
        more = {"corrupted": told["corrupted"], "strength": told.get("strength", 3.0)}
    if suite.repair is not None:
        more["repair"] = {**suite.repair, **task.repair}
    config = Config(arm=text, seed=seed, **{name: told[name] for name in RUN if name in told})
    return Cell(task.name, arm.name, seed, config, "train" if suite.repair is None else "repair", more)
