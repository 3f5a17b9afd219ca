"""Search: the best items of each query, among rows that are not hidden. What any index gives, and the exact search.

A score is an inner product plus what the neighbour lists of the support say (`space.ItemSpace.scores`). Every index gives
only real rows, ties by row, and as many as are left.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

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
