"""The pure function of a job: rows of whole users in, their lists out. Every engine calls it, and nothing else recommends.

It is `Recommender.recommend_batch` and no second path beside it; what is added is the form of the answer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from mecold.jobs.because import because
from mecold.recommender import Recommender


@dataclass(frozen=True)
class Wanted:
    """What lists are like.

    Args:
        k: how many items per user.
        settings: further arguments of `Recommender.recommend_batch` that are the same for all users.
        min_score: leave out items that score less.
        max_history: of each user, only so many rows, the newest.
        because: for each item, so many items of the history that contributed most.
        shots: with the number of known items of each history.
        fingerprint: with the name of the model.
        long: one row per item in place of lists.
    """

    k: int = 10
    settings: dict[str, Any] | None = None
    min_score: float | None = None
    max_history: int | None = None
    because: int = 0
    shots: bool = False
    fingerprint: bool = False
    long: bool = False


@dataclass(frozen=True)
class Users:
    """Whole users.

    Args:
        histories: rows of a log as `recommend_batch` takes them.
        without: ids of users without a history.
        exclude: `user_id` and `item_id` of what single users must not get; None where there are none.
        among: the same of all that single users may get.
    """

    histories: pl.DataFrame
    without: pl.Series
    exclude: pl.DataFrame | None = None
    among: pl.DataFrame | None = None


@dataclass(frozen=True)
class Lists:
    """Lists of some users.

    Args:
        frame: `user_id`, `items`, `scores` and what else was wanted, by user; or, long, `user_id`, `rank`, `item_id`, `score`.
        shots: how many items of each user's history are known, in no order.
    """

    frame: pl.DataFrame
    shots: pl.Series


def lists_of(recommender: Recommender, users: Users, wanted: Wanted) -> Lists:
    """Lists of some users; the same whoever else is there.

    Raises:
        MecoldError: as `Recommender.recommend_batch` does.
    """
    log = users.histories
    if wanted.max_history is not None and log.height:
        order = next(name for name in ("timestamp", "position") if name in log.columns)
        log = log.sort(order, maintain_order=True).group_by("user_id", maintain_order=True).tail(wanted.max_history)
    settings = dict(wanted.settings or {})
    settings |= {} if users.exclude is None else {"exclude": users.exclude}
    settings |= {} if users.among is None else {"among": users.among}
    found = recommender.recommend_batch(log, wanted.k, users=users.without.to_list(), **settings)
    found = found.cast({"user_id": users.without.dtype})
    if wanted.min_score is not None:
        found = found.filter(pl.col("score") >= wanted.min_score)
    if wanted.because:
        found = found.with_columns(
            because(recommender, log, found, wanted.because, settings.get("on_unknown", "raise"))
        )
    shots = (
        log.group_by("user_id")
        .agg(pl.col("item_id").n_unique().alias("shots"))
        .cast({"user_id": found["user_id"].dtype})
    )
    if not wanted.long:
        rest = [pl.col("because")] if wanted.because else []
        found = found.group_by("user_id", maintain_order=True).agg(
            pl.col("item_id").alias("items"), pl.col("score").alias("scores"), *rest
        )
    if wanted.shots:
        found = found.join(shots, on="user_id", how="left", maintain_order="left").with_columns(
            pl.col("shots").fill_null(0).cast(pl.Int32)
        )
    if wanted.fingerprint:
        found = found.with_columns(pl.lit(recommender.info()["model"]).alias("model"))
    every = pl.concat([shots["shots"].cast(pl.Int32), pl.zeros(len(users.without), pl.Int32, eager=True)])
    return Lists(found, every.alias("shots"))


def whole_users(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in batches that cut no user in two; the rows of a user stand together."""
    rest: pl.DataFrame | None = None
    for batch in batches:
        if not batch.height:
            continue
        table = batch if rest is None else pl.concat([rest, batch])
        mine = table["user_id"] == table["user_id"][-1]
        first = int((~mine).arg_true().max() or 0) + 1 if not mine.all() else 0
        rest = table[first:]
        if first:
            yield table[:first]
    if rest is not None:
        yield rest
