"""The log: validated, ordered, each (user, item) once, as flat arrays. The one place that decides what a history is.

It knows ids and frames; rows of the catalogue come from `Catalog`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Float64, Int64

from mecold.data.attributes import plain
from mecold.data.catalog import Catalog
from mecold.data.events import EventRule, Events
from mecold.data.frames import (
    INTERACTION_NAMES,
    INTERACTION_NUMBERS,
    Columns,
    FrameLike,
    id_column,
    number_column,
    read_frame,
    require,
    text_column,
)
from mecold.data.histories import Histories
from mecold.data.order import Again, again_of, distinct, ordered, rows_of
from mecold.data.remarks import ORDERS, busiest_user, columns_read, kinds_read, scale_of, tell_of_times, users_like_none
from mecold.errors import DataWarning, InvalidDataError, UnknownItemError, few
from mecold.types import ItemId
from mecold.values import texts, word

OnUnknown: TypeAlias = Literal["raise", "drop"]
Order: TypeAlias = Literal["timestamp", "position", "shuffle"]


@dataclass(frozen=True)
class Interactions:
    """Histories of distinct items, users and their items in order of time.

    Args:
        users: user ids, one per history.
        offsets: user `u` owns the rows `offsets[u]:offsets[u + 1]` of the arrays below.
        items: rows of the catalogue.
        weights: positive weight of each interaction, 1 by default.
        ratings: the ratings, or None where there are none.
        labels: 1 liked, -1 disliked, 0 seen without opinion, anything between; None where there is no such column.
        times: timestamps or positions, or None where no order is known (the order is then a fixed shuffle).
        order: what the histories are ordered by.
        events: kinds of events, the strongest first.
        kinds: place of each interaction's kind among them; None where there is no such column.
        groups: what is known of each user, as `data.attributes` codes it; None where nothing is.
        repeats: how often each interaction's item came, as an event that is predicted; None where none came twice.
        since: how many rows of the user's, of such events, came after the last of them.
        again: every such row of the log, so that it is learned what comes again; None where nothing does.
        context: columns that say what the moment of each interaction was like; None where none are asked for.
        moments: the same as groups, as `data.attributes` codes it.
        notes: what was set aside while reading, with counts; which columns were read; what looks odd.
        unknown: items outside the catalogue that were set aside, by user; a user may have no others.
    """

    users: pl.Series
    offsets: Int64[np.ndarray, " users_plus_one"]
    items: Int64[np.ndarray, " rows"]
    weights: Float32[np.ndarray, " rows"]
    ratings: Float32[np.ndarray, " rows"] | None = None
    labels: Float32[np.ndarray, " rows"] | None = None
    times: Float64[np.ndarray, " rows"] | None = None
    order: Order = "shuffle"
    events: Events = field(default_factory=Events)
    kinds: Int64[np.ndarray, " rows"] | None = None
    groups: Int64[np.ndarray, "users attributes"] | None = None
    repeats: Int64[np.ndarray, " rows"] | None = None
    since: Int64[np.ndarray, " rows"] | None = None
    again: Again | None = None
    context: pl.DataFrame | None = None
    moments: Int64[np.ndarray, "rows contexts"] | None = None
    notes: tuple[str, ...] = ()
    unknown: Mapping[ItemId, tuple[ItemId, ...]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        source: FrameLike,
        catalog: Catalog,
        *,
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        may_be_empty: bool = False,
        events: EventRule | Events | None = None,
        context: Sequence[str] = (),
        users: Any = None,
        order: Order | None = None,
    ) -> "Interactions":
        """Read and check a log.

        Rows are ordered by `timestamp`, else by `position`, else by sha256 of "user:item", a fixed shuffle; ties keep
        their order in the source. Only the first interaction of each (user, item) pair counts. Where there are kinds of
        events, it is the last one instead, and it counts as the strongest of them: who looked, bought and looked again
        has bought.

        Args:
            source: frame or path with `user_id`, `item_id` and optionally `timestamp`, `position`, `rating`, `weight`, `label`,
                `event`.
            catalog: the items; its rows are what the histories refer to.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with interactions of items outside the catalogue.
            may_be_empty: accept a log without any interaction (nothing to learn from, but fine to recommend for).
            events: how kinds of events are put in order; or the order that a model has.
            context: columns that say what the moment of a row was like.
            users: type of the users' ids, for those of a csv; by their own values where None.
            order: the one column to order by, `"shuffle"` for none; the first that is there where None.

        Raises:
            InvalidDataError: on an empty frame, missing or empty ids, unknown canonical names, half-filled numbers,
                weights that are not positive, labels beyond 1.
            UnknownItemError: on unknown items under `on_unknown="raise"`.

        Warns:
            DataWarning: counts of repeats and unknown items that were set aside, and of user ids such as "nan".
        """
        word(on_unknown, ("raise", "drop"), "on_unknown")
        context = texts(context, "context")
        kinds = {"item_id": catalog.dtype} | ({} if users is None else {"user_id": users})  # for the ids of a csv
        frame = read_frame(source, "interactions", columns, names=INTERACTION_NAMES, ids=kinds, guess=context)
        tell_of_times(frame)
        require(frame, ["user_id", "item_id", *context], "interactions")
        if frame.is_empty() and not may_be_empty:
            raise InvalidDataError("The interactions are empty: there is nothing to learn from. Pass one row at least.")
        log, events = _canonical(frame, events or EventRule())
        log = log.drop([name for name in ORDERS if order not in (None, name)], strict=False)
        log = log.with_columns(plain(frame[name]).alias(f"context {name}") for name in context)
        rows, notes = _known_rows(log, catalog, on_unknown)
        everyone = log.with_columns(rows)
        log = everyone.filter(pl.col("row") >= 0)
        if log.is_empty() and not may_be_empty:
            raise UnknownItemError("No interaction is of an item in the catalogue. Do both frames use the same ids?")
        in_order = ordered(log)
        kept = distinct(in_order, events)
        if kept.height < log.height:
            rule = "the last counts, as the strongest event of them" if "event" in log.columns else "the first counts"
            notes.append(f"{log.height - kept.height:,} repeats of a (user, item) pair set aside; {rule}")
        notes += users_like_none(everyone["user_id"])
        if notes:
            warnings.warn("Interactions: " + "; ".join(notes) + ".", DataWarning, stacklevel=3)
        notes += [columns_read(frame, kept, context), *kinds_read(events), *busiest_user(everyone["user_id"])]
        found = grouped(kept, everyone["user_id"].unique().sort(), tuple(notes), _unknown_items(everyone))
        moments = kept.select(pl.col(f"context {name}").alias(name) for name in context) if context else None
        again = (
            again_of(in_order, found.users, events) if kept.height < log.height and found.order != "shuffle" else None
        )
        return replace(found, events=events, again=again, context=moments)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Int64[np.ndarray, " users"]:
        """Number of distinct items per user."""
        return np.diff(self.offsets)

    def take(self, users: Int64[np.ndarray, " some"] | Sequence[int]) -> "Interactions":
        """The histories of these users (positions, not ids), in this order."""
        chosen = np.asarray(users, dtype=np.int64)
        sizes, rows = rows_of(self.offsets, chosen)
        groups = None if self.groups is None else self.groups[chosen]
        again = None if self.again is None else self.again.take(chosen)
        return replace(self._of(self.users.gather(chosen), sizes, rows), groups=groups, again=again)

    def where(self, keep: Bool[np.ndarray, " rows"]) -> "Interactions":
        """The same users with only the interactions where `keep` is True; some histories may end up empty."""
        sizes = np.bincount(self.owners[keep], minlength=len(self))
        return self._of(self.users, sizes, np.flatnonzero(keep))

    @property
    def timestamps(self) -> Float64[np.ndarray, " rows"] | None:
        """The times where they are those of a clock, not positions."""
        return self.times if self.order == "timestamp" else None

    @property
    def owners(self) -> Int64[np.ndarray, " rows"]:
        """Position of the user of each interaction."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def labels_from(self, liked_from: float | None) -> Float32[np.ndarray, " rows"]:
        """A label per interaction: the log's own; else 1, or -1 where a rating lies below `liked_from`."""
        if self.labels is not None:
            return self.labels
        if liked_from is None or self.ratings is None:
            return np.ones(len(self.items), np.float32)
        return np.where(self.ratings >= liked_from, 1.0, -1.0).astype(np.float32)

    @property
    def goal(self) -> Bool[np.ndarray, " rows"]:
        """True for interactions of a kind that is predicted."""
        if self.kinds is None or not self.events.goals:
            return np.ones(len(self.items), bool)
        return self.kinds < self.events.goals

    def unread_ratings(self, liked_from: float | None) -> str | None:
        """What is lost where ratings differ and nothing says which of them are likings, in a sentence; else None."""
        if self.ratings is None or self.labels is not None or liked_from is not None:
            return None
        values = np.unique(self.ratings)
        if len(values) < 2:
            return None
        name, mark = scale_of(values)
        return f"{name} are not read: every interaction counts as a liking. Pass MetaConfig(liked_from={mark:g})."

    def histories(
        self,
        labels: Float32[np.ndarray, " rows"],
        users: slice | Int64[np.ndarray, " some"] = slice(None),
        first: int | None = None,
        rated: bool = False,
    ) -> Histories:
        """Histories as tensors.

        Args:
            labels: of every interaction of the log, as from `labels_from`.
            users: which users.
            first: of each, only so many, the oldest.
            rated: with their ratings, where the log has any.
        """
        starts, sizes = self.offsets[:-1][users], self.lengths[users]
        if first is not None:
            sizes = np.minimum(sizes, first)
        ends = np.cumsum(sizes)
        rows = np.repeat(starts - (ends - sizes), sizes) + np.arange(int(sizes.sum()))
        clock = self.timestamps
        return Histories.padded(
            self.items[rows], sizes, labels=labels[rows], weights=self.weights[rows],
            times=None if clock is None else clock[rows], kinds=None if self.kinds is None else self.kinds[rows],
            groups=None if self.groups is None else self.groups[users], goals=self.events.goals,
            repeats=None if self.repeats is None else self.repeats[rows], since=None if self.since is None else self.since[rows],
            moments=None if self.moments is None else self.moments[rows],
            ratings=self.ratings[rows] if rated and self.ratings is not None else None,
        )  # fmt: skip

    def split(self, values: np.ndarray | None = None) -> list[np.ndarray]:
        """The items of each user, oldest first; or whatever values the rows have."""
        return np.split(self.items if values is None else values, self.offsets[1:-1]) if len(self) else []

    def _of(self, users: pl.Series, sizes: np.ndarray, rows: np.ndarray) -> "Interactions":
        return Interactions(
            users=users,
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            items=self.items[rows],
            weights=self.weights[rows],
            ratings=None if self.ratings is None else self.ratings[rows],
            labels=None if self.labels is None else self.labels[rows],
            times=None if self.times is None else self.times[rows],
            order=self.order,
            events=self.events,
            kinds=None if self.kinds is None else self.kinds[rows],
            groups=self.groups,
            repeats=None if self.repeats is None else self.repeats[rows],
            since=None if self.since is None else self.since[rows],
            context=None if self.context is None else self.context[rows],
            moments=None if self.moments is None else self.moments[rows],
        )


def _canonical(frame: pl.DataFrame, rule: EventRule | Events) -> tuple[pl.DataFrame, Events]:
    numbers = {name: number_column(frame, name, "interactions") for name in INTERACTION_NUMBERS}
    weight = numbers["weight"]
    if weight is not None and (weight <= 0).any():
        bad = (weight <= 0).arg_true()
        raise InvalidDataError(
            f"{len(bad):,} of {frame.height:,} weights are not positive (rows {few(bad.to_list())}). A dislike is a low "
            "rating with MetaConfig(liked_from=...), not a negative weight."
        )
    label = numbers["label"]
    if label is not None and (label.abs() > 1).any():
        bad = (label.abs() > 1).arg_true()
        raise InvalidDataError(
            f"{len(bad):,} of {frame.height:,} labels lie outside -1 (disliked) to 1 (liked) (rows {few(bad.to_list())}). "
            "Put ratings into a `rating` column, with MetaConfig(liked_from=...)."
        )
    ids = [id_column(frame[name], f"{name} of the interactions").alias(name) for name in ("user_id", "item_id")]
    log = pl.DataFrame(ids + [column.alias(name) for name, column in numbers.items() if column is not None])
    kinds = text_column(frame, "event", "interactions")
    if kinds is None and isinstance(rule, Events):  # nobody says what it was: the strongest
        return (log.with_columns(pl.lit(0, pl.Int64).alias("event")) if rule.names else log), rule
    if kinds is None:
        if isinstance(rule, EventRule) and (rule.predict or rule.strengths):
            raise InvalidDataError(
                "MetaConfig(predict=..., events=...) needs a column `event`; the interactions have none. Map yours: "
                "interaction_columns={'event': <your column>}."
            )
        return log, Events()
    events = rule.named(kinds)
    return log.with_columns(pl.Series("event", events.codes(kinds))) if events.names else log, events


def _known_rows(log: pl.DataFrame, catalog: Catalog, on_unknown: OnUnknown) -> tuple[pl.Series, list[str]]:
    rows = catalog.find(log["item_id"], "interactions")
    unknown = log["item_id"].filter(rows < 0)
    if not len(unknown):
        return rows, []
    distinct = unknown.unique(maintain_order=True).to_list()
    if on_unknown == "raise":
        raise UnknownItemError(
            f"{len(unknown):,} of {log.height:,} interactions are of {len(distinct):,} items that are not among the "
            f"{len(catalog):,} items: {few(distinct)}. Add those items, or pass on_unknown='drop'."
        )
    return rows, [f"{len(unknown):,} interactions of {len(distinct):,} unknown items set aside ({few(distinct)})"]


def _unknown_items(log: pl.DataFrame) -> dict[ItemId, tuple[ItemId, ...]]:
    """Items outside the catalogue by user, each once: in the order in which they came first, or last, as in histories."""
    aside = ordered(log.filter(pl.col("row") < 0)).group_by("user_id", maintain_order=True).agg("item_id")
    if "event" in log.columns:
        return {user: tuple(dict.fromkeys(items[::-1]))[::-1] for user, items in aside.iter_rows()}
    return {user: tuple(dict.fromkeys(items)) for user, items in aside.iter_rows()}


def grouped(
    log: pl.DataFrame, users: pl.Series, notes: tuple[str, ...], unknown: Mapping[ItemId, tuple[ItemId, ...]]
) -> Interactions:
    """The ordered log by user; users whose items are all unknown have an empty history."""
    found = log.group_by("user_id", maintain_order=True).len()
    sizes = (
        pl.DataFrame([users])
        .join(found, on="user_id", how="left", maintain_order="left")
        .with_columns(pl.col("len").fill_null(0).cast(pl.Int64))
    )
    order: Order = next((name for name in ORDERS if name in log.columns), "shuffle")
    return Interactions(
        users=sizes["user_id"],
        offsets=np.concatenate([[0], sizes["len"].to_numpy().cumsum()]).astype(np.int64),
        items=log["row"].to_numpy().astype(np.int64),
        weights=(log["weight"].to_numpy() if "weight" in log.columns else np.ones(log.height)).astype(np.float32),
        ratings=log["rating"].to_numpy().astype(np.float32) if "rating" in log.columns else None,
        labels=log["label"].to_numpy().astype(np.float32) if "label" in log.columns else None,
        times=None if order == "shuffle" else log[order].to_numpy().astype(np.float64),
        order=order,
        kinds=log["event"].to_numpy() if "event" in log.columns else None,
        repeats=log["repeats"].to_numpy() if "repeats" in log.columns else None,
        since=log["since"].to_numpy() if "repeats" in log.columns else None,
        notes=notes,
        unknown=unknown,
    )
