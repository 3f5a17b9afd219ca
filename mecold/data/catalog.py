"""The items: id <-> row, and the text of each. The one place that meets unknown ids and decides what an item's text is.

A catalogue is never changed in place: `extended` returns a new one, so that a reader holds the old or the new.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from mecold.data.delimited import holds_words, not_integers
from mecold.data.frames import Columns, FrameLike, id_column, read_frame, require, told_columns
from mecold.errors import DataWarning, InvalidDataError, UnknownItemError, few, foreign
from mecold.lazy import cached_property
from mecold.types import ItemId
from mecold.values import whole

USUAL_FIELDS = ("title", "name", "brand", "author", "category", "genres", "grapes", "country", "region", "description")


_TEXTUAL = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True)
class TextTemplate:
    """How an item's columns become its text.

    Args:
        fields: columns in order; None takes those of `USUAL_FIELDS` that are there, or else every string column that
            holds more than numbers and times.
        separator: what stands between two fields; empty fields are left out, separator and all.
        max_chars: each field is cut at this many characters (the encoder reads a few hundred tokens at most).
    """

    fields: tuple[str, ...] | None = None
    separator: str = ". "
    max_chars: int = 300

    def __post_init__(self) -> None:
        if isinstance(self.fields, str):
            raise InvalidDataError(
                f"TextTemplate(fields={self.fields!r:.60}) is one text; pass a tuple: ({self.fields!r:.60},)."
            )
        names = () if self.fields is None else self.fields
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            raise InvalidDataError(f"TextTemplate(fields={names!r:.60}) must be a tuple of column names, or None.")
        if not isinstance(self.separator, str):
            raise InvalidDataError(f"TextTemplate(separator={self.separator!r:.60}) must be a text.")
        whole(self.max_chars, "TextTemplate.max_chars")

    def narrowed(self, frame: pl.DataFrame) -> "TextTemplate":
        """This template without the columns that a later frame of items does not have; unless it has none of them."""
        there = tuple(name for name in self.fields or () if name in frame.columns)
        return replace(self, fields=there) if there else self

    def columns(self, frame: pl.DataFrame) -> tuple[str, ...]:
        """The columns that will make the text.

        Raises:
            InvalidDataError: if a named field is missing, or there is no string column at all.
        """
        if self.fields is not None:
            require(frame, self.fields, "items")
            return self.fields
        usual = tuple(name for name in USUAL_FIELDS if name in frame.columns)
        strings = () if usual else tuple(n for n in frame.columns if n != "item_id" and _in_words(frame[n]))
        if not (usual or strings):
            raise InvalidDataError(
                f"The items have no text column among {few(frame.columns, 20)}. Name the columns that describe an item "
                "with TextTemplate(fields=(...)), or map one: columns={'title': <your column>}."
            )
        return usual or strings

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical names of items."""
        return tuple(dict.fromkeys(("item_id", *USUAL_FIELDS, *(self.fields or ()))))

    def render(self, frame: pl.DataFrame) -> tuple[list[str], int]:
        """One text per row, and how many rows had a field cut."""
        fields = [_clean(frame[name]) for name in self.columns(frame)]
        cleaned = frame.select(fields)
        cut = pl.any_horizontal(pl.all().str.len_chars() > self.max_chars).fill_null(value=False)
        short = pl.all().str.slice(0, self.max_chars).str.strip_chars()
        text = pl.concat_str(
            [pl.when(pl.col(c) != "").then(pl.col(c)) for c in cleaned.columns],
            separator=self.separator,
            ignore_nulls=True,
        )
        cut_rows = int(cleaned.select(cut.alias("cut"))["cut"].sum())
        return cleaned.select(short).select(text.alias("text"))["text"].to_list(), cut_rows


def plain_ids(ids: object, name: str) -> list[ItemId]:
    """Ids as a list of plain strings or plain integers, not both.

    Args:
        ids: what a caller handed in.
        name: of the argument, in messages.

    Raises:
        InvalidDataError: if this is one bare id, which would be read letter by letter, a table, a mapping, or holds anything
            else than ids of one type.
    """
    if isinstance(ids, str | bytes):
        raise InvalidDataError(f"{name}={ids[:40]!r} is one text; pass a list of ids.")
    if not isinstance(ids, Iterable) or isinstance(ids, Mapping) or hasattr(ids, "columns"):
        shown = repr(ids) if ids is None or isinstance(ids, int | float) else f"a {type(ids).__name__}"
        raise InvalidDataError(
            f"{name}={shown} is no list of ids; pass one, such as frame['item_id'], or leave it out."
        )
    found = [one.item() if isinstance(one, np.generic) else one for one in ids]
    kinds = set(map(type, found))
    if kinds <= {str} or kinds <= {int}:
        return found
    other = [one for one in found if type(one) not in (str, int)]
    what = f"{str(other[0])[:60]!r} of type {type(other[0]).__name__}" if other else "strings and integers mixed"
    raise InvalidDataError(f"`{name}` must hold ids, strings or integers of one type; it has {what}.")


def _in_words(column: pl.Series) -> bool:
    return column.dtype in _TEXTUAL and holds_words(column.cast(pl.String))


def _clean(column: pl.Series) -> pl.Series:
    """Text with control characters and runs of white space turned into one space; null and NaN are no text."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if column.dtype in (pl.List, pl.Array):
        column = column.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
    elif column.dtype.is_nested():
        raise InvalidDataError(
            f"The item column '{column.name}' holds {column.dtype}, which is no text. Flatten it first."
        )
    return column.cast(pl.String).str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars()


@dataclass(frozen=True)
class Catalog:
    """Items in a fixed order; a row number is an item's position here. Removed items keep their row, without an id.

    A catalogue is never changed; the next one shares its memory, and holds more rows or fewer items.

    Args:
        size: number of rows, those of removed items too.
        strings: ids are strings; else they are integers of 64 bits.
        gone: True for rows of removed items.
        notes: what was set aside while reading, with counts.
        fields: columns that made the texts.
    """

    size: int
    strings: bool
    gone: Bool[np.ndarray, " rows"] = field(repr=False)
    _ids: list[ItemId] = field(
        repr=False
    )  # shared with earlier and later catalogues, which look at more or fewer of it
    _texts: list[str] = field(repr=False)
    _rows: dict[ItemId, tuple[int, ...]] = field(repr=False)  # all rows that an id ever had, the newest last
    notes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        source: FrameLike,
        *,
        template: TextTemplate | None = None,
        columns: Columns | None = None,
    ) -> "Catalog":
        """Read and check items.

        Args:
            source: frame or path with `item_id` and text columns.
            template: which columns make the text, and how.
            columns: canonical name -> the caller's name.

        Raises:
            InvalidDataError: on an empty frame, missing or empty ids, unknown canonical names, or ids that stand
                twice with different texts.

        Warns:
            DataWarning: counts of identical duplicates, of cut texts and of items without any text.
        """
        template = template or TextTemplate()
        frame = read_frame(source, "items", columns, names=template.names)
        require(frame, ["item_id"], "items")
        if frame.is_empty():
            raise InvalidDataError("The items are empty: there is nothing to recommend. Pass one row at least.")
        with foreign(InvalidDataError, "The items' columns make no text", "Make them texts or numbers first."):
            texts, cut = template.render(frame)
        table = pl.DataFrame({"item_id": id_column(frame["item_id"], "item_id of the items"), "text": texts})
        distinct = table.unique(maintain_order=True)
        twice = distinct.filter(distinct["item_id"].is_duplicated())["item_id"].unique(maintain_order=True)
        if len(twice):
            raise InvalidDataError(
                f"{len(twice):,} item ids stand more than once with different texts: {few(twice.to_list())}. "
                "Keep one row per item."
            )
        notes = []
        if distinct.height < table.height:
            notes.append(f"{table.height - distinct.height:,} identical duplicate rows set aside")
        if cut:
            notes.append(f"{cut:,} items had a text field cut at TextTemplate.max_chars")
        if empty := int((distinct["text"] == "").sum()):
            notes.append(f"{empty:,} items have no text: they are found by their interactions only")
        if notes:
            warnings.warn("Items: " + "; ".join(notes) + ".", DataWarning, stacklevel=3)
        fields = template.columns(frame)
        notes.append(told_columns("Items", frame, {"item_id": table["item_id"].dtype, **dict.fromkeys(fields, "text")}))
        return replace(cls.of(distinct["item_id"], distinct["text"].to_list()), notes=tuple(notes), fields=fields)

    @classmethod
    def of(cls, ids: pl.Series, texts: Sequence[str]) -> "Catalog":
        """A catalogue of distinct, checked ids."""
        names = ids.to_list()
        rows: dict[ItemId, tuple[int, ...]] = {item: (row,) for row, item in enumerate(names)}
        return cls(len(names), ids.dtype == pl.String, np.zeros(len(names), bool), names, list(texts), rows)

    def taken(self, wanted: Bool[np.ndarray, " rows"]) -> "Catalog":
        """A catalogue of some of these items, none of them removed."""
        rows = np.flatnonzero(wanted & ~self.gone).tolist()
        ids = pl.Series("item_id", [self._ids[row] for row in rows], dtype=self.dtype)
        return Catalog.of(ids, [self._texts[row] for row in rows])

    def __len__(self) -> int:
        """Number of items that are there."""
        return self.size - int(np.count_nonzero(self.gone))

    def row(self, item: ItemId) -> int | None:
        """Row of an item; None where it is not there. Constant time."""
        for row in reversed(self._rows.get(item, ())):
            if row < self.size:
                return None if self.gone[row] or type(item) is bool else row
        return None

    def __contains__(self, item: ItemId) -> bool:
        return self.row(item) is not None

    def id_of(self, row: int) -> ItemId:
        """Id of a row."""
        return self._ids[row]

    def text_of(self, row: int) -> str:
        """Text of a row; "" where the item has none."""
        return self._texts[row]

    @cached_property
    def ids(self) -> pl.Series:
        """Item ids by row."""
        return pl.Series("item_id", self._ids[: self.size], dtype=self.dtype)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Item texts by row."""
        return tuple(self._texts[: self.size])

    @cached_property
    def _known(self) -> pl.DataFrame:
        """Ids and rows of the items that are there; what frames of ids are looked up in."""
        rows = np.flatnonzero(~self.gone)
        return pl.DataFrame({"id": self.ids.gather(rows), "row": rows})

    @property
    def dtype(self) -> Any:
        """Type of a column of these ids."""
        return pl.String if self.strings else pl.Int64

    @property
    def kind(self) -> str:
        """What the ids are, in words."""
        return "strings" if self.strings else "integers"

    def check_kind(self, ids: pl.Series, what: str) -> None:
        """Refuse ids of the other type, which would otherwise all look unknown.

        Raises:
            InvalidDataError: if these are strings where the catalogue has integers, or the reverse.
        """
        if len(ids) and ids.dtype != self.dtype:
            odd = f" ({not_integers(ids)})" if ids.dtype == pl.String else ""
            raise InvalidDataError(
                f"The item ids of the {what} are {ids.dtype}, those of the items {self.dtype}{odd}. Cast one of them; on the "
                "command line: --type item_id=text."
            )

    def checked(self, ids: object, name: str) -> list[ItemId]:
        """Ids out of a list, a set, an array or a series as plain Python, all of the catalogue's type; known or not.

        Args:
            ids: what a caller handed in.
            name: of the argument, in messages.

        Raises:
            InvalidDataError: if this is no list of ids, or some are of another type, which would match nothing.
        """
        found = plain_ids(ids, name)
        if found and isinstance(found[0], str) != self.strings:
            kind = "strings" if isinstance(found[0], str) else "integers"
            raise InvalidDataError(
                f"`{name}` has ids that are {kind}, such as {found[0]!r}; the catalogue's are {self.kind}. Convert them."
            )
        return found

    def find(self, ids: pl.Series, what: str) -> pl.Series:
        """Row of each id as a series named "row"; -1 where unknown.

        Raises:
            InvalidDataError: if the ids are of another type than the catalogue's.
        """
        self.check_kind(ids, what)
        wanted = pl.DataFrame({"id": ids.cast(self.dtype)})
        found = wanted.join(self._known, on="id", how="left", maintain_order="left")
        return found["row"].fill_null(-1).cast(pl.Int64).alias("row")

    def rows(self, ids: Iterable[ItemId], whose: str) -> Int64[np.ndarray, " ids"]:
        """Row of each id.

        Args:
            ids: item ids.
            whose: whose items these are in messages, such as `"the user's items"`.

        Raises:
            UnknownItemError: naming the ids that are not in the catalogue.
        """
        wanted = list(ids)
        rows = [self.row(item) for item in wanted]
        if None in rows:
            unknown = [item for item, row in zip(wanted, rows, strict=True) if row is None]
            other = [item for item in unknown if isinstance(item, str) != self.strings]
            hint = f" Its ids are {self.kind}; {len(other):,} of these are not." if other else ""
            raise UnknownItemError(
                f"{len(unknown):,} of {whose} are not in the catalogue of {len(self):,} items: {few(unknown)}.{hint} "
                "Add them first with `recommender.add_items(...)`, or pass on_unknown='drop' where there is one."
            )
        return np.array(rows, dtype=np.int64)

    def extended(self, gone: Iterable[ItemId], new: "Catalog | None" = None) -> "Catalog":
        """This catalogue without the items in `gone` and with those of `new` behind; what is there is not copied."""
        leaving = [row for item in gone if (row := self.row(item)) is not None]
        size = self.size + (new.size if new else 0)
        out = np.zeros(size, bool)
        out[: self.size] = self.gone
        out[leaving] = True
        if new is None:
            return replace(self, gone=out)
        ids, texts, rows = self._ids, self._texts, self._rows
        if len(ids) > self.size:  # another catalogue already follows this one: it keeps the memory
            ids, texts = ids[: self.size], texts[: self.size]
            rows = {item: before for item, all_ in rows.items() if (before := tuple(r for r in all_ if r < self.size))}
        for row, (item, text) in enumerate(zip(new._ids[: new.size], new._texts[: new.size], strict=True), self.size):
            rows[item] = (*rows.get(item, ()), row)
            ids.append(item)
            texts.append(text)
        return Catalog(size, self.strings, out, ids, texts, rows)
