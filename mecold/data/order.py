"""The order of a log, and what becomes of repeats: one row per user and item, and what is counted of the others."""

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int64

from mecold.data.events import Events
from mecold.data.remarks import ORDERS


def ordered(log: pl.DataFrame) -> pl.DataFrame:
    """The log by user, and by time where there is one, else by position, else shuffled, always the same way."""
    for name in ORDERS:
        if name in log.columns:
            return log.sort(["user_id", name], maintain_order=True)
    pairs = zip(log["user_id"], log["item_id"], strict=True)
    keys = [hashlib.sha256(f"{user}:{item}".encode()).hexdigest() for user, item in pairs]
    return log.with_columns(pl.Series("shuffle", keys)).sort(["user_id", "shuffle"], maintain_order=True)


def once(log: pl.DataFrame, item: str = "row") -> pl.DataFrame:
    """One row per user and item of an ordered log: the first; where there are kinds of events the last, as the strongest.

    Args:
        log: ordered.
        item: the column that tells items apart.
    """
    pair, kinds = ["user_id", item], "event" in log.columns
    kept = log.unique(pair, keep="last" if kinds else "first", maintain_order=True)
    if kinds:
        kept = kept.join(
            log.group_by(pair).agg(strongest=pl.col("event").min()), on=pair, how="left", maintain_order="left"
        )
        kept = kept.with_columns(event=pl.col("strongest")).drop("strongest")
    return kept


def distinct(log: pl.DataFrame, events: Events) -> pl.DataFrame:
    """The same, with how often each item came as an event that is predicted, and how long ago."""
    pair, kept = ["user_id", "row"], once(log)
    ordered = any(name in log.columns for name in ORDERS)
    if not ordered or (kept.height == log.height and not events.goals):
        return kept
    goal = (pl.col("event") < events.goals if events.goals else pl.lit(value=True)).cast(pl.Int64)
    numbered = log.with_columns(goal=goal).with_columns(
        after=pl.col("goal").sum().over("user_id") - pl.col("goal").cum_sum().over("user_id")
    )
    last_goal = pl.col("after").filter(pl.col("goal") > 0).min()
    totals = numbered.group_by(pair).agg(
        repeats=pl.col("goal").sum(), since=pl.coalesce(last_goal, pl.col("after").min())
    )  # fmt: skip
    return kept.join(totals, on=pair, how="left", maintain_order="left")


@dataclass(frozen=True)
class Again:
    """All rows of a log by user, oldest first, items as often as they came.

    Args:
        offsets: user `u` owns the rows `offsets[u]:offsets[u + 1]`.
        items: rows of the catalogue.
    """

    offsets: Int64[np.ndarray, " users_plus_one"]
    items: Int64[np.ndarray, " rows"]

    def take(self, users: Int64[np.ndarray, " some"]) -> "Again":
        """Those of these users."""
        sizes, rows = rows_of(self.offsets, users)
        return Again(np.concatenate([[0], sizes.cumsum()]).astype(np.int64), self.items[rows])


def rows_of(
    offsets: Int64[np.ndarray, " users_plus_one"], users: Int64[np.ndarray, " some"]
) -> tuple[Int64[np.ndarray, " some"], Int64[np.ndarray, " rows"]]:
    """How many rows each of these users owns, and which, user after user."""
    sizes = np.diff(offsets)[users]
    starts = np.cumsum(sizes) - sizes
    return sizes, np.repeat(offsets[users] - starts, sizes) + np.arange(sizes.sum())


def again_of(ordered: pl.DataFrame, users: pl.Series, events: Events) -> Again:
    """Every row of an ordered log that is a liked event of a kind that is predicted."""
    goal = ordered.filter(pl.col("event") < events.goals) if events.goals else ordered
    goal = goal.filter(pl.col("label") > 0) if "label" in goal.columns else goal
    sizes = pl.DataFrame([users]).join(goal.group_by("user_id").len(), on="user_id", how="left", maintain_order="left")
    ends = sizes["len"].fill_null(0).to_numpy().cumsum()
    return Again(np.concatenate([[0], ends]).astype(np.int64), goal["row"].to_numpy().astype(np.int64))
