"""Entries beside a folder's sealed files: each is on disk, whole, before whoever wrote it is told so.

An entry's name says whose it is, its number and its mark: `<origin>-<number>-<mark>.parquet`. Who adds one holds the folder
meanwhile, and so does who replaces it: no entry falls between two saves.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mecold.swap import sync, written

JOURNAL = "journal"
_ENTRY = re.compile(r"([0-9a-f]+)-([0-9]{8})-([0-9a-f]+)\.parquet")
_HALF = re.compile(rf"\.{_ENTRY.pattern}\.[0-9a-f]+\.new")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder that nobody adds an entry to, or replaces, meanwhile. On Windows, where folders have no locks, it is not held.

    Raises:
        OSError: if there is no such folder.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    while True:
        handle = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.stat().st_ino == os.fstat(handle).st_ino:
                yield
                return
        finally:  # if it was replaced while we waited: the one that is there now
            with suppress(OSError):  # a process that was forked meanwhile has the handle, too, and would hold on
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def names_of(folder: Path) -> list[str]:
    """Names of a folder's entries, in the order in which they came."""
    place = folder / JOURNAL
    found = [path.name for path in place.iterdir() if _ENTRY.fullmatch(path.name)] if place.is_dir() else []
    return sorted(found, key=_number)


def is_journal(place: Path) -> bool:
    """True for a folder that holds entries alone, but for hidden files: of who was killed, or of a file manager."""
    return place.is_dir() and all(_ENTRY.fullmatch(path.name) or path.name.startswith(".") for path in place.iterdir())


def mark_in(name: str, origin: str) -> str | None:
    """The mark of an entry; None where it is of another origin."""
    found = _ENTRY.fullmatch(name)
    return found[3] if found and found[1] == origin else None


def add(folder: Path, origin: str, mark: str, put: Callable[[Path], None]) -> None:
    """Add an entry to a folder that is held; it is there, whole, when this returns, or not at all.

    Args:
        folder: the folder.
        origin: whose entry it is.
        mark: what tells it from others.
        put: writes the file.
    """
    place = folder / JOURNAL
    if not place.is_dir():
        place.mkdir()
        sync(folder)
    for path in place.iterdir():
        if _HALF.fullmatch(path.name):  # of somebody who was killed: the folder is ours
            path.unlink()
    number = max(map(_number, names_of(folder)), default=0) + 1
    with written(place / f"{origin}-{number:08d}-{mark}.parquet") as path:
        put(path)
    sync(place)


def carry(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy some entries into a new folder."""
    for name in names:
        if not (target / JOURNAL).is_dir():
            (target / JOURNAL).mkdir()
        with written(target / JOURNAL / name) as path:
            path.write_bytes((source / JOURNAL / name).read_bytes())
    if (target / JOURNAL).is_dir():
        sync(target / JOURNAL)
        sync(target)


def drop(folder: Path, kept: Iterable[str]) -> None:
    """Remove the entries of a folder but some; nobody needs them any more, so that a kill in between does no harm."""
    for name in set(names_of(folder)) - set(kept):
        (folder / JOURNAL / name).unlink()


def _number(name: str) -> int:
    found = _ENTRY.fullmatch(name)
    assert found is not None
    return int(found[2])
