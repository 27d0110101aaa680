"""Noise stability: which rows a person should look at next, by how far predictions move when weights are shaken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from unswayed.data.columns import Column, TensorColumn
from unswayed.errors import UnswayedError
from unswayed.stats.teacher import Teacher

Weights = dict[str, Tensor]

_BYTES_AT_ONCE = 2**28  # of rows held in memory while all perturbations pass over them
_STREAM = 2**40  # apart from the seeds of perturbations: the projection's


class Choice(NamedTuple):
    """The rows to check, the most useful first, and how far the prediction of every row moves."""

    rows: Tensor  # [k] int64
    deviation: Tensor  # [N] norms, 0 or more


def rows_to_check(
    net: nn.Module,
    x: Column | Tensor,
    k: int,
    *,
    suspicion: Tensor | None = None,
    **settings: Any,
) -> Choice:
    """The `k` rows whose labels a person should check next, by noise stability (arXiv 2205.13340).

    `net` is a trained network or method, `x` the rows [N, ...]. Settings as in `deviations`; with `suspicion` as in
    `choose`, which mixes in what else is known of the labels (the published rule never looks at labels).

    >>> _ = torch.manual_seed(0)
    >>> rows_to_check(nn.Linear(2, 3), torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), k=2).rows.shape
    torch.Size([2])
    """
    moved = deviations(net, x, **settings)
    return Choice(choose(moved, k, suspicion=suspicion), moved.norm(dim=1))


def deviations(
    net: nn.Module,
    x: Column | Tensor,
    *,
    z: float = 1e-3,
    rounds: int = 30,
    output: Literal["probabilities", "logits"] = "probabilities",
    which: Literal["all", "weight"] = "all",
    norm: Literal["layer", "whole"] = "layer",
    width: int = 512,
    seed: int = 0,
    size: int = 512,
) -> Tensor:
    """Relative moves of the outputs o under `rounds` perturbations, (o_k - o) / |o|: [N, ...] -> [N, rounds * K].

    z, rounds  size of the noise as a share of the weights' norm, and how often: 1e-3 and 30 as published.
    output     "probabilities" as in the authors' code, or "logits".
    which      "all" parameters; "weight": only those called so (no biases), as in the authors' code.
    norm       "layer": noise of norm z |W| for each tensor W, as in the authors' code; "whole": one direction over
               all weights together, of z times the norm of all, the form in which the theory is stated.
    width      where rounds * K is more, columns are projected to so many by a random matrix, which keeps distances
               within about sqrt(2 / width) of their squares. Our choice: 100,000 rows of 1,000 classes then take 200 MB
               instead of 12 GB.

    Our choices: the weights of a mean teacher (`Teacher`) are shaken too, since it may be what predicts. A row whose
    outputs are not finite gets zeros, so it is never chosen for them; where that is every row, UnswayedError is raised.

    `net` may be on any device and is afterwards what it was, to the bit; batch norms see nothing. One seed gives one
    result: the noise is drawn on the CPU. Rows are read once, in blocks; a pass a round is made over each.
    """
    column = TensorColumn(x) if isinstance(x, Tensor) else x
    _check(len(column), z, rounds, width, size)
    weights = _weights(net, which)
    if not weights:
        raise UnswayedError("a network with weights", got=type(net).__name__, do="give the trained network")
    device = next(iter(weights.values())).device
    per_row = max(1, torch.Size(column.shape).numel() * column.dtype.itemsize)
    at = torch.arange(len(column))
    with _put_back(net, weights) as kept:
        blocks = []
        for rows in torch.split(at, max(size, _BYTES_AT_ONCE // per_row)):
            block = torch.split(column.rows(rows), size)
            _set(weights, kept)
            before = _outputs(net, block, device, output)
            moves = _Moves(before, rounds, width, seed)
            for number in range(rounds):
                generator = torch.Generator().manual_seed((seed << 16) + number)
                _set(weights, kept, _noise(kept, z, norm, generator))
                moves.add(_outputs(net, block, device, output))
            blocks.append(moves.total())
    moved = torch.cat(blocks)
    good = moved.isfinite().all(1)
    if not bool(good.any()):
        do = "look for NaN in the weights or the rows; a diverged run cannot judge"
        raise UnswayedError("a network whose outputs are finite", got="NaN or infinity on every row", do=do)
    return torch.where(good[:, None], moved, 0.0)


@torch.no_grad()
def choose(deviations: Tensor, k: int, *, suspicion: Tensor | None = None) -> Tensor:
    """Greedy k-centre from the origin: `k` rows far from zero and from each other, in order: [N, D] -> [k].

    Each pick is the row with the largest distance to the nearest of the origin and the rows already picked
    (arXiv 2205.13340); ties go to the lower row. All N rows where k is more. O(N k D) operations.

    `suspicion` ([N], 0 or more): distances are multiplied by it before the largest is taken. Our choice, for audits:
    a row is worth a look if it is both unlike those already seen and probably mislabelled.

    >>> choose(torch.tensor([[3.0, 0.0], [2.9, 0.0], [0.0, 1.0], [0.0, 0.0]]), k=3).tolist()
    [0, 2, 1]
    """
    if deviations.dim() != 2 or not len(deviations) or not bool(deviations.isfinite().all()):
        got = f"shape {list(deviations.shape)}" if deviations.dim() != 2 or not len(deviations) else "NaN or infinity"
        raise UnswayedError("finite deviations [N, D] of one row or more", got=got)
    if k < 1:
        raise UnswayedError("one row or more to check", got=k)
    count = len(deviations)
    weight = torch.ones(count, device=deviations.device) if suspicion is None else suspicion.to(deviations.device)
    if weight.shape != (count,) or not bool((weight >= 0).all()) or not bool(weight.isfinite().all()):
        do = "for example 1 - the probability of the given label"
        raise UnswayedError(f"a suspicion of 0 or more for each of {count} rows", got=list(weight.shape), do=do)
    scale = deviations.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    points = deviations.float() / scale  # squares of tiny moves would underflow
    squared = points.square().sum(1)
    nearest, weight = squared.clone(), weight.float().square()
    free = torch.ones(count, device=points.device)
    picks = torch.empty(min(k, count), dtype=torch.int64, device=points.device)
    for number in range(len(picks)):
        score = torch.where(free > 0, nearest * weight, -1.0)
        picks[number] = pick = score.argmax()
        free[pick] = 0
        distance = squared + squared[pick] - 2 * (points @ points[pick])
        nearest = torch.minimum(nearest, distance.clamp_min(0))
    return picks.cpu()


class _Moves:
    """Collects the moves of a block of rows, side by side or projected on fewer columns."""

    def __init__(self, before: Tensor, rounds: int, width: int, seed: int) -> None:
        classes = before.shape[1]
        self.before, self.scale = before, before.norm(dim=1, keepdim=True)
        self.parts: list[Tensor] = []
        self.projections: Iterator[Tensor] | None = None
        if rounds * classes > width:
            generator = torch.Generator().manual_seed(_STREAM + seed)
            drawn = (torch.randn(classes, width, generator=generator) for _ in range(rounds))
            self.projections = (each.to(before.device) / width**0.5 for each in drawn)

    def add(self, after: Tensor) -> None:
        move = (after - self.before) / self.scale
        if self.projections is None:
            self.parts.append(move)
        else:
            projected = move @ next(self.projections)
            self.parts = [self.parts[0].add_(projected)] if self.parts else [projected]

    def total(self) -> Tensor:
        return torch.cat(self.parts, 1).cpu()


def _check(count: int, z: float, rounds: int, width: int, size: int) -> None:
    if not count:
        raise UnswayedError("one row or more", got="none")
    for name, value in (("rounds", rounds), ("width", width), ("size", size)):
        if value < 1:
            raise UnswayedError(f"{name} is 1 or more", got=value)
    if not 0 < z < float("inf"):
        raise UnswayedError("z is a share of the weights' norm above 0", got=z, do="the paper has 1e-3")


def _weights(net: nn.Module, which: str) -> Weights:
    """What learning has set, by name: parameters, and of mean teachers the buffers that stand for them."""
    if which not in ("all", "weight"):
        raise UnswayedError("which is 'all' or 'weight'", got=repr(which))
    found = {name: value.data for name, value in net.named_parameters() if value.is_floating_point()}
    endings = {name[at:] for name in found for at in _starts(name)}
    for prefix, module in net.named_modules():
        if isinstance(module, Teacher):
            weights = ((name, value) for name, value in module.net.named_buffers() if name in endings)
            found |= {f"{prefix}.net.{name}": value for name, value in weights}
    return {name: value for name, value in found.items() if which == "all" or name.rpartition(".")[2] == "weight"}


def _starts(name: str) -> list[int]:
    """Where the parts of a dotted name begin."""
    return [0, *(at + 1 for at, sign in enumerate(name) if sign == ".")]


@contextlib.contextmanager
def _put_back(net: nn.Module, weights: Weights) -> Iterator[Weights]:
    """Evaluation mode without gradients, and a copy of the weights, which they are again at the end."""
    training = [child for child in net.modules() if child.training]
    kept = {name: value.clone() for name, value in weights.items()}
    net.eval()
    try:
        with torch.no_grad():
            yield kept
    finally:
        with torch.no_grad():
            _set(weights, kept)
        for child in training:
            child.training = True


def _set(weights: Weights, kept: Weights, noise: Weights | None = None) -> None:
    for name, value in weights.items():
        value.copy_(kept[name])
        if noise is not None:
            value.add_(noise[name])


def _noise(kept: Weights, z: float, norm: str, generator: Generator) -> Weights:
    """Gaussian noise of norm z |W|, tensor by tensor or for all together; norms in double precision."""
    if norm not in ("layer", "whole"):
        raise UnswayedError("norm is 'layer' or 'whole'", got=repr(norm))
    drawn = {name: torch.randn(weight.shape, generator=generator) for name, weight in kept.items()}
    sizes, lengths = ({name: value.double().norm() for name, value in each.items()} for each in (kept, drawn))
    if norm == "whole":
        size, length = (torch.stack(list(each.values())).norm() for each in (sizes, lengths))
        sizes, lengths = dict.fromkeys(kept, size), dict.fromkeys(kept, length)
    scales = {name: z * float(sizes[name]) / max(float(lengths[name]), 1e-30) for name in kept}
    return {name: (noise * scales[name]).to(kept[name].device, kept[name].dtype) for name, noise in drawn.items()}


def _outputs(net: nn.Module, parts: Sequence[Tensor], device: torch.device, output: str) -> Tensor:
    """[n, K] float32 for all parts together."""
    if output not in ("probabilities", "logits"):
        raise UnswayedError("output is 'probabilities' or 'logits'", got=repr(output))
    logits = torch.cat([net(part.to(device)).float() for part in parts])
    return logits.softmax(1) if output == "probabilities" else logits
