"""NMTune: reshape frozen features whose encoder was itself trained on noisy data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet, Method, Stage
from unswayed.methods.semi import body_of, features_of, head_of

LEADING = 5  # singular values, as published


class NMTune(Method):
    """Learns an MLP between a frozen body and the head, with a balanced spectrum (NMTune, arXiv 2309.17002).

    z = f + s MLP(f), MLP: linear to 4 d, batch normalisation, ReLU, linear to d; s, one number a feature, is learnt,
    from 1. The loss: the loss of head(z) + `consistency` * MSE(z / |z|, f / |f|), which keeps the features' knowledge,
    + `covariance` * sum of squares of z's covariances of different features / d, - `spectrum` * mean of the five
    leading singular values of the batch's z, each over the sum of all.

    - `consistency` 1, `covariance` .04, `spectrum` .001; `widen` 4, the MLP's width as a multiple of d
    - `views`: "one" view of a row, as the formulas have it and so the default; or "two", as in the program: it learns
      from both, and holds z of the second to f of the first (rows shown as stored: the same twice)
    - `freeze`: whether the body stays as it is; False tunes it as well, towards features held fixed in each step
    - published training: AdamW 1e-3, cosine, weight decay 1e-4, batches of 64, 30 epochs

    It is meant for frozen features (`table` rows through an identity body) and for pretrained bodies. The noise of the
    paper sits in the pre-training; against wrong labels of the task itself, choose a robust `loss`.

    As in the program, singular values count with a gradient to the shares of all of them; our choice: in single
    precision always.
    """

    skip_checks: ClassVar[dict[str, str]] = {"check_gradients_reach_everything": "the body is frozen on purpose"}

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        consistency: float = 1.0,
        covariance: float = 0.04,
        spectrum: float = 0.001,
        widen: float = 4.0,
        views: Literal["one", "two"] = "one",
        freeze: bool = True,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        if views not in ("one", "two"):
            raise UnswayedError("views is one or two", got=repr(views))
        super().__init__(make_net, info)
        self.views = ("weak", "weak") if views == "two" else ("weak",)
        self.consistency = number("consistency", consistency, least=0)
        self.covariance, self.spectrum = number("covariance", covariance, least=0), number("spectrum", spectrum)
        self.freeze, width = freeze, features_of(self.net)
        self.reshape = Reshape(width, max(1, round(number("widen", widen, above=0) * width)))
        self.learner = nn.ModuleList([self.reshape, head_of(self.net)])
        self.criterion = losses.tailored(loss, classes=info.classes, samples=info.samples, **(loss_settings or {}))
        if any(True for _ in self.criterion.parameters()):
            self.learner.append(self.criterion)

    def forward(self, x: Tensor) -> Tensor:
        """Rows [B, ...] -> logits [B, K]."""
        logits: Tensor = head_of(self.net)(self.reshape(body_of(self.net)(x)))
        return logits

    def plan(self, epochs: int) -> list[Stage]:
        """One stage, in which the body rests."""
        return [Stage("reshape", epochs, self.loss, train=self.learner if self.freeze else None, views=self.views)]

    def loss(self, batch: Batch) -> Tensor:
        """The loss at the given labels and the three terms of the features."""
        f = body_of(self.net)(torch.cat(batch.views))
        z = self.reshape(f)
        parts = head_of(self.net)(z).chunk(len(batch.views))
        self.observe(parts[0], batch)
        given = [self.criterion(logits, batch.y, batch.index, batch.weight) for logits in parts]
        total: Tensor = torch.stack(given).mean() + self.criterion.penalty(self.learner.parameters())
        with torch.autocast(z.device.type, enabled=False):
            z, first = z.float(), f.detach()[: len(batch)].float()
            last = z[-len(batch) :]
            total = total + self.consistency * mse_loss(normalize(last, dim=1), normalize(first, dim=1))
            if self.covariance:
                total = total + self.covariance * covariance_term(z)
            return total - self.spectrum * leading_share(z) if self.spectrum else total


class Reshape(nn.Module):
    """f + scale * MLP(f), [B, d] -> [B, d]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden, bias=False),  # batch normalisation would take a bias away again
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, f: Tensor) -> Tensor:
        """[B, d] -> [B, d]."""
        reshaped: Tensor = f + self.scale * self.mlp(f)
        return reshaped


def covariance_term(z: Tensor) -> Tensor:
    """The sum of the squared covariances of different features, divided by d: `[B, d]` -> scalar.

    >>> covariance_term(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))  # their covariance is 4
    tensor(16.)
    """
    centred = z - z.mean(0)
    covariance = centred.T @ centred / max(1, len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def leading_share(z: Tensor) -> Tensor:
    """The mean share of the five leading singular values in the sum of all: `[B, d]` -> scalar.

    >>> leading_share(torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0, 1.0, 1.0])))
    tensor(0.1800)
    """
    values = torch.linalg.svdvals(torch.nan_to_num(z))  # of NaN it raises; the loss will tell
    share: Tensor = values[:LEADING].mean() / values.sum().clamp_min(1e-12)
    return share
