"""The only training loop: one function that runs plans."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unswayed.batches import Augment, check_parts, count_steps, epoch_batches, look_ahead, seed_of
from unswayed.checkpoint import pack_optimizer, read_state, unpack_optimizer, write_state
from unswayed.errors import UnswayedError
from unswayed.machine import Place, buffers_of, find_place, merge_buffers
from unswayed.method import Batch, Data, Method, Stage, identity
from unswayed.prediction import accuracy, evaluating, predict
from unswayed.registry import check_settings
from unswayed.settings import Settings, cosine_span, factor_at, make_optimizer
from unswayed.sharding import (
    average_gradients,
    clip_gradients,
    explain_mixing,
    gather,
    load_whole,
    local,
    part_mixed_groups,
    settle,
    shard_networks,
    whole_alone,
)
from unswayed.speed import Fast
from unswayed.writing import remove_unfinished

__all__ = ["Outcome", "Record", "Settings", "accuracy", "evaluating", "fit", "predict"]

CHECK_EVERY = 50  # steps between two looks at the losses: a look makes an accelerator wait


@dataclass(frozen=True)
class Record:
    """One finished epoch, as watchers see it."""

    stage: str
    epoch: int  # of the whole run, from 0
    epochs: int  # of the whole plan
    loss: float
    lr: float
    seconds: float
    train_accuracy: float | None  # predictions in training against the given labels
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a finished run cost and how it went."""

    records: tuple[Record, ...]
    steps: int  # gradient steps
    samples: int  # rows shown, over all processes
    seconds: float  # of training, without evaluation and checkpoints


@dataclass
class Position:
    """Where a run stands: the next step to take, and what is known of its epoch."""

    stage: int = 0
    epoch: int = 0  # of the stage
    step: int = 0
    done: int = 0  # epochs of the whole plan
    steps: int = 0  # gradient steps so far
    samples: int = 0  # rows shown so far
    seconds: float = 0.0  # of the whole run


Watcher = Callable[[Record], None]
Evaluate = Callable[[Method, Record], dict[str, float]]
"""The method in evaluation mode and the epoch's record, still without scores -> its scores."""


class Learner(nn.Module):
    """What the loop differentiates: its forward is the stage's loss, so distributed wrappers apply unchanged."""

    def __init__(self, method: Method, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.method, self.stage_loss = method, loss

    def forward(self, *batches: Any) -> Tensor:
        """One batch a part -> the stage's loss, a scalar."""
        return self.stage_loss(*batches)


def fit(
    method: Method,
    train: Data,
    settings: Settings | None = None,
    *,
    augment: Mapping[str, Augment] | None = None,
    place: Place | None = None,
    evaluate: Evaluate | None = None,
    watch: Sequence[Watcher] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Outcome:
    """Train `method` on `train` along its plan, and tell what happened, epoch by epoch.

    `changes` are fields of `Settings`. `augment` names the views that stages may ask for ("weak", "strong"); a view
    without an entry shows rows as stored. `checkpoint` is a file that is renewed every `save_seconds` and at the end;
    with `resume` the run goes on from it, to the same bits as without the pause. `about` is stored in it and must be
    equal on resuming. The global random state is left as it was. A loss that is not finite raises, and so does a NaN
    in what the method holds. Where `place` shards, the method's networks stay spread over the processes: they all have
    to ask for predictions; checkpoints are whole, and go on in any number of processes.
    """
    check_settings(changes, asdict(Settings()), "fit")
    settings = replace(settings or Settings(), **changes)
    place = place or find_place(str(next(method.buffers()).device))  # a method may have nothing for the loop to train
    if settings.batch < 2 * place.world:
        raise UnswayedError(f"a batch of 2 rows a process, {2 * place.world} in all", got=settings.batch)
    if place.shards:
        shard_networks(method, place.device, place.world)
    method.to(place.device)
    run = _Run(method, train.to(place.device), settings, augment or {}, place, evaluate, watch, checkpoint, about or {})
    with place.own_random_state(), run.fast, _stop_requests() as asked:
        if resume and checkpoint is not None and checkpoint.exists():
            run.restore()
        run.go(asked)
    return Outcome(tuple(run.records), run.at.steps, run.at.samples, run.at.seconds)


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a request that the loop honours between two steps.

    A second Ctrl-C stops at once. A second SIGTERM does not: who asks by a program may well ask in two ways.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """The state of one `fit`: plan, position, optimiser, records."""

    def __init__(
        self,
        method: Method,
        train: Data,
        settings: Settings,
        augment: Mapping[str, Augment],
        place: Place,
        evaluate: Evaluate | None,
        watch: Sequence[Watcher],
        checkpoint: Path | None,
        about: Mapping[str, Any],
    ) -> None:
        self.method, self.train, self.settings, self.augment, self.place = method, train, settings, augment, place
        self.evaluate, self.watch, self.checkpoint = evaluate, watch, checkpoint
        self.about: dict[str, Any] = json.loads(json.dumps(dict(about)))  # as a checkpoint will give it back
        self.plan = method.plan(settings.epochs)
        self.epochs = sum(stage.epochs for stage in self.plan)
        self.at, self.records = Position(), list[Record]()
        self.losses: list[Tensor] = []
        self.fast, self.span = Fast(method, place), (0, 1)
        self.optimizer = self._make_optimizer(self.plan[0])
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=place.precision == "fp16")
        self.start: dict[str, Tensor] | None = None  # the method when the stage began, if its data depend on it
        self.saved = time.monotonic()

    # ---------------------------------------------------------------------------------------------- the loop

    def go(self, asked: Callable[[], bool]) -> None:
        """Run the plan from the present position to its end."""
        while self.at.stage < len(self.plan):
            stage, clock = self.plan[self.at.stage], time.perf_counter()
            parts = self._begin(stage)
            self.at.seconds += time.perf_counter() - clock
            if parts is None or stage.epochs == 0:
                self.at.done += stage.epochs
                self._next_stage()
                continue
            learner, number, self.span = self._learner(stage), self.at.stage, cosine_span(self.plan, self.at.stage)
            while self.at.stage == number:
                self._epoch(stage, parts, learner, asked)
                self.at.epoch, self.at.step, self.at.done = self.at.epoch + 1, 0, self.at.done + 1
                if self.at.epoch == stage.epochs:
                    self._next_stage()
                self._save_if(asked)
        settle(self.method)
        self.method.requires_grad_(True)
        self.method.eval()
        self._check_state()
        self._save()

    def _next_stage(self) -> None:
        self.at.stage, self.at.epoch, self.start = self.at.stage + 1, 0, None

    def _begin(self, stage: Stage) -> tuple[Data, ...] | None:
        resumed = self.at.epoch > 0 or self.at.step > 0
        now = _copy(self.method) if resumed else {}
        if resumed and self.start:
            load_whole(self.method, self.start)  # the stage's data came from the method as it was then
        elif stage.data is not identity:
            self.start = _copy(self.method)
        self.place.seed(seed_of(self.settings.seed, self.at.stage, -1))
        self.method.eval()
        with torch.no_grad():
            parts = stage.data(self.train)
        if resumed:
            self.method.load_state_dict(now)
        elif stage.restarts and self.at.stage > 0:
            self.optimizer = self._make_optimizer(stage)
        return None if parts is None else check_parts(parts, stage.name, self.place)

    def _make_optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        settle(self.method)
        optimizer = make_optimizer(self.method, self.settings, stage)
        part_mixed_groups(optimizer)
        return optimizer

    def _learner(self, stage: Stage) -> nn.Module:
        settle(self.method)
        self.method.requires_grad_(stage.train is None)
        self.method.eval()
        (self.method if stage.train is None else stage.train).requires_grad_(True).train()
        learner = Learner(self.method, stage.loss)
        if self.place.world == 1 or self.place.shards:
            return learner
        # Buffers are merged by the loop at the end of every epoch: broadcasting them would lose rows.
        return nn.parallel.DistributedDataParallel(learner, broadcast_buffers=False, find_unused_parameters=True)

    def _epoch(self, stage: Stage, parts: tuple[Data, ...], learner: nn.Module, asked: Callable[[], bool]) -> None:
        seed, earlier = seed_of(self.settings.seed, self.at.stage, self.at.epoch), self.at.seconds
        counts, before = self._counts(), buffers_of(self.method) if self.place.world > 1 else {}
        steps, lr = count_steps(parts, self.settings.batch, self.place.world), 0.0
        clock = time.perf_counter()
        with contextlib.closing(self._batches(stage, parts, seed)) as batches:
            for group, share, rows in batches:
                self.place.seed(seed_of(seed, self.at.step, 2, self.place.rank))
                lr = self._set_rate(self.at.step / steps)
                with self.fast.step():
                    self._step(learner, group, share)
                self.at.step, self.at.steps = self.at.step + 1, self.at.steps + 1
                self.at.samples += rows
                if self.at.step % CHECK_EVERY == 0 or self.at.step == steps:
                    self._check_losses()
                self.at.seconds += time.perf_counter() - clock
                if self.at.step < steps:
                    self._save_if(asked)
                clock = time.perf_counter()
        merge_buffers(self.method, before, self.place)
        self._check_state()
        self._record(stage, lr, self.at.seconds - earlier, counts)

    def _batches(
        self, stage: Stage, parts: tuple[Data, ...], seed: int
    ) -> Generator[tuple[tuple[Batch, ...], float, int]]:
        done = self.at.done
        batches = epoch_batches(
            parts,
            self.settings.batch,
            stage.views,
            self.augment,
            seed,
            self.place,
            epoch=self.at.epoch,
            progress=lambda part: (done + part) / self.epochs,
            first=self.at.step,
            shuffle=self.settings.shuffle,
        )
        return batches if all(part.x.in_memory for part in parts) else look_ahead(batches)

    def _step(self, learner: nn.Module, group: Sequence[Batch], share: float) -> None:
        with self.place.autocast(), explain_mixing():
            loss = whole_alone(learner(*group))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        if self.place.shards:
            average_gradients(self.method, self.place.world)
        if self.settings.clip is not None:
            self.scaler.unscale_(self.optimizer)
            clip = clip_gradients if self.place.shards else nn.utils.clip_grad_norm_
            for child in self.method.children():  # apart, or one network's gradient would shrink another's
                if parameters := list(child.parameters()):
                    clip(parameters, self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.losses.append(loss.detach())

    def _set_rate(self, step: float) -> float:
        factor = factor_at(self.span, self.at.epoch + step, self.settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1.0 if group.get("steady") else factor)
        return float(self.optimizer.param_groups[0]["lr"])

    # ---------------------------------------------------------------------------------------------- records

    def _counts(self) -> tuple[int, int]:
        seen = int(self.method.dynamics.seen.sum())
        return seen, seen - int(self.method.dynamics.wrong.sum())

    def _check_losses(self) -> None:
        """Look at the losses since the last look, at most `CHECK_EVERY` of them."""
        losses = torch.stack(self.losses[-CHECK_EVERY:]).float().cpu()
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        if not self.place.any(bool(bad)):  # all processes raise, or one would wait for another that has left
            return
        raise self._broken(
            "a finite loss",
            got=float(losses[bad[0]]) if bad else "one that is not, in another process",
            batch=self.at.step - len(losses) + bad[0] + 1 if bad else self.at.step,
        )

    def _check_state(self) -> None:
        """A method may leave a row out of its loss whose loss is NaN: the gradient is NaN all the same."""
        floats = {name: value for name, value in self.method.state_dict().items() if value.is_floating_point()}
        broken = torch.stack([local(value).isnan().any() for value in floats.values()]).tolist()
        names = [name for name, found in zip(floats, broken, strict=True) if found]
        if self.place.any(bool(names)):
            got = f"NaN in {', '.join(names[:3])}{', ...' if names[3:] else ''}" if names else "NaN in another process"
            raise self._broken("numbers in all parameters and buffers", got=got, batch=self.at.step)

    def _broken(self, expected: str, *, got: object, batch: int) -> UnswayedError:
        stage = self.plan[min(self.at.stage, len(self.plan) - 1)].name
        return UnswayedError(
            f"{expected} in stage '{stage}', epoch {self.at.epoch + 1}, batch {batch}",
            got=got,
            do="lower --lr, clip gradients (--clip), or use --precision fp32; the last checkpoint is from before",
        )

    def _record(self, stage: Stage, lr: float, seconds: float, before: tuple[int, int]) -> None:
        seen, right = (now - then for now, then in zip(self._counts(), before, strict=True))
        mean = torch.stack(self.losses).float().mean()
        if self.place.world > 1:
            dist.all_reduce(mean)
            mean /= self.place.world
        self.losses = []
        accuracy = right / seen if seen else None
        record = Record(stage.name, self.at.done, self.epochs, float(mean), lr, seconds, accuracy)
        if self.evaluate is not None:
            with evaluating(self.method):
                record = replace(record, scores=self.evaluate(self.method, record))
        self.records.append(record)
        if self.place.first:
            for watcher in self.watch:
                watcher(self.records[-1])

    # ---------------------------------------------------------------------------------------------- checkpoints

    def _save_if(self, asked: Callable[[], bool]) -> None:
        if self.place.world > 1 and self.at.step > 0:
            return  # inside an epoch the processes' rows are not merged yet
        stop = self.place.any(asked())  # one process must not leave while another waits for it
        if stop or self._due():
            if self.losses:  # a checkpoint holds no weights that came of a loss that is not finite
                self._check_losses()
                self._check_state()
            self._save()
        if stop:
            raise KeyboardInterrupt

    def _due(self) -> bool:
        due = time.monotonic() - self.saved >= self.settings.save_seconds
        return self.place.any(self.place.first and due) if self.place.shards else due  # all gather, or none

    def _save(self) -> None:
        if self.checkpoint is None or not (self.place.first or self.place.shards):
            return
        optimizer, about = pack_optimizer(self.optimizer)
        tensors = {f"method/{name}": value for name, value in self.method.state_dict().items()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer.items()}
        tensors |= {f"start/{name}": value for name, value in (self.start or {}).items()}
        tensors = gather(tensors, keep=self.place.first)
        if not self.place.first:
            return
        if self.losses:
            tensors["losses"] = torch.stack(self.losses)
        write_state(
            self.checkpoint,
            tensors,
            {
                "position": asdict(self.at),
                "settings": asdict(self.settings),
                "about": self.about,
                "optimizer": about,
                "scaler": self.scaler.state_dict(),
                "records": [asdict(record) for record in self.records],
            },
        )
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Take up the run where its checkpoint stands; one of another configuration raises."""
        assert self.checkpoint is not None
        if self.place.first:
            remove_unfinished(self.checkpoint)
        tensors, about = read_state(self.checkpoint)
        settings = {**asdict(Settings()), **about["settings"]}  # one that came later was at its default
        _check_same({**about["about"], **settings}, {**self.about, **asdict(self.settings)}, self.checkpoint)
        load_whole(self.method, _below("method/", tensors))
        unpack_optimizer(self.optimizer, _below("optimizer/", tensors), about["optimizer"])
        self.start = _below("start/", tensors) or None
        self.scaler.load_state_dict(about["scaler"])
        self.at = Position(**about["position"])
        self.records = [Record(**record) for record in about["records"]]
        self.losses = list(tensors["losses"].to(self.place.device)) if "losses" in tensors else []


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_same(stored: Mapping[str, Any], asked: Mapping[str, Any], path: Path) -> None:
    free, stored, asked = {"save_seconds"}, _flat(stored), _flat(asked)
    different = [key for key in sorted({*stored, *asked} - free) if stored.get(key) != asked.get(key)]
    if different:
        said = "; ".join(f"{key}: {stored.get(key)} there, {asked.get(key)} now" for key in different)
        raise UnswayedError(
            f"the configuration of the checkpoint {path}", got=said, do="use the same, or another --out"
        )


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """With the entries of inner mappings in their place, so that a difference is told and not all that is equal."""
    inner = {name: value for entry in about.values() if isinstance(entry, dict) for name, value in entry.items()}
    return inner | {name: value for name, value in about.items() if not isinstance(value, dict)}


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
