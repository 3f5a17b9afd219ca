"""One unit of a job's work, on whatever machine: the model loaded once, a group of files sorted, a part of lists written.

A unit is done when its file is there under its name, written beside and renamed; doing it twice changes nothing.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch

from mecold.data.delimited import INTEGER
from mecold.data.frames import id_column, read_frame, require
from mecold.errors import DataWarning, InvalidDataError
from mecold.jobs.clean import Known
from mecold.jobs.job import Plan, renamed
from mecold.jobs.lists import Lists, Users, Wanted, lists_of
from mecold.jobs.scatter import Scattered, empty_rejected, scatter
from mecold.recommender import Recommender
from mecold.swap import write_text, written

BINS = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, None))
"""Shots that are counted together, ends included."""


@dataclass
class Done:
    """What became of a part; kept as JSON until the job ends.

    Args:
        users: how many users it has.
        listed: how many of them got at least one item.
        items: how many items they got together.
        shots: users by number of known items, as in `BINS`.
        rejected: rows that were set aside here, by reason.
        bytes: size of the file of lists.
        sha256: hash of it.
    """

    users: int = 0
    listed: int = 0
    items: int = 0
    shots: list[int] = field(default_factory=lambda: [0] * len(BINS))
    rejected: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    sha256: str = ""


class Worker:
    """Does units of a plan. Holds the model, which is loaded when it is first needed."""

    def __init__(self, plan: Plan, threads: int | None = None) -> None:
        self.plan = plan
        self.folder = plan.job.folder
        self.work = self.folder / ".work"
        if threads is not None:
            torch.set_num_threads(threads)

    @cached_property
    def recommender(self) -> Recommender:
        """The model of the job."""
        return Recommender.load(Path(self.plan.job.model).expanduser(), device=self.plan.job.device)

    @cached_property
    def known(self) -> Known:
        """What the model knows."""
        mine = self.recommender
        kind = pl.String if mine.info()["item_ids"] == "strings" else pl.Int64
        ids = [*mine.item_ids(), *mine.item_ids(hidden=True)]
        return Known(pl.Series("item_id", ids, dtype=kind), tuple(mine.info()["events"]))

    @cached_property
    def scattered(self) -> Scattered:
        """What the groups hold; all of them are sorted by then."""
        return Scattered(self.plan, self.work)

    @cached_property
    def wanted(self) -> Wanted:
        """What lists are like."""
        job = self.plan.job
        same: dict[str, Any] = {name: self._items(name) for name in ("exclude", "among") if self.plan.everybody(name)}
        groups = None if job.groups is None else self._table("groups")
        same |= {
            "include_seen": job.include_seen,
            "diversity": job.diversity,
            "groups": groups,
            "per_group": job.per_group,
        }
        return Wanted(
            job.k, same, job.min_score, job.max_history, job.because, job.shots, job.fingerprint, job.long
        )  # fmt: skip

    def sort(self, at: int) -> None:
        """Sort a group of files by part."""
        scatter(self.plan, at, self.work, self.known)

    def part_path(self, part: int) -> Path:
        """The file of lists of a part."""
        return self.folder / "lists" / f"part-{part:05d}.parquet"

    def recommend(self, part: int) -> Done:
        """Make the lists of a part; what was done before is not done again."""
        target, note = self.part_path(part), self.work / f"part-{part:05d}.json"
        if target.exists() and note.exists():
            done = Done(**json.loads(note.read_text()))
            if target.stat().st_size == done.bytes:
                return done
        users, aside = self._users(part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # what was set aside is counted
            found = lists_of(self.recommender, users, self.wanted)
        done = self._counted(found)
        if aside.height:
            done.rejected = dict(aside["reason"].value_counts(sort=True).iter_rows())
            with written(self.work / f"part-{part:05d}.rejected.parquet") as path:
                aside.write_parquet(path)
        with written(target) as path:
            found.frame.write_parquet(path)
            with path.open("rb") as file:
                done.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            done.bytes = path.stat().st_size
            write_text(note, json.dumps(vars(done)))
        return done

    def _counted(self, found: Lists) -> Done:
        long = self.plan.job.long
        shots = [found.shots.is_between(low, high) if high is not None else found.shots >= low for low, high in BINS]
        listed = found.frame["user_id"].n_unique() if long else found.frame.height
        items = found.frame.height if long else int(found.frame["items"].list.len().sum())
        return Done(len(found.shots), listed, items, [int(some.sum()) for some in shots])

    def _users(self, part: int) -> tuple[Users, pl.DataFrame]:
        """The users of a part, and rows that are set aside since their column is filled on other rows."""
        every, kind = self.scattered, self.scattered.user_type(self.plan.job.types)
        ids = pl.Series("user_id", [], dtype=kind)
        empty = pl.DataFrame({"user_id": ids, "item_id": self.known.items.clear()})
        rows = every.part("histories", part)
        rows = empty if rows is None else rows.with_columns(_typed(rows["user_id"], kind, "histories"))
        log = rows.filter(pl.col("item_id").is_not_null())
        whole, some = every.columns()
        log = log.select(name for name in log.columns if name in ("user_id", "item_id", *whole, *some))
        kinds = {name: pl.String if name == "event" else pl.Float64 for name in some if name not in log.columns}
        log = log.with_columns(pl.lit(None, kind).alias(name) for name, kind in kinds.items())
        aside = empty_rejected()
        lacking = pl.any_horizontal(pl.col(name).is_null() for name in some) if some else pl.lit(value=False)
        if some and (short := log.filter(lacking)).height:
            reason = pl.coalesce(pl.when(pl.col(name).is_null()).then(pl.lit(f"no {name}")) for name in some)
            told = short.select(pl.col("user_id", "item_id").cast(pl.String), reason.alias("reason"))
            aside = pl.concat([aside, told], how="diagonal")
            log = log.filter(~lacking)
        more = every.part("users", part)
        named = ids if more is None else _typed(more["user_id"], kind, "users")
        everyone = pl.concat([rows["user_id"], named]).unique().sort()
        without = pl.DataFrame([everyone]).join(
            log.select("user_id").unique(), on="user_id", how="anti", maintain_order="left"
        )
        tables = {name: self._pairs(name, part, empty) for name in ("exclude", "among")}
        return Users(log, without["user_id"], **tables), aside

    def _pairs(self, name: str, part: int, empty: pl.DataFrame) -> pl.DataFrame | None:
        if getattr(self.plan.job, name) is None or self.plan.everybody(name):
            return None
        rows = self.scattered.part(name, part)
        if rows is None:
            return empty
        pairs = rows.filter(pl.col("item_id").is_not_null())
        return pairs.with_columns(_typed(pairs["user_id"], empty["user_id"].dtype, name))

    def _items(self, name: str) -> list[Any]:
        return id_column(self._table(name)["item_id"], f"item_id of `{name}`").to_list()

    def _table(self, name: str) -> pl.DataFrame:
        source = getattr(self.plan.job, name)
        frame = read_frame(source, name, ids={"item_id": self.known.items.dtype})
        frame = renamed(self.plan.job, frame, ("item_id",))
        require(frame, ["item_id"], name)
        return frame


def _typed(ids: pl.Series, kind: Any, what: str) -> pl.Series:
    """Ids of users as those of the histories are, or as the job says."""
    if kind == pl.String or ids.dtype == pl.Int64:
        return ids.cast(kind)
    sure = ids.str.contains(INTEGER)
    whole = ids.set(~sure, None).cast(pl.Int64, strict=False)
    odd = ids.filter(whole.is_null())
    if len(odd):
        others = "`types` says" if what == "histories" else "those of the histories are"
        raise InvalidDataError(
            f"{len(odd):,} user ids of the {what} are no integers, as {others}: {odd[0]!r}. Cast one of them, or pass "
            "types={'user_id': 'text'} or --type user_id=text."
        )
    return whole
