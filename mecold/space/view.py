"""A catalogue as a set of users shows it: what they did is counted, and channels and neighbour lists are made of the counts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from mecold.data.interactions import Interactions
from mecold.lazy import cached_property
from mecold.space.basis import Basis
from mecold.space.channel import Channels
from mecold.space.channels import MAKERS, trend
from mecold.space.lists import Lists, fit_lists
from mecold.space.making import Material, Sides, made_of
from mecold.space.settings import FactorConfig
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
class Survey:
    """A log, and what all views of it share. The same log, settings and state of the draws give the same view.

    Args:
        log: what was liked.
        items: size of the catalogue.
        config: settings.
        draws: the starts of low-rank iterations, of one view after the other.
        given: factors of a host, used in every view in place of the symmetric channel.
        groups: number of groups of each attribute of the users.
    """

    log: Interactions
    items: int
    config: FactorConfig
    draws: torch.Generator
    given: Sides | None = None
    groups: tuple[int, ...] = ()

    @cached_property
    def factored(self) -> Int64[np.ndarray, " some"]:
        """Items that anybody has touched."""
        return np.unique(self.log.items)

    @cached_property
    def edges(self) -> Float64[np.ndarray, " edges"]:
        """Of the bins of time; empty where there is no clock, or too little to cut."""
        clock = self.log.timestamps
        return np.empty(0) if clock is None else trend.edges_of(clock, self.config.trend_bins)

    @cached_property
    def total(self) -> Statistics:
        """Of all users."""
        return self.counted(self.log)

    @cached_property
    def _persistence(self) -> float:
        by_time = self.total.by_time
        return 0.0 if by_time is None else trend.persistence_of(torch.from_numpy(by_time))

    def without(self, users: Int64[np.ndarray, " some"]) -> Statistics:
        """Of all users but these."""
        return self.counted(self.log.take(np.setdiff1d(np.arange(len(self.log)), users)))

    def counted(self, log: Interactions) -> Statistics:
        """Of some users' log."""
        stats = Statistics.of(log.items, log.offsets, self.items)
        if len(self.edges) and log.timestamps is not None:
            by_time = trend.counts_by_time(log.items, log.timestamps, self.edges, self.items)
            stats = replace(stats, by_time=by_time)
        if log.events.goals:
            goals = np.bincount(log.items[log.goal], minlength=self.items).astype(np.float32)
            stats = replace(stats, goals=goals)
        return replace(stats, by_group=_by_group(log, self.items, sum(self.groups))) if self.groups else stats

    def view(self, stats: Statistics, text: Float[Tensor, "items rank"], basis: Basis) -> View:
        """What these statistics show.

        Args:
            stats: of all users, or some.
            text: half-whitened texts, on the device where the work is done.
            basis: the scales.
        """
        scaled = stats.counts * (self.total.counts.sum() / max(1.0, stats.counts.sum()))
        material = self._material(stats, torch.from_numpy(scaled).to(text.device), text, basis)
        lists = fit_lists(stats.recent(), self.config.neighbours).to(text.device)
        return View(made_of(MAKERS, material), lists, material.counts)

    def updated(self, space: ItemSpace, before: Interactions, after: Interactions, basis: Basis) -> ItemSpace:
        """A space of this log, some of whose users have gone on: what is made of counts alone is made anew.

        New items keep what is guessed of them.

        Args:
            space: of this log; it may hold new items beyond.
            before: what these users liked in this log.
            after: what they like now; among them may be users whom the log does not know.
            basis: the scales.
        """
        stats = self.total.changed(self.counted(before), self.counted(after))
        counts = torch.from_numpy(stats.counts).to(space.device)
        every = torch.arange(len(space), device=space.device)
        light = {name: maker for name, maker in MAKERS.items() if maker.counted and name in space.channels}
        made = made_of(light, self._material(stats, counts, space.text_of(every), basis))
        channels = {
            name: replace(old, item=torch.where(space.new[:, None], old.item, made[name].item)) if name in made else old
            for name, old in space.channels.items()
        }
        return replace(space, channels=channels, counts=torch.where(space.new, 0.0, counts))

    def _material(self, stats: Statistics, counts: Tensor, text: Tensor, basis: Basis) -> Material:
        return Material(
            stats, counts, text, basis, self.config, self.factored, self.edges, self._persistence,
            self.draws, self.given, {}, self.groups,
        )  # fmt: skip


def _by_group(log: Interactions, n_items: int, width: int) -> Float32[np.ndarray, "items groups"]:
    """Users of each group who touched each item."""
    counts = np.zeros((n_items, width), np.float32)
    own_groups = [] if log.groups is None else [log.groups[log.owners]]
    of_rows = np.concatenate([*own_groups, *([] if log.moments is None else [log.moments])], axis=1)
    for own in of_rows.T:
        known = own >= 0
        np.add.at(counts, (log.items[known], own[known]), 1.0)
    return counts
