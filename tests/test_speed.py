"""What makes training fast changes neither results beyond rounding nor checkpoints."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unswayed import Config, UnswayedError, checkpoint, data, machine, nets, speed
from unswayed.checks.methods import bits, make, same, toy
from unswayed.data import files
from unswayed.engine import Settings, fit
from unswayed.experiment.workers import Tell, work_side_by_side
from unswayed.machine import Place, find_place
from unswayed.method import Data, Info, Method
from unswayed.methods.co_teaching import CoTeaching
from unswayed.methods.plain import Plain
from unswayed.settings import FusedSGD, make_optimizer

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


# ------------------------------------------------------------------------------------------------ compile


def two_networks(rows: int) -> Method:
    def make_net() -> nets.Net:
        return nets.Net(nets.create_body("mlp", kind="table", shape=(6,), widths=8), nn.Linear(8, 3))

    return CoTeaching(make_net, Info(rows, 3))


@needs_compiler
@pytest.mark.slow
def test_a_compiled_run_ends_where_the_other_does_and_resumes(tmp_path: Path) -> None:
    """Stages that change, two networks, batches of two sizes, a checkpoint in the midst."""
    toy_rows, *_ = toy(50)
    rows = toy_rows.replace(x=torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    kept: dict[str, Any] = {"epochs": 3, "batch": 12, "lr": 0.05}
    torch.manual_seed(0)
    plain = two_networks(50)
    start = {name: value.clone() for name, value in plain.state_dict().items()}
    fit(plain, rows, **kept)

    compiled, resumed = two_networks(50), two_networks(50)
    place, file = find_place("cpu", compile="default"), tmp_path / "checkpoint.safetensors"
    compiled.load_state_dict(start)
    resumed.load_state_dict(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        fit(compiled, rows, place=place, checkpoint=file, **kept)

        def stop(record: Any) -> None:
            if record.epoch == 1:
                raise KeyboardInterrupt

        half = tmp_path / "half.safetensors"
        with pytest.raises(KeyboardInterrupt):
            fit(resumed, rows, place=place, checkpoint=half, save_seconds=0, watch=[stop], **kept)
        fit(resumed, rows, place=place, checkpoint=half, resume=True, save_seconds=0, **kept)
    assert same(bits(compiled), bits(resumed))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    tensors, _ = checkpoint.read_state(file)
    assert not any("_orig_mod" in name for name in tensors)
    assert all(module._compiled_call_impl is None for module in compiled.modules()), "it stays compiled after training"


def test_bodies_are_compiled_and_else_what_learns() -> None:
    two = two_networks(10)
    assert speed.networks(two) == [two.get_submodule("net.body"), two.get_submodule("peer.body")]
    foreign = Plain(lambda: nn.Linear(2, 3), Info(10, 3))
    assert speed.networks(foreign) == [foreign.net]


def test_without_a_compiler_training_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    speed.can_compile.cache_clear()
    monkeypatch.setattr(torch, "compile", missing)
    rows, *_ = toy(20)
    first, second = make(Plain, 20), make(Plain, 20)
    fit(first, rows, epochs=1)
    with pytest.warns(UserWarning, match="not compiled: .*No working C\\+\\+ compiler"):
        fit(second, rows, epochs=1, place=find_place("cpu", compile="default"))
    assert same(bits(first), bits(second))
    speed.can_compile.cache_clear()


def test_modes_that_do_not_exist_and_shards_say_so() -> None:
    with pytest.raises(UnswayedError, match="reduce-overhead, max-autotune, but got 'fast'"):
        find_place("cpu", compile="fast")
    with pytest.raises(UnswayedError, match="either sharded or compiled"):
        find_place("cpu", shard=True, compile="default")


def test_compile_is_told_only_where_it_is_asked_for() -> None:
    assert "compile" not in Config("digits").as_json()
    assert Config("digits", compile="default").as_json()["compile"] == "default"


# ------------------------------------------------------------------------------------------------ layout


@pytest.mark.parametrize(("precision", "last"), [("fp32", False), ("bf16", True)])
def test_weights_lie_channels_last_in_half_precision(precision: str, last: bool) -> None:
    def make_net() -> nets.Net:
        body = nets.create_body("cnn-small", kind="image", shape=(3, 8, 8), widths=4, features=8)
        return nets.Net(body, nn.Linear(8, 3))

    method = Plain(make_net, Info(20, 3))
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    fit(method, Data.of(x, torch.arange(20) % 3), epochs=1, batch=10, place=find_place("cpu", precision))
    weight = method.get_parameter("net.body.layers.pyramid.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == last
    assert weight.is_contiguous() != last


def test_the_optimisers_memory_comes_back_in_the_order_of_the_weights() -> None:
    """A fused optimiser walks through weights and momentum side by side."""
    net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first = make_optimizer(net, Settings())
    net(torch.randn(2, 3, 5, 5)).sum().backward()
    first.step()
    tensors, about = checkpoint.pack_optimizer(first)
    stored = {name: value.contiguous() for name, value in tensors.items()}  # as in a file
    second = make_optimizer(net, Settings())
    checkpoint.unpack_optimizer(second, stored, about)
    momentum = second.state[net.weight]["momentum_buffer"]
    assert momentum.stride() == net.weight.stride()
    assert torch.equal(momentum, first.state[net.weight]["momentum_buffer"])
    assert second.param_groups[0]["fused"] is None


def test_fused_steps_take_weights_that_begin_to_learn_later() -> None:
    def learn(kind: type[torch.optim.SGD], **how: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
        optimizer = kind([p for net in nets for p in net.parameters()], lr=0.1, momentum=0.9, weight_decay=0.01, **how)
        for learners in (nets[:1], nets, nets[1:], nets):
            optimizer.zero_grad()
            for net in learners:
                net(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        return [p.detach() for net in nets for p in net.parameters()]

    for one, other in zip(learn(torch.optim.SGD), learn(FusedSGD, fused=True), strict=True):
        torch.testing.assert_close(one, other)


# ------------------------------------------------------------------------------------------------ several GPUs


def test_workers_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("UNSWAYED_WORKER", "0")
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda size, device: asked.append(str(device)))
    for number in range(3):
        machine.be_worker(number)
        find_place("cuda")
    find_place("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    machine.be_worker(0)
    find_place("cuda")
    assert asked == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:1"]


def tell_number(task: int, tell: Tell) -> None:
    import os
    import time

    time.sleep(0.2 if task < 2 else 0)  # so that both workers get a task
    tell((task, int(os.environ["UNSWAYED_WORKER"])))


@pytest.mark.slow
def test_workers_are_numbered() -> None:
    heard: list[tuple[int, int]] = []
    work_side_by_side(tell_number, [0, 1, 2], 2, heard.append)
    assert {task for task, _ in heard} == {0, 1, 2}
    assert {number for task, number in heard if task < 2} == {0, 1}


def test_a_place_seeds_the_processor() -> None:
    Place(torch.device("cpu")).seed(7)
    first = torch.rand(3)
    Place(torch.device("cpu")).seed(7)
    assert torch.equal(first, torch.rand(3))


# ------------------------------------------------------------------------------------------------ a bare machine


def test_parquet_is_read_without_the_library_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU often has PyTorch, pyarrow and little else."""
    datasets = pytest.importorskip("datasets")
    pictures = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8).numpy()
    rows = {"image": list(pictures), "label": [0, 1, 2, 0, 1, 2], "worst": [0, 0, 2, 0, 1, 1]}
    classes = datasets.ClassLabel(names=["cat", "dog", "cow"])
    features = datasets.Features({"image": datasets.Image(), "label": classes, "worst": classes})
    (tmp_path / "set").mkdir()
    for name in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "set" / f"{name}.parquet"))
    how: dict[str, Any] = {"label": "worst", "truth": "label"}
    with_library = data.read(tmp_path / "set", cache=tmp_path / "one", **how)
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "datasets" else object())
    monkeypatch.setattr(files, "_library", None)
    without = data.read(tmp_path / "set", cache=tmp_path / "two", **how)
    at = torch.arange(6)
    for one, other in ((with_library.train, without.train), (with_library.test, without.test)):
        assert one is not None
        assert other is not None
        assert torch.equal(one.x.rows(at), other.x.rows(at))
        assert torch.equal(one.given, other.given)
    assert with_library.classes == without.classes == ("cat", "dog", "cow")
    assert without.train.truth is not None
    assert without.train.truth.tolist() == rows["label"]
