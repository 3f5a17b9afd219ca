"""Who will want an item: ids of users, best first, from what they had. Users are the caller's, and are kept only as long as he
keeps what is made here.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl
import torch
from scipy.special import expit

from mecold.data.catalog import plain_ids
from mecold.data.interactions import Interactions
from mecold.errors import InvalidDataError, few
from mecold.heads.audience import Crowd, Trust
from mecold.meta.audience import learn_trust
from mecold.space.profiles import had, sides_of
from mecold.space.shelf import Shelf
from mecold.types import ItemId
from mecold.values import whole


class Audiences:
    """Users of a log, and how far signs that they will want an item are to be trusted.

    Args:
        shelf: the items.
        log: what users had.
        rng: draws what is rehearsed.
    """

    def __init__(self, shelf: Shelf, log: Interactions, rng: np.random.Generator) -> None:
        self._shelf, self._users = shelf, log.users
        text = shelf.space.text_of(torch.arange(len(shelf.space), device=shelf.space.device)).cpu().numpy()
        text = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-9)
        self._crowd = Crowd(had(log.items, log.offsets, len(text)), sides_of(shelf.space), text)
        self._trust: Trust = learn_trust(self._crowd, rng)
        self._place = {user: at for at, user in enumerate(log.users.to_list())}

    def __len__(self) -> int:
        """Number of users."""
        return len(self._users)

    def __contains__(self, user: object) -> bool:
        """True for a user of the histories."""
        return isinstance(user, str | int) and user in self._place

    def of(self, item: ItemId | None = None, k: int = 50, *, seeds: Iterable[ItemId] = ()) -> pl.DataFrame:
        """Those who will want an item most.

        Args:
            item: its id; those of the histories who have it are seeds, and are left out. None: only seeds tell.
            k: how many.
            seeds: users of the histories who want it already; they are left out.

        Returns:
            A frame of at most k rows, best first: `rank` from 1, `user_id`, `probability` of being one of those who take it.

        Raises:
            UnknownItemError: if the item is not in the catalogue.
            InvalidDataError: naming seeds that are no users of the histories, if neither item nor seeds are given, or k is no
                positive integer.
        """
        k = whole(k, "k")
        told = list(dict.fromkeys(plain_ids(seeds, "seeds")))
        if unknown := [one for one in told if one not in self._place]:
            raise InvalidDataError(
                f"{len(unknown):,} of {len(told):,} seeds are no users of the histories: {few(unknown)}. Pass histories that "
                "have them, or leave them out."
            )
        row, first = None, np.array([self._place[one] for one in told], np.int64)
        if item is not None:
            catalog = self._shelf.catalog
            row = int(catalog.rows(catalog.checked([item], "item"), "the items")[0])
            first = np.union1d(first, self._crowd.takers_of(row))
        elif not len(first):
            raise InvalidDataError("Name an item, or seeds: users who want it already.")
        chance = self._logits(row, first)
        chance[first] = -np.inf
        best = np.argsort(-chance, kind="stable")[: min(k, len(chance) - len(first))]
        ranks = pl.Series("rank", np.arange(1, len(best) + 1))
        return pl.DataFrame(
            [ranks, self._users.gather(best).alias("user_id"), pl.Series("probability", expit(chance[best]))]
        )

    def _logits(self, row: int | None, first: np.ndarray) -> np.ndarray:
        signs = self._crowd.signs(row, first, slice(None))
        return self._trust.logits(signs, len(first), named=row is not None)
