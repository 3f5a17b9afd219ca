"""Search: the best items of each query, among rows that are not hidden. Exact, or through FAISS.

A score is an inner product plus what the neighbour lists of the support say (`space.ItemSpace.scores`). FAISS looks after
the product; the few items that are on the lists are candidates too, and all candidates are scored in full.

Both kinds give only real rows, ties by row, and as many as are left; FAISS's padding, its empty error texts and its
thread settings stay inside.

`"auto"` is the exact torch product: on a 2-core AVX2 machine FAISS's flat index is level with it for one query, takes
more than twice as long for a batch of 256, and cannot leave out each user's own items (bench/search.py measures both).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from mecold.errors import InvalidDataError, ModelFileError, foreign
from mecold.space.channel import side_by_side
from mecold.space.faiss_library import faiss_library
from mecold.space.space import ItemSpace, UserVectors

_BLOCK = 128  # items per block in the first pass of the top-k
_SCORES_AT_ONCE = 1 << 26  # 256 MB of float32 scores


class Hidden(NamedTuple):
    """Rows that users must not get: position of the user in the batch, and row; by user."""

    users: Int64[np.ndarray, " pairs"]
    rows: Int64[np.ndarray, " pairs"]

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> "Hidden":
        """From an array of rows per user."""
        if len(rows) == 1:
            return cls(np.zeros(len(rows[0]), np.int64), rows[0])
        owners = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
        return cls(owners, np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64))

    def between(self, start: int, stop: int) -> "Hidden":
        """Those of some users of the batch."""
        low, high = np.searchsorted(self.users, (start, stop))
        return Hidden(self.users[low:high] - start, self.rows[low:high])

    def taken(self, users: np.ndarray) -> "Hidden":
        """Those of these users of the batch, whose places rise."""
        mine = np.isin(self.users, users)
        return Hidden(np.searchsorted(users, self.users[mine]), self.rows[mine])

    def joined(self, other: "Hidden") -> "Hidden":
        """The pairs of both, by user."""
        if not len(self.users):
            return other
        users, rows = (np.concatenate(parts) for parts in zip(self, other, strict=True))
        order = np.argsort(users, kind="stable")
        return Hidden(users[order], rows[order])


class Ranked(NamedTuple):
    """Ranked rows of a batch of users, best first, ties by row.

    Args:
        rows: of the item space; anything where `valid` is False.
        scores: of these rows.
        valid: False behind the end of a list that came out short.
    """

    rows: Int64[np.ndarray, "users k"]
    scores: Float32[np.ndarray, "users k"]
    valid: Bool[np.ndarray, "users k"]

    def of(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of one user."""
        there = self.valid[user]
        return self.rows[user][there], self.scores[user][there]

    @classmethod
    def join(cls, parts: Sequence["Ranked"]) -> "Ranked":
        """The users of all parts, one after the other."""
        return cls(*(np.concatenate(some) for some in zip(*parts, strict=True))) if len(parts) != 1 else parts[0]


@runtime_checkable
class ItemIndex(Protocol):
    """Finds the best rows of an item space."""

    def search(
        self, space: ItemSpace, out: Tensor, users: UserVectors, k: int, hidden: Hidden, only: Hidden | None = None
    ) -> Ranked:
        """Search.

        Args:
            space: all items.
            out: True for rows that nobody gets.
            users: a batch of user vectors.
            k: how many rows each user wants.
            hidden: rows that users must not get.
            only: where not None, the rows that users may get.
        """
        ...


def top_rows(
    scores: Float[Tensor, "users items"], k: int
) -> tuple[Float32[np.ndarray, "users k"], Int64[np.ndarray, "users k"]]:
    """The k best scores of each row and their columns, best first, ties by column: deterministic, unlike `topk`.

    A first pass keeps the k + 1 blocks with the largest maxima: every one of the k best lies in one of them.
    """
    users, items = scores.shape
    k = min(k, items)
    if items > 64 * _BLOCK and (k + 1) * 4 < items // _BLOCK:
        whole = items // _BLOCK * _BLOCK
        maxima = scores[:, :whole].view(users, -1, _BLOCK).amax(2)
        blocks = maxima.topk(k + 1, dim=1, sorted=False).indices.sort(1).values
        columns = (blocks[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=scores.device)).flatten(1)
        tail = torch.arange(whole, items, device=scores.device).expand(users, -1)
        columns = torch.cat([columns, tail], dim=1)
        part = scores.gather(1, columns)
    else:
        columns, part = None, scores
    best = part.topk(min(k + 1, part.shape[1]), dim=1)
    places = best.indices if columns is None else columns.gather(1, best.indices)
    values, rows = best.values.cpu().numpy(), places.cpu().numpy()
    tied = np.flatnonzero(values[:, k] == values[:, k - 1]) if values.shape[1] > k else np.empty(0, np.int64)
    values, rows = values[:, :k], rows[:, :k]
    for user in tied:  # the boundary cuts through equal scores: take the lowest columns among them
        edge = values[user, -1]
        keep = rows[user][values[user] > edge]
        equal = (scores[int(user)] == float(edge)).nonzero()[: k - len(keep), 0]
        rows[user, len(keep) :] = equal.cpu().numpy()
    order = np.lexsort((rows, -values))
    return np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)


class ExactIndex:
    """Blocked torch product, mask, top-k. Needs no building and sees every change of the catalogue at once."""

    def search(
        self, space: ItemSpace, out: Tensor, users: UserVectors, k: int, hidden: Hidden, only: Hidden | None = None
    ) -> Ranked:
        """See `ItemIndex.search`."""
        buried = out.nonzero()[:, 0]
        step = max(1, _SCORES_AT_ONCE // max(1, len(space)))
        parts = []
        for start in range(0, max(1, len(users)), step):
            some, own = (
                (users, hidden)
                if len(users) <= step
                else (users[start : start + step], hidden.between(start, start + step))
            )
            scores = space.scores(some)
            if only is not None:
                allowed = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
                _at(allowed, only.between(start, start + len(scores)), value=True)
                scores.masked_fill_(~allowed, -torch.inf)
            if len(own.users):
                _at(scores, own, value=-torch.inf)
            if len(buried):
                scores[:, buried] = -torch.inf
            values, rows = top_rows(scores, k)
            parts.append(Ranked(rows, values, np.isfinite(values)))
        return Ranked.join(parts)


def _at(table: Tensor, pairs: Hidden, *, value: float | bool) -> None:
    """Set the cells of these pairs."""
    cells = torch.from_numpy(pairs.users * table.shape[1] + pairs.rows).to(table.device)
    table.view(-1).index_fill_(0, cells, value)


class FaissIndex:
    """Any FAISS index over the rows that were there when it was built, by inner product; newer rows are searched exactly.

    Over-fetches by what must be hidden, adds what is on the support's neighbour lists, scores all of these exactly, and
    falls back to the exact search for a user whose list would come out short. An item that is on no list and belongs to
    the best by score is among the best by inner product, as long as nothing in the support is disliked.

    Args:
        factory: `"flat"`, `"hnsw"`, or a FAISS factory string such as `"IVF256,Flat"`.
        built: a FAISS index that is already filled.
    """

    def __init__(self, factory: str, built: Any) -> None:
        self.factory = factory
        self._built = built

    @property
    def covers(self) -> int:
        """How many rows, from the first, the FAISS index holds."""
        return int(self._built.ntotal)

    @classmethod
    def build(cls, factory: str, vectors: Tensor) -> "FaissIndex":
        """Train if needed, and add every vector.

        Raises:
            InvalidDataError: if FAISS does not know the factory string, or refuses these vectors.
        """
        faiss = faiss_library()
        data = np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)
        name = {"flat": "Flat", "hnsw": "HNSW32"}.get(factory, factory)
        try:
            built = faiss.index_factory(data.shape[1], name, faiss.METRIC_INNER_PRODUCT)
            if factory == "hnsw":
                built.hnsw.efConstruction, built.hnsw.efSearch = 100, 128
            if not built.is_trained:
                built.train(data)
            built.add(data)
        except (RuntimeError, AssertionError) as error:
            raise InvalidDataError(
                f"FAISS cannot build index={factory!r} over {data.shape[0]:,} vectors of width {data.shape[1]}: "
                f"{str(error)[:300] or 'no reason given'}. Use 'auto', 'flat', 'hnsw', or another factory string."
            ) from error
        return cls(factory, built)

    @classmethod
    def read(cls, factory: str, data: bytes, items: int, width: int) -> "FaissIndex":
        """Read what `write` wrote; a parser in C++ reads it, so it must come from somebody who is trusted.

        Args:
            factory: the setting it was built from.
            data: content of the file.
            items: how many rows there are; the index may cover fewer.
            width: of their vectors.

        Raises:
            ModelFileError: if FAISS cannot read it, or it is no trained index of such vectors by inner product.
        """
        faiss = faiss_library()
        with foreign(ModelFileError, "FAISS cannot read 'index.faiss'", "Restore it, or fit and save again."):
            built = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        fits = built.d == width and 0 < built.ntotal <= items and built.metric_type == faiss.METRIC_INNER_PRODUCT
        if not (fits and built.is_trained):
            raise ModelFileError(
                f"'index.faiss' holds {built.ntotal:,} vectors of width {built.d}, the model {items:,} of width {width}: it is "
                "another model's, or not trained. Restore it, or fit and save again."
            )
        return cls(factory, built)

    def write(self, path: Path) -> None:
        """Write the index in FAISS's own format."""
        faiss_library().write_index(self._built, str(path))

    def search(
        self, space: ItemSpace, out: Tensor, users: UserVectors, k: int, hidden: Hidden, only: Hidden | None = None
    ) -> Ranked:
        """See `ItemIndex.search`; who may get certain rows only is searched exactly."""
        total = self.covers
        most = int(np.bincount(hidden.users).max(initial=0)) + int(out[:total].sum())
        depth = min(total, 2 * k + most)
        if depth * 4 > total or only is not None:
            return ExactIndex().search(space, out, users, k, hidden, only)
        faiss_library()
        _, best = self._built.search(np.ascontiguousarray(users.vector.cpu().numpy(), dtype=np.float32), depth)
        fresh, gone = np.arange(total, len(space)), out.cpu().numpy()
        parts = []
        for user, rows in enumerate(best):
            one, own = users[user : user + 1], hidden.between(user, user + 1)
            listed = space.lists.rows[one.rows[one.trust != 0]].flatten().cpu().numpy()
            rows = np.unique(np.concatenate([rows[(rows >= 0) & (rows < total)], fresh, listed]))
            rows = rows[~gone[rows] & ~np.isin(rows, own.rows)]
            if len(rows) < k:
                parts.append(ExactIndex().search(space, out, one, k, own))
                continue
            scores = space.scores_among(torch.from_numpy(rows).to(one.vector.device), one)
            values, places = top_rows(scores, k)
            parts.append(Ranked(rows[places], values, np.isfinite(values)))
        return Ranked.join(parts)


def make_index(kind: str, space: ItemSpace) -> ItemIndex:
    """The index for a setting: `"auto"` and `"exact"` need no building, everything else goes to FAISS."""
    if kind in ("auto", "exact"):
        return ExactIndex()
    return FaissIndex.build(kind, side_by_side({name: channel.item for name, channel in space.channels.items()}))
