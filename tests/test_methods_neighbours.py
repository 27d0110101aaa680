"""Methods that judge labels by features, teachers or confusion: published formulas, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from unswayed import Config, UnswayedError, nets, run
from unswayed.checks import methods as contract
from unswayed.data import encoder, from_arrays
from unswayed.method import Batch, Data, Info, Method
from unswayed.methods.lccn import LCCN, LCCNDivideMix, confusion, draw, log_posterior, transition_of
from unswayed.methods.lnsr import LNSR, find_layer, layers_behind
from unswayed.methods.nmtune import NMTune
from unswayed.methods.osa import OSA, agreement_weight, shared_weight
from unswayed.methods.sed import SED
from unswayed.methods.ssr import SSR, balanced_vote, draw_evenly
from unswayed.methods.turn import TURN, even_selection
from unswayed.stats.neighbours import prototype_agreement
from unswayed.stats.teacher import Teacher

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
Y = torch.tensor([0, 1, 1, 0])


def batch_of(*views: Tensor, y: Tensor = Y, weight: Tensor | None = None, progress: float = 1.0) -> Batch:
    rows = len(views[0])
    weight = torch.ones(rows) if weight is None else weight
    return Batch(views, y[:rows], torch.arange(rows), weight, 0, progress)


class Still(nn.Module):
    """A body without parameters: frozen features go through as they are."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return x


def frozen(features: int, classes: int) -> nets.Net:
    return nets.Net(Still(features), nn.Linear(features, classes))


def small(method: type[Method], rows: int = 4, **settings: Any) -> Any:
    torch.manual_seed(0)
    return method(lambda: frozen(2, 2), Info(rows, 2), **settings)


@pytest.mark.parametrize("method", [OSA, SSR, SED, TURN, LCCN, LCCNDivideMix, NMTune, LNSR])
def test_learns_on_frozen_features(method: type[Method]) -> None:
    data, truth, wrong = contract.toy(300)
    torch.manual_seed(0)
    made = method(lambda: frozen(6, 3), Info(300, 3), **method.test_settings)
    contract.train(made, data, epochs=6)
    found = made(data.x.rows(data.index)).argmax(1)
    assert float((found == truth).float().mean()) > 0.85
    suspicion = made.suspicion()
    assert suspicion is not None
    assert contract.auroc(suspicion, wrong) > 0.85


# ------------------------------------------------------------------------------------------------ OSA


def test_osa_weights_by_hand() -> None:
    t = torch.tensor([-0.2, 0.0, 0.25, 2 / 3, 1.0])
    assert agreement_weight(t).tolist() == pytest.approx([0, 0, 0.046875, 4 / 27, 0], abs=1e-7)


def test_prototypes_leave_their_own_row_out() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 1.0]])
    y = torch.tensor([0, 0, 1, 2])
    corner = 0.5**0.5
    own = torch.tensor([0.0, 0.0, 0.0, 0.0])  # at right angles with the other; the last two are alone
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [corner, corner]]).mean(0)
    anchors = torch.tensor([[corner, corner], [0.0, 1.0], [corner, corner]]).mean(0)
    torch.testing.assert_close(prototype_agreement(x, y, 4), own - means @ anchors)


def test_osa_takes_anchors_of_the_classes() -> None:
    method = small(OSA, anchors=[[3.0, 0.0], [0.0, 1.0]], curve="linear")
    corner, fifth = 0.5**0.5, 5**-0.5
    own = torch.tensor([1.0, 1.0, corner, 2 * fifth])
    units = torch.tensor([[1.0, 0.0], [0.0, 1.0], [corner, corner], [2 * fifth, -fifth]])
    t = own - units.mean(0).sum() / 2
    weighed = method.weigh(Data.of(X, Y))
    torch.testing.assert_close(weighed.weight, t)
    torch.testing.assert_close(method.suspicion(), (1 - t) / 2)
    with pytest.raises(UnswayedError, match="one row a class"):
        small(OSA, anchors=[[1.0, 0.0]])
    with pytest.raises(UnswayedError, match="anchors of width 2"):
        small(OSA, anchors=[[1.0], [0.0]]).weigh(Data.of(X, Y))


def test_osa_scales_by_the_largest_weight_of_the_batch() -> None:
    weight = torch.tensor([0.1, 0.05, 0.0, 0.1])
    for scale, factor in (("batch", 10.0), ("none", 1.0)):
        method = small(OSA, scale=scale)
        expected = (factor * weight * cross_entropy(method.net(X), Y, reduction="none")).mean()
        assert method.loss(batch_of(X, weight=weight)).item() == pytest.approx(expected.item(), abs=1e-6)
    nothing = small(OSA).loss(batch_of(X, weight=torch.zeros(4)))
    assert nothing.item() == 0


def test_osa_shares_weights_within_a_batch_as_the_program_does() -> None:
    t = torch.tensor([0.3, -0.2, 0.15, 0.0])
    u = torch.tensor([1.0, 0.0, 0.5, 0.0])
    torch.testing.assert_close(shared_weight(t), u**2 * (1 - u) * (1 + u))  # 0, 0, .1875, 0
    method = small(OSA, curve="program", scale="none", anchors=[[1.0, 0.0], [0.0, 1.0]])
    weighed = method.weigh(Data.of(X, Y))
    torch.testing.assert_close(weighed.weight, method.agreement.clamp_min(0))
    values = cross_entropy(method.net(X), Y, reduction="none")
    expected = (shared_weight(method.agreement) * values).mean().item()
    assert method.loss(batch_of(X, weight=weighed.weight)).item() == pytest.approx(expected, abs=1e-6)
    assert small(OSA, curve="program").loss(batch_of(X, weight=torch.zeros(4))).item() == 0


def test_osa_asks_how_well_a_text_and_the_name_of_its_class_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sport", "music", "money", "the", "and", "new")

    def count(texts: list[str]) -> Tensor:
        return torch.tensor([[float(text.split().count(word)) for word in words] for text in texts])

    monkeypatch.setattr(encoder, "load_sentence_encoder", lambda name: count)
    generator = torch.Generator().manual_seed(0)
    topics = torch.randint(3, (120,), generator=generator).tolist()
    extra = torch.randint(3, 6, (120, 4), generator=generator).tolist()
    texts = [" ".join([words[topic]] * 3 + [words[i] for i in more]) for topic, more in zip(topics, extra, strict=True)]
    raw = replace(from_arrays(texts, topics, kind="text"), classes=words[:3])
    dataset = encoder.encode_texts(raw, "toy", cache=tmp_path)
    config = Config("texts", arm="osa(anchors=names)", noise="symmetric", rate=0.3, epochs=1)
    found = run(config, dataset=dataset)
    method: Any = found.method
    assert method.judge == "rows"
    assert torch.equal(method.anchors, dataset.names)
    wrong = found.task.train.given != found.task.train.truth
    assert contract.auroc(method.suspicion(), wrong) > 0.98
    with pytest.raises(UnswayedError, match="no encoder"):
        run(config, dataset=replace(dataset, names=None))
    with pytest.raises(UnswayedError, match="as numbers"):
        small(OSA, anchors="names")


def test_osa_without_any_agreement_trusts_everybody() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert small(OSA).weigh(Data.of(x, torch.tensor([0, 0, 1, 1]))).weight.tolist() == [1, 1, 1, 1]


def test_osa_judges_stored_rows() -> None:
    data, _, wrong = contract.toy(200)
    method: Any = contract.make(OSA, 200)
    method.judge = "rows"
    method.weigh(data)
    assert contract.auroc(method.suspicion(), wrong) > 0.9
    with pytest.raises(UnswayedError, match="rows of measurements"):
        method.weigh(Data.of(torch.ones(200, 6, dtype=torch.int64), data.y))


# ------------------------------------------------------------------------------------------------ SSR+


def test_votes_are_balanced_by_class_shares() -> None:
    y = torch.tensor([0, 0, 0, 1])  # shares 3/4 and 1/4
    votes = balanced_vote(y, torch.tensor([[0, 1, 3], [0, 1, 2]]), 3)
    torch.testing.assert_close(votes, torch.tensor([[2 / 3, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_rows_are_drawn_evenly() -> None:
    y = torch.tensor([0] * 9 + [1] * 2 + [3])
    among = torch.ones(12, dtype=torch.bool)
    among[0] = False
    at = draw_evenly(y, among, 24, 4)
    assert torch.bincount(y[at], minlength=4).tolist() == [8, 8, 0, 8]
    assert torch.bincount(at, minlength=12).tolist() == [0] + [1] * 8 + [4, 4, 8]


def test_ssr_relabels_and_keeps_what_neighbours_confirm() -> None:
    method = small(SSR, rows=8, k=2)
    x = torch.tensor([[3.0, 0.1], [3.0, 0.0], [3.0, -0.1], [2.0, 0.0], [0.1, 3.0], [0.0, 3.0], [-0.1, 3.0], [0.0, 2.0]])
    y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])  # the fourth and the last are wrong
    with torch.no_grad():
        method.net.head.weight.copy_(torch.eye(2) * 0.5)
        method.net.head.bias.zero_()
    kept, everything = method.select(Data.of(x, y))  # p is at most .82: nothing is relabelled
    assert len(kept) == len(everything) == 8
    assert set(kept.index.tolist()) == {0, 1, 2, 4, 5, 6}
    assert method.suspicion().tolist() == [0, 0, 0, 1, 0, 0, 0, 1]
    with torch.no_grad():
        method.net.head.weight.mul_(10)
    kept, _ = method.select(Data.of(x, y))
    assert set(kept.index.tolist()) == set(range(8))
    assert bool((kept.y == (kept.index > 3)).all())
    assert method.suspicion().tolist() == [0, 0, 0, 1, 0, 0, 0, 1]  # of the labels that were given


def test_ssr_lets_a_row_vote_for_itself_as_the_program_does() -> None:
    x = torch.tensor([[3.0, 0.1], [3.0, 0.0], [3.0, -0.2], [0.1, 3.0], [0.0, 3.0], [-0.2, 3.0]])
    assert small(SSR, rows=6)._voters(x, 2).tolist()[:2] == [[1, 2], [0, 2]]
    assert small(SSR, rows=6, itself=True)._voters(x, 2).tolist() == [[0, 1], [1, 0], [2, 1], [3, 4], [4, 3], [5, 4]]
    assert small(SSR, rows=6, itself=True)._voters(x, 1).tolist() == [[0], [1], [2], [3], [4], [5]]


def test_ssr_loss_by_hand() -> None:
    method = small(SSR, alpha=0.0, lambda_fc=2.0, width=4)
    method.eval()  # so that batch normalisation sees each row alone
    kept, everything = batch_of(X, X, 2 * X), batch_of(X, X + 1, X)
    fit = cross_entropy(torch.cat([method.net(X), method.net(2 * X)]), torch.cat([Y, Y]))
    asked = method.prediction(method.projection(X + 1))
    apart = -cosine_similarity(asked, method.projection(X)).mean()
    found = method.learn(kept, everything)
    assert found.item() == pytest.approx((fit + 2 * apart).item(), abs=1e-5)
    plain = small(SSR, alpha=0.0, lambda_fc=0.0)
    expected = cross_entropy(torch.cat([plain.net(X), plain.net(2 * X)]), torch.cat([Y, Y]))
    assert plain.learn(kept, everything).item() == pytest.approx(expected.item(), abs=1e-6)


# ------------------------------------------------------------------------------------------------ SED


def test_sed_thresholds_follow_the_predictions() -> None:
    method = small(SED, momentum=0.75, teacher_momentum=0.5)
    with torch.no_grad():
        method.net.head.weight.zero_()
        method.net.head.bias.copy_(torch.tensor([0.8, 0.2]).log())
    method.warm_up(batch_of(X))
    assert method.threshold.item() == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)  # p[y] is .8, .2, .2, .8
    expected = 0.75 * 0.5 + 0.25 * torch.tensor([0.8, 0.2])
    torch.testing.assert_close(method.expected, expected)
    torch.testing.assert_close(method.class_thresholds(), 0.5 * expected / expected[0])


def still_sed(**settings: Any) -> SED:
    """SED whose network hands its rows on, with set statistics; nothing moves."""
    method: SED = small(SED, momentum=1.0, teacher_momentum=1.0, **settings)
    with torch.no_grad():
        method.net.head.weight.copy_(torch.eye(2))
        method.net.head.bias.zero_()
        method.teacher.net.load_state_dict(method.net.state_dict())
        method.mean.fill_(0.9)
        method.variance.fill_(0.02)
    return method


def test_sed_loss_by_hand() -> None:
    method = still_sed()
    x, strong, y = X[:2], X[:2] / 2, torch.tensor([0, 0])  # p[0] is .73 and .27; T = 1 / 2
    q = torch.e / (1 + torch.e)
    trust = torch.exp(torch.tensor(-((0.9 - q) ** 2) / 0.04))
    given, corrected = -torch.log(torch.tensor(q)), -torch.log(torch.tensor(q))
    again = cross_entropy(strong[:1], torch.tensor([0]))
    expected = (given + trust * again + trust * corrected) / 2
    found = method.loss(batch_of(x, strong, y=y))
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_sed_loss_of_the_program_by_hand() -> None:
    method = still_sed(terms="two", sigmas=2)
    x, strong, y = X[:2], X[:2] / 2, torch.tensor([0, 0])  # the first is clean, the second is corrected to 1
    q = torch.e / (1 + torch.e)
    trust = torch.exp(torch.tensor(-4 * (0.9 - q) ** 2 / 0.04))
    again = cross_entropy(strong, torch.tensor([0, 1]), reduction="none")
    expected = -torch.log(torch.tensor(q)) + (trust * again).mean()
    assert method.loss(batch_of(x, strong, y=y)).item() == pytest.approx(expected.item(), abs=1e-6)


def test_sed_threshold_of_the_program_is_a_quantile_with_a_ceiling() -> None:
    method = small(SED, momentum=0.5, threshold="quantile")
    p = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9])
    method._move_thresholds(torch.stack([p, 1 - p], 1), torch.zeros(5, dtype=torch.int64))
    assert method.threshold.item() == pytest.approx((0.5 + 0.5) / 2)  # the .8 quantile: .4 + .2 (.9 - .4)
    for _ in range(9):
        method._move_thresholds(torch.ones(5, 2), torch.zeros(5, dtype=torch.int64))
    assert method.threshold.item() == pytest.approx(0.95)


def test_sed_judges_all_rows_before_an_epoch_as_the_program_does() -> None:
    method = small(SED, pace="epoch", momentum=0.5)
    with torch.no_grad():
        method.net.head.weight.copy_(torch.eye(2))
        method.net.head.bias.zero_()
        method.teacher.net.load_state_dict(method.net.state_dict())
    p = X.softmax(1)
    method.warm_up(batch_of(X))
    assert method.threshold.item() == 0.5  # the warm-up moves the teacher alone
    assert [stage.epochs for stage in method.plan(6)] == [2, 1, 1, 1, 1]
    assert method.judge(Data.of(X, Y)).y is Y
    given = p[torch.arange(4), Y]
    assert method.threshold.item() == pytest.approx((0.5 + given.mean().item()) / 2)
    torch.testing.assert_close(method.expected, (0.5 + p.mean(0)) / 2)
    assert method.corrected.tolist() == p.argmax(1).tolist()
    assert method.clean.tolist() == (given >= method.class_thresholds()[Y]).int().tolist()
    before = method.threshold.clone()
    method.loss(batch_of(X, X))
    assert torch.equal(before, method.threshold)


def test_sed_holds_confidence_down_in_the_warm_up_if_told() -> None:
    plain, told = small(SED), small(SED, confidence_penalty=True)
    p = plain.net(X).softmax(1)
    found = told.warm_up(batch_of(X)) - plain.warm_up(batch_of(X))
    assert found.item() == pytest.approx((p * p.log()).sum(1).mean().item(), abs=1e-6)


PROGRAM = {"threshold": "quantile", "terms": "two", "pace": "epoch", "sigmas": 2.0, "confidence_penalty": True}


@pytest.mark.parametrize("check", [contract.check_resume_is_exact, contract.check_hard_data, contract.check_learns])
def test_sed_of_the_program_keeps_the_contract(check: contract.Check) -> None:
    check(type("Program", (SED,), {"test_settings": PROGRAM}))


def test_sed_moves_confidence_of_the_classes_that_occur() -> None:
    method = small(SED, momentum=0.5)
    method._move_confidence(torch.tensor([0.6, 0.8]), torch.tensor([1, 1]))
    torch.testing.assert_close(method.mean, torch.tensor([0.5, 0.6]))
    torch.testing.assert_close(method.variance, torch.tensor([1.0, 0.505]))


def test_teacher_averages_batch_norm_and_copies_the_rest() -> None:
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.BatchNorm1d(2))
    teacher = Teacher(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        layer.weight.add_(1)
    net(X)  # moves the running statistics
    teacher.update(net, 0.9)
    after, own = net.state_dict(), teacher.net.state_dict()
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(own[name], 0.9 * before[name] + 0.1 * after[name])
    assert own["1.num_batches_tracked"] == 1
    teacher.train()
    assert not teacher.net.training
    assert not teacher(X).requires_grad


# ------------------------------------------------------------------------------------------------ TURN


def test_turn_keeps_equally_many_of_every_class() -> None:
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    losses = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.5, 0.6, 0.9, 0.7, 0.8])
    clean = torch.tensor([True] * 4 + [True, False] + [True] * 3)  # 4, 1 and 3: the median is 3
    kept = even_selection(losses, y, clean, 4)
    assert kept.tolist() == [False, True, True, True, True, False, True, True, True]
    equal = even_selection(losses, y, clean, 4, "least")  # 1 of each, the smallest; the class without rows has no say
    assert equal.tolist() == [False, False, False, True, True, False, False, True, False]
    assert not bool(even_selection(losses, y, torch.zeros(9, dtype=torch.bool), 4).any())
    with pytest.raises(UnswayedError, match="quota is"):
        small(TURN, quota="mean")


def test_turn_probes_a_body_that_rests() -> None:
    data, _, _ = contract.toy(120)
    method: Any = contract.make(TURN, 120)
    probe, tune = method.plan(10)
    assert (probe.epochs, tune.epochs, tune.fresh) == (5, 5, True)
    assert probe.train is method.net.head
    before = method.net.body[0].weight.clone()
    method.plan = lambda epochs: [probe]
    contract.train(method, data, epochs=5)
    assert torch.equal(before, method.net.body[0].weight)
    q = method.net(X.repeat(1, 3)).softmax(1)[torch.arange(4), Y]
    expected = ((1 - q**0.7) / 0.7).mean()
    assert method.learn_head(batch_of(X.repeat(1, 3))).item() == pytest.approx(expected.item(), abs=1e-5)


# ------------------------------------------------------------------------------------------------ LCCN


def test_latent_posterior_by_hand() -> None:
    p, transition = torch.tensor([[0.6, 0.4]]), torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    found = log_posterior(p.log(), torch.tensor([1]), transition).exp()
    torch.testing.assert_close(found, torch.tensor([[0.06, 0.2]]) / 0.26)


def test_latent_labels_are_drawn_by_their_probability() -> None:
    torch.manual_seed(0)
    drawn = draw(torch.tensor([0.7, 0.3, 0.0]).log().expand(20000, 3))
    share = torch.bincount(drawn, minlength=3) / 20000
    assert share.tolist() == pytest.approx([0.7, 0.3, 0.0], abs=0.02)


def test_lccn_counts_follow_what_is_drawn() -> None:
    data, _, _ = contract.toy(120)
    method: Any = contract.make(LCCN, 120)
    contract.train(method, data, epochs=3)
    drawn = confusion(method.latent, data.y, 3)
    torch.testing.assert_close(method.counts, drawn)
    assert float(method.counts.sum()) == 120
    method.count(False, data)
    torch.testing.assert_close(method.transition, transition_of(drawn))


def test_lccn_renews_its_transition_now_and_then() -> None:
    method = small(LCCN, renew=2)
    method.count(True, Data.of(X, Y))
    before = method.transition.clone()
    with torch.no_grad():
        method.net.head.weight.copy_(torch.eye(2) * 100)  # sure of 0, 1, 0 (a tie), 0
    method.loss(batch_of(X))
    assert torch.equal(before, method.transition)
    method.loss(batch_of(X))
    torch.testing.assert_close(method.transition, transition_of(method.counts))


# ------------------------------------------------------------------------------------------------ NMTune, LNSR


def test_nmtune_loss_by_hand() -> None:
    method = small(NMTune)
    method.eval()
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [2.0, -1.0]])
    z = x + 1.0 * method.reshape.mlp(x)
    unit = z / z.norm(dim=1, keepdim=True) - x / x.norm(dim=1, keepdim=True)
    c = torch.cov(z.T)
    values = torch.linalg.svdvals(z)
    expected = cross_entropy(method.net.head(z), Y) + unit.square().mean() + 0.04 * 2 * c[0, 1] ** 2 / 2 - 0.001 / 2
    assert values.numel() == 2  # both are leading: their mean share is a half
    assert method.loss(batch_of(x)).item() == pytest.approx(expected.item(), abs=1e-5)


def test_nmtune_learns_from_two_views_as_its_program() -> None:
    method = small(NMTune, views="two", covariance=0.1, spectrum=0.0)
    method.eval()
    with torch.no_grad():
        method.reshape.scale.copy_(torch.tensor([0.5, 2.0]))  # one number a feature
    views = (torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [2.0, -1.0]]), torch.rand(4, 2))
    z, other = (x + torch.tensor([0.5, 2.0]) * method.reshape.mlp(x) for x in views)
    both = torch.cat([z, other])
    apart = other / other.norm(dim=1, keepdim=True) - views[0] / views[0].norm(dim=1, keepdim=True)
    expected = cross_entropy(method.net.head(both), torch.cat([Y, Y])) + apart.square().mean()
    expected = expected + 0.1 * 2 * torch.cov(both.T)[0, 1] ** 2 / 2
    assert method.loss(batch_of(*views)).item() == pytest.approx(expected.item(), abs=1e-5)
    assert method.plan(3)[0].views == ("weak", "weak")
    with pytest.raises(UnswayedError, match="views is"):
        small(NMTune, views="three")


def test_nmtune_leaves_the_body_alone() -> None:
    data, _, _ = contract.toy(120)
    for freeze in (True, False):
        torch.manual_seed(0)
        method: Any = NMTune(contract.ToyNet, Info(120, 3), freeze=freeze)
        before = {name: value.clone() for name, value in method.named_parameters()}
        contract.train(method, data, epochs=2)
        moved = {name for name, value in method.named_parameters() if not torch.equal(before[name], value)}
        assert set(before) - moved == ({"net.body.0.weight", "net.body.0.bias"} if freeze else set())


def test_lnsr_loss_by_hand() -> None:
    method = small(LNSR, sigma=0.5, features=0.0, logits=2.0)
    torch.manual_seed(3)
    moved = X + 0.5 * X.std(0, correction=0) * torch.randn(4, 2)
    torch.manual_seed(3)
    still, other = method.net.head(X), method.net.head(moved)
    spread = still.var(0, correction=0).mean()
    expected = cross_entropy(still, Y) + 2 * (other - still).square().mean() / spread
    assert method.loss(batch_of(X)).item() == pytest.approx(expected.item(), abs=1e-5)


def test_lnsr_as_published_by_hand() -> None:
    method = small(LNSR, sigma=0.5, features=0.0, logits=2.0, measure="squared")
    torch.manual_seed(3)
    other = method.net.head(X + 0.5 * torch.randn(4, 2))
    torch.manual_seed(3)
    still = method.net.head(X)
    expected = cross_entropy(still, Y) + 2 * (other - still).square().sum(1).mean()
    assert method.loss(batch_of(X)).item() == pytest.approx(expected.item(), abs=1e-5)
    with pytest.raises(UnswayedError, match="measure is"):
        small(LNSR, measure="cubed")


def test_lnsr_sees_the_layers_behind_the_noise() -> None:
    def found(**settings: float) -> tuple[float, Any]:
        torch.manual_seed(0)
        made = LNSR(contract.ToyNet, Info(8, 3), **settings)  # type: ignore[arg-type]
        torch.manual_seed(3)
        return made.loss(batch_of(X.repeat(1, 3))).item(), made

    behind, made = found(
        features=0.0, later=2.0
    )  # behind the first layer is the last one, whose output the features are
    assert behind == pytest.approx(found(features=2.0)[0], abs=1e-6)
    assert layers_behind(made.net.body, made.net.body[0]) == [made.net.body[1]]
    assert layers_behind(made.net.body, made.net.body) == []
    assert all(not module._forward_hooks for module in made.modules())


def test_lnsr_disturbs_the_layer_that_is_named() -> None:
    made: Any = contract.make(LNSR, 8)
    assert find_layer(made.net.body, "") is made.net.body[0]
    assert find_layer(made.net.body, "1") is made.net.body[1]
    assert find_layer(Still(2), "").__class__ is Still
    with pytest.raises(UnswayedError, match="a layer of the body: 0, 1"):
        LNSR(contract.ToyNet, Info(8, 3), layer="2")
    hooks = sum(len(module._forward_hooks) for module in made.modules())
    made.loss(batch_of(X.repeat(1, 3)))
    assert hooks == sum(len(module._forward_hooks) for module in made.modules()) == 0


def test_sed_predicts_by_either_network() -> None:
    student, teacher = small(SED), small(SED, predict="teacher")
    with torch.no_grad():
        for method in (student, teacher):
            method.net.head.weight.add_(1)
    torch.testing.assert_close(student(X), student.net(X))
    torch.testing.assert_close(teacher(X), teacher.teacher.net(X))
    with pytest.raises(UnswayedError, match="predict is"):
        small(SED, predict="both")
