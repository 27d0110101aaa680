"""IDO by hand: its loss, its weights within a step, its base network, its plan, and its ablations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unswayed import UnswayedError
from unswayed.checks import methods as contract
from unswayed.engine import fit
from unswayed.method import Batch, Data, Info
from unswayed.methods.ido import IDO, weigh_terms
from unswayed.stats.mixtures import beta_mixture
from unswayed.stats.wrong_events import Weights, ido_weights

ABLATIONS: list[dict[str, Any]] = [
    {"evidence": "loss"},
    {"evidence": "mean loss"},
    {"mixture": "gaussian"},
    {"weights": "fixed"},
    {"scope": "all"},
    {"base": "rise", "certainty": "batch"},
    {"current": False},
    {"counted": "weak"},
    {"second": "weak"},
    {"loss": "nce+rce"},
]


def variant(**settings: Any) -> type[IDO]:
    return type("Variant", (IDO,), {"test_settings": settings})


def two_views(weak: Tensor, strong: Tensor, y: Tensor, weight: Tensor | None = None) -> Batch:
    rows = torch.arange(len(y))
    return Batch((weak, strong), y, rows, torch.ones(len(y)) if weight is None else weight, 0, 0.5)


def identical(**settings: Any) -> IDO:
    """A method whose network passes logits through, plus a parameter that does nothing, on 40 samples of 2 classes."""

    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shift

    return IDO(Through, Info(40, 2), **settings)


# ------------------------------------------------------------------------------------------------ the loss


def test_terms_by_hand() -> None:
    weak, strong = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    # Probabilities .75, .25 and .5, .5; their mean .625, .375.
    entropy = -0.625 * math.log(0.625) - 0.375 * math.log(0.375)
    expected = 0.8 * 1.5 + 1.2 * math.log(3) ** 2 / 2 + 0.2 * 0.625 * entropy
    weights = Weights(torch.tensor([0.8]), torch.tensor([1.2]), torch.tensor([0.2]))
    assert weigh_terms(torch.tensor([1.5]), weak, strong, weights).item() == pytest.approx(expected, abs=1e-6)


def test_certainty_of_the_batch_is_the_broadcast_of_the_program() -> None:
    weak, strong = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    doubt = torch.tensor([0.1, 0.9, 0.4, 0.0, 1.0])
    weights = Weights(torch.zeros(5), torch.zeros(5), doubt)
    q = (weak.softmax(1) + strong.softmax(1)) / 2
    wide = q.amax(1)[:, None] * -(q * q.log()).sum(1)  # [B, 1] times [B] is [B, B]
    found = weigh_terms(torch.zeros(5), weak, strong, weights, shared=True).mean()
    assert found.item() == pytest.approx((doubt * wide).mean().item(), abs=1e-6)


def test_terms_stay_finite_at_extreme_logits() -> None:
    weak = torch.tensor([[1e4, -1e4], [0.0, 88.0]], requires_grad=True)
    weights = Weights(torch.zeros(2), torch.zeros(2), torch.ones(2))
    value = weigh_terms(torch.zeros(2), weak, weak.detach().flip(1), weights)
    value.sum().backward()
    assert value.isfinite().all()
    assert weak.grad is not None
    assert weak.grad.isfinite().all()


def counted(method: IDO, wrong: Tensor, labels: Tensor) -> None:
    """Give the method these counts and fit its mixtures on them."""
    method.dynamics.wrong.copy_(wrong)
    method.dynamics.seen.fill_(5)
    data = Data.of(torch.zeros(len(labels), 2), labels)
    method._count(0, data)
    method._weigh(data)


@pytest.mark.parametrize("current", [True, False])
def test_refine_by_hand(current: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    wrong = torch.where(torch.rand(40, generator=generator) < 0.6, 0, 4) + torch.randint(2, (40,), generator=generator)
    method = identical(current=current)
    counted(method, wrong, labels)
    weak, strong = torch.randn(2, 40, 2, generator=generator)
    weight = torch.rand(40, generator=generator)
    found = method.refine(two_views(weak, strong, labels, weight))

    after = wrong + (weak.argmax(1) != labels) + (strong.argmax(1) != labels)
    assert method.dynamics.wrong.tolist() == after.tolist()
    mixture = beta_mixture(wrong, labels)
    counts = after if current else wrong
    clean, below = mixture.posterior(counts, labels), mixture.distribution(counts, labels)
    own = -weak.log_softmax(1)[torch.arange(40), labels] - strong.log_softmax(1)[torch.arange(40), labels]
    q = (weak.softmax(1) + strong.softmax(1)) / 2
    expected = (
        clean * own
        + (clean * below[:, 0] + clean * (1 - below[:, 1])) * (weak - strong).square().mean(1)
        - (1 - clean) * q.amax(1) * (q * q.log()).sum(1)
    )
    assert found.item() == pytest.approx((weight * expected).mean().item(), abs=1e-4)


def test_the_weak_view_alone_may_count() -> None:
    labels = torch.arange(40) % 2
    right, wrong = torch.eye(2)[labels], torch.eye(2)[1 - labels]
    for counted_, events in (("both", 1), ("weak", 0)):
        method = identical(counted=counted_, evidence="mean loss")
        counted(method, torch.tensor([0, 0, 0, 1, 5] * 8), labels)
        before, seen = method.dynamics.wrong.clone(), method.dynamics.seen.clone()
        method.refine(two_views(right, wrong, labels))
        assert (method.dynamics.wrong - before).tolist() == [events] * 40
        assert (method.dynamics.seen - seen).tolist() == [1 + events] * 40
        loss_right, loss_wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
        expected = loss_right + events * loss_wrong
        assert method.sample_loss.tolist() == pytest.approx([expected] * 40, abs=1e-5)


def test_first_stage_is_cross_entropy_by_weight() -> None:
    method, labels = identical(), torch.arange(40) % 2
    x, weight = torch.randn(40, 2, generator=torch.Generator().manual_seed(1)), torch.linspace(0, 1, 40)
    own = nn.functional.cross_entropy(x, labels, reduction="none")
    assert method.loss(two_views(x, x, labels, weight)).item() == pytest.approx((weight * own).mean().item(), abs=1e-6)
    assert method.dynamics.wrong.tolist() == (x.argmax(1) != labels).long().tolist()


def test_fixed_weights_touch_consistency_only() -> None:
    wrong, labels = torch.tensor([0, 0, 0, 1, 5] * 8), torch.arange(40) % 2
    published, fixed = identical(), identical(weights="fixed")
    for method in (published, fixed):
        counted(method, wrong, labels)
    rows = torch.arange(40)
    assert torch.equal(fixed._weights(rows).clean, published._weights(rows).clean)
    assert torch.equal(fixed._weights(rows).doubt, published._weights(rows).doubt)
    assert fixed._weights(rows).consistency.tolist() == [1.0] * 40
    assert not torch.equal(published._weights(rows).consistency, torch.ones(40))


# ------------------------------------------------------------------------------------------------ the plan


@pytest.mark.parametrize(("epochs", "split"), [(15, (5, 10)), (3, (1, 2)), (2, (1, 1)), (1, (1, 1)), (100, (33, 67))])
def test_epochs_are_divided_as_published(epochs: int, split: tuple[int, int]) -> None:
    plan = identical().plan(epochs)
    assert tuple(sum(s.epochs for s in plan if s.name == name) for name in ("count wrong events", "refine")) == split
    assert [s.views for s in plan if s.name == "refine"] == [("weak", "strong")] * split[1]
    assert [s.restarts for s in plan if s.epochs].index(True) == split[0]
    assert sum(s.restarts for s in plan) == 1
    assert identical(second="weak").plan(epochs)[-2].views == ("weak", "weak")


@pytest.mark.parametrize(("base", "epoch"), [("before", 2), ("rise", 3)])
def test_refining_starts_from_the_base_network(base: str, epoch: int) -> None:
    method, labels = identical(base=base), torch.arange(40) % 2
    data = Data.of(torch.zeros(40, 2), labels)
    predictions = [[0] * 40, [1] * 20 + [0] * 20, [0] * 10 + [1] * 10 + [0] * 20, [1] * 40, [1] * 40]
    for at, classes in enumerate(predictions):  # 20, 10, 30 and 0 changes
        method._count(at, data)
        method.net.shift.data.fill_(at)  # type: ignore[union-attr]
        logits = nn.functional.one_hot(torch.tensor(classes), 2).float()
        method.loss(two_views(logits, logits, labels))
    method._refine(0, data)
    assert method.net.shift.item() == epoch  # type: ignore[union-attr, operator]
    method.net.shift.data.fill_(9)  # type: ignore[union-attr]
    method._refine(1, data)
    assert method.net.shift.item() == 9  # type: ignore[union-attr, operator]


def test_suspicion_is_the_posterior_of_the_noisy_part() -> None:
    data, _, wrong = contract.toy(480)
    method = contract.make(IDO)
    assert method.suspicion() is None
    contract.train(method, data.rows(torch.arange(400)), epochs=6)
    suspicion = method.suspicion()
    assert suspicion is not None
    assert suspicion[400:].tolist() == [0.5] * 80  # never seen
    assert contract.auroc(suspicion[:400], wrong[:400]) > 0.8
    cold = ido_weights(method.dynamics.wrong[:400], data.y[:400]).doubt
    assert contract.auroc(cold, wrong[:400]) == pytest.approx(contract.auroc(suspicion[:400], wrong[:400]), abs=0.05)


# ------------------------------------------------------------------------------------------------ ablations


@pytest.mark.parametrize("settings", ABLATIONS, ids=lambda s: " ".join(map(str, s.values())))
@pytest.mark.parametrize("check", [contract.check_hard_data, contract.check_learns])
def test_ablations_keep_the_contract(settings: dict[str, Any], check: contract.Check) -> None:
    check(variant(**settings))


@pytest.mark.parametrize("evidence", ["loss", "mean loss"])
def test_ablations_resume(evidence: str) -> None:
    contract.check_resume_is_exact(variant(evidence=evidence, mixture="gaussian", scope="all"))


def test_soft_labels_are_taken() -> None:
    data, *_ = contract.toy(120)
    soft = data.replace(y=nn.functional.one_hot(data.y, 3).float() * 0.7 + 0.1)
    method = contract.make(IDO, 120)
    outcome = fit(method, soft, epochs=3, batch=32)
    assert all(math.isfinite(record.loss) for record in outcome.records)
    assert torch.equal(method.group.long(), data.y)  # type: ignore[operator]


@pytest.mark.parametrize("classes", [2, 300])
def test_few_and_many_classes(classes: int) -> None:
    x = torch.randn(320, 6, generator=torch.Generator().manual_seed(0))
    data = Data.of(x, torch.arange(320) % classes)
    method = contract.make(IDO, 320, classes)
    outcome = contract.train(method, data, epochs=3)
    assert all(math.isfinite(record.loss) for record in outcome.records)
    suspicion = method.suspicion()
    assert suspicion is not None
    assert suspicion.isfinite().all()


@pytest.mark.parametrize("settings", [{"evidence": "rumour"}, {"weights": "heavy"}, {"scope": "none"}, {"base": "x"}])
def test_unknown_choices_are_told(settings: dict[str, Any]) -> None:
    with pytest.raises(UnswayedError, match="is one of"):
        identical(**settings)
