"""Neighbour lists: for each item the few that most often stand in the same histories, with exact weights.

Low-rank factors hold what many items share; in a large, sparse catalogue much of what is known is local (two games of a
series), and no affordable rank keeps it. The lists do: an item's own list is read for every item of a support.

A user who has few items says more of each pair of them than one who has many.

Source: item-based neighbours of histories scaled to length 1, Deshpande and Karypis 2004, with shrinkage as
in Bell and Koren 2007.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.nn.functional import embedding

from mecold.data.rows import Rows
from mecold.space.lookalikes import Lookalikes

SHRINK = 0.5  # added to the geometric mean of two items' weights, so that few common users prove little
_PAIRS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Lists(Rows):
    """Lists of equal width, by row of the catalogue.

    Args:
        rows: row of each neighbour; anything where the list is shorter than the width.
        values: weight of each neighbour; 0 where the list is shorter.
    """

    rows: Int[Tensor, "items width"]
    values: Float[Tensor, "items width"]

    @classmethod
    def none(cls, items: int, width: int, like: Tensor) -> "Lists":
        """Empty lists, on the device of `like`."""
        return cls(like.new_zeros(items, width, dtype=torch.int32), like.new_zeros(items, width))

    def without(self, gone: Bool[Tensor, " items"]) -> "Lists":
        """Lists of these items emptied, and these items taken off all lists."""
        there = ~gone
        return Lists(self.rows, self.values * (there[:, None] & there[self.rows.long()]))

    def moved(self, to: Int[Tensor, " items"]) -> "Lists":
        """The same neighbours after every row `r` of the catalogue has become row `to[r]`; the lists stay in place."""
        return Lists(to[self.rows.long()].int(), self.values)

    def taken(self, kept: Int[Tensor, " kept"]) -> "Lists":
        """The lists of some rows, as the rows of a catalogue that holds nothing else."""
        place = torch.full((len(self.rows),), -1, dtype=torch.long, device=kept.device)
        place[kept] = torch.arange(len(kept), device=kept.device)
        rows = place[self.rows[kept].long()]
        return Lists(rows.clamp(min=0).int(), torch.where(rows < 0, 0.0, self.values[kept]))

    def add_to(
        self,
        scores: Float[Tensor, "users items"],
        rows: Int[Tensor, "users shots"],
        trust: Float[Tensor, "users shots"],
    ) -> Float[Tensor, "users items"]:
        """Add to scores, in place, for each support row its trust times its list; differentiable.

        Args:
            scores: scores of the catalogue.
            rows: support rows; padding has trust 0.
            trust: how much each support row's list counts.
        """
        columns = self.rows.index_select(0, rows.reshape(-1)).view(len(rows), -1).long()
        return scores.scatter_add_(1, columns, (trust[..., None] * embedding(rows, self.values)).flatten(1))

    def among(
        self, columns: Int[Tensor, " some"], rows: Int[Tensor, "users shots"], trust: Float[Tensor, "users shots"]
    ) -> Float[Tensor, "users some"]:
        """What `add_to` adds to the items in `columns`, which are the same for all users and may repeat; differentiable."""
        distinct, places = torch.unique(columns, return_inverse=True)
        entries = self.rows[rows].flatten(1).long()
        at = torch.searchsorted(distinct, entries).clamp(max=len(distinct) - 1)
        weight = (trust[..., None] * embedding(rows, self.values)).flatten(1) * (distinct[at] == entries)
        found: Tensor = weight.new_zeros(len(rows), len(distinct)).scatter_add(1, at, weight)[:, places]
        return found

    def of(
        self,
        wanted: Int[Tensor, "users wanted"],
        rows: Int[Tensor, "users shots"],
        trust: Float[Tensor, "users shots"],
    ) -> Float[Tensor, "users wanted"]:
        """What `add_to` adds to a few items of each user's own; differentiable."""
        entries = self.rows[rows].flatten(1)
        weight = (trust[..., None] * embedding(rows, self.values)).flatten(1)
        return torch.stack([(weight * (entries == one[:, None])).sum(1) for one in wanted.T], dim=1)


def fit_lists(users: sp.csr_matrix, width: int) -> Lists:
    """The items with the largest shrunk cosine; scaled so that lists have length 1 on average.

    Pairs of items are counted for some items at a time and cut to the best at once: all of them would not fit into memory.

    Args:
        users: histories by item, see `statistics.Statistics.recent`.
        width: most neighbours.
    """
    n = users.shape[1]
    weight = users.multiply(users).sum(axis=0).A1.astype(np.float32)
    root, items = np.sqrt(weight), users.T.tocsr()
    lists = Lists(torch.zeros(n, width, dtype=torch.int32), torch.zeros(n, width))
    pairs = np.concatenate([[0], np.diff(users.indptr)[items.indices].cumsum()])[items.indptr]
    for start, end in _blocks(pairs):
        common = items[start:end] @ users
        row = np.repeat(np.arange(start, end), np.diff(common.indptr))
        value = common.data / (root[row] * root[common.indices] + SHRINK)
        common.data = np.where(row != common.indices, value, 0.0).astype(np.float32)
        _put_best(lists, common, start)
    norm = float(torch.sqrt(lists.values.square().sum() / max(1, int((lists.values > 0).any(1).sum()))))
    return Lists(lists.rows, lists.values / max(norm, 1e-12))


def _blocks(pairs: Int64[np.ndarray, " items_plus_one"]) -> Iterator[tuple[int, int]]:
    """Runs of items of so many pairs that are counted at once, one item at least."""
    start, n = 0, len(pairs) - 1
    while start < n:
        end = max(start + 1, int(np.searchsorted(pairs, pairs[start] + _PAIRS_AT_ONCE, side="right")) - 1)
        yield start, end
        start = end


def _put_best(lists: Lists, found: sp.csr_matrix, start: int) -> None:
    """The best of each row, into the lists from a row on; rows of like length are sorted together."""
    lengths, width = np.diff(found.indptr), lists.rows.shape[1]
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    while len(order):
        longest = max(width, int(lengths[order[0]] * 1.25))
        some = order[: np.searchsorted(lengths[order], longest, side="right")]
        order = order[len(some) :]
        places = torch.from_numpy(found.indptr[some].astype(np.int64))[:, None] + torch.arange(longest)
        there = torch.arange(longest) < torch.from_numpy(lengths[some])[:, None]
        places = torch.where(there, places, 0)
        values = torch.where(there, torch.from_numpy(found.data)[places], 0.0)
        best = values.topk(min(width, longest), dim=1)
        at = torch.from_numpy(some) + start
        lists.values[at, : best.values.shape[1]] = best.values
        rows = torch.from_numpy(found.indices)[places.gather(1, best.indices)]
        lists.rows[at, : best.values.shape[1]] = torch.where(best.values > 0, rows, 0)


def lists_of_texts(text: Float[Tensor, "items rank"], width: int) -> Lists:
    """Lists of the items with the nearest texts, for a shop without a log; scaled as those of `fit_lists`.

    Args:
        text: half-whitened texts; an item without any has an empty list, and is on none.
        width: most neighbours.
    """
    alike = Lookalikes.find(text, text, (text != 0).any(1), width + 1)  # an item is nearest to itself
    own = torch.arange(len(text), device=text.device)[:, None]
    values, places = torch.where(alike.rows == own, 0.0, alike.likeness).topk(min(width, alike.rows.shape[1]))
    norm = ((values**2).sum() / (values > 0).any(1).sum().clamp(min=1)).sqrt().clamp(min=1e-12)
    return Lists(alike.rows.gather(1, places).int(), values / norm)
