"""Losses that remember each training sample: they need `samples` at the start and `index` at each call.

What they remember is indexed by the sample, never by its place in a batch. It changes only by training: ELR's targets
in training mode with gradients enabled, SOP's parameters by the optimiser.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.losses import terms
from unswayed.losses.base import Loss, Reduction, number, read, read_index
from unswayed.stats.rows import register_rows


def elr(logits: Tensor, y: Tensor, target: Tensor, *, lam: float = 3.0) -> Tensor:
    """CE + lam log(1 - <p, target>): `[B, K]`, `[B]`, `[B, K]` -> `[B]` (arXiv 2007.00151).

    `target` is the running mean of the sample's own predictions and takes no gradient. p is clamped to
    [1e-4, 1 - 1e-4] in the second term, as in the authors' program, which bounds it and its slope.
    """
    number("lam", lam, least=0)
    logits, y = read(logits, y)
    if target.shape != logits.shape:
        raise UnswayedError(f"target has shape {list(logits.shape)}", got=f"shape {list(target.shape)}")
    log_p = torch.log_softmax(logits, 1)
    return _elr(log_p, log_p.exp().clamp(1e-4, 1 - 1e-4), y, target.detach().to(logits), lam)


def _elr(log_p: Tensor, p: Tensor, y: Tensor, target: Tensor, lam: float) -> Tensor:
    return lam * torch.log1p(-(p * target).sum(1)) - terms.at_label(log_p, y)


class ELR(Loss):
    """Early-learning regularisation: predictions held to their own running mean (arXiv 2007.00151)."""

    needs_index: ClassVar[bool] = True
    target: Tensor

    def __init__(
        self, *, classes: int, samples: int, lam: float = 3.0, momentum: float = 0.7, reduction: Reduction = "mean"
    ) -> None:
        """`momentum` is the share of the old target kept at each update, beta in the paper."""
        super().__init__(reduction=reduction)
        self.lam = number("lam", lam, least=0)
        self.momentum = number("momentum", momentum, least=0, below=1)
        register_rows(self, "target", torch.zeros(_rows(samples, "ELR"), classes))

    def per_sample(self, logits: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
        """`elr` with the samples' targets; in training these first take in the new predictions.

        A sample twice in a batch keeps one of its two updates.
        """
        logits, y = read(logits, y)
        index = read_index(index, len(logits), "ELR")
        log_p = torch.log_softmax(logits, 1)
        p = log_p.exp().clamp(1e-4, 1 - 1e-4)
        if self.training and torch.is_grad_enabled():
            new = p.detach() / p.detach().sum(1, keepdim=True)
            self.target[index] = torch.lerp(new.to(self.target), self.target[index], self.momentum)
        return _elr(log_p, p, y, self.target[index].to(p), self.lam)


def sop(logits: Tensor, y: Tensor, u: Tensor, v: Tensor, *, floor: float = 1e-4, joint: bool = False) -> Tensor:
    """Sparse over-parameterisation: `[B, K]`, `[B]`, u `[B, 1]`, v `[B, K]` -> `[B]` (arXiv 2202.14026).

    The label's noise is modelled as s = u^2 y - v^2 (1 - y), both squares cut to [0, 1]. The loss is the cross-entropy
    of max(p + s, floor), normalised, plus |e_top + s - y|^2 with e_top the one-hot of the likeliest class. The first
    part teaches the model and u, the second v. `joint` lets the second teach u as well, as the authors' last program
    does.
    """
    number("floor", floor, above=0, below=1)
    logits, y = read(logits, y)
    if u.shape != (len(y), 1) or v.shape != logits.shape:
        got = f"shapes {list(u.shape)} and {list(v.shape)}"
        raise UnswayedError(f"u has shape [{len(y)}, 1] and v {list(logits.shape)}", got=got)
    hot = torch.zeros_like(logits).scatter(1, y.unsqueeze(1), 1.0) if y.dim() == 1 else y
    gain = (u.square() * hot).clamp(0, 1)
    drop = (v.square() * (1 - hot)).clamp(0, 1)
    shifted = (torch.softmax(logits, 1) + gain - drop.detach()).clamp(min=floor)
    fit = shifted.sum(1).log() * hot.sum(1) - (hot * shifted.log()).sum(1)
    top = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1.0)
    return fit + (top + (gain if joint else gain.detach()) - drop - hot).square().sum(1)


class SOP(Loss):
    """Sparse over-parameterisation: each sample's label noise is learned beside the model (arXiv 2202.14026).

    u and v want their own steps: `parameter_settings` holds their learning rates, no weight decay, no momentum, and
    "steady": no schedule lowers the rates, as in the authors' program.
    """

    needs_index: ClassVar[bool] = True

    def __init__(
        self,
        *,
        classes: int,
        samples: int,
        lr_u: float = 10.0,
        lr_v: float = 10.0,
        spread: float = 1e-8,
        floor: float = 1e-4,
        joint: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        """`spread` is the standard deviation of the start of u and v, drawn from torch's global generator."""
        super().__init__(reduction=reduction)
        number("spread", spread, least=0)
        self.floor = number("floor", floor, above=0, below=1)
        self.joint = joint
        self.u = nn.Parameter(torch.randn(_rows(samples, "SOP"), 1) * spread)
        self.v = nn.Parameter(torch.randn(samples, classes) * spread)
        own = {"weight_decay": 0.0, "momentum": 0.0, "steady": True}
        self.parameter_settings = {
            "u": {"lr": number("lr_u", lr_u, least=0), **own},
            "v": {"lr": number("lr_v", lr_v, least=0), **own},
        }

    def per_sample(self, logits: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
        """`sop` with the samples' own u and v."""
        index = read_index(index, len(logits), "SOP")
        return sop(logits, y, self.u[index], self.v[index], floor=self.floor, joint=self.joint)


def _rows(samples: int, owner: str) -> int:
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise UnswayedError(f"{owner} keeps a row a training sample: samples is their number", got=repr(samples))
    return samples
