"""How often texts were shown and clicked."""

from collections.abc import Sequence

import polars as pl

from mecold.data.frames import Columns, FrameLike, number_column, read_frame, require
from mecold.errors import InvalidDataError, few

SHOWN = ("text", "impressions", "clicks", "group")


def read_impressions(source: FrameLike, columns: Columns | None = None, more: Sequence[str] = ()) -> pl.DataFrame:
    """How often texts were shown and clicked.

    Args:
        source: frame or path: `text`, `impressions`, `clicks`, and `group`, if texts were shown beside one another.
        columns: canonical name -> the caller's name.
        more: numbers or times that are read too, where they are there.

    Returns:
        These columns; one group where none was told. Rows that were never shown, or have no text, are left out.

    Raises:
        InvalidDataError: naming a column that is missing or no number, or rows with more clicks than impressions.
    """
    what = "impressions"
    frame = read_frame(source, what, columns, names=(*SHOWN, *more), guess=(*SHOWN[1:3], *more))
    require(frame, SHOWN[:3], what)
    more = tuple(name for name in more if name in frame.columns and frame[name].null_count() < frame.height)
    if "group" in frame.columns and 0 < (missing := frame["group"].null_count()) < frame.height:
        raise InvalidDataError(
            f"{missing:,} of {frame.height:,} rows of the {what} have no group. Give each its test or place, or drop these rows."
        )
    frame = checked_counts(frame, what, more)
    group = pl.col("group").cast(pl.String) if "group" in frame.columns else pl.lit("", pl.String)
    frame = frame.select(
        pl.col("text").cast(pl.String), "impressions", "clicks", group.fill_null("").alias("group"), *more
    )
    return frame.filter((pl.col("text") != "") & (pl.col("impressions") > 0))


def checked_counts(frame: pl.DataFrame, what: str, more: Sequence[str] = ()) -> pl.DataFrame:
    """The frame with `impressions` and `clicks`, and whatever else is to be a number, as float64.

    Raises:
        InvalidDataError: naming a column that is no number, or rows with more clicks than impressions.
    """
    if frame.is_empty():
        return frame.with_columns(pl.col(name).cast(pl.Float64) for name in (*SHOWN[1:3], *more))
    for name in (*SHOWN[1:3], *more):
        if (numbers := number_column(frame, name, what)) is None:
            raise InvalidDataError(f"{name} of the {what} holds no number.")
        frame = frame.with_columns(numbers.alias(name))
    bad = ((frame["clicks"] < 0) | (frame["clicks"] > frame["impressions"])).arg_true().to_list()
    if bad:
        raise InvalidDataError(
            f"{len(bad):,} of {len(frame):,} rows of the {what} have more clicks than impressions, or fewer than none "
            f"(rows {few(bad)}). Drop or mend them first."
        )
    return frame
