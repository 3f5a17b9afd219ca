"""Statistics of a log: counts and Gram matrices that the closed forms are made of. They add and subtract over users.

So the statistics without some users cost a subtraction, and what other users do is an addition.

Source: Steck 2019 (EASE, arXiv:1905.03375); Choi et al. 2021 (SLIST, arXiv:2103.15991) for prefixes and what follows.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from jaxtyping import Float32, Int64

from mecold.math.ridge import prefixes
from mecold.space.settings import FactorConfig

RECENT = 1000  # of a user's items, the last so many are neighbours of each other: a bound on memory


@dataclass(frozen=True)
class Statistics:
    """Sums over users that the closed forms need; two logs of different users add and subtract.

    Args:
        counts: users per item, over the whole catalogue.
        together: `X'X` over the factored items.
        common: `H'H` over the whole catalogue, a row of H being a user's last `RECENT` items, scaled to length 1: users that
            two items have in common, of whom one with many items counts little.
        past: `S'S` over the factored items, S the faded prefixes.
        ahead: `S'T` over the factored items, T the items that follow.
        by_time: interactions per item and bin of time, over the whole catalogue.
        goals: users per item who did what is predicted, where that is not all that users do.
        by_group: users per item and group of users, where groups are known.
    """

    counts: Float32[np.ndarray, " items"]
    together: sp.csr_matrix
    common: sp.csr_matrix
    past: sp.csr_matrix | None
    ahead: sp.csr_matrix | None
    by_time: Float32[np.ndarray, "items bins"] | None = None
    goals: Float32[np.ndarray, " items"] | None = None
    by_group: Float32[np.ndarray, "items groups"] | None = None

    def minus(self, other: "Statistics") -> "Statistics":
        """The statistics of the users that are in this log but not in the other."""
        return self._combine(other, operator.sub)

    def plus(self, other: "Statistics") -> "Statistics":
        """The statistics of both logs."""
        return self._combine(other, operator.add)

    def _combine(self, other: "Statistics", op: Callable[[Any, Any], Any]) -> "Statistics":
        pairs = [(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        parts: list[Any] = [None if a is None or b is None else op(a, b) for a, b in pairs]
        return Statistics(*parts)


def factored_items(counts: np.ndarray, limit: int) -> Int64[np.ndarray, " factored"]:
    """Rows of the most-touched items, at most `limit`, none that nobody touched, in row order."""
    top = np.argsort(-counts, kind="stable")[:limit]
    return np.sort(top[counts[top] > 0]).astype(np.int64)


def statistics_of(
    items: Int64[np.ndarray, " rows"],
    offsets: Int64[np.ndarray, " users_plus_one"],
    factored: Int64[np.ndarray, " factored"],
    n_items: int,
    config: FactorConfig,
) -> Statistics:
    """Statistics of ordered histories.

    Args:
        items: rows of the catalogue, user after user, oldest first.
        offsets: where each user's history starts and ends.
        factored: rows of the items that get factors.
        n_items: size of the catalogue.
        config: window, fade and ranks.
    """
    counts = np.bincount(items, minlength=n_items).astype(np.float32)
    column = np.full(n_items, -1, np.int64)
    column[factored] = np.arange(len(factored))
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    keep = column[items] >= 0
    width = len(factored)
    ones = np.ones(int(keep.sum()), np.float32)
    X = sp.csr_matrix((ones, (users[keep], column[items[keep]])), (len(offsets) - 1, width))
    late = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(len(items)) <= RECENT
    share = (np.minimum(np.diff(offsets), RECENT)[users[late]] ** -0.5).astype(np.float32)
    H = sp.csr_matrix((share, (users[late], items[late])), (len(offsets) - 1, n_items))
    past = ahead = None
    if config.directed_rank:
        S, T = prefixes(
            column[items[keep]], users[keep], width, past=config.past, fade=config.fade, window=config.window
        )
        size = np.arange(S.shape[0]) - np.searchsorted(users[keep], users[keep])  # of prefixes; 0: none
        root = ((np.maximum(size, 1) / config.past) ** (-config.early / 2)).astype(np.float32)
        S.data *= np.repeat(root, np.diff(S.indptr))
        T.data *= np.repeat(root, np.diff(T.indptr))
        past, ahead = (S.T @ S).tocsr(), (S.T @ T).tocsr()
    return Statistics(counts, (X.T @ X).tocsr(), (H.T @ H).tocsr(), past, ahead)


@dataclass(frozen=True)
class Kept:
    """Statistics and the items that they count, kept with a model: what happens tomorrow is an addition.

    Args:
        items: ids of the catalogue at the time of the fit, by row of the statistics.
        statistics: of all users.
    """

    items: pl.Series
    statistics: Statistics
