"""What is asked of a job, and the plan that is kept beside its output: the same plan, or nothing goes on.

A plan is made of what was asked, of every file that is read, with its size and time, of the model's seal, and of the
versions of what computes. All that follows from it is the same however often a job is stopped.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch

from mecold.data.files import File, files_of
from mecold.data.frames import INTERACTION_NAMES
from mecold.errors import InvalidDataError, ModelFileError, few
from mecold.values import number
from mecold.version import __version__

_PART = 8 << 20  # bytes of unpacked histories per part
_GROUP, _GROUPS = 64 << 20, 16  # bytes of files that are sorted into parts at once; less where that makes few groups
_UNPACKED = {"parquet": 4, "csv": 1, "ipc": 1, "jsonl": 1}
_ROW, _USER = 24, 128  # bytes that a row of a history, or a user, takes at least
_LEAST, _MOST = 8, 4096  # parts; several, so that a small job, too, has work for all processors

TABLES: Mapping[str, tuple[str, ...]] = {
    "histories": INTERACTION_NAMES,
    "users": ("user_id",),
    "exclude": ("user_id", "item_id"),
    "among": ("user_id", "item_id"),
}
"""What is read user by user -> its columns."""


@dataclass(frozen=True)
class Job:
    """What is asked for. Paths are files, folders, globs or addresses (`mecold.data.files`).

    Args:
        model: folder of a saved recommender.
        histories: what users did.
        out: folder to write to.
        k: how many items per user.
        users: of further users, who get a list though they have no history; `user_id`.
        exclude: items that nobody gets; with `user_id`, that a user must not get.
        among: the only items allowed; with `user_id`, that a user may get.
        groups: which item belongs to which group: `item_id` and one more column.
        per_group: at most so many of one group; 1 where None.
        diversity: from 0 for the best scores to 1 for items that are as unlike as can be.
        include_seen: let items of a history come back.
        min_score: leave out items that score less.
        max_history: of each user, only so many rows, the newest; older ones are not even excluded.
        because: for each item, so many items of the history that contributed most.
        shots: with a column of how many items of each history are known.
        fingerprint: with a column that names the model.
        long: one row per item in place of lists.
        columns: canonical name -> the files' name.
        types: of columns of ids of csv files, `"text"` or `"integer"`.
        shard: `(i, n)` makes the lists of every n-th user, in a folder of its own; from 1.
        max_rejected: share of rows that may be set aside before the job is refused.
        parts: how many files of lists to write, each a unit of work; by the size of the histories where None.
        device: where scoring runs.
    """

    model: str
    histories: str
    out: str
    k: int = 10
    users: str | None = None
    exclude: str | None = None
    among: str | None = None
    groups: str | None = None
    per_group: int | None = None
    diversity: float = 0.0
    include_seen: bool = False
    min_score: float | None = None
    max_history: int | None = None
    because: int = 0
    shots: bool = False
    fingerprint: bool = False
    long: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    shard: tuple[int, int] = (1, 1)
    max_rejected: float = 0.1
    parts: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        whole = {"k": self.k, "per_group": self.per_group, "max_history": self.max_history, "parts": self.parts}
        for name, value in whole.items():
            if value is not None and (isinstance(value, bool) or value < 1):
                raise InvalidDataError(f"{name}={value!r} must be a positive integer.")
        if self.because < 0:
            raise InvalidDataError(f"because={self.because!r} must be 0 or more.")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise InvalidDataError(f"shard={self.shard!r} must be (i, n) with i from 1 to n.")
        if not 0 <= self.max_rejected <= 1:
            raise InvalidDataError(f"max_rejected={self.max_rejected!r} must be a share between 0 and 1.")
        number(self.diversity, "diversity", 0, 1)
        if self.per_group is not None and self.groups is None:
            raise InvalidDataError(f"per_group={self.per_group} needs groups: a table of item_id and one more column.")
        known = sorted({name for names in TABLES.values() for name in names})
        if odd := [name for name in self.columns if name not in known]:
            raise InvalidDataError(f"columns: {few(odd)}: there is no such name. Canonical are {few(known, 30)}.")
        wrong = {
            name: kind for name, kind in self.types.items() if name not in ("user_id", "item_id") or kind not in _KINDS
        }
        if wrong:
            raise InvalidDataError(f"types={wrong!r} must map user_id or item_id to 'text' or 'integer'.")

    @property
    def folder(self) -> Path:
        """Where this job, or this shard of it, writes."""
        at, of = self.shard
        place = Path(self.out).expanduser().absolute()
        return place if of == 1 else place / f"shard-{at}-of-{of}"


_KINDS = {"text": pl.String, "integer": pl.Int64}


@dataclass(frozen=True)
class Group:
    """Files that are sorted into parts at once.

    Args:
        table: what they hold, a key of `TABLES`.
        files: in order.
    """

    table: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Plan:
    """A job and the work that it is cut into.

    Args:
        job: what is asked for.
        groups: of files, all of one table behind those of another.
        parts: how many files of lists there will be; users go by a hash of their id.
        record: all that must be the same for a stopped job to go on.
    """

    job: Job
    groups: tuple[Group, ...]
    parts: int
    record: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, job: Job) -> "Plan":
        """Look at the files and the model, and cut the work.

        Raises:
            InvalidDataError: if files are not there or of no known kind, or the output would lie among them.
            ModelFileError: if there is no model.
        """
        seal = Path(job.model).expanduser() / "config.json"
        if not seal.is_file():
            raise ModelFileError(
                f"There is no model in '{job.model}'. Name the folder that `save` or `mecold fit` wrote."
            )
        sources = {name: source for name in TABLES if (source := getattr(job, name)) is not None}
        _check_place(job, sources)
        found = {name: files_of(source, name) for name, source in sources.items()}
        _check_columns(job, found)
        aside = () if job.groups is None else files_of(job.groups, "groups")
        stamps = {name: [file.stamp for file in files] for name, files in (found | {"groups": aside}).items()}
        groups: list[Group] = []
        size = 0
        for name, files in found.items():
            if name != "histories" and not _by_user(job, name, files):
                continue
            for some, total in _cut(name, files, stamps[name]):
                groups.append(Group(name, some))
                size += total
        own = ("out", "model", "max_rejected", *sources)  # what may differ, or is told by its content
        asked = {key: value for key, value in asdict(job).items() if key not in own}
        record = {
            "asked": asked | {"shard": list(job.shard)},
            "files": stamps,
            "model": hashlib.sha256(seal.read_bytes()).hexdigest(),
            "versions": {"mecold": __version__, "polars": pl.__version__, "torch": torch.__version__},
        }
        parts = job.parts or min(_MOST, max(_LEAST, -(-size // (_PART * job.shard[1]))))
        return cls(job, tuple(groups), parts, record | {"parts": parts})

    @property
    def text(self) -> str:
        """The record as it is kept."""
        return json.dumps(self.record, indent=1, sort_keys=True)

    def differs(self, kept: str) -> list[str]:
        """What another plan was made of, in words; empty where it is the same."""
        try:
            other = json.loads(kept)
        except ValueError:
            return ["the manifest is damaged"]
        mine = json.loads(self.text)
        return list(_differences(other, mine, ""))

    def everybody(self, name: str) -> bool:
        """True for a table of items that is meant for everybody."""
        return getattr(self.job, name) is not None and all(group.table != name for group in self.groups)


def renamed(job: Job, frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """A table under canonical names, as far as a job maps them; a column that stands in the way of another goes."""
    changed = _renames(job, frame.columns, names)
    hidden = [ours for theirs, ours in changed.items() if ours in frame.columns and ours not in changed]
    return frame.drop(hidden).rename(changed)


def _renames(job: Job, columns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    return {
        theirs: ours for ours, theirs in job.columns.items() if ours in names and theirs in columns and ours != theirs
    }


def _check_columns(job: Job, found: Mapping[str, tuple[File, ...]]) -> None:
    there = {name for table, files in found.items() if job.columns for name in files[0].columns(table)}
    nowhere = [f"{ours}={theirs}" for ours, theirs in job.columns.items() if theirs not in there]
    if nowhere:
        raise InvalidDataError(
            f"columns maps {few(nowhere)}: no file has such a column; they have {few(sorted(there), 20)}."
        )


def _by_user(job: Job, name: str, files: tuple[File, ...]) -> bool:
    columns = files[0].columns(name)
    return "user_id" in columns or "user_id" in _renames(job, columns, TABLES[name]).values()


def _unpacked(table: str, file: File, size: int) -> int:
    """About how many bytes a file is in memory; of ids in order, parquet keeps next to nothing."""
    least = (file.rows(table) or 0) * (_ROW if table == "histories" else _USER)
    return max(least, size * (6 if file.packed else _UNPACKED[file.kind]))


def _check_place(job: Job, sources: Mapping[str, str]) -> None:
    for name, source in sources.items():
        folder = Path(source).expanduser()
        if folder.is_dir() and job.folder.resolve().is_relative_to(folder.resolve()):
            raise InvalidDataError(
                f"out='{job.out}' lies in the folder of the {name}, which would be read back. Name another folder."
            )


def _cut(
    table: str, files: Sequence[File], stamps: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[tuple[File, ...], int]]:
    """Files in order, as many at a time as are large enough together; and how large they are unpacked."""
    some: list[File] = []
    size = total = 0
    enough = min(_GROUP, sum(stamp["bytes"] for stamp in stamps) // _GROUPS)
    for file, stamp in zip(files, stamps, strict=True):
        some.append(file)
        size += stamp["bytes"]
        total += _unpacked(table, file, stamp["bytes"])
        if size >= enough:
            yield tuple(some), total
            some, size, total = [], 0, 0
    if some:
        yield tuple(some), total


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and where.startswith("files."):
        by_name = [{one["name"]: one for one in some} for some in (old, new)]
        for name in sorted({*by_name[0], *by_name[1]}):
            before, now = (some.get(name) for some in by_name)
            if before != now:
                word = "is new" if before is None else "is gone" if now is None else "has changed"
                yield f"'{name}' {word}"
    elif old != new:
        yield f"{where.removeprefix('asked.')} was {old!r:.60}, now {new!r:.60}"
