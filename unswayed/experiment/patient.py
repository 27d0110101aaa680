"""A trained network with the rows it was trained on, taken up again from its checkpoint, and put back repaired."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unswayed.checkpoint import read_state, write_state
from unswayed.errors import UnswayedError
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.run import build, train
from unswayed.experiment.task import Task, make_task, read_data
from unswayed.machine import Place, find_place
from unswayed.method import Method

NET = "method/net."
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Patient:
    """A network to repair, and what its repair needs."""

    network: nn.Module
    task: Task
    config: Config
    retrain: Callable[[Tensor], tuple[nn.Module, int]]  # rows [N] bool -> a network trained from scratch, epochs
    write: Callable[[Path, nn.Module, Mapping[str, Any]], None]  # file, repaired network, what JSON can say of it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A run's method as its checkpoint has it, with its rows and labels."""

    method: Method
    task: Task
    config: Config
    place: Place
    tensors: Mapping[str, Tensor]  # of the whole checkpoint
    about: Mapping[str, Any]


def take_up(
    checkpoint: Path,
    *,
    data: str | None = None,
    reader: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Finished:
    """The method of a run's checkpoint and its task: the same rows and the same given labels.

    `data` and `reader` say where the data are now; all else (rows held out, limits, planted noise) is as in the run.
    Raises UnswayedError for a file of another origin, or for data with other classes.
    """
    tensors, about = read_state(checkpoint)
    try:
        config, classes = Config(**about["about"]["config"]), about["about"]["classes"]
    except (KeyError, TypeError) as error:
        do = "give the checkpoint.safetensors in a run's folder"
        raise UnswayedError("a checkpoint of a run", got=f"{checkpoint}, without {error}", do=do) from error
    changes: dict[str, Any] = {"data": data, "device": device} if data else {"device": device}
    changes = {name: value for name, value in changes.items() if value is not None}
    config = replace(config, **changes, reader={**config.reader, **(reader or {})})
    task = make_task(config, read_data(config, progress))
    if list(task.dataset.classes) != list(classes):
        do = "give the data that it was trained on"
        raise UnswayedError(f"data of the classes {', '.join(classes)}", got=", ".join(task.dataset.classes), do=do)
    arm, place = parse_arm(config.arm), find_place(config.device, config.precision)
    method = build(config, arm, task)
    state = {name.removeprefix("method/"): value for name, value in tensors.items() if name.startswith("method/")}
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise UnswayedError("a checkpoint that fits these data", got=str(error).split("\n")[-1].strip()) from error
    return Finished(method.to(place.device).eval(), task, config, place, tensors, about)


def admit(
    checkpoint: Path,
    *,
    data: str | None = None,
    reader: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Patient:
    """The network of a run's checkpoint and its task, as `take_up` finds them, ready for repair."""
    run = take_up(checkpoint, data=data, reader=reader, device=device, progress=progress)
    method, task, config, arm = run.method, run.task, run.config, parse_arm(run.config.arm)
    notes = []
    if type(method).forward is not Method.forward:
        notes.append(f"{arm.method} may predict with more than its network `net`: that alone is scored and repaired")

    def retrain(rows: Tensor) -> tuple[nn.Module, int]:
        part = replace(task, train=task.train.take(rows.nonzero()[:, 0]))
        fresh = build(config, arm, part)
        return fresh, len(train(config, fresh, part, run.place).records)

    def write(path: Path, network: nn.Module, said: Mapping[str, Any]) -> None:
        repaired = {NET + name: value for name, value in network.state_dict().items()}
        write_state(path, {**run.tensors, **repaired}, {**run.about, "repair": dict(said)})

    return Patient(method.net, task, config, retrain, write, tuple(notes))


def admit_foreign(
    weights: Path,
    factory: str,
    *,
    data: str,
    reader: Mapping[str, Any] | None = None,
    train_anew: Callable[[nn.Module, Task, Tensor], tuple[nn.Module, int]],
    device: str | None = None,
    progress: Progress | None = None,
) -> Patient:
    """Any module: `factory` is "package.module:callable", `weights` its state dict; rows are as `data.read` makes them.

    `train_anew(module, task, rows)` trains a fresh module of the factory, as the control. Weights are read without
    running code: safetensors, or PyTorch's files of plain tensors.
    """
    make = find_factory(factory)
    config = Config(data=data, reader=dict(reader or {}), device=device or "auto")
    task, place = make_task(config, read_data(config, progress)), find_place(config.device)
    network = make()
    if not isinstance(network, nn.Module):
        raise UnswayedError(f"an nn.Module from {factory}()", got=type(network).__name__)
    try:
        network.load_state_dict(_read_weights(weights))
    except RuntimeError as error:
        raise UnswayedError(f"weights that fit {factory}", got=str(error).split("\n")[-1].strip()) from error

    def write(path: Path, network: nn.Module, said: Mapping[str, Any]) -> None:
        write_state(path, network.state_dict(), {"repair": dict(said)})

    def retrain(rows: Tensor) -> tuple[nn.Module, int]:
        return train_anew(make().to(place.device), task, rows)

    return Patient(network.to(place.device).eval(), task, config, retrain, write)


def find_factory(name: str) -> Callable[[], nn.Module]:
    """The callable called "package.module:callable", from the present folder too.

    >>> find_factory("torch.nn:Identity")()
    Identity()
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UnswayedError("a callable as package.module:callable", got=repr(name), do="for example mynets:make_net")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnswayedError(f"a callable {name} that can be imported", got=error) from error
    finally:
        sys.path.remove("")
    if not callable(found):
        raise UnswayedError(f"a callable {name}", got=type(found).__name__)
    made: Callable[[], nn.Module] = found
    return made


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UnswayedError("a file of weights", got=f"no file at {path}", do="check the path") from error
    except Exception as error:  # the readers of both formats raise all kinds
        kind = "safetensors" if isinstance(error, SafetensorError) else "a state dict of plain tensors"
        raise UnswayedError(f"a file of weights as {kind}", got=f"{path}: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UnswayedError("a state dict", got=f"{path}, something else", do="save model.state_dict()")
    return state
