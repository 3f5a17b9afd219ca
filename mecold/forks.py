"""What a process that was forked can do: its parent's threads do not live in it, and whoever waits for them waits for ever.

torch and FAISS compute with one thread there; locks are nobody's; and what needs polars, whose threads cannot be started
again, says so at once, should polars have been at work before the fork. The way of one user needs none of it.
"""

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import torch

from mecold.errors import ForkError

_TASKS = Path("/proc/self/task")
_locks: "weakref.WeakSet[OwnLock]" = weakref.WeakSet()
_at_work = False  # polars, in this process, when it last forked
_stranded = False  # this process is a child of such a one


class OwnLock:
    """A lock that a forked child finds free: a thread that held it in the parent does not live in the child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Be free, whoever held it."""
        self._lock = threading.Lock()


def check_frames(what: str) -> None:
    """Refuse what would wait for ever for threads of polars.

    Args:
        what: what needs them, the beginning of the message.

    Raises:
        ForkError: in a process that was forked after polars had been at work.
    """
    if _stranded:
        raise ForkError(
            f"{what} cannot work in this process: it was forked after polars had been at work in its parent, whose threads "
            "are not here. Load the model after the fork, or start processes with "
            "multiprocessing.get_context('spawn'). adapt_user, recommend, scores, explain and similar_items work here."
        )


def _polars_at_work() -> bool:
    """True where polars has threads; where the system does not tell, it may have."""
    if not _TASKS.is_dir():
        return True
    names = []
    for task in _TASKS.iterdir():
        try:
            names.append((task / "comm").read_text())
        except OSError:  # it has ended meanwhile
            continue
    return any(name.startswith("polars-") and name[7:8].isdigit() for name in names)


def _before() -> None:
    global _at_work
    _at_work = _stranded or _polars_at_work()


def _in_child() -> None:
    global _stranded
    _stranded = _at_work
    torch.set_num_threads(1)
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
