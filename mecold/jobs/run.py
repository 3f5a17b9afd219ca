"""A job from beginning to end: refuse or go on, sort, recommend, finish. The same command goes on where a dead one stopped.

What lies in the folder at the end: `lists/part-*.parquet`, `rejected.parquet` where rows were set aside, `manifest.json`
(the plan), and `summary.json`, whose presence means that all is done. All of it is byte for byte the same however often the
job was stopped.
"""

import errno
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from mecold.errors import DataWarning, MecoldError, few
from mecold.jobs.clean import REJECTED
from mecold.jobs.job import Job, Plan
from mecold.jobs.local import threads
from mecold.jobs.work import BINS, Done, Worker
from mecold.swap import write_text, written


class JobRefusedError(MecoldError, ValueError):
    """A job that cannot go on in this folder: another one's output, or input, model or settings that have changed."""


class JobStoppedError(MecoldError, RuntimeError):
    """A job that stopped for want of disk or because it was told to; the same command goes on."""


Engine: TypeAlias = Callable[[Plan, str, Sequence[int]], Iterator[Any]]
"""Calls a method of a `Worker`, by its name, with each of some units, in any order, on one machine or many, and yields what
each call returned as soon as it is there."""

Hear: TypeAlias = Callable[[dict[str, Any]], None]
"""Is told of what happens, as values: `event`, and what goes with it."""


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Args:
        users: how many there are.
        listed: how many of them got at least one item.
        items: how many items they got together.
        shots: users by number of items that are known of them, such as `"3-5"`.
        read: rows of the histories.
        rejected: rows that were set aside, by table and reason.
        parts: files of lists.
        bytes: size of them.
        model: fingerprint of the model.
    """

    users: int
    listed: int
    items: int
    shots: dict[str, int]
    read: int
    rejected: dict[str, int]
    parts: int
    bytes: int
    model: str

    @property
    def clean(self) -> bool:
        """True where nothing was set aside."""
        return not self.rejected


def run(job: Job, *, engine: Engine | None = None, hear: Hear | None = None, restart: bool = False) -> Summary:
    """Do a job, or what is left of it.

    Args:
        job: what is asked for.
        engine: does the units; all processors of this machine where None.
        hear: is told of progress.
        restart: throw away what another job left in the folder.

    Raises:
        JobRefusedError: if the folder holds something else, another process works in it, or what it was begun with has changed.
        JobStoppedError: if the disk is full.
        MecoldError: if files, model or settings cannot be used.
    """
    plan, tell, each = Plan.of(job), hear or (lambda _: None), engine or threads
    with _alone(job.folder), _room(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of what is set aside rows are kept
        _begin(plan, restart)
        worker, finished = Worker(plan), job.folder / "summary.json"
        if finished.exists() and all(worker.part_path(part).exists() for part in range(plan.parts)):
            shutil.rmtree(job.folder / ".work", ignore_errors=True)
            return Summary(**json.loads(finished.read_text()))
        finished.unlink(missing_ok=True)
        _ = worker.wanted  # refused now, and not after an hour of sorting
        started = time.monotonic()
        tell({"event": "start", "groups": len(plan.groups), "parts": plan.parts})
        for count, _ in enumerate(each(plan, "sort", range(len(plan.groups))), start=1):
            tell({"event": "sorted", "done": count, "of": len(plan.groups)})
        worker.scattered.check(plan)
        done: list[Done] = []
        already = sum(worker.part_path(part).exists() for part in range(plan.parts))
        for one in each(plan, "recommend", range(plan.parts)):
            done.append(one)
            tell(_progress(done, plan.parts, already, time.monotonic() - started))
        summary = _end(plan, worker, done)
        tell({"event": "done", "seconds": round(time.monotonic() - started, 3), **asdict(summary)})
        return summary


def _progress(done: Sequence[Done], parts: int, already: int, seconds: float) -> dict[str, Any]:
    new = done[min(already, len(done) - 1) :]
    users = sum(one.users for one in new)
    left = (parts - len(done)) * seconds / max(1, len(new))
    return {
        "event": "part", "done": len(done), "of": parts, "users": sum(one.users for one in done),
        "users_per_second": round(users / max(seconds, 1e-9)), "seconds_left": round(left, 1),
    }  # fmt: skip


_OURS = {".work", "lists", "rejected.parquet", "manifest.json", "summary.json"}


def _begin(plan: Plan, restart: bool) -> None:
    """Refuse what does not belong together; clear away what dead runs left."""
    folder, manifest = plan.job.folder, plan.job.folder / "manifest.json"
    names = {path.name for path in folder.iterdir() if path.name != ".lock" and not path.name.endswith(".new")}
    if names and ("manifest.json" not in names or not names <= _OURS):
        raise JobRefusedError(
            f"'{folder}' holds something else than a job: {few(sorted(names - _OURS or names))}. Name another folder."
        )
    differences = plan.differs(manifest.read_text("utf-8")) if names else []
    begun = any((folder / "lists").glob("*.parquet"))
    if not names:
        write_text(manifest, plan.text)
    elif restart or (differences and not begun):  # without a list nothing is lost by beginning again
        write_text(manifest, "{}")  # nothing else counts from now on, should this be the end
        for name in names - {"manifest.json"}:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_text(manifest, plan.text)
    elif differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise JobRefusedError(
            f"'{folder}' was begun with something else: {'; '.join(differences[:5])}{more}. Bring that back, name another "
            "folder, or pass restart=True or --restart, which throws away what is there."
        )
    for place in (folder, folder / ".work", folder / "lists"):
        place.mkdir(exist_ok=True)
        for left in place.glob(".*.new"):
            left.unlink(missing_ok=True)


def _end(plan: Plan, worker: Worker, done: Sequence[Done]) -> Summary:
    """Bring together what was set aside, say what was done, and clear away the work."""
    folder, work = worker.folder, worker.work
    rejected: dict[str, int] = {}
    for table in ("histories", "users", "exclude"):
        for reason, count in worker.scattered.rejected(table).items():
            rejected[f"{table}: {reason}"] = count
    for one in done:
        for reason, count in one.rejected.items():
            rejected[f"histories: {reason}"] = rejected.get(f"histories: {reason}", 0) + count
    files = [*sorted(work.glob("group-*.rejected.parquet")), *sorted(work.glob("part-*.rejected.parquet"))]
    if files:
        with written(folder / "rejected.parquet") as path:
            pl.concat([pl.scan_parquet(one).select(*REJECTED) for one in files]).sink_parquet(path, maintain_order=True)
    names = [str(low) if low == high else f"{low}+" if high is None else f"{low}-{high}" for low, high in BINS]
    summary = Summary(
        users=sum(one.users for one in done),
        listed=sum(one.listed for one in done),
        items=sum(one.items for one in done),
        shots={name: sum(one.shots[at] for one in done) for at, name in enumerate(names)},
        read=worker.scattered.read("histories"),
        rejected=dict(sorted(rejected.items())),
        parts=plan.parts,
        bytes=sum(one.bytes for one in done),
        model=worker.recommender.info()["model"],
    )
    write_text(folder / "summary.json", json.dumps(asdict(summary), indent=1))
    shutil.rmtree(work)
    return summary


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made where it is not there, for one process at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise JobRefusedError(f"'{folder}' is a file. Name a folder.") from error
    with (folder / ".lock").open("a") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # a system without such locks
            pass
        except BlockingIOError as error:
            raise JobRefusedError(
                f"Another process works in '{folder}'. Wait for it, or name another folder."
            ) from error
        except OSError as error:
            raise JobRefusedError(
                f"'{folder}' cannot be locked against other processes: {error}. Name a folder of another file system."
            ) from error
        yield


@contextmanager
def _room() -> Iterator[None]:
    """A full disk comes out as what it is."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
        if not full:
            raise
        raise JobStoppedError(
            f"The disk is full: {error}. Make room; the same command goes on where this one stopped."
        ) from error
