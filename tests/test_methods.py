"""The contract over every method, planted faults that every check must catch, and exact values."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unswayed import UnswayedError, checks, methods
from unswayed.checks import methods as contract
from unswayed.losses import batch_entropy_gap
from unswayed.method import Batch, Data, Info, Method, Stage
from unswayed.methods.co_teaching import CoTeaching, choose_smallest
from unswayed.methods.plain import Plain
from unswayed.methods.tuned import Tuned
from unswayed.stats.dynamics import Dynamics


@pytest.mark.parametrize("check", checks.METHOD, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", methods.names())
def test_contract(name: str, check: contract.Check) -> None:
    method = methods.get(name)
    if check.__name__ in method.skip_checks:
        pytest.skip(method.skip_checks[check.__name__])
    check(method)


# ------------------------------------------------------------------------------------------------ planted faults


class Faulty(Plain):
    """Plain training with a planted fault. No paper."""


class PositionalSetting(Faulty):
    def __init__(self, make_net: Any, info: Info, rate: float = 0.1) -> None:
        super().__init__(make_net, info)


class NoSource(Method):
    """Does something."""

    loss = Plain.loss


class WorkInPlan(Faulty):
    """Counts when it is asked for its plan. No paper."""

    def plan(self, epochs: int) -> list[Stage]:
        self.dynamics.wrong += 1
        return super().plan(epochs)


class EndlessPlan(Faulty):
    def plan(self, epochs: int) -> list[Stage]:
        return [Stage("train", 100 * epochs, self.loss)]


class OwnNoise(Faulty):
    def loss(self, batch: Batch) -> Tensor:
        generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
        noise = torch.randn(batch.x.shape, generator=generator)
        return functional.cross_entropy(self.net(batch.x + 0.1 * noise), batch.y)


class HiddenState(Faulty):
    """A history in a Python list is lost when a run is resumed. No paper."""

    def __init__(self, make_net: Any, info: Info) -> None:
        super().__init__(make_net, info)
        self.history: list[int] = []

    def loss(self, batch: Batch) -> Tensor:
        self.history.append(1)
        return super().loss(batch) * (1 + 0.1 * len(self.history))


class CountsByPosition(Faulty):
    def observe(self, logits: Tensor, batch: Batch) -> None:
        self.dynamics.update(logits, batch.y, torch.arange(len(batch)))


class WritesLabels(Faulty):
    def plan(self, epochs: int) -> list[Stage]:
        return [Stage("train", epochs, self.loss, self.spoil)]

    def spoil(self, data: Data) -> Data:
        data.y[:10] = 0
        return data


class WritesRows(Faulty):
    def plan(self, epochs: int) -> list[Stage]:
        return [Stage("train", epochs, self.loss, self.spoil)]

    def spoil(self, data: Data) -> Data:
        data.x.values.mul_(0.5)  # type: ignore[attr-defined]
        return data


class CountsInEvaluation(Faulty):
    def __init__(self, make_net: Any, info: Info) -> None:
        super().__init__(make_net, info)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class WrongShape(Faulty):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


class ForgottenPart(Faulty):
    def __init__(self, make_net: Any, info: Info) -> None:
        super().__init__(make_net, info)
        self.never = nn.Linear(2, 2)


class WrongSign(CoTeaching):
    """Learns from the largest losses. No paper."""

    def loss(self, batch: Batch) -> Tensor:
        losses = functional.cross_entropy(self.net(batch.x), batch.y, reduction="none")
        return losses.topk(len(losses) // 4).values.mean() + 0 * self.peer(batch.x).sum()


class NeedsLinearHead(Faulty):
    def loss(self, batch: Batch) -> Tensor:
        head: nn.Linear = self.net.head  # type: ignore[assignment]
        assert type(head) is nn.Linear, "only linear heads"
        return super().loss(batch)


class EmptyPart(Faulty):
    """Trains on the rows of the last class only, which may not exist: the mean of nothing. No paper."""

    def loss(self, batch: Batch) -> Tensor:
        own = batch.y == 2
        return functional.cross_entropy(self.net(batch.x)[own], batch.y[own])


class FullPrecisionOnly(Faulty):
    def __init__(self, make_net: Any, info: Info) -> None:
        super().__init__(make_net, info)
        self.register_buffer("mean", torch.zeros(info.classes))

    def loss(self, batch: Batch) -> Tensor:
        self.mean.lerp_(self.net(batch.x).detach().mean(0), 0.1)
        return super().loss(batch)


class DoublePrecisionRows(Faulty):
    """Mixes rows with noise of another type than theirs. No paper."""

    def loss(self, batch: Batch) -> Tensor:
        noise = torch.zeros(batch.x.shape)
        return functional.cross_entropy(self.net(torch.lerp(batch.x, noise, 0.1)), batch.y)


class Divided(Faulty):
    """Trains on two parts and does not ask whether both have rows. No paper."""

    def plan(self, epochs: int) -> list[Stage]:
        return [Stage("warm-up", epochs, self.loss), Stage("divided", 1, self.both, self.divide)]

    def both(self, first: Batch, second: Batch) -> Tensor:
        return self.loss(first) + self.loss(second)

    def divide(self, data: Data) -> tuple[Data, Data]:
        chosen = self.choose(data)
        return data.rows(chosen), data.rows(~chosen)

    def choose(self, data: Data) -> Tensor:
        raise NotImplementedError


class EightRowsFirst(Divided):
    def choose(self, data: Data) -> Tensor:
        return torch.arange(len(data)) < 8


class DropsContradicted(Divided):
    def choose(self, data: Data) -> Tensor:
        return self.net(data.x.rows(torch.arange(len(data)))).argmax(1) != data.y


class KeepsOnlyTheSure(Divided):
    def choose(self, data: Data) -> Tensor:
        p = self.net(data.x.rows(torch.arange(len(data)))).softmax(1)
        return p.gather(1, data.y[:, None])[:, 0] > 0.9


class PushesClassesApart(Faulty):
    """Compares rows of different labels, if there are any. No paper."""

    def loss(self, batch: Batch) -> Tensor:
        logits = self.net(batch.x)
        others = batch.y[:, None] != batch.y[None]
        return functional.cross_entropy(logits, batch.y) + 0.01 * (logits @ logits.T)[others].mean()


class AllPairsOfClasses(Faulty):
    """The margins of all pairs of classes in every row. No paper."""

    def loss(self, batch: Batch) -> Tensor:
        logits = self.net(batch.x)
        margins = logits[:, :, None] - logits[:, None, :]
        return functional.cross_entropy(logits, batch.y) + 0.001 * margins.square().mean()


class HidesWhatIsNotFinite(Faulty):
    """Leaves losses that are NaN out, but not the mean that it keeps of the logits, outside of any buffer. No paper."""

    mean: Tensor | float = 0.0

    def loss(self, batch: Batch) -> Tensor:
        logits = self.net(batch.x.nan_to_num())
        self.mean = 0.9 * self.mean + 0.1 * batch.x.sum()
        return functional.cross_entropy(logits, batch.y)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.mean


FAULTS = {
    "check_settings_are_keywords": [PositionalSetting],
    "check_docstring_names_source": [NoSource],
    "check_plan_is_pure": [WorkInPlan, EndlessPlan],
    "check_same_seed_same_bits": [OwnNoise],
    "check_resume_is_exact": [HiddenState],
    "check_evidence_follows_sample": [CountsByPosition],
    "check_inputs_untouched": [WritesLabels, WritesRows],
    "check_evaluation_is_pure": [CountsInEvaluation, WrongShape],
    "check_gradients_reach_everything": [ForgottenPart],
    "check_learns": [WrongSign],
    "check_any_head": [NeedsLinearHead],
    "check_hard_data": [EmptyPart],
    "check_half_precision": [FullPrecisionOnly],
    "check_half_rows": [DoublePrecisionRows],
    "check_few_rows": [EightRowsFirst],
    "check_one_class": [PushesClassesApart],
    "check_clean_labels": [DropsContradicted],
    "check_pure_noise": [KeepsOnlyTheSure],
    "check_many_classes": [AllPairsOfClasses],
    "check_not_finite": [HidesWhatIsNotFinite, HiddenState],
}


def test_every_check_has_a_planted_fault() -> None:
    assert set(FAULTS) == {check.__name__ for check in checks.METHOD}


@pytest.mark.parametrize(("check", "fault"), [(c, f) for c, faults in FAULTS.items() for f in faults])
def test_checks_bite(check: str, fault: type[Method]) -> None:
    with pytest.raises((AssertionError, UnswayedError, RuntimeError)):
        getattr(contract, check)(fault)


def test_check_method_names_the_broken_rule() -> None:
    with pytest.raises(AssertionError, match="WorkInPlan breaks check_plan_is_pure"):
        checks.check_method(WorkInPlan)


# ------------------------------------------------------------------------------------------------ exact values


def batch_of(x: Tensor, y: Tensor, progress: float = 1.0) -> Batch:
    return Batch((x,), y, torch.arange(len(y)), torch.ones(len(y)), 0, progress)


def test_co_teaching_swaps_the_small_losses() -> None:
    own, peer = torch.tensor([0.1, 5.0, 0.3, 0.4]), torch.tensor([2.0, 0.2, 0.1, 0.9])
    assert choose_smallest(own, peer, 2).sort().values.tolist() == pytest.approx([0.3, 5.0])
    assert choose_smallest(peer, own, 2).sort().values.tolist() == pytest.approx([0.1, 2.0])


def test_co_teaching_loss_by_hand() -> None:
    info = Info(samples=4, classes=2)
    method = CoTeaching(lambda: nn.Linear(2, 2), info, forget=0.5, ramp=0.5)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
    y = torch.tensor([0, 1, 0, 1])
    own = -method.net(x).log_softmax(1)[torch.arange(4), y]
    peer = -method.peer(x).log_softmax(1)[torch.arange(4), y]
    expected = own[peer.argsort()[:2]].mean() + peer[own.argsort()[:2]].mean()
    assert method.loss(batch_of(x, y)).item() == pytest.approx(expected.item(), abs=1e-6)
    everyone = own.mean() + peer.mean()
    assert method.loss(batch_of(x, y, progress=0.0)).item() == pytest.approx(everyone.item(), abs=1e-6)


def test_co_teaching_keeps_the_regularizers_of_its_loss() -> None:
    x, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    torch.manual_seed(0)
    own = CoTeaching(lambda: nn.Linear(4, 3), Info(4, 3), loss="anl-ce-er", loss_settings={"lam": 2.0})
    torch.manual_seed(0)
    without = CoTeaching(lambda: nn.Linear(4, 3), Info(4, 3), loss="anl-ce-er", loss_settings={"lam": 0.0})
    gaps = sum(2.0 * batch_entropy_gap(net(x)).item() for net in (own.net, own.peer))
    added = own.loss(batch_of(x, y)).item() - without.loss(batch_of(x, y)).item()
    assert added == pytest.approx(gaps, abs=1e-5)


def test_soft_labels_count_as_their_likeliest_class() -> None:
    logits, hard = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])
    soft = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    first, second = Dynamics(2, 2), Dynamics(2, 2)
    first.update(logits, hard, torch.arange(2))
    second.update(logits, soft, torch.arange(2))
    assert contract.same(first.state_dict(), second.state_dict())


def test_co_teaching_ramp() -> None:
    method = CoTeaching(lambda: nn.Linear(2, 2), Info(4, 2), forget=0.4, ramp=0.2)
    assert [method.forget_rate(p) for p in (0.0, 0.1, 0.2, 1.0)] == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_co_teaching_prediction_is_the_mean_probability() -> None:
    method = CoTeaching(lambda: nn.Linear(2, 3), Info(4, 3))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    mean = (method.net(x).softmax(1) + method.peer(x).softmax(1)) / 2
    torch.testing.assert_close(method(x).exp(), mean)
    alone = CoTeaching(lambda: nn.Linear(2, 3), Info(4, 3), ensemble=False)
    torch.testing.assert_close(alone(x), alone.net(x))


def test_tuned_keeps_the_network_that_the_noisy_labels_favour() -> None:
    data, _, _ = contract.toy(240)
    method: Any = contract.make(Tuned, 240)
    contract.train(method, data, epochs=5)
    held = data.rows(method.held_out.rows == 1)
    assert len(held) == 48
    found = float((method(held.x.rows(torch.arange(48))).argmax(1) == held.y).float().mean())
    chosen = method.chosen()
    assert found == pytest.approx(chosen["validation_accuracy"])
    assert chosen["weight_decay"] in method.decays
    assert 1 <= chosen["epochs"] <= 5


def test_plain_counts_samples_by_their_weight() -> None:
    method = Plain(lambda: nn.Linear(2, 2), Info(3, 2))
    x, y = torch.eye(3, 2), torch.tensor([0, 1, 0])
    weight = torch.tensor([1.0, 0.0, 0.5])
    losses = functional.cross_entropy(method.net(x), y, reduction="none")
    batch = Batch((x,), y, torch.arange(3), weight, 0, 0.0)
    assert method.loss(batch).item() == pytest.approx((losses * weight).mean().item(), abs=1e-6)


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UnswayedError, match="did you mean forget"):
        methods.create("co-teaching", lambda: nn.Linear(2, 2), Info(4, 2), forgot=0.1)
