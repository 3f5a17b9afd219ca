"""Users in place of items: who will want an item, and what users are like."""

from collections.abc import Iterable

import polars as pl

from mecold.audience import Audiences
from mecold.data.frames import Columns, FrameLike
from mecold.data.interactions import Interactions, OnUnknown
from mecold.observing import Observing
from mecold.space.profiles import had, length_one, sides_of
from mecold.types import ItemId
from mecold.values import generator


class Reaching(Observing):
    """Asked for users."""

    def audiences(
        self, histories: FrameLike, *, columns: Columns | None = None, on_unknown: OnUnknown = "raise", rng: int = 0
    ) -> Audiences:
        """Users of a frame, to ask of one item after another who will want it; what tells that is learned from the frame.

        Args:
            histories: frame or path as in `adapt_users`; what is disliked is no sign of wanting.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.
            rng: seed of what is rehearsed.

        Raises:
            InvalidDataError: on histories that cannot be used, or of too few users to learn from.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
        """
        return Audiences(self._ready()[1], self._liked(histories, columns, on_unknown), generator(rng))

    def audience(
        self,
        item: ItemId | None = None,
        k: int = 50,
        *,
        histories: FrameLike,
        seeds: Iterable[ItemId] = (),
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        rng: int = 0,
    ) -> pl.DataFrame:
        """The k users of a frame who will want an item most; see `Audiences.of`, and `audiences` for many items.

        Args:
            item: its id, with or without anybody who has it; None: only seeds tell.
            k: how many.
            histories: users and what they had, as in `audiences`.
            seeds: users of the histories who want it already.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.
            rng: seed of what is rehearsed.

        Returns:
            `rank`, `user_id`, `probability`, best first; those who have it already are not among them.

        Raises:
            InvalidDataError: as in `audiences`, or on seeds that are no users of the histories.
            UnknownItemError: as in `audiences`, or if the item is not in the catalogue.
        """
        return self.audiences(histories, columns=columns, on_unknown=on_unknown, rng=rng).of(item, k, seeds=seeds)

    def user_vectors(
        self, histories: FrameLike, *, columns: Columns | None = None, on_unknown: OnUnknown = "raise"
    ) -> pl.DataFrame:
        """What users are like by all that they had, as numbers: features for `BehaviourTask` and for models of one's own.

        Args:
            histories: frame or path as in `adapt_users`.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.

        Returns:
            A frame with `user_id` and `vector`, an array of 64 numbers of length 1; all 0 for who had nothing.

        Raises:
            InvalidDataError: on histories that cannot be used.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
        """
        shelf, log = self._ready()[1], self._liked(histories, columns, on_unknown)
        found = length_one(had(log.items, log.offsets, len(shelf.space)) @ sides_of(shelf.space))
        vectors = pl.Series("vector", found, dtype=pl.Array(pl.Float32, found.shape[1]))
        return pl.DataFrame([log.users.alias("user_id"), vectors])

    def _liked(self, histories: FrameLike, columns: Columns | None, on_unknown: OnUnknown) -> Interactions:
        """Histories without what is disliked."""
        model, shelf = self._ready()
        log = Interactions.read(
            histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events
        )  # fmt: skip
        return log.where(log.labels_from(self.config.liked_from) > 0)
