"""Noise stability: the published rule by hand, and that a network comes out as it went in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unswayed import UnswayedError, heads, methods
from unswayed.data import ArrayColumn
from unswayed.method import Info
from unswayed.stats.noise_stability import choose, deviations, rows_to_check
from unswayed.stats.teacher import Teacher

torch.set_num_threads(1)


def toy(seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    return net, torch.randn(40, 4)


class Scale(nn.Module):
    """Outputs w * x: every move of the one weight is z w, up or down."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([5.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def test_by_hand():
    # The noise of a single weight has norm z |w|, so the output moves by z, relative to itself, in each round.
    x = torch.tensor([[3.0, 4.0], [30.0, -40.0]])
    moved = deviations(Scale(), x, output="logits", z=0.01, rounds=5)
    unit = torch.tensor([[0.6, 0.8], [0.6, -0.8]]).repeat(1, 5)
    assert moved.shape == (2, 10)
    torch.testing.assert_close(moved.abs(), 0.01 * unit.abs(), atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(moved[0, ::2], moved[1, ::2], atol=1e-6, rtol=1e-3)  # the same draws for all rows
    torch.testing.assert_close(moved[0, 1::2], -moved[1, 1::2], atol=1e-6, rtol=1e-3)
    assert len(torch.unique(moved[0, ::2].sign())) == 2, "draws differ between rounds"


def test_norms_of_the_noise(monkeypatch):
    net = nn.Linear(6, 5)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    seen: list[dict[str, torch.Tensor]] = []
    original = nn.Linear.forward

    def spy(self, x):
        seen.append({name: value.detach() - before[name] for name, value in self.named_parameters()})
        return original(self, x)

    monkeypatch.setattr(nn.Linear, "forward", spy)
    deviations(net, torch.randn(3, 6), z=0.1, rounds=2)
    assert all(float(each.norm()) == 0 for each in seen[0].values())
    for moved in seen[1:]:
        for name, noise in moved.items():
            assert float(noise.norm()) == pytest.approx(0.1 * float(before[name].norm()), rel=1e-4)
    seen.clear()
    deviations(net, torch.randn(3, 6), z=0.1, rounds=1, norm="whole")
    size = torch.cat([value.flatten() for value in before.values()]).norm()
    assert float(torch.cat([value.flatten() for value in seen[1].values()]).norm()) == pytest.approx(
        0.1 * float(size), rel=1e-4
    )
    seen.clear()
    deviations(net, torch.randn(3, 6), z=0.1, rounds=1, which="weight")
    assert float(seen[1]["bias"].norm()) == 0
    assert float(seen[1]["weight"].norm()) > 0


def test_first_order_in_the_weights():
    # Small noise: moves of the probabilities are Jacobian times noise, so z and 2 z differ by a factor of 2.
    net, x = toy()
    one, two = (deviations(net.double(), x.double(), z=z, rounds=4) for z in (1e-4, 2e-4))
    torch.testing.assert_close(2 * one, two, rtol=0.05, atol=2e-5)


def naive(points: torch.Tensor, k: int, weight: torch.Tensor) -> list[int]:
    centres, picks = [torch.zeros(points.shape[1])], []
    for _ in range(k):
        score = torch.stack([torch.stack([(p - c).norm() for c in centres]).min() for p in points]) * weight
        for pick in picks:
            score[pick] = -1
        picks.append(int(score.argmax()))
        centres.append(points[picks[-1]])
    return picks


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e15])
@pytest.mark.parametrize("weighted", [False, True])
def test_k_centre_is_the_naive_one(weighted: bool, scale: float):
    points = torch.randn(60, 7, generator=torch.Generator().manual_seed(3))
    weight = torch.rand(60, generator=torch.Generator().manual_seed(4)) if weighted else torch.ones(60)
    wanted = naive(points, 12, weight)
    assert choose(points * scale, 12, suspicion=weight if weighted else None).tolist() == wanted


def test_k_centre_at_the_edges():
    points = torch.zeros(4, 2)
    assert choose(points, 9).tolist() == [0, 1, 2, 3], "all rows, each once, though nothing tells them apart"
    assert choose(points + 1, 3, suspicion=torch.zeros(4)).tolist() == [0, 1, 2]
    for bad in (torch.zeros(0, 2), torch.zeros(3), torch.full((2, 2), torch.nan)):
        with pytest.raises(UnswayedError, match="finite deviations"):
            choose(bad, 1)
    with pytest.raises(UnswayedError, match="one row or more"):
        choose(points, 0)
    for weight in (torch.ones(3), -torch.ones(4), torch.full((4,), torch.nan)):
        with pytest.raises(UnswayedError, match="suspicion"):
            choose(points, 1, suspicion=weight)


def test_the_network_comes_out_as_it_went_in():
    net, x = toy()
    net.train()
    net[3].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes, state = [m.training for m in net.modules()], torch.get_rng_state()
    deviations(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)

    def fail(module, inputs, output):
        if not torch.equal(net[0].weight, before["0.weight"]):
            raise RuntimeError("in the midst of a round")

    handle = net.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="midst"):
        deviations(net, x)
    handle.remove()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_seed_decides_and_parts_do_not(monkeypatch):
    net, x = toy()
    whole = deviations(net, x, rounds=3)
    assert torch.equal(whole, deviations(net, x, rounds=3))
    assert not torch.equal(whole, deviations(net, x, rounds=3, seed=1))
    monkeypatch.setattr("unswayed.stats.noise_stability._BYTES_AT_ONCE", 64)
    parts = deviations(net, ArrayColumn(x.numpy()), rounds=3, size=7)
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-6)


def test_projection_keeps_distances():
    net, x = toy()
    exact = deviations(net, x, z=0.05, rounds=200, width=600)
    small = deviations(net, x, z=0.05, rounds=200, width=400)
    assert (exact.shape[1], small.shape[1]) == (600, 400)
    away = torch.cdist(exact, exact)[~torch.eye(40, dtype=torch.bool)]
    kept = torch.cdist(small, small)[~torch.eye(40, dtype=torch.bool)]
    assert float((kept / away - 1).abs().mean()) < 0.06
    assert rows_to_check(net, x, 1, z=0.05, rounds=200).rows[0] == exact.norm(dim=1).argmax()


def test_nan():
    net, x = toy()
    spoilt = x.clone()
    spoilt[5] = torch.nan
    moved = deviations(net, spoilt)
    assert moved.isfinite().all()
    assert moved[5].abs().max() == 0
    assert 5 not in rows_to_check(net, spoilt, 39).rows.tolist()
    with torch.no_grad():
        net[0].weight.fill_(torch.nan)
    with pytest.raises(UnswayedError, match="finite"):
        deviations(net, x)


@pytest.mark.parametrize("head", ["linear", "edge-masked", "kan", "edge-masked-kan"])
def test_any_head(head: str):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), heads.create(head, 8, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    choice = rows_to_check(net, torch.randn(20, 4), 5, rounds=3)
    assert len(set(choice.rows.tolist())) == 5
    assert float(choice.deviation.min()) > 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["plain", "co-teaching", "sed", "turn"])
def test_methods(name: str):
    """Also those that predict with two networks, or with a mean teacher, whose weights are no parameters."""

    def make_net() -> nn.Module:
        from unswayed.nets import Net, create_body

        body = create_body("mlp", kind="table", shape=(4,), widths=(8,))
        return Net(body, heads.create("linear", 8, 3))

    torch.manual_seed(0)
    method = methods.create(name, make_net, Info(20, 3))
    state = {name: value.clone() for name, value in method.state_dict().items()}
    choice = rows_to_check(method, torch.randn(20, 4), 5, rounds=3)
    assert float(choice.deviation.min()) > 0
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


def test_a_teacher_alone_is_shaken_with_its_student():
    class Pupil(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)
            self.teacher = Teacher(self.net)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.teacher(x)

    assert float(deviations(Pupil(), torch.randn(3, 4), rounds=2).norm(dim=1).min()) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z": 0.0}, "share of the weights"),
        ({"z": float("nan")}, "share of the weights"),
        ({"rounds": 0}, "rounds is"),
        ({"width": 0}, "width is"),
        ({"size": 0}, "size is"),
        ({"output": "o"}, "output is"),
        ({"which": "w"}, "which is"),
        ({"norm": "n"}, "norm is"),
    ],
)
def test_bad_settings(settings, message):
    net, x = toy()
    with pytest.raises(UnswayedError, match=message):
        deviations(net, x, **settings)


def test_nothing_to_judge_by():
    with pytest.raises(UnswayedError, match="with weights"):
        deviations(nn.Identity(), torch.randn(2, 3))
    with pytest.raises(UnswayedError, match="one row or more"):
        deviations(toy()[0], torch.randn(0, 4))
