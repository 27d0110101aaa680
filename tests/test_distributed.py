"""Two and three processes gather the per-sample state of one, and every method works in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unswayed import checkpoint, methods
from unswayed.checks.methods import make, toy, train
from unswayed.engine import predict
from unswayed.methods.plain import Plain

SCRIPT = """
import sys, torch
from pathlib import Path
from unswayed.checks.methods import make, toy, train
from unswayed.machine import find_place
from unswayed.methods.plain import Plain
torch.set_num_threads(1)
data, *_ = toy(250)
method = make(Plain, 250, head=sys.argv[2])
train(method, data, epochs=4, place=find_place("cpu"), checkpoint=Path(sys.argv[1]))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


EVERY_METHOD = """
import json, sys, torch
import torch.distributed as dist
from pathlib import Path
from unswayed import UnswayedError, methods
from unswayed.checks.methods import bits, make, same, toy, train
from unswayed.engine import predict
from unswayed.machine import find_place

torch.set_num_threads(1)
place, folder = find_place("cpu"), Path(sys.argv[1])
data, truth, _ = toy(163)  # no batch divides evenly

class Stop(Exception):
    pass

def stop(method, record):
    if record.epoch >= record.epochs // 2:
        raise Stop
    return {}

def everywhere(here):
    return not place.any(not here)

def equal_in_all(value):
    first = value.clone()
    dist.broadcast(first, 0)
    return everywhere(torch.equal(first, value))

class Spoil:
    calls = 0

    def draw(self, n, generator):
        return {}

    def apply(self, x, params):
        self.calls += 1
        return x.clone().fill_(torch.nan) if self.calls == 4 and not place.first else x

def raises(name):
    try:
        train(make(methods.get(name), 163), data, epochs=2, augment={"weak": Spoil()}, place=place)
    except UnswayedError:
        return True
    return False

found = {}
for name in sys.argv[2:]:
    kind, file = methods.get(name), folder / f"{name}.safetensors"
    whole = make(kind, 163)
    outcome = train(whole, data, epochs=6, place=place)
    try:
        train(make(kind, 163), data, epochs=6, place=place, checkpoint=file, save_seconds=0.0, evaluate=stop)
    except Stop:
        pass
    again = make(kind, 163)
    train(again, data, epochs=6, place=place, checkpoint=file, save_seconds=0.0, resume=True)
    suspicion = whole.suspicion()
    found[name] = {
        "differ": [name for name, value in bits(whole).items() if not equal_in_all(value)],
        "resumed": everywhere(same(bits(whole), bits(again))),
        "finite": everywhere(all(r.loss == r.loss for r in outcome.records)),
        "suspicion": suspicion is None or everywhere(bool(suspicion.isfinite().all()) and len(suspicion) == 163),
        "seen": whole.dynamics.seen.tolist(),
        "accuracy": float((predict(whole, data.x).argmax(1) == truth).float().mean()),
    }
found["raises"] = {name: everywhere(raises(name)) for name in ("plain", "co-teaching")}
if place.first:
    (folder / "found.json").write_text(json.dumps(found))
dist.destroy_process_group()
"""


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node")
# With --cpu, Accelerate starts one process whatever is asked for.
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_machines=1", "--mixed_precision=no",
              "--dynamo_backend=no", "--num_processes")  # fmt: skip


def launch(
    world: int, *words: str, by: tuple[str, ...] = TORCHRUN, seconds: int = 240
) -> subprocess.CompletedProcess[str]:
    """Start a script or a module in `world` processes."""
    command = [sys.executable, "-m", *by, str(world), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=seconds)
    assert done.returncode == 0, done.stderr[-8000:]
    return done


@pytest.mark.slow
def test_only_the_first_process_of_the_command_line_speaks_and_writes(tmp_path: Path) -> None:
    words = [
        "-m",
        "unswayed",
        "train",
        "wine",
        "-a",
        "plain",
        "--epochs",
        "3",
        "--save-seconds",
        "0",
        "--device",
        "cpu",
    ]
    done = launch(2, *words, "--out", str(tmp_path))
    assert done.stdout.count("Report:") == 1
    assert done.stderr.count("rows to train") == 1
    folder = tmp_path / "plain" / "seed-0"
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]
    assert json.loads((folder / "result.json").read_text())["cost"]["samples"] == 3 * 142
    before = checkpoint.read_state(folder / "checkpoint.safetensors")[0]
    again = launch(2, *words, "--out", str(tmp_path), "--fresh", "--json", "--shard", by=ACCELERATE)
    assert json.loads(again.stdout)[0]["runs"][0]["seed"] == 0
    sharded = checkpoint.read_state(folder / "checkpoint.safetensors")[0]
    assert before.keys() == sharded.keys(), "checkpoints are whole, and have the names of any other"
    for name, value in before.items():
        torch.testing.assert_close(sharded[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "head"), [(2, "linear"), (3, "linear"), (2, "edge-masked")])
def test_processes_agree_with_one(tmp_path: Path, world: int, head: str) -> None:
    script, file = tmp_path / "run.py", tmp_path / "checkpoint.safetensors"
    script.write_text(SCRIPT)
    launch(world, str(script), str(file), head)
    data, *_ = toy(250)
    alone = make(Plain, 250, head=head)
    train(alone, data, epochs=4)
    tensors, about = checkpoint.read_state(file)
    assert torch.equal(tensors["method/dynamics.seen"], alone.dynamics.seen)
    assert torch.equal(tensors["method/dynamics.wrong"], alone.dynamics.wrong)
    torch.testing.assert_close(tensors["method/dynamics.confidence"], alone.dynamics.confidence, rtol=1e-4, atol=1e-4)
    for name, value in alone.net.state_dict().items():
        torch.testing.assert_close(tensors[f"method/net.{name}"], value, rtol=1e-3, atol=1e-4)
    assert about["position"]["samples"] == 4 * 250


@pytest.fixture(scope="module")
def in_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the methods to be tested did in two processes: one launch for all of them."""
    tested = [item.name for item in request.session.items if "in_two" in getattr(item, "fixturenames", ())]
    names = [name for name in methods.names() if any(test.endswith(f"[{name}]") for test in tested)]
    folder = tmp_path_factory.mktemp("two")
    script = folder / "run.py"
    script.write_text(EVERY_METHOD)
    launch(2, str(script), str(folder), *names, seconds=900)
    found: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_every_method_works_in_two_processes(name: str, in_two: dict[str, dict[str, Any]]) -> None:
    two, (data, truth, _) = in_two[name], toy(163)
    assert two["differ"] == [], "the processes end with different parameters or rows"
    assert two["resumed"], "a resumed run ends elsewhere"
    assert two["finite"]
    assert two["suspicion"]
    alone = make(methods.get(name), 163)
    train(alone, data, epochs=6)
    seen = torch.tensor(two["seen"])
    assert int(seen.min()) >= 1, "a row was left out"
    # What is selected may differ, because random numbers are drawn in each process.
    assert int(seen.sum()) == pytest.approx(int(alone.dynamics.seen.sum()), rel=0.1)
    accuracy = float((predict(alone, data.x).argmax(1) == truth).float().mean())
    assert two["accuracy"] >= accuracy - 0.1  # most are within .03; Co-teaching+ is as far apart from seed to seed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "co-teaching"])
def test_a_loss_that_is_not_finite_in_one_process_ends_both(name: str, in_two: dict[str, dict[str, Any]]) -> None:
    assert in_two["raises"][name]
