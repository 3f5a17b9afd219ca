"""A catalogue with its vectors and its index, as one value that is never changed: readers hold the old or the new.

Rows are only ever appended. A removed item's row stays until enough have gathered, and the shelf is packed; an index
that must be built is rebuilt when the rows that it does not cover have become many.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mecold.data.catalog import Catalog
from mecold.errors import DataWarning, InvalidDataError
from mecold.space.index import ExactIndex, FaissIndex, ItemIndex, make_index, top_rows
from mecold.space.space import ItemSpace, UserVectors
from mecold.types import ItemId, UserState

_SLACK = 0.2  # share of dead rows, or of rows outside a built index, at which the shelf is packed


@dataclass(frozen=True)
class Shelf:
    """One state of the catalogue.

    Args:
        catalog: ids and texts by row.
        space: support and item vectors by row.
        dead: True for rows of removed items.
        index: searches the item vectors.
        kind: the setting the index was made from.
    """

    catalog: Catalog
    space: ItemSpace
    dead: Bool[Tensor, " items"]
    index: ItemIndex
    kind: str

    @classmethod
    def of(cls, catalog: Catalog, space: ItemSpace, kind: str, index: ItemIndex | None = None) -> "Shelf":
        """A shelf of live rows only."""
        dead = torch.zeros(len(space), dtype=torch.bool, device=space.device)
        return cls(catalog, space, dead, index or make_index(kind, space), kind)

    @classmethod
    def rebuilt(cls, catalog: Catalog, space: ItemSpace, kind: str) -> "Shelf":
        """A shelf of live rows; should FAISS no longer build over what is left, it is searched exactly, with a warning."""
        try:
            return cls.of(catalog, space, kind)
        except InvalidDataError as error:
            warnings.warn(f"{error} Searching exactly meanwhile.", DataWarning, stacklevel=4)
            return cls.of(catalog, space, kind, ExactIndex())

    def changed(self, gone: Sequence[ItemId], new: Catalog | None = None, rows: ItemSpace | None = None) -> "Shelf":
        """This shelf without the items in `gone`, and with the items of `new` behind; who is in both stays a neighbour."""
        leaving = {item: row for item in gone if (row := self.catalog.row(item)) is not None}
        catalog = self.catalog.extended(gone, new)
        dead = torch.from_numpy(catalog.gone).to(self.dead.device)
        space = self.space if rows is None else self.space.followed_by(rows)
        staying = {row: now for item, row in leaving.items() if (now := catalog.row(item)) is not None}
        if staying:
            to = torch.arange(len(dead), device=dead.device)
            to[list(staying)] = torch.tensor(list(staying.values()), device=dead.device)
            space = replace(space, lists=space.lists.moved(to))
        uncovered = len(dead) - self.index.covers if isinstance(self.index, FaissIndex) else 0
        if max(int(np.count_nonzero(catalog.gone)), uncovered) > _SLACK * len(dead):
            return _packed(catalog, space, dead, self.kind)
        return replace(self, catalog=catalog, space=space, dead=dead)

    def packed(self) -> "Shelf":
        """The same items without dead rows; itself where there are none."""
        return _packed(self.catalog, self.space, self.dead, self.kind) if bool(self.dead.any()) else self

    def hidden(self, items: Iterable[ItemId]) -> np.ndarray:
        """Rows of those items that are on the shelf."""
        rows = {row for item in items if (row := self.catalog.row(item)) is not None}
        return np.fromiter(rows, np.int64, len(rows))

    def left_out(self, exclude: Iterable[ItemId], among: Sequence[ItemId] | None) -> Bool[Tensor, " items"]:
        """True for rows that nobody gets: those of removed items and of `exclude`, and all that are not `among` these.

        Raises:
            UnknownItemError: if `among` names unknown items.
        """
        out = self.dead.clone()
        if among is not None:
            out[:] = True
            out[self.catalog.rows(among, "the items in `among`")] = False
        out[self.hidden(exclude)] = True
        return out

    def vectors_of(self, user: UserState) -> UserVectors:
        """A user's state as what is searched with; the lists of items that have left the shelf are not read."""
        there = [(row, trust) for item, trust in zip(user.seen, user.trust.tolist(), strict=True)
                 if trust and (row := self.catalog.row(item)) is not None]  # fmt: skip
        parts = (
            user.query.copy(),
            np.array([row for row, _ in there], np.int64),
            np.array([trust for _, trust in there], np.float32),
        )
        return UserVectors(*(torch.from_numpy(part)[None].to(self.space.device) for part in parts))

    def search_among(self, rows: np.ndarray, users: UserVectors, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of these rows (ascending) for one user, exactly: rows and scores, ties by row."""
        if not len(rows):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores, places = top_rows(self.space.scores_among(torch.from_numpy(rows).to(self.space.device), users), k)
        return rows[places[0]], scores[0]

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[ItemId]:
        """Ids of rows."""
        return [self.catalog.id_of(row) for row in np.asarray(rows).tolist()]


def _packed(catalog: Catalog, space: ItemSpace, dead: Tensor, kind: str) -> Shelf:
    alive = (~dead).nonzero()[:, 0]
    rows = alive.cpu().numpy()
    kept = Catalog.of(catalog.ids.gather(rows), [catalog.text_of(row) for row in rows.tolist()])
    thin = replace(space.take(alive), lists=space.lists.taken(alive))
    return Shelf.rebuilt(kept, thin, kind)
