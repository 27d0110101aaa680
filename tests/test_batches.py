"""Batches, the schedule of the learning rate, and optimisers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unswayed import UnswayedError, batches, checkpoint
from unswayed.batches import check_parts, count_steps, epoch_batches, look_ahead, seed_of, steps_together
from unswayed.checks.methods import make, toy
from unswayed.data.augment import augmentation
from unswayed.engine import Settings, fit
from unswayed.machine import Place
from unswayed.method import Batch, Data, Info, Stage
from unswayed.methods.plain import Plain
from unswayed.settings import make_optimizer, parameter_groups, rate_factor

CPU = Place(torch.device("cpu"))


def rows(n: int) -> Data:
    return Data.of(torch.arange(n, dtype=torch.float32)[:, None], torch.zeros(n, dtype=torch.int64))


def one_epoch(parts: tuple[Data, ...], size: int, place: Place = CPU, seed: int = 0) -> list[tuple[Batch, ...]]:
    clock: Callable[[float], float] = lambda part: part  # noqa: E731
    return [group for group, *_ in epoch_batches(parts, size, ("stored",), {}, seed, place, epoch=0, progress=clock)]


# ------------------------------------------------------------------------------------------------ batches


@given(n=st.integers(2, 300), size=st.integers(2, 64))
def test_an_epoch_shows_every_row_once_in_batches_of_nearly_equal_size(n: int, size: int) -> None:
    batches = [group[0] for group in one_epoch((rows(n),), size)]
    seen = torch.cat([batch.index for batch in batches])
    assert seen.sort().values.tolist() == list(range(n))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= max(size, 3)
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    for batch in batches:
        assert torch.equal(batch.x[:, 0].long(), batch.index), "rows and sample numbers went apart"


@given(n=st.integers(8, 200), size=st.integers(16, 64), world=st.integers(1, 4))
def test_processes_share_the_batches_of_one(n: int, size: int, world: int) -> None:
    whole = [group[0].index for group in one_epoch((rows(n),), size)]
    parts = [
        [group[0].index for group in one_epoch((rows(n),), size, Place(torch.device("cpu"), "fp32", rank, world))]
        for rank in range(world)
    ]
    for step, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[step] for part in parts]), expected)
        assert min(len(part[step]) for part in parts) >= 2


def test_the_shorter_part_goes_round_again() -> None:
    groups = one_epoch((rows(100), rows(7)), 10)
    assert len(groups) == 10
    assert torch.cat([group[0].index for group in groups]).unique().numel() == 100
    short = torch.cat([group[1].index for group in groups])
    assert short.bincount().tolist() == [10] * 7


@given(first=st.integers(8, 60), second=st.integers(8, 60), world=st.integers(1, 3))
def test_shares_of_all_processes_make_the_whole(first: int, second: int, world: int) -> None:
    clock: Callable[[float], float] = lambda part: part  # noqa: E731
    for parts in ((rows(first),), (rows(first), rows(second))):
        places = [Place(torch.device("cpu"), "fp32", rank, world) for rank in range(world)]
        runs = [epoch_batches(parts, 8, ("stored",), {}, 0, p, epoch=0, progress=clock) for p in places]
        for steps in zip(*runs, strict=True):
            assert sum(share for _, share, _ in steps) == pytest.approx(world)
            for group, share, whole in steps:
                assert sum(map(len, group)) * world == pytest.approx(share * whole)


def test_epochs_differ_and_seeds_decide() -> None:
    first, again, other = (one_epoch((rows(50),), 10, seed=s)[0][0].index for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_resumed_epoch_shows_the_same_batches() -> None:
    clock: Callable[[float], float] = lambda part: part  # noqa: E731
    whole = one_epoch((rows(50),), 10)
    rest = epoch_batches((rows(50),), 10, ("stored",), {}, 0, CPU, epoch=0, progress=clock, first=3)
    assert [g[0].index.tolist() for g, *_ in rest] == [g[0].index.tolist() for g in whole[3:]]


@pytest.mark.parametrize(("world", "first"), [(1, 0), (1, 3), (3, 0)])
def test_steps_fetched_together_show_what_single_steps_show(
    monkeypatch: pytest.MonkeyPatch, world: int, first: int
) -> None:
    """On a GPU several steps are fetched and augmented in one pass."""
    x = torch.randint(0, 256, (61, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = Data.of(x, torch.arange(61) % 5)
    parts = (data, data.rows(torch.arange(7, 30)))
    views = {name: augmentation("image", (3, 8, 8), name) for name in ("weak", "strong")}  # type: ignore[arg-type]
    clock: Callable[[float], float] = lambda part: part  # noqa: E731

    def epoch(rank: int) -> list[Any]:
        place = Place(torch.device("cpu"), "fp32", rank, world)
        names = ("weak", "strong", "stored", "stored")
        return list(epoch_batches(parts, 9, names, views, 5, place, epoch=2, progress=clock, first=first))

    single = [epoch(rank) for rank in range(world)]
    monkeypatch.setattr(batches, "steps_together", lambda *_: 4)
    for rank, before in enumerate(single):
        after = epoch(rank)
        assert [rest for _, *rest in before] == [rest for _, *rest in after]
        for (one, *_), (many, *_) in zip(before, after, strict=True):
            for a, b in zip(one, many, strict=True):
                assert a.views[2] is a.views[3]
                assert b.views[2] is b.views[3], "a view that is shown twice became two"
                assert (a.epoch, a.progress) == (b.epoch, b.progress)
                for mine, theirs in zip(
                    (*a.views, a.y, a.index, a.weight), (*b.views, b.y, b.index, b.weight), strict=True
                ):
                    assert torch.equal(mine, theirs)


def test_a_processor_fetches_one_step_and_a_gpu_as_many_as_fit() -> None:
    pictures = Data.of(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    gpu = Place(torch.device("cuda"))  # nothing is put there
    assert steps_together((pictures,), 128, CPU) == 1
    assert steps_together((pictures,), 128, gpu) == batches.TOGETHER
    assert steps_together((pictures,), 4096, gpu) == 5
    assert steps_together((pictures,), 10**6, gpu) == 1


def test_look_ahead_keeps_order_and_raises_what_was_raised() -> None:
    assert list(look_ahead(iter(range(1, 20)))) == list(range(1, 20))

    def broken() -> Any:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(look_ahead(broken()))


def test_look_ahead_ends_its_thread_when_nobody_listens_any_more() -> None:
    before = threading.active_count()
    items = look_ahead(iter(range(1, 1000)))
    assert next(items) == 1
    assert threading.active_count() > before
    items.close()
    assert threading.active_count() == before


def test_a_part_too_small_to_train_on_says_so() -> None:
    with pytest.raises(UnswayedError, match="part 2 of stage 'mix'"):
        check_parts((rows(5), rows(1)), "mix", CPU)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=4))
def test_seeds_are_non_negative_and_depend_on_every_number(numbers: list[int]) -> None:
    seed = seed_of(*numbers)
    assert 0 <= seed < 2**63
    assert seed != seed_of(*numbers[:-1], numbers[-1] + 1)


# ------------------------------------------------------------------------------------------------ schedule, optimiser


def stages(*epochs_fresh: tuple[int, bool]) -> list[Stage]:
    return [Stage(str(i), e, lambda b: b, fresh=f) for i, (e, f) in enumerate(epochs_fresh)]


def test_cosine_runs_over_the_stages_that_share_an_optimiser() -> None:
    plan = stages((2, False), (2, False), (4, True))
    factors = [rate_factor(plan, s, e, "cosine") for s, e in ((0, 0), (1, 0), (1, 2), (2, 0), (2, 2), (2, 4))]
    assert factors == pytest.approx([1, 0.5, 0, 1, 0.5, 0], abs=1e-12)
    assert rate_factor(plan, 1, 1.0, "constant") == 1


def test_parameter_settings_make_their_own_group() -> None:
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u = nn.Parameter(torch.zeros(3))
            self.parameter_settings = {"u": {"lr": 10.0, "weight_decay": 0.0}}

    module = nn.ModuleList([nn.Linear(2, 2), Noise()])
    common, own = parameter_groups(module, 0.1, 0.5)
    assert (len(common["params"]), common["lr"], common["weight_decay"]) == (2, 0.1, 0.5)
    assert (own["params"][0] is module[1].u, own["lr"], own["weight_decay"], own["initial_lr"]) == (True, 10, 0, 10)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimiser_state_survives_packing(optimizer: str) -> None:
    settings = Settings(optimizer=optimizer)  # type: ignore[arg-type]
    net, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(net.state_dict())
    first, second = make_optimizer(net, settings), make_optimizer(twin, settings)
    x = torch.randn(4, 3)

    def step(module: nn.Module, opt: torch.optim.Optimizer) -> None:
        opt.zero_grad()
        module(x).square().sum().backward()
        opt.step()

    step(net, first)
    twin.load_state_dict(net.state_dict())
    tensors, about = checkpoint.pack_optimizer(first)
    checkpoint.unpack_optimizer(second, tensors, json.loads(json.dumps(about)))
    step(net, first)
    step(twin, second)
    assert torch.equal(net.weight, twin.weight)


def test_adamw_leaves_a_losses_own_parameters_to_plain_descent() -> None:
    method = Plain(lambda: nn.Linear(2, 3), Info(samples=20, classes=3), loss="sop")
    optimizer = make_optimizer(method, Settings(optimizer="adamw", lr=0.1))
    u, weight = method.criterion.u, method.net.weight  # type: ignore[union-attr]
    before = u.detach().clone(), weight.detach().clone()
    u.grad, weight.grad = torch.full_like(u, 0.5), torch.full_like(weight, 0.5)
    own = next(group for group in optimizer.param_groups if group["params"][0] is u)
    own["lr"] = 0.2  # as a schedule changes it
    optimizer.step()
    torch.testing.assert_close(u.detach(), before[0] - 0.2 * 0.5)
    torch.testing.assert_close(weight.detach(), before[1] * (1 - 0.1 * 5e-4) - 0.1)  # AdamW's first step is the rate


@pytest.mark.parametrize(
    ("change", "message"),
    [({"epochs": 0}, "epochs is 1 or more"), ({"lr": -1.0}, "lr is above 0"), ({"optimizer": "lion"}, "sgd or adamw")],
)
def test_settings_out_of_range_say_so(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnswayedError, match=message):
        Settings(**change)


def test_unknown_setting_of_fit() -> None:
    data, *_ = toy(20)
    with pytest.raises(UnswayedError, match="epoch"):
        fit(make(Plain, 20), data, epoch=3)


def test_steps_are_those_of_the_longest_part() -> None:
    assert count_steps((rows(10), rows(31)), 10) == 4
