"""Frames at the edge: whatever tabular thing the caller has becomes one polars frame with canonical column names.

The one place that knows about pandas, arrow, files and column names. It judges columns, not their meaning.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import narwhals as nw
import polars as pl

from mecold.data.delimited import guessed, id_from_text, not_integers, number_from_text, unreadable
from mecold.data.files import ENDINGS, files_of, read_files
from mecold.data.grouped import LISTS, long_form
from mecold.errors import InvalidDataError, few
from mecold.forks import check_frames
from mecold.values import table

FrameLike: TypeAlias = Any
"""A polars, pandas or arrow table (anything narwhals reads), or the path of files: parquet, arrow, csv or jsonl; a folder,
a glob, or an address that fsspec opens."""

Columns: TypeAlias = Mapping[str, str]
"""Canonical column name -> the caller's column name, for those that differ."""

INTERACTION_NUMBERS = ("timestamp", "position", "rating", "weight", "label")
INTERACTION_NAMES = ("user_id", "item_id", *INTERACTION_NUMBERS, "event", *LISTS)
"""The canonical names of interactions."""

TIMES = ("timestamp", "position")
"""Those of them that order a history; as text too, they are read as a file's."""

_LARGEST = 3.4e38
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


def read_frame(
    source: FrameLike,
    what: str,
    columns: Columns | None = None,
    *,
    names: Sequence[str] | None = None,
    ids: Mapping[str, Any] | None = None,
    guess: Sequence[str] = (),
) -> pl.DataFrame:
    """The source as a polars frame, the mapped columns under their canonical names.

    Of a csv file, ids become text or integers, numbers and times what they are, and other columns stay text; of a jsonl
    file texts that are to be numbers or times become these. Where there are users and items, one list of items per user
    becomes one row per item (`mecold.data.grouped`).

    Args:
        source: a frame or a path.
        what: the frame's name in messages, such as `"interactions"`.
        columns: canonical name -> the caller's name.
        names: the canonical names of such a frame; where None any may be mapped to, and all columns of a csv are typed.
        ids: column of ids -> `pl.String` or `pl.Int64`, what those of a csv become as far as nothing is lost; by their own
            values where this does not say.
        guess: further columns of a csv that are numbers or times where all of their values are.

    Raises:
        InvalidDataError: if the source is of no known kind, a mapped column is missing, `columns` maps what is no canonical
            name, or a file cannot be read.
    """
    check_frames(f"Reading the {what} from a table or file")
    columns = None if columns is None else table(columns, "columns", "canonical names to your columns")
    check_names(columns or {}, names, what)
    frame, kind = read_files(source, what) if isinstance(source, str | Path) else (_to_polars(source, what), None)
    renames = {theirs: ours for ours, theirs in (columns or {}).items() if theirs != ours}
    missing = [theirs for theirs in renames if theirs not in frame.columns]
    if missing:
        raise InvalidDataError(
            f"The {what} have no column {few(missing)}, which `columns` maps; they have {few(frame.columns, 20)}. Name one "
            "of these."
        )
    hidden = [ours for ours in renames.values() if ours in frame.columns and ours not in renames]
    frame = frame.drop(hidden).rename(renames)
    if names is not None and {"user_id", "item_id"} <= set(names):
        frame = long_form(frame, what)
    return frame if kind not in ("csv", "jsonl") else typed(frame, names, ids or {}, guess, of_text=kind == "csv")


def check_names(columns: Columns, names: Sequence[str] | None, what: str) -> None:
    """Check that a mapping maps canonical names, each to a column of its own.

    Raises:
        InvalidDataError: naming those that are none, and all that are.
    """
    unknown = [f"{ours}={theirs}" for ours, theirs in columns.items() if names is not None and ours not in names]
    if unknown:
        raise InvalidDataError(
            f"{few(unknown)}: the {what} know no such name. A mapping is canonical name to your column; canonical are "
            f"{few(names or (), 30)}."
        )
    theirs = list(columns.values())
    if twice := sorted({name for name in theirs if theirs.count(name) > 1}):
        raise InvalidDataError(f"`columns` maps two names of the {what} to {few(twice)}. Map one, or copy the column.")


def typed(
    frame: pl.DataFrame,
    names: Sequence[str] | None,
    ids: Mapping[str, Any],
    guess: Sequence[str] = (),
    *,
    of_text: bool = True,
) -> pl.DataFrame:
    """A frame out of a file of text with types where they are needed.

    Args:
        frame: as it was read.
        names: canonical names, as in `read_frame`.
        ids: types of columns of ids, as there.
        guess: further columns, as there.
        of_text: nothing but text is in the file; otherwise only numbers and times may stand as text, and all else is what
            it is.
    """

    def of(name: str, column: pl.Series) -> pl.Series:
        if column.dtype != pl.String:
            return column
        if not of_text:
            numeric = name in guess or (names is not None and name in names and name in INTERACTION_NUMBERS)
            return number_from_text(column) if numeric else column
        if name in ids or (names is not None and name in names and name.endswith("_id")):
            return id_from_text(column, ids.get(name))
        if names is None or name in guess:
            return guessed(column)
        return number_from_text(column) if name in names and name in INTERACTION_NUMBERS else column

    return frame.with_columns([of(name, frame[name]).alias(name) for name in frame.columns])


def as_said(frame: pl.DataFrame, types: Mapping[str, Any], what: str) -> pl.DataFrame:
    """The frame with columns of ids of the types that somebody said.

    Args:
        frame: read with `ids=types`.
        types: column of ids -> `pl.String` or `pl.Int64`.
        what: the frame's name in messages.

    Raises:
        InvalidDataError: if text that is no integer is to be one, with counts.
    """
    for name, kind in types.items():
        if name not in frame.columns:
            continue
        column = id_column(frame[name], f"{name} of the {what}")
        whole = id_from_text(column, pl.Int64) if kind == pl.Int64 and column.dtype == pl.String else column.cast(kind)
        if whole.dtype != kind:
            raise InvalidDataError(f"{name} of the {what} is to be integer: {not_integers(column)}.")
        frame = frame.with_columns(whole.alias(name))
    return frame


def column_names(path: str | Path, what: str) -> list[str]:
    """The columns of files as they are called there; of them no more is read.

    Raises:
        InvalidDataError: if they are of no known kind, not there, or cannot be read.
    """
    return list(dict.fromkeys(name for file in files_of(path, what) for name in file.columns(what)))


def _to_polars(source: FrameLike, what: str) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return source
    try:
        if isinstance(source, pl.LazyFrame):
            return source.collect()
        known = nw.from_native(source, eager_only=True, pass_through=True)
        frame: pl.DataFrame | None = known.to_polars() if isinstance(known, nw.DataFrame) else None
    except ImportError as error:
        raise InvalidDataError(
            f"To read the {what} from pandas, pyarrow must be there: pip install pyarrow."
        ) from error
    except Exception as error:  # whatever kind the library behind raises, e.g. on a column of mixed Python objects
        raise InvalidDataError(
            f"The {what} cannot be converted: {error}. A column that mixes types (strings and integers, say) must be "
            "made one type first, and no name may stand twice."
        ) from error
    if frame is None:
        raise InvalidDataError(
            f"The {what} are a {type(source).__name__}; pass a polars, pandas or arrow table, or a path to files that end in "
            f"{ENDINGS}."
        )
    return frame


def require(frame: pl.DataFrame, names: Sequence[str], what: str) -> None:
    """Check that the canonical columns are there.

    Raises:
        InvalidDataError: naming the missing columns, those that are there, and how to map them.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        mapping = ", ".join(f"{name!r}: <your column>" for name in missing)
        glued = any(mark in name for name in frame.columns for mark in ";\t|^~:")
        hint = " (Does something else than a comma separate them? Save the csv with commas.)" if glued else ""
        raise InvalidDataError(
            f"The {what} need the column {few(missing)}; they have {few(frame.columns, 20)}.{hint} "
            f"Rename it, or map it with columns={{{mapping}}}."
        )


def id_column(column: pl.Series, what: str) -> pl.Series:
    """The ids as String or Int64, none of them missing; an empty text is missing too.

    Args:
        column: the caller's ids.
        what: whose ids these are in messages, such as `"item_id of the interactions"`.

    Raises:
        InvalidDataError: on nulls, floats, other types, and integers beyond 64 signed bits, with counts.
    """
    missing = column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)
    if missing:
        rows = column.is_null().arg_true().to_list() or column.is_nan().arg_true().to_list()
        raise InvalidDataError(
            f"{missing:,} of {len(column):,} values of {what} are missing (rows {few(rows)}). Fill or drop them first."
        )
    if column.dtype in (pl.Categorical, pl.Enum, pl.String) or column.dtype == pl.Null:
        text = column.cast(pl.String)
        if empty := (text == "").arg_true().to_list():
            raise InvalidDataError(
                f"{len(empty):,} of {len(text):,} values of {what} are empty, which is nobody's id (rows {few(empty)}). "
                "Fill or drop them first: each guest one id, say, or frame.filter(pl.col(...) != '')."
            )
        return text
    if column.dtype not in _INTEGERS:
        raise InvalidDataError(f"{what} holds {column.dtype}; ids are strings or integers. Cast the column first.")
    if column.dtype == pl.UInt64 and len(column) and int(column.max()) >= 2**63:  # type: ignore[arg-type]
        big = column.filter(column >= 2**63)
        raise InvalidDataError(
            f"{len(big):,} values of {what} exceed 64 signed bits ({few(big.head(3).to_list())}). Cast them to strings."
        )
    return column.cast(pl.Int64)


def text_column(frame: pl.DataFrame, name: str, what: str) -> pl.Series | None:
    """An optional column of names as String, or None where it is absent or wholly empty.

    Raises:
        InvalidDataError: if some values are missing or empty, or it holds anything else than texts, categories or integers.
    """
    if name not in frame.columns or frame[name].null_count() == frame.height:
        return None
    return id_column(frame[name], f"{name} of the {what}").cast(pl.String)


def number_column(frame: pl.DataFrame, name: str, what: str) -> pl.Series | None:
    """An optional numeric column as Float64, or None where it is absent or wholly empty.

    Raises:
        InvalidDataError: if some values are missing or not finite, or the column is not numeric.
    """
    if name not in frame.columns:
        return None
    column = frame[name]
    if column.dtype == pl.String and name in TIMES:
        column = number_from_text(column)
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64) / 1e6
    elif not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        shown = f" ({few(unreadable(column))})" if column.dtype == pl.String else ""
        raise InvalidDataError(
            f"{name} of the {what} holds {column.dtype}{shown}; it must be numeric (or a date for a time: of type Date or "
            "Datetime, in a csv 2024-01-31 or 2024-01-31 23:59:59 UTC)."
        )
    column = column.cast(pl.Float64)
    if (column.is_null() | column.is_nan().fill_null(value=True)).all():
        return None
    bad = ~column.is_finite().fill_null(value=False)
    if name not in TIMES:  # these are kept as float32
        bad |= column.abs() > _LARGEST
    if bad.any():
        raise InvalidDataError(
            f"{int(bad.sum()):,} of {len(column):,} values of {name} in the {what} are null, NaN, infinite or beyond 3.4e38 "
            f"(rows {few(bad.arg_true().to_list())}). Fill them, drop those rows, or leave out the whole column."
        )
    return column


def told_columns(what: str, frame: pl.DataFrame, used: Mapping[str, Any]) -> str:
    """Which columns are read, as what, and which are left aside: one line for the notes of a fit.

    Args:
        what: the frame's name.
        frame: the frame under canonical names.
        used: column -> what it was read as: a type, or words.
    """
    words = {pl.String: "text", pl.Int64: "integers", pl.Float64: "numbers"}
    read = ", ".join(f"{name} ({words.get(kind, kind)})" for name, kind in used.items())
    aside = [name for name in frame.columns if name not in used]
    return f"{what}: read {read}; left aside: {few(aside, 12) if aside else 'nothing'}."
