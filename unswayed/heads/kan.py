"""Kolmogorov-Arnold heads: every edge is a learned function of its input."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unswayed.errors import UnswayedError
from unswayed.heads import basis
from unswayed.heads.grids import FeatureScale, transfer
from unswayed.heads.product import product

RANGES = {"none": (-1.0, 1.0), "tanh": (-1.0, 1.0), "layer": (-1.0, 1.0), "batch": (-2.0, 2.0)}


class FunctionEdges(nn.Module):
    """Edges that are functions: f_jk(x) = w_jk0 SiLU(x) + sum_g w_jkg b_g(s(x)), one curve b_g around each grid centre.

    `weight` is [out, 1 + G, in]: SiLU first, then the G curves. Subclasses choose the curves.

    `norm` says what the curves see, s(x):
    none   the feature itself.
    tanh   its hyperbolic tangent, which brings every feature into a grid over [-1, 1].
    layer  the features of the sample less their mean, over their standard deviation (without learned scale and shift.
           Our choice: the coefficients can do their work).
    batch  each feature less its mean, over its standard deviation, over the rows seen in training (`FeatureScale`), so
           that the grid covers features of any place and size. It learns in training mode with gradients enabled and
           stands still in evaluation. The numbers are buffers, kept with the model; `fit_grid` sets them at once.
    With the first three SiLU sees the feature itself, so an edge still carries a feature outside the grid, where all
    curves are zero. With "batch" (our choice) SiLU sees what the curves see, or features around 300 would drown the
    curves; and an outlier counts as lying one grid's width beyond the end of the grid, or one feature that seldom
    varies would decide alone.

    Start (our choice): SiLU's weights and the bias as those of nn.Linear, so the layer starts as an ordinary one behind
    a SiLU; curves normal with standard deviation `spread` / sqrt(in), by default a small perturbation that keeps all of
    them in play.
    """

    grid_centres: Tensor
    weight: Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool, *, curve: basis.Curve, centres: Tensor, step: float,
        range: tuple[float, float], norm: str, spread: float, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        _whole("in_features", in_features, 1)
        _whole("out_features", out_features, 1)
        if not isinstance(spread, int | float) or isinstance(spread, bool) or not 0 <= spread < math.inf:
            raise UnswayedError("spread is a number, at least 0", got=repr(spread), do="for example spread=0.1")
        self.in_features, self.out_features, self.norm = in_features, out_features, norm
        self.range, self.spread = range, float(spread)
        self._curve, self._step = curve, step
        self.register_buffer("grid_centres", centres.to(device=device), persistent=False)
        self.weight = nn.Parameter(torch.empty(out_features, 1 + len(centres), in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        self.scale = FeatureScale(in_features, self.weight.device, wide) if norm == "batch" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights, and forget where features lie."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.normal_(self.weight, std=self.spread * bound)
        with torch.no_grad():
            self.weight[:, 0].uniform_(-bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        if self.scale is not None:
            self.scale.reset()

    def basis(self, v: Tensor) -> Tensor:
        """The values of SiLU and of every curve, [B, in] -> [B, 1 + G, in]; in float32 at least."""
        v = seen = _at_least_float32(v)
        low, high = self.range
        if self.scale is not None:
            v = seen = self.scale(v).clamp(2 * low - high, 2 * high - low)
        elif self.norm == "tanh":
            seen = v.tanh()
        elif self.norm == "layer":
            seen = F.layer_norm(v, (self.in_features,))
        return basis.table(v, (seen - low) * (1 / self._step), self.grid_centres.to(v.dtype), self._curve)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        v = input.reshape(-1, self.in_features)
        if self.scale is not None and self.training and torch.is_grad_enabled():
            self.scale.learn(_at_least_float32(v))
        return self._combine(self.basis(v)).reshape(*input.shape[:-1], self.out_features)

    @torch.no_grad()
    def fit_grid(self, v: Tensor, *, refit: bool = True, fixed: bool = False) -> None:
        """Lay the grid over the features v, [..., in], at once; for `norm="batch"`.

        refit  change the coefficients too, in place, so that each edge stays the function it was, by least squares over
               v (and, with a hundredth of the weight, over the whole grid: where no feature lies it stays as well).
               A fresh layer has nothing to keep: `refit=False`.
        fixed  from now on the grid stands still, in training too; it says so in the state dict.
        Rows that are not finite are left out. Raises UnswayedError for another norm, or where no row is left.
        """
        if self.scale is None:
            raise UnswayedError("a layer with norm='batch', whose grid can be moved", got=f"norm={self.norm!r}")
        rows = _at_least_float32(v.detach().reshape(-1, self.in_features))
        rows = rows[rows.isfinite().all(1)]
        if len(rows) == 0:
            raise UnswayedError("features of one row or more, all of them finite", got=f"{list(v.shape)}")
        before = self._twin()
        self.scale.reset()
        self.scale.learn(rows)
        if fixed:
            self.scale.rows.fill_(math.inf)
        if refit:
            after = self._twin()
            assert after.scale is not None
            even = _between(*self.range, 20 * self.weight.shape[1])[:, None]
            points = torch.cat([rows.cpu().double(), after.scale.mean + even * after.scale.std])
            importance = torch.full((len(points),), 1 / len(rows), dtype=torch.float64)
            importance[len(rows) :] = 0.01 / len(even)
            matrix = transfer(before.basis, after.basis, points, importance)
            self.weight.copy_(torch.einsum("knm,omk->onk", matrix, before.weight))

    def extra_repr(self) -> str:
        """Sizes and grid."""
        curves = self.weight.shape[1] - 1
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, curves={curves}"
        return f"{sizes}, range={self.range}, norm={self.norm!r}"

    @torch.no_grad()
    def _change_curves(self, centres: Tensor, step: float) -> None:
        """Other curves over the same range; the optimiser has to be made anew, for the weight is a new parameter."""
        points = _between(*self.range, 20 * max(len(centres), len(self.grid_centres)))[:, None]
        old = _curves(self._curve, self.range[0], self._step, self.grid_centres)
        matrix = transfer(old, _curves(self._curve, self.range[0], step, centres), points, torch.ones(len(points)))[0]
        weight = torch.cat([self.weight[:, :1], matrix.to(self.weight) @ self.weight[:, 1:]], 1)
        self.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        self.grid_centres, self._step = centres.to(self.grid_centres), step

    def _twin(self) -> FunctionEdges:
        """A copy in double precision on the processor."""
        return copy.deepcopy(self).to("cpu", torch.float64)

    def _combine(self, values: Tensor) -> Tensor:
        return self._mix(values, self.weight)

    def _mix(self, values: Tensor, weight: Tensor) -> Tensor:
        return product(values.to(weight.dtype).flatten(1), weight.flatten(1), self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A checkpoint without a scale loads too: until training goes on, features are seen as they are."""
        if self.scale is not None and prefix + "weight" in state_dict and prefix + "scale.mean" not in state_dict:
            fresh = FeatureScale(self.in_features).state_dict()
            state_dict.update({f"{prefix}scale.{name}": value for name, value in fresh.items()})
        super()._load_from_state_dict(state_dict, prefix, *rest)


class KANLinear(FunctionEdges):
    """A Kolmogorov-Arnold layer of B-splines with a SiLU base (arXiv 2404.19756), [..., in] -> [..., out].

    grid    intervals of the uniform grid.  order  of the splines (3: cubic; others take a slower recursion).
    range   of what the splines see that the grid covers; they fade out within `order` steps beyond it. None: (-1, 1),
            for the norm "batch" (our choice) (-2, 2), two standard deviations to both sides.
    norm    what the splines see: "none" (as published), "tanh", "layer" or "batch"; see `FunctionEdges`.
    spread  of the splines' first coefficients, in 1 / sqrt(in).
    Defaults of grid, order, range and norm are those of efficient-kan, which every measured figure here was made with.
    For features of unknown size take norm="layer", range=(-2, 2): of the settings run on all eight cells of a study
    (results/kan_defaults.json: digits and news, 40 % wrong labels, five seeds) it is the one shown to lose in none; it
    gains 6 points on news, and 30 to 45 where features are a hundred times smaller. "batch" loses 7 on digits under
    cross-entropy.

    >>> KANLinear(5, 3)(torch.zeros(2, 5)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, grid: int = 5, order: int = 3,
        range: tuple[float, float] | None = None, norm: str = "none", spread: float = 0.1, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        _whole("grid", grid, 1)
        _whole("order", order, 0)
        low, high = _interval(range, norm)
        curve: basis.Curve = basis.cubic if order == 3 else partial(basis.bspline, order=order)
        super().__init__(
            in_features, out_features, bias, curve=curve, centres=_spline_centres(grid, order),
            step=(high - low) / grid, range=(low, high), norm=norm, spread=spread, device=device, dtype=dtype,
        )  # fmt: skip
        self.grid, self.order = grid, order

    def refine(self, grid: int) -> None:
        """Change the number of intervals and keep the functions: coarse to fine, as arXiv 2404.19756 trains.

        On the range they stay exactly the same where `grid` is a multiple of the present one, else as near as least
        squares bring them. Beyond it they fade out faster than before, as a finer grid's do. `weight` becomes a new
        parameter: make the optimiser anew.
        """
        _whole("grid", grid, 1)
        self._change_curves(_spline_centres(grid, self.order), (self.range[1] - self.range[0]) / grid)
        self.grid = grid


class RadialKANLinear(FunctionEdges):
    """A Kolmogorov-Arnold layer of Gaussians with a SiLU base (FastKAN, arXiv 2405.06721), [..., in] -> [..., out].

    centres  Gaussians an edge, spread evenly over `range`; their width is the distance between two.
    range    of what the Gaussians see: the outermost ones stand at its ends.
    norm     what the Gaussians see: "layer" (as FastKAN, less its learned scale and shift), "batch", "tanh" or "none".
    spread   of the Gaussians' first coefficients, in 1 / sqrt(in).
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, centres: int = 8,
        range: tuple[float, float] = (-2.0, 2.0), norm: str = "layer", spread: float = 0.1, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        _whole("centres", centres, 2)
        low, high = _interval(range, norm)
        super().__init__(
            in_features, out_features, bias, curve=basis.gaussian, centres=torch.arange(centres, dtype=torch.float32),
            step=(high - low) / (centres - 1), range=(low, high), norm=norm, spread=spread, device=device, dtype=dtype,
        )  # fmt: skip
        self.centres = centres

    def refine(self, centres: int) -> None:
        """Change the number of Gaussians and keep the functions on the range as near as least squares bring them.

        `weight` becomes a new parameter: make the optimiser anew.
        """
        _whole("centres", centres, 2)
        step = (self.range[1] - self.range[0]) / (centres - 1)
        self._change_curves(torch.arange(centres, dtype=torch.float32), step)
        self.centres = centres


def _spline_centres(grid: int, order: int) -> Tensor:
    return torch.arange(grid + order, dtype=torch.float32) - (order - 1) / 2


def _curves(curve: basis.Curve, low: float, step: float, centres: Tensor) -> Callable[[Tensor], Tensor]:
    """The curves alone, without SiLU, at points [N, 1]: -> [N, G, 1], in double precision on the processor."""
    centres = centres.cpu().double()[:, None]
    return lambda points: curve((points[:, None] - low) / step - centres, False)[0]


def _between(low: float, high: float, count: int) -> Tensor:
    """The middles of `count` equal parts."""
    return low + (torch.arange(count, dtype=torch.float64) + 0.5) * ((high - low) / count)


def _at_least_float32(v: Tensor) -> Tensor:
    return v.to(torch.promote_types(v.dtype, torch.float32))


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UnswayedError(f"{name} is a whole number, at least {least}", got=repr(value))


def _interval(range: tuple[float, float] | None, norm: str) -> tuple[float, float]:
    if norm not in RANGES:
        raise UnswayedError(f"norm is one of {', '.join(RANGES)}", got=repr(norm))
    low, high = map(float, RANGES[norm] if range is None else range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UnswayedError("range is (low, high) with low < high", got=repr(range), do="for example range=(-1, 1)")
    return low, high
