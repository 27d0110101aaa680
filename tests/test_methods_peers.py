"""Exact values of the peers: small cases by hand, against the published formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unswayed import UnswayedError
from unswayed.checks import methods as contract
from unswayed.engine import Record
from unswayed.losses import cross_entropy
from unswayed.method import Batch, Data, Info
from unswayed.methods.bilevel import Bilevel
from unswayed.methods.co_teaching import CoTeaching, CoTeachingPlus
from unswayed.methods.cores import CORES
from unswayed.methods.correction import Correction, invertible
from unswayed.methods.early_stopping import EarlyStopping
from unswayed.methods.elr_plus import ELRPlus, ramp
from unswayed.methods.jocor import JoCoR, disagreement
from unswayed.methods.pair import count_kept, mean_of_smallest
from unswayed.methods.reweighting import FORMS, Reweighting, batch_weights
from unswayed.methods.sop_plus import SOPPlus
from unswayed.prediction import predict
from unswayed.stats.semi import mixup
from unswayed.stats.transition import estimate_transition


def batch_of(x: Tensor, y: Tensor, progress: float = 1.0, views: int = 1, epoch: int = 0) -> Batch:
    return Batch((x,) * views, y, torch.arange(len(y)), torch.ones(len(y)), epoch, progress)


def fixed(*columns: list[float]) -> nn.Linear:
    """A network without bias whose logits for the unit vectors are these columns."""
    net = nn.Linear(len(columns), len(columns[0]), bias=False)
    net.weight.data = torch.tensor(columns).t().contiguous()
    return net


def ce(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(v) for v in logits)) - logits[label]


# ------------------------------------------------------------------------------------------------ co-teaching

OWN = ([2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0])  # says 0, 1, 1, 0
PEER = ([0.0, 1.0], [0.0, 2.0], [4.0, 0.0], [0.0, 0.5])  # says 1, 1, 0, 1: the second sample is not disputed
LABELS = torch.tensor([0, 1, 1, 0])


def test_co_teaching_as_its_program_divides_by_the_number_kept_again() -> None:
    nets = iter((fixed(*OWN), fixed(*PEER)))
    method = CoTeaching(lambda: next(nets), Info(4, 2), forget=0.35, variant="code")  # int(.65 * 4) = 2 are kept
    own = [ce(logits, int(y)) for logits, y in zip(OWN, LABELS, strict=True)]
    peer = [ce(logits, int(y)) for logits, y in zip(PEER, LABELS, strict=True)]
    assert sorted(range(4), key=own.__getitem__)[:2] == [2, 0]
    assert sorted(range(4), key=peer.__getitem__)[:2] == [1, 3]
    expected = (own[1] + own[3]) / 2 / 2 + (peer[2] + peer[0]) / 2 / 2
    assert method.loss(batch_of(torch.eye(4), LABELS)).item() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UnswayedError, match="variant"):
        CoTeaching(lambda: nn.Linear(2, 2), Info(4, 2), variant="both")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ co-teaching+


def plus(**settings: object) -> CoTeachingPlus:
    nets = iter((fixed(*OWN), fixed(*PEER)))
    return CoTeachingPlus(lambda: next(nets), Info(4, 2), **settings)  # type: ignore[arg-type]


def test_co_teaching_plus_looks_only_where_the_networks_differ() -> None:
    method = plus(forget=0.35, ramp=0.05)  # of three disputed samples round(.65 * 3) = 2 are kept
    own = [ce(logits, int(y)) for logits, y in zip(OWN, LABELS, strict=True)]
    peer = [ce(logits, int(y)) for logits, y in zip(PEER, LABELS, strict=True)]
    # Among 0, 2, 3 the peer's smallest losses are at 3 and 0, the first network's at 2 and 0.
    assert peer[3] < peer[0] < peer[2]
    assert own[2] < own[0] < own[3]
    expected = (own[3] + own[0]) / 2 + (peer[2] + peer[0]) / 2
    assert method.loss(batch_of(torch.eye(4), LABELS)).item() == pytest.approx(expected, abs=1e-6)


def test_co_teaching_plus_begins_as_co_teaching() -> None:
    method = plus(warmup=0.5, ramp=0.0, forget=0.0)
    every = [ce(o, int(y)) + ce(p, int(y)) for o, p, y in zip(OWN, PEER, LABELS, strict=True)]
    value = method.loss(batch_of(torch.eye(4), LABELS, progress=0.4)).item()
    assert value == pytest.approx(sum(every) / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("forget", "chosen", "peer_chosen"),
    [
        (0.0, [0, 2, 3], [0, 2, 3]),  # the mean over three, and divided by three again
        (0.35, [3], [2]),  # of three disputed samples int(.65 * 3) = 1 is kept
        (0.9, [0, 2, 3], [0, 2, 3]),  # int(.1 * 3) is none, so all are
    ],
)
def test_co_teaching_plus_as_its_program(forget: float, chosen: list[int], peer_chosen: list[int]) -> None:
    method = plus(forget=forget, variant="code")
    own, peer = (
        [ce(torch.tensor(row).softmax(0).tolist(), int(y)) for row, y in zip(net, LABELS, strict=True)]
        for net in (OWN, PEER)
    )
    expected = sum(own[i] for i in chosen) / len(chosen) ** 2 + sum(peer[i] for i in peer_chosen) / len(chosen) ** 2
    assert method.loss(batch_of(torch.eye(4), LABELS)).item() == pytest.approx(expected, abs=1e-6)


def test_co_teaching_plus_without_disagreement_teaches_nothing() -> None:
    method = plus()
    method.peer.load_state_dict(method.net.state_dict())
    loss = method.loss(batch_of(torch.eye(4), LABELS))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


def test_co_teaching_plus_schedules() -> None:
    points = (0.0, 0.1, 0.2, 0.6, 1.0)
    assert [plus(forget=0.4, ramp=0.2).forget_rate(p) for p in points] == pytest.approx([0, 0.2, 0.4, 0.4, 0.4])
    rising = plus(forget=0.4, ramp=0.2, rising=True)
    assert [rising.forget_rate(p) for p in points] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_mean_of_smallest_counts_a_row_at_least_and_none_of_none() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0])
    two, none = torch.tensor([False, True, True]), torch.zeros(3, dtype=torch.bool)
    assert mean_of_smallest(losses, losses, two, count_kept(two, 0.0)).item() == 2.0
    assert mean_of_smallest(losses, losses, none, count_kept(none, 0.5)).item() == 0.0
    assert [int(count_kept(two, share, cut=True)) for share in (0.4, 0.6, 1.0)] == [2, 1, 2]
    assert [int(count_kept(none, share, cut=cut)) for share in (0.0, 1.0) for cut in (False, True)] == [0] * 4


# ------------------------------------------------------------------------------------------------ jocor


def test_jocor_loss_by_hand() -> None:
    nets = iter((fixed(*OWN), fixed(*PEER)))
    method = JoCoR(lambda: next(nets), Info(4, 2), agree=0.7, forget=0.5, ramp=0.0, rescale=False)
    joint = []
    for o, p, y in zip(OWN, PEER, LABELS.tolist(), strict=True):
        a, b = torch.tensor(o).softmax(0), torch.tensor(p).softmax(0)
        both = float((a * (a / b).log()).sum() + (b * (b / a).log()).sum())
        joint.append(0.3 * (ce(o, y) + ce(p, y)) + 0.7 * both)
    expected = sum(sorted(joint)[:2]) / 2
    assert method.loss(batch_of(torch.eye(4), LABELS)).item() == pytest.approx(expected, abs=1e-6)
    method.rescale = True
    assert method.loss(batch_of(torch.eye(4), LABELS)).item() == pytest.approx(expected / 0.3, abs=1e-5)


def test_disagreement_is_the_symmetric_divergence() -> None:
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    assert disagreement(p.log(), q.log()).item() == pytest.approx(math.log(3), abs=1e-6)  # 2 (.75 - .25) log 3
    assert disagreement(p.log(), p.log()).item() == 0.0


@pytest.mark.parametrize("settings", [{"agree": 1.0}, {"forget": -0.1}, {"ramp": 2}])
def test_jocor_refuses_settings_that_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(UnswayedError, match=next(iter(settings))):
        JoCoR(lambda: nn.Linear(2, 2), Info(4, 2), **settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ correction


@pytest.mark.parametrize("estimate", ["anchor", "confident"])
def test_correction_estimates_from_its_first_stage(estimate: str) -> None:
    data, _, _ = contract.toy(240)
    method = Correction(lambda: contract.ToyNet(), Info(240, 3), estimate=estimate, evidence="last", restart=True)  # type: ignore[arg-type]
    before = predict(method.net, data.x)
    first, second = method.plan(10)
    assert (first.epochs, second.epochs, first.fresh, second.fresh) == (5, 5, False, True)
    net: Any = method.net
    with torch.no_grad():
        net.head.weight.mul_(3)  # as if trained: the estimate must come from this network, not from the first
    expected = estimate_transition(predict(method.net, data.x).softmax(1), data.y, how=estimate)  # type: ignore[arg-type]
    second.data(data)
    assert torch.equal(method.transition, expected)
    torch.testing.assert_close(predict(method.net, data.x), before)  # begun anew


def test_correction_keeps_the_network_that_fits_held_out_labels_best_in_each_stage() -> None:
    data, _, _ = contract.toy(240)
    torch.manual_seed(0)
    method: Any = Correction(lambda: contract.ToyNet(), Info(240, 3), hold_out=0.1, evidence="last")
    losses: list[float] = []
    predictions: list[Tensor] = []

    def note(record: Record) -> None:
        held = data.rows(method.held_out.rows == 1)
        measure = cross_entropy if len(losses) < 3 else method.criterion.per_sample
        losses.append(float(measure(predict(method.net, held.x), held.y).mean()))
        predictions.append(predict(method.net, data.x).softmax(1))

    contract.train(method, data, epochs=6, watch=[note])
    held = data.rows(method.held_out.rows == 1)
    assert len(held) == 24
    first, second = losses[:3], losses[3:]
    assert torch.equal(method.transition, estimate_transition(predictions[first.index(min(first))], data.y))
    kept = method.criterion.per_sample(predict(method.net, held.x), held.y).mean()
    assert float(kept) == pytest.approx(min(second), abs=1e-6)


def test_correction_loss_by_hand() -> None:
    transition = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    logits, y = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), torch.tensor([0, 1])
    forward = Correction(lambda: nn.Identity(), Info(2, 2))
    forward.criterion.set_transition(transition)
    # p = (.5, .5) and (.75, .25); (p T)_y = .5 * .8 + .5 * .4 = .6 and .75 * .2 + .25 * .6 = .3
    value = forward.loss(batch_of(logits, y)).item()
    assert value == pytest.approx(-(math.log(0.6) + math.log(0.3)) / 2, abs=1e-6)
    backward = Correction(lambda: nn.Identity(), Info(2, 2), direction="backward")
    backward.criterion.set_transition(transition)
    # T^-1 = [[1.5, -.5], [-1, 2]]
    mixed = 1.5 * math.log(2) - 0.5 * math.log(2) - 1.0 * -math.log(0.75) + 2.0 * -math.log(0.25)
    assert backward.loss(batch_of(logits, y)).item() == pytest.approx(mixed / 2, abs=1e-6)


def test_correction_blends_what_cannot_be_inverted() -> None:
    alike = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    blended = invertible(alike)
    torch.testing.assert_close(blended.sum(1), torch.ones(3))
    assert torch.linalg.cond(blended).item() <= 100
    torch.testing.assert_close(blended, 0.95 * alike + 0.05 * torch.eye(3))
    fine = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    assert torch.equal(invertible(fine), fine)


@pytest.mark.parametrize("settings", [{"direction": "sideways"}, {"estimate": "guess"}, {"warmup": 1.0}])
def test_correction_refuses_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(UnswayedError, match=next(iter(settings))):
        Correction(lambda: nn.Linear(2, 2), Info(4, 2), **settings)


# ------------------------------------------------------------------------------------------------ reweighting


@pytest.mark.parametrize(
    ("form", "f"),
    [
        ("lin-upper", [0.0, 0.5, 1.0, 1.0]),
        ("quadratic", [0.0, 0.75, 0.75, 0.0]),
        ("extremes", [1.0, 0.5, 0.5, 1.0]),
        ("upper", [0.0, 0.25, 0.75, 1.0]),
        ("lin-lower", [1.0, 1.0, 0.5, 0.0]),
    ],
)
def test_batch_weights_by_hand(form: str, f: list[float]) -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 5.0])  # h = -1, -.5, .5, 1
    total = sum(math.exp(2 * v) for v in f)
    found = batch_weights(values, form, sharpness=2.0)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([math.exp(2 * v) / total for v in f])


@pytest.mark.parametrize("form", FORMS)
def test_equal_losses_have_equal_weights(form: Any) -> None:
    assert batch_weights(torch.full((4,), 3.0), form, 5.0).tolist() == [0.25] * 4


def test_reweighting_begins_even_and_takes_no_gradient_of_its_weights() -> None:
    method = Reweighting(lambda: fixed(*OWN), Info(4, 2), form="extremes", temperature=0.5, ramp=0.5)
    values = torch.tensor([ce(o, y) for o, y in zip(OWN, LABELS.tolist(), strict=True)])
    even = method.loss(batch_of(torch.eye(4), LABELS, progress=0.0)).item()
    assert even == pytest.approx(values.mean().item(), abs=1e-6)
    loss = method.loss(batch_of(torch.eye(4), LABELS, progress=0.25))
    weight = batch_weights(values, "extremes", 1.0)  # half of 1 / .5
    assert loss.item() == pytest.approx((weight * values).sum().item(), abs=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    net: Any = method.net
    slope = weight * (torch.tensor(OWN).softmax(1)[:, 0] - (LABELS == 0).float())  # of the first class's logit
    torch.testing.assert_close(net.weight.grad[0], slope)


@pytest.mark.parametrize(("begin", "sharpness"), [("ramp", [0.0, 0.5, 2.0, 2.0]), ("switch", [0.0, 0.0, 2.0, 2.0])])
def test_reweighting_begins_as_told(begin: Any, sharpness: list[float]) -> None:
    method = Reweighting(lambda: fixed(*OWN), Info(4, 2), temperature=0.5, ramp=0.4, begin=begin)
    assert [method._sharpness(progress) for progress in (0.0, 0.1, 0.4, 1.0)] == pytest.approx(sharpness)
    at_once = Reweighting(lambda: fixed(*OWN), Info(4, 2), ramp=0.0, begin=begin)
    assert at_once._sharpness(0.0) == 1
    with pytest.raises(UnswayedError, match="begin is"):
        Reweighting(lambda: fixed(*OWN), Info(4, 2), begin="late")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ early stopping


def test_early_stopping_keeps_the_network_that_the_noisy_labels_favour() -> None:
    data, _, _ = contract.toy(240)
    method: Any = contract.make(EarlyStopping, 240)
    accuracies = []

    def note(record: Record) -> None:
        held = data.rows(method.held_out.rows == 1)
        accuracies.append(float((predict(method.net, held.x).argmax(1) == held.y).float().mean()))

    contract.train(method, data, epochs=6, watch=[note])
    held = data.rows(method.held_out.rows == 1)
    assert len(held) == 48
    chosen = method.chosen()
    assert chosen["validation_accuracy"] == pytest.approx(max(accuracies))
    assert chosen["epochs"] == accuracies.index(max(accuracies)) + 1
    assert float((predict(method, held.x).argmax(1) == held.y).float().mean()) == pytest.approx(max(accuracies))


def test_early_stopping_ends_when_patience_does() -> None:
    data, _, _ = contract.toy(240)
    method = EarlyStopping(lambda: contract.ToyNet(), Info(240, 3), patience=1)
    records = contract.train(method, data, epochs=20).records
    assert len(records) == method.chosen()["epochs"] + 1 < 20


@pytest.mark.parametrize("settings", [{"patience": 0}, {"hold_out": 1.0}])
def test_early_stopping_refuses_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(UnswayedError, match=next(iter(settings))):
        EarlyStopping(lambda: nn.Linear(2, 2), Info(4, 2), **settings)


# ------------------------------------------------------------------------------------------------ bilevel


def bilevel(**settings: Any) -> Any:
    nets = iter((fixed(*OWN), fixed(*PEER)))
    method: Any = Bilevel(lambda: next(nets), Info(8, 2), **settings)
    assert torch.equal(method.net.weight, method.follower.weight)  # both start alike
    method.follower.weight.data = torch.tensor(PEER).t().contiguous()
    return method


def test_bilevel_loss_and_steps_by_hand() -> None:
    method = bilevel(penalty=2.0, rate=3.0, trusted=[4, 5])
    weight = torch.tensor([0.2, 0.4, 0.6, 0.8])
    method.logit[:4] = weight.logit()
    checked = Batch((torch.eye(4)[:2],), torch.tensor([1, 1]), torch.tensor([4, 5]), torch.ones(2), 0, 1.0)
    own = torch.tensor([ce(o, y) for o, y in zip(OWN, LABELS.tolist(), strict=True)])
    follower = torch.tensor([ce(p, y) for p, y in zip(PEER, LABELS.tolist(), strict=True)])
    upper = (ce(OWN[0], 1) + ce(OWN[1], 1)) / 2
    scaled = weight / 0.5  # their mean is .5
    expected = (upper + 2 * (scaled * own).mean()) / 3 + (scaled * follower).mean()
    assert method.both_losses(batch_of(torch.eye(4), LABELS), checked).item() == pytest.approx(
        expected.item(), abs=1e-5
    )
    slope = (2 * weight * (1 - weight) * (own - follower)).clamp(-1, 1)
    torch.testing.assert_close(method.logit[:4], weight.logit() - 3 * slope)
    assert not method.logit[4:].any()


def test_bilevel_penalty_may_grow_and_weights_may_wait() -> None:
    method = bilevel(penalty=1.0, penalty_end=3.0, rate=3.0, warmup=0.6, trusted=[4, 5])
    checked = Batch((torch.eye(4)[:2],), torch.tensor([1, 1]), torch.tensor([4, 5]), torch.ones(2), 0, 1.0)
    own = torch.tensor([ce(o, y) for o, y in zip(OWN, LABELS.tolist(), strict=True)])
    follower = torch.tensor([ce(p, y) for p, y in zip(PEER, LABELS.tolist(), strict=True)])
    upper = (ce(OWN[0], 1) + ce(OWN[1], 1)) / 2
    found = method.both_losses(batch_of(torch.eye(4), LABELS, progress=0.5), checked).item()  # penalty 2, equal weights
    assert found == pytest.approx(((upper + 2 * own.mean()) / 3 + follower.mean()).item(), abs=1e-5)
    assert not method.logit.any()
    method.both_losses(batch_of(torch.eye(4), LABELS, progress=0.75), checked)  # penalty 2.5
    torch.testing.assert_close(method.logit[:4], -3 * (2.5 / 4 * (own - follower)).clamp(-1, 1))


def test_bilevel_trains_on_trusted_rows_above_and_on_the_others_below() -> None:
    data, _, _ = contract.toy(64)
    method = Bilevel(lambda: contract.ToyNet(), Info(64, 3), trusted=torch.tensor([3, 60, 7]))
    (stage,) = method.plan(5)
    below, above = stage.data(data.rows(torch.arange(63, -1, -1)))  # type: ignore[misc]
    assert sorted(above.index.tolist()) == [3, 7, 60]
    assert sorted(below.index.tolist()) == sorted(set(range(64)) - {3, 7, 60})
    contract.train(method, data, epochs=2)
    suspicion = method.suspicion()
    assert suspicion is not None
    assert suspicion[torch.tensor([3, 7, 60])].tolist() == [0.0, 0.0, 0.0]
    assert int((suspicion > 0).sum()) == 61


def test_bilevel_says_that_it_needs_trusted_rows() -> None:
    data, _, _ = contract.toy(64)
    method = Bilevel(lambda: contract.ToyNet(), Info(64, 3))
    with pytest.raises(UnswayedError, match="--trusted"):
        contract.train(method, data)
    with pytest.raises(UnswayedError, match="list of row numbers"):
        Bilevel(lambda: contract.ToyNet(), Info(64, 3), trusted=[0.5])  # type: ignore[list-item]


# ------------------------------------------------------------------------------------------------ cores


def sieve(**settings: Any) -> CORES:
    return CORES(lambda: nn.Identity(), Info(4, 2), **settings)


def test_cores_schedule_and_sieve_by_hand() -> None:
    method = sieve()
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1])  # the second and the fourth fit their label worse than the other one
    losses = torch.tensor([ce(row, int(label)) for row, label in zip(logits.tolist(), y, strict=True)])
    average = torch.tensor([(ce(row, 0) + ce(row, 1)) / 2 for row in logits.tolist()])
    early = method.sieve_loss(0.1, batch_of(logits, y)).item()
    assert early == pytest.approx(losses.mean().item(), abs=1e-6)
    assert method.kept.tolist() == [1, 1, 1, 1]
    middle = method.sieve_loss(0.25, batch_of(logits, y)).item()  # beta 1
    assert middle == pytest.approx(((losses - average) / 2).mean().item(), abs=1e-6)
    late = method.sieve_loss(0.5, batch_of(logits, y)).item()  # beta 2, with the sieve
    expected = ((losses - 2 * average) / 3)[torch.tensor([0, 2])].mean().item()
    assert late == pytest.approx(expected, abs=1e-6)
    assert method.kept.tolist() == [1, 0, 1, 0]
    assert method.chosen() == {"kept": 0.5}


@pytest.mark.parametrize(
    ("prior", "expected"), [("kept", [1.0, 0.0]), ("given", [0.75, 0.25]), ("uniform", [0.5, 0.5])]
)
def test_cores_prior(prior: Any, expected: list[float]) -> None:
    method = sieve(prior=prior)
    method.kept.copy_(torch.tensor([1, 1, 0, 0]))
    stage = method.plan(3)[0]
    stage.data(Data.of(torch.zeros(4, 2), torch.tensor([0, 0, 1, 0])))
    assert method.prior.tolist() == expected


@pytest.mark.parametrize(("supervise", "logits"), [("weak", [1.0, 0.0]), ("strong", [0.0, 0.5])])
def test_cores_second_phase_by_hand(supervise: Any, logits: list[float]) -> None:
    method = sieve(consistency=0.4, supervise=supervise)
    assert [(s.name, s.epochs) for s in method.plan(5)] == [("sieve", 1), ("sieve", 1), ("consistency", 3)]
    method.kept.copy_(torch.tensor([1, 0, 0, 0]))
    weak, strong = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.5], [math.log(3.0), 0.0]])
    batch = Batch((weak, strong), torch.tensor([0, 0]), torch.arange(2), torch.ones(2), 0, 1.0)
    apart = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert method.consistency_loss(batch).item() == pytest.approx(ce(logits, 0) + 0.4 * apart, abs=1e-6)


def test_cores_first_phase_ends_where_it_settles() -> None:
    def schedule(**settings: Any) -> list[float]:
        stages: list[Any] = sieve(**settings).plan(8)
        return [stage.loss.args[0] for stage in stages if stage.name == "sieve"]

    assert schedule(consistency=0.4, settle=0.4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert schedule(consistency=0.4) == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert schedule(settle=0.4) == pytest.approx([epoch / 8 for epoch in range(8)])  # without a second phase, whole
    for wrong in ({"supervise": "both"}, {"settle": 0.0, "consistency": 0.4}):
        with pytest.raises(UnswayedError, match=next(iter(wrong))):
            sieve(**wrong)


def test_cores_second_phase_never_begins_without_samples() -> None:
    method = sieve(consistency=0.4)
    method.kept.zero_()
    method.plan(2)[-1].data(Data.of(torch.zeros(4, 2), torch.tensor([0, 0, 1, 0])))
    assert method.kept.tolist() == [1, 1, 1, 1]


# ------------------------------------------------------------------------------------------------ sop+


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_sop_plus_adds_consistency_and_balance(variant: Any) -> None:
    method = SOPPlus(lambda: nn.Identity(), Info(2, 2), consistency=0.9, balance=0.1, variant=variant)
    method.criterion.u.data.fill_(0.5)
    method.criterion.v.data.zero_()
    weak, strong = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), torch.tensor([[math.log(3.0), 0.0]] * 2)
    y = torch.tensor([0, 1])
    batch = Batch((weak, strong), y, torch.arange(2), torch.ones(2), 0, 1.0)
    fit = method.criterion(weak, y, torch.arange(2)).item()
    apart = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2  # the second row's views agree
    if variant == "paper":
        mean = (0.625, 0.375)  # of (.5, .5) and (.75, .25)
        even = sum(0.5 * math.log(0.5 / m) for m in mean)
    else:
        # u^2 = .25 joins the given label: (.75, .5) / 1.25 and (.75, .5) / 1.25
        even = -(math.log(0.6) + math.log(0.4)) / 2
    assert method.loss(batch).item() == pytest.approx(fit + 0.9 * apart + 0.1 * even, abs=1e-5)
    assert method.plan(4)[0].views == ("weak", "strong")


def test_sop_plus_sends_both_views_through_one_pass() -> None:
    method, passes = SOPPlus(lambda: nn.Linear(2, 2), Info(2, 2)), []
    method.net.register_forward_hook(lambda net, args, out: passes.append(len(args[0])))
    batch = Batch((torch.eye(2), torch.eye(2)), torch.tensor([0, 1]), torch.arange(2), torch.ones(2), 0, 1.0)
    method.loss(batch)
    assert passes == [4]


def test_sop_plus_learns_its_noise_at_a_steady_rate() -> None:
    method = SOPPlus(lambda: contract.ToyNet(), Info(64, 3))
    data, _, _ = contract.toy(64)
    rates: list[list[float]] = []
    step = torch.optim.SGD.step

    def note(optimizer: Any, closure: Any = None) -> Any:
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", note)
        contract.train(method, data, epochs=4)
    assert rates[-1][0] < 0.1 * rates[0][0]  # the network's rate falls
    assert {tuple(rate[1:]) for rate in rates} == {(10.0, 10.0)}


def test_sop_plus_hands_settings_to_its_loss() -> None:
    method = SOPPlus(lambda: nn.Linear(2, 2), Info(2, 2), sop={"lr_u": 0.5})
    assert method.criterion.parameter_settings["u"]["lr"] == 0.5
    with pytest.raises(UnswayedError, match="variant"):
        SOPPlus(lambda: nn.Linear(2, 2), Info(2, 2), variant="both")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ elr+


def elr_plus(**settings: Any) -> ELRPlus:
    nets = iter((fixed(*OWN), fixed(*PEER)))
    return ELRPlus(lambda: next(nets), Info(4, 2), **settings)


def test_elr_plus_loss_by_hand() -> None:
    method = elr_plus(mixup=0.0, lam=2.0, momentum=0.6)
    old = torch.tensor([[0.5, 0.5]] * 4)
    method.target.copy_(old)
    method.peer_target.copy_(old)
    value = method.loss(batch_of(torch.eye(4), LABELS)).item()  # the teachers are still what the networks are
    expected = 0.0
    for own, other in ((OWN, PEER), (PEER, OWN)):
        p, told = torch.tensor(own).softmax(1), 0.6 * old + 0.4 * torch.tensor(other).softmax(1)
        given = torch.tensor([ce(row, y) for row, y in zip(own, LABELS.tolist(), strict=True)])
        expected += (given + 2.0 * (1 - (p * told).sum(1)).log()).mean().item()
    assert value == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(method.target, 0.6 * old + 0.4 * torch.tensor(PEER).softmax(1))
    torch.testing.assert_close(method.peer_target, 0.6 * old + 0.4 * torch.tensor(OWN).softmax(1))


def test_elr_plus_mixes_rows_labels_and_targets_alike() -> None:
    method = elr_plus(lam=0.0, weigh=False, average=0.0)
    method.net.load_state_dict(method.peer.state_dict())
    torch.manual_seed(3)
    found = method.loss(batch_of(torch.eye(4), LABELS)).item()
    torch.manual_seed(3)
    expected = 0.0
    for _ in range(2):
        x, y = mixup(torch.eye(4), torch.eye(2)[LABELS], 1.0)
        expected += -(y * method.peer(x).log_softmax(1)).sum(1).mean().item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_elr_plus_weighs_labels_by_targets_for_many_classes() -> None:
    assert (elr_plus().lam, elr_plus().momentum, elr_plus().weigh) == (3.0, 0.7, False)
    many = ELRPlus(lambda: nn.Linear(2, 100), Info(4, 100))
    assert (many.lam, many.momentum, many.weigh) == (7.0, 0.9, True)
    hard = elr_plus(mixup=0.0, lam=0.0, weigh=True).loss(batch_of(torch.eye(4), LABELS)).item()
    plain = elr_plus(mixup=0.0, lam=0.0).loss(batch_of(torch.eye(4), LABELS)).item()
    assert hard == pytest.approx(plain, abs=1e-6)  # a hard label times anything, scaled to sum one, is itself


def test_elr_plus_teachers_follow_slowly() -> None:
    method = elr_plus(average=0.8, ramp=0.5)
    before = dict(method.teacher.net.named_buffers())["weight"].clone()
    with torch.no_grad():
        for weight in method.net.parameters():
            weight.add_(1.0)
    method.loss(batch_of(torch.eye(4), LABELS, progress=0.25))
    share = 0.8 * math.exp(-5 / 4)
    torch.testing.assert_close(dict(method.teacher.net.named_buffers())["weight"], before + 1 - share)
    assert [ramp(p, 0.5) for p in (0.0, 0.25, 0.7)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1.0])
