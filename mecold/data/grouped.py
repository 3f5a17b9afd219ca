"""Histories with one row per user: a list of items in a cell, and lists beside it, become one row per item.

A column of lists is spread out wherever it comes from. A file of text has no lists; there a column `items` holds them as
JSON, `["a", "b"]`, or bare, with blanks, commas, semicolons or bars between.
"""

import json

import polars as pl

from mecold.errors import InvalidDataError, few

LISTS = ("items", "times")
"""What lists of items and of their times may be called too."""

_NAMES = {"items": "item_id", "times": "timestamp"}
_BETWEEN = "[|;,\\s]+"
_ORDERS = ("timestamp", "position")


def long_form(frame: pl.DataFrame, what: str, start: int = 0) -> pl.DataFrame:
    """One row per item; the frame itself where it is so already.

    An empty list leaves one row without an item. Lists are oldest first: where nothing else orders the histories, the place
    of each row becomes its `position`.

    Args:
        frame: under canonical names, or with `items` and `times`.
        what: the frame's name in messages.
        start: the first position.

    Raises:
        InvalidDataError: if a cell is no list, or the lists of a row are not equally long, with counts.
    """
    for theirs, ours in _NAMES.items():
        if theirs in frame.columns and ours not in frame.columns:
            frame = frame.rename({theirs: ours})
            if frame[ours].dtype == pl.String:
                frame = frame.with_columns(_split(frame[ours], theirs, what).alias(ours))
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if "item_id" not in lists:
        return frame
    frame = frame.with_columns(pl.col(name).arr.to_list() for name in lists if isinstance(frame.schema[name], pl.Array))
    sizes = frame.select(pl.col(name).list.len().fill_null(0) for name in lists)
    odd = sizes.with_row_index("row").filter(pl.any_horizontal(pl.col(name) != pl.col("item_id") for name in lists))
    if odd.height:
        raise InvalidDataError(
            f"{odd.height:,} of {frame.height:,} rows of the {what} have lists of different lengths in {few(lists)} (rows "
            f"{few(odd['row'].to_list())}). Give each item one value, or leave that column out."
        )
    filled = frame.with_columns(pl.when(pl.col(name).list.len() > 0).then(pl.col(name)) for name in lists)
    spread = filled.explode(lists)  # an empty list has no row of its own in every version of polars, a missing one has
    if any(name in frame.columns for name in _ORDERS):
        return spread
    return spread.with_columns(pl.int_range(start, start + pl.len(), dtype=pl.Int64).alias("position"))


def _split(column: pl.Series, theirs: str, what: str) -> pl.Series:
    """Lists out of texts, each value as the text that it is."""
    bare = column.str.strip_chars()
    as_json = bare.str.starts_with("[").fill_null(value=False)
    parts = bare.str.replace_all(_BETWEEN, "\0").str.strip_chars("\0").str.split("\0").to_list()
    for place, cell in zip(as_json.arg_true().to_list(), bare.filter(as_json).to_list(), strict=True):
        try:
            parts[place] = [str(value) for value in json.loads(cell)]
        except ValueError as error:
            raise InvalidDataError(
                f"A cell of `{theirs}` of the {what} begins with [ and is no JSON list: {cell[:60]!r} (row {place}). Write "
                '["a", "b"], or bare: a b.'
            ) from error
    return pl.Series(theirs, [None if some == [""] else some for some in parts], dtype=pl.List(pl.String))
