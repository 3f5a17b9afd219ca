"""What a log says of items: histories as rows of the catalogue, counts, and the sparse matrices that closed forms need.

Source: Steck 2019 (EASE, arXiv:1905.03375); Choi et al. 2021 (SLIST, arXiv:2103.15991) for prefixes and what follows.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float32, Int64

from mecold.math.prefixes import Prefixes, pairs_between, prefixes
from mecold.math.sparse import MOST_PAIRS, Cross, Products, Sparse, Tall
from mecold.space.settings import FactorConfig

RECENT = 1000  # of a user's items, the last so many are neighbours of each other: a bound on memory


@dataclass(frozen=True)
class Statistics:
    """Histories and what is counted in them.

    Args:
        items: rows of the catalogue, user after user, oldest first.
        offsets: where each user's history starts and ends.
        counts: users per item, over the whole catalogue.
        by_time: interactions per item and bin of time.
        goals: users per item who did what is predicted, where that is not all that users do.
        by_group: users per item and group of users, where groups are known.
    """

    items: Int64[np.ndarray, " rows"]
    offsets: Int64[np.ndarray, " users_plus_one"]
    counts: Float32[np.ndarray, " items"]
    by_time: Float32[np.ndarray, "items bins"] | None = None
    goals: Float32[np.ndarray, " items"] | None = None
    by_group: Float32[np.ndarray, "items groups"] | None = None

    @classmethod
    def of(
        cls,
        items: Int64[np.ndarray, " rows"],
        offsets: Int64[np.ndarray, " users_plus_one"],
        n_items: int,
    ) -> "Statistics":
        """Those of ordered histories over a catalogue of so many items, without times, goals and groups."""
        return cls(items, offsets, np.bincount(items, minlength=n_items).astype(np.float32))

    def changed(self, before: "Statistics", after: "Statistics") -> "Statistics":
        """With the counts of some users' histories as they are now in place of what they were; the histories stay."""

        def now(name: str) -> Any:
            mine, old, new = (getattr(one, name) for one in (self, before, after))
            return None if mine is None else mine - old + new

        return replace(
            self, counts=now("counts"), by_time=now("by_time"), goals=now("goals"), by_group=now("by_group")
        )  # fmt: skip

    def visits(self, factored: Int64[np.ndarray, " factored"]) -> sp.csr_matrix:
        """Who had what: users by the items that get factors."""
        column, offsets = self._columns(factored)
        return sp.csr_matrix((np.ones(len(column), np.float32), column, offsets), (len(offsets) - 1, len(factored)))

    def recent(self) -> sp.csr_matrix:
        """Users by the whole catalogue, a row being a user's last `RECENT` items, scaled to length 1: of what two items have in
        common, a user with many items counts little.
        """
        sizes = np.diff(self.offsets)
        late = np.repeat(self.offsets[1:], sizes) - np.arange(len(self.items)) <= RECENT
        kept = np.minimum(sizes, RECENT)
        share = np.repeat(np.maximum(kept, 1) ** -0.5, kept).astype(np.float32)
        offsets = np.concatenate([[0], kept.cumsum()])
        return sp.csr_matrix((share, self.items[late], offsets), (len(sizes), len(self.counts)))

    def steps(
        self, factored: Int64[np.ndarray, " factored"], config: FactorConfig, device: torch.device
    ) -> tuple[Tall, Products]:
        """A row per place in a history, the faded items before it; and its product with those that follow. Short ones weigh more.

        Of a log of usual size both are made, of a long one they are known by products alone.
        """
        column, offsets = self._columns(factored)
        users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        size = np.arange(len(column)) - offsets[users]  # of prefixes; 0: none
        root = ((np.maximum(size, 1) / config.past) ** (-config.early / 2)).astype(np.float32)
        past, fade, window = config.past, config.fade, config.window
        if pairs_between(offsets, past, window) > MOST_PAIRS:
            rows = Prefixes.of(column, offsets, root, len(factored), past=past, fade=fade, window=window, device=device)
            return rows, rows.follows()
        S, T = prefixes(column, users, len(factored), past=past, fade=fade, window=window)
        for matrix in (S, T):
            matrix.data *= np.repeat(root, np.diff(matrix.indptr))
        before, ahead = (Sparse.of(part, device) for part in (S, T))
        return before, Cross(before, ahead)

    def _columns(
        self, factored: Int64[np.ndarray, " factored"]
    ) -> tuple[Int64[np.ndarray, " some"], Int64[np.ndarray, " users_plus_one"]]:
        """Places among the factored items, and where each user's start and end, without items that are not among them."""
        column = np.full(len(self.counts), -1, np.int64)
        column[factored] = np.arange(len(factored))
        places = column[self.items]
        before = np.concatenate([[0], (places >= 0).cumsum()])
        return places[places >= 0], before[self.offsets]
