"""The items of a recommender: which there are, and how they change while others read.

A reader takes the shelf once per call; writers prepare a new one under a lock and swap it in.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mecold.data.archive import Archive
from mecold.data.attributes import Encode, of_these, read_attributes
from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.interactions import Interactions
from mecold.devices import device_of
from mecold.encode.encoder import Encoder, PrecomputedEncoder, TextEncoder, encode_or_zero
from mecold.encode.telling import told_texts
from mecold.encode.unread import told_unread
from mecold.errors import DataWarning, EncoderError, InvalidDataError, NotFittedError, few
from mecold.forks import OwnLock
from mecold.meta.config import MetaConfig
from mecold.model import Model
from mecold.space.shelf import Difference, Shelf
from mecold.space.space import ItemSpace, newcomers, with_text
from mecold.space.view import Survey
from mecold.types import ItemId, Synced
from mecold.values import flag, generator, instance, word

_SAMPLE = 256  # items whose vectors are looked at when vectors of the caller's own are to be added


class Stock:
    """A trained model and one shelf of items at a time, with the encoder that describes new ones."""

    def __init__(
        self,
        encoder: Encoder | None = None,
        *,
        config: MetaConfig | None = None,
        template: TextTemplate | None = None,
        index: str = "auto",
        device: str = "auto",
        rng: int | np.random.Generator | None = None,
        progress: bool = False,
    ) -> None:
        instance(encoder, Encoder, "encoder", "pass one with `fingerprint` and `encode`, such as TextEncoder(...)")
        self.config = instance(config, MetaConfig, "config", "pass a MetaConfig(...)") or MetaConfig()
        self.template = instance(template, TextTemplate, "template", "pass a TextTemplate(...)") or TextTemplate()
        self.progress = flag(progress, "progress")
        self._encoder = encoder
        self._kind = index if isinstance(index, str) else word(index, ("auto", "flat", "hnsw"), "index")
        self._device = device_of(device)
        self._rng = generator(rng)
        self._state: tuple[Model, Shelf] | None = None  # replaced as one value: a reader never sees half of a change
        self._archive: Archive | None = None
        self._surveyed: tuple[Interactions, Catalog, Survey] | None = None
        self._lock = OwnLock()
        self._renewal = OwnLock()

    def __getstate__(self) -> dict[str, Any]:
        """All but the locks, which every process and every copy has of its own."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_renewal")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._renewal = OwnLock(), OwnLock()

    def add_items(self, items: FrameLike, *, columns: Columns | None = None) -> None:
        """Add new items; they take what items with texts like theirs have. Readers see all of them or none.

        Raises:
            InvalidDataError: on items that cannot be used, or that are there already (use `update_items`).
        """
        with self._renewal, self._lock:
            model, shelf = self._ready()
            self._check_encoder(model, shelf)
            new = self._described(shelf, items, columns)
            there = [item for item in new.ids.to_list() if item in shelf.catalog]
            if there:
                raise InvalidDataError(
                    f"{len(there):,} of {len(new):,} items are in the catalogue already: {few(there)}. "
                    "Use update_items to change them."
                )
            shelf.catalog.check_kind(new.ids, "new items")
            self._state = (model, self._added(model, shelf, new))

    def update_items(self, items: FrameLike, *, columns: Columns | None = None) -> None:
        """Give items new texts; what their interactions say stays.

        Raises:
            UnknownItemError: naming items that are not there (use `add_items`).
        """
        with self._renewal, self._lock:
            model, shelf = self._ready()
            self._check_encoder(model, shelf)
            self._state = (model, self._updated(model, shelf, self._described(shelf, items, columns)))

    def remove_items(self, ids: Iterable[ItemId]) -> None:
        """Take items out of the catalogue; users who have them keep their states.

        What was learned of them is lost: an item that is added again is a new one. See `hide_items` for a while.

        Raises:
            UnknownItemError: naming items that are not there; none is removed then.
            InvalidDataError: if nothing would be left.
        """
        with self._renewal, self._lock:
            model, shelf = self._ready()
            leaving = list(dict.fromkeys(shelf.catalog.checked(ids, "ids")))
            shelf.catalog.rows(leaving, "the items to remove")
            if len(leaving) == len(shelf.catalog):
                raise InvalidDataError("This would remove every item; a catalogue keeps at least one.")
            self._state, self._archive = (model.without(leaving), shelf.changed(leaving)), self._without(leaving)

    def hide_items(self, ids: Iterable[ItemId]) -> None:
        """Recommend these items no more, and keep all that is known of them; readers see all of them hidden or none.

        They still count in histories, and `explain`, `scores`, `text_of` and `update_items` know them.

        Args:
            ids: the items; those that are hidden already stay so.

        Raises:
            UnknownItemError: naming items that are not in the catalogue; none is hidden then.
        """
        self._turn(ids, hidden=True)

    def show_items(self, ids: Iterable[ItemId]) -> None:
        """Recommend hidden items again, as if they had never been hidden.

        Args:
            ids: the items; those that are not hidden stay so.

        Raises:
            UnknownItemError: naming items that are not in the catalogue; none is shown then.
        """
        self._turn(ids, hidden=False)

    def item_ids(self, *, hidden: bool = False) -> list[ItemId]:
        """Ids of the items that can be recommended, in the order of the catalogue; of the hidden ones instead if asked."""
        _, shelf = self._ready()
        wanted = shelf.hidden if flag(hidden, "hidden") else ~shelf.out
        return shelf.ids(wanted.nonzero()[:, 0].cpu().numpy())

    def __contains__(self, item: object) -> bool:
        """True for an item of the catalogue, hidden or not."""
        return isinstance(item, str | int) and item in self._ready()[1].catalog

    def sync_items(
        self, items: FrameLike, *, gone: Literal["hide", "remove"] = "hide", columns: Columns | None = None
    ) -> Synced:
        """Make the catalogue what a feed says it is; readers see all of it or nothing.

        New items are added, those with other texts updated, hidden ones that are in the feed shown again, and those that
        the feed lacks hidden or removed. Only new and changed texts are encoded; a feed that changes none needs no encoder.

        Args:
            items: frame or path with every item on offer: `item_id` and all text columns of the fit.
            gone: what becomes of items that are not in the feed; `"remove"` takes hidden ones too.
            columns: canonical name -> the caller's name.

        Returns:
            How many items each of these befell.

        Raises:
            InvalidDataError: on a feed that cannot be used, or that lacks a text column of the fit; nothing is changed then.
            EncoderError: if texts are new and the encoder is not the model's.
        """
        word(gone, ("hide", "remove"), "gone")
        with self._renewal, self._lock:
            model, shelf = self._ready()
            kinds = {"item_id": shelf.catalog.dtype}
            frame = read_frame(items, "items", columns, names=self.template.names, ids=kinds)
            feed = Catalog.read(frame, template=self.template)
            difference = shelf.against(feed)
            now = self._with_texts(model, shelf, feed, difference)
            now = now.with_hidden(now.there(difference.back), hidden=False)
            leaving = difference.absent if gone == "hide" else [*difference.absent, *difference.absent_hidden]
            if gone == "hide":
                now = now.with_hidden(now.there(leaving), hidden=True)
            elif leaving:
                now, model = now.changed(leaving), model.without(leaving)
            self._state = (model, now)
            self._archive = self._archive if gone == "hide" else self._without(leaving)
        hidden, removed = (len(leaving), 0) if gone == "hide" else (0, len(leaving))
        return Synced(
            int(difference.new.sum()), int(difference.changed.sum()), len(difference.back), hidden, removed
        )  # fmt: skip

    def text_of(self, item: ItemId) -> str:
        """The text that an item was encoded from."""
        _, shelf = self._ready()
        return shelf.catalog.text_of(int(shelf.catalog.rows(shelf.catalog.checked([item], "item"), "the items")[0]))

    # ---- inside

    def _ready(self) -> tuple[Model, Shelf]:
        if self._state is None:
            raise NotFittedError("This recommender has no model yet. Call fit_meta(...), or Recommender.load(folder).")
        return self._state

    def _without(self, items: Iterable[ItemId]) -> Archive | None:
        """The log without some items."""
        return None if self._archive is None else self._archive.without_items(items)

    def _known_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = TextEncoder(device=str(self._device))
        return self._encoder

    def _encode(self, items: Catalog, stacklevel: int = 3) -> tuple[Tensor, list[str]]:
        """Vectors of items, and what an encoder that cannot read them is told by, which is a warning too."""
        encoder = self._known_encoder()
        unread = told_unread(encoder, items.ids, items.texts)
        for note in unread:
            warnings.warn(note, DataWarning, stacklevel=stacklevel + 1)
        vectors = encode_or_zero(encoder, items.texts, progress=self.progress)
        return torch.from_numpy(vectors).to(self._device), unread

    def _told(self, items: Catalog) -> tuple[Tensor, list[str]]:
        """Vectors of a whole catalogue, and notes on what they tell."""
        vectors, unread = self._encode(items, stacklevel=4)
        return vectors, [*unread, *told_texts(items.ids, items.texts, vectors.cpu().numpy())]

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        return encode_or_zero(self._known_encoder(), texts)

    def _guests(self, model: Model, shelf: Shelf, texts: Sequence[str]) -> Tensor | None:
        """Half-whitened texts of things that are on no shelf; None where there are none, and no encoder is needed."""
        if not texts:
            return None
        self._check_encoder(model, shelf)
        return model.basis.text(torch.from_numpy(self._vectors(texts)).to(self._device))

    def _check_encoder(self, model: Model, shelf: Shelf) -> None:
        encoder = self._known_encoder()
        mine = encoder.fingerprint
        parts: tuple[Encoder, ...] = getattr(encoder, "parts", (encoder,))
        given = [part for part in parts if isinstance(part, PrecomputedEncoder)]
        if mine == model.encoder and given:
            self._check_vectors(model, shelf, encoder, given)
        if mine != model.encoder:
            raise EncoderError(
                f"The model was fitted with the encoder {model.encoder!r}, this one is {mine!r}: their vectors do not "
                "mix. Pass the encoder it was fitted with: Recommender.load(folder, encoder=...)."
            )

    def _check_vectors(self, model: Model, shelf: Shelf, encoder: Encoder, given: list[PrecomputedEncoder]) -> None:
        """Refuse vectors of which some differ from those that the model was fitted with, by a sample of what both have."""
        live = np.flatnonzero(~shelf.catalog.gone)
        some = live[:: max(1, len(live) // _SAMPLE)].tolist()
        rows = [row for row in some if all(shelf.catalog.text_of(row) in one.vectors for one in given)]
        made = torch.from_numpy(encoder.encode([shelf.catalog.text_of(row) for row in rows])).to(self._device)
        held = shelf.space.text_of(torch.tensor(rows, dtype=torch.long, device=self._device))
        if not torch.allclose(model.basis.text(made), held, atol=1e-3 * float(held.abs().max()) if rows else 1.0):
            raise EncoderError(
                f"Texts of the catalogue have other vectors in the encoder {given[0].name!r} than they had in the fit: the two "
                "do not mix. Pass the vectors it was fitted with, and new texts with vectors of the same origin."
            )

    def _described(self, shelf: Shelf, items: FrameLike, columns: Columns | None) -> Catalog:
        """Items of a later frame, which may lack columns of the fit."""
        kinds = {"item_id": shelf.catalog.dtype}  # a csv's ids are what the catalogue says
        frame = read_frame(items, "items", columns, names=self.template.names, ids=kinds)
        return Catalog.read(frame, template=self.template.narrowed(frame))

    def _untouched(self, model: Model, shelf: Shelf, new: Catalog) -> ItemSpace:
        """Rows of items as if nobody had touched them."""
        with torch.no_grad():
            text = model.basis.text(self._encode(new, stacklevel=5)[0])
            return newcomers(shelf.space, shelf.touched, text, model.basis)

    def _added(self, model: Model, shelf: Shelf, new: Catalog) -> Shelf:
        return shelf.changed([], new, self._untouched(model, shelf, new))

    def _updated(self, model: Model, shelf: Shelf, new: Catalog) -> Shelf:
        updating = new.ids.to_list()
        rows = torch.from_numpy(shelf.catalog.rows(updating, "the items to update")).to(self._device)
        fresh = self._untouched(model, shelf, new)
        return shelf.changed(updating, new, with_text(shelf.space.take(rows), fresh))

    def _with_texts(self, model: Model, shelf: Shelf, feed: Catalog, difference: Difference) -> Shelf:
        """The shelf with the feed's changed texts and new items."""
        if difference.changed.any() or difference.new.any():
            self._check_encoder(model, shelf)
        if difference.changed.any():
            shelf = self._updated(model, shelf, feed.taken(difference.changed))
        if difference.new.any():
            shelf = self._added(model, shelf, feed.taken(difference.new))
        return shelf

    def _turn(self, ids: Iterable[ItemId], *, hidden: bool) -> None:
        with self._renewal, self._lock:
            model, shelf = self._ready()
            rows = shelf.catalog.rows(shelf.catalog.checked(ids, "ids"), f"the items to {'hide' if hidden else 'show'}")
            self._state = (model, shelf.with_hidden(rows, hidden=hidden))

    def _vectors_of(self, model: Model, shelf: Shelf) -> Encode:
        """The encoder, once it is needed and only if it is the model's."""

        def encode(texts: Sequence[str]) -> np.ndarray:
            self._check_encoder(model, shelf)
            return self._vectors(texts)

        return encode

    def _known(
        self, model: Model, shelf: Shelf, attributes: FrameLike | None, log: Interactions
    ) -> Callable[[pl.Series], np.ndarray] | None:
        """What tells the groups of users; None where nothing is known of anybody."""
        if attributes is None:
            return None
        frame = read_attributes(attributes, log.users.dtype if len(log) else None)
        return lambda users: model.attributes.groups(of_these(frame, users), self._vectors_of(model, shelf))
