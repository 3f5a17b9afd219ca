"""A folder or a file takes another's place at once; what killed attempts left behind goes with the next one.

A reader finds the old folder or the new one, never none and never half of one: on Linux the two change places in one
step of the file system (`renameat2`); elsewhere the old one is moved away first, which leaves a gap of some microseconds.
"""

import ctypes
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_YOUNG = 60.0  # seconds in which a folder may have been made and not been claimed yet


@contextmanager
def claimed(fresh: Path) -> Iterator[None]:
    """A new folder that nobody clears away, for as long as its maker lives and works on it."""
    fresh.mkdir()
    handle = os.open(fresh, os.O_RDONLY) if sys.platform != "win32" else None
    try:
        if handle is not None:
            _lock(handle)
        yield
    finally:
        if handle is not None:
            _unlock(handle)
            os.close(handle)


def _unlock(handle: int) -> None:
    """Give a lock back: closing is not enough where a process that was forked meanwhile has the handle, too."""
    import fcntl

    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


def _lock(handle: int) -> bool:
    """Take the lock of an open folder; False where somebody has it."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system has no locks
        return False
    return True


def clear(leftovers: Iterable[Path]) -> None:
    """Remove folders that a killed process left, and no other: those that are claimed, or very young, stay."""
    for path in leftovers:
        try:
            if (age_of(path) or 0.0) < _YOUNG or sys.platform == "win32":
                continue
            handle = os.open(path, os.O_RDONLY)
        except OSError:  # somebody else was faster
            continue
        try:
            if _lock(handle):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)


def leftovers_of(folder: Path) -> list[Path]:
    """What saves that were killed left beside a folder, the newest first."""
    found = {one: age for state in ("new", "old") for one in folder.parent.glob(f".{folder.name}.{state}-*")
             if (age := age_of(one)) is not None}  # fmt: skip
    return sorted(found, key=lambda one: found[one])


def age_of(path: Path) -> float | None:
    """Seconds since something in a folder was made, removed or renamed; None where it is gone, or no folder."""
    try:
        return time.time() - path.stat().st_mtime if path.is_dir() else None
    except OSError:  # somebody has removed it meanwhile
        return None


def switch(fresh: Path, folder: Path) -> None:
    """Put a folder in the place of another, or of none; what was there lies where the new one was made."""
    old = fresh.with_name(fresh.name.replace(".new-", ".old-"))
    if _exchanged(fresh, folder):
        pass
    elif not folder.exists():
        fresh.rename(folder)
    else:
        folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        old.rename(fresh)
    sync(folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where one of them is missing, or the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before anything else happens."""
    if path.is_dir() and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """A path to write a file to; it takes the target's place once it is whole and on disk, or not at all."""
    path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        yield path
        sync(path)
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a small file at once."""
    with written(target) as path:
        path.write_text(text, "utf-8")


def stays(folder: Path) -> bool:
    """True for a folder that cannot be replaced, only filled: a mount point, the working directory or one above it, or one
    in a folder that may not be written.
    """
    if not folder.is_dir():
        return False
    here = Path.cwd()
    return folder.is_mount() or folder in (here, *here.parents) or not os.access(folder.parent, os.W_OK | os.X_OK)
