"""Past behaviours out of a log itself: what users were like at earlier days, and what they did in the weeks that followed.

Features are of the time before a day, labels of the time after it; nothing of one goes into the other.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from mecold.data.frames import Columns, FrameLike, id_column, number_column, read_frame, require
from mecold.errors import InvalidDataError

DAY = 86400.0
NAMES = ("user_id", "item_id", "timestamp", "amount", "kind")
MOST_KINDS = 50
LEAST_DID = 10  # users who bought a kind after a day
CAME_BACK, MORE, AGAIN = "came back", "spent more", "returned to an item"


def user_features(
    log: FrameLike, *, ahead: float = 60.0, at: float | None = None, columns: Columns | None = None
) -> pl.DataFrame:
    """What users were like at a moment, by when, how often and for how much they did something.

    Args:
        log: frame or path: `user_id`, `item_id`, `timestamp` (unix seconds or dates), and `amount`, if money is known. A row
            is an event; items may come again.
        ahead: days; what is recent is measured by them.
        at: the moment in unix seconds; nothing from then on is read. None: behind the last event.
        columns: canonical name -> the caller's name.

    Returns:
        A row for each user with an event before: `user_id`; days since the last and the first event; numbers of events, items
        and days; events and days of the last `ahead` days and of a third of these; days from one day with events to the next;
        and with amounts their sums, of all time and of the last `ahead` days.

    Raises:
        InvalidDataError: on columns or settings that cannot be used.
    """
    frame = _read(log, columns, ahead)
    moment = float(frame["timestamp"].max() or 0.0) + 1.0 if at is None else float(at)  # type: ignore[arg-type]
    return _features(frame.filter(pl.col("timestamp") < moment), moment, ahead)


def past_behaviours(
    log: FrameLike, *, ahead: float = 60.0, times: int = 4, until: float | None = None, columns: Columns | None = None
) -> pl.DataFrame:
    """What users did in the `ahead` days that followed on some earlier days: past tasks for `BehaviourTask.fit_meta`.

    Behaviours are `came back` (did anything; who did not has churned), `spent more` (than in as many days before: amounts,
    or events), `returned to an item` (had it before), and, with a column `kind`, `bought <kind>` for the most frequent kinds.

    Args:
        log: as in `user_features`, and maybe `kind`, a name for what an item is.
        ahead: days that are looked ahead.
        times: how many days are looked at: the last such that all of `ahead` is in the log, and earlier ones, half of
            `ahead` apart.
        until: nothing from this moment on, in unix seconds, is read; None: all is.
        columns: canonical name -> the caller's name.

    Returns:
        A row for each user, behaviour and day: `user_id`, `behaviour`, `group` (days before the end), `label`, and the columns
        of `user_features`.

    Raises:
        InvalidDataError: on columns or settings that cannot be used, or a log that is too short.
    """
    frame = _read(log, columns, ahead)
    end = float(frame["timestamp"].max() or 0.0) + 1.0 if until is None else float(until)  # type: ignore[arg-type]
    start = float(frame["timestamp"].min() or 0.0)  # type: ignore[arg-type]
    frame = frame.filter(pl.col("timestamp") < end)
    days = [ahead * (1 + one / 2) for one in range(times)]
    if (short := [day for day in days if end - day * DAY <= start + ahead * DAY / 2]) or not times >= 1:
        raise InvalidDataError(
            f"The log is {(end - start) / DAY:.0f} days long; times={times} days to look back from and ahead={ahead:g} need "
            f"{max(short, default=ahead) + ahead / 2:.0f} and times of 1 or more. Take fewer times, or fewer days ahead."
        )
    return pl.concat([_at(frame, end - day * DAY, day, ahead) for day in days])


def past_tastes(
    log: FrameLike,
    *,
    items: int = 200,
    users: int = 1000,
    share: float = 0.3,
    columns: Columns | None = None,
    rng: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tasks that any log has, where no behaviour was ever labelled: who had an item, by what else they had.

    Args:
        log: frame or path: `user_id` and `item_id`.
        items: how many items, of those that most users had; each is a task.
        users: of each task.
        share: of each user's rows that are kept back to make labels.
        columns: canonical name -> the caller's name.
        rng: seed of what is kept back.

    Returns:
        The log without what was kept back, to make features of; and `user_id`, `behaviour`, `label`.

    Raises:
        InvalidDataError: on columns that cannot be used.
    """
    frame = read_frame(log, "log", columns)
    require(frame, ("user_id", "item_id"), "log")
    chance = np.random.default_rng(rng)
    back = chance.random(len(frame)) < share
    rest, kept = frame.filter(~back), frame.filter(back).select("user_id", "item_id").unique()
    everyone = rest["user_id"].unique().sort()
    kept = kept.filter(pl.col("user_id").is_in(everyone.implode()))
    counts = kept.group_by("item_id").len().sort(["len", "item_id"], descending=[True, False]).head(items)
    before = rest.select("user_id", "item_id").unique()
    parts = []
    for item in counts["item_id"].to_list():
        did = kept.filter(pl.col("item_id") == item)["user_id"]
        had = before.filter(pl.col("item_id") == item)["user_id"]
        asked = everyone.filter(~everyone.is_in(had.implode()))  # who had it before can't be told from who had it since
        asked = asked.gather(chance.permutation(len(asked))[:users])
        label = asked.is_in(did.implode()).cast(pl.Float64).alias("label")
        parts.append(pl.DataFrame([asked, pl.Series("behaviour", [f"had {item}"] * len(asked)), label]))
    if not parts:
        raise InvalidDataError(f"Of {len(frame):,} rows of the log none could be kept back. Pass a longer log.")
    return rest, pl.concat(parts)


def _read(log: FrameLike, columns: Columns | None, ahead: float) -> pl.DataFrame:
    if not 0 < ahead < np.inf:
        raise InvalidDataError(f"ahead={ahead} must be a number of days above 0.")
    frame = read_frame(log, "log", columns, names=NAMES, guess=("timestamp", "amount"))
    require(frame, NAMES[:3], "log")
    found: list[pl.Series] = [id_column(frame[name], f"{name} of the log").alias(name) for name in NAMES[:2]]
    for name in ("timestamp", "amount"):
        if (numbers := number_column(frame, name, "log")) is not None:
            found.append(numbers.alias(name))
        elif name == "timestamp":
            raise InvalidDataError("timestamp of the log holds no time.")
    if "kind" in frame.columns:
        found.append(frame["kind"].cast(pl.String))
    return pl.DataFrame(found)


def _features(frame: pl.DataFrame, moment: float, ahead: float) -> pl.DataFrame:
    ago = (moment - pl.col("timestamp")) / DAY
    day = (pl.col("timestamp") / DAY).floor()
    recent, late = ago <= ahead, ago <= ahead / 3
    numbers = [
        ago.min().alias("days since last"),
        ago.max().alias("days since first"),
        pl.len().cast(pl.Float64).alias("events"),
        pl.col("item_id").n_unique().cast(pl.Float64).alias("items"),
        day.n_unique().cast(pl.Float64).alias("days"),
        recent.sum().cast(pl.Float64).alias("recent events"),
        day.filter(recent).n_unique().cast(pl.Float64).alias("recent days"),
        late.sum().cast(pl.Float64).alias("late events"),
        ((ago.max() - ago.min()) / day.n_unique()).alias("days between"),
    ]
    if "amount" in frame.columns:
        numbers += [
            pl.col("amount").sum().alias("money"),
            pl.col("amount").filter(recent).sum().alias("recent money"),
        ]
    return frame.group_by("user_id").agg(numbers).sort("user_id")


def _at(frame: pl.DataFrame, moment: float, before_end: float, ahead: float) -> pl.DataFrame:
    """What users did in the days after a moment, beside what they were like then."""
    past = frame.filter(pl.col("timestamp") < moment)
    then = frame.filter((pl.col("timestamp") >= moment) & (pl.col("timestamp") < moment + ahead * DAY))
    users = _features(past, moment, ahead)
    spent = pl.col("amount").sum() if "amount" in frame.columns else pl.len().cast(pl.Float64)
    recent = past.filter(pl.col("timestamp") >= moment - ahead * DAY).group_by("user_id").agg(spent.alias("was"))
    now = then.group_by("user_id").agg(spent.alias("is"))
    both = users.select("user_id").join(recent, on="user_id", how="left", maintain_order="left")
    both = both.join(now, on="user_id", how="left", maintain_order="left").fill_null(0.0)
    again = then.join(past.select("user_id", "item_id").unique(), on=["user_id", "item_id"], how="semi")["user_id"]
    labels = {
        CAME_BACK: users["user_id"].is_in(now["user_id"].implode()),
        MORE: both["is"] > both["was"],
        AGAIN: users["user_id"].is_in(again.unique().implode()),
    }
    if "kind" in frame.columns:
        labels |= _kinds(users["user_id"], then)
    found = [
        users.with_columns(
            pl.lit(name).alias("behaviour"), pl.lit(f"{before_end:g} days").alias("group"),
            label.cast(pl.Float64).alias("label"),
        )
        for name, label in labels.items()
    ]  # fmt: skip
    ordered: Sequence[str] = ("user_id", "behaviour", "group", "label")
    return pl.concat(found).select(*ordered, pl.exclude(ordered))


def _kinds(users: pl.Series, then: pl.DataFrame) -> dict[str, pl.Series]:
    counts = then.group_by("kind").agg(pl.col("user_id").n_unique().alias("n")).drop_nulls()
    common = counts.filter(pl.col("n") >= LEAST_DID).sort(["n", "kind"], descending=[True, False]).head(MOST_KINDS)
    return {
        f"bought {kind}": users.is_in(then.filter(pl.col("kind") == kind)["user_id"].unique().implode())
        for kind in common["kind"].to_list()
    }
