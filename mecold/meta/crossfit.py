"""Cross-fitting: item spaces whose factors and counts never saw the users that are scored with them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

import mecold.space.channels.trend as trend
from mecold.space.statistics import FactorPair, Moments, fit_pairs, fitted_items, moments
from mecold.data.interactions import Interactions
from mecold.space.lookalikes import Lookalikes
from mecold.meta.config import MetaConfig
from mecold.space.lists import Neighbours, fit_neighbours
from mecold.space.space import ItemSpace, ItemTower


@dataclass(frozen=True)
class View:
    """A catalogue as one set of users shows it: factors, counts and text vectors.

    Args:
        pairs: factor channels by name.
        near: neighbour lists.
        counts: users per item.
        vectors: text vectors.
    """

    pairs: Mapping[str, FactorPair]
    near: Neighbours
    counts: Float[Tensor, " items"]
    vectors: Float[Tensor, "items text_dim"]

    def space(self, tower: ItemTower, dropped: Tensor | None = None, alike: Lookalikes | None = None) -> ItemSpace:
        """The item space under a tower; `dropped` items are treated as cold, and have these lookalikes."""
        return tower.space(self.pairs, self.near, self.vectors, self.counts, dropped, alike)


@dataclass(frozen=True)
class Views:
    """One view of all users, to deploy; and one per fold, without that fold's users, to learn from.

    Args:
        whole: fitted on all users.
        folds: fitted on all users but those of the fold.
        fold_of: fold of each user of the log.
        centres: middle of each bin of the trend channel; empty without one.
        persistence: how much of a trend is left one bin later.
    """

    whole: View
    folds: tuple[View, ...]
    fold_of: Int64[np.ndarray, " users"]
    centres: Float64[Tensor, " bins"]
    persistence: float


def cross_fit(
    log: Interactions,
    liked: np.ndarray,
    vectors: Float[Tensor, "items text_dim"],
    config: MetaConfig,
    rng: np.random.Generator,
    given: FactorPair | None = None,
) -> Views:
    """Fit factors on all users and, for each fold, on all others.

    Args:
        log: histories.
        liked: True where an interaction is a liking; only those enter factors and counts.
        vectors: text vectors, on the device where the work is done.
        config: settings.
        rng: draws the folds and the start of the low-rank iteration.
        given: factors of a host, used in every view in place of the symmetric channel.
    """
    n_items, device = len(vectors), vectors.device
    settings = config.factors if given is None else replace(config.factors, symmetric_rank=0)
    host = {} if given is None else {"host": FactorPair(given.support.to(device), given.item.to(device))}
    positive = log.where(liked)
    fold_of = rng.permutation(len(log)) % config.training.folds
    fitted = fitted_items(np.bincount(positive.items, minlength=n_items), settings.max_items)
    clock = positive.timestamps
    edges = np.empty(0) if clock is None else trend.edges_of(clock, settings.trend_bins)
    parts: list[Moments] = []
    for fold in range(config.training.folds):
        part = positive.take(np.flatnonzero(fold_of == fold))
        stats = moments(part.items, part.weights, part.offsets, fitted, n_items, settings)
        if len(edges) and part.timestamps is not None:
            stats = replace(stats, by_time=trend.counts_by_time(part.items, part.timestamps, edges, n_items))
        parts.append(stats)
    total = parts[0]
    for part_stats in parts[1:]:
        total = total.plus(part_stats)
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def view(stats: Moments) -> View:
        pairs = host | fit_pairs(stats, fitted, settings, torch_rng, device)
        if stats.by_time is not None:
            found = trend.vectors_of(torch.from_numpy(stats.by_time)).to(device)
            pairs[trend.CHANNEL] = FactorPair(torch.zeros_like(found), found)  # a user is not read from items here
        near = fit_neighbours(stats.common, settings.neighbours).to(device)
        counts = stats.counts * (total.counts.sum() / max(1.0, stats.counts.sum()))  # as if the view had all users
        return View(pairs, near, torch.from_numpy(counts).to(device), vectors)

    centres = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
    persistence = 0.0 if total.by_time is None else trend.persistence_of(torch.from_numpy(total.by_time))
    folds = tuple(view(total.minus(part_stats)) for part_stats in parts)
    return Views(view(total), folds, fold_of, centres, persistence)
