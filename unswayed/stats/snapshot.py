"""A copy of a module's state, kept as buffers: saved, moved and resumed with whoever holds it."""

from __future__ import annotations

import torch
from torch import nn

from unswayed.sharding import load_whole, whole


class Snapshot(nn.Module):
    """Holds a copy (never a reference) of a module's parameters and buffers.

    >>> layer = nn.Linear(2, 1)
    >>> kept, before = Snapshot(layer), layer.weight.detach().clone()
    >>> _ = nn.init.zeros_(layer.weight)
    >>> kept.put_back(layer)
    >>> torch.equal(layer.weight, before)
    True
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, value in module.state_dict().items():
            self.register_buffer(name.replace(".", "/"), value.detach().clone())

    @torch.no_grad()
    def take(self, module: nn.Module) -> None:
        """Copy the state of `module`, which has the form of the one given first."""
        for name, value in module.state_dict().items():
            self.get_buffer(name.replace(".", "/")).copy_(whole(value))

    @torch.no_grad()
    def put_back(self, module: nn.Module) -> None:
        """Give `module` the state that was copied."""
        load_whole(module, {name.replace("/", "."): value for name, value in self.named_buffers()})
