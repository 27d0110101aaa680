"""Training dynamics in full: one sample followed by hand, the scores, and what must not matter."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unswayed import UnswayedError
from unswayed.auditing.trajectories import (
    aum,
    cartography,
    forgetting,
    hard_to_learn,
    learning_time,
    loss_mixture,
    wrong_events,
)
from unswayed.checks import methods as contract
from unswayed.stats import Dynamics, Trajectories, row_buffers

SCORES: dict[str, Callable[[Trajectories], Tensor]] = {
    "wrong events": wrong_events,
    "aum": aum,
    "forgetting": forgetting,
    "loss mixture": loss_mixture,
    "hard to learn": hard_to_learn,
    "learning time": learning_time,
    "first learned": lambda dynamics: learning_time(dynamics, when="first"),
}

# Logits of four samples with label 0 in four epochs: the label's, and the largest other one (of two equal ones).
EPOCHS = [
    [(0.0, 1.0), (2.0, 0.0), (0.0, 3.0)],
    [(1.0, 0.0), (2.0, 0.0), (0.0, 3.0)],
    [(0.0, 2.0), (3.0, 0.0), (0.0, 2.0)],
    [(3.0, 0.0), (3.0, 0.0), (0.0, 2.0)],
]


def followed(**settings: Any) -> Trajectories:
    """Sample 0 is learned, forgotten and learned, 1 is right all along, 2 never, and 3 is never seen."""
    dynamics = Trajectories(4, 3, **settings)
    for epoch in EPOCHS:
        logits = torch.tensor([[own, other, other - 9] for own, other in epoch])
        dynamics.update(logits, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    return dynamics


def p_of(own: float, other: float) -> float:
    return exp(own) / (exp(own) + exp(other) + exp(other - 9))


def test_what_is_counted() -> None:
    dynamics = followed()
    assert dynamics.seen.tolist() == [4, 4, 4, 0]
    assert dynamics.wrong.tolist() == [2, 0, 4, 0]
    assert dynamics.margin.tolist() == [1.0, 10.0, -10.0, 0.0]
    assert dynamics.right.tolist() == [1, 1, 0, 0]
    assert dynamics.forgotten.tolist() == [1, 0, 0, 0]
    assert dynamics.first.tolist() == [2, 1, 0, 0]
    assert dynamics.unlearned.tolist() == [3, 0, 4, 0]
    losses = [-sum(log(p_of(*epoch[sample])) for epoch in EPOCHS) for sample in range(3)]
    torch.testing.assert_close(dynamics.loss, torch.tensor([*losses, 0.0]))


def test_scores_by_hand() -> None:
    dynamics = followed()
    third = {name: score(dynamics)[:3].tolist() for name, score in SCORES.items()}
    assert third["wrong events"] == [0.5, 0.0, 1.0]
    assert third["aum"] == [-0.25, -2.5, 2.5]
    assert third["forgetting"] == [1.0, 0.0, 4.0]
    assert third["learning time"] == [0.75, 0.0, 1.0]
    assert third["first learned"] == [0.25, 0.0, 1.0]
    p = torch.tensor([[p_of(*epoch[sample]) for epoch in EPOCHS] for sample in range(3)])
    assert third["hard to learn"] == pytest.approx((1 - p.mean(1)).tolist(), abs=1e-6)
    found = cartography(dynamics)
    torch.testing.assert_close(found.confidence[:3], p.mean(1))
    torch.testing.assert_close(found.variability[:3], p.std(1, correction=0), atol=1e-4, rtol=0)
    assert found.correctness[:3].tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("name", SCORES)
def test_samples_never_seen_get_the_mean(name: str) -> None:
    score = SCORES[name](followed())
    assert bool(score.isfinite().all())
    if name != "loss mixture":  # which gives the posterior of the mean loss
        assert score[3].item() == pytest.approx(score[:3].mean().item())


def test_curves() -> None:
    dynamics = followed(epochs=3)
    p = torch.tensor([[p_of(*epoch[sample]) for epoch in EPOCHS[:3]] for sample in range(3)])
    found = dynamics.curve()
    assert found.dtype == torch.float16
    torch.testing.assert_close(found[:3].float(), p, atol=1e-3, rtol=0)
    assert bool(found[3].isnan().all())
    longer = followed(epochs=6).curve()
    assert longer[0].isnan().tolist() == [False] * 4 + [True] * 2
    assert followed().curve().shape == (4, 0)


def test_it_is_dynamics_and_more() -> None:
    full, plain = followed(), Dynamics(4, 3)
    for epoch in EPOCHS:
        logits = torch.tensor([[own, other, other - 9] for own, other in epoch])
        plain.update(logits, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    for name, value in plain.state_dict().items():
        assert torch.equal(full.state_dict()[name], value)
    assert set(row_buffers(full)) == set(full.state_dict())
    assert all(len(value) == 4 for value in full.state_dict().values())
    assert torch.equal(hard_to_learn(plain), hard_to_learn(full))
    fresh = Trajectories(4, 3)
    fresh.load_state_dict(full.state_dict())
    assert torch.equal(aum(fresh), aum(full))


def test_soft_labels_count_as_their_likeliest_class_and_half_logits_as_single() -> None:
    hard, soft = Trajectories(2, 2), Trajectories(2, 2)
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    hard.update(logits, torch.tensor([0, 0]), torch.arange(2))
    soft.update(logits.half().requires_grad_(), torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.arange(2))
    assert contract.same(hard.state_dict(), soft.state_dict())


def test_the_order_within_an_epoch_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(5, 40, 4, generator=generator), torch.randint(4, (40,), generator=generator)
    one, other = Trajectories(40, 4, epochs=5), Trajectories(40, 4, epochs=5)
    for epoch in logits:
        for ids in torch.arange(40).split(16):
            one.update(epoch[ids], y[ids], ids)
        for ids in torch.randperm(40, generator=generator).split(7):
            other.update(epoch[ids], y[ids], ids)
    assert contract.same(one.state_dict(), other.state_dict())


def trained(epochs: int = 25) -> tuple[Trajectories, Tensor, Tensor]:
    """A linear model in a loop of its own: dynamics, given labels, and which of them are wrong."""
    data, _, wrong = contract.toy(400)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    dynamics = Trajectories(400, 3, epochs=epochs)
    for _ in range(epochs):
        for ids in torch.randperm(400).split(50):
            logits = model(data.x.rows(ids))
            dynamics.update(logits, data.y[ids], ids)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, data.y[ids]).backward()
            optimizer.step()
    return dynamics, data.y, wrong


def test_wrong_labels_stand_out_in_a_loop_of_ones_own() -> None:
    dynamics, y, wrong = trained()
    for name, score in SCORES.items():
        assert contract.auroc(score(dynamics), wrong) > (0.75 if name == "forgetting" else 0.85), name
    assert contract.auroc(loss_mixture(dynamics, y), wrong) > 0.9
    assert contract.auroc(loss_mixture(dynamics, y.numpy()), wrong) > 0.9
    p = dynamics.curve().float()
    torch.testing.assert_close(p.mean(1), cartography(dynamics).confidence, atol=1e-3, rtol=0)
    torch.testing.assert_close(p.std(1, correction=0), cartography(dynamics).variability, atol=5e-3, rtol=0)


def test_bad_input() -> None:
    for score in SCORES.values():
        with pytest.raises(UnswayedError, match=r"call dynamics\.update"):
            score(Trajectories(3, 2))
    with pytest.raises(UnswayedError, match=r"gather with unswayed\.stats\.Trajectories"):
        aum(Dynamics(3, 2))  # type: ignore[arg-type]
    with pytest.raises(UnswayedError, match="when is"):
        learning_time(followed(), when="last")  # type: ignore[arg-type]
    with pytest.raises(UnswayedError, match="labels are integers of shape"):
        loss_mixture(followed(), np.array([0, 1]))
