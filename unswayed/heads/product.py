"""The product that every head ends in, and the exchange of a value for another with its gradient kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active
from torch.nn import functional as F


def product(v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear, [..., in] -> [..., out], by the faster of two routes.

    With few outputs a CPU multiplies weight by features about twice as fast as features by weight, when there are many
    features (a KAN layer has nine times as many as inputs).
    """
    if torch.compiler.is_compiling():  # a look at the size would bind the compiled or exported graph to it
        return F.linear(v, weight, bias)
    turned_pays = v.dim() == 2 and v.numel() >= _MANY and len(weight) <= _FEW and v.device.type == "cpu"
    if not turned_pays:
        return F.linear(v, weight, bias)
    turned = torch.mm(weight, v.t()) if bias is None else torch.addmm(bias[:, None], weight, v.t())
    return turned.t().contiguous()  # as nn.Linear gives it: people call `view` on logits


_FEW, _MANY = 32, 2**18


def masked_product(v: Tensor, weight: Tensor, gate: Tensor, bias: Tensor | None) -> Tensor:
    """product(v, weight * gate, bias), [..., in] -> [..., out]; the gate gets no gradient.

    Large weights take a backward pass of their own, which gates the weight's gradient in place: autograd writes it to
    memory a second time, and fresh memory is what costs most there.
    """
    by_hand = weight.numel() >= _LARGE and v.dim() == 2 and not torch.is_autocast_enabled(v.device.type)
    if not by_hand or torch.compiler.is_compiling() or _are_functorch_transforms_active():
        return product(v, weight * gate, bias)
    result: Tensor = _MaskedProduct.apply(v, weight, gate, bias)  # type: ignore[no-untyped-call]
    return result


class _MaskedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, gate: Tensor, bias: Tensor | None) -> Tensor:
        masked = weight * gate
        ctx.save_for_backward(v, masked, gate, weight)
        return product(v, masked, bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor | None, None, Tensor | None]:
        v, masked, gate, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate once more
            masked = weight * gate
        to_v, to_weight, _, to_bias = ctx.needs_input_grad
        return (
            delta @ masked if to_v else None,
            (delta.t() @ v).mul_(gate) if to_weight else None,
            None,
            delta.sum(0) if to_bias else None,
        )


_LARGE = 2**16  # numbers; below it the time of a call from Python weighs more than what it saves


def exchange(value: Tensor, gradient: Tensor) -> Tensor:
    """A tensor with the value of the first and the gradient of the second; both of one shape."""
    if torch.compiler.is_compiling():  # the sum may differ from `value` in its last bit; a compiler knows it better
        return gradient + (value - gradient).detach()
    exchanged: Tensor = _Exchange.apply(value.detach(), gradient)  # type: ignore[no-untyped-call]
    return exchanged


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[None, Tensor]:
        return None, delta
