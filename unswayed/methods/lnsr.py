"""LNSR: what a layer passes on should hardly change when noise is added to what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet, Method
from unswayed.methods.semi import body_of, head_of


class LNSR(Method):
    """Fine-tuning with layer-wise noise stability as a regulariser (LNSR, arXiv 2107.04835 and 2206.05658).

    Gaussian noise is added to the output of one layer of the body; how far features and logits then move, squared, is
    added to the loss. A network that is steady there finds it harder to memorise single rows.

    layer     name of that layer in the body ("layers.stem"), see `net.body.named_modules()`; "": its first layer that
              has parameters, or in a body without any (frozen features), its output.
    sigma     size of the noise.
    features  weight of the movement of the features between body and head.
    logits    weight of the movement of the logits.
    later     weight of the movement of each layer behind the one with noise, in the same container (the later blocks
              of a transformer, the later entries of a sequence). Published: all of them; our choice: 0, since layers
              behind one another are not alike in every network here, and features and logits are in all of them.
    measure   "squared", as published: noise of standard deviation sigma, squared lengths of the movements; or
              "relative", our choice and the default: sigma is a multiple of each output's standard deviation over the
              batch, and the squares are means over their numbers, relative to the batch's variance, so that no width
              and no layer's scale needs a weight of its own.
    loss      any; published: cross-entropy.

    No program of the authors was found. The weights 1 and `sigma` .1 are ours, not published ones. Rows with and
    without noise go through in one pass, so that batch normalisation treats them alike; dropout differs between them.
    Costs twice the forward and backward pass.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        layer: str = "",
        sigma: float = 0.1,
        features: float = 1.0,
        logits: float = 1.0,
        later: float = 0.0,
        measure: Literal["relative", "squared"] = "relative",
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        if measure not in ("relative", "squared"):
            raise UnswayedError("measure is relative or squared", got=repr(measure))
        super().__init__(make_net, info)
        self.relative, self.later = measure == "relative", number("later", later, least=0)
        self.layer, self.sigma = layer, number("sigma", sigma, least=0)
        find_layer(body_of(self.net), layer)
        self.weights = number("features", features, least=0), number("logits", logits, least=0)
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))

    def loss(self, batch: Batch) -> Tensor:
        """The loss of the rows without noise, and how far noise moves them."""
        body, behind = body_of(self.net), list[Tensor]()
        layer = find_layer(body, self.layer)
        # The hooks live for one pass: they are no part of the network that is saved and evaluated.
        hooks = [layer.register_forward_hook(self._disturb)]
        if self.later:
            hooks += [m.register_forward_hook(lambda *seen: behind.append(seen[2])) for m in layers_behind(body, layer)]
        try:
            features = body(torch.cat([batch.x, batch.x]))
        finally:
            for hook in hooks:
                hook.remove()
        logits = head_of(self.net)(features)
        steady = logits[: len(batch)]
        self.observe(steady, batch)
        total: Tensor = self.criterion(steady, batch.y, batch.index, batch.weight)
        total = total + self.criterion.penalty(self.net.parameters())
        moves = [*zip(self.weights, (features, logits), strict=True), *((self.later, both) for both in behind)]
        for weight, both in moves:
            total = total + weight * movement(*both.float().chunk(2), relative=self.relative)
        return total

    def _disturb(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        still, moved = output.chunk(2)
        noise = self.sigma * torch.randn_like(moved)
        if self.relative:
            noise = noise * still.detach().float().std(0, correction=0)
        return torch.cat([still, moved + noise.to(moved.dtype)])


def find_layer(body: nn.Module, name: str) -> nn.Module:
    """The layer of that name; of "", the first with parameters of its own, or the whole body."""
    modules = dict(body.named_modules())
    if not name:
        return next((m for m in modules.values() if any(True for _ in m.parameters(recurse=False))), body)
    if name not in modules:
        raise UnswayedError(f"a layer of the body: {', '.join(filter(None, modules))}", got=repr(name))
    found: nn.Module = modules[name]
    return found


def layers_behind(body: nn.Module, layer: nn.Module) -> list[nn.Module]:
    """The layers that come after `layer` in the container that holds it; none behind the body itself."""
    for container in body.modules():
        children = list(container.children())
        if layer in children:
            return children[children.index(layer) + 1 :]
    return []


def movement(still: Tensor, moved: Tensor, *, relative: bool = True) -> Tensor:
    """The mean squared difference over the variance of what stands still: `[B, ...]`, `[B, ...]` -> scalar.

    Not `relative`, it is the squared length of the difference, the mean over the rows.

    >>> movement(torch.tensor([[1.0], [-1.0]]), torch.tensor([[2.0], [-1.0]]))
    tensor(0.5000)
    """
    squares = (moved - still).square()
    if not relative:
        return squares.flatten(1).sum(1).mean()
    return squares.mean() / still.detach().var(0, correction=0).mean().clamp_min(1e-6)
