"""The factors of a host's own model, handed over in place of the symmetric channel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from mecold.data.catalog import Catalog
from mecold.errors import InvalidDataError, few
from mecold.space.channel import Traits
from mecold.space.low_rank import balanced, spread
from mecold.space.making import Maker, Material, Pair, Sides
from mecold.types import ItemId


@dataclass(frozen=True)
class ItemFactors:
    """Factors of a host's own model, handed over in place of the symmetric channel.

    Args:
        ids: item ids, in the order of the rows.
        item: the vector an item is found by, shape `(items, rank)`.
        support: what an item says about its user; None takes the fold-in map of an implicit ridge model,
            `item @ inv(item' item / items + I / rank)`.
        unseen_users: ids of users that the host's model was not fitted on. Meta-training draws its episodes from them
            alone; without any, from all users, and the report warns, since their history already is in the factors.
    """

    ids: Sequence[ItemId]
    item: np.ndarray
    support: np.ndarray | None = None
    unseen_users: Sequence[ItemId] = ()

    def sides(self, catalog: Catalog) -> Sides:
        """The factors by row of the catalogue; items without factors get zeros and live on their neighbours and text.

        Raises:
            InvalidDataError: if shapes differ, values are not finite, or ids repeat.
            UnknownItemError: if an id is not in the catalogue.
        """
        item = np.asarray(self.item, dtype=np.float32)
        support = item if self.support is None else np.asarray(self.support, dtype=np.float32)
        if item.ndim != 2 or support.shape != item.shape or len(item) != len(self.ids):
            raise InvalidDataError(
                f"{len(self.ids):,} ids need factors of as many rows: item is {item.shape}, support {support.shape}."
            )
        bad = [id_ for id_, ok in zip(self.ids, np.isfinite(item + support).all(1), strict=True) if not ok]
        if bad:
            raise InvalidDataError(f"{len(bad):,} factor rows are not finite: {few(bad)}.")
        if self.support is None:
            support = _fold_in(item)
        rows = catalog.rows(self.ids, f"the {len(self.ids):,} items with factors")
        if len(np.unique(rows)) < len(rows):
            raise InvalidDataError(f"{len(rows) - len(np.unique(rows)):,} item ids stand twice in the factors.")
        ordered = _ordered(Pair(torch.from_numpy(support), torch.from_numpy(item)))
        return Sides(*spread(balanced(ordered), rows, catalog.size))


def _fold_in(item: Float32[np.ndarray, "items rank"]) -> Float32[np.ndarray, "items rank"]:
    gram = item.T @ item / max(1, len(item)) + np.eye(item.shape[1], dtype=np.float32) / item.shape[1]
    return np.linalg.solve(gram, item.T).T.astype(np.float32)


def _ordered(sides: Pair) -> Pair:
    """The same scores, the columns in order of how much they add to them, as fitted channels have them; no more columns than
    there are items.
    """
    (left, over), (right, under) = (torch.linalg.qr(side.double()) for side in (sides.support, sides.item))
    turn, sizes, turned = torch.linalg.svd(over @ under.T)
    both = ((left @ turn, sides.support), (right @ turned.T, sides.item))
    return Pair(*((side * sizes.sqrt() * (old != 0).any(1, keepdim=True)).float() for side, old in both))


def _sides(material: Material) -> Sides | None:
    return material.given


HOST = Maker("host", Traits(start=2.5, agrees=True, given=True), _sides)
