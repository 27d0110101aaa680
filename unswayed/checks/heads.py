"""The contract that every head keeps, by its registered name: `for check in HEAD: check("edge-masked")`.

A check raises AssertionError and says what broke. Checks of masks pass over heads that have none.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unswayed import heads
from unswayed.errors import UnswayedError
from unswayed.heads import EdgeMasking
from unswayed.heads.rule import BATCH_SCORES

Check = Callable[[str], None]
FEATURES, CLASSES, ROWS = 6, 4, 16


def make(name: str, **settings: Any) -> nn.Module:
    """A small head, always with the same weights; its bias is not zero, so that a lost bias shows."""
    torch.manual_seed(0)
    head = heads.create(name, FEATURES, CLASSES, **settings)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def features(rows: int = ROWS, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    """Features inside and outside any grid, [rows, FEATURES]; the last one is constant and the first mostly zero."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(rows, FEATURES, generator=generator, dtype=dtype)
    v[:, 0] = v[:, 0].sub(1).clamp_min(0)
    v[:, -1] = 0.7
    return v


def for_masked(check: Check) -> Check:
    """The check, for heads with a mask; others have nothing to break."""

    @functools.wraps(check)
    def guarded(name: str) -> None:
        if isinstance(make(name), EdgeMasking):
            check(name)

    return guarded


def check_shapes(name: str) -> None:
    """Any number of leading dimensions, none and empty ones too; a sample's output does not depend on the others."""
    head, v = make(name).eval(), features(12)
    flat = head(v)
    _demand(flat.shape == (12, CLASSES), f"{name}: [12, {FEATURES}] should give [12, {CLASSES}]", flat.shape)
    _demand(flat.is_contiguous(), f"{name}: logits should be contiguous, as nn.Linear's are")
    _same(head(v.view(3, 4, FEATURES)), flat.view(3, 4, CLASSES), f"{name}: [3, 4, in] differs from its rows")
    _same(head(v[0]), flat[0], f"{name}: one sample without a batch differs from the same in a batch")
    _demand(head(v[:0]).shape == (0, CLASSES), f"{name}: an empty batch should give [0, {CLASSES}]")
    _demand(head.train()(v[:0]).shape == (0, CLASSES), f"{name}: an empty training batch should give [0, {CLASSES}]")


def check_gradients(name: str) -> None:
    """Gradients of inputs and parameters equal finite differences; every parameter gets one."""
    settings = {"at_test": True} if isinstance(make(name), EdgeMasking) else {}
    head = make(name, dtype=torch.float64, **settings)
    head(features(dtype=torch.float64))
    head.eval()
    v = torch.linspace(-1.43, 1.57, 3 * FEATURES, dtype=torch.float64).view(3, FEATURES).requires_grad_()
    names, values = zip(*head.named_parameters(), strict=True)

    def call(v: Tensor, *parameters: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), v)
        return result

    try:
        torch.autograd.gradcheck(call, (v, *values), fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(f"{name}: gradients differ from finite differences") from error
    head.train()(features(dtype=torch.float64)).square().sum().backward()
    without = [key for key, parameter in head.named_parameters() if parameter.grad is None]
    _demand(not without, f"{name}: parameters without a gradient", without)


def check_evaluation(name: str) -> None:
    """Evaluation, and training mode without gradients, change no state; evaluation gives the same twice."""
    head, v = make(name), features()
    head(v)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    _same(head.eval()(v), head(v), f"{name}: evaluation differs from one time to the next")
    with torch.no_grad():
        head.train()(features(seed=2))
    for key, value in head.state_dict().items():
        _demand(torch.equal(value, before[key]), f"{name}: evaluation changed {key}")


def check_saved(name: str) -> None:
    """A head loaded from a state dict, and a deep copy, go on as the first one does, to the bit."""
    settings = {"every": 3, "warmup": 1, "momentum": 0.5} if isinstance(make(name), EdgeMasking) else {}
    head = make(name, **settings)
    for seed in range(5):
        head(features(seed=seed))
    loaded = heads.create(name, FEATURES, CLASSES, **settings)
    loaded.load_state_dict(head.state_dict())
    copied = copy.deepcopy(head)
    for seed in range(5, 12):
        expected = head(features(seed=seed))
        for other, what in ((loaded, "a head loaded from its state dict"), (copied, "a deep copy")):
            _demand(torch.equal(other(features(seed=seed)), expected), f"{name}: {what} goes on differently")
    _demand(torch.equal(copied.state_dict()["weight"], head.state_dict()["weight"]), f"{name}: a copy lost its weights")


def check_settings(name: str) -> None:
    """Unknown settings, and values out of their range, are refused with an UnswayedError."""
    wrong: list[dict[str, Any]] = [{"no_such_setting": 1}]
    if isinstance(make(name), EdgeMasking):
        wrong += [{"keep": 0.0}, {"keep": 1.5}, {"keep": float("nan")}, {"every": 0}, {"warmup": -1}, {"momentum": 1.0}]
        wrong += [{"score": "no_such_score"}, {"scope": "no_such_scope"}, {"temperature": 0.0}]
    for settings in wrong:
        try:
            make(name, **settings)
        except UnswayedError:
            continue
        _demand(False, f"{name}: {settings} should have been refused")


@for_masked
def check_masked_edges(name: str) -> None:
    """A masked edge leaves the training output, and its gradient is exactly zero; a kept edge has one."""
    head, v = _masked(make(name, keep=0.5, every=100)), features()
    head(v).square().sum().backward()
    gone = _of_weight(head.mask == 0, head.weight)
    grad = head.weight.grad
    _demand(grad is not None and bool((grad[gone] == 0).all()), f"{name}: a masked edge has a gradient")
    _demand(grad is not None and bool((grad[~gone] != 0).any()), f"{name}: no kept edge has a gradient")
    output = head(v)
    with torch.no_grad():
        head.weight[gone] += 1.0
    _demand(torch.equal(head(v), output), f"{name}: a masked edge reaches the training output")
    with torch.no_grad():
        head.weight[~gone] += 1.0
    _demand(not torch.equal(head(v), output), f"{name}: kept edges do not reach the training output")


@for_masked
def check_evaluation_edges(name: str) -> None:
    """Evaluation uses every edge; with at_test=True the same edges as training."""
    for at_test in (False, True):
        head, v = _masked(make(name, keep=0.5, every=100, at_test=at_test)), features()
        trained = head(v)
        every_edge = copy.deepcopy(head)
        every_edge.mask = torch.ones_like(head.mask)
        _demand(not torch.allclose(trained, every_edge(v)), f"{name}: training output does not depend on the mask")
        _same(head.eval()(v), trained if at_test else every_edge(v), f"{name}: wrong edges at at_test={at_test}")


@for_masked
def check_share(name: str) -> None:
    """Of competing edges exactly the share `keep` stays, ties and dead features or not, whatever score and scope."""
    for scope, dim in (("class", 1), ("input", 0), ("global", None)):
        for score, draw in [*((score, False) for score in BATCH_SCORES), ("std", True)]:
            head = _masked(make(name, keep=0.4, every=1, score=score, scope=scope, draw=draw))
            for v in (features(), features(1), torch.zeros(ROWS, FEATURES)):
                head(v)
                n = head.mask.numel() if dim is None else head.mask.shape[dim]
                kept = head.mask.sum() if dim is None else head.mask.sum(dim)
                share = max(1, int(0.4 * n + 0.5))
                exact = bool((kept == share).all()) and bool(((head.mask == 0) | (head.mask == 1)).all())
                _demand(exact, f"{name}: {score} per {scope} (draw={draw}) keeps {kept} instead of {share} of {n}")


@for_masked
def check_schedule(name: str) -> None:
    """No mask in the warm-up, then a new one every `every` steps, with a share that falls along the ramp.

    Two masks of one share differ only if masked edges come back.
    """
    head = _masked(make(name, keep=0.5, every=2, warmup=3, ramp=4, score="random"))
    masks = []
    for seed in range(12):
        head(features(seed=seed))
        masks.append(head.mask.clone())
    shares = [round(float(mask.mean()), 2) for mask in masks]
    expected = [1.0, 1.0, 1.0, 1.0, 1.0, 0.83, 0.83, 0.5, 0.5, 0.5, 0.5, 0.5]  # 4.5 of 6 edges round to 5
    _demand(shares == expected, f"{name}: shares kept should be {expected}", shares)
    renewed = [step for step in range(1, 12) if not torch.equal(masks[step], masks[step - 1])]
    _demand(renewed == [5, 7, 9, 11], f"{name}: masks should change at steps 5, 7, 9, 11", renewed)


@for_masked
def check_scores(name: str) -> None:
    """Closed-form scores equal the naive ones, made by sending every edge alone through the head, [B, out, in]."""
    for dtype in (torch.float32, torch.float64):
        for rows in (1, 2, ROWS):
            v = features(rows, dtype)
            edges = _edges_alone(_masked(make(name, dtype=dtype)), v)
            p = torch.softmax(make(name, dtype=dtype).eval()(v), 1)[..., None]
            naive = {
                "std": edges.std(0, correction=0),
                "mean_abs": edges.abs().mean(0),
                "second_moment": edges.square().mean(0),
                "obd": 0.5 * (p * (1 - p) * edges.square()).mean(0),
            }
            if rows > 1:
                naive["std, unbiased"] = edges.std(0)
            for score, expected in naive.items():
                head = _masked(make(name, dtype=dtype, score=score.split(",")[0], unbiased="unbiased" in score))
                close = {"rtol": 1e-3, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
                _same(head.edge_scores(v), expected, f"{name}: {score}, {rows} rows, {dtype}", **close)


@for_masked
def check_best_kept(name: str) -> None:
    """The edges that stay are those of the highest score on the very batch that renews the mask."""
    for score in ("std", "mean_abs", "second_moment", "obd", "weight"):
        head, v = _masked(make(name, keep=0.5, score=score)), features()
        head(v)
        worth = head.edge_scores(v)
        worst_kept = torch.where(head.mask == 1, worth, torch.inf).amin(1)
        best_gone = torch.where(head.mask == 0, worth, -torch.inf).amax(1)
        _demand(bool((worst_kept >= best_gone).all()), f"{name}: {score} masks an edge better than one it keeps")


def _edges_alone(head: EdgeMasking, v: Tensor) -> Tensor:
    head = copy.deepcopy(head).eval()
    result = v.new_zeros(len(v), CLASSES, FEATURES)
    weight = head.weight.detach().clone()
    with torch.no_grad():
        if isinstance(head.bias, Tensor):
            head.bias.zero_()
        for j in range(CLASSES):
            for k in range(FEATURES):
                head.weight.zero_()
                head.weight[j, ..., k] = weight[j, ..., k]
                result[:, j, k] = head(v)[:, j]
    return result


def _masked(head: nn.Module) -> EdgeMasking:
    if not isinstance(head, EdgeMasking):
        raise AssertionError(f"{type(head).__name__} has no mask")
    return head


def _of_weight(edges: Tensor, weight: Tensor) -> Tensor:
    """[out, in] -> the shape of a weight [out, ..., in]."""
    return edges if weight.dim() == 2 else edges[:, None].expand_as(weight)


def _same(got: Tensor, expected: Tensor, what: str, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what}\n{text}")


def _demand(fine: bool, what: str, got: object = None) -> None:
    if not fine:
        raise AssertionError(what if got is None else f"{what}, but got {got}")


HEAD: list[Check] = [
    check_shapes,
    check_gradients,
    check_evaluation,
    check_saved,
    check_settings,
    check_masked_edges,
    check_evaluation_edges,
    check_share,
    check_schedule,
    check_scores,
    check_best_kept,
]


def check_head(name: str) -> None:
    """Run the whole contract on a registered head; the first broken rule raises an AssertionError that names it."""
    for check in HEAD:
        try:
            check(name)
        except Exception as error:
            raise AssertionError(f"{name} breaks {check.__name__}: {error}") from error
