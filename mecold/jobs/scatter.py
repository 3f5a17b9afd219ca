"""Rows that lie scattered over files are brought together: each group of files becomes one file of blobs, a blob per part.

A user belongs to the part that a hash of the id says, so that parts are independent of each other and of where rows lay.
The hash is CRC-32 of the id as text: the same on every machine and in every version. At most `_ROWS` rows are held.
"""

import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from mecold.data.delimited import SURE_INTEGER
from mecold.data.files import told
from mecold.data.frames import INTERACTION_NUMBERS
from mecold.data.grouped import LISTS
from mecold.errors import InvalidDataError, few
from mecold.jobs.clean import REJECTED, Known, clean, values_in
from mecold.jobs.job import TABLES, Plan, renamed
from mecold.swap import write_text, written

_ROWS, _ASIDE = 1 << 21, 1 << 17
_PLACES = 40  # bits of a position within a group


@dataclass
class Sorted:
    """What became of a group of files; kept as JSON beside the blobs.

    Args:
        table: what the files hold.
        read: rows that were read, one per item.
        rejected: rows that were set aside, by reason.
        rows: good rows that have an item.
        values: column of numbers -> values that are there, in rows with an item.
        kinds: column of times -> how they were written.
        ids: types of the ids of users; `"integers"` for text that is nothing else.
        blobs: `[part, offset, bytes]`, in the order of the rows.
    """

    table: str
    read: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    values: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, list[str]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    blobs: list[list[int]] = field(default_factory=list)


def scatter(plan: Plan, at: int, work: Path, known: Known) -> None:
    """Sort a group of files by part; what was done before is not done again.

    Args:
        plan: names the groups.
        at: which of them.
        work: folder of what is not yet output.
        known: the model's items and events.

    Raises:
        InvalidDataError: if a file cannot be read, or a column is of no use.
    """
    group, target = plan.groups[at], work / f"group-{at:05d}"
    if target.with_suffix(".json").exists():
        return
    found, waiting, held = Sorted(group.table), [], 0
    rejected = Aside(target)
    with written(target.with_suffix(".blobs")) as path, path.open("wb") as file:
        for batch in _batches(plan, at, found, rejected, known):
            waiting.append(batch)
            held += batch.height
            if held >= _ROWS:
                _write(file, pl.concat(waiting, how="diagonal_relaxed"), plan, found)
                waiting, held = [], 0
        if waiting:
            _write(file, pl.concat(waiting, how="diagonal_relaxed"), plan, found)
    rejected.flush()
    write_text(target.with_suffix(".json"), json.dumps(vars(found)))


class Aside:
    """Rows of a group that are set aside; no more than `_ASIDE` and a batch of them are held."""

    def __init__(self, target: Path) -> None:
        self._target, self._files = target, 0
        self._held: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Set rows aside."""
        if rows.height:
            self._held.append(rows)
        if sum(one.height for one in self._held) >= _ASIDE:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            with written(self._target.with_suffix(f".{self._files:06d}.rejected.parquet")) as path:
                pl.concat(self._held).write_parquet(path)
            self._held, self._files = [], self._files + 1


def _batches(plan: Plan, at: int, found: Sorted, rejected: Aside, known: Known) -> Iterator[pl.DataFrame]:
    """Good rows of all files of a group, with the part of each; what else there is to say goes into `found`."""
    group = plan.groups[at]
    what, names = group.table, TABLES[group.table]
    ids: set[str] = set()
    place = at << _PLACES  # lists of one user in several groups stay in order
    for file in group.files:
        start = 0
        for raw in file.batches(what):
            text = file.kind == "csv"
            with told(file.name, what):
                frame = renamed(plan.job, raw, names)
                _require(frame, names, file.name)
                frame = frame.select(name for name in frame.columns if name in (*names, *LISTS))
                judged = clean(frame, what, file.name, start, place, known if "item_id" in names else None, text=text)
            start, place = start + raw.height, place + judged.read
            good = judged.good.select(name for name in judged.good.columns if name in names)
            for reason, count in judged.rejected["reason"].value_counts(sort=True).iter_rows():
                found.rejected[reason] = found.rejected.get(reason, 0) + count
            rejected.add(judged.rejected)
            found.read += judged.read
            for name, kinds in judged.kinds.items():
                found.kinds[name] = sorted({*found.kinds.get(name, ()), *kinds})
            found.rows += good["item_id"].count() if "item_id" in good.columns else 0
            for name, count in values_in(good):
                found.values[name] = found.values.get(name, 0) + count
            ids |= _kind_of(good["user_id"], text=text)
            found.ids = sorted(ids)
            yield _placed(good, plan)


def _require(frame: pl.DataFrame, names: Sequence[str], file: str) -> None:
    there = {*frame.columns, *({"item_id"} if "items" in frame.columns else ())}
    missing = [name for name in ("user_id", "item_id") if name in names and name not in there]
    if missing:
        raise InvalidDataError(
            f"'{file}' has no column {missing[0]!r}; it has {few(frame.columns, 20)}. Rename it, or map it: "
            f"columns={{{missing[0]!r}: <your column>}} or --column {missing[0]}=<your column>."
        )


def _kind_of(users: pl.Series, *, text: bool) -> set[str]:
    if not len(users):
        return set()
    if not text:
        return {"integer" if users.dtype.is_integer() else "text"}
    return {"integers" if users.str.contains(SURE_INTEGER).all() else "texts"}


def _placed(rows: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """Rows of this shard, with the part of each as `part`."""
    at, of = plan.job.shard
    hashed = hashes(rows["user_id"])
    table = rows.with_columns(pl.Series("part", (hashed // of) % plan.parts, dtype=pl.Int64))
    return table if of == 1 else table.filter(pl.Series(hashed % of == at - 1))


def hashes(ids: pl.Series) -> Int64[np.ndarray, " ids"]:
    """CRC-32 of each id as text."""
    if not len(ids):
        return np.empty(0, np.int64)
    changes = ids.ne_missing(ids.shift(1)).to_numpy().copy()  # rows of one user mostly stand together
    changes[0] = True
    runs = ids.filter(pl.Series(changes)).cast(pl.String).to_list()
    crc = np.fromiter((zlib.crc32(text.encode()) for text in runs), np.int64, len(runs))
    found: np.ndarray = crc[np.cumsum(changes) - 1]
    return found


def _write(file: Any, rows: pl.DataFrame, plan: Plan, found: Sorted) -> None:
    """Blobs of some rows behind those that are there."""
    ordered = rows.sort("part", maintain_order=True)
    parts = ordered["part"].to_numpy()
    table = ordered.drop("part")
    edges = np.searchsorted(parts, np.arange(plan.parts + 1))
    for part in np.flatnonzero(np.diff(edges)).tolist():
        start = file.tell()
        packed = io.BytesIO()
        table[int(edges[part]) : int(edges[part + 1])].write_ipc(packed, compression="lz4")
        file.write(packed.getbuffer())
        found.blobs.append([part, start, file.tell() - start])


class Scattered:
    """All groups of a plan, sorted: what they hold together, and the rows of each part."""

    def __init__(self, plan: Plan, work: Path) -> None:
        self._work = work
        self._groups = [
            Sorted(**json.loads((work / f"group-{at:05d}.json").read_text())) for at in range(len(plan.groups))
        ]
        self._of: dict[str, dict[int, list[tuple[int, int, int]]]] = {name: {} for name in TABLES}
        for at, group in enumerate(self._groups):
            for part, start, size in group.blobs:
                self._of[group.table].setdefault(part, []).append((at, start, size))
        self.check(plan)

    def check(self, plan: Plan) -> None:
        """Refuse what row by row looked fine, and together is not.

        Raises:
            InvalidDataError: if too much was set aside, files disagree on ids or times, or `max_history` has nothing to go by.
        """
        read, why = self.read("histories"), self.rejected("histories")
        short = {f"no {name}": self.rows("histories") - self.values(name) for name in self.columns()[1]}
        aside = sum(why.values()) + max(short.values(), default=0)  # rows that lack two of these are counted once
        if aside and (aside > plan.job.max_rejected * read or aside == read):
            reasons = "; ".join(f"{reason}: {count:,}" for reason, count in (why | short).items())
            raise InvalidDataError(
                f"{aside:,} of {read:,} rows of the histories cannot be used ({reasons}); max_rejected={plan.job.max_rejected:g} "
                f"allows {plan.job.max_rejected:.0%}. The rows lie in '{self._work}' as .rejected.parquet. Mend the files, or "
                "allow more."
            )
        kinds = self.ids("histories")
        if {"integer", "text"} <= kinds:
            raise InvalidDataError(
                "Some files of the histories have user ids that are integers, others texts. Cast one kind."
            )
        for name in ("timestamp", "position"):
            of_histories = (group for group in self._groups if group.table == "histories")
            written = {kind for group in of_histories for kind in group.kinds.get(name, ())}
            if len(written) > 1:
                raise InvalidDataError(
                    f"{name} of the histories is written as numbers and as dates. Write it in one way."
                )
        if plan.job.max_history is not None and self.order() is None and self.rows("histories"):
            raise InvalidDataError(
                "max_history keeps the newest rows, but nothing orders the histories. Give them a timestamp."
            )
        among = self.rejected("among")
        if among:
            raise InvalidDataError(
                f"{sum(among.values()):,} rows of `among` cannot be used ({'; '.join(among)}): who may get what is a promise. "
                "Mend the table."
            )

    def read(self, table: str) -> int:
        """Rows that were read."""
        return sum(group.read for group in self._groups if group.table == table)

    def rows(self, table: str) -> int:
        """Good rows that have an item."""
        return sum(group.rows for group in self._groups if group.table == table)

    def rejected(self, table: str) -> dict[str, int]:
        """Rows that were set aside, by reason."""
        found: dict[str, int] = {}
        for group in self._groups:
            if group.table == table:
                for reason, count in group.rejected.items():
                    found[reason] = found.get(reason, 0) + count
        return found

    def ids(self, table: str) -> set[str]:
        """Types of the ids of users."""
        return {kind for group in self._groups if group.table == table for kind in group.ids}

    def values(self, name: str) -> int:
        """How many rows of the histories with an item have a value in a column."""
        return sum(group.values.get(name, 0) for group in self._groups if group.table == "histories")

    def columns(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Columns of numbers and events that are there on all rows of the histories, and those that are there on some."""
        counts = {name: self.values(name) for name in (*INTERACTION_NUMBERS, "event")}
        rows = self.rows("histories")
        whole = tuple(name for name, count in counts.items() if count and count == rows)
        return whole, tuple(name for name, count in counts.items() if count and count < rows)

    def order(self) -> str | None:
        """What orders the histories."""
        whole, some = self.columns()
        return next((name for name in ("timestamp", "position") if name in whole or name in some), None)

    def part(self, table: str, part: int) -> pl.DataFrame | None:
        """The rows of a part in the order of the files; None where there are none."""
        blobs = self._of[table].get(part, ())
        frames = [pl.read_ipc(io.BytesIO(data)) for data in self._bytes(blobs)]
        return pl.concat(frames, how="diagonal_relaxed") if frames else None

    def _bytes(self, blobs: Sequence[tuple[int, int, int]]) -> Iterator[bytes]:
        for at, start, size in blobs:
            with (self._work / f"group-{at:05d}.blobs").open("rb") as file:
                file.seek(start)
                yield file.read(size)

    def user_type(self, types: Mapping[str, str]) -> Any:
        """What the ids of users are: integers where all may be, unless the job says otherwise."""
        kinds = self.ids("histories") or self.ids("users")
        if "user_id" in types:
            return pl.Int64 if types["user_id"] == "integer" else pl.String
        return pl.Int64 if kinds and kinds <= {"integer", "integers"} else pl.String


def empty_rejected() -> pl.DataFrame:
    """No row that was set aside."""
    return pl.DataFrame(schema=dict(REJECTED))
