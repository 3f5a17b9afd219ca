"""Frames at the edge: whatever tabular thing the caller has becomes one polars frame with canonical column names.

The one place that knows about pandas, arrow, files and column names. It judges columns, not their meaning.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import narwhals as nw
import polars as pl

from mecold.errors import InvalidDataError, few

FrameLike: TypeAlias = Any
"""A polars, pandas or arrow table (anything narwhals reads), or the path of a parquet or csv file."""

Columns: TypeAlias = Mapping[str, str]
"""Canonical column name -> the caller's column name, for those that differ."""

_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


def read_frame(source: FrameLike, what: str, columns: Columns | None = None) -> pl.DataFrame:
    """The source as a polars frame, the mapped columns under their canonical names.

    Args:
        source: a frame or a path.
        what: the frame's name in messages, such as `"interactions"`.
        columns: canonical name -> the caller's name.

    Raises:
        InvalidDataError: if the source is of no known kind, a mapped column is missing, or a file cannot be read.
    """
    frame = _read_path(Path(source), what) if isinstance(source, str | Path) else _to_polars(source, what)
    renames = {theirs: ours for ours, theirs in (columns or {}).items() if theirs != ours}
    missing = [theirs for theirs in renames if theirs not in frame.columns]
    if missing:
        raise InvalidDataError(
            f"The {what} have no column {few(missing)}, which `columns` maps; they have {few(frame.columns, 20)}."
        )
    hidden = [ours for ours in renames.values() if ours in frame.columns and ours not in renames]
    return frame.drop(hidden).rename(renames)


def _read_path(path: Path, what: str) -> pl.DataFrame:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {".parquet": pl.read_parquet, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidDataError(f"Cannot read the {what} from '{path}': the name must end in .parquet or .csv.")
    if not path.is_file():
        raise InvalidDataError(f"There is no file '{path}' to read the {what} from.")
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidDataError(f"Cannot read the {what} from '{path}': {error}") from error


def _read_csv(path: Path) -> pl.DataFrame:
    """A csv file, its column types settled by all of their values: `007` stays the string it is."""
    frame = pl.read_csv(path, infer_schema=False)
    return frame.with_columns([_typed(column) for column in frame.get_columns()])


def _typed(column: pl.Series) -> pl.Series:
    values = column.drop_nulls()
    if values.is_empty():
        return column.cast(pl.Null)
    if values.str.contains(r"^(0|-?[1-9][0-9]{0,17})$").all():
        return column.cast(pl.Int64)
    if values.str.contains(r"^-?(0|[1-9][0-9]*)?(\.[0-9]+)?([eE][+-]?[0-9]+)?$").all():
        return column.cast(pl.Float64)
    if values.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)").all():
        return column.str.to_datetime()
    return column


def _to_polars(source: FrameLike, what: str) -> pl.DataFrame:
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, pl.DataFrame):
        return source
    try:
        known = nw.from_native(source, eager_only=True)
    except TypeError as error:
        raise InvalidDataError(
            f"The {what} are a {type(source).__name__}; pass a polars, pandas or arrow table, or a path to a "
            ".parquet or .csv file."
        ) from error
    try:
        frame: pl.DataFrame = known.to_polars()
    except ImportError as error:
        raise InvalidDataError(
            f"To read the {what} from pandas, pyarrow must be there: pip install pyarrow."
        ) from error
    except Exception as error:  # whatever kind the library behind raises, e.g. on a column of mixed Python objects
        raise InvalidDataError(
            f"The {what} cannot be converted: {error}. A column that mixes types (strings and integers, say) must be "
            "made one type first."
        ) from error
    return frame


def only_known(columns: Columns | None, known: Sequence[str], what: str) -> None:
    """Refuse a mapping to names that nobody reads.

    Raises:
        InvalidDataError: naming them, and the names there are.
    """
    odd = [f"{ours}={theirs}" for ours, theirs in (columns or {}).items() if ours not in known]
    if odd:
        raise InvalidDataError(
            f"The mapping of the {what} has {few(odd)}; it maps canonical names to yours, and the names are {', '.join(known)}."
        )


def require(frame: pl.DataFrame, names: Sequence[str], what: str) -> None:
    """Check that the canonical columns are there.

    Raises:
        InvalidDataError: naming the missing columns, those that are there, and how to map them.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        mapping = ", ".join(f"{name!r}: <your column>" for name in missing)
        raise InvalidDataError(
            f"The {what} need the column {few(missing)}; they have {few(frame.columns, 20)}. "
            f"Rename it, or map it with columns={{{mapping}}}."
        )


def id_column(column: pl.Series, what: str) -> pl.Series:
    """The ids as String or Int64, none of them missing.

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
        return column.cast(pl.String)
    if column.dtype not in _INTEGERS:
        raise InvalidDataError(f"{what} holds {column.dtype}; ids are strings or integers. Cast the column first.")
    if column.dtype == pl.UInt64 and len(column) and int(column.max()) >= 2**63:  # type: ignore[arg-type]
        big = column.filter(column >= 2**63)
        raise InvalidDataError(
            f"{len(big):,} values of {what} exceed 64 signed bits ({few(big.head(3).to_list())}). Cast them to strings."
        )
    return column.cast(pl.Int64)


def number_column(frame: pl.DataFrame, name: str, what: str) -> pl.Series | None:
    """An optional numeric column as Float64, or None where it is absent or wholly empty.

    Raises:
        InvalidDataError: if some values are missing or not finite, or the column is not numeric.
    """
    if name not in frame.columns:
        return None
    column = frame[name]
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64) / 1e6
    elif not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise InvalidDataError(f"{name} of the {what} holds {column.dtype}; it must be numeric (or a date for a time).")
    column = column.cast(pl.Float64)
    bad = ~column.is_finite().fill_null(value=False)
    if bad.all():
        return None
    if bad.any():
        raise InvalidDataError(
            f"{int(bad.sum()):,} of {len(column):,} values of {name} in the {what} are null, NaN or infinite "
            f"(rows {few(bad.arg_true().to_list())}). Fill them, drop those rows, or leave out the whole column."
        )
    return column
