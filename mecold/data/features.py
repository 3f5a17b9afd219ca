"""Columns of users as numbers that a linear head can read: standardised, without outliers, names as ones and zeros."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int64

from mecold.data.frames import require
from mecold.errors import InvalidDataError, few

EDGES = 65  # of a number's quantiles
MOST_NAMES = 30  # of a column, those that most users have
LEAST_SHARE = 0.005  # of users who have a name that is read
FAR = 5.0  # standard deviations; what lies beyond counts as this far


@dataclass(frozen=True)
class Feature:
    """One column.

    Args:
        name: of the column.
        kind: `"number"`, `"name"` or `"vector"`.
        names: that are read.
        edges: quantiles of a number.
        unit: of a number's logarithm: the size that is usual.
        center: mean of what the column becomes.
        scale: its standard deviation; of a vector, one for all of it.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    edges: Float[np.ndarray, " edges"]
    unit: float
    center: Float[np.ndarray, " width"]
    scale: Float[np.ndarray, " width"]

    @classmethod
    def of(cls, column: pl.Series, what: str) -> "Feature":
        """Read off a column how to read it.

        Raises:
            InvalidDataError: on a type that is none of a number, a name, or an array of numbers, or on infinities.
        """
        kind = _kind(column, what)
        names: tuple[str, ...] = ()
        edges, unit = np.empty(0), 1.0
        if kind == "name":
            counts = (
                column.cast(pl.String)
                .drop_nulls()
                .value_counts()
                .sort(["count", column.name], descending=[True, False])
            )
            names = tuple(
                counts.filter(pl.col("count") >= LEAST_SHARE * len(column))[column.name].to_list()[:MOST_NAMES]
            )
        if kind == "number":
            values = _numbers(column, what)
            values = values[~np.isnan(values)]
            edges = np.quantile(values, np.linspace(0, 1, EDGES)) if len(values) else np.zeros(EDGES)
            sizes = np.abs(values[values != 0])
            unit = float(np.median(sizes)) if len(sizes) else 1.0
        plain = cls(column.name, kind, names, edges, unit, np.zeros(1), np.ones(1))
        raw = plain._raw(column, what)
        center, scale = np.nanmean(raw, 0), np.nanstd(raw, 0)
        if kind == "vector":
            scale = np.full(raw.shape[1], np.sqrt(np.mean(scale**2)))
        if kind == "name":
            scale = np.ones(raw.shape[1])
        return cls(column.name, kind, names, edges, unit, center, np.where(scale > 1e-9, scale, np.inf))

    def matrix(self, column: pl.Series, what: str) -> Float[np.ndarray, "rows width"]:
        """The column as numbers around 0; what is not known is 0.

        Raises:
            InvalidDataError: on another type than that of the fit, or on infinities.
        """
        raw = self._raw(column, what)
        if raw.shape[1] != len(self.center):
            raise InvalidDataError(
                f"{self.name} of the {what} has vectors of {raw.shape[1]} numbers; those of the fit have {len(self.center)}."
            )
        found: np.ndarray = np.nan_to_num(np.clip((raw - self.center) / self.scale, -FAR, FAR))
        return found

    def _raw(self, column: pl.Series, what: str) -> Float[np.ndarray, "rows width"]:
        if (found := _kind(column, what)) != self.kind:
            raise InvalidDataError(f"{self.name} of the {what} is a {found}; in the fit it was a {self.kind}.")
        if self.kind == "name":
            values = column.cast(pl.String)
            return np.stack([(values == name).fill_null(value=False).to_numpy() for name in self.names], 1).astype(float) \
                if self.names else np.zeros((len(values), 0))  # fmt: skip
        numbers = _numbers(column, what)
        if self.kind == "vector":
            return numbers
        rank = np.interp(numbers, self.edges, np.linspace(0, 1, EDGES))
        # a value that many have stands in the middle of them
        rank = (rank + 1 - np.interp(-numbers, -self.edges[::-1], np.linspace(0, 1, EDGES))) / 2
        rank = np.where(np.isnan(numbers), np.nan, rank)
        return np.stack([np.sign(numbers) * np.log1p(np.abs(numbers) / self.unit), rank], 1)


@dataclass(frozen=True)
class Features:
    """Columns, in order."""

    columns: tuple[Feature, ...]

    @classmethod
    def of(cls, frame: pl.DataFrame, names: Sequence[str], what: str) -> "Features":
        """Read off some columns how to read them.

        Raises:
            InvalidDataError: if there is none, or naming one that cannot be read.
        """
        if not names:
            raise InvalidDataError(f"The {what} have no features: add columns of numbers, names, or vectors of users.")
        return cls(tuple(Feature.of(frame[name], what) for name in names))

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [one.name for one in self.columns]

    @property
    def blocks(self) -> Int64[np.ndarray, " dim"]:
        """Which numbers move together: those of all plain columns, those of each vector; the constant is last."""
        found, vectors = [], 0
        for one in self.columns:
            vectors += one.kind == "vector"
            found += [vectors if one.kind == "vector" else 0] * len(one.center)
        return np.array([*found, max(found, default=0) + 1], np.int64)

    def matrix(self, frame: pl.DataFrame, what: str) -> Float[np.ndarray, "rows dim"]:
        """All columns side by side, and a constant of 1.

        Raises:
            InvalidDataError: naming columns that are missing or cannot be read.
        """
        require(frame, self.names, what)
        parts = [one.matrix(frame[one.name], what) for one in self.columns]
        return np.concatenate([*parts, np.ones((frame.height, 1))], 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers, by name."""
        return {
            f"{at}.{part}": getattr(one, part)
            for at, one in enumerate(self.columns)
            for part in ("edges", "center", "scale")
        }

    def told(self) -> list[dict[str, Any]]:
        """All else, as JSON values."""
        return [{"name": one.name, "kind": one.kind, "names": one.names, "unit": one.unit} for one in self.columns]

    @classmethod
    def from_parts(cls, told: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> "Features":
        """What `told` and `arrays` took apart."""
        return cls(
            tuple(
                Feature(
                    one["name"], one["kind"], tuple(one["names"]), arrays[f"{at}.edges"], one["unit"],
                    arrays[f"{at}.center"], arrays[f"{at}.scale"],
                )
                for at, one in enumerate(told)
            )
        )  # fmt: skip


def _kind(column: pl.Series, what: str) -> str:
    kind = column.dtype
    if kind.is_numeric() or kind in (pl.Boolean, pl.Null):
        return "number"
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return "name"
    inner = getattr(kind, "inner", None)
    if isinstance(kind, pl.Array | pl.List) and inner is not None and inner.is_numeric():
        return "vector"
    raise InvalidDataError(
        f"{column.name} of the {what} holds {kind}; features are numbers, names, or arrays of numbers. Of a time make the days "
        "since then, or leave the column out."
    )


def _numbers(column: pl.Series, what: str) -> Float[np.ndarray, "..."]:
    """Numbers, NaN where there is none."""
    if isinstance(column.dtype, pl.List):
        sizes = column.list.len().drop_nulls().unique().to_list()
        if len(sizes) != 1 or column.null_count():
            raise InvalidDataError(
                f"The vectors of {column.name} in the {what} have {few(sorted(sizes))} numbers, and {column.null_count():,} are "
                "missing; give every user one of the same length."
            )
        column = column.cast(pl.Array(pl.Float64, sizes[0]))
    if isinstance(column.dtype, pl.Array):
        if column.null_count():
            raise InvalidDataError(f"{column.null_count():,} vectors of {column.name} in the {what} are missing.")
        found: np.ndarray = column.to_numpy().astype(np.float64)
    else:
        found = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if (bad := np.isinf(found)).any():
        rows = np.flatnonzero(bad.any(1) if bad.ndim > 1 else bad)
        raise InvalidDataError(
            f"{len(rows):,} of {len(column):,} values of {column.name} in the {what} are infinite (rows {few(rows.tolist())}). "
            "Make them null where they are not known, or the largest value that can be."
        )
    return found
