"""What an encoder is trained on: a shop's items, log and whatever else there is; and the part of it that tasks may read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.frames import FrameLike, read_frame, require
from mecold.data.interactions import Interactions
from mecold.lazy import cached_property
from mecold.tuning.config import EncoderTraining
from mecold.tuning.judge import HeldOut

LEAST_ITEMS = 16  # to learn anything from


@dataclass(frozen=True)
class Ground:
    """What tasks may read. Nothing of held-out items and users is in it.

    Args:
        texts: the text of every item that may be learned from, by row; "" for the others.
        columns: the item table, by row; empty for the others.
        rows: items that may be learned from.
        fields: columns that make the texts, in order.
        template: how columns become a text.
        log: histories of such items; None without a log.
        dim: width of the vectors.
        config: settings.
        things: which thing each item is an offer of, by row; -1 where nothing says so.
        unlabelled: text columns of what is no item; None without any.
        impressions: columns `text`, `impressions`, `clicks`, `group`; None without any.
    """

    texts: Sequence[str]
    columns: pl.DataFrame
    rows: Int64[np.ndarray, " some"]
    fields: tuple[str, ...]
    template: TextTemplate
    log: Interactions | None
    dim: int
    config: EncoderTraining
    things: Int64[np.ndarray, " items"]
    unlabelled: pl.DataFrame | None = None
    impressions: pl.DataFrame | None = None

    @property
    def liked(self) -> Interactions | None:
        """What users liked, of the kinds of events that are predicted."""
        return None if self.log is None else liked_of(self.log)

    @property
    def met(self) -> list[str]:
        """Texts whose users may be learned from: those of the log's items, and those that were shown."""
        own = [] if self.log is None else [text for text in self.texts if text]
        return own if self.impressions is None else [*own, *self.impressions["text"]]

    def field_texts(self, names: Sequence[str]) -> list[str]:
        """Text of every item out of some columns alone; "" where they say nothing."""
        return replace(self.template, fields=tuple(names)).render(self.columns)[0]

    def all_texts(self, names: Sequence[str]) -> list[str]:
        """Such texts of the items that may be learned from, then of what is no item."""
        items = self.field_texts(names)
        own = [items[row] for row in self.rows.tolist()]
        if self.unlabelled is None:
            return own
        return own + replace(self.template, fields=tuple(names)).render(self.unlabelled)[0]


@dataclass(frozen=True)
class Shop:
    """What an encoder is trained on.

    Args:
        catalog: the items.
        columns: their table, a row per row of the catalogue.
        log: histories, if any.
        template: how columns become a text.
        same: column that names what an item is an offer of; "" where there is none.
        unlabelled: text columns of what is no item, if any.
        impressions: what `read_impressions` gives, if any.
    """

    catalog: Catalog
    columns: pl.DataFrame
    log: Interactions | None = None
    template: TextTemplate = field(default_factory=TextTemplate)
    same: str = ""
    unlabelled: pl.DataFrame | None = None
    impressions: pl.DataFrame | None = None

    @property
    def readable(self) -> Int64[np.ndarray, " rows"]:
        """Rows of items that have a text and, where users alone teach, were liked by anybody."""
        there = np.array([text != "" for text in self.catalog.texts])
        if self.liked is not None and not self.same:
            there &= np.bincount(self.liked.items, minlength=len(there)) > 0
        return np.flatnonzero(there)

    @cached_property
    def liked(self) -> Interactions | None:
        """What users liked, of the kinds of events that are predicted."""
        return None if self.log is None else liked_of(self.log)

    @cached_property
    def things(self) -> Int64[np.ndarray, " items"]:
        """Which thing each item is an offer of; -1 where nothing says so."""
        if not self.same:
            return np.full(self.catalog.size, -1)
        names = self.columns[self.same].cast(pl.String)
        return names.set(names == "", None).rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1

    def ground(self, held: HeldOut, width: int, config: EncoderTraining) -> Ground:
        """What tasks may read: nothing of what is held out."""
        rows = np.setdiff1d(self.readable, held.items)
        may = np.isin(np.arange(self.catalog.size), rows)
        texts = [text if own else "" for text, own in zip(self.catalog.texts, may.tolist(), strict=True)]
        seen = pl.lit(pl.Series(may))
        columns = self.columns.with_columns(pl.when(seen).then(pl.exclude("item_id")))
        log, beyond, shown = None, self.unlabelled, self.impressions
        if self.log is not None:
            log = held.rest(self.log)
            log = log.where(may[log.items])
        hidden = {self.catalog.texts[row] for row in held.items.tolist()}
        hidden |= set(self._told(self.columns[held.items], self.catalog.fields[:1]))
        if beyond is not None:
            ways = [self._told(beyond, names) for names in (self.catalog.fields, self.catalog.fields[:1])]
            keep = [not {text, title} & hidden for text, title in zip(*ways, strict=True)]
            beyond = beyond.filter(pl.Series(keep, dtype=pl.Boolean))
        if shown is not None:
            texts_shown = self._told(
                shown.select(pl.col("text").alias(self.catalog.fields[0])), self.catalog.fields[:1]
            )
            shown = shown.filter(pl.Series([text not in hidden for text in texts_shown], dtype=pl.Boolean))
        return Ground(
            texts, columns, rows, self.catalog.fields, self.template, log, width, config, np.where(may, self.things, -1),
            beyond, shown,
        )  # fmt: skip

    def _told(self, frame: pl.DataFrame, names: Sequence[str]) -> list[str]:
        """Texts of a frame, cleaned as those of the catalogue are."""
        return replace(self.template, fields=tuple(names)).render(frame)[0]

    def identity(self) -> list[Any]:
        """All that a training reads, as JSON values."""
        found: list[Any] = [
            None if one is None else _hash(one) for one in (self.columns, self.unlabelled, self.impressions)
        ]
        found += [list(self.catalog.texts), self.same]
        if self.log is not None:
            parts = (self.log.offsets, self.log.items, self.log.ratings, self.log.labels, self.log.kinds)
            found += [None if one is None else hashlib.sha256(one.tobytes()).hexdigest() for one in parts]
        return [*found, self.log is not None and self.log.events.goals]


def _hash(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.hash_rows().to_numpy().tobytes()).hexdigest()


def read_unlabelled(source: FrameLike, fields: Sequence[str]) -> pl.DataFrame:
    """The text columns of a frame of texts beyond the catalogue; those that it does not have are empty.

    Raises:
        InvalidDataError: if the first of them is missing.
    """
    frame = read_frame(source, "unlabelled texts")
    require(frame, fields[:1], "unlabelled texts")
    return frame.select(
        frame[name] if name in frame.columns else pl.lit(None, pl.String).alias(name) for name in fields
    )


def liked_of(log: Interactions) -> Interactions:
    """The histories without what was disliked, and without events of kinds that are not predicted."""
    return log.where(log.goal & (log.labels_from(None) > 0))
