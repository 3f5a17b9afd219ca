"""Collaborative factors in closed form: what an item says about its user, and the vector an item is found by.

Two channels are fitted from a log. *Symmetric*: EASE, a ridge regression from a user's other items to each item.
*Directed*: a ridge regression from the faded last items of every prefix of a history to the items that follow.
Both weight matrices are cut to low rank, so that one inner product with a vector per item serves them. The statistics
of a log (`Moments`) are sparse and add up over users, so that factors without some users cost a subtraction.

Source: Steck 2019 (EASE, arXiv:1905.03375); Choi et al. 2021 (SLIST, arXiv:2103.15991) for the directed form.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mecold.data.catalog import Catalog
from mecold.errors import InvalidDataError, few
from mecold.math.ridge import damped_cholesky, prefixes
from mecold.types import ItemId

RECENT = 1000  # of a user's items, the last so many are neighbours of each other: a bound on memory


@dataclass(frozen=True)
class FactorConfig:
    """How collaborative factors are fitted.

    Args:
        symmetric_rank: width of the EASE channel; 0 leaves it out.
        directed_rank: width of the directed channel; 0 leaves it out.
        l2: ridge penalty of both.
        past: how many items of a prefix are read, newest first.
        fade: an item `a` steps older weighs exp(-a / fade).
        window: how many following items a prefix predicts.
        early: a prefix of n items counts for n^-early in the directed channel: short ones are what cold users have.
        neighbours: length of the neighbour lists; 0 leaves them out.
        trend_bins: bins of time of the trend channel, where the log has timestamps; 0 leaves it out.
        max_items: factors are fitted on this many most-touched items; the rest lives on its neighbours and its text. The
            cost grows with the cube: 8,192 items take about ten seconds a fit on two cores.
    """

    symmetric_rank: int = 160
    directed_rank: int = 160
    l2: float = 500.0
    past: int = 20
    fade: float = 2.0
    window: int = 10
    early: float = 0.25
    neighbours: int = 64
    trend_bins: int = 16
    max_items: int = 8192


@dataclass(frozen=True)
class FactorPair:
    """One channel: `support` rows say what a user who has the item wants, `item` rows are what the item is found by."""

    support: Float[Tensor, "items rank"]
    item: Float[Tensor, "items rank"]

    @property
    def rank(self) -> int:
        """Width of the channel."""
        return self.item.shape[1]


@dataclass(frozen=True)
class ItemFactors:
    """Factors of a host's own model, handed over in place of the symmetric channel.

    Args:
        ids: item ids, in the order of the rows.
        item: the vector an item is found by, shape `(items, rank)`.
        support: what an item says about its user; None takes the fold-in map of an implicit ridge model,
            `item @ inv(item' item / items + I / rank)`.
        unseen_users: ids of users that the host's model was not fitted on. Meta-training draws its episodes from them
            alone; without any, from all users, and the report warns, since their history already is in the factors.
    """

    ids: Sequence[ItemId]
    item: np.ndarray
    support: np.ndarray | None = None
    unseen_users: Sequence[ItemId] = ()

    def pair(self, catalog: Catalog) -> FactorPair:
        """The factors by row of the catalogue; items without factors get zeros and live on their neighbours and text.

        Raises:
            InvalidDataError: if shapes differ, values are not finite, or ids repeat.
            UnknownItemError: if an id is not in the catalogue.
        """
        item = np.asarray(self.item, dtype=np.float32)
        support = item if self.support is None else np.asarray(self.support, dtype=np.float32)
        if item.ndim != 2 or support.shape != item.shape or len(item) != len(self.ids):
            raise InvalidDataError(
                f"{len(self.ids):,} ids need factors of as many rows: item is {item.shape}, support {support.shape}."
            )
        bad = [id_ for id_, ok in zip(self.ids, np.isfinite(item + support).all(1), strict=True) if not ok]
        if bad:
            raise InvalidDataError(f"{len(bad):,} factor rows are not finite: {few(bad)}.")
        if self.support is None:
            support = _fold_in(item)
        rows = catalog.rows(self.ids, f"the {len(self.ids):,} items with factors")
        if len(np.unique(rows)) < len(rows):
            raise InvalidDataError(f"{len(rows) - len(np.unique(rows)):,} item ids stand twice in the factors.")
        return _spread(
            _balanced(_ordered(FactorPair(torch.from_numpy(support), torch.from_numpy(item)))), rows, len(catalog.ids)
        )


def _fold_in(item: Float32[np.ndarray, "items rank"]) -> Float32[np.ndarray, "items rank"]:
    gram = item.T @ item / max(1, len(item)) + np.eye(item.shape[1], dtype=np.float32) / item.shape[1]
    return np.linalg.solve(gram, item.T).T.astype(np.float32)


@dataclass(frozen=True)
class Moments:
    """Sums over users that the closed forms need; two logs of different users add and subtract.

    Args:
        counts: users per item, over the whole catalogue.
        together: `X'X` over the fitted items.
        common: `H'H` over the whole catalogue, a row of H being a user's last `RECENT` items, scaled to length 1: users that
            two items have in common, of whom one with many items counts little.
        past: `S'S` over the fitted items, S the faded prefixes.
        ahead: `S'T` over the fitted items, T the items that follow.
        by_time: interactions per item and bin of time, over the whole catalogue.
    """

    counts: Float32[np.ndarray, " items"]
    together: sp.csr_matrix
    common: sp.csr_matrix
    past: sp.csr_matrix | None
    ahead: sp.csr_matrix | None
    by_time: Float32[np.ndarray, "items bins"] | None = None

    def minus(self, other: "Moments") -> "Moments":
        """The moments of the users that are in this log but not in the other."""
        return self._combine(other, operator.sub)

    def plus(self, other: "Moments") -> "Moments":
        """The moments of both logs."""
        return self._combine(other, operator.add)

    def _combine(self, other: "Moments", op: Callable[[Any, Any], Any]) -> "Moments":
        pairs = [
            (getattr(self, n), getattr(other, n)) for n in ("counts", "together", "common", "past", "ahead", "by_time")
        ]
        parts: list[Any] = [None if a is None or b is None else op(a, b) for a, b in pairs]
        return Moments(*parts)


def fitted_items(counts: np.ndarray, limit: int) -> Int64[np.ndarray, " fitted"]:
    """Rows of the most-touched items, at most `limit`, none that nobody touched, in row order."""
    top = np.argsort(-counts, kind="stable")[:limit]
    return np.sort(top[counts[top] > 0]).astype(np.int64)


def moments(
    items: Int64[np.ndarray, " rows"],
    weights: Float32[np.ndarray, " rows"],
    offsets: Int64[np.ndarray, " users_plus_one"],
    fitted: Int64[np.ndarray, " fitted"],
    n_items: int,
    config: FactorConfig,
) -> Moments:
    """Statistics of ordered histories.

    Args:
        items: rows of the catalogue, user after user, oldest first.
        weights: weight of each interaction in the symmetric channel; the directed one reads order alone.
        offsets: where each user's history starts and ends.
        fitted: rows of the items that get factors.
        n_items: size of the catalogue.
        config: window, fade and ranks.
    """
    counts = np.bincount(items, minlength=n_items).astype(np.float32)
    column = np.full(n_items, -1, np.int64)
    column[fitted] = np.arange(len(fitted))
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    keep = column[items] >= 0
    width = len(fitted)
    X = sp.csr_matrix((weights[keep], (users[keep], column[items[keep]])), (len(offsets) - 1, width))
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
    return Moments(counts, (X.T @ X).tocsr(), (H.T @ H).tocsr(), past, ahead)


def fit_pairs(
    stats: Moments,
    fitted: Int64[np.ndarray, " fitted"],
    config: FactorConfig,
    rng: torch.Generator,
    device: torch.device,
) -> dict[str, FactorPair]:
    """The fitted channels by name, as rows of the whole catalogue; items outside `fitted` hold zeros."""

    def dense(matrix: sp.csr_matrix) -> Tensor:
        return torch.from_numpy(np.asarray(matrix.todense(), dtype=np.float32)).to(device)

    pairs: dict[str, FactorPair] = {}
    if config.symmetric_rank:
        pairs["symmetric"] = _ease(dense(stats.together), config.l2, config.symmetric_rank, rng)
    if config.directed_rank and stats.past is not None and stats.ahead is not None:
        pairs["directed"] = _directed(dense(stats.past), dense(stats.ahead), config.l2, config.directed_rank, rng)
    return {name: _spread(_balanced(pair), fitted, len(stats.counts)) for name, pair in pairs.items()}


def _spread(pair: FactorPair, rows: Int64[np.ndarray, " fitted"], n_items: int) -> FactorPair:
    full = pair.item.new_zeros(2, n_items, pair.rank)
    full[:, torch.from_numpy(rows).to(full.device)] = torch.stack([pair.support, pair.item])
    return FactorPair(full[0], full[1])


def _ordered(pair: FactorPair) -> FactorPair:
    """The same scores, the columns in order of how much they add to them, as fitted channels have them; no more columns than
    there are items.
    """
    (left, over), (right, under) = (torch.linalg.qr(side.double()) for side in (pair.support, pair.item))
    turn, sizes, turned = torch.linalg.svd(over @ under.T)
    sides = ((left @ turn, pair.support), (right @ turned.T, pair.item))
    return FactorPair(*((side * sizes.sqrt() * (old != 0).any(1, keepdim=True)).float() for side, old in sides))


def _balanced(pair: FactorPair) -> FactorPair:
    """Scaled so that an item's scores over the catalogue have norm 1 on average: comparable across logs and folds."""
    norm = torch.sqrt(((pair.support.T @ pair.support) * (pair.item.T @ pair.item)).sum().clamp(min=1e-12))
    touched = (pair.support != 0).any(1).sum().clamp(min=1)
    scale = (touched.sqrt() / norm).sqrt()
    return FactorPair(pair.support * scale, pair.item * scale)


def _inverse(gram: Tensor, l2: float) -> Tensor:
    return torch.cholesky_inverse(damped_cholesky(gram, l2)).float()


def _ease(together: Tensor, l2: float, rank: int, rng: torch.Generator) -> FactorPair:
    P = _inverse(together, l2)
    scale = 1 / P.diagonal()
    scale = scale[:, None]
    return _low_rank(lambda Q: Q - P @ (scale * Q), lambda Q: Q - scale * (P @ Q), len(P), rank, rng, P.device)


def _directed(past: Tensor, ahead: Tensor, l2: float, rank: int, rng: torch.Generator) -> FactorPair:
    P = _inverse(past, l2)
    diagonal = (P * ahead.T).sum(1)[:, None]
    return _low_rank(
        lambda Q: P @ (ahead @ Q) - diagonal * Q,
        lambda Q: ahead.T @ (P @ Q) - diagonal * Q,
        len(P),
        rank,
        rng,
        P.device,
    )


def _low_rank(
    multiply: Callable[[Tensor], Tensor],
    transposed: Callable[[Tensor], Tensor],
    n: int,
    rank: int,
    rng: torch.Generator,
    device: torch.device,
) -> FactorPair:
    """The leading singular vectors of a matrix that is known by its products only, split evenly between both sides.

    Source: randomised subspace iteration, Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4.
    """
    rank = min(rank, n)
    start = torch.randn(n, min(n, rank + 16), generator=rng).to(device)  # drawn on the CPU: the same on every device
    Q = torch.linalg.qr(multiply(start))[0]
    for _ in range(4):
        Q = torch.linalg.qr(multiply(torch.linalg.qr(transposed(Q))[0]))[0]
    small, sizes, right = torch.linalg.svd(transposed(Q).T, full_matrices=False)
    root = sizes[:rank].sqrt()
    return FactorPair((Q @ small[:, :rank]) * root, right[:rank].T * root)
