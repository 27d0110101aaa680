"""Exact values of the losses, worked out by hand."""

from __future__ import annotations

import math
from math import exp, log, sqrt

import pytest
import torch
from torch import nn

from unswayed import UnswayedError, losses
from unswayed.stats.rows import row_buffers

P = (0.7, 0.2, 0.1)
LOGITS = torch.tensor([P], dtype=torch.float64).log() + 3  # softmax does not see the shift
CE = tuple(-log(p) for p in P)
FOCAL = tuple(sqrt(1 - p) * -log(p) for p in P)
A = -log(1e-7)
A_FOCAL = sqrt(1 - 1e-7) * A
NNCE_1 = 1 - (A - CE[1]) / (3 * A - sum(CE))
NNFL_1 = 1 - (A_FOCAL - FOCAL[1]) / (3 * A_FOCAL - sum(FOCAL))

# Name, settings, label, value at P.
EXACT = [
    ("ce", {}, 0, 0.35667494),
    ("ce", {}, 1, CE[1]),
    ("label-smoothing", {"smoothing": 0.3}, 1, 0.8 * CE[1] + 0.1 * CE[0] + 0.1 * CE[2]),
    ("mae", {}, 1, 0.8),
    ("mae", {"doubled": True}, 1, 1.6),
    ("mse", {}, 1, 0.49 + 0.64 + 0.01),
    ("mse", {"averaged": True}, 1, 1.14 / 3),
    ("focal", {"gamma": 2.0}, 1, 0.64 * CE[1]),
    ("focal", {}, 1, FOCAL[1]),
    ("focal", {"detach": True}, 1, FOCAL[1]),
    ("focal", {"gamma": 0.0}, 1, CE[1]),
    ("rce", {}, 1, 9.210340371976182 * 0.8),
    ("rce", {"floor": math.exp(-4)}, 1, 4 * 0.8),
    ("gce", {}, 1, (1 - 0.2**0.7) / 0.7),
    ("gce", {"q": 1.0}, 1, 0.8),
    ("sce", {"alpha": 6.0, "beta": 0.1}, 1, 6 * CE[1] + 0.1 * 9.210340371976182 * 0.8),
    ("taylor-ce", {}, 1, 0.8 + 0.32),
    ("taylor-ce", {"order": 1}, 1, 0.8),
    ("taylor-ce", {"order": 3}, 0, 0.3 + 0.045 + 0.009),
    ("js", {}, 1, (0.5 * -log(0.6) + 0.5 * (0.8 * log(2) + 0.2 * log(0.2 / 0.6))) / (0.5 * log(2))),
    (
        "js",
        {"weight": 0.9},
        0,
        (0.9 * -log(0.97) + 0.1 * (0.3 * log(10) + 0.7 * log(0.7 / 0.97))) / (-0.1 * log(0.1)),
    ),
    ("agce", {"a": 6.0, "q": 1.5}, 1, (7**1.5 - 6.2**1.5) / 1.5),
    ("aul", {"a": 6.3, "q": 1.5}, 1, (6.1**1.5 - 5.3**1.5) / 1.5),
    ("ael", {"a": 5.0}, 1, exp(-0.04)),
    ("nce", {}, 1, CE[1] / sum(CE)),
    ("nfl", {}, 1, FOCAL[1] / sum(FOCAL)),
    ("nnce", {}, 1, NNCE_1),
    ("nnce", {"min_prob": 0.15}, 2, 1.0),
    ("nnce", {"min_prob": 0.15}, 0, 1 - log(0.7 / 0.15) / (log(0.7 / 0.15) + log(0.2 / 0.15))),
    ("nnfl", {}, 1, NNFL_1),
    ("nnfl", {"detach": True}, 1, NNFL_1),
    ("nce+mae", {"alpha": 10.0, "beta": 0.1}, 1, 10 * CE[1] / sum(CE) + 0.08),
    ("nce+rce", {}, 1, CE[1] / sum(CE) + 9.210340371976182 * 0.8),
    ("nfl+rce", {"beta": 2.0}, 1, FOCAL[1] / sum(FOCAL) + 2 * 9.210340371976182 * 0.8),
    ("nce+agce", {}, 1, CE[1] / sum(CE) + 4 * (7**1.5 - 6.2**1.5) / 1.5),
    ("nce+aul", {}, 1, CE[1] / sum(CE) + 4 * (6.1**1.5 - 5.3**1.5) / 1.5),
    ("nce+ael", {}, 1, CE[1] / sum(CE) + 4 * exp(-0.04)),
    ("anl-ce", {"alpha": 10.0, "beta": 1.0}, 1, 10 * CE[1] / sum(CE) + NNCE_1),
    ("anl-fl", {}, 1, 5 * FOCAL[1] / sum(FOCAL) + 5 * NNFL_1),
    ("anl-ce-er", {}, 1, 5 * CE[1] / sum(CE) + 5 * NNCE_1),
    ("forward", {}, 1, CE[1]),
    ("backward", {}, 1, CE[1]),
    ("cores", {}, 1, CE[1] - 2 * sum(CE) / 3),
    ("cores", {"beta": 1.0, "prior": torch.tensor([0.5, 0.5, 0.0])}, 1, CE[1] - (CE[0] + CE[1]) / 2),
    ("eps-softmax", {"m": 9.0, "alpha": 1.0, "beta": 0.0}, 0, -log(0.97)),
    ("eps-softmax", {"m": 9.0, "alpha": 1.0, "beta": 0.0}, 1, -log(0.02)),
    ("eps-softmax", {"m": 9.0, "alpha": 2.0, "beta": 3.0}, 1, -2 * log(0.02) + 3 * 1.6),
    ("eps-softmax", {"m": 9.0, "alpha": 2.0, "beta": 3.0, "doubled": False}, 1, -2 * log(0.02) + 3 * 0.8),
    ("eps-softmax", {"m": 9.0, "alpha": 1.0, "beta": 0.0, "gamma": 2.0}, 1, -(0.98**2) * log(0.02)),
    ("eps-softmax", {"m": 9.0, "alpha": 1.0, "beta": 0.0, "floor": 0.05}, 1, -log(0.05)),
]


@pytest.mark.parametrize(("name", "settings", "label", "value"), EXACT)
def test_value(name, settings, label, value):
    loss = losses.create(name, classes=3, **settings)
    assert loss.per_sample(LOGITS, torch.tensor([label])).item() == pytest.approx(value, rel=1e-6)


def test_every_loss_has_an_exact_value():
    elsewhere = {"bi-tempered", "gjs", "elr", "sop", "peer"}  # below
    assert {name for name, *_ in EXACT} | elsewhere == set(losses.names())


@pytest.mark.parametrize(
    ("t1", "expected"),
    [
        # -log_t1 p_y - (1 - sum p^(2 - t1)) / (2 - t1), log_t(x) = (x^(1 - t) - 1) / (1 - t)
        (0.5, (1 - sqrt(0.3)) / 0.5 - (1 - 0.5**1.5 - 0.3**1.5 - 0.2**1.5) / 1.5),
        (0.0, 0.7 - (1 - 0.25 - 0.09 - 0.04) / 2),
        (1.0, -log(0.3)),
    ],
)
def test_bi_tempered_where_the_tempered_softmax_is_known(t1, expected):
    # exp_2(x) = 1 / (1 - x): logits 1 - 1 / p give p.
    logits = 1 - 1 / torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64) + 7
    found = losses.bi_tempered(logits, torch.tensor([1]), t1=t1, t2=2.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_bi_tempered_without_temperatures_is_cross_entropy():
    assert losses.bi_tempered(LOGITS, torch.tensor([1]), t1=1.0, t2=1.0).item() == pytest.approx(CE[1])


def test_bi_tempered_of_a_soft_label_is_zero_where_the_prediction_is_that_label():
    soft = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    for t1 in (0.3, 1.0):
        assert losses.bi_tempered(1 - 1 / soft, soft, t1=t1, t2=2.0).item() == pytest.approx(0, abs=1e-9)
        assert losses.bi_tempered(torch.zeros(1, 3).double(), soft, t1=t1, t2=2.0).item() > 0.01


def test_tempered_softmax_is_where_the_published_iteration_ends():
    from unswayed.losses.terms import tempered_log_softmax

    logits = 3 * torch.randn(20, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (1.2, 2.0, 4.0):
        start = logits - logits.amax(1, keepdim=True)
        point = start
        for _ in range(500):
            point = start * (1 + (1 - t) * point).pow(1 / (1 - t)).sum(1, keepdim=True).pow(1 - t)
        total = (1 + (1 - t) * point).pow(1 / (1 - t)).sum(1, keepdim=True)
        p = (1 + (1 - t) * point).pow(1 / (1 - t)) / total
        torch.testing.assert_close(tempered_log_softmax(logits, t).exp(), p, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("t", [1.02, 1.2, 2.0, 4.0])
@pytest.mark.parametrize("scale", [0.01, 1, 30, 1000])
def test_tempered_softmax_sums_to_one(t, scale):
    from unswayed.losses.terms import tempered_log_softmax

    for classes in (2, 10, 1000):
        logits = scale * torch.randn(64, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        sums = tempered_log_softmax(logits, t).exp().sum(1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)


def test_gjs_of_two_views():
    views = torch.tensor([[[0.6, 0.4]], [[0.2, 0.8]]], dtype=torch.float64)
    m = (0.5 + 0.25 * 0.8, 0.25 * 1.2)
    expected = 0.5 * -log(m[0])
    expected += 0.25 * (0.6 * log(0.6 / m[0]) + 0.4 * log(0.4 / m[1]))
    expected += 0.25 * (0.2 * log(0.2 / m[0]) + 0.8 * log(0.8 / m[1]))
    found = losses.create("gjs", classes=2, weight=0.5)(views.log(), torch.tensor([0]))
    assert found.item() == pytest.approx(expected / (0.5 * log(2)))


def test_gjs_of_one_view_or_equal_views_is_js():
    logits, y = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 4
    js = losses.js(logits, y, weight=0.3)
    torch.testing.assert_close(losses.gjs(logits, y, weight=0.3), js)
    torch.testing.assert_close(losses.gjs(torch.stack([logits] * 3), y, weight=0.3), js)


def test_js_lies_between_cross_entropy_and_mae():
    y = torch.tensor([1])
    assert losses.js(LOGITS, y, weight=1e-6).item() == pytest.approx(CE[1], rel=1e-4)
    assert losses.js(LOGITS, y, weight=1 - 1e-9).item() == pytest.approx(0.8, rel=0.1)


SYMMETRIC = {"mae": 6.0, "rce": 6 * 9.210340371976182, "nce": 1.0, "nfl": 1.0, "nnce": 6.0, "nnfl": 6.0}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_symmetric_loss_summed_over_all_labels_is_constant(name):
    """What makes a loss robust to symmetric noise: sum_k loss(p, k) does not depend on p."""
    logits = 3 * torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    loss = losses.create(name, classes=7)
    total = sum(loss.per_sample(logits, torch.full((20,), k)) for k in range(7))
    torch.testing.assert_close(total, torch.full((20,), SYMMETRIC[name]), rtol=1e-5, atol=0)


def test_soft_labels_average_the_losses_of_hard_ones():
    logits = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    soft = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    for name in ("ce", "mae", "focal", "gce", "taylor-ce", "nce", "nfl", "nnce", "agce", "aul", "ael", "anl-ce"):
        loss = losses.create(name, classes=4)
        hard = torch.stack([loss.per_sample(logits, torch.full((6,), k)) for k in range(4)], 1)
        torch.testing.assert_close(loss.per_sample(logits, soft), (hard * soft).sum(1), msg=name)


def test_soft_labels_between_distributions():
    soft = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    assert losses.mse(LOGITS, soft).item() == pytest.approx(0.04 + 0.09 + 0.01)
    expected = -(0.7 + 0.2) * log(0.5) - 0.1 * log(1e-4)
    assert losses.rce(LOGITS, soft).item() == pytest.approx(expected)
    m = (0.6, 0.35, 0.05)
    expected = 0.5 * (0.5 * log(0.5 / 0.6) + 0.5 * log(0.5 / 0.35))
    expected += 0.5 * sum(p * log(p / q) for p, q in zip(P, m, strict=True))
    assert losses.js(LOGITS, soft).item() == pytest.approx(expected / (0.5 * log(2)))
    assert losses.js(soft[:, :2].log(), soft[:, :2]).item() == pytest.approx(0, abs=1e-12)


def gradient(function, **settings):
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(function(logits, torch.tensor([1]), **settings).sum(), logits)[0][0].tolist()


def test_detached_focal_factor_is_a_weight():
    factor = sqrt(0.8)
    assert gradient(losses.focal, detach=True) == pytest.approx([0.7 * factor, -0.8 * factor, 0.1 * factor])
    slope = 0.5 / factor * CE[1] * 0.2  # of the factor, through p
    assert gradient(losses.focal)[1] == pytest.approx(-0.8 * (factor + slope))


def test_detached_normalized_focal_factors_are_weights():
    weight = [sqrt(1 - p) for p in P]
    total = sum(w * c for w, c in zip(weight, CE, strict=True))

    def slope(j):  # of sum_k weight_k CE_k at logit j
        return sum(w * (P[j] - (j == k)) for k, w in enumerate(weight))

    expected = [(weight[1] * (P[j] - (j == 1)) - FOCAL[1] / total * slope(j)) / total for j in range(3)]
    assert gradient(losses.nfl, detach=True) == pytest.approx(expected)
    assert gradient(losses.nfl) != pytest.approx(expected, rel=1e-2)


def test_peer_of_one_sample_is_a_share_of_cross_entropy():
    found = losses.create("peer", classes=3, alpha=0.25).per_sample(LOGITS, torch.tensor([1]))
    assert found.item() == pytest.approx(-0.75 * log(0.2 + 1e-5))


def test_peer_pairs_two_independent_shuffles():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 4
    torch.manual_seed(3)
    inputs, labels = torch.randperm(6), torch.randperm(6)
    torch.manual_seed(3)
    found = losses.peer(logits, y, alpha=0.5)
    log_p = (logits.softmax(1) + 1e-5).log()
    expected = [-log_p[i, y[i]] + 0.5 * log_p[inputs[i], y[labels[i]]] for i in range(6)]
    torch.testing.assert_close(found, torch.stack(expected))
    torch.manual_seed(3)
    torch.testing.assert_close(losses.peer(logits, torch.nn.functional.one_hot(y, 4).float(), alpha=0.5), found)


# ---------------------------------------------------------------------------------------------------------------------
# Losses that remember


def test_elr_over_two_epochs():
    loss = losses.create("elr", classes=3, samples=4, lam=2.0, momentum=0.75)
    logits, y, index = LOGITS.float(), torch.tensor([1]), torch.tensor([2])
    first = loss(logits, y, index)
    assert first.item() == pytest.approx(CE[1] + 2 * log(1 - 0.25 * (0.49 + 0.04 + 0.01)), rel=1e-5)
    assert loss.target[2].tolist() == pytest.approx([0.175, 0.05, 0.025])
    even = loss(torch.zeros(1, 3), y, index)
    t = (0.75 * 0.175 + 0.25 / 3, 0.75 * 0.05 + 0.25 / 3, 0.75 * 0.025 + 0.25 / 3)
    assert loss.target[2].tolist() == pytest.approx(t)
    assert even.item() == pytest.approx(log(3) + 2 * log(1 - sum(t) / 3), rel=1e-5)
    assert loss.target[[0, 1, 3]].count_nonzero() == 0
    assert list(row_buffers(loss)) == ["target"]


def test_elr_pulls_towards_the_target():
    """Gradient of the second part at logit j: -lam p_j (t_j - <p, t>) / (1 - <p, t>)."""
    logits = LOGITS.clone().requires_grad_()
    target = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64)
    value = losses.elr(logits, torch.tensor([0]), target, lam=3.0) - losses.cross_entropy(logits, torch.tensor([0]))
    inner = 0.07 + 0.12 + 0.03
    expected = [-3 * p * (t - inner) / (1 - inner) for p, t in zip(P, target[0].tolist(), strict=True)]
    assert torch.autograd.grad(value.sum(), logits)[0][0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("joint", "slope_u"), [(False, 1 / 0.8 - 1 / 0.45), (True, 1 / 0.8 - 1 / 0.45 - 1.5)])
def test_sop(joint, slope_u):
    u = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[0.6, 0.9, 0.3]], dtype=torch.float64, requires_grad=True)
    value = losses.sop(LOGITS, torch.tensor([1]), u, v, joint=joint)
    # p + s = (.7 - .36, .2 + .25, .1 - .09), which sums to .8; e_top + s - y = (.64, -.75, -.09)
    assert value.item() == pytest.approx(-log(0.45 / 0.8) + 0.64**2 + 0.75**2 + 0.09**2)
    value.backward()
    assert u.grad.item() == pytest.approx(slope_u)
    assert v.grad[0].tolist() == pytest.approx([-2 * 0.64 * 1.2, 0, 2 * 0.09 * 0.6])


def test_sop_floor_and_bounds():
    big = torch.full((1, 1), 9.0, dtype=torch.float64)
    value = losses.sop(LOGITS, torch.tensor([1]), 0 * big, big.expand(1, 3), floor=0.01)
    # v^2 is cut to 1: p - 1 is cut to .01 beside .2; e_top - (1, 0, 1) - y = (0, -1, -1)
    assert value.item() == pytest.approx(-log(0.2 / 0.22) + 2)


def test_sop_starts_as_cross_entropy_and_asks_for_its_own_steps():
    loss = losses.create("sop", classes=3, samples=5)
    y, index = torch.tensor([0]), torch.tensor([4])
    assert loss.per_sample(LOGITS, y, index).item() == pytest.approx(CE[0], rel=1e-4)
    assert loss.per_sample(LOGITS, y + 1, index).item() == pytest.approx(CE[1] + 2, rel=1e-4)
    assert loss.u.shape == (5, 1)
    assert loss.v.shape == (5, 3)
    assert loss.parameter_settings == {
        name: {"lr": 10.0, "weight_decay": 0.0, "momentum": 0.0, "steady": True} for name, _ in loss.named_parameters()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Penalty, regularizer, reduction


def test_anl_penalty_counts_every_parameter():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-0.5)
    for name in ("anl-ce", "anl-fl", "anl-ce-er"):
        penalty = losses.create(name, classes=3, delta=0.1).penalty(model.parameters())
        assert penalty.item() == pytest.approx(0.1 * 0.5 * 10)
    penalty.backward()
    assert model[0].weight.grad.unique().tolist() == pytest.approx([-0.1])
    assert losses.create("ce", classes=3).penalty(model.parameters()).item() == 0
    assert losses.create("anl-ce", classes=3).penalty([]).item() == 0
    half = [torch.full((70_000,), 1.0, dtype=torch.float16)]
    assert losses.l1(half).item() == 70_000


def test_entropy_regularizer():
    loss = losses.create("anl-ce-er", classes=2, lam=3.0)
    logits = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64).log()
    gap = log(2) + 0.6 * log(0.6) + 0.4 * log(0.4)
    assert loss.regularizer(logits).item() == pytest.approx(3 * gap)
    y = torch.tensor([0, 1])
    assert loss(logits, y).item() == pytest.approx(loss.per_sample(logits, y).mean().item() + 3 * gap)


def test_weights_are_divided_by_the_batch_not_by_their_sum():
    loss = losses.create("ce", classes=3)
    logits = LOGITS.expand(2, 3)
    value = loss(logits, torch.tensor([0, 1]), weight=torch.tensor([0.0, 0.5]))
    assert value.item() == pytest.approx(0.5 * CE[1] / 2)
    with pytest.raises(UnswayedError, match="one value a sample"):
        loss(logits, torch.tensor([0, 1]), weight=torch.ones(2, 1))
