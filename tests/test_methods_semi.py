"""Semi-supervised methods against their published formulas, worked out by hand on small cases."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from unswayed import UnswayedError, methods, nets
from unswayed.checks import methods as contract
from unswayed.method import Batch, Data, Info, Method
from unswayed.methods.disc import CLEAN, DISC, HARD, NEITHER, PURIFIED, tell_apart
from unswayed.methods.dividemix import DivideMix, clean_probability
from unswayed.methods.lccn import LCCNDivideMix
from unswayed.methods.mixup import MixUp
from unswayed.methods.pes import PES, class_weights, late_layers
from unswayed.methods.promix import ProMix, choose
from unswayed.methods.semi import mixmatch, reads_ngrams, row_losses, shown
from unswayed.methods.unicon import UNICON, kept_share
from unswayed.stats.contrast import contrastive_loss
from unswayed.stats.semi import jensen_shannon, keep_both

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
Y = torch.tensor([0, 1, 1, 0])


def batch_of(*views: Tensor, y: Tensor = Y, weight: Tensor | None = None, progress: float = 1.0) -> Batch:
    rows = len(views[0])
    weight = torch.ones(rows) if weight is None else weight
    return Batch(views, y[:rows], torch.arange(rows), weight, 0, progress)


def small(method: type[Method], rows: int = 4, **settings: Any) -> Any:
    torch.manual_seed(0)
    return method(lambda: nn.Linear(2, 2), Info(rows, 2), **settings)


# ------------------------------------------------------------------------------------------------ one step


def test_mixmatch_without_mixing_by_hand() -> None:
    net = nn.Linear(2, 2)
    target, guess = one_hot(Y[:2], 2).float(), torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    terms = mixmatch(net, (X[:2], 2 * X[:2]), target, (X[2:],), guess, alpha=0.0)
    labelled = torch.cat([net(X[:2]), net(2 * X[:2])])
    assert terms.fit.item() == pytest.approx(cross_entropy(labelled, torch.cat([Y[:2], Y[:2]])).item(), abs=1e-6)
    error = (net(X[2:]).softmax(1) - guess).square()
    assert terms.consistency.item() == pytest.approx(error.mean().item(), abs=1e-6)
    mean = torch.cat([labelled, net(X[2:])]).softmax(1).mean(0)
    assert terms.prior.item() == pytest.approx((0.5 * (0.5 / mean).log()).sum().item(), abs=1e-6)


def test_mixmatch_mixes_labelled_rows_with_guessed_ones() -> None:
    class Given(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return torch.zeros(len(x), 4)

    net = Given()
    mixmatch(net, (torch.eye(4)[:2],), torch.eye(4)[:2], (torch.eye(4)[2:],), torch.eye(4)[2:], alpha=4.0)
    largest = net.seen.max(1)
    assert largest.indices.tolist() == [0, 1, 2, 3]  # every row is the larger part of its own mixture
    torch.testing.assert_close(net.seen.sum(1), torch.ones(4))


def test_class_weights_scale_the_fit_alone() -> None:
    net, target, guess = nn.Linear(2, 2), one_hot(Y[:2], 2).float(), torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    weight = torch.tensor([3.0, 0.0])
    plain = mixmatch(net, (X[:2],), target, (X[2:],), guess, alpha=0.0)
    scaled = mixmatch(net, (X[:2],), target, (X[2:],), guess, alpha=0.0, class_weight=weight)
    only = 3 * cross_entropy(net(X[:1]), Y[:1]) / 2
    assert scaled.fit.item() == pytest.approx(only.item(), abs=1e-6)
    assert scaled.consistency.item() == plain.consistency.item()


def test_row_losses_are_in_order_and_in_parts() -> None:
    net = nn.Linear(2, 2)
    data = Data.of(X, Y).rows(torch.tensor([3, 0, 2]))
    expected = cross_entropy(net(X[[3, 0, 2]]), Y[[3, 0, 2]], reduction="none")
    torch.testing.assert_close(row_losses(net, data, size=2), expected)


# ------------------------------------------------------------------------------------------------ DivideMix


def test_clean_probability_separates_two_heaps_whatever_their_scale() -> None:
    losses = torch.cat([torch.rand(300) * 0.2, 3 + torch.rand(100)])
    found = clean_probability(losses)
    assert bool((found[:300] > 0.99).all())
    assert bool((found[300:] < 0.01).all())
    scaled = (losses - losses.min()) / (losses.max() - losses.min())
    torch.testing.assert_close(clean_probability(scaled), found, atol=1e-4, rtol=1e-3)


def test_dividemix_labels_by_hand() -> None:
    method = small(DivideMix)
    weight = torch.tensor([1.0, 0.25])
    labelled = batch_of(X[:2], 2 * X[:2], weight=weight)
    unlabelled = batch_of(X[2:], X[2:] / 2, y=Y[2:])
    target, guess = method.label(1, labelled, unlabelled)
    net, peer = method.peer, method.net  # the second network's turn
    p = (net(X[:2]).softmax(1) + net(2 * X[:2]).softmax(1)) / 2
    refined = (weight[:, None] * one_hot(Y[:2], 2) + (1 - weight[:, None]) * p) ** 2
    torch.testing.assert_close(target, refined / refined.sum(1, keepdim=True))
    seen = [side(x).softmax(1) for side in (net, peer) for x in (X[2:], X[2:] / 2)]
    guessed = (sum(seen) / 4) ** 2
    torch.testing.assert_close(guess, guessed / guessed.sum(1, keepdim=True))


def test_dividemix_loss_by_hand() -> None:
    settings: dict[str, Any] = {"alpha": 0.0, "temperature": 1.0, "lambda_u": 10.0}
    method = small(DivideMix, **settings)
    labelled, unlabelled = batch_of(X[:2], X[:2]), batch_of(X[2:], X[2:], y=Y[2:])
    guess = (method.net(X[2:]).softmax(1) + method.peer(X[2:]).softmax(1)) / 2
    fit = cross_entropy(method.net(X[:2]), Y[:2])
    error = (method.net(X[2:]).softmax(1) - guess).square().mean()
    prior = (0.5 * (0.5 / method.net(X).softmax(1).mean(0)).log()).sum()
    found = method.learn(0, lambda progress: 0.5, labelled, unlabelled)
    assert found.item() == pytest.approx((fit + 5 * error + prior).item(), abs=1e-5)
    summed = small(DivideMix, consistency="sum", **settings).learn(0, lambda progress: 0.5, labelled, unlabelled)
    assert summed.item() == pytest.approx((fit + 10 * error + prior).item(), abs=1e-5)  # over two classes


def test_dividemix_warms_both_networks_up() -> None:
    method, penalised = small(DivideMix), small(DivideMix, confidence_penalty=True)
    expected = cross_entropy(method.net(X[:2]), Y[:2]) + cross_entropy(method.peer(X[2:]), Y[2:])
    batches = batch_of(X[:2]), batch_of(X[2:], y=Y[2:])
    assert method.warm_up(*batches).item() == pytest.approx(expected.item(), abs=1e-6)
    p, q = method.net(X[:2]).softmax(1), method.peer(X[2:]).softmax(1)
    entropy = (p * p.log()).sum(1).mean() + (q * q.log()).sum(1).mean()
    assert penalised.warm_up(*batches).item() == pytest.approx((expected + entropy).item(), abs=1e-6)


def test_each_network_learns_what_the_other_holds_to_be_clean() -> None:
    data, _, _ = contract.toy(200)
    method: Any = contract.make(DivideMix, 200)
    first = method.divide(0, data)
    before = method.clean.clone()
    nn.init.zeros_(method.net.head.weight)  # the first network learns in between: what was judged stays
    second = method.divide(1, data)
    assert torch.equal(before, method.clean)
    for turn, (labelled, unlabelled) in enumerate((first, second)):
        clean = before[:, 1 - turn]
        expected = keep_both(clean > 0.5, clean)
        assert torch.equal(labelled.index, expected.nonzero()[:, 0])
        assert torch.equal(labelled.weight, clean[expected])
        assert len(labelled) + len(unlabelled) == 200


def test_dividemix_plan_gives_each_network_the_epochs_asked_for() -> None:
    stages = small(DivideMix).plan(30)
    assert [(s.name, s.epochs) for s in stages[:3]] == [("warm-up", 10), ("network 1", 1), ("network 2", 1)]
    assert len(stages) == 1 + 2 * 20
    assert sum(s.epochs for s in small(DivideMix).plan(1)) == 1


def test_dividemix_weight_rises_after_the_warm_up() -> None:
    method = small(DivideMix, ramp=4)
    weight = method.plan(30)[1].loss.args[1]  # 10 epochs of warm-up, then 20 of each network: 50 in all
    assert [weight(p / 50) for p in (0, 10, 14, 18, 50)] == pytest.approx([0, 0, 0.5, 1, 1])
    published, short = small(DivideMix).plan(300)[1], small(DivideMix).plan(6)[1]
    assert [published.loss.args[1](p / 590) for p in (10, 26, 42)] == pytest.approx([0, 0.5, 1])
    assert [short.loss.args[1](p / 10) for p in (2, 4, 6)] == pytest.approx([0, 0.5, 1])  # 2 of 6 epochs


def test_dividemix_epochs_show_both_parts_together_the_labelled_or_all() -> None:
    long, short = Data.of(torch.arange(8.0)[:, None], torch.zeros(8, dtype=torch.long)), Data.of(X[:2], Y[:2])
    wanted = {"together": ([5, 2], [2, 5]), "labelled": ([8, 2], [2, 2]), "all": ([8, 2], [2, 8])}
    for epoch, (first, second) in wanted.items():
        assert [len(part) for part in shown(long, short, epoch)] == first  # type: ignore[arg-type]
        assert [len(part) for part in shown(short, long, epoch)] == second  # type: ignore[arg-type]
    part, _ = shown(long, short, "together")
    assert len(set(part.index.tolist())) == 5
    data, _, _ = contract.toy(200)
    method: Any = contract.make(DivideMix, 200)
    _, first_turn = method.plan(3)[:2]
    labelled, unlabelled = first_turn.data(data)
    assert max(len(labelled), len(unlabelled)) == 100


def test_dividemix_looks_once_at_views_that_are_one() -> None:
    method, passes = small(DivideMix), []
    for net in method.both():
        net.register_forward_hook(lambda net, args, out: passes.append(len(args[0])))
    found = method.label(0, batch_of(X[:2], X[:2]), batch_of(X[2:], X[2:], y=Y[2:]))
    assert passes == [8, 4]  # two equal views are not one
    labelled, unlabelled = X[:2], X[2:]
    once = method.label(0, batch_of(labelled, labelled), batch_of(unlabelled, unlabelled, y=Y[2:]))
    assert passes == [8, 4, 4, 2]
    for one, other in zip(found, once, strict=True):
        torch.testing.assert_close(one, other)


def test_dividemix_ends_with_probabilities_logits_or_one_network() -> None:
    method = small(DivideMix)
    p = (method.net(X).softmax(1) + method.peer(X).softmax(1)) / 2
    torch.testing.assert_close(method(X).exp(), p)
    torch.testing.assert_close(small(DivideMix, ensemble="logits")(X), (method.net(X) + method.peer(X)) / 2)
    torch.testing.assert_close(small(DivideMix, ensemble="first")(X), method.net(X))


def test_dividemix_singles_out_wrong_labels() -> None:
    data, truth, wrong = contract.toy()
    method: Any = contract.make(DivideMix)
    contract.train(method, data, epochs=10)
    assert contract.auroc(method.suspicion(), wrong) > 0.98
    assert float((method(data.x.rows(data.index)).argmax(1) == truth).float().mean()) > 0.95


def test_dividemix_learns_from_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 3
    numbers = 1 + 10 * y[:, None] + torch.randint(10, (120, 5), generator=generator)
    rows = torch.stack([numbers.float(), torch.full((120, 5), 0.4)], dim=1)
    body = partial(nets.create_body, "text-mlp", kind="text", shape=(2, 5), buckets=64, width=8, widths=(8,))
    torch.manual_seed(0)
    method = DivideMix(lambda: nets.Net(body(), nn.Linear(8, 3)), Info(120, 3))
    assert reads_ngrams(method.net)
    contract.train(method, Data.of(rows, y), epochs=8)
    assert float((method(rows).argmax(1) == y).float().mean()) > 0.9


def test_settings_out_of_range_are_told() -> None:
    for settings in (
        {"threshold": 1.0},
        {"temperature": 0.0},
        {"consistency": "max"},
        {"warmup": 0},
        {"ensemble": "all"},
        {"epoch": "one"},
    ):
        with pytest.raises(UnswayedError):
            small(DivideMix, **settings)


@pytest.mark.parametrize("split", ["mixture", "posterior"])
def test_dividemix_lccn_judges_and_refines_by_latent_labels(split: str) -> None:
    method = small(LCCNDivideMix, split=split)
    with torch.no_grad():
        method.net.weight.copy_(torch.eye(2))
        method.net.bias.zero_()
    x, y = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1, 1])
    first = torch.tensor([[2 / 4, 2 / 4], [1 / 4, 3 / 4]])  # argmax 0, 1, 0, 1 counts (1, 1) and (0, 2)
    q = x.softmax(1) * first[:, y].T
    q = q / q.sum(1, keepdim=True)
    found = method.judge(0, Data.of(x, y))
    at = q[torch.arange(4), y]
    expected = at if split == "posterior" else clean_probability(-q.log_softmax(1)[torch.arange(4), y])
    torch.testing.assert_close(found, expected)
    assert method.transition[0].sum(1).tolist() == pytest.approx([1, 1])
    assert not method.transition[1].any()
    method.transition[0] = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    believed = method.believe(0, torch.tensor([[0.6, 0.4]]), batch_of(x[:1], y=torch.tensor([1])))
    torch.testing.assert_close(believed, torch.tensor([[0.06, 0.2]]) / 0.26)


def test_dividemix_lccn_has_all_settings_of_its_parent() -> None:
    own, parent = methods.settings_of("dividemix-lccn"), methods.settings_of("dividemix")
    assert own.keys() - parent.keys() == {"split"}
    assert (own["warmup"], own["lambda_u"], own["threshold"]) == (30, 25.0, 0.5)
    with pytest.raises(UnswayedError, match="did you mean threshold"):
        methods.create("dividemix-lccn", lambda: nn.Linear(2, 2), Info(4, 2), treshold=0.5)


# ------------------------------------------------------------------------------------------------ MixUp


def test_mixup_weighs_the_losses_of_both_labels() -> None:
    method = small(MixUp, alpha=2.0)
    torch.manual_seed(5)
    found = method.loss(batch_of(X)).item()
    torch.manual_seed(5)
    gammas = torch._standard_gamma(torch.full((2,), 2.0, dtype=torch.float64))
    share, order = float(gammas.max() / gammas.sum()), torch.randperm(4)
    logits = method.net(share * X + (1 - share) * X[order])
    expected = share * cross_entropy(logits, Y) + (1 - share) * cross_entropy(logits, Y[order])
    assert found == pytest.approx(expected.item(), abs=1e-6)


def test_mixup_with_any_loss_and_without_mixing() -> None:
    method = small(MixUp, alpha=0.0, loss="mae")
    expected = (1 - method.net(X).softmax(1)[torch.arange(4), Y]).mean()
    assert method.loss(batch_of(X)).item() == pytest.approx(expected.item(), abs=1e-6)


# ------------------------------------------------------------------------------------------------ UNICON


def test_unicon_share_by_hand() -> None:
    distance = torch.tensor([0.6, 0.7, 0.9, 1.0])  # mean .8
    assert kept_share(distance, high=0.9, tau=5.0) == 0.5
    assert kept_share(distance, high=0.7, tau=1.0) == 0.0  # the cutoff is the least of them
    assert kept_share(distance, high=0.7, tau=4.0) == 0.5  # .8 - .2 / 4
    assert kept_share(distance, high=0.7, tau=1.5) == 0.25  # .8 - .2 / 1.5


def test_unicon_splits_every_class_alike() -> None:
    data, _, _ = contract.toy(300)
    method: Any = contract.make(UNICON, 300)
    contract.train(method, data, epochs=3)
    labelled, unlabelled = method.divide(1, data)
    p = (method.net(data.x.rows(data.index)).softmax(1) + method.peer(data.x.rows(data.index)).softmax(1)) / 2
    distance = jensen_shannon(p.detach(), one_hot(data.y, 3).float())
    most = int(float((distance < distance.mean()).float().mean()) * 300 / 3)
    sizes = torch.bincount(labelled.y, minlength=3)
    assert sizes.tolist() == torch.bincount(data.y).clamp_max(most).tolist()
    assert len(labelled) + len(unlabelled) == 300
    for label in range(3):
        worst = distance[labelled.index[labelled.y == label]].max()
        best = distance[unlabelled.index[unlabelled.y == label]]
        assert not len(best) or float(worst) <= float(best.min())
    trust = torch.where(distance < 0.5, 1.0, 1 - distance)
    torch.testing.assert_close(labelled.weight, trust[labelled.index])


def test_unicon_contrast_is_of_the_strong_views_alone() -> None:
    method: Any = contract.make(UNICON, 4)
    strong, again = torch.randn(4, 6), torch.randn(4, 6)
    unlabelled = batch_of(torch.full((4, 6), torch.nan), torch.full((4, 6), torch.nan), strong, again)
    one, two = method.projections[1](method.peer.body(torch.cat([strong, again]))).chunk(2)
    expected = 0.025 * contrastive_loss(one, two, temperature=0.05)
    assert isinstance(method.projections[1][1], nn.BatchNorm1d)
    assert method.extra(1, unlabelled, unlabelled).item() == pytest.approx(expected.item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------ PES


def test_class_weights_by_hand() -> None:
    assert class_weights(torch.tensor([0, 0, 0, 0, 2, 2]), 3).tolist() == [0.75, 0.0, 1.5]


def test_late_layers_of_resnet18_are_its_last_stage() -> None:
    body: Any = nets.create_body("resnet18", kind="image", shape=(3, 32, 32))
    stages = list(body.layers.stages)
    assert [id(layer) for layer in late_layers(body)] == [id(layer) for layer in stages[6:]]


def test_late_layers_take_their_norm_along() -> None:
    chain = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert late_layers(chain) == [chain[3], chain[4]]
    assert late_layers(nn.Linear(2, 3)) == []


def test_pes_begins_late_layers_anew_and_keeps_the_others() -> None:
    data, _, _ = contract.toy(64)
    method: Any = contract.make(PES, 64)
    first = contract.bits(method.net)
    head = method.plan(30)[1]
    with torch.no_grad():
        for parameter in method.net.parameters():
            parameter += 1
    head.data(data)
    now = contract.bits(method.net)
    assert all(torch.equal(first[name], now[name]) == name.startswith("head.") for name in first)


def small_pes(**settings: Any) -> PES:
    chain = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return PES(
        lambda: nets.Net(nets.create_body(chain, kind="table", shape=(6,)), nn.Linear(4, 3)), Info(64, 3), **settings
    )


@pytest.mark.parametrize(("semi", "resting"), [(True, ["head"]), (False, ["body.layers.module.3", "head"])])
def test_pes_lets_renewed_layers_rest_as_the_authors_program(semi: bool, resting: list[str]) -> None:
    assert small_pes(semi=semi).plan(30)[-1].train is None
    method = small_pes(semi=semi, renewed="rest")
    learners = method.plan(30)[-1].train
    assert learners is not None
    learning = {id(parameter) for parameter in learners.parameters()}
    still = {name.rpartition(".")[0] for name, p in method.net.named_parameters() if id(p) not in learning}
    assert sorted(still) == resting
    assert method.plan(2)[-1].train is None  # too short to begin anything anew


def test_pes_plan_splits_the_epochs() -> None:
    stages = small_pes(semi=False).plan(200)
    assert {stage.name: stage.epochs for stage in stages[:3]} == {"all layers": 25, "late layers": 7, "head": 5}
    assert [(stage.name, stage.epochs) for stage in small_pes().plan(300)[:3]] == [
        ("all layers", 20), ("head", 5), ("confident rows", 1),
    ]  # fmt: skip
    for epochs in (1, 2, 3, 4, 10, 200):
        assert sum(stage.epochs for stage in contract.make(PES).plan(epochs)) == epochs


def test_pes_learns_from_what_it_agrees_with() -> None:
    head, body = nn.Linear(2, 2), nets.create_body(nn.Identity(), kind="table", shape=(2,))
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    method = PES(lambda: nets.Net(body, head), Info(4, 2), semi=False)
    data = Data.of(torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 0, 0, 1]))
    confident, others = method.split(data)
    assert (confident.index.tolist(), others.index.tolist()) == ([0, 2], [1, 3])
    assert [len(part) for part in shown(data, others, "together")] == [3, 2]
    assert method.class_weight.tolist() == [1.0, 0.0]
    weighted = batch_of(X, weight=torch.tensor([1.0, 3.0, 0.0, 0.0]))
    expected = (cross_entropy(method.net(X[:1]), Y[:1]) + 3 * cross_entropy(method.net(X[1:2]), Y[1:2])) / 4
    assert method.fit(weighted).item() == pytest.approx(expected.item(), abs=1e-6)


# ------------------------------------------------------------------------------------------------ DISC


def test_disc_tells_samples_apart_by_hand() -> None:
    threshold = torch.tensor([[0.3, 0.2]] * 5)
    seen = torch.tensor(
        [
            [0.4, 0.3, 0.4, 0.3, 0.35],  # above in both views
            [0.4, 0.1, 0.5, 0.5, 0.50],  # above in one
            [0.1, 0.1, 0.8, 0.8, 0.80],  # in none, and sure of another class: above .25 + .5
            [0.1, 0.1, 0.8, 0.6, 0.70],  # not sure enough
            [0.3, 0.2, 0.3, 0.2, 0.25],  # at the thresholds, not above
        ]
    )
    part, label = tell_apart(seen, torch.arange(5), threshold, sigma=0.5, ceiling=0.9)
    assert part.tolist() == [CLEAN, HARD, PURIFIED, NEITHER, NEITHER]
    assert label.tolist() == [0, 1, 2, 3, 4]
    part, _ = tell_apart(seen, torch.arange(5), threshold + 0.6, sigma=0.5, ceiling=0.75)
    assert part.tolist() == [NEITHER, NEITHER, PURIFIED, NEITHER, NEITHER]


def test_disc_thresholds_are_running_means_of_the_largest_probability() -> None:
    method = small(DISC)
    weak, strong = X, X / 2
    method.warm_up(batch_of(weak, strong))
    p, q = method.net(weak).softmax(1), method.net(strong).softmax(1)
    expected = torch.stack([p[torch.arange(4), Y], q[torch.arange(4), Y], p.amax(1), q.amax(1), ((p + q) / 2).amax(1)])
    torch.testing.assert_close(method.seen, expected.T)
    method.sort(0.9, Data.of(X, Y))
    torch.testing.assert_close(method.threshold, 0.9 * 0.25 + 0.1 * torch.stack([p.amax(1), q.amax(1)], dim=1))


def test_disc_loss_by_hand() -> None:
    method = small(DISC, alpha=0.0, lambda_h=0.5)
    method.part.copy_(torch.tensor([CLEAN, HARD, PURIFIED, NEITHER]))
    method.label.copy_(torch.tensor([1, 1, 0, 1]))
    weak, strong = X, X / 2
    ce = sum(cross_entropy(method.net(view), Y, reduction="none") for view in (weak, strong))
    p = [method.net(view).softmax(1)[torch.arange(4), Y] for view in (weak, strong)]
    gce = sum((1 - one**0.7) / 0.7 for one in p)
    relabelled = torch.tensor([0, 1, 0])  # the third, purified, gets its new label
    mixed = sum(cross_entropy(method.net(view[:3]), relabelled) for view in (weak, strong))
    expected = (ce[0] + 0.5 * gce[1]) / 4 + mixed  # type: ignore[index]
    assert method.loss(batch_of(weak, strong)).item() == pytest.approx(expected.item(), abs=1e-5)


# ------------------------------------------------------------------------------------------------ ProMix


def test_promix_chooses_by_hand() -> None:
    given = one_hot(torch.tensor([0, 0, 0, 0, 1]), 2).float()
    p = torch.tensor([[0.2, 0.8], [0.995, 0.005], [0.3, 0.7], [0.1, 0.9], [0.9, 0.1]])
    selected = torch.tensor([True, False, False, False, False])
    guessed = torch.tensor([0.0, 0.0, 0.991, 0.995, 0.0])
    labels = choose(given, p, selected, guessed, tau=0.99, enough=0.6, bias=torch.zeros(2))
    assert labels.trusted.tolist() == [True, True, False, True, False]  # room for three of five: the surest joins
    assert labels.target.argmax(1).tolist() == [0, 0, 1, 1, 0]  # the given label of the trusted, else the predicted
    biased = choose(given, p, selected, guessed, tau=0.99, enough=0.6, bias=torch.tensor([0.0, 3.0]))
    assert biased.target.argmax(1).tolist() == [0, 0, 0, 0, 0]


def test_promix_guesses_where_both_networks_agree_late() -> None:
    method: Any = contract.make(ProMix, 8)
    first = torch.tensor([[0.995, 0.005], [0.995, 0.005], [0.995, 0.005]])
    second = torch.tensor([[0.993, 0.007], [0.9, 0.1], [0.001, 0.999]])
    torch.testing.assert_close(method.agreed([first, second], 0.9), torch.tensor([0.994, 0.0, 0.0]))
    assert method.agreed([first, second], 0.5).tolist() == [0.0, 0.0, 0.0]


def test_promix_selects_alike_in_every_class_for_each_network() -> None:
    data, _, _ = contract.toy(120)
    method: Any = contract.make(ProMix, 120)
    method.select(data)
    for side in (0, 1):
        chosen = torch.bincount(data.y[method.selected[:, side] > 0], minlength=3)
        assert chosen.tolist() == torch.bincount(data.y).clamp_max(20).tolist()  # half of 120 / 3
    losses = row_losses(method.net, data)
    own = (data.y == 1) & (method.selected[:, 0] > 0)
    rest = (data.y == 1) & (method.selected[:, 0] == 0)
    assert float(losses[own].max()) <= float(losses[rest].min())


def test_promix_loss_at_the_start_by_hand() -> None:
    torch.manual_seed(0)
    method: Any = contract.make(ProMix, 4)
    weak, strong = torch.randn(4, 6), torch.randn(4, 6)
    y = torch.tensor([0, 1, 2, 0])
    method.selected[:2] = 1
    with torch.no_grad():
        method.trusted_mean.copy_(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]))
    bias = 0.8 * method.trusted_mean.clone().log()
    expected = torch.zeros(())
    for side, (net, second) in enumerate(method.both()):
        for head in (net.head, second):
            expected = expected + cross_entropy(head(net.body(weak[:2])) + bias[side], y[:2])
    batch = Batch((weak, strong), y, torch.arange(4), torch.ones(4), 0, 0.0)
    assert method.learn(0.5, batch).item() == pytest.approx(expected.item(), abs=1e-5)
    p = method.net(weak).softmax(1)
    followed = 0.9999 * torch.tensor([0.5, 0.3, 0.2]) + 0.0001 * p[:2].mean(0)
    torch.testing.assert_close(method.trusted_mean[0], followed.detach())


def test_promix_ramps_never_end_before_half_of_a_short_run() -> None:
    method: Any = contract.make(ProMix, 8)
    assert [method.plan(epochs)[-1].loss.args[0] for epochs in (600, 100, 30)] == pytest.approx([1 / 12, 0.5, 0.5])


def test_promix_drops_or_keeps_the_doubtful_after_their_ramp() -> None:
    weak, strong, y = torch.randn(4, 6), torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    batch = Batch((weak, strong), y, torch.arange(4), torch.ones(4), 0, 0.5)
    found = []
    for keep in (True, False):
        torch.manual_seed(0)
        method = ProMix(contract.ToyNet, Info(4, 3), alpha=0.0, keep_doubt=keep, debias=0.0, debias_guess=0.0)
        method.selected[:2] = 1  # the other two are doubtful
        found.append(method.learn(0.2, batch).item())
    added = 0.0
    for net, second in method.both():
        guess = net(weak[2:]).softmax(1) ** 2
        guess = (guess / guess.sum(1, keepdim=True)).detach()
        for view in (weak, strong):
            added += 0.1 * cross_entropy(second(net.body(view[2:])), guess).item()  # type: ignore[operator]
    assert found[0] - found[1] == pytest.approx(added, abs=1e-5)
