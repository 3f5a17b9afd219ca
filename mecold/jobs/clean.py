"""Rows of files, as they come, become rows that can be used, and rows that are set aside with a reason each.

The same rules as those of a log (`mecold.data.interactions`), row by row: what would make a whole frame be refused
costs one row here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from mecold.data.delimited import INTEGER, NUMBER, times_of
from mecold.data.frames import INTERACTION_NUMBERS, id_column
from mecold.data.grouped import long_form
from mecold.errors import InvalidDataError, few

REJECTED: Mapping[str, Any] = {
    "file": pl.String, "row": pl.Int64, "user_id": pl.String, "item_id": pl.String, "reason": pl.String,
}  # fmt: skip
"""Columns of rows that are set aside: the file and its row, from 0, both null where a row was found wanting later."""

_LARGEST = 3.4e38


@dataclass(frozen=True)
class Known:
    """What a model knows.

    Args:
        items: ids of its items.
        events: names of its kinds of events; empty where it has none.
    """

    items: pl.Series
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Rows of one batch.

    Args:
        good: `user_id`, and as far as they are there `item_id`, numbers and `event`; a user who is left without a row has
            one without an item.
        rejected: what was set aside, with the columns of `REJECTED`.
        read: how many rows there were, one per item.
        kinds: column of times -> how its values were written, `"numbers"` or `"dates"`.
    """

    good: pl.DataFrame
    rejected: pl.DataFrame
    read: int
    kinds: Mapping[str, set[str]]


def clean(
    frame: pl.DataFrame, what: str, file: str, start: int, place: int, known: Known | None, *, text: bool
) -> Rows:
    """Judge the rows of a batch.

    Args:
        frame: a batch under canonical names.
        what: the table's name in messages.
        file: name of the file.
        start: row of the file that the batch begins with.
        place: position of its first item, where lists have no times.
        known: the model's items; None where any item will do, or there are none.
        text: the values are text, as those of a csv file.

    Raises:
        InvalidDataError: if a column is of a type that no row can mend.
    """
    given = frame.with_columns(pl.int_range(start, start + pl.len(), dtype=pl.Int64).alias("__row"))
    rows, kinds = long_form(given, what, place), {}
    listed = rows.height != given.height or any(isinstance(kind, pl.List | pl.Array) for kind in frame.schema.values())
    reasons: list[pl.Expr] = []
    columns = {"user_id": _ids(rows["user_id"], f"user_id of the {what}", text=text, kind=pl.String)}
    reasons.append(_when(_missing("user_id"), "no user_id"))
    if "item_id" in rows.columns:
        kind = pl.String if known is None else known.items.dtype
        columns["item_id"] = _ids(rows["item_id"], f"item_id of the {what}", text=text, kind=kind)
        columns["__item"] = rows["item_id"].cast(pl.String)
        reasons.append(_when(_missing("__item"), "no item_id"))
        reasons.append(_when(pl.col("item_id").is_null(), "item_id is no integer"))
    for name in (name for name in INTERACTION_NUMBERS if name in rows.columns):
        columns[name], bad, kinds[name] = _numbers(rows[name], name)
        columns[f"__bad {name}"] = bad
        reasons.append(_when(pl.col(f"__bad {name}"), f"{name} cannot be read, or is not finite"))
    if "weight" in columns:
        reasons.append(_when(pl.col("weight") <= 0, "weight is not positive"))
    if "label" in columns:
        reasons.append(_when(pl.col("label").abs() > 1, "label outside -1 to 1"))
    if "event" in rows.columns and known is not None and known.events:
        column = rows["event"].cast(pl.String)
        columns["event"] = column.set((column == "").fill_null(value=False), None)
        reasons.append(_when(~pl.col("event").is_in(list(known.events)), "an event that the model does not know"))
    table = pl.DataFrame([column.alias(name) for name, column in columns.items()]).with_columns(rows["__row"])
    if known is not None and "item_id" in table.columns:
        there = pl.DataFrame({"item_id": known.items, "__there": True})
        table = table.join(there, on="item_id", how="left", maintain_order="left")
        reasons.append(_when(pl.col("__there").is_null(), "unknown item"))
    table = table.with_columns(pl.coalesce(reasons).alias("reason"))
    if listed:  # an empty list is no mistake: its user has no history
        empty = (rows["item_id"].is_null()) & ~rows["__row"].is_duplicated()
        fine = empty & (table["reason"] == "no item_id")
        table = table.with_columns(pl.when(fine).then(None).otherwise("reason").alias("reason"))
    return _parted(table, file, rows.height, kinds)


def _parted(table: pl.DataFrame, file: str, read: int, kinds: Mapping[str, set[str]]) -> Rows:
    names = [name for name in table.columns if not name.startswith("__") and name != "reason"]
    fine = table["reason"].is_null()
    good = table.filter(fine).select(names)
    if fine.all():
        return Rows(good, pl.DataFrame(schema=dict(REJECTED)), read, kinds)
    aside = table.filter(~fine)
    item = pl.col("__item") if "__item" in table.columns else pl.lit(None, pl.String)
    rejected = aside.select(
        pl.lit(file).alias("file"), pl.col("__row").alias("row"), pl.col("user_id").cast(pl.String),
        item.alias("item_id"), "reason",
    )  # fmt: skip
    if "item_id" in names:
        lost = (
            aside.filter(~_missing("user_id"))
            .join(good, on="user_id", how="anti")
            .unique("user_id", maintain_order=True)
        )
        good = pl.concat([good, lost.select("user_id")], how="diagonal")
    return Rows(good, rejected, read, kinds)


def values_in(good: pl.DataFrame) -> Iterator[tuple[str, int]]:
    """Number of values that are there in each column of numbers and of events, of rows with an item."""
    if "item_id" not in good.columns:
        return
    rows = good.filter(pl.col("item_id").is_not_null())
    for name in (name for name in (*INTERACTION_NUMBERS, "event") if name in good.columns):
        yield name, rows.height - rows[name].null_count()


def _when(condition: pl.Expr, reason: str) -> pl.Expr:
    return pl.when(condition).then(pl.lit(reason))


def _missing(name: str) -> pl.Expr:
    return pl.col(name).is_null() | (pl.col(name).cast(pl.String) == "")


def _ids(column: pl.Series, what: str, *, text: bool, kind: Any) -> pl.Series:
    """Ids as text or integers; those of a text file become integers where they are to meet such."""
    if text or column.dtype == pl.String:
        if kind == pl.String:
            return column.cast(pl.String)
        if text:
            return column.set(~column.str.contains(INTEGER).fill_null(value=False), None).cast(pl.Int64, strict=False)
    if column.null_count() == len(column):
        return column.cast(kind)
    id_column(
        column.drop_nulls().filter(column.drop_nulls().cast(pl.String) != ""), what
    )  # refuses what is no id at all
    cast = column.cast(pl.Int64 if column.dtype.is_integer() else pl.String)
    if kind == pl.Int64 and cast.dtype != kind:
        raise InvalidDataError(
            f"{what} holds text, such as {few(cast.drop_nulls().head(1).to_list())}; the catalogue's ids are integers. Cast it."
        )
    if kind == pl.String and cast.dtype != kind and what.startswith("item_id"):
        raise InvalidDataError(f"{what} holds integers; the catalogue's ids are strings. Cast it.")
    return cast


def _numbers(column: pl.Series, name: str) -> tuple[pl.Series, pl.Series, set[str]]:
    """Numbers, or times in seconds; which values are neither; and how they were written."""
    kinds: set[str] = set()
    if column.dtype == pl.String:
        filled = column.set((column.str.strip_chars() == "").fill_null(value=False), None)
        as_number = filled.set(~filled.str.contains(NUMBER).fill_null(value=False), None).cast(pl.Float64, strict=False)
        as_time = times_of(filled).dt.timestamp("us").cast(pl.Float64) / 1e6
        kinds |= {word for word, some in (("numbers", as_number), ("dates", as_time)) if some.null_count() < len(some)}
        found = pl.select(pl.coalesce(as_number, as_time)).to_series()
        missing = filled.is_null()
    elif column.dtype in (pl.Date, pl.Datetime):
        found, missing = column.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64) / 1e6, column.is_null()
        kinds.add("dates")
    elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        found = column.cast(pl.Float64).fill_nan(None)
        missing = found.is_null()
        kinds |= set() if missing.all() else {"numbers"}
    else:
        raise InvalidDataError(f"{name} holds {column.dtype}; it must be numeric, or a date. Cast the column.")
    bad = ~missing & (found.is_null() | ~found.is_finite().fill_null(value=True))
    if name not in ("timestamp", "position"):
        bad = bad | (found.abs() > _LARGEST).fill_null(value=False)
    return found, bad, kinds
