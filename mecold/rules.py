"""What a shop decides beside the ranking: who may get what, and how many of a group. Callers' ids become rows here."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Bool
from torch import Tensor

from mecold.data.catalog import Catalog, plain_ids
from mecold.data.frames import FrameLike, id_column, read_frame, require
from mecold.errors import DataWarning, InvalidDataError, few
from mecold.space.index import Hidden
from mecold.space.rerank import Codes, Rerank
from mecold.space.shelf import Shelf
from mecold.types import ItemId
from mecold.values import number, whole

ItemsOrPairs: TypeAlias = Iterable[ItemId] | FrameLike
"""Item ids for everybody; or a table (or its `Path`) with `item_id` and, where each user has items of their own, `user_id`."""

Groups: TypeAlias = Mapping[ItemId, Any] | FrameLike
"""Item -> group; or a table (or its `Path`) with `item_id` and one more column."""


_GROUPS = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)


def is_table(source: object) -> bool:
    """True for what `read_frame` reads, texts left out: a table, or the `Path` of one."""
    return isinstance(source, Path) or hasattr(type(source), "columns")


@dataclass(frozen=True)
class Named:
    """Items that a caller names: the same for everybody, or by user.

    Args:
        ids: the items; where they go by user, those of all users, one per pair.
        users: the user of each; None where they are meant for everybody.
    """

    ids: pl.Series | list[ItemId]
    users: pl.Series | None = None

    @classmethod
    def read(cls, source: ItemsOrPairs, name: str, types: Mapping[str, Any] | None = None) -> "Named":
        """Read ids, or a table of them.

        Args:
            source: the items.
            name: the argument's name in messages.
            types: what `user_id` and `item_id` of a csv file are to meet, as in `read_frame`.

        Raises:
            InvalidDataError: on a bare text, a table without `item_id`, and ids that are missing or of no known type.
        """
        if not is_table(source):
            return cls(plain_ids(source, name))
        frame = read_frame(source, f"rows of `{name}`", names=("user_id", "item_id"), ids=types)
        require(frame, ["item_id"], f"rows of `{name}`")
        ids = id_column(frame["item_id"], f"item_id of `{name}`")
        if "user_id" not in frame.columns:
            return cls(ids.to_list())
        return cls(ids, id_column(frame["user_id"], f"user_id of `{name}`"))

    def pairs(self, users: pl.Series, catalog: Catalog, name: str, *, known: bool) -> Hidden:
        """Places among these users and rows of the catalogue, by place; pairs of other users are left out.

        Args:
            users: distinct ids.
            catalog: the items.
            name: the argument's name in messages.
            known: refuse items that are not in the catalogue, which are left out otherwise.

        Raises:
            InvalidDataError: if ids are of another type than the users' or the catalogue's.
            UnknownItemError: naming unknown items, where they are refused.
        """
        assert isinstance(self.ids, pl.Series)
        assert self.users is not None
        if len(self.users) and len(users) and self.users.dtype != users.dtype:
            raise InvalidDataError(
                f"The user ids of `{name}` are {self.users.dtype}, those of the histories {users.dtype}. Cast one of them."
            )
        rows = catalog.find(self.ids, f"rows of `{name}`")
        if known and (rows < 0).any():
            catalog.rows(self.ids.filter(rows < 0).unique(maintain_order=True).to_list(), f"the items in `{name}`")
        if len(rows) and (rows < 0).all():
            _nothing(
                f"None of the items in `{name}` is in the catalogue ({few(self.ids.unique(maintain_order=True).to_list())})"
            )
        if not (len(self.users) and len(users)):
            return Hidden.of([])
        places = pl.DataFrame({"user": users, "place": np.arange(len(users))})
        pairs = pl.DataFrame({"user": self.users, "row": rows}).filter(pl.col("row") >= 0)
        found = pairs.join(places, on="user").sort("place", "row")
        return Hidden(found["place"].to_numpy(), found["row"].to_numpy())


@dataclass(frozen=True)
class Allowed:
    """Who may get what, in a batch of users.

    Args:
        out: True for rows that nobody gets.
        hidden: rows that single users must not get.
        only: where not None, all that each user may get.
    """

    out: Bool[Tensor, " items"]
    hidden: Hidden
    only: Hidden | None = None

    @property
    def same(self) -> bool:
        """True where all users may get the same."""
        return self.only is None and not len(self.hidden.users)

    def keeps(self, pairs: Hidden) -> Bool[np.ndarray, " pairs"]:
        """Which users may get which rows."""
        items = len(self.out)
        wanted = pairs.users * items + pairs.rows
        keep: np.ndarray = ~self.out.cpu().numpy()[pairs.rows] & ~np.isin(
            wanted, self.hidden.users * items + self.hidden.rows
        )
        return keep if self.only is None else keep & np.isin(wanted, self.only.users * items + self.only.rows)

    def between(self, start: int, stop: int) -> "Allowed":
        """That of some users of the batch."""
        return Allowed(self.out, self.hidden.between(start, stop), self.only and self.only.between(start, stop))


@dataclass(frozen=True)
class Rules:
    """What the lists of a batch must be like.

    Args:
        exclude: items to leave out.
        among: the only ones allowed; None for all.
        include_seen: let items of a user's history come back.
        rerank: how a list is picked out of a longer one; None for the best scores.
    """

    exclude: Named
    among: Named | None = None
    include_seen: bool = False
    rerank: Rerank | None = None

    def allowed(self, shelf: Shelf, users: pl.Series) -> Allowed:
        """Who of these users may get what. A user who has no row in an `among` by user gets nothing.

        Raises:
            InvalidDataError: if ids are of another type than the users' or the catalogue's.
            UnknownItemError: if `among` names unknown items.

        Warns:
            DataWarning: if a filter matches nothing.
        """
        hidden, only, everybody = Hidden.of([]), None, None
        if self.exclude.users is not None:
            hidden = self.exclude.pairs(users, shelf.catalog, "exclude", known=False)
        if self.among is not None and self.among.users is not None:
            only = self.among.pairs(users, shelf.catalog, "among", known=True)
        elif self.among is not None:
            everybody = shelf.catalog.checked(list(self.among.ids), "among")
        nobody = [] if self.exclude.users is not None else leaving(list(self.exclude.ids), shelf.catalog)
        out = shelf.left_out(nobody, everybody)
        return Allowed(out, hidden, only)


def leaving(items: object, catalog: Catalog) -> list[ItemId]:
    """The items to leave out; unknown ones are out already, but should all of them be unknown, that is told.

    Raises:
        InvalidDataError: if these are no ids, or some are of another type than the catalogue's.

    Warns:
        DataWarning: if none of them is in the catalogue.
    """
    ids = catalog.checked(items, "exclude")
    if ids and not any(item in catalog for item in ids):
        _nothing(f"None of the {len(ids):,} ids in `exclude` is in the catalogue ({few(ids)})")
    return ids


def _nothing(what: str) -> None:
    warnings.warn(f"{what}: this filter matches nothing.", DataWarning, stacklevel=4)


def rerank_of(diversity: object, groups: Groups | None, per_group: object, catalog: Catalog) -> Rerank | None:
    """How lists are picked; None where the best scores are all that is asked for.

    Args:
        diversity: between 0 and 1.
        groups: groups of items; None where there are none.
        per_group: at most so many of each; None for one.
        catalog: the items.

    Raises:
        InvalidDataError: if one of them cannot be used, or `per_group` comes without groups.
    """
    unlike = number(diversity, "diversity", 0, 1)
    if groups is None:
        if per_group is not None:
            raise InvalidDataError(f"per_group={per_group!r} needs `groups`: which item belongs to which group.")
        return Rerank(unlike) if unlike else None
    most = 1 if per_group is None else whole(per_group, "per_group")
    if isinstance(groups, Mapping):
        return Rerank(unlike, _codes_of_mapping(groups, catalog), most)
    return Rerank(unlike, _codes_of_table(groups, catalog), most)


def _codes_of_mapping(groups: Mapping[ItemId, Any], catalog: Catalog) -> Codes:
    """Looked up for the candidates of a list alone, however large the mapping is."""
    first = next(iter(groups), None)
    if first is not None and isinstance(first, str) != catalog.strings:
        raise InvalidDataError(
            f"`groups` has items such as {first!r}; the ids of the catalogue are {catalog.kind}. Use the same ids."
        )

    def codes(rows: np.ndarray) -> np.ndarray:
        distinct, places = np.unique(rows, return_inverse=True)
        number: dict[Any, int] = {}
        found = np.full(len(distinct), -1)
        for place, item in enumerate(map(catalog.id_of, distinct.tolist())):
            group = groups.get(item)
            try:
                if group is not None and group == group:  # NaN, as pandas has it, is no group
                    found[place] = number.setdefault(group, len(number))
            except (TypeError, ValueError) as error:
                raise InvalidDataError(
                    f"The group of {item!r} is {group!r}; use texts or numbers, and None for an item without a group."
                ) from error
        return found[places].reshape(rows.shape)

    return codes


def _codes_of_table(groups: FrameLike, catalog: Catalog) -> Codes:
    """A number for each row of the catalogue."""
    if not is_table(groups):
        raise InvalidDataError(f"`groups` is a {type(groups).__name__}; pass a mapping of items to groups, or a table.")
    frame = read_frame(groups, "groups", ids={"item_id": catalog.dtype})
    require(frame, ["item_id"], "groups")
    others = [name for name in frame.columns if name != "item_id"]
    if len(others) != 1:
        raise InvalidDataError(
            f"The groups need `item_id` and one more column; beside it they have {few(others) or 'none'}. Select one."
        )
    column = frame[others[0]]
    if not (column.dtype.is_numeric() or column.dtype.is_temporal() or column.dtype in _GROUPS):
        raise InvalidDataError(f"The groups' column '{others[0]}' holds {column.dtype}; use texts or numbers.")
    values = (column.fill_nan(None) if column.dtype.is_float() else column).cast(pl.String)
    table = pl.DataFrame({"item": id_column(frame["item_id"], "item_id of the groups"), "group": values})
    table = table.drop_nulls("group").unique(maintain_order=True)
    twice = table.filter(table["item"].is_duplicated())["item"].unique(maintain_order=True)
    if len(twice):
        raise InvalidDataError(
            f"{len(twice):,} items stand in more than one group: {few(twice.to_list())}. Keep one group per item."
        )
    rows = catalog.find(table["item"], "groups").to_numpy()
    number = table["group"].rank("dense").to_numpy().astype(np.int64)
    of_row = np.full(catalog.size, -1)
    of_row[rows[rows >= 0]] = number[rows >= 0]
    return lambda wanted: of_row[wanted]
