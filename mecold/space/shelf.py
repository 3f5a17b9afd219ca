"""A catalogue with its vectors and its index, as one value that is never changed: readers hold the old or the new.

Rows are only ever appended. A removed item's row stays until enough have gathered, and the shelf is packed; an index
that must be built is rebuilt when the rows that it does not cover have become many. A hidden item is there for all that
is learned and read, and is left out of what is searched.
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
from mecold.lazy import cached_property
from mecold.space.approximate import FaissIndex, make_index
from mecold.space.index import ExactIndex, ItemIndex, Ranked, top_rows
from mecold.space.space import ItemSpace, UserVectors
from mecold.types import ItemId, UserState

_SLACK = 0.2  # share of dead rows, or of rows outside a built index, at which the shelf is packed


@dataclass(frozen=True)
class Difference:
    """What sets a feed of items apart from a shelf.

    Args:
        new: True for items of the feed that the shelf lacks.
        changed: True for items of the feed that have another text on the shelf.
        back: hidden items that are in the feed.
        absent: items of the shelf that the feed lacks, those that are not hidden.
        absent_hidden: those that are.
    """

    new: Bool[np.ndarray, " feed"]
    changed: Bool[np.ndarray, " feed"]
    back: list[ItemId]
    absent: list[ItemId]
    absent_hidden: list[ItemId]


@dataclass(frozen=True)
class Shelf:
    """One state of the catalogue.

    Args:
        catalog: ids and texts by row.
        space: support and item vectors by row.
        dead: True for rows of removed items.
        index: searches the item vectors.
        kind: the setting the index was made from.
        hidden: True for rows of items that are there, but are never recommended.
    """

    catalog: Catalog
    space: ItemSpace
    dead: Bool[Tensor, " items"]
    index: ItemIndex
    kind: str
    hidden: Bool[Tensor, " items"]

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        space: ItemSpace,
        kind: str,
        index: ItemIndex | None = None,
        hidden: Bool[Tensor, " items"] | None = None,
    ) -> "Shelf":
        """A shelf of live rows only; nothing hidden where `hidden` is None."""
        nothing = torch.zeros(len(space), dtype=torch.bool, device=space.device)
        return cls(
            catalog, space, nothing, index or make_index(kind, space), kind, nothing if hidden is None else hidden
        )  # fmt: skip

    @classmethod
    def rebuilt(cls, catalog: Catalog, space: ItemSpace, kind: str, hidden: Bool[Tensor, " items"]) -> "Shelf":
        """A shelf of live rows; should FAISS no longer build over what is left, it is searched exactly, with a warning."""
        try:
            return cls.of(catalog, space, kind, hidden=hidden)
        except InvalidDataError as error:
            warnings.warn(f"{error} Searching exactly meanwhile.", DataWarning, stacklevel=4)
            return cls.of(catalog, space, kind, ExactIndex(), hidden)

    @cached_property
    def out(self) -> Bool[Tensor, " items"]:
        """True for rows that no list may hold: those of removed and of hidden items."""
        return self.dead | self.hidden

    @property
    def touched(self) -> Bool[Tensor, " items"]:
        """True for items that are there and that somebody has touched: those that new ones are compared with."""
        return ~(self.space.new | self.dead)

    def changed(self, gone: Sequence[ItemId], new: Catalog | None = None, rows: ItemSpace | None = None) -> "Shelf":
        """This shelf without the items in `gone`, and with the items of `new` behind; who is in both stays a neighbour."""
        leaving = {item: row for item in gone if (row := self.catalog.row(item)) is not None}
        catalog = self.catalog.extended(gone, new)
        dead = torch.from_numpy(catalog.gone).to(self.dead.device)
        hidden = torch.zeros_like(dead)
        hidden[: len(self.hidden)] = self.hidden
        space = self.space if rows is None else self.space.followed_by(rows)
        staying = {row: now for item, row in leaving.items() if (now := catalog.row(item)) is not None}
        if staying:
            now_at = torch.tensor(list(staying.values()), device=dead.device)
            hidden[now_at] = hidden[list(staying)]
            to = torch.arange(len(dead), device=dead.device)
            to[list(staying)] = now_at
            space = replace(space, lists=space.lists.moved(to))
        hidden &= ~dead
        uncovered = len(dead) - self.index.covers if isinstance(self.index, FaissIndex) else 0
        if max(int(np.count_nonzero(catalog.gone)), uncovered) > _SLACK * len(dead):
            return _packed(catalog, space, dead, hidden, self.kind)
        return replace(self, catalog=catalog, space=space, dead=dead, hidden=hidden)

    def packed(self) -> "Shelf":
        """The same items without dead rows; itself where there are none."""
        if not bool(self.dead.any()):
            return self
        return _packed(self.catalog, self.space, self.dead, self.hidden, self.kind)

    def with_hidden(self, rows: np.ndarray, *, hidden: bool) -> "Shelf":
        """This shelf with the items of these rows hidden, or shown."""
        flags = self.hidden.clone()
        flags[torch.from_numpy(rows).to(flags.device)] = hidden
        return replace(self, hidden=flags)

    def against(self, feed: Catalog) -> Difference:
        """How a feed differs from what is on the shelf.

        Raises:
            InvalidDataError: if the feed's ids are of another type.
        """
        rows = self.catalog.find(feed.ids, "feed").to_numpy()
        known, hidden = rows >= 0, self.hidden.cpu().numpy()
        pairs = zip(rows.tolist(), feed.texts, strict=True)
        changed = np.array([row >= 0 and self.catalog.text_of(row) != text for row, text in pairs], bool)
        absent = ~self.catalog.gone
        absent[rows[known]] = False
        back = rows[known][hidden[rows[known]]]
        groups = [self.ids(some) for some in (back, *map(np.flatnonzero, (absent & ~hidden, absent & hidden)))]
        return Difference(~known, changed, *groups)

    def there(self, items: Iterable[ItemId]) -> np.ndarray:
        """Rows of those items that are on the shelf."""
        rows = {row for item in items if (row := self.catalog.row(item)) is not None}
        return np.fromiter(rows, np.int64, len(rows))

    def left_out(self, exclude: Iterable[ItemId], among: Sequence[ItemId] | None) -> Bool[Tensor, " items"]:
        """True for rows that nobody gets: removed, hidden and those of `exclude`, and all that are not `among` these.

        Raises:
            UnknownItemError: if `among` names unknown items.
        """
        out = self.out.clone()
        if among is not None:
            allowed = torch.zeros_like(out)
            allowed[self.catalog.rows(among, "the items in `among`")] = True
            out |= ~allowed
        out[self.there(exclude)] = True
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

    def search_among(self, rows: np.ndarray, users: UserVectors, k: int) -> Ranked:
        """The k best of these rows (ascending) for one user, exactly, ties by row; hidden ones are left out."""
        wanted = torch.from_numpy(rows).to(self.space.device)
        wanted = wanted[~self.out[wanted]]
        if not len(wanted):
            return Ranked(*(np.empty((1, 0), kind) for kind in (np.int64, np.float32, np.bool_)))
        scores, places = top_rows(self.space.scores_among(wanted, users), k)
        return Ranked(wanted.cpu().numpy()[places], scores, np.isfinite(scores))

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[ItemId]:
        """Ids of rows."""
        return [self.catalog.id_of(row) for row in np.asarray(rows).tolist()]


def _packed(catalog: Catalog, space: ItemSpace, dead: Tensor, hidden: Tensor, kind: str) -> Shelf:
    alive = (~dead).nonzero()[:, 0]
    kept = catalog.taken((~dead).cpu().numpy())
    thin = replace(space.take(alive), lists=space.lists.taken(alive))
    return Shelf.rebuilt(kept, thin, kind, hidden[alive])
