"""The log that a model was made from, kept with it so that it can go on learning: users come back, and are forgotten.

What was read is kept as histories of distinct items, by user. What is observed later waits behind it, row by row, until the
item space is made anew; then both become one, by the rules by which a log is read. So the order in which rows came in does
not matter, but for ties in time.
"""

import hashlib
import uuid
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from mecold.data.catalog import Catalog
from mecold.data.interactions import Interactions, Order, grouped
from mecold.data.order import once, ordered
from mecold.data.remarks import ORDERS
from mecold.errors import InvalidDataError
from mecold.math.drift import moved
from mecold.types import ItemId

_CHUNKS = 64  # batches that lie apart in memory


@dataclass(frozen=True)
class Archive:
    """A log as a model keeps it.

    Args:
        ids: item of each row that the log refers to; null for an item that was taken out.
        log: what the item space was made from; with a label of every row, without weights and ratings.
        waiting: rows that were observed since: `user_id`, `item_id`, `label`, and those of `timestamp` or `position`, `event`,
            `groups` and `moments` that the log has.
        batches: a hash of each batch that was observed, since users were last forgotten.
        start: state of the draws from which the item space is made.
        origin: a name for the fit; what is observed into a folder is of one fit.
        at_fit: how often each item was in the log at the fit, by row.
        until: newest timestamp of the log at the fit; None where the log has none.
        context: columns that say what the moment of a row was like.
        taken: items that were taken out, and are still in it: see `settled`.
        forgets: a name for each time that users were forgotten.
        spent: hashes of batches that users were in who were forgotten since; known here, and never written.
    """

    ids: pl.Series
    log: Interactions
    waiting: pl.DataFrame
    batches: tuple[str, ...]
    start: UInt8[np.ndarray, " state"]
    origin: str
    at_fit: Int64[np.ndarray, " items"]
    until: float | None
    context: tuple[str, ...] = ()
    taken: tuple[ItemId, ...] = ()
    forgets: tuple[str, ...] = ()
    spent: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, log: Interactions, labels: Float32[np.ndarray, " rows"], ids: pl.Series, start: UInt8[np.ndarray, " state"]
    ) -> "Archive":
        """Of a log as it was read, its labels, and the ids of the catalogue's rows; a new one, whatever others are alike."""
        slim = replace(
            log, labels=labels, weights=_ones(len(log.items)), ratings=None, repeats=None, since=None, again=None,
            context=None, unknown={}, notes=(),
        )  # fmt: skip
        context = () if log.context is None else tuple(log.context.columns)
        at_fit = np.bincount(slim.items, minlength=len(ids))
        return cls(
            ids.alias("item_id"),
            slim,
            rows_of(slim, ids).clear(),
            (),
            start,
            uuid.uuid4().hex,
            at_fit,
            _newest(slim.timestamps),
            context,
        )

    @property
    def users(self) -> pl.Series:
        """Everybody who is in it."""
        return pl.concat([self.log.users.alias("user_id"), self.waiting["user_id"]]).unique()

    def sizes(self) -> dict[str, Any]:
        """How much there is, and how far it has moved since the head was learned.

        Returns:
            `users` and `rows` of the log; `waiting`, rows that wait for a refresh; `since_fit`, rows that came after the fit;
            `days_since_fit`, time from the newest row at the fit to the newest now, None without timestamps; `moved`, see
            `math.drift`.
        """
        clock = [] if self.until is None else [self.log.timestamps, self.waiting[self.log.order].to_numpy()]
        newest = max((time.max() for time in clock if time is not None and len(time)), default=None)
        days = None if newest is None or self.until is None else round(max(0.0, float(newest) - self.until) / 86_400, 2)
        counts = self._counts()
        since = counts - np.concatenate([self.at_fit, np.zeros(len(counts) - len(self.at_fit), np.int64)])
        return {
            "users": len(self.log), "rows": int(counts.sum()), "waiting": self.waiting.height,
            "since_fit": max(0, int(since.sum())), "days_since_fit": days,
            "moved": round(moved(counts - since, since.clip(min=0)), 3),
        }  # fmt: skip

    def _counts(self) -> Int64[np.ndarray, " items"]:
        """How often each item is in the log, by row, those that wait included; behind them items that wait alone.

        Without what polars needs its threads for, so that a forked process can say how things are.
        """
        counts = np.bincount(self.log.items, minlength=len(self.ids))
        counts[self.ids.is_null().to_numpy()] = 0
        waiting = Counter(self.waiting["item_id"].to_list())
        row = {item: place for place, item in enumerate(self.ids.to_list())} if waiting else {}
        for item in [item for item in waiting if item in row]:
            counts[row[item]] += waiting.pop(item)
        return np.concatenate([counts, np.fromiter(waiting.values(), np.int64, len(waiting))])

    def observed(self, batch: pl.DataFrame) -> "Archive":
        """With a batch of rows behind it, as from `rows_of`.

        Raises:
            InvalidDataError: if the users' ids are of another type, rows have no time where those of the log have one, or the
                same batch was observed before.
        """
        kind = self.log.users.dtype
        if batch["user_id"].dtype != kind:
            raise InvalidDataError(
                f"The user ids of the interactions are {batch['user_id'].dtype}, those of the model's log {kind}. Cast them: "
                f"a user who comes back must be known again."
            )
        if (order := self.log.order) != "shuffle" and order not in batch.columns:
            raise InvalidDataError(
                f"The model's log is ordered by `{order}`, and the interactions have no such column. Map yours: "
                f"columns={{'{order}': <your column>}}."
            )
        batch = batch.select(self.waiting.columns)
        if self.has_read(mark := mark_of(batch)):
            if order == "shuffle":  # who has an item twice has it once
                return self
            raise InvalidDataError(
                f"The same {batch.height:,} interactions were observed before; nothing was changed. If they did come twice, give "
                "the later ones their own times."
            )
        return self.with_batch(batch, mark)

    def with_batch(self, batch: pl.DataFrame, mark: str) -> "Archive":
        """With a batch of rows of its own columns behind it."""
        waiting = pl.concat([self.waiting, batch])
        return replace(
            self, waiting=waiting.rechunk() if waiting.n_chunks() > _CHUNKS else waiting, batches=(*self.batches, mark)
        )

    def change(self, catalog: Catalog) -> tuple[Interactions, Interactions]:
        """Histories of the users whose rows wait, without these rows and with them, in rows of a catalogue."""
        touched, rows, both = self._touched()
        before = self._in_rows_of(catalog, self.log.take(touched))
        after = self._histories(rows.with_columns(catalog.find(rows["item_id"], "the model's log")), both, touched)
        return before, after.where(after.items >= 0)

    def places(self, users: pl.Series) -> Int64[np.ndarray, " found"]:
        """Where in the log those of these users stand who are in it."""
        there = pl.DataFrame([self.log.users]).with_row_index("at")
        found = there.join(pl.DataFrame({"user_id": users}), on="user_id", how="semi", maintain_order="left")
        return found["at"].to_numpy().astype(np.int64)

    def merged(self) -> "Archive":
        """The same with nothing waiting: histories as if all had been read at once."""
        if self.waiting.is_empty():
            return self
        touched, rows, both = self._touched()
        new = rows["item_id"].unique(maintain_order=True)
        ids = pl.concat([self.ids, new.filter(~new.is_in(self.ids.drop_nulls().implode()))])
        known = pl.DataFrame([ids]).with_row_index("row").filter(pl.col("item_id").is_not_null())
        rows = rows.join(known, on="item_id", how="left", maintain_order="left")
        few = self._histories(rows, both, touched)
        rest = np.setdiff1d(np.arange(len(self.log)), touched)
        at_fit = np.concatenate([self.at_fit, np.zeros(len(ids) - len(self.ids), np.int64)])
        log = _by_user(self.log.take(rest), few)
        return replace(self, ids=ids, at_fit=at_fit, log=log, waiting=self.waiting.clear())

    def _touched(self) -> tuple[Int64[np.ndarray, " users"], pl.DataFrame, pl.DataFrame]:
        """Users of the log whose rows wait; their rows in order, each item once; and all rows that these were."""
        touched = self.places(self.waiting["user_id"].unique())
        both = pl.concat([rows_of(self.log.take(touched), self.ids), self.waiting])
        return touched, once(ordered(both), "item_id"), both

    def _histories(self, rows: pl.DataFrame, both: pl.DataFrame, touched: Int64[np.ndarray, " users"]) -> Interactions:
        """Ordered, distinct rows with a `row` of some catalogue as histories.

        Args:
            rows: the rows.
            both: all rows of these users: the last that tells a group is right.
            touched: users of the log, whose groups are known already.
        """
        users = both["user_id"].unique().sort()
        groups = None
        if self.log.groups is not None:
            known = self.log.users.gather(touched).alias("user_id")
            groups = _latest(pl.concat([known, both["user_id"]]),
                             np.concatenate([self.log.groups[touched], _table(both["groups"])]), users)  # fmt: skip
        return replace(
            grouped(rows, users, (), {}), order=self.log.order, events=self.log.events, weights=_ones(rows.height),
            groups=groups, moments=None if self.log.moments is None else _table(rows["moments"]),
        )  # fmt: skip

    def later(self, waiting: pl.DataFrame, batches: tuple[str, ...]) -> "Archive":
        """With what was observed while this was made: rows beyond those that are in it, and their hashes."""
        return replace(self, waiting=waiting, batches=(*self.batches, *batches))

    def in_rows_of(self, catalog: Catalog) -> Interactions:
        """The log in rows of a catalogue, without items that are not in it. What waits is not in it: see `merged`."""
        return self._in_rows_of(catalog, self.log)

    def _in_rows_of(self, catalog: Catalog, log: Interactions) -> Interactions:
        rows = np.full(len(self.ids), -1, np.int64)
        there = self.ids.is_not_null().to_numpy()
        rows[there] = catalog.find(self.ids.drop_nulls(), "the model's log").to_numpy()
        found = replace(log, items=rows[log.items])
        return found.where(found.items >= 0)

    def without_users(self, users: pl.Series) -> "Archive":
        """As if these users had never been there."""
        gone = self.places(users)
        left, theirs = np.setdiff1d(np.arange(len(self.log)), gone), self.log.take(gone)
        # without a clock nobody knows what came after the fit: the most of it did not
        early = theirs.items if theirs.timestamps is None else theirs.items[theirs.timestamps <= (self.until or 0.0)]
        at_fit = self.at_fit - np.bincount(early, minlength=len(self.ids))
        waiting = self.waiting.filter(~pl.col("user_id").is_in(users.implode()))
        return replace(
            self, log=self.log.take(left), waiting=waiting, at_fit=at_fit.clip(min=0), batches=(),
            forgets=(*self.forgets, uuid.uuid4().hex), spent=(*self.spent, *self.batches),
        )  # fmt: skip

    def without_items(self, items: Iterable[ItemId]) -> "Archive":
        """As if nobody had touched these items, once it is settled: should they come back, they are new."""
        return replace(self, taken=(*self.taken, *items))

    def settled(self) -> "Archive":
        """The same without the items that were taken out. Apart from that, since it needs polars, and taking out must not."""
        if not self.taken:
            return self
        gone = pl.Series("item_id", list(self.taken), dtype=self.ids.dtype).implode()
        ids = pl.select(pl.when(~self.ids.is_in(gone)).then(self.ids)).to_series().alias("item_id")
        at_fit = np.where(ids.is_null().to_numpy(), 0, self.at_fit)
        waiting = self.waiting.filter(~pl.col("item_id").is_in(gone))
        return replace(self, ids=ids, at_fit=at_fit, waiting=waiting, taken=())

    def has_read(self, mark: str) -> bool:
        """True where a batch of this hash was observed."""
        return mark in self.batches or mark in self.spent

    def knows(self, about: Mapping[str, Any]) -> bool:
        """True where it has all that was observed and forgotten by the archive of which `about` tells."""
        return all(map(self.has_read, about["batches"])) and set(about["forgets"]) <= set(self.forgets)

    def is_news_to(self, about: Mapping[str, Any]) -> bool:
        """True where users were forgotten of whom the archive of which `about` tells has not heard."""
        return not set(self.forgets) <= set(about["forgets"])

    # ---- on disk

    def tables(self) -> dict[str, pl.DataFrame]:
        """All of it but for single values, as tables by name."""
        log = {"item": self.log.items.astype(np.int32), "label": self.log.labels}
        log |= {} if self.log.times is None else {self.log.order: self.log.times}
        log |= {} if self.log.kinds is None else {"event": self.log.kinds.astype(np.int16)}
        log |= {} if self.log.moments is None else {"moments": self.log.moments.astype(np.int32)}
        users = {"rows": self.log.lengths.astype(np.int32)}
        users |= {} if self.log.groups is None else {"groups": self.log.groups.astype(np.int32)}
        return {
            "log": pl.DataFrame(log),
            "log_users": pl.DataFrame([self.log.users.alias("user_id")]).hstack(pl.DataFrame(users)),
            "log_items": pl.DataFrame([self.ids, pl.Series("at_fit", self.at_fit)]),
            "log_waiting": self.waiting,
        }

    def about(self) -> dict[str, Any]:
        """The single values."""
        return {
            "start": b64encode(self.start.tobytes()).decode(), "origin": self.origin, "until": self.until,
            "context": list(self.context), "batches": list(self.batches), "forgets": list(self.forgets),
        }  # fmt: skip

    @classmethod
    def read(cls, tables: dict[str, pl.DataFrame], about: dict[str, Any], events: Any) -> "Archive":
        """What `tables` and `about` wrote."""
        log, users = tables["log"], tables["log_users"]
        order: Order = next((name for name in ORDERS if name in log.columns), "shuffle")
        histories = Interactions(
            users=users["user_id"],
            offsets=np.concatenate([[0], users["rows"].to_numpy().astype(np.int64).cumsum()]).astype(np.int64),
            items=log["item"].to_numpy().astype(np.int64),
            weights=_ones(log.height),
            labels=log["label"].to_numpy(),
            times=None if order == "shuffle" else log[order].to_numpy(),
            order=order,
            events=events,
            kinds=log["event"].to_numpy().astype(np.int64) if "event" in log.columns else None,
            groups=_table(users["groups"]) if "groups" in users.columns else None,
            moments=_table(log["moments"]) if "moments" in log.columns else None,
        )
        items = tables["log_items"]
        return cls(
            items["item_id"], histories, tables["log_waiting"], tuple(about["batches"]),
            np.frombuffer(b64decode(about["start"]), np.uint8).copy(), about["origin"],
            items["at_fit"].to_numpy(), about["until"], tuple(about["context"]), forgets=tuple(about["forgets"]),
        )  # fmt: skip


def rows_of(log: Interactions, ids: pl.Series, labels: Float32[np.ndarray, " rows"] | None = None) -> pl.DataFrame:
    """A log as rows: who had what, when, and how they liked it. Items that were taken out have none.

    Args:
        log: histories.
        ids: item of each row that it refers to.
        labels: of every row; the log's own where None.
    """
    found = labels if labels is not None else log.labels
    columns = [
        log.users.gather(log.owners).alias("user_id"),
        ids.gather(log.items).alias("item_id"),
        pl.Series("label", _ones(len(log.items)) if found is None else found, dtype=pl.Float32),
    ]
    if log.times is not None:
        columns.append(pl.Series(log.order, log.times, dtype=pl.Float64))
    if log.kinds is not None:
        columns.append(pl.Series("event", log.kinds, dtype=pl.Int64))
    for name, table in (("groups", None if log.groups is None else log.groups[log.owners]), ("moments", log.moments)):
        if table is not None:
            columns.append(pl.Series(name, table.astype(np.int64), dtype=pl.Array(pl.Int64, table.shape[1])))
    return pl.DataFrame(columns).filter(pl.col("item_id").is_not_null())


def mark_of(batch: pl.DataFrame) -> str:
    """A hash of a batch of rows."""
    digest = hashlib.sha256()
    for column in batch.iter_columns():
        digest.update(f"{column.name} {column.dtype} {len(column)}".encode())
        if column.dtype == pl.String:
            digest.update("\0".join(column.to_list()).encode())
        else:
            digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    return digest.hexdigest()[:32]


def _newest(times: Float64[np.ndarray, " rows"] | None) -> float | None:
    return None if times is None or not len(times) else float(times.max())


def _ones(rows: int) -> Float32[np.ndarray, " rows"]:
    """Ones in the memory of one."""
    return np.broadcast_to(np.ones((), np.float32), (rows,))


def _table(column: pl.Series) -> Int64[np.ndarray, "rows columns"]:
    return column.to_numpy().astype(np.int64).reshape(len(column), column.dtype.size)  # type: ignore[attr-defined]


def _latest(
    of: pl.Series, table: Int64[np.ndarray, "rows attributes"], users: pl.Series
) -> Int64[np.ndarray, "users attributes"]:
    """Groups of users: what was said of each last.

    Args:
        of: whose each row is.
        table: groups of each row; -1 where nothing is said.
        users: the users.
    """
    places = pl.DataFrame([users]).with_row_index("at")
    found = pl.DataFrame([of]).join(places, on="user_id", how="left", maintain_order="left")
    owner = found["at"].to_numpy().astype(np.int64)
    latest = np.full((len(users), table.shape[1]), -1, np.int64)
    for column in range(table.shape[1]):
        known: Bool[np.ndarray, " rows"] = table[:, column] >= 0
        latest[owner[known], column] = table[known, column]
    return latest


def _by_user(one: Interactions, other: Interactions) -> Interactions:
    """Histories of two logs that have no user in common, users in order."""

    def both(name: str) -> Any:
        parts = [getattr(one, name), getattr(other, name)]
        return None if parts[0] is None else np.concatenate(parts)

    offsets = np.concatenate([one.offsets, other.offsets[1:] + one.offsets[-1]])
    users = pl.concat([one.users.alias("user_id"), other.users.alias("user_id")])
    names = ("items", "labels", "times", "kinds", "groups", "moments")
    joined = replace(
        one, users=users, offsets=offsets, weights=_ones(int(offsets[-1])), **{name: both(name) for name in names}
    )
    return joined.take(users.arg_sort().to_numpy().astype(np.int64))
