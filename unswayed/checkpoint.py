"""Checkpoints: one safetensors file with JSON inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unswayed.errors import UnswayedError
from unswayed.sharding import is_sharded, like
from unswayed.writing import replacing


def write_state(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Save named tensors and what JSON can say about them as one safetensors file."""
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as file:
        file.write(save(whole, metadata={"about": json.dumps(about)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON of a file made by `write_state`; a file of another kind raises."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UnswayedError("a checkpoint", got=f"no file at {path}", do="check the path") from error
    except (SafetensorError, OSError) as error:
        raise UnswayedError(
            "a readable safetensors checkpoint", got=f"{path}: {error}", do="start the run anew"
        ) from error
    if "about" not in metadata:
        raise UnswayedError("a checkpoint written by unswayed", got=f"{path}, a safetensors file of another origin")
    return tensors, json.loads(metadata["about"])


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors and plain JSON."""
    state = optimizer.state_dict()
    tensors, plain = {}, {}
    for number, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}/{key}"] = value
            else:
                plain[f"{number}/{key}"] = value
    return tensors, {"plain": plain, "groups": state["param_groups"]}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Put back what `pack_optimizer` took, spread as the parameters are."""
    state: dict[int, dict[str, Any]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in {**tensors, **about["plain"]}.items():
        number, key = name.split("/", 1)
        if isinstance(value, Tensor):
            shaped = value.shape == parameters[int(number)].shape  # else a count of steps, which is whole everywhere
            value = laid_out(value, parameters[int(number)]) if shaped else value.clone()
        state.setdefault(int(number), {})[key] = value
    # How lists of tensors are stepped is a matter of the machine, not of the run.
    own = [{name: group[name] for name in ("foreach", "fused") if name in group} for group in optimizer.param_groups]
    groups = [{**group, **mine} for group, mine in zip(about["groups"], own, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def laid_out(value: Tensor, model: Tensor) -> Tensor:
    """A copy of `value` spread as `model` is, or with the same strides, which fused optimisers take for granted."""
    spread = like(value.clone(), model)
    return spread if is_sharded(spread) else torch.empty_like(model, dtype=value.dtype, device="cpu").copy_(value)
