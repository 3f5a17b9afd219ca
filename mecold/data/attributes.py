"""What is known of users beside what they did: age, country, a sentence about themselves. Every value becomes a group.

A number falls into a range of values, a name stands for itself, and a text belongs to those whose vectors are nearest. A
user is then a list of groups, one per attribute, and what a group likes is counted as for an item.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int64

from mecold.data.frames import FrameLike, id_column, read_frame, require
from mecold.errors import InvalidDataError, few
from mecold.values import table

RANGES = 8
"""Ranges of equally many users that a number is cut into."""
NAMES = 64
"""Different values up to which a column is one of names; with more, numbers are cut into ranges and texts grouped."""
TOPICS = 16
"""Groups of texts."""

Kind: TypeAlias = Literal["number", "name", "text"]
Encode: TypeAlias = Callable[[Sequence[str]], Float32[np.ndarray, "texts dim"]]
"""Texts to vectors."""


@dataclass(frozen=True)
class Attribute:
    """One column of what is known of users.

    Args:
        name: the column's name.
        kind: how its values become groups.
        edges: of the ranges of a number, the outer ones left out.
        names: the values of names.
        centres: vectors in the middle of each group of texts.
    """

    name: str
    kind: Kind
    edges: Float64[np.ndarray, " edges"] = field(default_factory=lambda: np.empty(0))
    names: tuple[str, ...] = ()
    centres: Float32[np.ndarray, "topics dim"] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @classmethod
    def of(cls, column: pl.Series, encode: Encode) -> "Attribute":
        """What a column holds, judged by all of its values."""
        values = column.drop_nulls().unique(maintain_order=True)
        if column.dtype.is_numeric() and len(values) > (NAMES // 2 if column.dtype.is_integer() else 2):
            edges = np.unique(np.quantile(column.drop_nulls().to_numpy(), np.linspace(0, 1, RANGES + 1)[1:-1]))
            return cls(column.name, "number", edges=edges.astype(np.float64))
        if column.dtype != pl.String or len(values) <= NAMES:
            return cls(column.name, "name", names=tuple(sorted(_words(values))))
        return cls(column.name, "text", centres=_centres(encode(values.to_list())))

    @property
    def size(self) -> int:
        """Number of groups."""
        return {"number": len(self.edges) + 1, "name": len(self.names), "text": len(self.centres)}[self.kind]

    def groups(self, column: pl.Series, encode: Encode) -> Int64[np.ndarray, " rows"]:
        """The group of each value; -1 where there is none, or a name that was not there in the fit.

        Raises:
            InvalidDataError: if numbers are asked for and these are none, or the reverse.
        """
        there = column.is_not_null().to_numpy()
        found = np.full(len(column), -1, np.int64)
        if not there.any():
            return found
        known = column if there.all() else column.drop_nulls()
        if self.kind == "number":
            if not known.dtype.is_numeric():
                raise InvalidDataError(f"The attribute {self.name!r} holds {known.dtype}; in the fit it was a number.")
            found[there] = np.searchsorted(self.edges, known.cast(pl.Float64).to_numpy(), side="right")
        elif self.kind == "name":
            place = {name: at for at, name in enumerate(self.names)}
            found[there] = [place.get(name, -1) for name in _words(known)]
        else:
            if known.dtype != pl.String:
                raise InvalidDataError(f"The attribute {self.name!r} holds {known.dtype}; in the fit it was text.")
            found[there] = _nearest(encode(known.to_list()), self.centres)
        return found


@dataclass(frozen=True)
class Attributes:
    """What a model knows of users: one attribute after the other, their groups numbered through."""

    columns: tuple[Attribute, ...] = ()

    @classmethod
    def of(cls, frames: Sequence[pl.DataFrame], encode: Encode) -> "Attributes":
        """From frames whose columns `plain` made plain, of users or of moments.

        Raises:
            InvalidDataError: if a name stands in two of them.
        """
        columns = [frame[name] for frame in frames for name in frame.columns if name != "user_id"]
        names = [column.name for column in columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidDataError(f"{few(twice)} is an attribute of users and one of moments. Rename one of them.")
        return cls(tuple(Attribute.of(column, encode) for column in columns))

    @property
    def starts(self) -> list[int]:
        """Number of the first group of each attribute."""
        return [0, *accumulate(self.sizes)][:-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Groups of each attribute."""
        return tuple(column.size for column in self.columns)

    def groups(self, frame: pl.DataFrame, encode: Encode) -> Int64[np.ndarray, "rows attributes"]:
        """Groups of users, -1 where nothing is known; a column that is not there is not known of anybody.

        Raises:
            InvalidDataError: on columns that the model was not fitted with, or of another type.
        """
        names = [column.name for column in self.columns]
        odd = [name for name in frame.columns if name not in (*names, "user_id")]
        if odd:
            raise InvalidDataError(
                f"The model knows no attributes {few(odd)}; it was fitted with {few(names, 20) if names else 'none'}. Leave "
                "them out."
            )
        found = np.full((frame.height, len(names)), -1, np.int64)
        for at, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
            if column.name in frame.columns:
                own = column.groups(frame[column.name], encode)
                found[:, at] = np.where(own < 0, -1, own + start)
        return found


def read_attributes(source: FrameLike, users: Any = None) -> pl.DataFrame:
    """A frame of users and what is known of them.

    Args:
        source: frame or path with `user_id` and one column per attribute: numbers, names or texts; nulls where unknown.
        users: type of the users' ids, for those of a csv.

    Raises:
        InvalidDataError: on missing or repeated ids, columns that are neither numbers nor texts, or no column at all.
    """
    frame = read_frame(source, "attributes", ids={} if users is None else {"user_id": users})
    require(frame, ["user_id"], "attributes")
    ids = id_column(frame["user_id"], "user_id of the attributes")
    if twice := ids.filter(ids.is_duplicated()).unique(maintain_order=True).to_list():
        raise InvalidDataError(
            f"{len(twice):,} users stand more than once in the attributes: {few(twice)}. Keep one row each."
        )
    others = [plain(frame[name]) for name in frame.columns if name != "user_id"]
    if not others:
        raise InvalidDataError("The attributes have no column beside `user_id`.")
    return pl.DataFrame([ids.alias("user_id"), *others])


def of_these(frame: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The rows of these users in this order; nulls for who is not there.

    Raises:
        InvalidDataError: if the ids are of another type.
    """
    if frame.height and len(users) and frame["user_id"].dtype != users.dtype:
        raise InvalidDataError(
            f"The user ids of the attributes are {frame['user_id'].dtype}, those of the histories {users.dtype}. Cast one."
        )
    if not (frame.height and len(users)):
        nothing = frame.clear(len(users)) if len(users) else frame.clear()
        return nothing.with_columns(users.alias("user_id"))
    return pl.DataFrame({"user_id": users}).join(frame, on="user_id", how="left", maintain_order="left")


def one_user(values: Mapping[str, Any]) -> pl.DataFrame:
    """The attributes of one user as a frame of one row.

    Raises:
        InvalidDataError: naming a value that is neither a number nor a text.
    """
    said = {name: _said(name, value) for name, value in table(values, "attributes", "names to values").items()}
    return pl.DataFrame([pl.Series(name, [value]) for name, value in said.items()] or {"user_id": [0]})


def _said(name: str, value: object) -> str | int | float | None:
    """One value as `plain` makes it, without polars, whose threads a forked process lacks."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is not None and not isinstance(value, str | int | float):
        raise InvalidDataError(f"The attribute {name!r} is a {type(value).__name__}; pass a number, a text, or None.")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(min(max(value, -(10**300)), 10**300))
    if value == "" or value != value:
        return None
    return {"True": "true", "False": "false"}.get(value, value) if isinstance(value, str) else value


def plain(column: pl.Series) -> pl.Series:
    """A column as numbers or as texts; what says nothing is null.

    Raises:
        InvalidDataError: if it holds anything else.
    """
    if column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean):
        return column.cast(pl.String).replace({"": None, "True": "true", "False": "false"})
    if column.dtype.is_float():
        return column.fill_nan(None)
    if column.dtype.is_decimal():
        return column.cast(pl.Float64)
    if column.dtype == pl.Null or column.dtype.is_integer():
        return column
    raise InvalidDataError(
        f"The attribute '{column.name}' holds {column.dtype}; use numbers or texts (an age in place of a birthday)."
    )


def _words(values: pl.Series) -> list[str]:
    """Values as names: 3.0 is the name 3, whatever the type of the column that holds it."""
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values.to_list()]


def _centres(vectors: Float32[np.ndarray, "texts dim"]) -> Float32[np.ndarray, "topics dim"]:
    """Centres of groups of texts: ten rounds of k-means from texts spread over the whole."""
    topics = min(TOPICS, len(vectors))
    centres: np.ndarray = vectors[np.linspace(0, len(vectors) - 1, topics).astype(int)].copy()
    for _ in range(10):
        nearest = _nearest(vectors, centres)
        for topic in range(topics):
            if (nearest == topic).any():
                centres[topic] = vectors[nearest == topic].mean(0)
    return centres


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> Int64[np.ndarray, " texts"]:
    distances = (centres**2).sum(1) - 2 * vectors @ centres.T
    found: np.ndarray = distances.argmin(1)
    return found
