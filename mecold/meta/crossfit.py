"""Cross-fitting: item spaces whose factors and counts never saw the users that are scored with them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mecold.data.interactions import Interactions
from mecold.meta.config import MetaConfig
from mecold.space.basis import Basis
from mecold.space.channel import Channels
from mecold.space.channels import MAKERS, trend
from mecold.space.lists import Lists, fit_lists
from mecold.space.making import Material, Sides, made_of
from mecold.space.space import ItemSpace, with_newcomers
from mecold.space.statistics import Statistics


@dataclass(frozen=True)
class View:
    """A catalogue as one set of users shows it.

    Args:
        channels: by name; texts are one tensor in all views.
        lists: neighbour lists.
        counts: users per item, as if the view had all users.
    """

    channels: Channels
    lists: Lists
    counts: Float[Tensor, " items"]

    def space(self, basis: Basis) -> ItemSpace:
        """The item space, in which items that this view never saw have what their lookalikes have."""
        return with_newcomers(self.channels, self.lists, self.counts, basis)


@dataclass(frozen=True)
class Views:
    """One space per fold, without that fold's users, to learn from; and a view of all users, to deploy, made last.

    Args:
        folds: spaces fitted on all users but those of the fold.
        fold_of: fold of each user of the log.
        basis: scales, fitted on all users.
        statistics: of all users.
        whole: makes the view of all users; once.
    """

    folds: tuple[ItemSpace, ...]
    fold_of: Int64[np.ndarray, " users"]
    basis: Basis
    statistics: Statistics
    whole: Callable[[], View]


def cross_fit(
    log: Interactions,
    liked: np.ndarray,
    vectors: Float[Tensor, "items text_dim"],
    config: MetaConfig,
    rng: np.random.Generator,
    given: Sides | None = None,
    groups: tuple[int, ...] = (),
) -> Views:
    """Fit channels for each fold on all users but its own.

    Args:
        log: histories.
        liked: True where an interaction is a liking; only those enter factors and counts.
        vectors: text vectors, on the device where the work is done.
        config: settings.
        rng: draws the folds and the start of the low-rank iteration.
        given: factors of a host, used in every view in place of the symmetric channel.
        groups: number of groups of each attribute of the users.
    """
    n_items, device, settings = len(vectors), vectors.device, config.factors
    if given is not None:
        given = Sides(None if given.support is None else given.support.to(device), given.item.to(device))
    positive = log.where(liked)
    fold_of = rng.permutation(len(log)) % config.training.folds
    factored = np.unique(positive.items)
    clock = positive.timestamps
    edges = np.empty(0) if clock is None else trend.edges_of(clock, settings.trend_bins)

    def counted(log: Interactions) -> Statistics:
        stats = Statistics.of(log.items, log.offsets, n_items)
        if len(edges) and log.timestamps is not None:
            stats = replace(stats, by_time=trend.counts_by_time(log.items, log.timestamps, edges, n_items))
        if log.events.goals:
            stats = replace(stats, goals=np.bincount(log.items[log.goal], minlength=n_items).astype(np.float32))
        return replace(stats, by_group=_by_group(log, n_items, sum(groups))) if groups else stats

    total = counted(positive)
    draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
    basis = Basis.fit(vectors, torch.from_numpy(total.counts), config.text_rank)
    text = basis.text(vectors)
    persistence = 0.0 if total.by_time is None else trend.persistence_of(torch.from_numpy(total.by_time))

    def view(stats: Statistics) -> View:
        scaled = stats.counts * (total.counts.sum() / max(1.0, stats.counts.sum()))
        counts = torch.from_numpy(scaled).to(device)
        material = Material(
            stats, counts, text, basis, settings, factored, edges, persistence, draws, given, {}, groups
        )
        channels = made_of(MAKERS, material)
        return View(channels, fit_lists(stats.recent(), settings.neighbours).to(device), counts)

    others = (np.flatnonzero(fold_of != fold) for fold in range(config.training.folds))
    folds = tuple(view(counted(positive.take(users))).space(basis) for users in others)
    return Views(folds, fold_of, basis, total, lambda: view(total))


def _by_group(log: Interactions, n_items: int, width: int) -> Float32[np.ndarray, "items groups"]:
    """Users of each group who touched each item."""
    counts = np.zeros((n_items, width), np.float32)
    own_groups = [] if log.groups is None else [log.groups[log.owners]]
    of_rows = np.concatenate([*own_groups, *([] if log.moments is None else [log.moments])], axis=1)
    for own in of_rows.T:
        known = own >= 0
        np.add.at(counts, (log.items[known], own[known]), 1.0)
    return counts
