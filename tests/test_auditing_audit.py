"""The audit as a whole: what it finds, what it says of its own certainty, and what it does with little."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import unswayed
from unswayed.auditing import KINDS, Audit, Interval, error_budget, next_labels, recalibrate, worth_going_on
from unswayed.auditing.acquire import read_decisions
from unswayed.auditing.noise_rate import agree, shift_to
from unswayed.auditing.pooling import fit_pool, posterior
from unswayed.auditing.reliability import reliability
from unswayed.auditing.verdict import choose_method
from unswayed.errors import UnswayedError
from unswayed.stats import Dynamics


def clouds(rows: int = 600, classes: int = 3, apart: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows [N, 5] in clouds, and their true classes."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.arange(rows) % classes
    centres = apart * torch.nn.functional.one_hot(z, 5).float()
    return centres + torch.randn(rows, 5, generator=generator), z


def flip(z: Tensor, rate: float, classes: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    at = torch.randperm(len(z), generator=generator)[: round(rate * len(z))]
    y = z.clone()
    y[at] = (y[at] + torch.randint(1, classes, (len(at),), generator=generator)) % classes
    return y


@pytest.fixture(scope="module")
def planted() -> tuple[Audit, Tensor, Tensor, Tensor]:
    x, z = clouds(900, apart=4.0)
    y = flip(z, 0.25, 3)
    return unswayed.audit(y, features=x), y, z, x


def test_finds_planted_noise(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit, y, z, _ = planted
    wrong = y != z
    found = torch.zeros(len(y), dtype=torch.bool)
    found[audit.issues()] = True
    assert 2 * int((found & wrong).sum()) / (int(found.sum()) + int(wrong.sum())) > 0.97
    assert (audit.suggested == z).float().mean() > 0.98
    assert audit.about["evidence"] == ["features"]
    assert set(audit.about["scores"]) == set(audit.scores)


def test_knows_rate_and_matrix(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit, y, z, _ = planted
    low, high = audit.noise.rate[1:]
    assert low <= 0.25 <= high
    assert high - low < 0.15
    counts = torch.zeros(3, 3).index_put_((z, y), torch.ones(len(y)), accumulate=True)
    true = counts / counts.sum(1, keepdim=True)
    assert ((true >= audit.noise.low) & (true <= audit.noise.high)).all()
    assert torch.allclose(audit.noise.matrix.sum(1), torch.ones(3), atol=1e-5)


def test_suspicion_is_a_probability(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit, y, z, _ = planted
    found = reliability(audit.suspicion, y != z)
    print(f"\nThree clouds, 25 % wrong:\n{found.lines()}")
    assert found.error < 0.03


def test_the_order_of_rows_and_the_names_of_classes_change_nothing() -> None:
    x, z = clouds(300)
    y = flip(z, 0.2, 3)
    names = ["c", "a", "b"]
    first, second = unswayed.audit(y, features=x), unswayed.audit([names[int(k)] for k in y], features=x)
    assert torch.corrcoef(torch.stack([first.suspicion, second.suspicion]))[0, 1] > 0.999
    assert [second.classes[int(k)] for k in second.suggested] == [names[int(k)] for k in first.suggested]
    assert torch.equal(unswayed.audit(y, features=x).suspicion, first.suspicion)  # the same, to the bit


def test_probabilities_alone() -> None:
    x, z = clouds(600)
    y = flip(z, 0.2, 3)
    probs = (x[:, :3] * 2).softmax(1)
    audit = unswayed.audit(y, probs=probs, classes=["a", "b", "c"], rows=range(1000, 1600))
    assert audit.neighbours is None
    assert torch.equal(audit.probs if audit.probs is not None else torch.zeros(0), probs / probs.sum(1, keepdim=True))
    assert audit.rows[0] == 1000
    assert audit.noise.rate.low <= 0.2 <= audit.noise.rate.high


def test_dynamics_alone_and_beside_features() -> None:
    x, z = clouds(600)
    y = flip(z, 0.2, 3)
    learnt = Dynamics(600, 3)
    for _ in range(3):
        learnt.update(2 * x[:, :3], y, torch.arange(600))
    alone, beside = unswayed.audit(y, dynamics=learnt), unswayed.audit(y, dynamics=learnt, features=x)
    bare = unswayed.audit(y, dynamics=learnt.suspicion())
    for audit in (alone, beside, bare):
        suspicion = audit.suspicion
        assert suspicion[y != z].mean() > suspicion[y == z].mean() + 0.5
    assert "dynamics" in beside.scores
    assert beside.about["evidence"] == ["features", "dynamics"]
    assert torch.allclose(bare.probs.sum(1), torch.ones(600)) if bare.probs is not None else False


def test_dynamics_that_do_not_fit() -> None:
    x, z = clouds(30)
    with pytest.raises(UnswayedError, match="update was never called"):
        unswayed.audit(z, features=x, dynamics=Dynamics(30, 3))
    with pytest.raises(UnswayedError, match="of 30 rows"):
        unswayed.audit(z, features=x, dynamics=torch.zeros(7))
    with pytest.raises(UnswayedError, match="finite"):
        unswayed.audit(z, dynamics=torch.full((30,), torch.nan))


def test_annotators_alone_and_beside_features() -> None:
    x, z = clouds(500, apart=2.0)
    votes = torch.stack([flip(z, 0.3, 3, seed) for seed in range(4)], 1)
    votes[::7, 3] = -1
    y = votes[:, 0]
    alone = unswayed.audit(y, annotators=votes)
    both = unswayed.audit(y, annotators=votes, features=x)
    features = unswayed.audit(y, features=x)
    right = [(audit.suggested == z).float().mean() for audit in (features, alone, both)]
    assert right[2] > max(right[0], right[1])
    assert "annotators" in both.scores


def test_missing_labels_get_a_suggestion_and_teach_nothing() -> None:
    x, z = clouds(400)
    y = flip(z, 0.2, 3)
    gone = torch.arange(400) % 10 == 0
    y[gone] = -1
    audit = unswayed.audit(y, features=x)
    assert (audit.suspicion[gone] == 1).all()
    assert (audit.suggested[gone] == z[gone]).float().mean() > 0.9
    assert (audit.kind[gone] == KINDS.index("wrong")).all()
    moved = unswayed.audit(torch.where(gone, -5, y), features=x)  # however they are missing
    assert torch.equal(moved.suspicion, audit.suspicion)
    assert not set(next_labels(audit, 50).tolist()) & set(gone.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("rows", [2, 3, 4, 7])
def test_fewer_rows_than_folds(rows: int) -> None:
    x, z = clouds(rows, classes=2)
    audit = unswayed.audit(z, features=x)
    assert audit.suspicion.isfinite().all()
    assert audit.method == "plain"


def test_features_that_say_nothing_and_a_class_with_one_row() -> None:
    y = torch.arange(60) % 3
    assert unswayed.audit(y, features=torch.zeros(60, 4)).suspicion.isfinite().all()
    assert unswayed.audit(torch.cat([y, torch.tensor([3])]), features=torch.randn(61, 4)).suspicion.isfinite().all()
    assert unswayed.audit(y, probs=F.one_hot(y, 3).float()).noise.rate.value < 0.1
    assert unswayed.audit(y, probs=torch.full((60, 3), 1 / 3)).suspicion.isfinite().all()


def test_truth_cannot_reach_it_and_inputs_stay(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    _, y, _, x = planted
    before = x.clone(), y.clone()
    unswayed.audit(y, features=x)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)


def test_duplicates_ambiguous_and_outliers() -> None:
    x, z = clouds(600, apart=4.0)
    x[3] = x[0] + 1e-6  # row 0 and row 3 are of class 0
    y = z.clone()
    y[3] = 1
    x[10] = torch.tensor([0.0, 0.0, 0.0, 400.0, 400.0])
    audit = unswayed.audit(y, features=x)
    assert KINDS[int(audit.kind[3])] == "duplicate"
    assert KINDS[int(audit.kind[0])] == "duplicate"
    assert (audit.kind == KINDS.index("duplicate")).sum() == 2
    vague = torch.cat([F.one_hot(z[:-1], 3) * 0.94 + 0.02, torch.full((1, 3), 1 / 3)])
    assert KINDS[int(unswayed.audit(y, probs=vague).kind[-1])] in ("outlier",)
    from unswayed.auditing.suggestions import entropy_share, name_kinds

    classes = torch.tensor([[0.55, 0.43, 0.02], [0.98, 0.01, 0.01], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    given = torch.tensor([0, 0, 0, -1])
    kinds = name_kinds(given, 1 - classes[:, 0], classes[:, 1:].amax(1), entropy_share(classes))
    assert [KINDS[int(kind)] for kind in kinds] == ["ambiguous", "fine", "wrong", "wrong"]


def test_saved_and_loaded(planted: tuple[Audit, Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    audit = planted[0]
    loaded = Audit.load(audit.save(tmp_path))
    assert torch.equal(loaded.suspicion, audit.suspicion)
    assert error_budget(loaded).sentence() == error_budget(audit).sentence()


def test_budget(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit, y, z, _ = planted
    budget, wrong = error_budget(audit), (y != z)[audit.order()]
    assert (budget.low <= budget.found).all()
    assert (budget.found <= budget.high).all()
    assert budget.found.diff().min() >= -1e-6
    assert float(budget.found[-1]) == pytest.approx(1.0)
    count = budget.needed(0.8)
    truth = float(wrong[:count].sum() / wrong.sum())
    low, high = budget.at(count)[1:]
    assert low <= truth <= high
    assert budget.precision_at(100).value > 0.95
    assert f"Review {count:,} labels to find 80 % (" in budget.sentence()
    with pytest.raises(UnswayedError, match="share"):
        budget.needed(80)


def test_the_loop_finds_the_errors_and_ends(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit, y, z, _ = planted
    wrong, decided = y != z, {}
    assert worth_going_on(audit).go
    for _ in range(20):
        places = next_labels(audit, 50, decided=decided)
        assert not set(places.tolist()) & set(decided)
        decided |= {int(at): audit.classes[int(z[at])] for at in places}
        if not worth_going_on(audit, decided=decided).go:
            break
    assert len(decided) < 500
    assert int(wrong[list(decided)].sum()) > 0.95 * int(wrong.sum())
    settled = {at: int(z[at]) for at in range(len(z))}
    assert worth_going_on(audit, decided=settled).why == "Every label has been checked."
    assert not len(next_labels(audit, 5, decided=settled))


def test_decisions_recalibrate() -> None:
    """An audit that claims .9 where half is wrong believes the person after two hundred looks."""
    generator = torch.Generator().manual_seed(0)
    said = torch.rand(4000, generator=generator)
    wrong = torch.rand(4000, generator=generator) < said / 2
    square = torch.eye(2)
    audit = Audit(
        classes=("a", "b"),
        rows=torch.arange(4000),
        given=torch.zeros(4000, dtype=torch.int64),
        suspicion=said,
        suggested=(said > 0.5).long(),
        probability=torch.maximum(said, 1 - said),
        kind=torch.zeros(4000, dtype=torch.int8),
        noise=unswayed.auditing.Noise(Interval(0.5, 0.2, 0.8), square, square, square),
        verdict="",
        method="plain",
    )
    assert recalibrate(audit, {}) is audit
    decided = {int(at): int(wrong[at]) for at in torch.randperm(4000, generator=generator)[:300]}
    after, rest = recalibrate(audit, decided), torch.ones(4000, dtype=torch.bool)
    rest[list(decided)] = False
    before, now = (reliability(each.suspicion[rest], wrong[rest]).error for each in (audit, after))
    print(f"\nCalibration error before and after 300 decisions: {before:.3f}, {now:.3f}")
    assert now < before / 3
    assert after.noise.rate.low <= float(wrong.float().mean()) <= after.noise.rate.high
    assert after.noise.rate.high - after.noise.rate.low < 0.3
    for at, number in decided.items():
        assert after.suggested[at] == number
        assert after.suspicion[at] == float(number != 0)


def test_next_labels_by_noise_stability(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit = planted[0]
    moved = torch.randn(len(audit), 6, generator=torch.Generator().manual_seed(0))
    assert len(set(next_labels(audit, 20, deviations=moved).tolist())) == 20
    with pytest.raises(UnswayedError, match="deviations"):
        next_labels(audit, 5, deviations=moved[:3])
    with pytest.raises(UnswayedError, match="one label"):
        next_labels(audit, 0)


def test_decisions_that_cannot_be(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit = planted[0]
    assert read_decisions(audit, {3: "1"}) == {3: 1}
    for wrong in ({len(audit): 0}, {0: "horse"}, {0: 7}):
        with pytest.raises(UnswayedError):
            read_decisions(audit, wrong)


def test_verdict() -> None:
    def rate(value: float) -> Interval:
        return Interval(value, value / 2, min(1.0, value * 1.5))

    even = torch.full((3, 3), 0.15).fill_diagonal_(0.7)
    pair = torch.tensor([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert choose_method(rate(0.03), 10_000, 10).method == "plain"
    assert choose_method(rate(0.3), 100, 10).method == "plain"
    assert choose_method(rate(0.2), 10_000, 4, "text").method == "promix"
    assert choose_method(rate(0.4), 10_000, 3, "image", matrix=pair).method == "dividemix-lccn"
    assert choose_method(rate(0.4), 10_000, 3, "image", matrix=even).method == "sce"
    assert choose_method(rate(0.8), 10_000, 10, "image").method == "ssr"
    for value in (0.03, 0.2, 0.4, 0.8):
        why = choose_method(rate(value), 10_000, 10).why
        assert why.endswith(".")
        assert "docs/methods-compared.md" in why


@pytest.mark.parametrize("kind", ["image", "text", "table"])
@pytest.mark.parametrize("value", [0.03, 0.2, 0.4, 0.8])
def test_advised_methods_exist(value: float, kind: str) -> None:
    from unswayed.experiment.arms import parse_arm

    advised = choose_method(Interval(value, value, value), 5000, 10, kind).method
    arm = parse_arm(advised)
    assert advised in (arm.method, arm.loss)


def test_pool_tells_noise_from_doubt() -> None:
    """Sure views and odd labels: the matrix takes it. Views that waver where labels do: the weights take it."""
    generator = torch.Generator().manual_seed(0)
    sure = 8 * torch.randn(5000, 3, generator=generator)  # of most rows, and right about how sure it is
    z = torch.multinomial(sure.softmax(1), 1, generator=generator)[:, 0]
    y = flip(z, 0.3, 3)
    found = fit_pool(sure[None], y, noise=True)
    assert found.transition.diagonal().sub(0.7).abs().max() < 0.05
    assert float(found.weight[0]) == pytest.approx(1.0, abs=0.3)
    wavering = 2 * torch.randn(5000, 3, generator=generator)
    drawn = torch.multinomial(wavering.softmax(1), 1, generator=generator)[:, 0]
    calm = fit_pool(wavering[None], drawn, noise=True)
    assert calm.transition.diagonal().min() > 0.9
    assert float(calm.weight[0]) == pytest.approx(1.0, abs=0.15)


def test_a_view_that_speaks_against_the_label_is_not_turned_round() -> None:
    """It would be the label itself: a view that leaks it backwards must not explain it."""
    generator = torch.Generator().manual_seed(0)
    good = 8 * torch.randn(5000, 3, generator=generator)
    z = torch.multinomial(good.softmax(1), 1, generator=generator)[:, 0]
    y = flip(z, 0.3, 3)
    against = -3 * F.one_hot(y, 3).float()
    found = fit_pool(torch.stack([good, against]), y, noise=True)
    assert found.weight.min() >= 0
    assert float(found.weight[1]) < 0.05
    assert found.transition.diagonal().sub(0.7).abs().max() < 0.05


def test_posterior_is_bayes() -> None:
    own = torch.tensor([[0.6, 0.4]]).log()
    flips = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    made = posterior(own, flips, torch.tensor([1])).exp()
    assert made[0].tolist() == pytest.approx([0.30 / 0.66, 0.36 / 0.66])


def test_rates_that_agree_are_believed_and_others_lean_to_the_usual() -> None:
    weights = {"noise": 1.0, "clouds": 1.0, "position": 1.0}
    sure = agree({"noise": 0.6, "clouds": 0.6, "position": 0.6}, weights)
    assert sure.value == pytest.approx(0.6, abs=0.001)
    torn = agree({"noise": 0.01, "clouds": 0.05, "position": 0.3}, weights)
    assert 0.02 < torn.value < 0.19
    assert torn.deviation > 10 * sure.deviation


def test_shift_to_hits_the_mean() -> None:
    odds = torch.randn(100).double()
    assert float((odds + shift_to(odds, 0.3)).sigmoid().mean()) == pytest.approx(0.3, abs=1e-6)


def test_more_rows_than_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from unswayed.auditing import views

    x, z = clouds(800)
    y = flip(z, 0.2, 3)
    whole = unswayed.audit(y, features=x)
    monkeypatch.setattr(views, "COMPARED", 300)
    monkeypatch.setattr(views, "LANDMARKS", 100)
    drawn = unswayed.audit(y, features=x)
    assert drawn.neighbours is not None
    assert not (drawn.neighbours == torch.arange(800)[:, None]).any()
    assert torch.corrcoef(torch.stack([whole.suspicion, drawn.suspicion]))[0, 1] > 0.9


@pytest.mark.parametrize("seeds", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_digits_beat_the_bar(rate: float, seeds: int) -> None:
    """The bar is that of kNN with k = 20: AUROC .9987 / .9974 and F1 .952 / .970, means of five seeds."""
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    bunch = load_digits()
    z, x = torch.from_numpy(bunch.target), torch.from_numpy(bunch.data)
    areas, scores = [], []
    for seed in range(seeds):
        y = flip(z, rate, 10, seed)
        audit, wrong = unswayed.audit(y, features=x), y != z
        areas.append(roc_auc_score(wrong, audit.suspicion))
        issues = audit.suspicion > 0.5
        scores.append(2 * int((issues & wrong).sum()) / (int(issues.sum()) + int(wrong.sum())))
        assert audit.noise.rate.low <= rate <= audit.noise.rate.high
        found = reliability(audit.suspicion, wrong)
        print(f"\nDigits, {rate:.0%} wrong, seed {seed}:\n{found.lines()}")
        assert found.error < 0.02
    bar = {0.2: (0.9987, 0.952), 0.4: (0.9974, 0.970)}[rate]
    assert sum(areas) / seeds > bar[0]
    assert sum(scores) / seeds > bar[1]


@pytest.mark.slow
@pytest.mark.parametrize("label", ["aggregate", "random1", "worst"])
def test_human_labels_of_pictures(real_data: Path, label: str) -> None:
    """CIFAR-10N: the rate's interval holds the truth, and so do most entries of the matrix's."""
    from unswayed import data
    from unswayed.data.patches import patch_features

    whole = data.read(real_data / "cifar10n", label=label, truth="label", test=False).train
    part = whole.take(torch.arange(3000))
    features, _ = patch_features(part.x, centroids=100)
    assert part.truth is not None
    audit, wrong = unswayed.audit(part.given, features=features, classes=list("0123456789")), part.given != part.truth
    counts = torch.zeros(10, 10).index_put_((part.truth, part.given), torch.ones(3000), accumulate=True)
    true = counts / counts.sum(1, keepdim=True)
    inside = (true >= audit.noise.low) & (true <= audit.noise.high)
    print(f"\nCIFAR-10N {label}: {audit.noise.rate}, matrix inside {inside.float().mean():.2f}")
    print(reliability(audit.suspicion, wrong).lines())
    assert audit.noise.rate.low <= float(wrong.float().mean()) <= audit.noise.rate.high
    assert inside.float().mean() > 0.5
    assert (true - audit.noise.matrix).abs().mean() < 0.06


def _everything(audit: Audit) -> dict[str, Tensor]:
    columns = ("suspicion", "suggested", "probability", "kind", "probs")
    found = {name: getattr(audit, name) for name in columns} | {f"score {name}": v for name, v in audit.scores.items()}
    noise = audit.noise
    return found | {"rate": torch.tensor(noise.rate), "matrix": noise.matrix, "low": noise.low, "high": noise.high}


@pytest.mark.parametrize("evidence", ["probs", "both"])
def test_rows_a_few_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch, evidence: str) -> None:
    from unswayed.auditing import clusters, ensemble, entry

    x, z = clouds(500, apart=2.0)
    y = flip(z, 0.2, 3)
    y[::50] = -1
    given = {"probs": (2 * x[:, :3]).softmax(1).half().numpy()} | ({"features": x} if evidence == "both" else {})
    whole = _everything(unswayed.audit(y, **given))
    for room in (clusters, ensemble, entry):
        monkeypatch.setattr(room, "ENTRIES", 70)
    pieces = _everything(unswayed.audit(y, **given))
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_drawn_rows_tell_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import roc_auc_score

    from unswayed.auditing import ensemble

    x, z = clouds(6000, apart=2.5)
    y, probs = flip(z, 0.2, 3), (2 * x[:, :3]).softmax(1)
    whole = unswayed.audit(y, probs=probs)
    monkeypatch.setattr(ensemble, "DRAWN", 1500)
    monkeypatch.setattr(ensemble, "MOST", 1000)
    drawn = unswayed.audit(y, probs=probs)
    assert not torch.equal(drawn.suspicion, whole.suspicion)
    areas = [roc_auc_score(y != z, audit.suspicion) for audit in (whole, drawn)]
    print(f"\nAUROC from all 6,000 rows {areas[0]:.4f}, from 1,500 drawn ones {areas[1]:.4f}")
    assert abs(areas[0] - areas[1]) < 0.005
    assert drawn.noise.rate.value == pytest.approx(whole.noise.rate.value, abs=0.03)


def test_probabilities_are_kept_while_they_are_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from unswayed.auditing import run

    x, z = clouds(120)
    probs = (2 * x[:, :3]).softmax(1)
    monkeypatch.setattr(run, "WHOLE", 100)
    halved = unswayed.audit(z, probs=probs)
    assert halved.probs is not None
    assert halved.probs.dtype == torch.float16
    assert halved.about["probs"] == "kept in half precision"
    again = Audit.load(halved.save(tmp_path)).probs
    assert again is not None
    assert torch.equal(again, halved.probs)
    monkeypatch.setattr(run, "HALVED", 359)
    left = unswayed.audit(z, probs=probs)
    assert left.probs is None
    assert left.about["probs"] == "left out: 360 numbers, more than 359"
    assert Audit.load(left.save(tmp_path)).probs is None
    assert torch.equal(left.suspicion, halved.suspicion)


MAPPED = """
import sys
import numpy as np, torch
import unswayed

def largest():  # of this program; ru_maxrss would begin with that of the process that started it
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
labels, probs = np.load(sys.argv[1]), np.load(sys.argv[2], mmap_mode="r")
unswayed.audit(labels[:3000], probs=probs[:3000])  # what is imported and made once
for start in range(0, len(probs), 4096):  # pages of the file count as resident once they were looked at
    probs[start : start + 4096].max()
before = largest()
found = unswayed.audit(labels, probs=probs)
assert len(found) == len(labels) and found.probs is None
print(largest() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the resident memory so")
def test_a_memory_map_is_audited_in_bounded_memory(tmp_path: Path) -> None:
    """400,000 x 200: each copy in single precision would be 305 MiB, and a double one 610.

    What is held at once is asked for, not what the allocator keeps of freed heaps: small blocks are mapped as well.
    """
    rows, classes = 400_000, 200
    generator = torch.Generator().manual_seed(0)
    probs = np.lib.format.open_memmap(tmp_path / "probs.npy", "w+", np.float16, (rows, classes))
    z = torch.randint(classes, (rows,), generator=generator)
    for at in torch.split(torch.arange(rows), 20_000):
        part = torch.randn(len(at), classes, generator=generator)
        part[torch.arange(len(at)), z[at]] += 6
        probs[at.numpy()] = part.softmax(1).half().numpy()
    probs.flush()
    np.save(tmp_path / "labels.npy", flip(z, 0.2, classes).numpy())
    command = [sys.executable, "-c", MAPPED, str(tmp_path / "labels.npy"), str(tmp_path / "probs.npy")]
    mapped = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # else freed memory counts as held
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=mapped)
    grown = float(done.stdout)
    print(f"\nA map of {2 * rows * classes / 2**20:.0f} MiB: resident memory grew by {grown:.0f} MiB")
    assert 0 < grown < 500  # of which the fits on 20,000 drawn rows take most


def test_an_audit_without_decisions_stays(planted: tuple[Audit, Tensor, Tensor, Tensor]) -> None:
    audit = planted[0]
    assert recalibrate(replace(audit), {}).suspicion is audit.suspicion


def test_the_page_shows_what_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace('audit.save("audit")', "")
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(code, "docs/audit.md", "exec"), names)
    audit = names["audit"]
    assert isinstance(audit, Audit)
    assert set(audit.issues().tolist()) <= set(range(9))
    assert error_budget(audit).sentence() in code
