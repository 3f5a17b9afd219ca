"""Csv files: every value is the text it is, until somebody who needs a column says what it holds.

A type is taken only where it loses nothing; a column that fails to be what it looks like stays text, for whoever needs it
to refuse.
"""

import io
from pathlib import Path
from typing import Any

import polars as pl

from mecold.errors import InvalidDataError, few

INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
SURE_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"  # within 64 bits whatever the digits
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_TIME = (
    r"^(?<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?<minute>[0-9]{2}:[0-9]{2})(?::(?<second>[0-9]{2})(?:[.,](?<part>[0-9]{1,9}))?)?"
    r"(?: ?(?:Z|UTC|GMT|(?<sign>[+-])(?<hours>[0-9]{2}):?(?<minutes>[0-9]{2})))?)?$"
)
_SEPARATORS = (";", "\t", "|", "^", "~", "\x01", "\x1f")


def scan_csv(path: Path) -> pl.LazyFrame:
    """All columns as text. Of a header without any comma, what else can separate does: a semicolon, a tab, a bar, ...

    Raises:
        InvalidDataError: if the file is not UTF-8 (nor UTF-16 that says so).
    """
    with path.open("rb") as file:
        head = file.readline(1 << 16)
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        source: Any = path
        if wide:
            source = io.BytesIO(path.read_bytes().decode("utf-16").encode())
            head = source.getvalue().partition(b"\n")[0]
        separator = "\t" if path.suffix.lower() == ".tsv" else _separator(head.decode("utf-8-sig"))
        return pl.scan_csv(source, infer_schema=False, separator=separator, glob=False)
    except UnicodeDecodeError as error:
        raise InvalidDataError(f"Cannot read '{path}': {why_not(error)}") from error


def _separator(header: str) -> str:
    bare = "".join(header.split('"')[::2])  # what stands outside of quotes
    found = [one for one in _SEPARATORS if one in bare]
    return found[0] if len(found) == 1 and "," not in bare else ","


def why_not(error: Exception) -> str:
    """Why a csv file cannot be read, and what to do."""
    if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error):
        return "it is not UTF-8. Save it as UTF-8: iconv -f latin1 -t utf-8 OLD.csv > NEW.csv, if it is Latin-1."
    reason = str(error).strip().splitlines()[0]
    return f"{reason}. Put fields that hold a comma or a line break into quotes, and write a quote inside them twice."


def id_from_text(column: pl.Series, like: Any = None) -> pl.Series:
    """Ids as text, or as integers where that loses nothing: no leading zeros, no more than 64 bits.

    Args:
        column: the text.
        like: `pl.String` or `pl.Int64`, the type of the ids that these are to meet; None goes by the values.
    """
    if like == pl.String:
        return column
    values = column.drop_nulls()
    if values.is_empty() or not values.str.contains(SURE_INTEGER if like is None else INTEGER).all():
        return column
    numbers = column.cast(pl.Int64, strict=False)
    return numbers if numbers.null_count() == column.null_count() else column


def number_from_text(column: pl.Series) -> pl.Series:
    """Numbers, or times; the text itself where a value is neither. A column without values is null."""
    values = column.drop_nulls()
    if values.is_empty():
        return column.cast(pl.Null)
    if values.str.contains(NUMBER).all():
        return column.cast(pl.Float64)
    if values.str.contains(_TIME).all():
        times = times_of(column)
        return times if times.null_count() == column.null_count() else column
    return column


def times_of(column: pl.Series) -> pl.Series:
    """Times in UTC, as which one without a zone counts; null where a day or an hour does not exist."""
    part = column.str.extract_groups(_TIME).struct
    day, minute, second = part.field("day"), part.field("minute").fill_null("00:00"), part.field("second")
    whole = (day + " " + minute + ":" + second.fill_null("00")).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
    micro = part.field("part").fill_null("0").str.pad_end(9, "0").str.slice(0, 6).cast(pl.Int64)
    ahead = part.field("hours").fill_null("0").cast(pl.Int64) * 60 + part.field("minutes").fill_null("0").cast(pl.Int64)
    signed = ahead * (1 - 2 * (part.field("sign").fill_null("+") == "-").cast(pl.Int64))
    return whole + micro.cast(pl.Duration("us")) - (signed * 60_000_000).cast(pl.Duration("us"))


def guessed(column: pl.Series) -> pl.Series:
    """A column of which nothing is said: integers, numbers or times where all of its values are, else text."""
    whole = id_from_text(column)
    return number_from_text(column) if whole.dtype == pl.String else whole


def holds_words(column: pl.Series) -> bool:
    """False for text that is nothing but numbers or times, which describes no item."""
    values = column.drop_nulls()
    return values.is_empty() or not (values.str.contains(NUMBER) | values.str.contains(_TIME)).all()


def unreadable(column: pl.Series) -> pl.Series:
    """The different values of a column that are neither numbers nor times; all of them where both stand mixed."""
    values = column.drop_nulls().unique(maintain_order=True)
    odd = values.filter(~values.str.contains(NUMBER) & times_of(values).is_null())
    return odd if len(odd) else values


def not_integers(ids: pl.Series) -> str:
    """Which ids of text are no integers that could be written in one way only, in words."""
    odd = ids.filter(~ids.str.contains(SURE_INTEGER)).unique(maintain_order=True)
    return f"{few(odd.to_list())} {'is' if len(odd) == 1 else 'are'} none" if len(odd) else "some exceed 64 bits"
