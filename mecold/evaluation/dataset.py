"""The data of an evaluation: items, log, and text vectors that are made when the first system asks for them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.interactions import Interactions, OnUnknown
from mecold.encode.encoder import Encoder, TextEncoder, encode_or_zero


@dataclass(frozen=True)
class Dataset:
    """What systems are evaluated on.

    Args:
        name: how reports call it.
        catalog: the items; every one is a candidate.
        log: histories of distinct items, oldest first.
        items: the caller's own table of items, in the order of the catalogue.
        encoder: makes the text vectors, or a function that makes the encoder when it is needed; the default
            `TextEncoder` where None.
        progress: show a progress bar while texts are encoded.
    """

    name: str
    catalog: Catalog
    log: Interactions
    items: pl.DataFrame = field(repr=False)
    encoder: Encoder | Callable[[], Encoder] | None = None
    progress: bool = False

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

        Raises:
            InvalidDataError: on frames that cannot be used.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
        """
        if name is None:
            is_path = isinstance(interactions, str | Path)
            name = Path(interactions).resolve().parent.name if is_path else "dataset"
        table = read_frame(items, "items", item_columns, names=(template or TextTemplate()).names)
        catalog = Catalog.read(table, template=template)
        log = Interactions.read(interactions, catalog, columns=interaction_columns, on_unknown=on_unknown)
        table = table.unique("item_id", keep="first", maintain_order=True)
        return cls(name, catalog, log, table, encoder, progress)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "items text_dim"]:
        """Text vectors by row of the catalogue; zero for an item without text."""
        encoder = self.encoder or TextEncoder
        made = encoder() if callable(encoder) else encoder
        return encode_or_zero(made, self.catalog.texts, progress=self.progress)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the items and the log: ids, texts, order, times, weights, ratings, and the item table."""
        digest = hashlib.sha256()
        for part in (self.catalog.ids.to_list(), self.log.users.to_list(), self.catalog.texts):
            digest.update("\0".join(map(str, part)).encode("utf-8", "surrogatepass"))
        for array in (self.log.offsets, self.log.items, self.log.times, self.log.weights, self.log.ratings):
            digest.update(b"none" if array is None else array.tobytes())
        digest.update(self.log.order.encode() + self.items.write_ipc(None).getvalue())
        return digest.hexdigest()[:16]

    @cached_property
    def vectors_fingerprint(self) -> str:
        """Hash of the text vectors; part of the address of every result that read them."""
        return hashlib.sha256(self.vectors.tobytes()).hexdigest()[:16]
