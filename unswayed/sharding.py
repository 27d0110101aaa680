"""Networks whose parameters are spread over processes (FSDP: torch.distributed.fsdp.fully_shard, torch >= 2.6).

Each process holds its part of every large tensor, of its gradient and of the optimiser's memory of it; the whole is
gathered for a unit's forward and backward pass alone. Rows of per-sample state are not spread: see `stats.rows`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unswayed.errors import UnswayedError

LEAST = 2**16  # numbers: a smaller layer is gathered with its neighbours, for a message costs more than it saves


def is_sharded(value: Tensor) -> bool:
    """Whether this process holds a part of `value` alone (a DTensor; its module takes a second to import)."""
    return hasattr(value, "full_tensor")


def spread(module: nn.Module) -> bool:
    """Whether any parameter of `module` is spread over processes."""
    return any(is_sharded(p) for p in module.parameters())


def local(value: Tensor) -> Tensor:
    """The part of `value` that lies here: all of it, where it is not sharded."""
    sharded: Any = value
    part: Tensor = sharded.to_local() if is_sharded(value) else value
    return part


@torch.no_grad()
def whole(value: Tensor) -> Tensor:
    """All of `value`, gathered where it is sharded: then every process has to ask."""
    sharded: Any = value.detach()
    full: Tensor = sharded.full_tensor() if is_sharded(value) else value
    return full


def load_whole(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """`module.load_state_dict(state)`, also where the module is sharded and the state is whole."""
    now = module.state_dict()
    module.load_state_dict({name: like(value, now[name]) if name in now else value for name, value in state.items()})


def like(value: Tensor, model: Tensor) -> Tensor:
    """`value` spread as `model` is: every process gives the whole and keeps its part."""
    if not is_sharded(model) or is_sharded(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)


def shard_networks(method: nn.Module, device: torch.device, world: int) -> None:
    """Spread the networks of `method` over all processes: its `net` and what else is of the same class.

    A network's `body` and `head` are gathered apart, because methods call them apart, and in them every large element
    of a Sequential or ModuleList. What else learns (matrices of a loss, say) stays whole in every process. The
    processes hold equal parameters before.
    """
    if spread(method):
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, kind = init_device_mesh(device.type, (world,)), type(getattr(method, "net", None))
    for network in method.children():
        if type(network) is kind and any(True for _ in network.parameters()):
            for part in _parts(network):
                for unit in (*_blocks(part), part):
                    single = {p for p in unit.parameters() if p.dim() == 0}  # it has no rows to spread: it stays whole
                    more: dict[str, Any] = {"ignored_params": single} if single else {}
                    fully_shard(unit, mesh=mesh, reshard_after_forward=True, **more)


def settle(module: nn.Module) -> None:
    """Give back what a forward pass gathered, so that `module.parameters()` are the sharded ones."""
    for unit in module.modules():
        if callable(reshard := getattr(unit, "reshard", None)):
            reshard()


def _parts(network: nn.Module) -> list[nn.Module]:
    parts = [
        part for part in (getattr(network, name, None) for name in ("body", "head")) if isinstance(part, nn.Module)
    ]
    held = {id(p) for part in parts for p in part.parameters()}
    if len(parts) < 2 or held != {id(p) for p in network.parameters()}:
        return [network]
    return [part for part in parts if any(True for _ in part.parameters())]


def _blocks(part: nn.Module) -> list[nn.Module]:
    """Large elements of lists of layers, inner ones first, each once."""
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    found = dict.fromkeys(block for one in reversed(lists) for block in one.children() if block is not part)
    return [block for block in found if not isinstance(block, nn.ModuleList) and _size(block) >= LEAST]


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def average_gradients(method: nn.Module, world: int) -> None:
    """The mean over processes of the gradients that FSDP does not see: of parameters that are whole everywhere."""
    mine = [p for p in method.parameters() if p.requires_grad and not is_sharded(p)]
    if not mine:
        return
    used = torch.tensor([p.grad is not None for p in mine], dtype=torch.float32, device=mine[0].device)
    dist.all_reduce(used, dist.ReduceOp.MAX)
    for p, anywhere in zip(mine, used.tolist(), strict=True):
        if anywhere:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad)
            p.grad /= world


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], most: float) -> None:
    """Scale gradients down to a norm of at most `most`: the norm over all parts in all processes."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    zero = torch.zeros((), device=grads[0].device)
    parts, wholes = (
        zero + sum(local(grad).float().square().sum() for grad in grads if is_sharded(grad) is sharded)
        for sharded in (True, False)
    )
    dist.all_reduce(parts)
    factor = (most / ((parts + wholes).sqrt() + 1e-6)).clamp(max=1.0)  # as nn.utils.clip_grad_norm_
    for grad in grads:
        local(grad).mul_(factor)


def part_mixed_groups(optimizer: torch.optim.Optimizer) -> None:
    """Let parameters be stepped one by one where a group holds whole and sharded ones: lists of both do not mix."""
    for group in optimizer.param_groups:
        if len({is_sharded(p) for p in group["params"]}) > 1:
            group["foreach"] = False


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All tensors, sharded ones whole and on the CPU, for processes that `keep` them; every process has to ask.

    One at a time, so that no device holds more than the largest of them.
    """
    found = {}
    for name, value in tensors.items():
        full = whole(value).cpu() if is_sharded(value) else value
        if keep:
            found[name] = full
    return found


@contextlib.contextmanager
def explain_mixing() -> Iterator[None]:
    """Tell in words where a loss takes parameters outside of their network's forward pass."""
    try:
        yield
    except RuntimeError as error:
        if "DTensor" not in str(error):
            raise
        raise _mixed() from error


def whole_alone(loss: Tensor) -> Tensor:
    """The loss as it is; one made of sharded parameters raises, for each process would add up its own gradient."""
    if is_sharded(loss):
        raise _mixed()
    return loss


def _mixed() -> UnswayedError:
    return UnswayedError(
        "a loss that uses parameters in their network's forward pass alone",
        got="one that takes them as they lie, in parts (an l1 penalty, say)",
        do="leave out --shard: every process then holds the whole network",
    )
