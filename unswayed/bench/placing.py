"""Where the cells of a grid are run: on this machine, through joblib, on a Ray cluster, or as jobs of Slurm.

An engine hands `Job`s out, at most `jobs` at a time, and tells what became of each; locks and files in the common
folder do the rest. So every worker has to see that folder and the data, and to have this package installed. What a cell
says while it runs stays with its worker: of a placed cell one hears when it ends.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from unswayed.bench.grid import Cell
from unswayed.errors import UnswayedError, suggest
from unswayed.experiment.workers import LostWorkerError, Tell, work_side_by_side
from unswayed.registry import check_settings

On = Literal["local", "joblib", "ray", "slurm"]
Said = Any  # the last that a cell said of itself (News), or the exception that ended it
Hear = Callable[[Cell, Said], None]

SETTINGS: dict[str, tuple[str, ...]] = {
    "local": (),
    "joblib": ("backend", "threads"),
    "ray": ("address", "cpus", "gpus"),
    "slurm": ("partition", "account", "qos", "constraint", "minutes", "cpus", "gpus", "memory_gb", "cluster", "poll"),
}
_SLURM = {
    "partition": "slurm_partition", "account": "slurm_account", "qos": "slurm_qos", "constraint": "slurm_constraint",
    "minutes": "timeout_min", "cpus": "cpus_per_task", "gpus": "gpus_per_node", "memory_gb": "mem_gb",
}  # fmt: skip


class Work(Protocol):
    """What a worker does with a cell, telling of it; it can be sent to any process that sees the folder."""

    @property
    def folder(self) -> Path:
        """The folder of the cells."""
        ...

    def __call__(self, cell: Cell, tell: Tell) -> None:
        """Run the cell."""
        ...


@dataclass(frozen=True)
class Job:
    """One cell in a process somewhere: runs it, and returns the last that it said, or what it raised."""

    work: Work
    threads: int | None = None

    def __call__(self, cell: Cell) -> Said:
        """Run the cell; an exception comes back as a value, because not every one can be sent."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        last: list[Any] = [None]
        try:
            self.work(cell, lambda news: last.__setitem__(0, news))
        except (UnswayedError, KeyboardInterrupt) as error:
            return error
        except Exception:
            return RuntimeError(traceback.format_exc())
        return last[0]

    def checkpoint(self, cell: Cell) -> Any:
        """What submitit asks where Slurm takes the node away: the same cell again, which goes on where it was saved."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, cell)


def check_place(on: str, settings: dict[str, Any]) -> None:
    """Raise for an engine that is not known or not installed, and for a setting that it does not have."""
    if on not in SETTINGS:
        raise UnswayedError(f"--on is one of {', '.join(SETTINGS)}", got=repr(on), do=suggest(on, list(SETTINGS)))
    check_settings(settings, SETTINGS[on], f"--on {on}")
    try:
        if on == "ray":
            import ray  # noqa: F401
        elif on == "slurm":
            import submitit  # noqa: F401
    except ImportError as error:
        raise UnswayedError(f"the package for --on {on}", got=error, do=f"pip install 'unswayed[{on}]'") from error


def place_cells(on: str, work: Work, cells: Sequence[Cell], jobs: int, settings: dict[str, Any], hear: Hear) -> None:
    """Run `cells`, `jobs` at a time, by the engine called `on`; `hear` gets each cell and what became of it."""
    check_place(on, settings)
    run = {"joblib": _by_joblib, "ray": _by_ray, "slurm": _by_slurm}[on]
    run(work, list(cells), jobs, dict(settings), hear)


# ------------------------------------------------------------------------------------------------ joblib


def _by_joblib(work: Work, cells: list[Cell], jobs: int, settings: dict[str, Any], hear: Hear) -> None:
    """By joblib: its loky processes, or a backend that the user registered (`backend=dask`).

    A killed worker takes loky's whole pool with it. Cells that were under way are then run again, each in a process of
    its own, so that the one that kills its worker is lost alone; the rest goes to a new pool.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    threads = settings.pop("threads", max(1, torch.get_num_threads() // jobs))
    job, waiting = Job(work, threads), {cell.key: cell for cell in cells}

    def run(cell: Cell) -> tuple[str, Said]:
        return cell.key, job(cell)

    def note(cell: Cell, said: Said) -> None:
        waiting.pop(cell.key, None)
        hear(cell, said)

    while waiting:
        how = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": jobs, **settings}
        try:
            for key, said in Parallel(n_jobs=max(2, jobs), **how)(delayed(run)(cell) for cell in waiting.values()):
                note(waiting[key], said)
        except (TerminatedWorkerError, BrokenProcessPool):
            _one_by_one(work, _under_way(work, list(waiting.values())), note)


def _under_way(work: Work, cells: list[Cell]) -> list[Cell]:
    """Those whose lock was made; where the worker died before it came so far, the first."""
    return [cell for cell in cells if (work.folder / "running" / f"{cell.key}.lock").exists()] or cells[:1]


def _one_by_one(work: Work, cells: list[Cell], note: Hear) -> None:
    def listen(news: Any) -> None:
        if news.what != "epoch":
            note(news.cell, news)

    work_side_by_side(work, cells, 1, listen, survive=note)


# ------------------------------------------------------------------------------------------------ Ray


def _by_ray(work: Work, cells: list[Cell], jobs: int, settings: dict[str, Any], hear: Hear) -> None:
    """On a Ray cluster (`address`), or on one that is started on this machine; every cell is a task of its own."""
    import ray

    cpus, gpus = settings.pop("cpus", 1), settings.pop("gpus", 0)
    begun = not ray.is_initialized()
    if begun:
        ray.init(include_dashboard=False, log_to_driver=False, **settings)
    run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run)
    job = Job(work, threads=max(1, int(cpus)))
    waiting, under_way = iter(cells), dict[Any, Cell]()
    try:
        while True:
            while len(under_way) < jobs and (cell := next(waiting, None)) is not None:
                under_way[run.remote(job, cell)] = cell
            if not under_way:
                return
            (done, *_), _rest = ray.wait(list(under_way), num_returns=1)
            cell = under_way.pop(done)
            try:
                said: Said = ray.get(done)
            except ray.exceptions.RayError as error:
                said = LostWorkerError(str(error).strip().splitlines()[0])
            hear(cell, said)
    finally:
        for task in under_way:
            ray.cancel(task)
        if begun:
            ray.shutdown()


def _run(job: Job, cell: Cell) -> Said:
    return job(cell)


# ------------------------------------------------------------------------------------------------ Slurm


def _by_slurm(work: Work, cells: list[Cell], jobs: int, settings: dict[str, Any], hear: Hear) -> None:
    """As jobs of Slurm, through submitit; with `cluster=local` as plain processes, which tests the same path.

    All cells are one array of jobs, of which `jobs` run at a time. A job that Slurm takes away before its time is up is
    queued again and goes on from its checkpoint. The scripts and logs lie in the folder `slurm`.
    """
    import submitit

    poll, cluster = settings.pop("poll", 10.0), settings.pop("cluster", "slurm")
    executor = submitit.AutoExecutor(work.folder / "slurm", cluster=cluster, slurm_max_num_timeout=100)
    executor.update_parameters(name="unswayed", **{_SLURM[name]: value for name, value in settings.items()})
    job, waiting = Job(work, threads=settings.get("cpus", 1)), list(cells)
    under_way = dict[Any, Cell]()
    try:
        if cluster == "slurm":
            executor.update_parameters(slurm_array_parallelism=jobs)
            under_way = dict(zip(executor.map_array(job, waiting), waiting, strict=True))
            waiting = []
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                cell = waiting.pop(0)
                under_way[executor.submit(job, cell)] = cell
            for task in [task for task in under_way if task.done()]:
                hear(under_way.pop(task), _of_submitit(task))
            if under_way:
                time.sleep(poll)
    finally:
        for task in under_way:
            task.cancel(check=False)


def _of_submitit(task: Any) -> Said:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return task.result()
    except (FailedJobError, UncompletedJobError) as error:
        return LostWorkerError(f"job {task.job_id}: {str(error).strip().splitlines()[0]}")
