"""Noise models against counts by hand, published maps and slow references."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unswayed import noise
from unswayed.data.columns import ArrayColumn, TensorColumn
from unswayed.errors import UnswayedError
from unswayed.noise import classwise, corrupt, noises, transition_of
from unswayed.noise import instance as instance_module

# The 20 official coarse classes in alphabetical order of their names; in each the fine classes, too.
CIFAR100 = """
beaver dolphin otter seal whale | aquarium_fish flatfish ray shark trout | orchid poppy rose sunflower tulip
| bottle bowl can cup plate | apple mushroom orange pear sweet_pepper | clock keyboard lamp telephone television
| bed chair couch table wardrobe | bee beetle butterfly caterpillar cockroach | bear leopard lion tiger wolf
| bridge castle house road skyscraper | cloud forest mountain plain sea | camel cattle chimpanzee elephant kangaroo
| fox porcupine possum raccoon skunk | crab lobster snail spider worm | baby boy girl man woman
| crocodile dinosaur lizard snake turtle | hamster mouse rabbit shrew squirrel
| maple_tree oak_tree palm_tree pine_tree willow_tree | bicycle bus motorcycle pickup_truck train
| lawn_mower rocket streetcar tank tractor
"""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def label_sets(draw: st.DrawFn) -> tuple[Tensor, int]:
    classes = draw(st.integers(2, 12))
    return torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=60))), classes


rates = st.floats(0, 1)
seeds = st.integers(0, 2**31)


@given(label_sets(), rates, seeds)
def test_symmetric_turns_exactly_the_rounded_share_of_each_class(labels, rate, seed):
    y, classes = labels
    given_labels = corrupt("symmetric", y, rate=rate, classes=classes, seed=seed)
    for c in range(classes):
        of_class = given_labels[y == c]
        assert int((of_class != c).sum()) == round(rate * len(of_class))
    assert int(given_labels.min()) >= 0
    assert int(given_labels.max()) < classes


@given(label_sets(), rates, seeds)
def test_pair_and_asymmetric_hit_only_the_mapped_class(labels, rate, seed):
    y, classes = labels
    for name, settings_, target in (
        ("pair", {}, (y + 1) % classes),
        ("asymmetric", {}, (y + 1) % classes),
        ("asymmetric", {"to": {0: 1}}, torch.where(y == 0, 1, y)),
        ("asymmetric", {"to": [classes - 1] * classes}, torch.full_like(y, classes - 1)),
    ):
        given_labels = corrupt(name, y, rate=rate, classes=classes, seed=seed, **settings_)
        wrong = given_labels != y
        assert torch.equal(given_labels[wrong], target[wrong])
        for c in range(classes):
            of_class = y == c
            moved = round(rate * int(of_class.sum())) if bool((target[of_class] != c).any()) else 0
            assert int(wrong[of_class].sum()) == moved


@given(label_sets(), rates, seeds, st.data())
def test_matrix_deals_whole_numbers_nearest_to_the_shares(labels, rate, seed, data):
    y, classes = labels
    row = st.lists(st.integers(0, 5), min_size=classes, max_size=classes).filter(any)
    matrix = torch.tensor(data.draw(st.lists(row, min_size=classes, max_size=classes)), dtype=torch.float64)
    matrix = matrix / matrix.sum(1, keepdim=True)
    given_labels = corrupt("matrix", y, rate=rate, classes=classes, seed=seed, matrix=matrix)
    counts = torch.bincount(y * classes + given_labels, minlength=classes**2).view(classes, classes)
    exact = ((1 - rate) * torch.eye(classes) + rate * matrix) * torch.bincount(y, minlength=classes)[:, None]
    assert ((counts - exact).abs() < 1).all()  # largest remainders never stray by one
    assert not counts[exact == 0].any()


@given(label_sets(), rates, seeds)
def test_inclusive_never_turns_more_than_it_redraws(labels, rate, seed):
    y, classes = labels
    given_labels = corrupt("symmetric-inclusive", y, rate=rate, classes=classes, seed=seed)
    assert int((given_labels != y).sum()) <= round(rate * len(y))
    assert set(given_labels.tolist()) <= set(range(classes))


@settings(max_examples=40)
@given(label_sets(), rates, seeds, st.sampled_from(["paper", "authors", "shared"]))
def test_instance_labels_are_valid_and_repeatable(labels, rate, seed, variant):
    y, classes = labels
    x = torch.randint(0, 256, (len(y), 1, 2, 3), dtype=torch.uint8, generator=rng(seed))
    first, second = (
        corrupt("instance", y, x=x, rate=rate, classes=classes, seed=seed, variant=variant) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert set(first.tolist()) <= set(range(classes))
    if rate in (0, 1):
        assert bool(((first != y) == (rate == 1)).all())


def test_largest_remainders_by_hand():
    y = torch.tensor([0] * 7 + [1] * 10 + [2] * 1)
    matrix = [[0.5, 0.3, 0.2], [0.05, 0.9, 0.05], [0.0, 1.0, 0.0]]
    # Class 0: 3.5, 2.1, 1.4 -> 3 2 1 and one more for the .5. Class 1: .5, 9, .5 -> 9 and one to either. Class 2: 1.
    given_labels = corrupt("matrix", y, rate=1.0, classes=3, seed=3, matrix=matrix)
    counts = torch.bincount(y * 3 + given_labels, minlength=9).view(3, 3).tolist()
    assert counts[0] == [4, 2, 1]
    assert counts[1] in ([1, 9, 0], [0, 9, 1])
    assert counts[2] == [0, 1, 0]


def test_ties_of_remainders_favour_no_class():
    matrix = torch.full((4, 4), 0.25)
    winners = [
        int(corrupt("matrix", torch.tensor([0]), rate=1.0, classes=4, seed=s, matrix=matrix)) for s in range(400)
    ]
    counts = torch.bincount(torch.tensor(winners), minlength=4)
    assert (counts - 100).abs().max() < 45  # 5 standard deviations of 8.7


def test_exact_at_rates_that_are_no_binary_fractions():
    y = torch.zeros(100, dtype=torch.int64)
    for percent in range(101):
        for name in ("symmetric", "pair", "matrix"):
            more = {"matrix": [[0.0, 1.0], [1.0, 0.0]]} if name == "matrix" else {}
            given_labels = corrupt(name, y, rate=percent / 100, classes=2, seed=percent, **more)
            assert int(given_labels.sum()) == percent


def test_cifar10_map():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    y = torch.arange(10).repeat_interleave(10)
    all_hit = corrupt("asymmetric-cifar10", y, rate=1.0, classes=10, seed=0)[::10].tolist()
    changes = {names[c]: names[to] for c, to in enumerate(all_hit) if to != c}
    assert changes == {"truck": "automobile", "bird": "airplane", "cat": "dog", "dog": "cat", "deer": "horse"}
    some_hit = corrupt("asymmetric-cifar10", y, rate=0.4, classes=10, seed=0)
    assert int((some_hit != y).sum()) == 5 * 4


def test_cifar100_map_from_the_official_names():
    groups = [part.split() for part in CIFAR100.replace("\n", " ").split("|")]
    names = sorted(name for group in groups for name in group)
    assert len(names) == 100
    for coarse, group in enumerate(groups):
        assert [classwise.CIFAR100_COARSE[names.index(name)] for name in group] == [coarse] * 5
    turned = corrupt("asymmetric-cifar100", torch.arange(100), rate=1.0, classes=100, seed=0)
    for group in groups:
        for here, there in zip(group, group[1:] + group[:1], strict=True):
            assert names[int(turned[names.index(here)])] == there


def test_cifar100_consecutive_groups():
    turned = corrupt("asymmetric-cifar100", torch.arange(100), rate=1.0, classes=100, seed=0, groups="consecutive")
    assert turned[:10].tolist() == [1, 2, 3, 4, 0, 6, 7, 8, 9, 5]


def test_part_of_a_projection_is_the_whole_product():
    x = torch.randint(0, 256, (3, 2, 4), dtype=torch.uint8)
    weight = torch.randn(8, 5, generator=rng(9), dtype=torch.float64)
    stored = x.flatten(1).double() @ weight
    assert torch.allclose(instance_module._project(x, 5, 9, as_stored=True), stored)
    assert torch.allclose(instance_module._project(x, 5, 9, as_stored=False), stored / 255)


def test_drawn_classes_follow_the_softmax():
    pull = torch.tensor([[0.0, 1.0, -1.0, 2.0]], dtype=torch.float64)
    aims = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    drawn = instance_module._draw(pull.repeat(10_000, 1), torch.ones(10_000, dtype=torch.int64), aims)
    share = torch.bincount(drawn, minlength=4) / 10_000
    wanted = torch.tensor([0.0, -torch.inf, -1.0, 2.0]).softmax(0)
    assert torch.allclose(share, wanted, atol=2e-4)


def test_no_quantile_reaches_the_right_label():
    aims = torch.tensor([0.0, 0.5, 1 - 2**-53, 1.0], dtype=torch.float64)
    for label in range(3):
        pull = torch.randn(4, 3, dtype=torch.float64, generator=rng(label))
        drawn = instance_module._draw(pull, torch.full((4,), label), aims)
        assert not (drawn == label).any()
        assert int(drawn.max()) <= 2


def test_flip_rates_follow_the_truncated_normal():
    from scipy import stats

    for rate in (0.05, 0.4, 0.98):
        drawn = instance_module.flip_rates(20_000, rate, 0.1, rng(1))
        exact = stats.truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
        distance = stats.kstest(drawn.numpy(), exact.cdf).statistic
        assert distance < 1.63 / 20_000**0.5  # the 1 % point of Kolmogorov's statistic; the seed is fixed


def test_one_image_gets_one_wrong_label_as_in_the_authors_code():
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=rng(0))
    x, y = image.repeat_interleave(500, 0), torch.zeros(1000, dtype=torch.int64)
    given_labels = corrupt("instance", y, x=x, rate=0.5, classes=10, seed=0, variant="authors")
    wrong = [set(part[part != 0].tolist()) for part in given_labels.split(500)]
    assert [len(labels) for labels in wrong] == [1, 1]
    soft = corrupt("instance", y, x=torch.full((1000, 3), 0.1), rate=0.5, classes=10, seed=0)
    assert len(set(soft.tolist())) == 10


def test_variants_differ_where_they_say():
    y = torch.randint(0, 5, (600,), generator=rng(1))
    pixels = torch.randint(0, 256, (600, 20), dtype=torch.uint8, generator=rng(2))
    kinds = ("paper", "authors", "shared")
    images = {v: corrupt("instance", y, x=pixels, rate=0.6, classes=5, seed=0, variant=v) for v in kinds}
    assert not torch.equal(images["paper"], images["authors"])
    assert not torch.equal(images["paper"], images["shared"])
    tables = {v: corrupt("instance", y, x=pixels / 255, rate=0.6, classes=5, seed=0, variant=v) for v in kinds}
    assert torch.equal(tables["paper"], images["paper"])
    assert torch.equal(tables["paper"], tables["authors"])
    # One W: equal inputs are drawn to the same wrong class whatever their own class, unless it is their own.
    same = torch.full((400, 20), 40.0)
    y = torch.arange(4).repeat_interleave(100)
    shared = corrupt("instance", y, x=same, rate=1.0, classes=4, seed=0, variant="shared").view(4, 100)
    assert len({int(v) for v in shared.flatten()}) == 2
    apart = [corrupt("instance", y, x=same, rate=1.0, classes=4, seed=s).view(4, 100) for s in range(5)]
    assert max(len({int(v) for v in labels.flatten()}) for labels in apart) > 2


def test_instance_reads_in_chunks_without_a_trace(monkeypatch):
    x, y = torch.randn(60, 9000, generator=rng(0)), torch.randint(0, 3, (60,), generator=rng(1))
    whole = corrupt("instance", y, x=x, rate=0.7, classes=3, seed=0)
    drawn = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **more: drawn.append(size) or randn(*size, **more))
    monkeypatch.setattr(instance_module, "_NUMBERS_AT_ONCE", 9000 * 4)
    for column in (x, TensorColumn(x), ArrayColumn(x.numpy())):
        assert torch.equal(corrupt("instance", y, x=column, rate=0.7, classes=3, seed=0), whole)
    assert max(rows for rows, _ in drawn) == 4096


def test_transition_by_hand():
    truth, labelled = torch.tensor([0, 0, 0, 1, -1, 2]), torch.tensor([0, 1, 1, 1, 0, -1])
    wanted = torch.tensor([[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 1]])
    assert torch.allclose(transition_of(truth, labelled, 3), wanted)
    with pytest.raises(UnswayedError, match=r"0\.\.0, but got 1"):
        transition_of(truth, labelled, 1)
    with pytest.raises(UnswayedError, match="one length"):
        transition_of(truth, labelled[:2], 3)


def test_transition_of_dealt_labels_is_the_matrix():
    matrix = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]])
    y = torch.arange(3).repeat(100)
    given_labels = corrupt("matrix", y, rate=1.0, classes=3, seed=0, matrix=matrix)
    assert torch.allclose(transition_of(y, given_labels, 3), matrix)


def test_people_of_cifar10n(real_data: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(real_data / "cifar10n" / "train.parquet", columns=["label", "worst"])
    truth, worst = (torch.tensor(table[name].to_numpy()) for name in ("label", "worst"))
    observed = transition_of(truth, worst, 10)
    assert float(observed.diagonal().mean()) == pytest.approx(1 - 0.402, abs=5e-4)  # classes are of equal size
    dealt = corrupt("matrix", truth, rate=1.0, classes=10, seed=0, matrix=observed)
    assert torch.allclose(transition_of(truth, dealt, 10), observed, atol=1e-6)


@given(label_sets(), st.floats(0.001, 1), st.sampled_from(["exp", "step"]), seeds)
def test_imbalance_keeps_the_published_counts(labels, ratio, how, seed):
    y, classes = labels
    rows = noise.imbalance(y, ratio, how, generator=rng(seed), classes=classes)
    sizes, kept = torch.bincount(y, minlength=classes), torch.bincount(y[rows], minlength=classes)
    assert rows.tolist() == sorted(set(rows.tolist()))
    for c in range(classes):
        power = c / (classes - 1) if how == "exp" else float(c >= classes // 2)
        wanted = max(1, int(int(sizes.max()) * ratio**power + 1e-9))
        assert int(kept[c]) == min(wanted, int(sizes[c]))


def test_imbalance_of_cifar100_as_published():
    y = torch.arange(100).repeat_interleave(500)
    kept = torch.bincount(y[noise.imbalance(y, 0.01, generator=rng())])
    assert (int(kept[0]), int(kept[-1])) == (500, 5)
    assert abs(int(kept.sum()) - 10_847) <= 5  # the size of CIFAR-100-LT at 100; rounding of 5 whole numbers aside
    half = torch.bincount(y[noise.imbalance(y, 0.1, "step", generator=rng())])
    assert half.tolist() == [500] * 50 + [50] * 50


@given(label_sets(), rates, seeds)
def test_open_set_swaps_exact_numbers(labels, rate, seed):
    y, classes = labels
    x = torch.arange(len(y), dtype=torch.float32)[:, None].repeat(1, 2)
    outside = -1 - torch.arange(len(y) + 3, dtype=torch.float32)[:, None].repeat(1, 2)
    before = x.clone()
    mixed, replaced = noise.open_set(x, y, outside, rate, rng(seed))
    assert torch.equal(x, before)
    for c in range(classes):
        assert int((y[replaced] == c).sum()) == round(rate * int((y == c).sum()))
    stayed = torch.ones(len(y), dtype=torch.bool).index_fill(0, replaced, False)
    assert torch.equal(mixed[stayed], x[stayed])
    assert (mixed[replaced] < 0).all()
    assert len(mixed[replaced].unique(dim=0)) == len(replaced)  # no outside row twice


def test_noise_does_not_share_a_stream_with_the_same_seed():
    y = torch.multinomial(torch.tensor([1.0, 2.0]), 3000, replacement=True, generator=rng(0))
    given_labels = corrupt("instance", y, x=torch.ones(3000, 1), rate=0.3, classes=2, seed=0)
    wrong = (given_labels != y).double()
    assert abs(float(wrong[y == 0].mean() - wrong[y == 1].mean())) < 5 * (0.21 * (1 / 1000 + 1 / 2000)) ** 0.5


def test_corrupt_keeps_any_integer_labels_and_returns_int64():
    y = torch.tensor([0, 1, 2], dtype=torch.int32)
    given_labels = corrupt("symmetric", y, rate=1.0, classes=3, seed=0)
    assert given_labels.dtype == torch.int64
    assert not (given_labels == y).any()


LABELS = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corrupt("symetric", LABELS, rate=0.1, classes=2, seed=0), "did you mean symmetric"),
        (lambda: corrupt("pair", LABELS, rate=40, classes=2, seed=0), "for example rate=0.4"),
        (lambda: corrupt("pair", LABELS, rate=0.1, classes=2, seed=0, to=1), "no settings: the noise pair has none"),
        (
            lambda: corrupt("instance", LABELS, rate=0.1, classes=2, seed=0, spred=1),
            "settings of the noise instance are spread, variant, .*did you mean spread",
        ),
        (lambda: corrupt("instance", LABELS, rate=0.1, classes=2, seed=0), "needs the features"),
        (lambda: corrupt("instance", LABELS, x=torch.ones(2, 2), rate=0.1, classes=2, seed=0), "features of 3 samples"),
        (lambda: corrupt("instance", LABELS, x=torch.full((3, 2), torch.nan), rate=1, classes=2, seed=0), "finite"),
        (lambda: corrupt("instance", LABELS, x=torch.ones(3), rate=1, classes=2, seed=0, spread=-1), "spread"),
        (lambda: corrupt("instance", LABELS, x=torch.ones(3), rate=1, classes=2, seed=0, variant="x"), "variant"),
        (lambda: corrupt("asymmetric-cifar10", LABELS, rate=0.1, classes=2, seed=0), "10 classes of CIFAR-10"),
        (lambda: corrupt("asymmetric-cifar100", LABELS, rate=0.1, classes=10, seed=0), "100 classes of CIFAR-100"),
        (
            lambda: corrupt("asymmetric-cifar100", LABELS, rate=0.1, classes=100, seed=0, groups="fine"),
            "'coarse' or 'consecutive'",
        ),
        (lambda: corrupt("asymmetric", LABELS, rate=0.1, classes=2, seed=0, to={0: 2}), "a map between classes 0..1"),
        (lambda: corrupt("asymmetric", LABELS, rate=0.1, classes=2, seed=0, to="ab"), "a map between classes 0..1"),
        (lambda: corrupt("asymmetric", LABELS, rate=0.1, classes=2, seed=0, to=3), "a map between classes 0..1"),
        (lambda: corrupt("matrix", LABELS, rate=1, classes=2, seed=0), "needs a transition matrix"),
        (lambda: corrupt("matrix", LABELS, rate=1, classes=2, seed=0, matrix=[[1, 0]]), r"shape \[2, 2\]"),
        (lambda: corrupt("matrix", LABELS, rate=1, classes=2, seed=0, matrix=[[1, 0], [0.5, 0.6]]), "rows sum to 1"),
        (lambda: corrupt("matrix", LABELS, rate=1, classes=2, seed=0, matrix=[[2, -1], [0, 1]]), "rows sum to 1"),
        (lambda: corrupt("matrix", LABELS, rate=1, classes=2, seed=0, matrix="id"), "of numbers"),
        (lambda: noise.imbalance(LABELS, 100, generator=rng()), "for example ratio=0.01"),
        (lambda: noise.imbalance(LABELS, 0, generator=rng()), r"\(0, 1\]"),
        (lambda: noise.imbalance(LABELS, 0.5, "linear", generator=rng()), "'exp' or 'step'"),
        (lambda: noise.open_set(torch.ones(3, 2), LABELS, torch.ones(1, 2), 1.0, rng()), "at least 3 outside rows"),
        (lambda: noise.open_set(torch.ones(3, 2), LABELS, torch.ones(9, 3), 1.0, rng()), "resize"),
        (lambda: noise.open_set(torch.ones(2, 2), LABELS, torch.ones(9, 2), 1.0, rng()), "inputs of 3 samples"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(UnswayedError, match=message):
        call()


def test_listing_does_not_import_torch():
    code = (
        "import sys; from unswayed.noise import noises; lines = [noises.summary(n) for n in noises.names()];"
        "assert len(lines) == 9 and all('arXiv' in line for line in lines), lines; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_noise_is_known_by_name():
    assert noises.names() == [
        *("asymmetric", "asymmetric-cifar10", "asymmetric-cifar100", "instance", "learned", "matrix", "pair"),
        *("symmetric", "symmetric-inclusive"),
    ]
    with pytest.raises(AttributeError):
        noise.nothing  # noqa: B018
