"""The data of an evaluation: items, log, and text vectors that are made when the first system asks for them."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32

from mecold.data.attributes import read_attributes
from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import EventRule
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.interactions import Interactions, OnUnknown
from mecold.encode.encoder import Encoder, TextEncoder, encode_or_zero
from mecold.errors import DataWarning, InvalidDataError
from mecold.lazy import cached_property


@dataclass(frozen=True)
class Dataset:
    """What systems are evaluated on.

    Args:
        name: how reports call it.
        catalog: the items; every one is a candidate.
        log: histories of distinct items, oldest first; where some are disliked, with labels.
        items: the caller's own table of items, in the order of the catalogue.
        encoder: makes the text vectors, or a function that makes the encoder when it is needed; the default
            `TextEncoder` where None.
        progress: show a progress bar while texts are encoded.
        liked_from: with ratings, what is rated lower is no hit, and is not learned as a liking; None: everything is liked.
        attributes: what is known of users beside what they did; None where nothing is.
    """

    name: str
    catalog: Catalog
    log: Interactions
    items: pl.DataFrame = field(repr=False)
    encoder: Encoder | Callable[[], Encoder] | None = None
    progress: bool = False
    liked_from: float | None = None
    attributes: pl.DataFrame | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls,
        interactions: FrameLike,
        items: FrameLike,
        *,
        name: str | None = None,
        encoder: Encoder | Callable[[], Encoder] | None = None,
        template: TextTemplate | None = None,
        interaction_columns: Columns | None = None,
        item_columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        progress: bool = False,
        liked_from: float | None = None,
        predict: Sequence[str] = (),
        attributes: FrameLike | None = None,
    ) -> "Dataset":
        """Read and check a log and its items, as `Recommender.fit_meta` does.

        Args:
            interactions: frame or path: `user_id`, `item_id`, optional `timestamp` or `position`.
            items: frame or path: `item_id` and text columns.
            name: the set's name; by default that of the folder the interactions lie in, or "dataset".
            encoder: makes the text vectors.
            template: which item columns make the text.
            interaction_columns: canonical name -> the caller's name, for the log.
            item_columns: canonical name -> the caller's name, for the items.
            on_unknown: what to do with interactions of items that are not in `items`.
            progress: show a progress bar while texts are encoded.
            liked_from: with ratings, what is rated lower is no hit, and is not learned as a liking.
            predict: kinds of events that are hits, where there is a column `event`; empty for all.
            attributes: frame or path of what is known of users, as in `Recommender.fit_meta`.

        Raises:
            InvalidDataError: on frames that cannot be used, or `liked_from` without ratings or labels.
            UnknownItemError: on unknown items under `on_unknown="raise"`.

        Warns:
            DataWarning: where there are ratings that differ, and no `liked_from`: what was rated lowest is a hit then too.
        """
        if name is None:
            is_path = isinstance(interactions, str | Path)
            name = Path(interactions).resolve().parent.name if is_path else "dataset"
        table = read_frame(items, "items", item_columns, names=(template or TextTemplate()).names)
        catalog = Catalog.read(table, template=template)
        log = Interactions.read(
            interactions, catalog, columns=interaction_columns, on_unknown=on_unknown, events=EventRule(tuple(predict))
        )  # fmt: skip
        table = table.unique("item_id", keep="first", maintain_order=True)
        _check_ratings(log, liked_from)
        if liked_from is not None:
            log = replace(log, labels=log.labels_from(liked_from))
        known = None if attributes is None else read_attributes(attributes, log.users.dtype)
        return cls(name, catalog, log, table, encoder, progress, liked_from, known)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "items text_dim"]:
        """Text vectors by row of the catalogue; zero for an item without text."""
        return self.encode(self.catalog.texts)

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts text_dim"]:
        """Vectors of texts; zero for an empty one."""
        return encode_or_zero(self.text_encoder, texts, progress=self.progress)

    @cached_property
    def text_encoder(self) -> Encoder:
        """The encoder, made when it is first needed."""
        encoder = self.encoder or TextEncoder
        return encoder() if callable(encoder) else encoder

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the items and the log: ids, texts, order, times, weights, ratings, and the item table."""
        digest = hashlib.sha256()
        for part in (self.catalog.ids.to_list(), self.log.users.to_list(), self.catalog.texts):
            digest.update("\0".join(map(str, part)).encode("utf-8", "surrogatepass"))
        for array in (self.log.offsets, self.log.items, self.log.times, self.log.weights, self.log.ratings):
            digest.update(b"none" if array is None else array.tobytes())
        digest.update(self.log.order.encode() + self.items.write_ipc(None).getvalue())
        for more in (self.log.labels, self.log.kinds):
            if more is not None:
                digest.update(more.tobytes())
        digest.update(f"{self.log.events}".encode() if self.log.events.names else b"")
        if self.attributes is not None:
            digest.update(self.attributes.write_ipc(None).getvalue())
        return digest.hexdigest()[:16]

    @cached_property
    def vectors_fingerprint(self) -> str:
        """Hash of the text vectors; part of the address of every result that read them."""
        return hashlib.sha256(self.vectors.tobytes()).hexdigest()[:16]


def _check_ratings(log: Interactions, liked_from: float | None) -> None:
    ratings = log.ratings
    if liked_from is not None and ratings is None and log.labels is None:
        raise InvalidDataError(f"liked_from={liked_from} needs a `rating` column; these interactions have none.")
    if unread := log.unread_ratings(liked_from):
        hit = f"An item rated {ratings.min():g} is a hit then. Here it is liked_from= or --liked-from."  # type: ignore[union-attr]
        warnings.warn(f"{unread} {hit}", DataWarning, stacklevel=3)
