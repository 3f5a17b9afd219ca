"""implicit: a trained model's factors and scores for mecold, and mecold as one of implicit's own models.

warm = warm_model(als, item_ids, user_ids)                     # from the host
recommender.fit_meta(log, items, factors=warm.to_factors())
router = ColdStartRouter(warm, recommender)

model = MecoldRecommender(items)                               # into the host
model.fit(user_items)
ids, scores = model.recommend(userids, user_items[userids])
"""

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import scipy.sparse as sp

from mecold import DataWarning, Encoder, InvalidDataError, ItemId, MetaConfig, NotFittedError, Recommender
from mecold.data.frames import FrameLike, id_column, read_frame, require
from mecold_adapters.about import IMPLICIT
from mecold_adapters.packing import pack, unpack
from mecold_adapters.warm import FactorModel, FoldInModel, NeighbourModel

try:
    from implicit.recommender_base import RecommenderBase
    from implicit.utils import ParameterWarning
except ImportError as error:
    raise IMPLICIT.missing() from error
IMPLICIT.warn_unless_supported()

LEFT_OUT = float(-np.finfo(np.float32).max)
"""Score of an item that is only there to fill a row of the result, as implicit has it: cut on it."""


def warm_model(
    model: Any, item_ids: Sequence[ItemId], user_ids: Sequence[ItemId], user_items: sp.csr_matrix | None = None
) -> FactorModel | NeighbourModel:
    """What a fitted model of implicit knows: ALS (with fold-in), BPR, LMF on CPU or GPU, or an item-item model.

    Told apart by what the model has, not by its class: implicit's classes are factory functions.

    Args:
        model: the fitted model; it is only read, and kept for the fold-in of ALS.
        item_ids: id of each column of the matrix it was fitted on.
        user_ids: id of each row.
        user_items: the matrix it was fitted on; needed by item-item models only.

    Raises:
        InvalidDataError: if the model is not fitted, or `user_items` is missing.
    """
    if getattr(model, "similarity", None) is not None:
        if user_items is None:
            raise InvalidDataError("An item-item model keeps no users: pass user_items, the matrix it was fitted on.")
        return NeighbourModel(item_ids, model.similarity, user_ids, user_items)
    if getattr(model, "item_factors", None) is None or getattr(model, "user_factors", None) is None:
        raise InvalidDataError(f"{type(model).__name__} has no factors and no similarities: fit it first.")
    item, user = (_on_cpu(getattr(model, f"{side}_factors")) for side in ("item", "user"))

    reader = copy.copy(model)  # ALS keeps a product of its factors from the first call on: on the copy, not on the host

    def folded(rows: sp.csr_matrix) -> np.ndarray:
        return np.atleast_2d(_on_cpu(reader.recalculate_user(np.arange(rows.shape[0]), rows)))

    try:
        folded(sp.csr_matrix(([1.0], ([0], [0])), (1, len(item)), dtype=np.float32))
    except NotImplementedError:  # BPR and LMF
        return FactorModel(item_ids, item, user_ids, user)
    return FoldInModel(item_ids, item, user_ids, user, fold_in=folded)


def _on_cpu(factors: Any) -> np.ndarray:
    return np.asarray(factors.to_numpy() if hasattr(factors, "to_numpy") else factors)


class MecoldRecommender(RecommenderBase):  # type: ignore[misc]
    """mecold with implicit's interface: items and users are columns and rows of a sparse matrix.

    A sparse matrix has no order, so every history is shuffled in a fixed way. Users are not kept:
    `recommend` adapts to the rows of `user_items`, with or without `recalculate_user`. A row of a result that would
    come out short is filled with left-out items of score `LEFT_OUT`, as in implicit.

    Args:
        items: frame or path with `item_id` (the column of the matrix, an integer) and text columns; None: items have
            no text, and live on their interactions.
        encoder: turns texts into vectors; mecold's default where None.
        config: settings of the meta-learning.
        seed: seed of everything random.
    """

    def __init__(
        self,
        items: FrameLike | None = None,
        *,
        encoder: Encoder | None = None,
        config: MetaConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.items = items
        self.encoder = encoder
        self.config = config
        self.seed = seed
        self.recommender: Recommender | None = None

    def fit(
        self, user_items: sp.csr_matrix, show_progress: bool = True, callback: Callable[..., None] | None = None
    ) -> None:
        """Meta-learn from a matrix.

        Args:
            user_items: shape `(users, items)`; a positive value is the weight of an interaction, other entries are left
                out (a dislike is nothing that mecold can learn from a matrix; `recommend` still filters it).
            show_progress: show a progress bar.
            callback: called after each epoch with its number, the seconds since the start, and its loss (NaN before
                the first).
        """
        if not sp.isspmatrix_csr(user_items):
            warnings.warn(
                f"Method expects CSR input, and was passed {type(user_items).__name__} instead. Converting to CSR.",
                ParameterWarning,
                stacklevel=2,
            )
            user_items = sp.csr_matrix(user_items)
        recommender = Recommender(self.encoder, config=self.config, rng=self.seed, progress=show_progress)
        with warnings.catch_warnings():
            if self.items is None:
                warnings.simplefilter("ignore", DataWarning)  # that there are no texts is what was asked for
            recommender.fit_meta(
                _log(user_items), self._frame(user_items.shape[1]), trackers=[_Callback(callback)] if callback else []
            )
        self.recommender = recommender

    def _frame(self, n_items: int) -> pl.DataFrame:
        every = pl.DataFrame({"item_id": np.arange(n_items)})
        if self.items is None:
            return every.with_columns(pl.lit("").alias("title"))
        frame = read_frame(self.items, "items")
        require(frame, ["item_id"], "items")
        if id_column(frame["item_id"], "item_id of the items").dtype != pl.Int64:
            raise InvalidDataError(
                "item_id must be the number of the item's column in the matrix; these are no integers."
            )
        frame = frame.with_columns(pl.col("item_id").cast(pl.Int64))
        outside = frame.filter(~pl.col("item_id").is_in(every["item_id"].implode()))
        if outside.height:
            raise InvalidDataError(
                f"{outside.height:,} item ids are no columns of the matrix of {n_items:,} items, such as "
                f"{outside['item_id'].head(3).to_list()}. item_id must be the column's number."
            )
        return every.join(frame, on="item_id", how="left", maintain_order="left")

    def recommend(
        self,
        userid: int | np.ndarray,
        user_items: sp.csr_matrix | None,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Sequence[int] | np.ndarray | None = None,
        recalculate_user: bool = False,  # noqa: ARG002 - every call adapts
        items: Sequence[int] | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items of one user or of a batch; see `RecommenderBase.recommend`.

        Args:
            userid: a row number or an array of them; only their count matters.
            user_items: what these users have, one row each.
            N: how many items.
            filter_already_liked_items: leave out what the user has.
            filter_items: columns to leave out.
            recalculate_user: no difference: every call adapts.
            items: rank these columns only; not together with `filter_items`.

        Returns:
            Columns (int32) and scores (float32), best first; shape `(N,)` for one user, `(users, N)` for a batch.

        Raises:
            ValueError: if `user_items` is no CSR matrix with a row per user.
            IndexError: if `items` names columns that do not exist.
        """
        if not sp.isspmatrix_csr(user_items):
            raise ValueError("user_items needs to be a CSR sparse matrix")
        scalar, users = np.isscalar(userid), np.atleast_1d(userid)
        if user_items.shape[0] != len(users):
            raise ValueError("user_items must contain 1 row for every user in userids")
        among = self._columns(items) if items is not None else None
        if among is not None and filter_items is not None:
            raise ValueError("Can't specify both items and filter_items")
        left = [] if filter_items is None else np.asarray(filter_items).tolist()
        pool = np.arange(user_items.shape[1]) if among is None else among
        width = N if among is None else min(N, len(pool))  # as in implicit
        log = _log(user_items)
        with_history = set(log["user_id"].to_list())
        stored = user_items.tocoo()
        aside = stored.data <= 0  # what the user has without liking it
        more = int(np.bincount(stored.row[aside], minlength=1).max()) if filter_already_liked_items else 0
        found = self._fitted().recommend_batch(
            log, max(1, width + more), users=[row for row in range(len(users)) if row not in with_history],
            exclude=left, among=among if among is None else among.tolist(), include_seen=not filter_already_liked_items,
        )  # fmt: skip
        if more:
            has = pl.DataFrame({"user_id": stored.row[aside], "item_id": stored.col[aside]}).cast(pl.Int64)
            found = found.join(has, on=["user_id", "item_id"], how="anti", maintain_order="left")
        found = found.group_by("user_id", maintain_order=True).head(width)
        ids, scores = _rectangle(found, len(users), width, pool)
        return (ids[0], scores[0]) if scalar else (ids, scores)

    def similar_items(
        self,
        itemid: int | np.ndarray,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: sp.csr_matrix | None = None,
        filter_items: Sequence[int] | np.ndarray | None = None,
        items: Sequence[int] | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Items wanted by who has this one, the item itself first with score 1; see `RecommenderBase.similar_items`.

        The other scores are divided by the size of the best one's, so that they compare within one row.

        Args:
            itemid: a column number or an array of them.
            N: how many items.
            recalculate_item: not supported.
            item_users: not supported.
            filter_items: columns to leave out.
            items: rank these columns only; not together with `filter_items`.

        Raises:
            NotImplementedError: on `recalculate_item` or `item_users`.
            IndexError: if `itemid` or `items` name columns that do not exist.
        """
        if recalculate_item or item_users is not None:
            raise NotImplementedError("mecold does not recalculate items; use Recommender.add_items for new ones")
        if items is not None and filter_items is not None:
            raise ValueError("Can't specify both items and filter_items")
        recommender = self._fitted()
        n_items = recommender.info()["items"]
        pool = np.arange(n_items) if items is None else self._columns(items)
        pool = pool[~np.isin(pool, [] if filter_items is None else np.asarray(filter_items))]
        wanted, width, rows = set(pool.tolist()), min(N, len(pool)), []
        everything = n_items if len(pool) < n_items else min(N, n_items)
        for item in self._columns(np.atleast_1d(itemid)).tolist():
            near = [one for one in recommender.similar_items(item, everything) if one.item in wanted]
            top = max(abs(near[0].score), 1e-12) if near else 1.0
            own = [(item, 1.0)] if item in wanted else []
            rows.append([*own, *((one.item, one.score / top) for one in near)][:width])
        found = pl.DataFrame(
            [(place, one[0], one[1]) for place, row in enumerate(rows) for one in row],
            schema={"user_id": pl.Int64, "item_id": pl.Int64, "score": pl.Float32},
            orient="row",
        )
        ids, scores = _rectangle(found, len(rows), width, pool)
        return (ids[0], scores[0]) if np.isscalar(itemid) else (ids, scores)

    def similar_users(self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None) -> Any:
        """Not supported: mecold keeps no users."""
        raise NotImplementedError("mecold keeps no users, so it cannot look for similar ones")

    def save(self, fileobj_or_path: str | Path | BinaryIO) -> None:
        """Write the model as `.npz`: no pickle, and no texts but those of the catalogue."""
        target = fileobj_or_path
        np.savez(
            str(target) if isinstance(target, Path) else target, model=np.frombuffer(pack(self.recommender), np.uint8)
        )

    @classmethod
    def load(cls, fileobj_or_path: str | Path | BinaryIO) -> "MecoldRecommender":
        """Read what `save` wrote; an encoder, items and settings for another fit are not part of it."""
        source = fileobj_or_path
        if isinstance(source, str | Path) and not str(source).endswith(".npz"):
            source = f"{source}.npz"
        with np.load(source, allow_pickle=False) as data:
            made = cls()
            made.recommender = unpack(data["model"].tobytes())
            return made

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "recommender": pack(self.recommender)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, recommender=unpack(state["recommender"], state["encoder"]))

    def _fitted(self) -> Recommender:
        if self.recommender is None:
            raise NotFittedError("This MecoldRecommender has no model yet: call fit(user_items) first.")
        return self.recommender

    def _columns(self, items: Sequence[int] | np.ndarray) -> np.ndarray:
        columns = np.asarray(items, dtype=np.int64)
        n_items = self._fitted().info()["items"]
        if len(columns) and (columns.min() < 0 or columns.max() >= n_items):
            raise IndexError(f"Some of the item ids are not among the {n_items:,} columns of the matrix")
        return columns


class _Callback:
    """implicit's callback as a tracker."""

    def __init__(self, callback: Callable[..., None]) -> None:
        self.callback, self.start = callback, time.perf_counter()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One epoch."""
        self.callback(step, time.perf_counter() - self.start, values.get("loss", float("nan")))


def _log(user_items: sp.csr_matrix) -> pl.DataFrame:
    """The interactions of a matrix, each history shuffled in a way that depends on nothing but its items.

    One order of items for everybody would be learned as if it were the order of time.
    """
    matrix = user_items.tocoo()
    liked = matrix.data > 0
    users, items, weights = matrix.row[liked].astype(np.int64), matrix.col[liked].astype(np.int64), matrix.data[liked]
    with np.errstate(over="ignore"):
        whole = np.zeros(matrix.shape[0], np.uint64)
        np.add.at(whole, users, _mixed(items.astype(np.uint64)))
        order = _mixed(items.astype(np.uint64) ^ _mixed(whole)[users])
    return pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "position": (order >> np.uint64(11)).astype(np.float64),
            "weight": weights.astype(np.float64),
        }
    )


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of the result depends on every bit given."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def _rectangle(found: pl.DataFrame, users: int, width: int, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists as arrays of one width; what a list lacks is filled with the rest of the pool, then with 0, at `LEFT_OUT`."""
    ids = np.zeros((users, width), np.int32)
    scores = np.full((users, width), LEFT_OUT, np.float32)
    row, item, score = (found[name].to_numpy() for name in ("user_id", "item_id", "score"))
    sizes = np.bincount(row.astype(np.int64), minlength=users)
    order = np.argsort(row, kind="stable")
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    ids[row[order], place], scores[row[order], place] = item[order], score[order]
    for short in np.flatnonzero(sizes < width):
        rest = np.setdiff1d(pool, ids[short, : sizes[short]])
        rest = rest[: width - sizes[short]]
        ids[short, sizes[short] : sizes[short] + len(rest)] = rest
    return ids, scores
