"""Repair of trained networks: attribution, the clean part, pruning that lasts, fine-tuning."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional as F

import unswayed
from unswayed import UnswayedError, heads, mending, nets
from unswayed.mending import Pruning, diagnose, dissect, find_clean
from unswayed.mending.anatomy import activations, head_of
from unswayed.noise.inputs import spoil_inputs
from unswayed.stats.attribution import attribution, label_attribution, sensitivity

# ------------------------------------------------------------------------------------------------------ attribution


def test_attribution_by_hand() -> None:
    head = nn.Linear(3, 2)
    head.weight.data = torch.tensor([[1.0, -2.0, 0.0], [-3.0, -1.0, 5.0]])
    z = torch.tensor([[2.0, 1.0, -1.0]])
    # products: class 0: 2, -2, 0; class 1: -6, -1, -5; largest: 2, -1, 0
    assert attribution(z, head).tolist() == [[2.0, 1.0, 0.0]]


def test_label_attribution_by_hand() -> None:
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    z = torch.tensor([[np.log(3.0), 7.0]], dtype=torch.float32)  # p = .75, .25
    for label, surplus in ((0, -0.25), (1, 0.75)):
        found = label_attribution(z, head, torch.tensor([label]))
        assert found[0].tolist() == pytest.approx([abs(surplus) * np.log(3.0), 0.0], abs=1e-6)


@pytest.mark.parametrize("which", [attribution, label_attribution])
def test_closed_form_is_what_autograd_gives(which) -> None:
    torch.manual_seed(0)
    head, z, y = nn.Linear(6, 4), torch.randn(9, 6), torch.randint(4, (9,))
    rest = (y,) if which is label_attribution else ()
    opaque = nn.Sequential(head)  # not seen as linear
    assert torch.allclose(which(z, head, *rest), which(z, opaque, *rest), atol=1e-6)
    assert not which(z, opaque, *rest).requires_grad


@pytest.mark.parametrize("name", ["kan", "kan-rbf", "edge-masked"])
def test_any_head_by_the_definition(name: str) -> None:
    torch.manual_seed(0)
    head, z = heads.create(name, 5, 3).eval(), torch.randn(4, 5)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v: head(v[None])[0], row) for row in z])
    assert torch.allclose(attribution(z, head), (jacobian * z[:, None]).amax(1).abs(), atol=1e-5)


def test_a_head_that_ignores_its_input() -> None:
    assert attribution(torch.ones(2, 3), lambda z: z[:, :2] * 0 + 1).tolist() == [[0.0] * 3] * 2


def test_sensitivity_is_least_squares_with_intercept() -> None:
    generator = np.random.default_rng(0)
    a, m = generator.normal(3, 2, (50, 6)), generator.integers(0, 2, 50).astype(float)
    wanted = np.linalg.lstsq(np.column_stack([a, np.ones(50)]), m, rcond=None)[0][:6]
    assert np.allclose(sensitivity(torch.from_numpy(a), torch.from_numpy(m)).numpy(), wanted)


def test_sensitivity_of_dead_and_twin_neurons() -> None:
    a = torch.randn(30, 1, generator=torch.Generator().manual_seed(0))
    found = sensitivity(torch.cat([a, torch.zeros_like(a), a], 1), 2 * a[:, 0] + 1)
    assert found.tolist() == pytest.approx([1.0, 0.0, 1.0])
    with pytest.raises(UnswayedError, match="memberships"):
        sensitivity(a, torch.ones(29))


# -------------------------------------------------------------------------------------------------- where neurons are


class Functional(nn.Module):
    """Activations and all else as functions inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = F.log_softmax(self.fc2(torch.relu(self.fc1(x))), 1)
        return logits


def chain(*, inplace: bool = True, norm: nn.Module | None = None) -> nn.Sequential:
    norm = norm or nn.BatchNorm1d(6)
    return nn.Sequential(
        nn.Linear(4, 5), nn.Linear(5, 6), norm, nn.ReLU(inplace=inplace), nn.Dropout(), nn.Linear(6, 3)
    )


@pytest.mark.parametrize("inplace", [True, False])
def test_norms_activations_and_head_are_found(inplace: bool) -> None:
    model = chain(inplace=inplace).eval()
    x = torch.randn(5, 4)
    found = dissect(model, None, x)
    assert (found.name, found.width, found.head) == ("1", 6, model[5])
    assert found.norms == (model[2],)
    assert [(module, name) for module, name, _ in found.weights] == [
        (model[1], "weight"), (model[1], "bias"), (model[2], "weight"), (model[2], "bias"),
    ]  # fmt: skip
    assert found.last == (model[1], model[2], model[5])
    z, logits = activations(model, found, x)
    assert torch.allclose(model[5](z), logits, atol=1e-6)
    assert bool((z >= 0).all())


def test_a_model_of_functions() -> None:
    model, x = Functional().eval(), torch.randn(5, 4)
    found = dissect(model, "fc1", x)
    assert found.head is None
    assert found.last == (model.fc1, model.fc2)
    z, logits = activations(model, found, x)
    assert torch.allclose(z, model.fc1(x))
    # The slope runs through the functions: for ReLU that of the neurons behind it.
    assert torch.allclose(
        label_attribution(z, head_of(model, found, x), torch.zeros(5, dtype=torch.long)),
        label_attribution(torch.relu(z), model.fc2, torch.zeros(5, dtype=torch.long)),
        atol=1e-6,
    )
    assert torch.equal(head_of(model, found, x)(z), logits)


def test_a_net_without_a_fully_connected_layer_gives_its_heads_inputs() -> None:
    body = nets.create_body("resnet20", kind="image", shape=(3, 8, 8))
    for head in (nn.Linear(body.features, 3), heads.create("kan", body.features, 3)):
        net = nets.Net(body, head).eval()
        found = dissect(net, None, torch.randn(2, 3, 8, 8))
        assert (found.name, found.width, found.head) == ("head", body.features, head)
        x = torch.randn(4, 3, 8, 8)
        z, before = activations(net, found, x)
        pruning = Pruning(found, torch.tensor([1, 2]))
        pruning.finish()
        silenced = z.clone()
        silenced[:, [1, 2]] = 9.0  # whatever the neuron says
        assert torch.allclose(head(silenced), net(x), atol=1e-5)
        assert not torch.allclose(before, net(x))


@pytest.mark.parametrize("layer", ["fc3", "", "2"])
def test_a_layer_that_is_none(layer: str) -> None:
    with pytest.raises(UnswayedError, match="fully connected layer"):
        dissect(chain().eval(), layer, torch.randn(4, 4))


def test_models_that_cannot_be_repaired() -> None:
    with pytest.raises(UnswayedError, match="fully connected"):
        dissect(nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten()), None, torch.randn(2, 1, 2, 2))
    with pytest.raises(UnswayedError, match="logits"):
        dissect(nn.Linear(3, 2), None, torch.randn(2, 4, 3))


# ----------------------------------------------------------------------------------------------------------- pruning


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False), nn.LayerNorm(6), nn.Identity()],
    ids=lambda norm: type(norm).__name__,
)
def test_pruned_neurons_are_silent_and_stay_so(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model, pruned = chain(norm=copy.deepcopy(norm)), torch.tensor([0, 4])
    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    for _ in range(3):
        model(x)  # the batch norm has seen something
    found = dissect(model, "1", x[:4])
    pruning = Pruning(found, pruned)
    optimiser = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    state = model.state_dict()
    assert any("keep" in name for name in state), "the mask is part of the state"
    pruning.finish()
    model.eval()
    assert set(model.state_dict()) == set(chain(norm=copy.deepcopy(norm)).state_dict())
    assert type(model[1]) is nn.Linear
    z, _ = activations(model, found, x)
    assert z[:, pruned].abs().max() == 0
    assert (z[:, [1, 2, 3, 5]].abs().amax(0) > 0).any()
    assert isinstance(copy.deepcopy(model)[1].weight, nn.Parameter)


def test_masks_survive_a_state_dict() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    models = [chain(), chain()]
    for model, neurons in zip(models, ([1, 2], [3]), strict=True):
        Pruning(dissect(model, "1", x), torch.tensor(neurons))
    models[1].load_state_dict(models[0].state_dict())
    assert torch.equal(models[1].eval()(x), models[0].eval()(x))
    assert models[1][1].weight[[1, 2]].abs().max() == 0


# --------------------------------------------------------------------------------------------------- the clean part


def test_the_clean_component_is_named_by_its_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    bad = torch.rand(400, generator=generator) < 0.4
    signs = torch.randn(400, 3, generator=generator) + 6 * bad[:, None]
    y = torch.randint(2, (400,), generator=generator)
    for loss, wanted in ((bad.float(), ~bad), ((~bad).float(), bad)):
        for by_class in (True, False):
            clean, probability, notes = find_clean(signs, loss, y, by_class=by_class)
            assert torch.equal(clean, wanted)
            assert ((probability > 0.5) == wanted).all()
            assert notes == ()


def test_a_mixture_of_all_rows_finds_classes_and_one_a_class_does_not() -> None:
    """Why the published partition over all rows fails: classes differ more than clean and noisy rows do."""
    generator = torch.Generator().manual_seed(0)
    y, bad = torch.arange(600) % 2, torch.rand(600, generator=generator) < 0.4
    signs = torch.randn(600, 2, generator=generator)
    signs[:, 0] += 60 * y
    signs[:, 1] += 8 * bad
    clean, _, _ = find_clean(signs, bad.float(), y, by_class=True)
    assert (clean == ~bad).float().mean() > 0.98
    clean, _, _ = find_clean(signs, bad.float(), y, by_class=False, dimensions=1)
    assert (clean == ~bad).float().mean() < 0.8


def test_the_published_form_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    x = torch.randn(60, 4, generator=generator)
    x[40:] *= 6  # corrupted inputs
    y = model(x).argmax(1)
    y[40:50] = 1 - y[40:50]
    found = diagnose(model, x, y, **mending.PUBLISHED)
    z = model[1](model[0](x)).detach()
    signs = attribution(z, model[2]).double()
    signs = (signs - signs.mean(0)) / signs.std(0, correction=0)
    mixture = GaussianMixture(2, covariance_type="diag", random_state=0, reg_covar=1e-4, max_iter=200).fit(signs)
    member = torch.from_numpy(mixture.predict_proba(signs))
    loss = nn.functional.cross_entropy(model(x), y, reduction="none").double().detach()
    clean = member[:, int(((member * loss[:, None]).sum(0) / member.sum(0)).argmin())]
    torch.testing.assert_close(found.probability, clean)
    assert found.order.tolist() == found.coefficient.abs().argsort(descending=True).tolist()


def test_no_class_vanishes_and_broken_rows_are_noisy() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.cat([torch.zeros(100), torch.ones(10), torch.full((1,), 2)]).long()
    loss = torch.rand(111, generator=generator)
    loss[100:] = 50.0  # two small classes of nothing but noise
    loss[3] = torch.nan
    clean, probability, notes = find_clean(loss[:, None], loss, y)
    assert not clean[3]
    assert probability[3] == 0
    assert clean[100:110].sum() == 1
    assert clean[110]
    assert "no class vanishes" in notes[0]


@pytest.mark.parametrize("rows", [4, 30])
def test_rows_all_alike_are_clean(rows: int) -> None:
    clean, _, notes = find_clean(torch.ones(rows, 3), torch.ones(rows), torch.arange(rows) % 2)
    assert clean.all()
    assert notes == ("all rows look clean",)


def test_a_network_of_nan() -> None:
    with pytest.raises(UnswayedError, match="finite"):
        find_clean(torch.full((9, 2), torch.nan), torch.ones(9), torch.zeros(9, dtype=torch.long))


# ------------------------------------------------------------------------------------------------------------- repair


def blobs(rows: int = 600, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Four classes in the plane, a third of the labels wrong: rows, given labels, true labels."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(rows) % 4
    centres = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
    x = centres[truth] + 0.8 * torch.randn(rows, 2, generator=generator)
    wrong = torch.rand(rows, generator=generator) < 0.33
    other = (truth + 1 + torch.randint(3, (rows,), generator=generator)) % 4
    return x, torch.where(wrong, other, truth), truth


@pytest.fixture(scope="module")
def broken() -> nn.Module:
    """A network that has learnt its wrong labels by heart."""
    torch.manual_seed(0)
    x, given, _ = blobs()
    model = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4)
    )
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(250):
        optimiser.zero_grad()
        F.cross_entropy(model(x), given).backward()
        optimiser.step()
    return model.train()


def right(model: nn.Module, seed: int = 1) -> float:
    x, _, truth = blobs(seed=seed)
    return unswayed.engine.accuracy(model, x, truth)


@pytest.mark.parametrize("evidence", ["loss", "label", "prediction"])
@pytest.mark.parametrize("tune", ["last", "all"])
def test_repair(broken: nn.Module, evidence, tune) -> None:
    x, given, truth = blobs()
    before = copy.deepcopy(broken.state_dict())
    done = unswayed.repair(broken, x, given, layer="2", evidence=evidence, tune=tune, share=0.25, epochs=8)
    assert all(torch.equal(value, before[name]) for name, value in broken.state_dict().items()), "the input stays"
    clean = done.diagnosis.clean
    if evidence != "prediction":  # which cannot see a label
        assert (given != truth)[clean].float().mean() < (given != truth).float().mean() / 2
        assert right(done.model) > right(broken) + 0.02
    assert len(done.neurons) == 16
    assert done.rows == int(clean.sum())
    assert done.seconds > 0
    assert done.model[2].weight[done.neurons].abs().max() == 0
    assert done.model[3].bias[done.neurons].abs().max() == 0
    changed = {name for name, value in done.model.state_dict().items() if not torch.equal(value, before[name])}
    assert ("0.weight" in changed) == (tune == "all")
    assert done.model.training
    assert all(p.requires_grad for p in done.model.parameters())


def test_repair_is_the_same_twice_and_leaves_the_random_state(broken: nn.Module) -> None:
    x, given, _ = blobs()
    torch.manual_seed(5)
    first = unswayed.repair(broken, x, given, epochs=1)
    drawn = torch.rand(1)
    second = unswayed.repair(broken, x, given, epochs=1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(map(torch.equal, first.model.state_dict().values(), second.model.state_dict().values()))


def test_frozen_parameters_are_frozen_afterwards(broken: nn.Module) -> None:
    model = copy.deepcopy(broken).eval()
    model[0].requires_grad_(False)
    x, given, _ = blobs()
    done = unswayed.repair(model, x, given, tune="last", epochs=1, share=0)
    assert [p.requires_grad for p in done.model.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not done.model.training
    assert len(done.neurons) == 0


def test_a_kan_head_and_a_masked_head(broken: nn.Module) -> None:
    x, given, _ = blobs()
    for name in ("kan", "edge-masked"):
        torch.manual_seed(0)
        net = nets.Net(nets.create_body("mlp", kind="table", shape=(2,), widths=(16,)), heads.create(name, 16, 4))
        done = unswayed.repair(net, x, given, evidence="prediction", epochs=1)
        assert done.diagnosis.layer == "body.layers.layers.0"
        assert len(done.neurons) == 2  # round(16 * 40 / 256), halves to even
        assert done.model(x).shape == (600, 4)


def test_compare_has_its_controls(broken: nn.Module) -> None:
    x, given, truth = blobs()
    found = diagnose(broken, x, given)
    heard: list[str] = []
    trials = mending.compare(
        broken, x, given, found, share=0.25, test=(x, truth), epochs=1,
        retrain=lambda rows: (copy.deepcopy(broken), 3), told=lambda trial: heard.append(trial.name),
    )  # fmt: skip
    assert [trial.name for trial in trials] == heard
    assert heard == [
        "before", "L-FT", "L-FT, no pruning", "L-FT, random neurons", "L-FT, all rows",
        "F-FT", "F-FT, no pruning", "F-FT, random neurons", "F-FT, all rows", "retrained",
    ]  # fmt: skip
    assert [trial.pruned for trial in trials] == [0, 16, 0, 16, 0, 16, 0, 16, 0, 0]
    assert [trial.rows == 600 for trial in trials] == [name == "before" or "all rows" in name for name in heard]
    drawn = {tuple(sorted(trial.repair.neurons.tolist())) for trial in trials if trial.pruned}
    assert len(drawn) == 2, "the worst and the random ones"
    assert trials[0].accuracy == trials[-1].accuracy == pytest.approx(unswayed.engine.accuracy(broken, x, truth))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"evidence": "los"}, "evidence is one of"),
        ({"tune": "some"}, "tune is"),
        ({"share": 1.0}, "share of the neurons"),
        ({"layer": "9"}, "fully connected"),
    ],
)
def test_settings_that_make_no_sense(broken: nn.Module, settings, said: str) -> None:
    x, given, _ = blobs()
    with pytest.raises(UnswayedError, match=said):
        unswayed.repair(broken, x, given, epochs=1, **settings)
    with pytest.raises(UnswayedError, match="class number"):
        diagnose(broken, x, given[:-1])


def test_never_all_neurons(broken: nn.Module) -> None:
    x, given, _ = blobs()
    found = diagnose(broken, x, given)
    assert len(found.worst(0.999)) == 63
    assert len(found.worst(1e-9)) == 1
    assert found.worst(0.5).unique().numel() == 32


# ---------------------------------------------------------------------------------------------------- spoilt inputs


@pytest.mark.parametrize("how", ["gaussian", "blur"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_exactly_so_many_inputs_are_spoilt(how, dtype) -> None:
    x = torch.randint(0, 255, (20, 3, 9, 9), generator=torch.Generator().manual_seed(1)).to(dtype)
    kept = x.clone()
    spoilt, rows = spoil_inputs(x, 0.5, how, strength=2, generator=torch.Generator().manual_seed(0))
    again, _ = spoil_inputs(x, 0.5, how, strength=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x, kept)
    assert torch.equal(spoilt, again)
    assert spoilt.dtype == dtype
    assert len(rows) == 10
    assert torch.equal((spoilt != x).flatten(1).any(1).nonzero()[:, 0], rows)


def test_strength_is_what_it_says() -> None:
    x = torch.randn(400, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0])[:, None, None]
    spoilt, rows = spoil_inputs(x, 1, strength=3, generator=torch.Generator().manual_seed(0))
    assert len(rows) == 400
    assert (spoilt - x).std((0, 2, 3)).tolist() == pytest.approx([3, 30], rel=0.03)
    constant = torch.ones(2, 1, 5, 5)
    blurred, _ = spoil_inputs(constant, 1, "blur", strength=1, generator=torch.Generator())
    assert torch.allclose(blurred, constant)
    with pytest.raises(UnswayedError, match="blur for images"):
        spoil_inputs(torch.ones(4, 2), 0.5, "blur", generator=torch.Generator())
    with pytest.raises(UnswayedError, match="share"):
        spoil_inputs(x, 1.5, generator=torch.Generator())


def test_the_document_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "repair.md").read_text(encoding="utf-8")
    x, given, _ = blobs()
    torch.manual_seed(0)
    names: dict[str, Any] = {"model": Functional(), "x": torch.cat([x, x], 1), "y": given % 3}
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code.replace("epochs=30", "epochs=1"), "docs/repair.md", "exec"), names)
    assert isinstance(names["repaired"], Functional)
