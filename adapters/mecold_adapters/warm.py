"""What a trained host model knows of its users and items, as plain arrays that answer with the host's own scores.

Nothing of the host is changed, and factors are copied in. Only a fold-in keeps the host itself: when that is fitted again,
make a new warm model.
"""

import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mecold import InvalidDataError, ItemFactors, ItemId, UnknownItemError
from mecold.data.frames import id_column


@runtime_checkable
class WarmModel(Protocol):
    """A model of users with a history."""

    @property
    def item_ids(self) -> Sequence[ItemId]:
        """The items, in the order of the columns of `scores`."""
        ...

    @property
    def user_ids(self) -> Sequence[ItemId]:
        """The users it was fitted on, whom it knows."""
        ...

    def knows(self, user: ItemId) -> bool:
        """True if the model was fitted on this user."""
        ...

    def scores(self, users: Sequence[ItemId]) -> np.ndarray:
        """The host's scores of every item, shape `(users, items)`, float32; -inf where it has nothing to say."""
        ...


@runtime_checkable
class Factors(WarmModel, Protocol):
    """A warm model that has vectors."""

    @property
    def item_factors(self) -> np.ndarray:
        """Shape `(items, rank)`, in the order of `item_ids`."""
        ...

    @property
    def user_factors(self) -> np.ndarray | None:
        """Shape `(users, rank)`, in the order of `user_ids`; no rows where only items are at hand."""
        ...

    def to_factors(
        self, unseen_users: Sequence[ItemId] = (), *, among: Collection[ItemId] | None = None
    ) -> ItemFactors:
        """What mecold takes of them, see `FactorModel.to_factors`."""
        ...


@runtime_checkable
class FoldIn(WarmModel, Protocol):
    """A warm model that can score users it was not fitted on."""

    def scores_of(self, histories: Sequence[Collection[ItemId]]) -> np.ndarray:
        """The host's scores of every item for users with these items, shape `(users, items)`, float32."""
        ...


@dataclass(frozen=True)
class FactorModel:
    """Users and items as vectors: a score is an inner product, plus biases where the model has them.

    This covers whatever hands out factors: implicit, Spark ALS, TorchRec, Surprise, LightFM (its representations), or a
    file. Arrays are copied.

    Args:
        item_ids: item ids, in the order of the rows.
        item_factors: shape `(items, rank)`.
        user_ids: user ids, in the order of the rows; none where only items are at hand.
        user_factors: shape `(users, rank)`.
        item_biases: shape `(items,)`, or None.
        user_biases: shape `(users,)`, or None; they do not change a ranking.
        offset: a constant that belongs to every score, such as a mean rating.
    """

    item_ids: Sequence[ItemId]
    item_factors: np.ndarray
    user_ids: Sequence[ItemId] = ()
    user_factors: np.ndarray | None = None
    item_biases: np.ndarray | None = None
    user_biases: np.ndarray | None = None
    offset: float = 0.0
    _row_of: dict[ItemId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("item_ids", "user_ids"):
            object.__setattr__(self, name, _plain_ids(getattr(self, name), name))
        if len(self.user_ids) and self.user_factors is None:
            raise InvalidDataError(f"{len(self.user_ids):,} user ids came without user_factors.")
        rank = np.asarray(self.item_factors).shape[-1]
        if self.user_factors is None:
            object.__setattr__(self, "user_factors", np.zeros((0, rank), np.float32))
        for name, shape in (
            ("item_factors", (len(self.item_ids), rank)),
            ("user_factors", (len(self.user_ids), rank)),
            ("item_biases", (len(self.item_ids),)),
            ("user_biases", (len(self.user_ids),)),
        ):
            if (given := getattr(self, name)) is None:
                continue
            values = np.array(given, dtype=np.float32)
            if values.shape != shape:
                raise InvalidDataError(f"{name} has shape {values.shape}; {shape} would fit the ids and the rank.")
            if not np.isfinite(values).all():
                raise InvalidDataError(f"{name} holds numbers that are not finite.")
            object.__setattr__(self, name, values)
        object.__setattr__(self, "_row_of", {user: row for row, user in enumerate(self.user_ids)})

    def knows(self, user: ItemId) -> bool:
        """True if there are factors of this user."""
        return user in self._row_of

    def scores(self, users: Sequence[ItemId]) -> np.ndarray:
        """The host's scores, shape `(users, items)`, float32.

        Raises:
            UnknownItemError: naming users without factors.
        """
        rows = _rows(users, self._row_of)
        found = np.asarray(self.user_factors)[rows] @ self.item_factors.T + self.offset
        if self.item_biases is not None:
            found = found + self.item_biases
        if self.user_biases is not None:
            found = found + self.user_biases[rows][:, None]
        return np.asarray(found, dtype=np.float32)

    def to_factors(
        self, unseen_users: Sequence[ItemId] = (), *, among: Collection[ItemId] | None = None
    ) -> ItemFactors:
        """The item factors for `Recommender.fit_meta(factors=...)`; biases stay behind, mecold knows popularity itself.

        Some hosts keep biases as columns of the factors, against a column of ones on the other side (implicit's BPR and
        LMF, Cornac's MF): these stay behind too.

        Args:
            unseen_users: ids of users in mecold's log that the host was not fitted on (see `mecold.ItemFactors`).
            among: take only these items, such as those of mecold's catalogue; items without factors live on their texts.

        Raises:
            InvalidDataError: if nothing is left: no item is among them, or all columns are biases.
        """
        sides = (np.asarray(self.item_factors), np.asarray(self.user_factors))
        biases = np.any([_of_ones(side) for side in sides], axis=0)
        kept = np.array([among is None or item in among for item in self.item_ids], dtype=bool)
        factors = sides[0][kept][:, ~biases]
        if not factors.size:
            raise InvalidDataError(
                f"Of {len(kept):,} items with {len(biases)} columns {kept.sum():,} are wanted and {(~biases).sum()} are "
                "more than biases: there are no factors to take."
            )
        ids = [item for item, wanted in zip(self.item_ids, kept, strict=True) if wanted]
        return ItemFactors(ids, factors, unseen_users=unseen_users)

    @classmethod
    def read(cls, items: str | Path, users: str | Path | None = None) -> "FactorModel":
        """Read factors from files: `.npz` or `.safetensors` with `ids`, `factors` and optionally `biases`; or parquet.

        A parquet file, or a folder of them as Spark writes it, has a column `id`, a list column `factors` (or `features`, as
        Spark's ALS calls it), and optionally `bias`. `.safetensors` holds numbers only, so its ids are integers.

        Args:
            items: file or folder of the item side.
            users: file or folder of the user side.

        Raises:
            InvalidDataError: if a file is missing, of another kind, or lacks a part.
        """
        item_ids, item_factors, item_biases = _read(Path(items))
        if users is None:
            return cls(item_ids, item_factors, item_biases=item_biases)
        user_ids, user_factors, user_biases = _read(Path(users))
        return cls(item_ids, item_factors, user_ids, user_factors, item_biases, user_biases)


@dataclass(frozen=True)
class FoldInModel(FactorModel):
    """Factors, and the host's own way to make a user's.

    Args:
        fold_in: user vectors of shape `(users, rank)` from what users have, a CSR matrix of shape `(users, items)`.
    """

    fold_in: Callable[[sp.csr_matrix], np.ndarray] = field(kw_only=True)

    def scores_of(self, histories: Sequence[Collection[ItemId]]) -> np.ndarray:
        """The host's scores for users with these items, shape `(users, items)`, float32.

        Unknown items are left out, and each item counts once: weights are not read.
        """
        vectors = self.fold_in(_matrix(histories, self.item_ids))
        found = vectors @ self.item_factors.T + self.offset
        return np.asarray(found if self.item_biases is None else found + self.item_biases, dtype=np.float32)


@dataclass(frozen=True)
class NeighbourModel:
    """An item-item model: a user's score of an item is the sum of its similarities to what the user has.

    An item that is no neighbour of anything the user has scores -inf, as implicit leaves it out. It has no factors.

    Args:
        item_ids: item ids, in the order of rows and columns.
        similarity: shape `(items, items)`, row: the item a user has.
        user_ids: user ids, in the order of the rows of `user_items`.
        user_items: what the users have, with weights, shape `(users, items)`.
    """

    item_ids: Sequence[ItemId]
    similarity: sp.csr_matrix
    user_ids: Sequence[ItemId]
    user_items: sp.csr_matrix
    _row_of: dict[ItemId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("item_ids", "user_ids"):
            object.__setattr__(self, name, _plain_ids(getattr(self, name), name))
        n, m = len(self.item_ids), len(self.user_ids)
        for name, shape in (("similarity", (n, n)), ("user_items", (m, n))):
            matrix = sp.csr_matrix(getattr(self, name), copy=True)
            if matrix.shape != shape:
                raise InvalidDataError(f"{name} has shape {matrix.shape}; {shape} would fit the ids.")
            object.__setattr__(self, name, matrix)
        object.__setattr__(self, "_row_of", {user: row for row, user in enumerate(self.user_ids)})

    def knows(self, user: ItemId) -> bool:
        """True if the user's items are at hand."""
        return user in self._row_of

    def scores(self, users: Sequence[ItemId]) -> np.ndarray:
        """The host's scores, shape `(users, items)`, float32.

        Raises:
            UnknownItemError: naming unknown users.
        """
        return self._scores(self.user_items[_rows(users, self._row_of)])

    def scores_of(self, histories: Sequence[Collection[ItemId]]) -> np.ndarray:
        """The host's scores for users with these items, shape `(users, items)`, float32; unknown items are left out."""
        return self._scores(_matrix(histories, self.item_ids))

    def _scores(self, user_items: sp.csr_matrix) -> np.ndarray:
        found = (user_items @ self.similarity).tocoo()
        scores = np.full(found.shape, -np.inf, np.float32)
        scores[found.row, found.col] = found.data
        return scores


def _matrix(histories: Sequence[Collection[ItemId]], item_ids: Sequence[ItemId]) -> sp.csr_matrix:
    """Ones where a user has an item, shape `(users, items)`."""
    column = {item: place for place, item in enumerate(item_ids)}
    columns = [sorted(column[item] for item in set(one) if item in column) for one in histories]
    ends = np.cumsum([0, *map(len, columns)])
    entries = np.fromiter((place for one in columns for place in one), np.int32, ends[-1])
    return sp.csr_matrix((np.ones(len(entries), np.float32), entries, ends), (len(columns), len(column)))


def _of_ones(factors: np.ndarray) -> np.ndarray:
    """True for columns that hold 1 in every row; a row of zeros (a user or an item that was not fitted) does not count."""
    fitted = factors[factors.any(axis=1)]
    return (fitted == 1).all(axis=0) if len(fitted) else np.zeros(factors.shape[1], bool)


def _plain_ids(ids: Sequence[ItemId], what: str) -> tuple[ItemId, ...]:
    """The ids as Python's own strings or integers."""
    plain = tuple(one.item() if isinstance(one, np.generic) else one for one in ids)
    kinds = sorted({type(one).__name__ for one in plain})
    if len(kinds) > 1:
        raise InvalidDataError(f"{what} mixes {', '.join(kinds)}; ids are all strings or all integers.")
    plain = tuple(id_column(pl.Series(plain), what).to_list()) if plain else ()
    if len(set(plain)) < len(plain):
        raise InvalidDataError(f"{len(plain) - len(set(plain)):,} of the {what} stand twice.")
    return plain


def _rows(users: Sequence[ItemId], row_of: Mapping[ItemId, int]) -> list[int]:
    unknown = [user for user in users if user not in row_of]
    if unknown:
        raise UnknownItemError(f"{len(unknown):,} users are unknown to the warm model, such as {unknown[:3]}.")
    return [row_of[user] for user in users]


def _read(path: Path) -> tuple[list[ItemId], np.ndarray, np.ndarray | None]:
    kind = ".parquet" if path.is_dir() else path.suffix
    if kind not in _READERS:
        raise InvalidDataError(f"'{path}' is no {', '.join(_READERS)} file, and no folder of parquet files.")
    try:
        parts = _READERS[kind](path)
        biases = parts.get("biases")
        return parts["ids"].tolist(), parts["factors"], None if biases is None else np.asarray(biases)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, SafetensorError, pl.exceptions.PolarsError) as error:
        raise InvalidDataError(
            f"'{path}' cannot be read as factors: {error!r}. It needs `ids` and `factors` (parquet: columns `id`, `factors`)."
        ) from error


def _npz(path: Path) -> Mapping[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _parquet(path: Path) -> Mapping[str, np.ndarray]:
    frame = pl.read_parquet(path / "*.parquet" if path.is_dir() else path)
    factors = np.array(frame["factors" if "factors" in frame.columns else "features"].to_list(), dtype=np.float32)
    parts = {"ids": frame["id"].to_numpy(), "factors": factors}
    return parts | ({"biases": frame["bias"].to_numpy()} if "bias" in frame.columns else {})


_READERS: Mapping[str, Callable[[Path], Mapping[str, np.ndarray]]] = {
    ".npz": _npz,
    ".safetensors": load_file,
    ".parquet": _parquet,
}
