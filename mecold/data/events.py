"""Kinds of events, such as view, cart and purchase: which there are, which is the strongest, and which are predicted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import Int64

from mecold.errors import InvalidDataError, few

MOST = 32
"""Kinds of events in one log; a column with more of them holds something else."""


@dataclass(frozen=True)
class Events:
    """The kinds of a log, the strongest first: of an item that comes again, the strongest is kept.

    Args:
        names: of the kinds; empty where the log has no `event` column.
        goals: so many of the first are predicted; all of them where 0.
    """

    names: tuple[str, ...] = ()
    goals: int = 0

    def named(self, column: pl.Series) -> "Events":
        """These kinds, for a later log.

        Raises:
            InvalidDataError: if it has kinds that the model was not fitted with.
        """
        if self.names:
            self.check(column.unique(maintain_order=True).to_list())
        return self

    def place(self, name: str | None) -> int:
        """Place of a known kind; the strongest where none is said."""
        return 0 if name is None else self.names.index(name)

    def check(self, names: Iterable[str]) -> None:
        """Refuse kinds that the model was not fitted with.

        Raises:
            InvalidDataError: naming them, and those that there are.
        """
        odd = list(dict.fromkeys(name for name in names if name not in self.names))
        if odd:
            raise InvalidDataError(
                f"The model knows no events {few(odd)}; it was fitted with {few(self.names, MOST)}. Rename them, drop those "
                "rows, or fit with them."
            )

    def codes(self, column: pl.Series) -> Int64[np.ndarray, " rows"]:
        """Place of each row's kind; 0 for all where no kinds are known."""
        place = {name: at for at, name in enumerate(self.names)}
        return column.replace_strict(place, default=0, return_dtype=pl.Int64).to_numpy()


@dataclass(frozen=True)
class EventRule:
    """How the kinds of a log are put in order, the strongest first.

    First those to be predicted; then by the strengths that are given; else the rarer the stronger: views are many, purchases
    few.

    Args:
        predict: kinds to be predicted; empty for all.
        strengths: kind -> how much a row says; empty where this is learned.
    """

    predict: tuple[str, ...] = ()
    strengths: Mapping[str, float] = field(default_factory=dict)

    def named(self, column: pl.Series) -> Events:
        """The kinds of a column.

        Raises:
            InvalidDataError: if they are many, a kind to be predicted is not there, or one has no strength where some have.
        """
        counts = dict(column.value_counts(sort=True).iter_rows())
        if len(counts) > MOST:
            raise InvalidDataError(
                f"The column `event` has {len(counts):,} kinds, more than {MOST}: {few(list(counts))}. Leave it out."
            )
        for what, named in (("predict", self.predict), ("events", tuple(self.strengths))):
            if missing := [name for name in named if name not in counts]:
                raise InvalidDataError(
                    f"MetaConfig({what}=...) names {few(missing)}; the events are {few(list(counts), MOST)}."
                )
        if self.strengths and (missing := [name for name in counts if name not in self.strengths]):
            raise InvalidDataError(
                f"MetaConfig(events=...) gives no strength to {few(missing)}. Name all kinds, or none."
            )
        names = sorted(
            counts, key=lambda name: (name not in self.predict, -self.strengths.get(name, 0.0), counts[name], name)
        )
        return Events(tuple(names), len(self.predict))
