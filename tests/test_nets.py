"""Bodies: published sizes, every kind of row, exact normalisation, heads that can be exchanged."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from unswayed import nets
from unswayed.data.columns import Column, TensorColumn
from unswayed.errors import UnswayedError
from unswayed.nets.mlps import Bag
from unswayed.nets.resnets import PaddedShortcut

CONVOLUTIONAL = ("cnn-small", "cnn7", "cnn8", "resnet18", "resnet20", "resnet34", "preact-resnet18")
RGB = (3, 32, 32)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(before: int, after: int, side: int = 3, *, bias: bool) -> int:
    """Parameters of a convolution and the norm behind it."""
    return before * after * side * side + (after if bias else 0) + 2 * after


def rows(kind: str, shape: tuple[int, ...], batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if kind == "image":
        return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=generator)
    values = torch.rand(batch, *shape, generator=generator)
    if kind == "text":
        values[:, 0] = torch.randint(0, 500, (batch, shape[1]), generator=generator).float()
    return values


def test_listing_the_bodies_does_not_import_torch() -> None:
    code = "import sys; from unswayed import nets; print(nets.bodies.names(), nets.bodies.summary('cnn8'))"
    code += "; nets.default_body('image', (3, 32, 32)); assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'preact-resnet18'" in said
    assert "The 8-layer CNN" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cnn8",
            conv(3, 64, bias=True)
            + conv(64, 64, bias=True)
            + conv(64, 128, bias=True)
            + conv(128, 128, bias=True)
            + conv(128, 196, bias=True)
            + conv(196, 196, bias=True)
            + (3136 * 256 + 256 + 2 * 256),
        ),
        (
            "cnn7",
            conv(3, 64, bias=True)
            + conv(64, 64, bias=True)
            + conv(64, 128, bias=True)
            + conv(128, 128, bias=True)
            + conv(128, 196, bias=True)
            + conv(196, 16, bias=True)
            + (256 * 512 + 512 + 2 * 512),
        ),
        # the totals that are known for K = 10, less the classifier
        ("resnet18", 11_173_962 - 5_130),
        ("resnet34", 21_282_122 - 5_130),
        ("resnet20", 269_722 - 650),
        ("preact-resnet18", 11_171_146 - 5_130 + 2 * 512),  # with the paper's last norm
    ],
)
def test_published_sizes(name: str, expected: int) -> None:
    assert count(nets.create_body(name, kind="image", shape=RGB)) == expected


def test_cnn8_is_the_published_net_at_32_px() -> None:
    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]

    layers: list[nn.Module] = []
    for before, after in ((3, 64), (64, 128), (128, 196)):
        layers += [*block(before, after), *block(after, after), nn.MaxPool2d(2, 2)]
    layers += [nn.Flatten(), nn.Linear(3136, 256), nn.BatchNorm1d(256), nn.ReLU()]
    published = nn.Sequential(*layers)
    body = nets.create_body("cnn8", kind="image", shape=RGB)
    ours = [value for name, value in body.state_dict().items() if "normalise" not in name]
    published.load_state_dict(dict(zip(published.state_dict(), ours, strict=True)))
    images = rows("image", RGB, batch=4)
    torch.testing.assert_close(body.double()(images), published.double()(images.double() / 255))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("image", (1, 8, 8)), ("image", (1, 28, 28)), ("image", RGB), ("audio", (1, 40, 67))],
)
def test_convolutional_bodies_take_any_size(name: str, kind: str, shape: tuple[int, ...]) -> None:
    body = nets.create_body(name, kind=kind, shape=shape).to(memory_format=torch.channels_last)
    features = body(rows(kind, shape))
    assert features.shape == (2, body.features)
    features.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in body.parameters())


@pytest.mark.parametrize("side", [4, 7, 8, 28, 32])
def test_small_images_end_in_the_map_of_the_published_net(side: int) -> None:
    body = nets.create_body("cnn8", kind="image", shape=(1, side, side)).eval()
    assert body.layers[:2](torch.rand(1, 1, side, side)).shape == (1, 196, 4, 4)
    assert not any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in body.modules())


@pytest.mark.parametrize("name", ["cnn-small", "resnet20", "preact-resnet18"])
@pytest.mark.parametrize("side", [64, 130])
def test_large_images_are_made_small_early(name: str, side: int) -> None:
    body = nets.create_body(name, kind="image", shape=(3, side, side)).eval()
    with torch.no_grad():
        assert body(rows("image", (3, side, side), batch=1)).shape == (1, body.features)
    if side >= 128:
        stem = next(layer for layer in body.modules() if isinstance(layer, nn.Conv2d))
        assert stem.stride[0] > 1


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("image", (1, 8, 8)), ("image", RGB), ("audio", (1, 40, 50)), ("text", (2, 30)), ("table", (5,))],
)
def test_every_kind_has_a_default_that_learns(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, y = rows(kind, shape, batch=24), torch.arange(24) % 3
    name = nets.default_body(kind, shape)
    body = nets.create_body(name, kind=kind, shape=shape, stats=nets.measure(TensorColumn(x), kind))
    net = nets.Net(body, nn.Linear(body.features, 3))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (net.eval()(x).argmax(1) == y).float().mean() > 0.9
    again = copy.deepcopy(net)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))


def test_normalise_by_hand() -> None:
    stats = nets.Stats(torch.tensor([[[0.5]], [[0.0]]]), torch.tensor([[[0.25]], [[2.0]]]))
    images = torch.tensor([[[[255]], [[51]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[2.0]], [[0.1]]]])
    torch.testing.assert_close(nets.Normalize(stats)(images), expected)
    torch.testing.assert_close(nets.Normalize(stats)(images.float() / 255), expected)
    assert nets.Normalize()(rows("image", RGB)).is_contiguous(memory_format=torch.channels_last)
    table = torch.randn(3, 4)
    assert torch.equal(nets.Normalize()(table), table)


def test_a_body_made_without_stats_loads_one_that_had_them() -> None:
    images = rows("image", RGB, batch=6)
    made = nets.create_body("cnn-small", kind="image", shape=RGB, stats=nets.measure(TensorColumn(images), "image"))
    loaded = nets.create_body("cnn-small", kind="image", shape=RGB)
    loaded.load_state_dict(made.state_dict())
    assert torch.equal(loaded.eval()(images), made.eval()(images))


@pytest.mark.parametrize(
    ("kind", "shape", "dims", "as_row"),
    [
        ("image", (3, 4, 5), (0, 2, 3), (3, 1, 1)),
        ("audio", (1, 6, 5), (0, 1, 3), (6, 1)),
        ("table", (7,), (0,), (7,)),
    ],
)
def test_measure_equals_the_textbook(
    kind: str, shape: tuple[int, ...], dims: tuple[int, ...], as_row: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unswayed.nets.normalise._rows_in_reach", lambda column: 7)
    x = rows(kind, shape, batch=50)
    values = x.double() / (255 if kind == "image" else 1)
    stats = nets.measure(TensorColumn(x), kind)
    assert stats is not None
    torch.testing.assert_close(stats.mean, values.mean(dims).reshape(as_row).float())
    torch.testing.assert_close(stats.std, values.std(dims, correction=0).reshape(as_row).float())
    normal = nets.Normalize(stats)(x).double()
    torch.testing.assert_close(normal.mean(dims), torch.zeros(as_row).flatten().double(), rtol=0, atol=1e-5)


def test_measure_keeps_its_head_over_large_means_and_constants() -> None:
    table = torch.stack([torch.arange(100.0, dtype=torch.float64) + 1.7e9, torch.full((100,), 0.1).double()], 1)
    stats = nets.measure(TensorColumn(table), "table")
    assert stats is not None
    assert stats.std[0].item() == pytest.approx(28.866, abs=1e-3)  # sqrt((100^2 - 1) / 12)
    assert stats.std[1] == 1


def test_measure_reads_a_bounded_share_in_bounded_parts() -> None:
    class Wide(Column):
        shape, dtype = (1, 1024, 1024), torch.uint8

        def __init__(self) -> None:
            self.asked: list[int] = []

        def __len__(self) -> int:
            return 10**6

        def rows(self, at: Tensor) -> Tensor:
            self.asked.append(len(at))
            return torch.zeros(len(at), *self.shape, dtype=self.dtype)

    column = Wide()
    nets.measure(column, "image", most=5)
    assert sum(column.asked) == 5
    assert max(column.asked) <= 2


def test_measure_refuses_what_is_not_finite() -> None:
    with pytest.raises(UnswayedError, match="at least one row"):
        nets.measure(TensorColumn(torch.zeros(0, 3)), "table")
    with pytest.raises(UnswayedError, match="finite"):
        nets.measure(TensorColumn(torch.tensor([[1.0], [float("nan")]])), "table")


def test_the_bag_is_a_sparse_row_times_a_dense_matrix() -> None:
    bag = Bag(buckets=50, width=6)
    x = rows("text", (2, 9), batch=4)
    x[:, 0] %= 50
    x[0, 0, 3] = x[0, 0, 2]  # the same n-gram twice adds up
    dense = torch.zeros(4, 50).scatter_add_(1, x[:, 0].long(), x[:, 1])
    dense[:, 0] = 0  # padding, whatever its weight
    torch.testing.assert_close(bag(x), dense @ bag.weight)
    bag(x).sum().backward()
    assert bag.weight.grad is not None
    assert torch.equal(bag.weight.grad[0], torch.zeros(6))


def test_longer_padding_changes_nothing_and_numbers_fold_into_the_table() -> None:
    body = nets.create_body("text-mlp", kind="text", shape=(2, 3), buckets=11, width=4, widths=(5,)).eval()
    x = torch.tensor([[[3.0, 7.0, 10.0], [0.5, 0.2, 0.1]]])
    longer = torch.cat([x, torch.zeros(1, 2, 40)], 2)
    torch.testing.assert_close(body(longer), body(x))
    folded = x.clone()
    folded[:, 0] += 10  # the table has 10 rows besides padding
    assert torch.equal(body(folded), body(x))
    assert body(torch.zeros(1, 2, 3)).isfinite().all()  # a text without any n-gram


@pytest.mark.parametrize("classes", [2, 1000])
def test_text_nets_of_few_and_many_classes(classes: int) -> None:
    body = nets.create_body("text-mlp", kind="text", shape=(2, 5))
    assert nets.Net(body, nn.Linear(body.features, classes))(rows("text", (2, 5))).shape == (2, classes)


def test_the_shortcut_without_parameters() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor([[[[0.0, 2.0], [8.0, 10.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert torch.equal(PaddedShortcut(1, 2)(x), expected)


@pytest.mark.parametrize(("kind", "shape"), [("table", (5,)), ("image", (3, 4, 2)), ("audio", (1, 6, 5))])
def test_the_identity_gives_the_standardised_rows(kind: str, shape: tuple[int, ...]) -> None:
    x = rows(kind, shape, batch=30)
    stats = nets.measure(TensorColumn(x), kind)
    assert stats is not None
    body = nets.create_body("identity", kind=kind, shape=shape, stats=stats)
    assert body.features == torch.Size(shape).numel()
    assert count(body) == 0
    values = x.double() / (255 if kind == "image" else 1)
    expected = ((values - stats.mean.double()) / stats.std.double()).flatten(1)
    torch.testing.assert_close(body(x), expected.float(), rtol=1e-5, atol=1e-5)


def test_a_linear_probe_is_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    torch.manual_seed(0)
    x, y = torch.randn(60, 4) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + 5, torch.arange(60) % 3
    body = nets.create_body("identity", kind="table", shape=(4,), stats=nets.measure(TensorColumn(x), "table"))
    net = nets.Net(body, nn.Linear(4, 3))
    optimiser = torch.optim.LBFGS(net.head.parameters(), max_iter=200, tolerance_grad=1e-9, tolerance_change=0)

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y) + 0.01 * net.head.weight.square().sum() / 2
        loss.backward()
        return loss

    optimiser.step(step)
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * 60), tol=1e-8, max_iter=1000).fit(body(x), y)
    found, expected = net(x).softmax(1).detach(), torch.tensor(theirs.predict_proba(body(x)))
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind", "shape", "settings", "says"),
    [
        ("cnn9", "image", RGB, {}, "did you mean cnn"),
        ("cnn8", "table", (4,), {}, "image or audio rows"),
        ("mlp", "text", (2, 4), {}, "text-mlp"),
        ("identity", "text", (2, 4), {}, "text-mlp"),
        ("identity", "table", (4,), {"widths": 3}, "no settings"),
        ("text-mlp", "image", RGB, {}, "text rows"),
        ("mlp", "table", (4,), {"width": (3,)}, "did you mean widths"),
        ("text-mlp", "text", (2, 4), {"buckets": 1}, "at least 2 buckets"),
        ("mlp", "table", (4,), {"dropout": 2}, "settings that the body mlp can be built with"),
        ("mlp", "table", (4,), {"widths": "12xfour"}, "widths of layers"),
        ("cnn8", "image", RGB, {"widths": ()}, "widths of layers"),
    ],
)
def test_what_does_not_fit_is_told(
    name: str, kind: str, shape: tuple[int, ...], settings: dict[str, object], says: str
) -> None:
    with pytest.raises(UnswayedError, match=says):
        nets.create_body(name, kind=kind, shape=shape, **settings)


def test_any_module_is_a_body() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.BatchNorm1d(7))
    before = copy.deepcopy(module.state_dict())
    body = nets.create_body(module, kind="image", shape=(3, 2, 2))
    assert body.features == 7
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert body(rows("image", (3, 2, 2))).shape == (2, 7)
    with pytest.raises(UnswayedError, match="pool and flatten"):
        nets.create_body(nn.Conv2d(3, 4, 1), kind="image", shape=(3, 2, 2))
    with pytest.raises(UnswayedError, match="maps"):
        nets.create_body(nn.Linear(5, 2), kind="table", shape=(4,))
    with pytest.raises(UnswayedError, match="features"):
        nets.Net(nn.Linear(2, 2), nn.Linear(2, 2))


class Classifier(nn.Module):
    """A small stand-in for a Hugging Face model: named arguments in, an object with `.logits` out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.dense, self.classifier = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        mask = attention_mask[..., None].float()
        pooled = (self.embed(input_ids) * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=self.classifier(self.dense(pooled).tanh()))


def test_hugging_face_models_by_their_logits() -> None:
    model = Classifier()
    x = torch.tensor([[[1.0, 5.0, 0.0], [1.0, 1.0, 0.0]]])
    plain = model(x[:, 0].long(), x[:, 1].long()).logits
    net = nets.from_module(nets.Logits(model, "text"))
    assert net.features == 8
    assert isinstance(model.classifier, nn.Identity)
    assert torch.equal(net(x), plain)


def test_hugging_face_images_and_other_rows() -> None:
    class Pixels(nn.Module):
        def forward(self, pixel_values: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=pixel_values.mean((2, 3)))

    class Positional(nn.Module):
        def forward(self, x: Tensor, /) -> SimpleNamespace:
            return SimpleNamespace(logits=2 * x)

    assert torch.equal(nets.Logits(Pixels())(torch.ones(2, 3, 4, 4)), torch.ones(2, 3))
    assert torch.equal(nets.Logits(Positional(), "table")(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_a_head_can_be_exchanged_in_any_module() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 3)))
    x = torch.randn(5, 4)
    expected = module(x)
    net = nets.from_module(module)
    assert torch.equal(net(x), expected)
    assert count(net.head) == 27
    net.head = nn.Linear(net.features, 11)
    assert net(x).shape == (5, 11)
    named = nets.from_module(nn.Sequential(nn.Linear(4, 8), nn.Identity()), "0")
    assert named.features == 4
    linear = nn.Linear(4, 3)
    assert torch.equal(nets.from_module(linear)(x), linear(x))
    with pytest.raises(UnswayedError, match="name one of 0"):
        nets.from_module(nn.Sequential(nn.Linear(4, 8)), "fc")
    with pytest.raises(UnswayedError, match="none in the module"):
        nets.from_module(nn.Sequential(nn.ReLU()))


def test_from_module_can_normalise() -> None:
    stats = nets.Stats(torch.full((4,), 2.0), torch.full((4,), 0.5))
    module = nn.Sequential(nn.Linear(4, 3))
    x = torch.randn(5, 4)
    expected = module((x - 2) / 0.5)
    torch.testing.assert_close(nets.from_module(module, stats=stats)(x), expected)


def test_timm_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UnswayedError, match=r"pip install 'unswayed\[timm\]'"):
        nets.create_body("timm:resnet18", kind="image", shape=RGB)


def test_timm_is_asked_for_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm itself does not import beside every build of torch: a stand-in with its interface takes its place."""
    asked: dict[str, object] = {}

    class Model(nn.Module):
        num_features, pretrained_cfg = 3, {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    def create_model(name: str, **settings: object) -> nn.Module:
        asked.update(name=name, **settings)
        return Model()

    timm = ModuleType("timm")
    timm.is_model = lambda name: name == "tiny"  # type: ignore[attr-defined]
    timm.list_models = lambda pattern: ["tiny"]  # type: ignore[attr-defined]
    timm.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    body = nets.create_body("timm:tiny", kind="image", shape=RGB, pretrained=True, drop_rate=0.1)
    assert asked == {"name": "tiny", "pretrained": True, "num_classes": 0, "in_chans": 3, "drop_rate": 0.1}
    white = torch.full((2, *RGB), 255, dtype=torch.uint8)
    torch.testing.assert_close(body(white), torch.full((2, 3), 2.0))
    with pytest.raises(UnswayedError, match="tiny"):
        nets.create_body("timm:huge", kind="image", shape=RGB)


def test_measure_does_not_blow_up_what_is_all_but_constant() -> None:
    rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    rows[:, 1] = rows[:, 0] * 1e-27
    stats = nets.measure(TensorColumn(rows), "table")
    assert stats is not None
    assert float(stats.std[1]) == 1.0
