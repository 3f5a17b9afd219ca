"""Search: the best items of each query, among rows that are not hidden. Exact, or through FAISS.

A score is an inner product plus what the neighbour lists of the support say (`tower.ItemSpace.scores`). FAISS looks after
the product; the few items that are on the lists are candidates too, and all candidates are scored in full.

Both kinds give only real rows, ties by row, and as many as are left; FAISS's padding, its empty error texts and its
thread settings stay inside. The only room that imports `faiss`, lazily and after torch.

`"auto"` is the exact torch product: on a 2-core AVX2 machine FAISS's flat index is level with it for one query, takes
more than twice as long for a batch of 256, and cannot leave out each user's own items (bench/search.py measures both).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mecold.errors import InvalidDataError, ModelFileError
from mecold.space.space import ItemSpace, Query

_BLOCK = 128  # items per block in the first pass of the top-k
_SCORES_AT_ONCE = 1 << 26  # 256 MB of float32 scores


Found = list[tuple[np.ndarray, np.ndarray]]
"""Per query: rows (int64) and scores (float32), best first, ties by row."""


@runtime_checkable
class ItemIndex(Protocol):
    """Finds the best rows of an item space."""

    def search(self, space: ItemSpace, dead: Tensor, query: Query, k: int, hidden: Sequence[np.ndarray]) -> Found:
        """Search.

        Args:
            space: all items.
            dead: True for rows that are no longer in the catalogue.
            query: of a batch of users.
            k: how many rows each user wants.
            hidden: rows that each user must not get.
        """
        ...


def top_rows(scores: Float[Tensor, "users items"], k: int) -> tuple[Float[Tensor, "users k"], Int[Tensor, "users k"]]:
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
    values, places = best.values, best.indices
    if columns is not None:
        places = columns.gather(1, places)
    tied = (values[:, k] == values[:, k - 1]).nonzero()[:, 0] if values.shape[1] > k else values.new_zeros(0).long()
    values, places = values[:, :k].contiguous(), places[:, :k].contiguous()
    for user in tied.tolist():  # the boundary cuts through equal scores: take the lowest columns among them
        edge = values[user, k - 1]
        keep = places[user][values[user] > edge]
        equal = (scores[user] == edge).nonzero()[: k - len(keep), 0]
        places[user] = torch.cat([keep, equal])
        values[user] = scores[user, places[user]]
    order = places.argsort(1)
    values, places = values.gather(1, order), places.gather(1, order)
    order = values.argsort(dim=1, descending=True, stable=True)
    return values.gather(1, order), places.gather(1, order)


class ExactIndex:
    """Blocked torch product, mask, top-k. Needs no building and sees every change of the catalogue at once."""

    def search(self, space: ItemSpace, dead: Tensor, query: Query, k: int, hidden: Sequence[np.ndarray]) -> Found:
        """See `ItemIndex.search`."""
        found: Found = []
        buried = dead.nonzero()[:, 0]
        step = max(1, _SCORES_AT_ONCE // max(1, len(space.item)))
        for start in range(0, len(query), step):
            part = query[start : start + step]
            scores = space.scores(part)
            rows = hidden[start : start + step]
            users = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
            if len(users):
                columns = np.concatenate(rows)
                scores[torch.from_numpy(users), torch.from_numpy(columns)] = -torch.inf
            if len(buried):
                scores[:, buried] = -torch.inf
            values, places = top_rows(scores, k)
            found += _real(values.cpu().numpy(), places.cpu().numpy())
        return found


def _real(values: np.ndarray, places: np.ndarray) -> Found:
    return [(p[ok], v[ok]) for p, v, ok in zip(places, values, np.isfinite(values), strict=True)]


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
        faiss = _faiss()
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
    def read(cls, factory: str, path: Path) -> "FaissIndex":
        """Read what `write` wrote."""
        try:
            return cls(factory, _faiss().read_index(str(path)))
        except RuntimeError as error:
            raise ModelFileError(f"FAISS cannot read '{path}': {str(error)[:300]}") from error

    def write(self, path: Path) -> None:
        """Write the index in FAISS's own format."""
        _faiss().write_index(self._built, str(path))

    def search(self, space: ItemSpace, dead: Tensor, query: Query, k: int, hidden: Sequence[np.ndarray]) -> Found:
        """See `ItemIndex.search`."""
        total = self.covers
        most = max((len(rows) for rows in hidden), default=0) + int(dead[:total].sum())
        depth = min(total, 2 * k + most)
        if depth * 4 > total:
            return ExactIndex().search(space, dead, query, k, hidden)
        _, best = self._built.search(np.ascontiguousarray(query.vector.cpu().numpy(), dtype=np.float32), depth)
        fresh = np.arange(total, len(space.item))
        gone = dead.cpu().numpy()
        found: Found = []
        for user, rows in enumerate(best):
            one = query[user : user + 1]
            listed = space.near.rows[one.rows[one.trust != 0]].flatten().cpu().numpy()
            rows = np.unique(np.concatenate([rows[rows >= 0], fresh, listed]))
            rows = rows[~gone[rows] & ~np.isin(rows, hidden[user])]
            if len(rows) < k:
                found += ExactIndex().search(space, dead, one, k, [hidden[user]])
                continue
            scores = space.scores_among(torch.from_numpy(rows).to(one.vector.device), one)
            values, places = top_rows(scores, k)
            found.append((rows[places[0].cpu().numpy()], values[0].cpu().numpy()))
        return found


def make_index(kind: str, vectors: Tensor) -> ItemIndex:
    """The index for a setting: `"auto"` and `"exact"` need no building, everything else goes to FAISS."""
    return ExactIndex() if kind in ("auto", "exact") else FaissIndex.build(kind, vectors)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("FAISS is not installed: pip install 'mecold[cpu]' (or 'mecold[gpu]', never both)") from error
    return faiss
