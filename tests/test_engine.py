"""The loop: plans, checkpoints, clean stops, and a process that is really killed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unswayed import UnswayedError, checkpoint, engine, writing
from unswayed.checks.methods import ToyNet, bits, make, same, toy, train
from unswayed.data.columns import ArrayColumn, EncodedColumn, TensorColumn
from unswayed.engine import Record, fit, predict
from unswayed.machine import find_place
from unswayed.method import Batch, Data, Info, Method, Stage
from unswayed.methods.plain import Plain
from unswayed.stats.rows import register_rows, row_buffers

# ------------------------------------------------------------------------------------------------ plans


class Staged(Method):
    """Records what the loop asks of it. No paper."""

    def __init__(self, make_net: Any, info: Info) -> None:
        super().__init__(make_net, info)
        self.peer = make_net()
        self.register_buffer("asked", torch.zeros(4))

    def plan(self, epochs: int) -> list[Stage]:
        return [
            Stage("both", 1, self.both),
            Stage("skipped", 1, self.both, self._skip),
            Stage("only net", 1, self.alone, self._half, train=self.net, lr=0.01),
            Stage("count", 0, self.both, self._count),
        ]

    def both(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch.x) + self.peer(batch.x), batch.y)

    def alone(self, batch: Batch) -> Tensor:
        assert self.net.training
        assert not self.peer.training
        return self.both(batch)

    def _skip(self, data: Data) -> None:
        self.asked[1] += 1

    def _half(self, data: Data) -> Data:
        self.asked[2] += 1
        return data.rows(data.index % 2 == 0)

    def _count(self, data: Data) -> Data:
        self.asked[3] += 1
        return data


def test_stages_choose_rows_learners_and_optimisers() -> None:
    data, *_ = toy(100)
    method = make(Staged, 100)
    peers: list[Tensor] = []
    outcome = fit(
        method, data, epochs=3, batch=10, lr=0.1,
        watch=[lambda record: peers.append(method.peer.body[0].weight.detach().clone())],
    )  # fmt: skip
    assert [record.stage for record in outcome.records] == ["both", "only net"]
    assert torch.equal(peers[0], peers[1]), "a network that was not to learn did"
    assert method.asked.tolist() == [0, 1, 1, 1]
    assert outcome.steps == 10 + 5
    assert outcome.samples == 100 + 50
    assert all(p.requires_grad for p in method.parameters())


class Trials(Method):
    """A plan with every kind of stage; what a stage does depends on the method as it was when it began. No paper."""

    def __init__(self, make_net: Any, info: Info) -> None:
        super().__init__(make_net, info)
        register_rows(self, "hard", torch.zeros(info.samples, dtype=torch.int32))

    def plan(self, epochs: int) -> list[Stage]:
        return [
            Stage("first", 1, self.loss, self._easy),
            Stage("look", 0, self.loss, self._count),
            Stage("second", 2, self.loss, self._easy, lr=0.05),
            Stage("never", 2, self.loss, self._skip),
            Stage("third", 1, self.loss, views=("weak", "stored")),
            Stage("last look", 0, self.loss, self._count, fresh=True),
        ]

    def loss(self, batch: Batch) -> Tensor:
        logits = self.net(batch.x + 0.1 * torch.randn_like(batch.x))
        self.observe(logits, batch)
        return nn.functional.cross_entropy(logits, batch.y)

    def _easy(self, data: Data) -> Data:
        wrong = predict(self.net, data.x).argmax(1) != data.y
        self.hard[data.index[wrong]] += 1
        return data.rows(torch.rand(len(data)) < torch.where(wrong, 0.7, 0.9))

    def _count(self, data: Data) -> None:
        self.hard[data.index] += torch.randint(2, (len(data),), dtype=torch.int32)

    def _skip(self, data: Data) -> None:
        self.hard += 1


def test_resumed_from_any_checkpoint_ever_written_it_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, *_ = toy(100)
    whole = make(Trials, 100)
    records = train(whole, data, epochs=4).records
    assert [record.stage for record in records] == ["first", "second", "second", "third"]
    written: list[bytes] = []

    def write_and_keep(path: Path, *rest: Any) -> None:
        checkpoint.write_state(path, *rest)
        written.append(path.read_bytes())

    file = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(engine, "write_state", write_and_keep)
    train(make(Trials, 100), data, epochs=4, checkpoint=file, save_seconds=0.0)
    monkeypatch.undo()
    assert len(written) >= 12
    for state in written:
        file.write_bytes(state)
        resumed = make(Trials, 100)
        again = train(resumed, data, epochs=4, checkpoint=file, resume=True)
        assert same(bits(whole), bits(resumed)), checkpoint.read_state(file)[1]["position"]
        assert [r.loss for r in again.records] == [r.loss for r in records]


def test_settings_that_json_writes_otherwise_are_the_same_on_resuming(tmp_path: Path) -> None:
    data, *_ = toy(60)
    file = tmp_path / "checkpoint.safetensors"
    for resume in (False, True):
        train(make(Plain, 60), data, epochs=2, checkpoint=file, about={"input": ("a", "b")}, resume=resume)


def test_training_lets_the_global_random_state_be() -> None:
    data, *_ = toy(40)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    method = make(Plain, 40)
    torch.set_rng_state(before)
    train(method, data, epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_not_finite_loss_names_stage_epoch_and_batch() -> None:
    class Breaks(Plain):
        def loss(self, batch: Batch) -> Tensor:
            loss = super().loss(batch)
            return loss * float("nan") if batch.epoch == 1 and 5 in batch.index else loss

    data, *_ = toy(64)
    with pytest.raises(UnswayedError, match=r"stage 'train', epoch 2, batch [12345678], but got nan"):
        fit(make(Breaks, 64), data, epochs=3, batch=8)


def test_no_checkpoint_holds_what_came_of_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    class Breaks(Plain):
        def loss(self, batch: Batch) -> Tensor:
            return super().loss(batch) * (float("nan") if 5 in batch.index else 1.0)

    data, *_ = toy(64)
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(UnswayedError, match="a finite loss"):
        fit(make(Breaks, 64), data, epochs=1, batch=8, checkpoint=file, save_seconds=0.0)
    if file.exists():
        tensors, _ = checkpoint.read_state(file)
        assert all(bool(value.isfinite().all()) for value in tensors.values())


def test_clipping_is_apart_for_every_network() -> None:
    class Uneven(Method):
        def __init__(self, make_net: Any, info: Info) -> None:
            super().__init__(make_net, info)
            self.peer = make_net()

        def loss(self, batch: Batch) -> Tensor:
            own = nn.functional.cross_entropy(self.net(batch.x), batch.y)
            return own + 1e4 * nn.functional.cross_entropy(self.peer(batch.x), batch.y)

    class Alone(Method):
        def loss(self, batch: Batch) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch.x), batch.y)

    data, *_ = toy(64)
    both, one = make(Uneven, 64), make(Alone, 64)
    both.net.load_state_dict(one.net.state_dict())
    for method in (both, one):
        fit(method, data, epochs=1, batch=64, clip=1.0, weight_decay=0.0)
    assert torch.equal(both.net.body[0].weight, one.net.body[0].weight)


def test_prediction_in_parts_is_prediction_and_changes_nothing() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    net[1].eval()
    x = torch.randn(23, 3)
    before, modes = bits(net), [m.training for m in net.modules()]  # type: ignore[arg-type]
    found = predict(net, x, size=5)
    assert same(before, bits(net))  # type: ignore[arg-type]
    assert [m.training for m in net.modules()] == modes
    net.eval()
    torch.testing.assert_close(found, net(x).detach())


# ------------------------------------------------------------------------------------------------ data


def test_rows_and_selections_agree_in_memory_and_on_disk(tmp_path: Path) -> None:
    values = torch.arange(60, dtype=torch.uint8).reshape(20, 3)
    import numpy as np

    np.save(tmp_path / "x.npy", values.numpy())
    mapped = ArrayColumn(np.load(tmp_path / "x.npy", mmap_mode="r"))
    at = torch.tensor([5, 0, 19, 5])
    for column in (TensorColumn(values), mapped):
        assert torch.equal(column.rows(at), values[at])
        assert torch.equal(column.take(at).take(torch.tensor([2, 3])).rows(torch.tensor([1, 0])), values[at][[3, 2]])
        assert column.shape == (3,)


def test_training_from_disk_gives_the_bits_of_training_in_memory(tmp_path: Path) -> None:
    import numpy as np

    data, *_ = toy(100)
    np.save(tmp_path / "x.npy", data.x.rows(data.index).numpy())
    on_disk = Data.of(ArrayColumn(np.load(tmp_path / "x.npy", mmap_mode="r")), data.y)
    first, second = make(Plain, 100), make(Plain, 100)
    train(first, data, epochs=2)
    train(second, on_disk, epochs=2)
    assert same(bits(first), bits(second))


def decode(item: object) -> Tensor:
    return torch.frombuffer(bytearray(item), dtype=torch.float32)  # type: ignore[call-overload]


def test_training_from_rows_decoded_by_threads_gives_the_same_bits() -> None:
    data, *_ = toy(100)
    encoded = EncodedColumn([row.numpy().tobytes() for row in data.x.rows(data.index)], decode, workers=2)
    travelled: EncodedColumn = pickle.loads(pickle.dumps(encoded))  # as to a worker process
    first, second = make(Plain, 100), make(Plain, 100)
    train(first, data, epochs=2)
    train(second, Data.of(travelled, data.y), epochs=2)
    assert same(bits(first), bits(second))
    with pytest.raises(UnswayedError, match="at least one encoded row"):
        EncodedColumn([], decode)


def test_labels_must_match_rows() -> None:
    with pytest.raises(UnswayedError, match="one label a row, 3 in all, but got 2"):
        Data.of(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))


def test_row_buffers_are_known_by_name() -> None:
    outer, inner = nn.Module(), nn.Module()
    register_rows(inner, "wrong", torch.zeros(3))
    outer.register_module("inner", inner)
    outer.register_buffer("other", torch.zeros(2))
    assert list(row_buffers(outer)) == ["inner.wrong"]
    with pytest.raises(UnswayedError, match="rows of numbers for clean"):
        register_rows(inner, "clean", torch.zeros(3, dtype=torch.bool))


# ------------------------------------------------------------------------------------------------ checkpoints


def test_a_checkpoint_from_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    data, *_ = toy(60)
    file = tmp_path / "checkpoint.safetensors"
    whole, again = make(Plain, 60), make(Plain, 60)
    train(whole, data, epochs=2, checkpoint=file)
    tensors, about = checkpoint.read_state(file)
    del about["settings"]["shuffle"]
    checkpoint.write_state(file, tensors, about)
    train(again, data, epochs=2, checkpoint=file, resume=True)
    assert same(bits(whole), bits(again))
    with pytest.raises(UnswayedError, match="shuffle: rows there, blocks now"):
        train(make(Plain, 60), data, epochs=2, checkpoint=file, resume=True, shuffle="blocks")


def test_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    data, *_ = toy(60)
    file = tmp_path / "checkpoint.safetensors"
    train(make(Plain, 60), data, epochs=2, checkpoint=file, about={"data": "a"})
    with pytest.raises(UnswayedError, match="data: a there, b now"):
        train(make(Plain, 60), data, epochs=2, checkpoint=file, about={"data": "b"}, resume=True)
    with pytest.raises(UnswayedError, match="weight_decay"):
        train(make(Plain, 60), data, epochs=2, checkpoint=file, about={"data": "a"}, resume=True, weight_decay=0.5)


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    data, *_ = toy(60)
    file = tmp_path / "checkpoint.safetensors"
    first, again = make(Plain, 60), make(Plain, 60)
    whole = train(first, data, epochs=2, checkpoint=file)
    resumed = train(again, data, epochs=2, checkpoint=file, resume=True)
    assert same(bits(first), bits(again))
    assert [r.loss for r in resumed.records] == [r.loss for r in whole.records]
    assert resumed.steps == whole.steps


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_checkpoint_says_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(content)
    with pytest.raises(UnswayedError, match="checkpoint"):
        checkpoint.read_state(file)


@pytest.mark.skipif(os.name != "posix", reason="permissions of another kind")
def test_results_are_as_readable_as_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    writing.write_text(tmp_path / "result", "x")
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    writing.write_json(file, {"good": 1})

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UnswayedError, match="a full disk"):
        writing.write_json(file, {"good": 2})
    assert json.loads(file.read_text()) == {"good": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["x.json"], "half a file was left"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    data, *_ = toy(60)
    file = tmp_path / "checkpoint.safetensors"
    train(make(Plain, 60), data, epochs=1, checkpoint=file)
    for name in (".checkpoint.safetensors.x1y2.part", ".other.x1y2.part"):
        (tmp_path / name).write_bytes(b"half")
    train(make(Plain, 60), data, epochs=1, checkpoint=file, resume=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == [".other.x1y2.part", "checkpoint.safetensors"]


def test_unwritable_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnswayedError, match="choose another --out"):
        writing.write_text(tmp_path / "file" / "x.txt", "x")


def test_ctrl_c_saves_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data, *_ = toy(240)
    file = tmp_path / "checkpoint.safetensors"
    whole, stopped, resumed = (make(Plain, 240) for _ in range(3))
    train(whole, data, epochs=4)

    def press(record: Record) -> None:
        if record.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # the program that started this one asks too

    with pytest.raises(KeyboardInterrupt):
        train(stopped, data, epochs=4, checkpoint=file, watch=[press])
    assert not same(bits(whole), bits(stopped))
    train(resumed, data, epochs=4, checkpoint=file, resume=True)
    assert same(bits(whole), bits(resumed))


KILLED = """
import sys, torch
from pathlib import Path
from unswayed import methods
from unswayed.checks.methods import make, toy, train
torch.set_num_threads(1)
data, *_ = toy(480)
method = make(methods.get(sys.argv[2]))
print("ready", flush=True)
train(method, data, epochs=int(sys.argv[3]), checkpoint=Path(sys.argv[1]), save_seconds=0.0, resume=True,
      watch=[lambda record: print(record.epoch, flush=True)])
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs"), [("plain", 60), ("tuned", 12)])
def test_killed_at_random_moments_it_resumes_to_the_same_bits(tmp_path: Path, name: str, epochs: int) -> None:
    from unswayed import methods

    data, *_ = toy(480)
    whole = make(methods.get(name))
    train(whole, data, epochs=epochs)
    file = tmp_path / "checkpoint.safetensors"
    kills, luck = 0, random.Random(0)
    for _ in range(40):
        command = [sys.executable, "-c", KILLED, str(file), name, str(epochs)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if kills < 5:
            time.sleep(luck.uniform(0.02, 0.4))
            child.send_signal(signal.SIGKILL)
        output, _ = child.communicate(timeout=120)
        if "done" in output:
            break
        kills += 1
    assert kills >= 3, "the process was not killed often enough to mean anything"
    tensors, about = checkpoint.read_state(file)
    stored = {n.removeprefix("method/"): v for n, v in tensors.items() if n.startswith("method/")}
    assert same(bits(whole), stored)
    assert len(about["records"]) == len({r["epoch"] for r in about["records"]})


# ------------------------------------------------------------------------------------------------ place


def test_unknown_devices_and_precisions_say_so() -> None:
    with pytest.raises(UnswayedError, match="a device that PyTorch can use here"):
        find_place("warp:9")
    with pytest.raises(UnswayedError, match="fp32, bf16 or fp16"):
        find_place("cpu", "fp8")
    with pytest.raises(UnswayedError, match="fp16 needs an accelerator"):
        find_place("cpu", "fp16")


def test_toy_net_takes_any_head() -> None:
    assert ToyNet(4, "kan")(torch.zeros(2, 6)).shape == (2, 4)
    assert ToyNet(4, "edge-masked")(torch.zeros(2, 6)).isfinite().all()
