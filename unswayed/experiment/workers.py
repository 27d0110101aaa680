"""Worker processes: tasks side by side, none of which outlives the process that asked for them."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

import torch
import torch.multiprocessing as torch_mp

from unswayed.errors import UnswayedError
from unswayed.machine import be_worker

Tell: TypeAlias = Callable[[Any], None]
Work: TypeAlias = Callable[[Any, Tell], None]
"""Called in a worker with a task and with a function that tells the parent something; it must be picklable."""


Survive: TypeAlias = Callable[[Any, BaseException], None]
"""Called with a task that was not done and why: what it raised, or `LostWorkerError` where its worker was killed."""


class LostWorkerError(UnswayedError):
    """A worker that ended in the midst of a task; `how` it ended, in words."""

    def __init__(self, how: str) -> None:
        do = "go on with --resume, and with fewer --jobs if memory was short"
        super().__init__("worker processes that end their runs", got=how, do=do)
        self.how = how


def work_side_by_side(
    work: Work, tasks: Sequence[Any], jobs: int, listen: Tell, survive: Survive | None = None
) -> None:
    """Do all `tasks`, `jobs` at a time; `listen` gets what they tell.

    Where one fails, is killed, or the caller is interrupted, the others are asked to stop (as by SIGTERM) and awaited.
    With `survive` a task that fails, or whose worker is killed, is told to it, and the others go on.
    """
    waiting, threads = iter(tasks), max(1, torch.get_num_threads() // jobs)
    workers: dict[Connection, BaseProcess] = {}
    doing: dict[Connection, Any] = {}

    def hand(task: Any, pipe: Connection | None = None) -> None:
        if pipe is None:
            taken = {int(process.name) for process in workers.values()}
            pipe, process = _start(work, threads, number=min(set(range(jobs)) - taken))
            workers[pipe] = process
            _hand(pipe, process, task)
        else:
            try:
                _hand(pipe, workers[pipe], task)
            except LostWorkerError:  # killed between two tasks
                if survive is None:
                    raise
                workers.pop(pipe)
                hand(task)
                return
        doing[pipe] = task

    try:
        for task in itertools.islice(waiting, jobs):
            hand(task)
        while doing:
            for pipe in [pipe for pipe in wait(list(doing)) if isinstance(pipe, Connection)]:
                what, value = _hear(pipe, workers[pipe])
                if what == "news":
                    listen(value)
                    continue
                task = doing.pop(pipe)
                if what != "done":
                    if survive is None:
                        raise value
                    survive(task, value)
                if what == "lost":
                    workers.pop(pipe)
                    pipe.close()
                if (task := next(waiting, None)) is not None:
                    hand(task, pipe if what != "lost" else None)
    finally:
        for pipe in workers:
            pipe.close()  # a worker takes the end of its pipe as the request to stop
        for process in workers.values():
            process.join()


def _start(work: Work, threads: int, number: int) -> tuple[Connection, BaseProcess]:
    context = torch_mp.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, name=str(number), args=(there, work, threads, number), daemon=True)
    with _deaf():
        process.start()
    there.close()  # or the pipe would stay open when the worker is killed
    return here, process


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which a terminal sends to all, until their training loop listens to it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _hand(pipe: Connection, process: BaseProcess, task: Any) -> None:
    try:
        pipe.send(task)
    except OSError as error:
        raise _lost(process) from error


def _hear(pipe: Connection, process: BaseProcess) -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return "lost", _lost(process)


def _lost(process: BaseProcess) -> LostWorkerError:
    process.join(timeout=10)
    code = process.exitcode
    how = f"one killed by signal {-code}" if code is not None and code < 0 else f"one that ended with code {code}"
    return LostWorkerError(how + (" (often for want of memory)" if code == -9 else ""))


# ------------------------------------------------------------------------------------------ in the worker


def _serve(pipe: Connection, work: Work, threads: int, number: int) -> None:
    be_worker(number)
    torch.set_num_threads(threads)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(pipe, tasks), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone, and nobody listens
        while True:
            _do(work, tasks.get(), pipe)


def _take(pipe: Connection, tasks: queue.SimpleQueue[Any]) -> None:
    """Pass on what the parent asks for; when it stops, or is killed, stop as well."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            tasks.put(pipe.recv())
    os.kill(os.getpid(), signal.SIGTERM)  # the training loop saves on it; outside of the loop the process just ends


def _do(work: Work, task: Any, pipe: Connection) -> None:
    try:
        work(task, lambda item: pipe.send(("news", item)))
    except (UnswayedError, KeyboardInterrupt) as error:
        pipe.send(("failed", error))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # it may not be picklable, and its traceback is not
        pipe.send(("failed", RuntimeError("".join(traceback.format_exception(error)))))
    else:
        pipe.send(("done", None))
