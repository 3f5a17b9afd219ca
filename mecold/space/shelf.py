"""A catalogue with its vectors and its index, as one value that is never changed: readers hold the old or the new.

Rows are only ever appended. A removed item's row stays until enough have gathered, and the shelf is packed; an index
that must be built is rebuilt when the rows that it does not cover have become many.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.data.catalog import Catalog
from mecold.errors import DataWarning, InvalidDataError
from mecold.space.index import ExactIndex, FaissIndex, ItemIndex, make_index, top_rows
from mecold.space.lookalikes import Lookalikes
from mecold.model import Model
from mecold.space.lists import Neighbours
from mecold.space.space import ItemSpace, Layout, Query
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
        dead = torch.zeros(len(space.item), dtype=torch.bool, device=space.item.device)
        return cls(catalog, space, dead, index or make_index(kind, space.item), kind)

    @classmethod
    def rebuilt(cls, catalog: Catalog, space: ItemSpace, kind: str) -> "Shelf":
        """A shelf of live rows; should FAISS no longer build over what is left, it is searched exactly, with a warning."""
        try:
            return cls.of(catalog, space, kind)
        except InvalidDataError as error:
            warnings.warn(f"{error} Searching exactly meanwhile.", DataWarning, stacklevel=4)
            return cls.of(catalog, space, kind, ExactIndex())

    def changed(self, gone: Sequence[ItemId], new: Catalog, rows: ItemSpace) -> "Shelf":
        """This shelf without the items in `gone`, and with the items of `new` behind; who is in both stays a neighbour."""
        leaving = [self.catalog.row_of[item] for item in gone]
        catalog = self.catalog.extended(gone, new.ids, new.texts)
        dead = torch.cat([self.dead, self.dead.new_zeros(len(rows.item))])
        dead[leaving] = True
        space = _joined(self.space, rows)
        if staying := [item for item in gone if item in new.row_of]:
            to = torch.arange(len(dead), device=dead.device)
            to[[self.catalog.row_of[item] for item in staying]] = to[[catalog.row_of[item] for item in staying]]
            space = replace(space, near=space.near.moved(to))
        uncovered = len(dead) - self.index.covers if isinstance(self.index, FaissIndex) else 0
        if max(int(dead.sum()), uncovered) > _SLACK * len(dead):
            return _packed(catalog, space, dead, self.kind)
        return replace(self, catalog=catalog, space=space, dead=dead)

    def packed(self) -> "Shelf":
        """The same items without dead rows; itself where there are none."""
        return _packed(self.catalog, self.space, self.dead, self.kind) if bool(self.dead.any()) else self

    def hidden(self, items: Iterable[ItemId]) -> np.ndarray:
        """Rows of those items that are on the shelf."""
        rows = {row for item in items if (row := self.catalog.row_of.get(item)) is not None}
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

    def query(self, user: UserState) -> Query:
        """A user's state as a query; the lists of items that have left the shelf are not read."""
        there = [(row, trust) for item, trust in zip(user.seen, user.trust.tolist(), strict=True)
                 if trust and (row := self.catalog.row_of.get(item)) is not None]  # fmt: skip
        parts = (
            user.query.copy(),
            np.array([row for row, _ in there], np.int64),
            np.array([trust for _, trust in there], np.float32),
        )
        return Query(*(torch.from_numpy(part)[None].to(self.space.item.device) for part in parts))

    def search_among(self, rows: np.ndarray, query: Query, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of these rows (ascending) for one query, exactly: rows and scores, ties by row."""
        if not len(rows):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores, places = top_rows(self.space.scores_among(torch.from_numpy(rows).to(self.space.item.device), query), k)
        return rows[places[0].cpu().numpy()], scores[0].cpu().numpy()

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[ItemId]:
        """Ids of rows."""
        found: list[ItemId] = self.catalog.ids.gather(np.asarray(rows)).to_list() if len(rows) else []
        return found


def _joined(space: ItemSpace, rows: ItemSpace) -> ItemSpace:
    """Rows appended."""
    return ItemSpace(
        torch.cat([space.support, rows.support]),
        torch.cat([space.item, rows.item]),
        space.near.followed_by(rows.near),
        torch.cat([space.popularity, rows.popularity]),
        torch.cat([space.cold, rows.cold]),
    )


def _packed(catalog: Catalog, space: ItemSpace, dead: Tensor, kind: str) -> Shelf:
    alive = (~dead).nonzero()[:, 0]
    rows = alive.cpu().numpy()
    kept = Catalog.of(catalog.ids.gather(rows), [catalog.texts[row] for row in rows.tolist()])
    near = space.near.taken(alive)
    thin = ItemSpace(space.support[alive], space.item[alive], near, space.popularity[alive], space.cold[alive])
    return Shelf.rebuilt(kept, thin, kind)


def cold_rows(model: Model, shelf: Shelf, vectors: Float[Tensor, "items text_dim"]) -> ItemSpace:
    """New items, which nobody has touched: text, what their lookalikes on the shelf have, and empty neighbour lists."""
    tower, there = model.tower, shelf.space
    own = tower.text(vectors)
    usable = ~(there.cold | shelf.dead)
    alike = Lookalikes.find(own, there.item[:, tower.layout.parts["text"]], usable)
    counts = torch.where(usable, tower.counts(there.popularity), 0.0)
    support, item = tower.newcomers(own, alike, there.support, there.item, counts)
    near = Neighbours.none(len(own), there.near.rows.shape[1], own)
    return ItemSpace(support, item, near, item[:, -1].contiguous(), torch.ones_like(item[:, 0], dtype=torch.bool))


def with_new_text(old: ItemSpace, rows: Sequence[int] | np.ndarray, fresh: ItemSpace, layout: Layout) -> ItemSpace:
    """Rows of a space whose texts changed: what their interactions say stays, what was guessed from the text is new."""
    at = torch.as_tensor(np.asarray(rows), device=old.item.device)
    text, cold = layout.parts["text"], old.cold[at]
    support, item = old.support[at].clone(), old.item[at].clone()
    # the same on both sides of a known item: the gain of a new one is not for it
    support[:, text] = item[:, text] = fresh.support[:, text]
    support[cold], item[cold] = fresh.support[cold], fresh.item[cold]
    near = Neighbours(old.near.rows[at], old.near.values[at])
    return ItemSpace(support, item, near, item[:, -1].contiguous(), cold)
